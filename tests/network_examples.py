"""Factories that `load_model` is tested with."""

import torch
from torch import nn

from torchxnn.models.load import LoadedModel
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=32, resize="squash")


def small(num_classes: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Linear(5, num_classes)
    )


def always(num_classes: int = 4) -> nn.Module:
    """The same weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return small(num_classes)


def fixed() -> nn.Module:
    model = always(3)
    model.preprocessing = SQUASH
    return model


def complete() -> LoadedModel:
    return LoadedModel(always(2), SQUASH, ("no", "yes"), "")


def partly() -> nn.Module:
    """Weights as those of `always`, but for a layer that nobody trained."""
    model = always()
    nn.init.normal_(model[3].bias)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))


def needs_an_argument(width: int) -> nn.Module:
    return small(width)


def no_network() -> str:
    return "network"


constant = 3
