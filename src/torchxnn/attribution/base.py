"""What every attribution method offers, and the certificate that tells how far to trust a map.

A new method of the pixels is a subclass of `MapMethod` that says its `name` and implements `_maps`;
one that compares the image with a baseline is a subclass of `BaselineMethod`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, final, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchxnn.embeddings.exact import exact_sum
from torchxnn.errors import (
    DataError,
    NonFiniteError,
    UnsupportedOperationError,
    XNNError,
    first_line,
)
from torchxnn.models.hooks import in_precision_of, preserve_state
from torchxnn.models.layers import check_images, check_one_device, unwrap
from torchxnn.models.outputs import logits_of
from torchxnn.storage.artifact import __version__

Maps = Float[Tensor, "batch targets height width"]
Images = Float[Tensor, "batch channels height width"]
Targets = Int[Tensor, "batch targets"]

CHUNK_SIZE = 32
"""Most images in one pass of the network, unless a method is told otherwise."""

CONSERVATION_LIMIT = 1e-3
"""Conservation error above which relevance counts as lost."""

FALLBACK_LIMIT = 0.5
"""Share of relevance that met a fallback from which a map is to be read with care: most of it.

Of maps of the predicted bird (each exact to rounding, 2026-11-29) SqueezeNet has 0.0%, random
ResNet-18, MobileNetV2, EfficientNet-B0 and VGG-11 0.0%, and a trained EfficientNet-Lite2 92 to 96%:
nothing lies between. Above, the map follows sizes more than evidence, and the method removal tells
more; below, most of it rests on evidence.
"""

WEAK_MASS = 3e-4
"""Contrast mass below which a map is called weak: it tells its own x-feature least.

