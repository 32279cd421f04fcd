"""A device that is not here is refused in one line, before anything is computed."""

import re

import pytest
import torch

from pretended_device import pretended_apple, pretended_devices
from torchxnn import XNN
from torchxnn.cli.main import main
from torchxnn.errors import XNNError
from torchxnn.parallel.engine import Engine
from torchxnn.training.config import ComputeConfig, TrainConfig
from torchxnn.training.device import check_worker_device, fit_device
from torchxnn.training.many import fit_many
from torchxnn.training.slots import bytes_per_fit, count_slots
from training_examples import many_classes


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def without(monkeypatch, kind):
    monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpu", "'gpu' is no device that PyTorch knows"),
        ("cuda:x", "'cuda:x' is no device that PyTorch knows"),
        ("cuda", "there is no device 'cuda' here: PyTorch"),
        ("cuda:1", "there is no device 'cuda:1' here: PyTorch"),
        ("mps", "there is no device 'mps' here: PyTorch .* MPS|finds no GPU of Apple"),
        ("meta", "there is no device 'meta' here"),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_the_way_out(name, why, monkeypatch):
    without(monkeypatch, "cuda")
    with pytest.raises(XNNError, match=why) as refused:
        fit_device(ComputeConfig(device=name))
    assert "leave out --device" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_gpu_beyond_the_last_is_refused_and_the_last_is_taken(two_gpus):
    assert fit_device(ComputeConfig(device="cuda:1")) == torch.device("cuda", 1)
    with pytest.raises(XNNError, match="'cuda:7' here: PyTorch finds 2 GPUs, cuda:0 to cuda:1;"):
        fit_device(ComputeConfig(device="cuda:7"))


def test_apples_gpu_is_taken_without_a_second_one_and_without_a_compiler():
    with pretended_apple():
        assert fit_device(ComputeConfig(device="mps")).type == "mps"
        with pytest.raises(XNNError, match="a Mac has one GPU, mps:0"):
            fit_device(ComputeConfig(device="mps:1"))
        with pytest.raises(XNNError, match="compile is not for device 'mps'"):
            fit_device(ComputeConfig(device="mps", compile=True))


@pytest.mark.parametrize("memory", [2**33, 2**34])
def test_apples_gpu_takes_as_many_fits_as_its_memory_holds(memory):
    with pretended_apple(memory) as device:
        data = many_classes().to(device)
        slots = count_slots(ComputeConfig(device="mps"), data, 5, TrainConfig())
    assert slots == int(0.7 * memory / bytes_per_fit(data, 5, TrainConfig())) > 100
    with pretended_apple(memory=1):
        assert count_slots(ComputeConfig(device="mps"), data, 5, TrainConfig()) == 1


def test_another_kind_of_device_is_asked_for_a_tensor():
    with pretended_devices() as device:
        assert fit_device(ComputeConfig(device=str(device))) == device


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps", "mps:0", "xpu"])
def test_workers_elsewhere_find_out_for_themselves_what_they_have(name, monkeypatch):
    without(monkeypatch, "cuda")
    check_worker_device(ComputeConfig(device=name))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpu", "'gpu' is no device that PyTorch knows"),
        ("meta", "there is no device 'meta' here: it holds no values"),
        ("cuda:1", "'cuda:1' is one GPU of this machine, .* say cuda"),
    ],
)
def test_what_no_worker_elsewhere_can_have_is_refused_before_anything_is_read(
    name, why, capsys, tmp_path
):
    compute = ComputeConfig(device=name)
    with pytest.raises(XNNError, match=why):
        fit_many(many_classes(), [1], compute=compute, engine=Elsewhere())
    given = ["fit", "no.such:model", "--layer", "fc", "--out", str(tmp_path / "out")]
    code = main([*given, str(tmp_path), "--targets", "0", "--engine", "ray", "--device", name])
    assert code == 2
    assert re.search(why, " ".join(capsys.readouterr().err.split()))


class Elsewhere(Engine):
    """Workers on machines that are not there."""

    def _run(self, task, jobs, gpu):
        raise AssertionError("a device that is refused starts no worker")


def test_nothing_is_recorded_for_a_fit_on_a_device_that_is_not_here(net, monkeypatch):
    without(monkeypatch, "cuda")
    compute = ComputeConfig(device="cuda:3")
    with pytest.raises(XNNError, match="no device 'cuda:3' here"):
        XNN(net, "classifier.1").fit(iter([]), 0, compute=compute)
    with pytest.raises(XNNError, match="no device 'cuda:3' here"):
        fit_many(many_classes(), [1], compute=compute)
