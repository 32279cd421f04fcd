"""What every attribution method offers, and the certificate that tells how far to trust a map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchxnn.storage.artifact import __version__

CONSERVATION_LIMIT = 1e-3
"""Conservation error above which relevance counts as lost."""

FALLBACK_LIMIT = 0.05
"""Share of relevance handled by a fallback rule above which a map is to be read with care."""


@dataclass(frozen=True)
class Certificate:
    """What is known about the quality of heatmaps; None where a method promises nothing.

    Excitation backprop conserves relevance on its way down. Integrated gradients, DeepLIFT and
    input x gradient share f(x) - f(baseline) out among the pixels. The other methods have nothing
    to certify: their certificate only names method, precision and versions.

    Attributes:
        conservation_error: largest |sum - 1| of the marginal maps, over images, targets and every
            cut through the network on the way from the target to the input.
        fallback_share: largest share of relevance, over images and targets, that was shared out by
            a fallback rule because a unit had no contribution that agrees with its sign; added up
            over the layers, so it bounds the share of paths that met a fallback from above. Targets
            that are off (exactly 0, as x-features often are) do not count.
        dtype: precision in which the maps were computed.
        method: name of the attribution method.
        versions: versions of torchxnn and torch.
        completeness_error: largest |sum of the map - (f(x) - f(baseline))| over images and targets,
            divided by the largest |f(x) - f(baseline)| among them (not divided if that is 0).
    """

    conservation_error: float | None
    fallback_share: float | None
    dtype: str
    method: str
    versions: dict[str, str]
    completeness_error: float | None = None


@dataclass(frozen=True)
class LayerCertificate:
    """Conservation within one module, the innermost one around its operations.

    Attributes:
        layer: dotted name; "" for operations of the outermost module.
        operations: operations that relevance passed.
        conservation_error: largest |sum - 1| of the marginal maps after any of them.
        fallback_share: largest share of relevance that any of them shared out by a fallback rule.
    """

    layer: str
    operations: int
    conservation_error: float
    fallback_share: float


def versions() -> dict[str, str]:
    """Versions of the software that made an artefact."""
    return {"torchxnn": __version__, "torch": str(torch.__version__)}


class Attributor(ABC):
    """Heatmaps of the outputs of a module: (images, target) -> one map per image.

    A method implements `attribute` and `attribute_many`. Images are a preprocessed batch
    (B, C, H, W); targets are 0-based output indices. The module is left as it was.

    Args:
        module: any module with (B, k) outputs.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @overload
    def attribute(
        self,
        images: Tensor,
        target: int | Tensor,
        return_certificate: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def attribute(
        self, images: Tensor, target: int | Tensor, return_certificate: Literal[True]
    ) -> tuple[Tensor, Certificate]: ...

    @abstractmethod
    def attribute(
        self,
        images: Float[Tensor, "batch *image"],
        target: int | Int[Tensor, " batch"],
        return_certificate: bool = False,
    ) -> Float[Tensor, "batch *map"] | tuple[Float[Tensor, "batch *map"], Certificate]:
        """One map per image, summed over colour channels.

        Args:
            images: (B, C, H, W).
            target: output index, or one per image.
            return_certificate: also return a `Certificate`.
        """

    @overload
    def attribute_many(
        self,
        images: Tensor,
        targets: Sequence[int],
        return_certificate: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def attribute_many(
        self, images: Tensor, targets: Sequence[int], return_certificate: Literal[True]
    ) -> tuple[Tensor, Certificate]: ...

    @abstractmethod
    def attribute_many(
        self,
        images: Float[Tensor, "batch *image"],
        targets: Sequence[int],
        return_certificate: bool = False,
    ) -> (
        Float[Tensor, "batch targets *map"]
        | tuple[Float[Tensor, "batch targets *map"], Certificate]
    ):
        """One map per image and target, (B, n, H, W).

        Args:
            images: (B, C, H, W).
            targets: n output indices.
            return_certificate: also return a `Certificate`.
        """
