"""How often maps start work on a GPU and wait for it, counted by the script of the benchmarks."""

import runpy

import pytest
import torch
import torchvision
from torch import nn

from docs_examples import ROOT
from pretended_device import counted_waits, pretended_devices
from torchxnn.attribution import ExcitationBackprop

COUNT = runpy.run_path(str(ROOT / "perf" / "attribution_launches.py"))["count"]


def small_vit(blocks=2):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, blocks, 4, 64, 128, num_classes=4).eval()
    nn.init.normal_(model.heads.head.weight, std=0.1)
    return model.requires_grad_(False)


def small_cnn(blocks=2):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for _ in range(blocks):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    rest = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    return nn.Sequential(*layers, *rest).eval().requires_grad_(False)


def counts(model, images, targets=(0,), certify=False):
    method = ExcitationBackprop(model)
    return COUNT(lambda: method.attribute_many(images, list(targets), certify))


def of_one_block(make, certify=False):
    """What one block adds, so that what is done once for a network does not hide it."""
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    more, fewer = (counts(make(blocks), images, certify=certify) for blocks in (3, 2))
    return [a - b for a, b in zip(more, fewer, strict=True)]


@pytest.mark.parametrize(
    ("make", "certify", "launches", "read_back"),
    [
        (small_vit, False, 190, 13),
        (small_vit, True, 260, 13),
        (small_cnn, False, 22, 3),
        (small_cnn, True, 24, 3),
    ],
)
def test_a_block_starts_no_more_work_and_waits_no_more_often(make, certify, launches, read_back):
    found = of_one_block(make, certify)
    assert found[0] <= launches
    assert found[1] <= read_back


def test_a_count_knows_what_waits():
    """Two sums are launched, and `float`, `tolist`, `nonzero` and a mask as an index wait."""
    numbers = torch.arange(3.0)

    def work():
        float(numbers.sum())
        numbers.sum().tolist()
        numbers.nonzero()
        numbers.view(3, 1)
        return numbers[numbers > 0]

    launches, waits = COUNT(work)
    assert launches == 2 + 1 + 2  # sums, nonzero, comparison and index
    assert waits == 4


def test_a_pretended_gpu_is_waited_for_as_often_as_is_counted():
    """The count is made on the CPU; a device that is not the CPU must not be asked more often."""
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for make in (small_vit, small_cnn):
        _, counted = counts(make(), images)
        with pretended_devices() as device:
            model, there = make().to(device), images.to(device)
            method = ExcitationBackprop(model)
            with counted_waits() as waits:
                method.attribute_many(there, [0])
        assert 0 < waits.count("from the device") <= counted
