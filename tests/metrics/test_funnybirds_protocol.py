"""The scores of the FunnyBirds protocol: by hand, and against literal versions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

import reference_funnybirds as literal
from torchxnn.errors import DataError
from torchxnn.metrics.funnybirds_protocol import (
    THRESHOLDS,
    PartImportances,
    background_independence,
    contrast_classes,
    contrast_holds,
    controlled_synthetic_data_check,
    deletion_check,
    distractibility,
    important_things,
    irrelevant_things,
    map_importances,
    minimal_sufficient_sets,
    part_importances,
    preservation_check,
    single_deletion,
    target_sensitivity,
)
from torchxnn.metrics.funnybirds_scores import ANCHORS, OfficialTally, Sums, official_scores

NAN = math.nan


def kinds(*rows):
    return torch.tensor([list(row) for row in rows])


def test_map_importances_by_hand():
    masks = torch.zeros(1, 12, 12, dtype=torch.int64)
    masks[0, 2, 2], masks[0, 9, 9], masks[0, 2, 11], masks[0, 11, 0] = 1, 5, 6, 8
    maps = torch.ones(1, 12, 12, dtype=torch.float64)
    maps[0, 0, 0] = -10.0  # inside the 5 x 5 pixels around part 1
    found = map_importances(maps, masks)
    assert found.parts.tolist() == [[14.0, 0.0, 0.0, 0.0, 25.0]]
    assert found.total.tolist() == [133.0]
    assert found.objects.tolist() == [[0.0, 9.0]]  # object 0 is not seen, object 1 in a corner


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_map_importances_against_a_literal_version(seed):
    generator = np.random.default_rng(seed)
    masks, maps = generator.integers(0, 9, (2, 7, 6)), generator.normal(size=(2, 7, 6))
    found = map_importances(torch.from_numpy(maps), torch.from_numpy(masks))
    numbers = [1, 2, 3, 4, 5, *range(7, masks.max() + 1)]
    for image in range(2):
        sums = []
        for number in numbers:
            total = 0.0
            for y in range(7):
                for x in range(6):
                    near = masks[image, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
                    total += maps[image, y, x] if number in near else 0.0
            sums.append(total)
        got = [*found.parts[image].tolist(), *found.objects[image].tolist()]
        assert got == pytest.approx(sums)
        assert found.total[image].item() == pytest.approx(maps[image].sum())


def test_importance_is_judged_against_the_sum_of_the_whole_explanation():
    explained = PartImportances(
        torch.tensor([[1.0, 0.0, -1.0, 30.0, 49.6]]).double(),
        torch.tensor([100.0]).double(),
        torch.tensor([[20.4]]).double(),
    )
    important = important_things(explained)
    assert important.shape == (80, 1, 6)
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (0.01, 0.5)
    assert important[0, 0].tolist() == [False, False, False, True, True, True]  # 1 is not above 1
    assert important[-1, 0].tolist() == [False] * 6
    assert important[:, 0, 3].sum() == sum(100 * t < 30.0 for t in THRESHOLDS)
    # Where the sum is negative, even no importance is above it.
    negative = PartImportances(torch.zeros(1, 5), torch.tensor([-1.0]), torch.zeros(1, 0))
    assert important_things(negative).all()


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.sampled_from([0.25, 2.0, 64.0]))
def test_the_unit_of_importances_does_not_matter(values, factor):
    parts = torch.tensor([values], dtype=torch.float64)
    both = (part_importances(parts), part_importances(parts * factor))
    assert torch.equal(*map(important_things, both))


def test_sufficient_sets_by_hand():
    # Class 0 differs from class 1 in the beak, and from class 2 in foot and tail.
    classes = kinds((0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 1, 1, 0))
    found = minimal_sufficient_sets(classes)
    assert found[0].tolist() == [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0]]
    assert found[1].tolist() == [[1, 0, 0, 0, 0]]
    assert found[2].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert len(minimal_sufficient_sets(kinds((0,) * 5, (0,) * 5))[0]) == 0


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 5), min_size=1, max_size=7))
def test_sufficient_sets_and_contrasts_against_literal_versions(classes):
    tensor = kinds(*classes)
    for target, sets in enumerate(minimal_sufficient_sets(tensor)):
        ours = {frozenset(row.nonzero().flatten().tolist()) for row in sets}
        assert ours == set(map(frozenset, literal.sufficient_sets(classes, target)))
        found, expected = contrast_classes(tensor, target), literal.contrast(classes, target)
        assert (found is None) == (expected is None)
        if found is not None:
            pairs = zip(found.classes, found.shared, strict=True)
            assert expected == tuple(
                (other, set(mask.nonzero().flatten().tolist())) for other, mask in pairs
            )


def test_controlled_synthetic_data_check_by_hand():
    sets = [torch.tensor([[1.0, 0, 1, 0, 0], [0, 1, 0, 1, 1]])] * 3
    important = torch.zeros(1, 3, 5, dtype=torch.bool)
    important[0, 0, 1:4] = True  # half of the first set, two thirds of the second
    important[0, 1, [0, 2]] = True
    scores = controlled_synthetic_data_check(important, sets)
    assert scores[0].tolist() == pytest.approx([2 / 3, 1, 0])
    assert controlled_synthetic_data_check(important, [torch.zeros(0, 5)] * 3).tolist() == [[0] * 3]


def test_preservation_and_deletion_by_hand():
    # Four subsets of two parts: none, the first, the second, both.
    predicted = torch.tensor([[0, 7, 0, 7], [3, 3, 3, 3]])
    important = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [1, 1]]]).bool()
    assert preservation_check(important, predicted).tolist() == [[1, 1], [0, 1]]
    assert deletion_check(important, predicted).tolist() == [[1, 0], [0, 0]]


def test_irrelevant_things_by_hand():
    logits = torch.tensor([10.0, -10.0])
    without = torch.tensor([[9.6, 9.4, 12.0, NAN], [-10.4, -10.6, -3.0, -10.5]])
    found = irrelevant_things(logits, without)
    assert found.tolist() == [[True, False, True, False], [True, False, True, False]]
    scores = background_independence(logits, without)
    assert scores[1].tolist() == [1, 0, 1, 0]
    assert scores[0, :3].tolist() == [1, 0, 1]
    assert scores[0, 3].isnan()


def test_distractibility_by_hand():
    important = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 1]]]).bool()
    irrelevant = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]]).bool()
    first, second = distractibility(important, irrelevant)[0].tolist()
    assert first == pytest.approx(2 / 3)
    assert math.isnan(second)


def test_single_deletion_by_hand():
    drops = torch.tensor([[1.0, 2, 3, 4, 5]] * 4)
    importances = torch.tensor(
        [[10.0, 20, 30, 40, 50], [5, 4, 3, 2, 1], [1, 1, 1, 1, 1], [2, 1, 3, 4, 5]]
    )
    found = single_deletion(importances, drops)
    # Two neighbours swapped: rho = 1 - 6 * 2 / (5 * 24) = 0.9.
    assert found[[0, 1, 3]].tolist() == pytest.approx([1, 0, 0.95])
    assert found[2].isnan()


@given(*[st.lists(st.integers(-3, 3), min_size=5, max_size=5)] * 2)
def test_single_deletion_is_spearman(first, second):
    found = single_deletion(torch.tensor([first]).float(), torch.tensor([second]).float()).item()
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx((spearmanr(first, second).statistic + 1) / 2)


def test_target_sensitivity_by_hand():
    contrast = contrast_classes(kinds((0,) * 5, (0, 0, 1, 1, 1), (1, 1, 0, 0, 1)), 0)
    assert contrast.classes == (1, 2)
    first = torch.tensor([[2.0, 1, 0, 0, 9], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    second = torch.tensor([[0.0, 2, 1, 0, 0], [1, 1, 0, 0, 0], [2, 0, 0, 1, 0]])
    # Equal importances are no evidence of sensitivity.
    assert target_sensitivity(first, second, contrast).tolist() == [[1, 1], [0, 0], [0, 0]]
    whole = torch.tensor([[5.0, 5.0]] * 3)
    less = torch.tensor([[1.0, 4.0], [1.0, 4.0], [4.0, 4.0]])
    other = torch.tensor([[4.0, 1.0], [4.0, 4.0], [4.0, 1.0]])
    assert contrast_holds(whole, less, other).tolist() == [True, False, False]


def tally(csdc=0.5, sd=(0.25, 1), ts=(1.0, 2), count=4):
    rising = tuple(count * i / 79 for i in range(80))
    return OfficialTally(
        accuracy=Sums((3.0,), count),
        csdc=Sums((csdc * count,) * 80, count),
        pc=Sums(rising, count),
        dc=Sums(tuple(reversed(rising)), count),
        d=Sums(tuple(-abs(i - 20) + 100.0 for i in range(80)), 100),
        bi=Sums((9.0,), 10),
        sd=Sums((sd[0],), sd[1]),
        ts=Sums((ts[0],), ts[1]),
        composed=Sums((30.0,), 40),
    )


def test_scores_by_hand():
    scores = official_scores(tally())
    # pc + dc is 1 everywhere, so the threshold is where distractibility is best.
    assert scores["official_threshold"] == THRESHOLDS[20]
    assert scores["official_d"] == 1.0
    assert scores["official_pc"] == pytest.approx(20 / 79)
    assert scores["official_completeness"] == pytest.approx((1.5 / 3 + 1) / 2)
    assert (scores["official_correctness"], scores["official_contrastivity"]) == (0.25, 0.5)
    assert scores["official_mean"] == pytest.approx((0.75 + 0.25 + 0.5) / 3)
    assert (scores["official_accuracy"], scores["official_bi"]) == (0.75, 0.9)
    assert scores["composed_share"] == 0.75
    assert official_scores(tally(), THRESHOLDS[79])["official_pc"] == 1.0
    with pytest.raises(DataError, match=r"no threshold 0\.3;"):
        official_scores(tally(), 0.3)


def test_tallies_are_added():
    both = tally(csdc=1.0, sd=(3.0, 4)) + tally(csdc=0.25, sd=(1.0, 4))
    scores = official_scores(both)
    assert scores["official_csdc"] == pytest.approx(0.625)
    assert scores["official_sd"] == 0.5
    assert both.d.count == 200


def test_nothing_to_count_is_nan():
    scores = official_scores(tally(ts=(0.0, 0)))
    assert math.isnan(scores["official_contrastivity"])
    assert math.isnan(scores["official_mean"])
    assert not math.isnan(scores["official_completeness"])
    sums = Sums.of(torch.tensor([[1.0, NAN, 3.0], [2.0, 2.0, 2.0]]))
    assert (sums.values, sums.count) == ((4.0, 4.0), 2)
    assert Sums.of(torch.zeros(80, 0)) == Sums((0.0,) * 80, 0)
    assert Sums.of(torch.zeros(0)) == Sums((0.0,), 0)


def test_anchors_are_the_published_ones():
    anchor = ANCHORS["Input x Gradient, ResNet-50"]
    names = ("completeness", "correctness", "contrastivity", "mean")
    rounded = [round(anchor[f"official_{name}"], 3) for name in names]
    assert rounded == [0.583, 0.546, 0.806, 0.645]