Maps of x-features of birds (SqueezeNet, twenty pictures of each of 50 classes) were compared with
what each x-feature loses where a square is hidden, less the same for the others (`xnn benchmark
rules`). By the paper's rule, with a mass of .001 to .003 they agree by .20 (1,563 maps), with .0003
to .001 by .15 (3,251), below .0003 by .10, and perhaps by no more than .05 (70 maps). One network:
the mass itself stands beside every map. Through effective weights no map had less than .003.
"""


@dataclass(frozen=True)
class Certificate:
    """What is known about the quality of heatmaps; None where a method promises nothing.

    Excitation backprop conserves relevance on its way down. Integrated gradients, DeepLIFT and
    input x gradient share f(x) - f(baseline) out among the pixels. The other methods have nothing
    to certify: their certificate only names method, precision and versions.

    Attributes:
        conservation_error: largest |sum - 1| of the marginal maps, over images, targets and every
            cut through the network on the way from the target to the input.
        fallback_share: largest share of the marginal maps' relevance, over images and targets, that
            met a unit without a contribution that agrees with its sign, so that its bias decided;
            what met several counts once. It is shared by size, or ends there and is in no map (see
            `ExcitationBackprop`). Targets that are off (exactly 0, as x-features often are) do not
            count.
        dtype: precision in which the maps were computed.
        method: name of the attribution method.
        versions: versions of torchxnn and torch.
        completeness_error: largest |sum of the map - (f(x) - f(baseline))| over images and targets,
            divided by the largest |f(x) - f(baseline)| among them (not divided if that is 0).
        contrast_mass: of each target the least positive relevance of its contrastive maps, over the
            images on which the target is not off (None where it is off on all), as a share of the
            relevance that it began with; see `contrast_mass`. None where it was not measured, as in
            files of earlier versions.
        fallback_shares: the largest share of each target over the images; None as contrast mass.
    """

    conservation_error: float | None
    fallback_share: float | None
    dtype: str
    method: str
    versions: dict[str, str]
    completeness_error: float | None = None
    contrast_mass: tuple[float | None, ...] | None = None
    fallback_shares: tuple[float, ...] | None = None


@dataclass(frozen=True)
class LayerCertificate:
    """Conservation within one module, the innermost one around its operations.

    Attributes:
        layer: dotted name; "" for operations of the outermost module.
        operations: operations that relevance passed.
        conservation_error: largest |sum - 1| of the marginal maps after any of them.
        fallback_share: largest share of relevance that met, in any of them, units that no
            contribution agrees with.
    """

    layer: str
    operations: int
    conservation_error: float
    fallback_share: float


def contrast_mass(maps: Float[Tensor, "batch targets *map"]) -> Float[Tensor, "batch targets"]:
    """The positive relevance of every map, (B, n), in float64.

    Relevance starts as 1 on the target, so of a contrastive map it is the share that did not go the
    same way as that of the dual unit; of a marginal map it is 1.
    """
    return exact_sum(maps.clamp(min=0).flatten(2), 2)


def versions() -> dict[str, str]:
    """Versions of the software that made an artefact."""
    return {"torchxnn": __version__, "torch": str(torch.__version__)}


@dataclass(eq=False, repr=False)
class Attributor(ABC):
    """Heatmaps of the outputs of a module: (images, target) -> one map per image.

    A method implements `_explain`. Images are a preprocessed batch (B, C, H, W); targets are
    0-based output indices. The module is left as it was.

    Args:
        module: any module with (B, k) outputs.
    """

    module: nn.Module

    def __post_init__(self) -> None:
        """Check the parameters."""
        self._network = unwrap(self.module)
        check_one_device(self._network)

    @abstractmethod
    def _explain(
        self, images: Tensor, targets: Targets, certify: bool
    ) -> tuple[Tensor, Certificate | None]:
        """Maps (B, n, H, W) and, if asked for, the certificate.

        Args:
            images: (B, C, H, W), not checked yet.
            targets: n output indices per image, not checked yet.
            certify: whether a certificate is wanted.
        """

    @overload
    def attribute(
        self, images: Tensor, target: int | Tensor, return_certificate: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def attribute(
        self, images: Tensor, target: int | Tensor, return_certificate: Literal[True]
    ) -> tuple[Tensor, Certificate]: ...

    @final
    def attribute(
        self,
        images: Float[Tensor, "batch *image"],
        target: int | Int[Tensor, " batch"],
        return_certificate: bool = False,
    ) -> Float[Tensor, "batch *map"] | tuple[Float[Tensor, "batch *map"], Certificate]:
        """The map of one target, (B, H, W), summed over colour channels.

        Args:
            images: preprocessed images (B, C, H, W).
            target: output index, or one per image.
            return_certificate: also return a `Certificate`; excitation backprop then measures
                conservation in every layer, image by image.

        Returns:
            Maps (B, H, W), and the certificate if asked for.

        Raises:
            XNNError: target out of range, or a network that the method cannot explain.
            UnsupportedOperationError: the method has no rule for an operation of the network.
            NonFiniteError: NaN or infinity in the images, on the way or in the maps.
        """
        each = target if isinstance(target, Tensor) else torch.full((len(images),), target)
        targets = each.reshape(-1, 1)
        if len(targets) != len(images):
            raise XNNError(f"{len(targets)} targets for {len(images)} images")
        maps, certificate = self._explain(images, targets, return_certificate)
        return (maps[:, 0], certificate) if certificate is not None else maps[:, 0]

    @overload
    def attribute_many(
        self, images: Tensor, targets: Sequence[int], return_certificate: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def attribute_many(
        self, images: Tensor, targets: Sequence[int], return_certificate: Literal[True]
    ) -> tuple[Tensor, Certificate]: ...

    @final
    def attribute_many(
        self,
        images: Float[Tensor, "batch *image"],
        targets: Sequence[int],
        return_certificate: bool = False,
    ) -> (
        Float[Tensor, "batch targets *map"]
        | tuple[Float[Tensor, "batch targets *map"], Certificate]
    ):
        """The maps of several targets, (B, n, H, W), from as few passes as the method allows.

        Args:
            images: preprocessed images (B, C, H, W).
            targets: n output indices.
            return_certificate: also return a `Certificate`, as `attribute` does.

        Raises:
            XNNError: as `attribute`.
        """
        each = for_each(targets, images)
        maps, certificate = self._explain(images, each, return_certificate)
        return (maps, certificate) if certificate is not None else maps


def for_each(targets: Sequence[int], images: Tensor) -> Targets:
    """The same targets for every image.

    Raises:
        XNNError: there are none.
    """
    if len(targets) == 0:
        raise XNNError("no targets given; name at least one output index")
    return torch.tensor([int(target) for target in targets]).expand(len(images), -1)


def check_range(targets: Tensor, outputs: Tensor) -> None:
    """Refuse targets that are none of the outputs (B, k).

    Raises:
        XNNError: a target is out of range.
    """
    wrong = targets[(targets < 0) | (targets >= outputs.shape[1])]
    if len(wrong):
        raise XNNError(
            f"target {int(wrong[0])} is out of range: the module has outputs 0 to "
            f"{outputs.shape[1] - 1}"
        )


@contextmanager
def _what_the_device_lacks(method: str, device: torch.device) -> Iterator[None]:
    """Say in one line which operation of a method PyTorch has not for Apple's GPUs."""
    try:
        yield
    except NotImplementedError as error:
        if device.type != "mps":
            raise
        raise UnsupportedOperationError(
            f"{method} needs an operation that this PyTorch has not on {device} "
            f"({first_line(error).partition(' If you')[0]}); move the model, the XNN and "
            "the images to the CPU, take a newer PyTorch, or set PYTORCH_ENABLE_MPS_FALLBACK=1"
        ) from error


