from dataclasses import replace

import pytest
import torch

from torchxnn.data.activations import Activations
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.components import find_components, match, read_logits
from torchxnn.errors import XNNError
from torchxnn.explanations.sentences import account_for
from torchxnn.training.fit import fit_embedding
from training_examples import QUICK, make_data, many_classes

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning")


def matched(embedding, data, target=2, n=3):
    """How far the fitted contributions follow the components, among the positives."""
    own = data.labels == target
    components = find_components(data.z, read_logits(data.z, data.logits), target, own, n)
    contributions = (embedding.encode(data.z) * embedding.readout.weight[0]).detach()
    wanted = components.contributions(data.z)[own].double()
    return float(match(contributions[own].double(), wanted)[1].mean())


def test_x_features_stay_near_the_components_and_reproduce_the_logit():
    data, validation = many_classes(count=600, seed=0), many_classes(count=600, seed=1)
    config = replace(QUICK, epochs=40, patience=40)
    near, report = fit_embedding(data, validation, [2], 3, config)
    free, plain = fit_embedding(data, validation, [2], 3, replace(config, components=0.0))
    assert matched(near, data) > max(0.75, matched(free, data) + 0.1)
    assert report.validation.r2 > plain.validation.r2 - 0.02
    assert 0 < report.validation_losses.components < 0.2
    assert plain.validation_losses.components == 0
    assert len(report.found_again) == 3
    assert all(0 <= share <= 1 for share in report.found_again)
    assert plain.found_again == ()


@pytest.mark.parametrize(
    ("targets", "changes"),
    [([1, 2], {}), ([2], {"components": 0.0}), ([2], {"faithful": False, "split_logit": False})],
)
def test_without_one_faithful_target_there_are_no_components(targets, changes):
    data = many_classes()
    _, report = fit_embedding(data, many_classes(seed=1), targets, 3, replace(QUICK, **changes))
    assert report.found_again == ()
    assert report.train_losses.components == 0


def test_positives_that_hardly_vary_are_fitted_without_components():
    data = make_data()
    z = data.z.clone()
    z[data.labels == 1] = z[data.labels == 1][:1]  # the same image again and again
    flat = Activations(z, data.logits, data.labels)
    _, report = fit_embedding(flat, flat, [1], 3, replace(QUICK, epochs=2))
    assert report.found_again == ()


def test_components_that_explode_on_other_images_are_left_out():
    """A network made by hand was fitted with an R² of -450: its images of a class hardly differ."""
    data = many_classes(count=600)
    own = data.labels == 2
    z = data.z.clone()
    mean = z[own].mean(0)
    spread = z[own] - mean
    z[own] = mean + spread * torch.where((torch.arange(20) - 6).abs() < 2, 1.0, 1e-5)
    logits = data.logits.clone()
    logits[own] = z[own] @ torch.linalg.lstsq(data.z, data.logits).solution
    close = Activations(z, logits, data.labels)
    _, report = fit_embedding(close, close, [2], 3, replace(QUICK, epochs=20, patience=20))
    assert report.found_again == ()
    assert "times as much over all images as the logit" in report.not_resampled
    assert report.validation.r2 > 0.5


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_weight_out_of_range_is_refused_before_anything_is_fitted(weight):
    with pytest.raises(XNNError, match=f"components must not be negative, got {weight}"):
        fit_embedding(make_data(), None, [1], 3, replace(QUICK, components=weight))


def reasons(found):
    return [[member.name for member in reason.members] for reason in found]


def test_the_same_seed_gives_the_same_explanation_for_any_number_of_threads():
    data, validation = many_classes(seed=0), many_classes(seed=1)
    threads, told = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            embedding, report = fit_embedding(data, validation, [2], 3, replace(QUICK, epochs=20))
            told.append((embedding, apply_embedding(embedding, data.z), report))
    finally:
        torch.set_num_threads(threads)
    (first, one, of_one), (second, two, of_two) = told
    assert of_one.found_again == of_two.found_again
    assert of_one.validation.active == of_two.validation.active
    # to the figures that are shown: contributions and logits .1, shares 1%
    for value, other in (
        (one.contributions, two.contributions),
        (one.reproduced, two.reproduced),
        (first.intercept, second.intercept),
    ):
        assert torch.allclose(value, other, atol=5e-3)
    names = ["wing", "tail", "beak"]
    accounts = [
        [
            account_for(
                names,
                each.contributions[image, 0].tolist(),
                intercept=float(embedding.intercept.detach()),
                logit=float(data.logits[image, 2]),
                target="bird",
                predicted="bird",
            )
            for image in (data.labels == 2).nonzero().flatten()
        ]
        for embedding, each in ((first, one), (second, two))
    ]
    for here, there in zip(*accounts, strict=True):
        assert reasons(here.reasons) == reasons(there.reasons)
        assert reasons(here.objections) == reasons(there.objections)
        for each, other in zip(here.reasons, there.reasons, strict=True):
            assert each.share == pytest.approx(other.share, abs=5e-3)
    said = [[account.sentence() for account in each] for each in accounts]
    assert sum(a == b for a, b in zip(*said, strict=True)) >= 0.9 * len(said[0])
