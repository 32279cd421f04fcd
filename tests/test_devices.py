"""Every public path gives on another device what it gives on the CPU.

The pretended device runs everywhere; CUDA and MPS where they are (`pytest -m cuda`).
"""

import warnings
from dataclasses import replace

import pytest
import torch

from device_examples import DEVICES, opened
from pretended_device import OTHER, PRETENDED, device_of, pretended_devices
from torchxnn.errors import DegenerateFitWarning
from torchxnn.training.config import ComputeConfig
from torchxnn.training.initialise import VectorStarter
from torchxnn.training.many import fit_many
from training_examples import QUICK, distance, many_classes

pytestmark = [
    pytest.mark.usefixtures("few_starts"),
    pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning"),
]

REVIVING = replace(QUICK, subspace=8, components=0.0, revive=1, epochs=4, patience=2)
SHORT = replace(QUICK, epochs=1, pretrain_epochs=1)
FITS = {
    "ordinary": SHORT,
    "subspace": REVIVING,
    "relevance": replace(SHORT, relevance=1.0, trials=2, pull_away="cosine", subspace=8),
    "autoencoder": replace(SHORT, faithful=False, components=0.0, reconstruction="squared"),
}


@pytest.fixture(params=DEVICES)
def device(request):
    with opened(request.param) as found:
        yield found


# --- the pretended device itself --------------------------------------------------------------


def test_what_would_crash_on_cuda_crashes_on_the_pretended_device():
    here = torch.ones(3)
    with pretended_devices() as device:
        there = torch.zeros(3, device=device)
        assert [x.device for x in (there, there[1:], there + 1, torch.zeros_like(there))] == (
            [device] * 4
        )
        assert (there + torch.tensor(2.0)).device == there[torch.tensor([0])].device == device
        assert here.device == there.cpu().device == torch.device("cpu")
        number = there.sum()
        for wrong in (
            lambda: there + here,
            lambda: here * number,
            lambda: here[torch.zeros(1, dtype=torch.int64, device=device)],
            lambda: torch.stack([number, torch.tensor(0.0)]),
            lambda: torch.tensor(0.0).add_(number),
            lambda: torch.where(here > 0, there, there),
            lambda: there + torch.zeros(3, device=OTHER),
            lambda: torch.rand(3, device=device, generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError, match="Expected"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_a_module_moves_to_the_pretended_device_and_learns_there():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    images = torch.rand(5, 3).requires_grad_()
    with pretended_devices() as device:
        net.to(device)
        with pytest.raises(RuntimeError, match="same device"):
            net(images)
        net(images.to(device)).square().sum().backward()
        torch.optim.Adam(net.parameters(), fused=True).step()
        assert {device_of(each) for each in net.state_dict().values()} == {PRETENDED}
        assert net[0].weight.grad.device == device
        assert images.grad.device == torch.device("cpu")


def test_the_crash_of_a_shared_subspace_is_caught(monkeypatch):
    """The first run on a GPU ended in it: an ended fit took the subspace of all others along."""
    ordinary, shared = VectorStarter._pretrained, []

    def pretrained(self):
        embedding = ordinary(self)
        shared.append(embedding.subspace)
        embedding.subspace = shared[0]
        return embedding

    monkeypatch.setattr(VectorStarter, "_pretrained", pretrained)
    config = replace(REVIVING, epochs=40)
    with pretended_devices() as device, pytest.raises(RuntimeError, match="same device") as found:
        fit_many(many_classes(), n_features=3, config=config, compute=on(device))
    assert any(entry.name == "project" for entry in found.traceback)


# --- fits ------------------------------------------------------------------------------------


def on(device, **settings):
    return ComputeConfig(device=str(device), **settings)


@pytest.mark.parametrize("setting", FITS)
def test_fits_are_those_of_the_cpu(setting, device):
    data, config = many_classes(), FITS[setting]
    wanted = fit_many(data, [1, 2], n_features=3, config=config)
    found = fit_many(data, [1, 2], n_features=3, config=config, compute=on(device))
    limit = 0 if device.type == PRETENDED.type else 1e-2
    for first, second in zip(wanted.classes, found.classes, strict=True):
        assert first.report.epochs == second.report.epochs
        close = abs(first.report.validation_losses.total - second.report.validation_losses.total)
        assert close <= limit * first.report.validation_losses.total
    same = [distance(wanted.embedding(t), found.embedding(t)) for t in (1, 2)]
    assert max(same) <= (1e-5 if limit == 0 else 0.1)
    revived = sum(fitted.report.revived for fitted in found.classes)
    assert revived > 0 or config.subspace is None or config.relevance > 0


def test_fits_in_bfloat16_run(device):
    fits = fit_many(
        many_classes(), [1], n_features=3, config=QUICK, compute=on(device, autocast=True)
    )
    assert not fits.failed


@pytest.mark.cuda
def test_compiled_fits_run_on_cuda():
    with opened("cuda") as device, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", DegenerateFitWarning)
        compute = on(device, compile=True)
        assert not fit_many(many_classes(), [1, 2], config=QUICK, compute=compute).failed
