"""Factories that `load_model` is tested with."""

from torch import nn

from torchxnn.models.load import LoadedModel
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=32, resize="squash")


def small(num_classes: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Linear(5, num_classes)
    )


def fixed() -> nn.Module:
    model = small(3)
    model.preprocessing = SQUASH
    return model


def complete() -> LoadedModel:
    return LoadedModel(small(2), SQUASH, ("no", "yes"), "")


def needs_an_argument(width: int) -> nn.Module:
    return small(width)


def no_network() -> str:
    return "network"


constant = 3
