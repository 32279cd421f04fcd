"""Where float64 is computed."""

import pytest
import torch

from pretended_device import PRETENDED, pretended_devices
from torchxnn.embeddings.exact import back, exact, exact_device


def test_float64_stays_on_a_device_that_knows_it():
    values = torch.ones(2, dtype=torch.float64)
    assert exact(values) is values
    assert exact_device(torch.device("cuda:1")) == torch.device("cuda:1")
    with pretended_devices() as device:
        there = exact(torch.ones(2, device=device))
        assert (there.device, there.dtype) == (PRETENDED, torch.float64)
        found = back(there, torch.ones(2, device=device))
        assert (found.device, found.dtype) == (PRETENDED, torch.float32)


@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_apples_gpus_have_it_computed_on_the_cpu(name):
    assert exact_device(torch.device(name)) == torch.device("cpu")
