"""X-features that begin at the independent components of a class, and are held near them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.components import find_components
from torchxnn.errors import DataError
from torchxnn.training.config import TrainConfig
from torchxnn.training.initialise import SharedStarts, logit_readout
from torchxnn.training.split import Split

OFF = 0.01
"""Share of the training images on which the x-feature of a component starts at 0."""

LARGEST = 10.0
"""Standard deviation of a component over the training images, in those of the logit, that is borne.

Components are told apart among the images of a class. If these hardly vary, as in a network that
was made by hand, a component can be thousands of times as large on other images as the logit that
all of them add up to, and a fit held near it reproduces nothing. On 14 classes of birds,
photographed and rendered, the largest is 0.6 to 3.8.
"""


@dataclass(frozen=True, eq=False)
class Held:
    """Both splits, and how stable the components are that they were given.

    Attributes:
        splits: training and held-out data.
        found_again: see `Components`; empty without components.
        without: why there are no components; empty if there are.
    """

    splits: tuple[Split, Split]
    found_again: tuple[float, ...] = ()
    without: str = ""


def hold_near_components(
    train: Split,
    validation: Split,
    targets: Sequence[int],
    n_features: int,
    config: TrainConfig,
    starts: SharedStarts,
) -> Held:
    """Give both splits the contributions of the class's independent components.

    X-features are >= 0, so a component begins at the least that it contributes. The splits stay as
    they are with several targets, at layers that give maps, where the settings leave out components
    or faithfulness, if there are fewer than 2 n logits, if the positives do not vary in n ways,
    or if components are far larger over all images than the logit (`LARGEST`).

    Args:
        train: training data.
        validation: held-out data.
        targets: columns of all logits.
        n_features: n.
        config: settings.
        starts: keeps what is the same for all classes.
    """
    data = train.data
    without = _why_without(len(targets), data.are_maps, config)
    if without:
        return Held((train, validation), without=without)
    readout = logit_readout(data, starts)
    positives = train.positives[:, 0]
    try:
        found = find_components(data.z, readout, targets[0], positives, n_features, config.seed)
    except DataError as error:
        return Held((train, validation), without=str(error))
    values = found.contributions(data.z)
    size = float(values.std(0).max() / data.logits[:, targets[0]].float().std().clamp(min=1e-12))
    if not size <= LARGEST:
        why = f"independent components vary {size:.0f} times as much over all images as the logit"
        return Held((train, validation), without=why)
    least = _low(values)
    near, apart = (
        replace(split, components=(found.contributions(split.data.z) - least).clamp(min=0))
        for split in (train, validation)
    )
    return Held((near, apart), tuple(found.found_again.tolist()))


def _why_without(targets: int, are_maps: bool, config: TrainConfig) -> str:
    """Why no components are sought; empty if they are."""
    if not (config.components and config.faithful):
        return "the fit is not held near independent components (`components=0`)"
    if targets > 1:
        return "independent components belong to one class, and several were fitted together"
    return "the layer gives maps, where no independent components are sought" if are_maps else ""


def _low(values: Float[Tensor, "samples features"]) -> Float[Tensor, " features"]:
    """A low quantile of each column, of any number of samples."""
    return values.sort(0).values[int(OFF * (len(values) - 1))]
