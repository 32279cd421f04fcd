"""Scores against what was planted: by hand, against enumeration, and of the detectors."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchxnn.data.activations import Activations
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.planted import PlantedShapes
from torchxnn.data.record import record_activations
from torchxnn.data.removals import RecordedRemovals, record_removals
from torchxnn.embeddings.pca import PCAConcepts
from torchxnn.errors import DataError
from torchxnn.metrics.evaluation import measure_activations
from torchxnn.metrics.planted import (
    false_features,
    largest_things,
    match_things,
    place_score,
    planted_truth,
    score_planted,
    share_error,
    sign_score,
)
from torchxnn.models.planted import CLASSES, LAYER, THING_NAMES, WEIGHTS, planted_network


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def assignments(features, things):
    """Every way to give each x-feature another thing, or each thing another x-feature."""
    if features >= things:
        for rows in permutations(range(features), things):
            yield tuple(zip(rows, range(things), strict=True))
    else:
        for columns in permutations(range(things), features):
            yield tuple(zip(range(features), columns, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_sign_by_hand():
    profiles = table([2.0, 0.1], [0.3, 1.0])
    drop = table([1.0, -1.0])[0]
    pairs = match_things(profiles)
    assert pairs == ((0, 0), (1, 1))
    score = sign_score(profiles, drop, pairs)  # the second thing speaks against, its x-feature for
    assert (score.value, score.chance) == (0.5, 0.5)
    assert sign_score(profiles * drop, drop, pairs).value == 1


def test_shares_by_hand():
    """Reported .6 and .1 for .5 and .3; the third thing has no x-feature: (.1 + .2 + .2) / 3."""
    shares, truth = table([0.6, 0.1])[0], table([0.5, 0.3, 0.2])[0]
    score = share_error(shares, truth, ((0, 0), (1, 1)))
    assert score.value == pytest.approx(0.5 / 3)
    assert share_error(truth, truth, ((0, 0), (1, 1), (2, 2))).value == 0


@pytest.mark.parametrize(("features", "things"), [(3, 3), (4, 2), (2, 4)])
def test_chance_is_the_mean_over_all_assignments(features, things):
    generator = torch.Generator().manual_seed(features)
    profiles = torch.randn(features, things, generator=generator, dtype=torch.float64)
    drop = torch.randn(things, generator=generator, dtype=torch.float64)
    shares = torch.rand(features, generator=generator, dtype=torch.float64)
    truth = torch.rand(things, generator=generator, dtype=torch.float64)
    maps = torch.randn(5, features, 4, 4, generator=generator)
    masks = torch.randint(0, things + 2, (5, 4, 4), generator=generator)
    present = torch.stack([(masks == p + 1).flatten(1).any(1) for p in range(things)], 1)
    ways = list(assignments(features, things))
    for score in (
        lambda pairs: sign_score(profiles, drop, pairs),
        lambda pairs: share_error(shares, truth, pairs),
        lambda pairs: place_score(maps, masks, present, pairs, tuple(range(things)))[0],
    ):
        expected = mean(score(pairs).value for pairs in ways)
        assert score(ways[0]).chance == pytest.approx(expected)


def test_place_by_hand():
    """Thing 1 has the left column of the first image alone; a quarter of the map is negative."""
    masks = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 2]]])
    maps = torch.tensor([[[[3.0, 1.0], [0.0, -9.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    present = torch.tensor([[True, False], [False, True]])
    score, uniform = place_score(maps, masks, present, ((0, 0),), (0,))
    assert (score.value, uniform) == (0.75, 0.5)
    score, uniform = place_score(maps, masks, present, ((0, 1),), (0, 1))
    assert (score.value, uniform) == (0.25 / 2, (0.5 + 0.25) / 2)
    never = torch.cat([present, torch.zeros(2, 1, dtype=torch.bool)], 1)
    score, uniform = place_score(maps, masks, never, ((0, 0),), (0, 2))
    assert (score.value, uniform) == (0.75, 0.5)
    with pytest.raises(DataError, match="none of the images shows any"):
        place_score(maps, masks, never, ((0, 2),), (2,))


def test_false_features_by_hand():
    """Of three active x-features one is a reason, one the ignored thing, one a constant."""
    changes = torch.zeros(2, 2, 4, dtype=torch.float64)
    changes[:, 0, 0], changes[:, 1, 0] = 2.0, 0.5  # mostly the reason
    changes[:, 0, 1], changes[:, 1, 1] = 0.5, -2.0  # mostly what the logit ignores
    changes[:, 0, 2] = 0.1  # a constant of 3 that hardly moves
    changes[:, 1, 3] = 2.0  # ignored, but not active
    contributions = table([3.0, 3.0, 3.0, 0.1], [3.0, 3.0, 3.0, 0.1])
    shares = table([0.33, 0.33, 0.33, 0.01])[0]
    assert false_features(changes, contributions, shares, (0,)) == (1, 2)
    assert false_features(changes, contributions, shares, (0, 1)) == (2,)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_order_of_features_and_a_constant_change_no_score(seed, features, things):
    generator = torch.Generator().manual_seed(seed)
    profiles = torch.randn(features, things, generator=generator, dtype=torch.float64)
    drop = torch.randn(things, generator=generator, dtype=torch.float64)
    shares = torch.rand(features, generator=generator, dtype=torch.float64)
    truth = torch.rand(things, generator=generator, dtype=torch.float64)
    order = torch.randperm(features, generator=generator)
    for first, second in (
        (
            sign_score(profiles, drop, match_things(profiles)),
            sign_score(profiles[order], drop, match_things(profiles[order])),
        ),
        (
            share_error(shares, truth, match_things(profiles)),
            share_error(shares[order], truth, match_things(profiles[order])),
        ),
    ):
        assert first.value == pytest.approx(second.value)
        assert first.chance == pytest.approx(second.chance)


@pytest.fixture(scope="module")
def planted():
    network = planted_network().requires_grad_(False)
    shapes = PlantedShapes(90, seed=2, split="test")
    data = record_activations(network, LAYER, make_loader(shapes))
    return network, data, record_removals(network, LAYER, shapes, 0, most=20)


def detectors(network, things, weights):
    unmixed, constant = network.unmix()
    embedding = PCAConcepts(unmixed.shape[1], len(things))
    with torch.no_grad():
        embedding.encoder.weight.copy_(unmixed[things])
        embedding.encoder.bias.copy_(constant[things])
        embedding.readout.weight.copy_(torch.tensor([weights]))
        embedding.readout.bias.zero_()
    return embedding


def score(embedding, data: Activations, removals: RecordedRemovals):
    shares = measure_activations(embedding, data, (0,)).faithfulness.share[0]
    return score_planted(embedding, removals, 0, torch.tensor(shares))


def test_the_truth_is_what_was_planted(planted):
    _, _, removals = planted
    truth = planted_truth(removals, 0)
    assert [THING_NAMES[reason] for reason in truth.reasons] == [
        name for name in THING_NAMES if name in CLASSES[0].weights
    ]
    assert sum(truth.share) == pytest.approx(1)
    for reason in truth.reasons:
        assert truth.drop[reason] * float(WEIGHTS[0, reason]) > 0


def test_a_reason_that_all_drawn_images_show_is_still_a_reason(planted):
    network, _, removals = planted
    disc, floor = THING_NAMES.index("red disc"), THING_NAMES.index("cyan floor")
    showing = removals.present[:, disc]
    chosen = RecordedRemovals(**{name: values[showing] for name, values in vars(removals).items()})
    assert chosen.present[:, disc].all()
    truth = planted_truth(chosen, 0)
    assert disc in truth.reasons
    assert floor not in truth.reasons
    reasons = list(CLASSES[0].reasons)
    without = [reason for reason in reasons if reason != disc]
    embedding = detectors(network, without, WEIGHTS[0, without].tolist())
    scores = score_planted(embedding, chosen, 0, torch.full((len(without),), 0.25))
    assert scores.intervention.r2 < 0.9  # the change that the missing reason makes counts, too


def test_the_detectors_themselves_are_perfect(planted):
    network, data, removals = planted
    reasons = list(CLASSES[0].reasons)
    scores = score(detectors(network, reasons, WEIGHTS[0, reasons].tolist()), data, removals)
    assert scores.recovery.value == pytest.approx(1)
    assert scores.specificity == pytest.approx(1)
    assert (scores.sign.value, scores.against, scores.false_features) == (1, 1, ())
    assert scores.share.value < 0.05  # shares of the test images, not of those 20
    assert scores.intervention.r2 == pytest.approx(1, abs=1e-6)
    assert [reasons[row] for row, _ in sorted(scores.pairs)] == [t for _, t in sorted(scores.pairs)]


def test_what_is_no_reason_is_a_false_concept(planted):
    """The spurious thing, what nobody uses and the floor, read as if they were reasons."""
    network, data, removals = planted
    wrong = [THING_NAMES.index(n) for n in (CLASSES[0].spurious, "cyan disc", "cyan floor")]
    things = [*wrong, THING_NAMES.index("red disc")]
    scores = score(detectors(network, things, [3.0, 3.0, 3.0, 3.0]), data, removals)
    assert scores.false_features == (0, 1, 2)
    assert dict(scores.pairs)[3] == THING_NAMES.index("red disc")


def test_what_no_removal_changes_answers_to_no_thing(planted):
    network, _, removals = planted
    things = [THING_NAMES.index(name) for name in ("blue square", "red disc")]
    found = largest_things(detectors(network, things, [3.0, 0.0]), removals)
    assert found[0] == (things[0], pytest.approx(1))
    assert found[1] == (None, 0.0)


def test_a_wrong_sign_is_seen(planted):
    network, data, removals = planted
    reasons = list(CLASSES[0].reasons)
    scores = score(detectors(network, reasons, WEIGHTS[0, reasons].abs().tolist()), data, removals)
    assert scores.sign.value == pytest.approx(0.8)
    assert scores.against == 0
    assert scores.recovery.value < 1


def test_recovery_is_bounded_by_what_the_reasons_cause(planted):
    """Half of the detectors' weight is half of the causes; twice as much is no more credit."""
    network, data, removals = planted
    reasons = list(CLASSES[0].reasons)
    for factor in (0.5, 2.0):
        weights = (factor * WEIGHTS[0, reasons]).tolist()
        scores = score(detectors(network, reasons, weights), data, removals)
        assert scores.recovery.value == pytest.approx(0.5)
        assert scores.specificity == pytest.approx(1)
    still = score(detectors(network, reasons, [0.0] * len(reasons)), data, removals)
    assert (still.recovery.value, still.specificity) == (0, None)


def test_images_on_which_nothing_matters_have_no_truth(planted):
    _, _, removals = planted
    same = RecordedRemovals(
        **{
            **vars(removals),
            "logits_without": removals.logits.unsqueeze(1).expand_as(removals.logits_without),
        }
    )
    with pytest.raises(DataError, match="no thing changes the logit"):
        planted_truth(same, 0)
