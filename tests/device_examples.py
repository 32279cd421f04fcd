"""Devices to test on: the pretended one everywhere, real ones where they are."""

from contextlib import nullcontext

import pytest
import torch

from pretended_device import pretended_apple, pretended_devices

CUDA = "needs a GPU that CUDA finds; none is here"
SECOND = "needs two GPUs that CUDA finds"
MPS = "needs a GPU of Apple (MPS); none is here"

DEVICES = [
    "pretended",
    "apple",
    pytest.param("cuda", marks=[pytest.mark.cuda]),
    pytest.param("cuda:1", marks=[pytest.mark.cuda]),
    pytest.param("mps"),
]


def opened(name):
    """A context manager that gives a device by its name; skips the test where it is not."""
    count = torch.cuda.device_count()
    missing = {"cuda": count < 1, "cuda:1": count < 2, "mps": not torch.backends.mps.is_available()}
    if missing.get(name, False):
        pytest.skip({"cuda": CUDA, "cuda:1": SECOND, "mps": MPS}[name])
    pretended = {"pretended": pretended_devices, "apple": pretended_apple}
    return pretended[name]() if name in pretended else nullcontext(torch.device(name))