@dataclass(eq=False, repr=False, kw_only=True)
class MapMethod(Attributor):
    """A method that computes maps (b, n, H, W) from a chunk of images.

    The network runs in evaluation mode and in the precision of the images (autocast is off), with
    gradients enabled whatever the caller's context is, and is left as it was: modes, requires_grad,
    gradients and buffers, also after an exception.

    Args:
        module: any module with (B, k) or (B,) outputs.
        chunk_size: most images in one pass of the network; it bounds the memory and does not change
            the result.

    Attributes:
        name: key in `METHODS`.
        needs_gradient: whether the network must be differentiable.
        complete: whether the certificate measures completeness, see `Certificate`.
    """

    name: ClassVar[str]
    needs_gradient: ClassVar[bool] = True
    complete: ClassVar[bool] = False

    chunk_size: int = CHUNK_SIZE

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.chunk_size < 1:
            raise XNNError(f"chunk_size is {self.chunk_size}; it must be at least 1")
        super().__post_init__()

    @abstractmethod
    def _maps(self, images: Images, targets: Targets) -> Maps:
        """Maps of a chunk, summed over colour channels.

        Args:
            images: a private copy that may be given requires_grad.
            targets: n output indices per image, known to exist.
        """

    def _explain(
        self, images: Tensor, targets: Tensor, certify: bool
    ) -> tuple[Tensor, Certificate | None]:
        check_images(self._network, images)
        if images.ndim != 4:
            raise DataError(
                f"a map needs images (B, C, H, W), got a batch of shape {tuple(images.shape)}"
            )
        off = torch.autocast(images.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), off, preserve_state(self._network):
            private = images.detach().as_subclass(Tensor).clone()
            targets = targets.to(private.device, torch.int64).clone()
            self._check(private[:1], targets)
            parts = zip(private.split(self.chunk_size), targets.split(self.chunk_size), strict=True)
            with _what_the_device_lacks(self.name, images.device):
                maps = torch.cat([self._maps(*part).detach() for part in parts]).to(images.dtype)
            _check_finite(maps)
            if not certify:
                return maps, None
            error = self._completeness(private, targets, maps) if self.complete else None
        dtype = str(maps.dtype).removeprefix("torch.")
        return maps, Certificate(None, None, dtype, self.name, versions(), error)

    def _outputs(self, images: Images) -> Float[Tensor, "batch outputs"]:
        """The network's outputs as (B, k); the images survive a network that writes into them."""
        outputs = logits_of(self._network(in_precision_of(self._network, images.clone())))
        if len(outputs) != len(images):
            raise DataError(
                f"the module must return (B, k) outputs for {len(images)} image(s), it returns "
                f"{tuple(outputs.shape)}"
            )
        return outputs

    def _check(self, image: Tensor, targets: Tensor) -> None:
        """Run one image, to find out about outputs and gradients before the work begins."""
        outputs = self._outputs(image.clone().requires_grad_(self.needs_gradient))
        check_range(targets, outputs)
        if not bool(torch.isfinite(outputs).all()):
            raise NonFiniteError(
                "the network computes NaN or infinity from these images; check its weights"
            )
        if self.needs_gradient and outputs.grad_fn is None:
            raise XNNError(
                f"{self.name} needs gradients, and the network's outputs carry none (it may "
                "compute under no_grad or detach); use excitation_backprop, occlusion or rise"
            )

    def _completeness(self, images: Tensor, targets: Tensor, maps: Tensor) -> float:
        gaps, deltas = [], []
        for part in torch.arange(len(images), device=images.device).split(self.chunk_size):
            delta = self._delta(images[part], targets[part])
            gaps.append((maps[part].flatten(2).sum(2) - delta).abs().max())
            deltas.append(delta.abs().max())
        gap, scale = float(torch.stack(gaps).max()), float(torch.stack(deltas).max())
        return gap / scale if scale > 0 else gap

    @torch.no_grad()
    def _delta(self, images: Tensor, targets: Tensor) -> Float[Tensor, "batch targets"]:
        """f(x) - f(baseline) of each image and target: what the maps of complete methods sum to."""
        outputs = self._outputs(images) - self._outputs(self._baseline(images))
        return outputs.gather(1, targets)

    def _baseline(self, images: Tensor) -> Tensor:
        """The images at which a complete method's maps are zero."""
        return torch.zeros_like(images)


@dataclass(eq=False, repr=False, kw_only=True)
class BaselineMethod(MapMethod):
    """A method that compares the image with another one, its baseline; else as `MapMethod`.

    Args:
        baseline: one number, or a tensor that broadcasts to (B, C, H, W), such as (C, 1, 1) or
            (C, H, W), in the preprocessed scale; there 0 is the mean colour of the training images.
    """

    baseline: float | Tensor = 0.0

    def _baseline(self, images: Tensor) -> Tensor:
        """The baseline of every image of a batch.

        Raises:
            DataError: its shape does not fit the images.
        """
        value = torch.as_tensor(self.baseline, dtype=images.dtype, device=images.device)
        try:
            return value.expand_as(images).clone()
        except RuntimeError as error:
            raise DataError(
                f"a baseline of shape {tuple(value.shape)} does not fit images of shape "
                f"{tuple(images.shape)}; give a number or a tensor (C, 1, 1) or (C, H, W)"
            ) from error


def _check_finite(maps: Tensor) -> None:
    finite = torch.isfinite(maps).flatten(1).all(1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the map of image(s) {bad[:5]} of the batch holds NaN or infinity; check the "
            "network's weights and its behaviour on these images"
        )
