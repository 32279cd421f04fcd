"""What a group shares instead of looping over its fits: optimiser, draws, components."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch

from device_examples import opened
from pretended_device import counted_waits, pretended_devices
from torchxnn.data.activations import Activations
from torchxnn.errors import DegenerateFitWarning
from torchxnn.training import components, slots
from torchxnn.training.config import ComputeConfig
from torchxnn.training.fit import fit_embedding, fit_group
from torchxnn.training.slots import bytes_per_fit, count_slots
from torchxnn.training.split import Split
from torchxnn.training.stacked_adam import StackedAdam
from torchxnn.training.stacked_split import Draws
from torchxnn.training.trial import Group
from training_examples import QUICK, distance, make_data, many_classes

pytestmark = pytest.mark.usefixtures("few_starts")


def fit_all(data, validation, targets, config, n=3, **compute):
    found = {}
    wanted = [(target,) for target in targets]
    settings = ComputeConfig(**compute)
    fit_group(data, validation, wanted, n, config, settings, found.__setitem__)
    return [found[position] for position in range(len(targets))]


# --- the optimiser ---------------------------------------------------------------------------


def stacked_values(fits):
    torch.manual_seed(0)
    shapes = {"encoder.0.weight": (4, 3), "encoder.0.bias": (3,), "readout.weight": (3, 1)}
    return {name: torch.randn(fits, *shape).double() for name, shape in shapes.items()}


def test_adam_of_a_stack_is_adam_of_each():
    """Other learning rates, one that is set anew, one that comes later, names without gradients."""
    values = stacked_values(3)
    singles = [{name: each[fit].clone() for name, each in values.items()} for fit in range(3)]
    own = [
        torch.optim.Adam(single.values(), lr=0.1, weight_decay=0.01, foreach=False)
        for single in singles
    ]
    stacked, together = StackedAdam(values, 0.01), [0, 1, 2]
    for step in range(9):
        if step == 3:
            stacked.forget(1, ("readout.",))
            own[1].state.pop(singles[1]["readout.weight"])
        if step == 6:  # the last one's slot is given to another
            values = {name: torch.cat([each[:2], each[:1]]) for name, each in values.items()}
            before, stacked = stacked, StackedAdam(values, 0.01)
            stacked.take_over(before, [0, 1])
            singles[2] = {name: each[0].clone() for name, each in values.items()}
            own[2] = torch.optim.Adam(singles[2].values(), lr=0.1, weight_decay=0.01)
        rates = [0.1, 0.1, 0.1] if step < 5 else [0.1, 0.01, 0.1]
        gradients = {name: torch.randn_like(each) for name, each in values.items()}
        if step == 8:
            gradients["encoder.0.bias"] = None
        for fit in together:
            own[fit].param_groups[0]["lr"] = rates[fit]
            for name, parameter in singles[fit].items():
                parameter.grad = None if gradients[name] is None else gradients[name][fit].clone()
            own[fit].step()
        stacked.step(gradients, rates)
        for fit in together:
            for name, parameter in singles[fit].items():
                torch.testing.assert_close(values[name][fit], parameter, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("width", "expected"), [(16, [3, 5, 6, 3]), (15, [5, 5, 6, 3])])
def test_fits_in_step_share_one_operation(monkeypatch, width, expected):
    """A parameter that does not fill registers has an entry per fit on a CPU, for equal bits."""
    sizes = {"encoder.0.weight": (4, 4), "encoder.0.bias": (16,), "readout.weight": (width, 1)}
    values = {name: torch.randn(3, *size) for name, size in sizes.items()}
    stacked, entries = StackedAdam(values, 0.0), []
    ordinary = torch._fused_adam_

    def counted(parameters, *rest, **settings):
        entries.append(len(parameters))
        return ordinary(parameters, *rest, **settings)

    monkeypatch.setattr(torch, "_fused_adam_", counted)
    gradients = {name: torch.ones_like(each) for name, each in values.items()}
    stacked.step(gradients, [0.1] * 3)
    stacked.forget(0, ("readout.",))
    stacked.step(gradients, [0.1] * 3)
    stacked.step(gradients, [0.1, 0.1, 0.2])
    assert entries == expected


# --- draws -----------------------------------------------------------------------------------


def split_of(weights):
    data = Activations(torch.rand(len(weights), 2), torch.rand(len(weights), 1), None)
    positives = torch.zeros(len(weights), 1, dtype=torch.bool)
    return Split(data, data.logits, positives, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_those_of_multinomial(dtype):
    """To the last sample, with zero weights among them; each fit has its own numbers."""
    torch.manual_seed(0)
    weights = [torch.rand(1500, dtype=dtype) for _ in range(2)]
    weights[0][::3] = 0
    weights = [each / each.sum() for each in weights]
    generators = [torch.Generator().manual_seed(fit) for fit in range(2)]
    draws = Draws([split_of(w) for w in weights], generators, torch.device("cpu"))
    found = [draws.draw(50, 40) for _ in range(2)]
    assert found[0].shape == (50, 2, 40)
    for fit, weight in enumerate(weights):
        generator = torch.Generator().manual_seed(fit)
        for epoch in found:
            expected = torch.multinomial(weight, 2000, replacement=True, generator=generator)
            assert torch.equal(epoch[:, fit].flatten(), expected)
            assert (weight[expected] > 0).all()


# --- components of some fits alone -------------------------------------------------------------


def test_fits_with_and_without_components_go_together(monkeypatch):
    """One without components was held near those of another, or all of them near none."""
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    ordinary = components.find_components

    def some(z, readout, target, *rest):
        if target == 2:
            raise components.DataError("none for this one")
        return ordinary(z, readout, target, *rest)

    monkeypatch.setattr(components, "find_components", some)
    for targets in ([2, 0], [0, 2], [0, 2, 1]):
        config = replace(QUICK, revive=2)
        together = fit_all(data, validation, targets, config, slots=3)
        for target, (embedding, report) in zip(targets, together, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DegenerateFitWarning)
                expected, single = fit_embedding(data, validation, [target], 3, config)
            assert distance(embedding, expected) < 1e-6
            assert (report.validation_losses.components == 0) == (target == 2)
            assert report.validation_losses.total == pytest.approx(single.validation_losses.total)


# --- devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"subspace": 8}, {"pull_away": "cosine"}], ids=str)
def test_nothing_waits_for_the_device_within_an_epoch(change, monkeypatch):
    """One copy an epoch goes there, the random numbers; one table of losses comes back."""
    epochs, measured, ordinary = [], [], (Group.train_epoch, Group._held_out_losses)

    def train_epoch(self):
        with counted_waits() as waits:
            ordinary[0](self)
        epochs.append((len(self.fits), list(waits)))

    def losses(self):
        with counted_waits() as waits:
            found = ordinary[1](self)
        measured.append(list(waits))
        return found

    monkeypatch.setattr(Group, "train_epoch", train_epoch)
    monkeypatch.setattr(Group, "_held_out_losses", losses)
    config = replace(QUICK, epochs=2, revive=None, patience=5, **change)
    with pretended_devices() as device:
        fit_all(many_classes(), None, [0, 1, 2], config, device=str(device))
    assert [fits for fits, _ in epochs] == [3, 3]
    for _, waits in epochs:
        assert waits == ["to the device"]
    assert all(waits == ["from the device"] for waits in measured)


@pytest.mark.cuda
def test_cuda_says_that_nothing_waits_within_an_epoch(monkeypatch):
    ordinary = Group.train_epoch

    def train_epoch(self):
        torch.cuda.set_sync_debug_mode("error")
        try:
            ordinary(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Group, "train_epoch", train_epoch)
    with opened("cuda") as device:
        for change in ({}, {"subspace": 8}):
            config = replace(QUICK, epochs=3, **change)
            found = fit_all(many_classes(), None, [0, 1, 2], config, device=str(device))
            assert all(isinstance(each, tuple) for each in found)


def test_waits_are_counted():
    with pretended_devices() as device, counted_waits() as waits:
        there = torch.ones(3, device=device)
        assert waits == []
        there.to("cpu")
        torch.ones(2).to(device)
        float(there.sum())
        bool((there > 0).all())
        there[there > 0]
        there.nonzero()
        there.tolist()
        torch.ones(3).tolist()
    back = ["from the device"]
    assert waits == [*back, "to the device", *(back * 5)]


def test_slots_are_as_many_as_the_memory_of_a_gpu_holds(monkeypatch):
    data, config = make_data(), replace(QUICK, subspace=8)
    assert count_slots(ComputeConfig(slots=3), data, 5, config) == 3
    assert count_slots(ComputeConfig(), data, 5, config) == slots.CPU_SLOTS
    each = bytes_per_fit(data, 5, config)
    weights = 2 * (8 * 16 + 16 * 8 + 8 * 5) + 2 * (16 + 8 + 5)
    assert each == 4 * (6 * weights + 60 * (4 * (8 + 16 + 8 + 5) + 8 * 20) + 400 * 18)
    free = int(7.5 * each / slots.SHARE)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert count_slots(ComputeConfig(device="cuda"), data, 5, config) == 7
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    assert count_slots(ComputeConfig(device="cuda"), data, 5, config) == 1
    maps = replace(data, z=data.z[:, :, None, None])
    assert count_slots(ComputeConfig(slots=3), maps, 5, config) == 1


def test_the_best_of_every_fit_is_kept_where_others_go_on():
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    config = replace(QUICK, epochs=6, patience=2, learning_rate=0.05)
    seen = {}
    found = {}
    fit_group(
        data,
        validation,
        [(target,) for target in range(4)],
        3,
        config,
        ComputeConfig(slots=2),
        found.__setitem__,
        lambda place, trial, epoch, now: seen.setdefault(place, []).append(now.total),
    )
    for place, (_, report) in found.items():
        best = min(seen[place])
        if report.epochs > 1 and best == pytest.approx(report.validation_losses.total):
            break
    else:
        pytest.fail("no fit ended better than it began")
    for place, (_, report) in found.items():
        assert report.validation_losses.total <= min(seen[place]) + 1e-9
    assert copy.copy(seen).keys() == found.keys()
