"""Sums per image, on which the certificate rests."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.excitation_backprop.competition import Competition
from torchxnn.attribution.excitation_backprop.linear_map import LinearMap
from torchxnn.attribution.excitation_backprop.owners import precise_sum, shared_out, sum_by_owner
from torchxnn.attribution.excitation_backprop.rules.table import RULES
from torchxnn.errors import AttributionWarning


def literal_sums(relevance, owner, images):
    sums = torch.zeros(relevance.shape[0], images, dtype=torch.float64)
    for seed, values in enumerate(relevance):
        for value, image in zip(values.flatten(), owner.flatten(), strict=True):
            if image > 0:
                sums[seed, int(image) - 1] += float(value)
    return sums


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_sums_by_owner_are_those_of_a_loop(seed, mixed, channels_last):
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.randn(2, 3, 4, 2, 5, generator=generator)
    if channels_last:
        relevance = relevance.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        relevance = relevance.unflatten(0, (2, 3))
    if mixed:
        owner = torch.randint(0, 4, (3, 4, 2, 5), generator=generator)
    else:
        owner = torch.arange(1, 4).reshape(3, 1, 1, 1).expand(3, 4, 2, 5)
    sums = sum_by_owner(relevance, owner, 3)
    assert sums.dtype == torch.float64
    # What float32 may lose in a sum: half a unit in the last place of all that is added, per add.
    lost = torch.finfo(torch.float32).eps * literal_sums(relevance.abs(), owner, 3)
    assert bool(((sums - literal_sums(relevance, owner, 3)).abs() <= lost).all())
    exact = sum_by_owner(relevance.double(), owner, 3)
    torch.testing.assert_close(exact, literal_sums(relevance, owner, 3), rtol=1e-12, atol=1e-12)


def test_owners_keep_only_the_dimensions_along_which_they_vary():
    image = torch.arange(1, 4).reshape(3, 1, 1)
    assert shared_out(image.expand(3, 5, 7)).shape == (3, 1, 1)
    assert shared_out(image.expand(3, 5, 7).contiguous()).shape == (3, 1, 1)
    one_constant = image.expand(3, 5, 7).clone()
    one_constant[1, 2] = 0
    assert shared_out(one_constant).shape == (3, 5, 1)


def test_long_sums_stay_precise():
    values = torch.full((1, 1, 3000, 1000), 0.1)
    total = precise_sum(values, [1, 2, 3])
    assert abs(float(total) / (3e6 * float(values[0, 0, 0, 0])) - 1) < 3e-7


def test_units_without_agreeing_input_lose_only_what_they_received():
    weight = torch.tensor([[1.0, -1.0], [2.0, -3.0]])  # the second unit has no agreeing input
    linear = LinearMap(lambda x, w: x @ w, lambda q, w: q @ w.mT, weight)
    x = torch.tensor([[1.0, 3.0]])
    noted = []

    def note(lost):
        noted.append(lost)
        return lost

    competition = Competition(linear, x, None)
    silent = torch.tensor([[[1.0, 0.0]]])
    torch.testing.assert_close(
        competition.pass_down(silent, False, note), torch.tensor([[[1 / 7, 6 / 7]]])
    )
    assert noted == []
    given_relevance = torch.tensor([[[0.5, 0.5]]])
    kept = given_relevance.clone()
    passed = competition.pass_down(given_relevance, False, note)
    expected = 0.5 * torch.tensor([1 / 7, 6 / 7]) + 0.5 * torch.tensor([0.1, 0.9])
    torch.testing.assert_close(passed[0, 0], expected)
    torch.testing.assert_close(noted[0], torch.tensor([[[0.0, 0.5]]]))
    assert torch.equal(given_relevance, kept)


def test_a_certificate_counts_relevance_that_a_layer_loses():
    """The ledger is kept from sums of what is there, so a rule that loses some is found out."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    images = torch.randn(2, 3, 8, 8)
    method = ExcitationBackprop(model, contrastive=False)
    _, right = method.attribute(images, 1, return_certificate=True)
    assert right.conservation_error < 1e-5
    rule = RULES["relu"]

    def leaky(operation, relevance, walk):
        return [(value, 0.9 * share) for value, share in rule.propagate(operation, relevance, walk)]

    RULES["relu"] = replace(rule, propagate=leaky)
    try:
        with pytest.warns(AttributionWarning, match="conserved only"):
            _, wrong = method.attribute(images, 1, return_certificate=True)
    finally:
        RULES["relu"] = rule
    assert abs(wrong.conservation_error - 0.1) < 1e-4


def test_a_unit_that_nothing_speaks_against_has_a_contrastive_map():
    """All contributions agree: MWP (1/7, 6/7) minus the share of activity (1/4, 3/4)."""

    class Picture(nn.Module):
        def __init__(self):
            super().__init__()
            self.unit = nn.Linear(2, 1)
            self.unit.weight.data = torch.tensor([[1.0, 2.0]])

        def forward(self, images):
            return self.unit(images.flatten(1))

    images = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    found, certificate = ExcitationBackprop(Picture()).attribute(images, 0, return_certificate=True)
    expected = torch.tensor([1 / 7 - 1 / 4, 6 / 7 - 3 / 4])
    torch.testing.assert_close(found.flatten(), expected)
    assert certificate.fallback_share == 0
    assert certificate.conservation_error < 1e-6
