"""Sums per image, on which the certificate rests."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.excitation_backprop.competition import Competition
from torchxnn.attribution.excitation_backprop.linear_map import LinearMap
from torchxnn.attribution.excitation_backprop.owners import Owner, precise_sum, sum_by_owner
from torchxnn.attribution.excitation_backprop.prepared import prepare
from torchxnn.attribution.excitation_backprop.propagation import Walk
from torchxnn.attribution.excitation_backprop.rules.table import RULES
from torchxnn.attribution.excitation_backprop.tracing import record
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
    found = Owner(owner.shape, None, 3, tensor=owner)
    sums = sum_by_owner(relevance, found, 3)
    assert sums.dtype == torch.float64
    # What float32 may lose in a sum: half a unit in the last place of all that is added, per add.
    lost = torch.finfo(torch.float32).eps * literal_sums(relevance.abs(), owner, 3)
    assert bool(((sums - literal_sums(relevance, owner, 3)).abs() <= lost).all())
    exact = sum_by_owner(relevance.double(), found, 3)
    torch.testing.assert_close(exact, literal_sums(relevance, owner, 3), rtol=1e-12, atol=1e-12)


def test_owners_keep_only_the_dimensions_along_which_they_vary():
    image = torch.arange(1, 4).reshape(3, 1, 1)
    assert Owner((3, 5, 7), None, 3, tensor=image.expand(3, 5, 7)).compact.shape == (3, 1, 1)
    assert Owner((3, 5, 7), None, 3, tensor=image.expand(3, 5, 7).contiguous()).compact.shape == (
        3,
        1,
        1,
    )
    one_constant = image.expand(3, 5, 7).clone()
    one_constant[1, 2] = 0
    assert Owner((3, 5, 7), None, 3, tensor=one_constant).compact.shape == (3, 5, 1)


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


@contextmanager
def corrupted(name, change):
    """The rule of an operation with something done to what it hands on."""
    rule = RULES[name]

    def propagate(operation, relevance, walk):
        return [(v, change(share)) for v, share in rule.propagate(operation, relevance, walk)]

    RULES[name] = replace(rule, propagate=propagate)
    try:
        yield
    finally:
        RULES[name] = rule


def two_layers(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(8, 3)).eval(), torch.randn(2, 3, 8, 8)


def _in_place(share):
    return share.mul_(0.9)


def _one_channel(share):
    kept = share.clone()
    if share.ndim == 5:
        kept[:, :, 0] *= 0.5
    return kept


def literal_error(model, images, targets):
    """Largest |sum - 1| over all units, duals and cuts: each of them is carried by itself."""
    (tape,) = record(model, images)
    with torch.no_grad():
        prepared = prepare(tape, certify=True)
        walk = Walk(prepared, contrastive=True, beside=True, one_by_one=True, free=True)
        seeds = torch.eye(3)[targets][:, None].expand(-1, len(images), -1).clone()
        walk.run(seeds, tape.images)
    return walk.account.error


@pytest.mark.parametrize("targets", [[1], [0, 1, 2]])
@pytest.mark.parametrize("change", [lambda share: 0.9 * share, _in_place, _one_channel])
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_a_contrastive_certificate_counts_what_a_rule_loses(change, targets):
    """Whatever is carried beside the differences: a large error is that of each unit and dual."""
    model, images = two_layers()
    with corrupted("relu", change):
        found = ExcitationBackprop(model).attribute_many(images, targets, return_certificate=True)
        expected = literal_error(model, images, targets)
    assert expected > 0.02
    assert found[1].conservation_error == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [1e-5, -1e-5])
def test_a_small_loss_is_never_told_smaller_than_it_is(loss):
    model, images = two_layers()
    model, images = model.double(), images.double()
    for targets in ([1], [0, 1, 2]):
        with corrupted("relu", lambda share: (1 - loss) * share):
            method = ExcitationBackprop(model)
            _, certificate = method.attribute_many(images, targets, return_certificate=True)
        # Two ReLUs. The witness is the sum over the targets.
        assert certificate.conservation_error == pytest.approx(2e-5 * len(targets), rel=1e-3)
    method.attribute_many(images, [0, 1, 2])
    _, certificate = method.attribute_many(images, [0, 1, 2], return_certificate=True)
    assert certificate.conservation_error < 1e-12


def test_a_loss_of_the_dual_alone_is_counted():
    """Half the difference's sum and what the witness lost are the dual's whole loss."""
    model, images = two_layers()
    rule = RULES["addmm"]

    def propagate(operation, relevance, walk):
        shares = rule.propagate(operation, relevance, walk)
        if walk._crossing:  # what is carried from here: the difference, and the witness
            ((value, share),) = shares
            unit, dual = share[1:] + share[:1] / 2, (share[1:] - share[:1] / 2) * (1 - 1e-5)
            shares = [(value, torch.cat([unit - dual, (unit + dual) / 2]))]
        return shares

    RULES["addmm"] = replace(rule, propagate=propagate)
    try:
        method = ExcitationBackprop(model.double())
        _, certificate = method.attribute(images.double(), 1, return_certificate=True)
    finally:
        RULES["addmm"] = rule
    assert certificate.conservation_error == pytest.approx(1e-5, rel=1e-4)


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
