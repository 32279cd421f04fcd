"""The frame of every method that draws a map on the pixels: checks, state, chunks, certificate.

A new method is a subclass of `MapMethod` that says its `name` and implements `_maps`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchxnn.attribution.base import Attributor, Certificate, versions
from torchxnn.errors import DataError, NonFiniteError, XNNError
from torchxnn.models.layers import check_images, preserve_state, unwrap

CHUNK_SIZE = 32


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

    def __init__(self, module: nn.Module, *, chunk_size: int = CHUNK_SIZE) -> None:
        if chunk_size < 1:
            raise XNNError(f"chunk_size is {chunk_size}; it must be at least 1")
        super().__init__(module)
        self._network = unwrap(module)
        self._chunk_size = chunk_size

    @abstractmethod
    def _maps(
        self,
        images: Float[Tensor, "batch channels height width"],
        targets: Int[Tensor, "batch targets"],
    ) -> Float[Tensor, "batch targets height width"]:
        """Maps of a chunk, summed over colour channels.

        Args:
            images: a private copy that may be given requires_grad.
            targets: n output indices per image, known to exist.
        """

    @final
    def attribute(  # type: ignore[override]
        self,
        images: Float[Tensor, "batch *image"],
        target: int | Int[Tensor, " batch"],
        return_certificate: bool = False,
    ) -> Float[Tensor, "batch *map"] | tuple[Float[Tensor, "batch *map"], Certificate]:
        """The map of one target, (B, H, W), summed over colour channels.

        Args:
            images: preprocessed images (B, C, H, W).
            target: output index, or one per image.
            return_certificate: also return a `Certificate`.

        Raises:
            XNNError: target out of range, or a network that the method cannot explain.
            NonFiniteError: NaN or infinity in the images or in the maps.
        """
        targets = target if isinstance(target, Tensor) else torch.full((len(images),), target)
        maps, certificate = self._explain(images, targets.reshape(-1, 1), return_certificate)
        return (maps[:, 0], certificate) if certificate is not None else maps[:, 0]

    @final
    def attribute_many(  # type: ignore[override]
        self,
        images: Float[Tensor, "batch *image"],
        targets: Sequence[int],
        return_certificate: bool = False,
    ) -> (
        Float[Tensor, "batch targets *map"]
        | tuple[Float[Tensor, "batch targets *map"], Certificate]
    ):
        """The maps of several targets, (B, n, H, W).

        Args:
            images: preprocessed images (B, C, H, W).
            targets: n output indices.
            return_certificate: also return a `Certificate`.

        Raises:
            XNNError: as `attribute`.
        """
        if len(targets) == 0:
            raise XNNError("no targets given; name at least one output index")
        each = torch.tensor([int(target) for target in targets]).expand(len(images), -1)
        maps, certificate = self._explain(images, each, return_certificate)
        return (maps, certificate) if certificate is not None else maps

    def _explain(
        self, images: Tensor, targets: Tensor, certify: bool
    ) -> tuple[Tensor, Certificate | None]:
        check_images(self._network, images)
        if images.ndim != 4:
            raise DataError(
                f"a map needs images (B, C, H, W), got a batch of shape {tuple(images.shape)}"
            )
        if len(targets) != len(images):
            raise XNNError(f"{len(targets)} targets for {len(images)} images")
        off = torch.autocast(images.device.type, enabled=False)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            off,
            preserve_state(self._network),
        ):
            private = images.detach().as_subclass(Tensor).clone()
            targets = targets.to(private.device, torch.int64).clone()
            self._check(private[:1], targets)
            parts = zip(
                private.split(self._chunk_size), targets.split(self._chunk_size), strict=True
            )
            maps = torch.cat([self._maps(*part).detach() for part in parts]).to(images.dtype)
            _check_finite(maps)
            if not certify:
                return maps, None
            error = self._completeness(private, targets, maps) if self.complete else None
        dtype = str(maps.dtype).removeprefix("torch.")
        return maps, Certificate(None, None, dtype, self.name, versions(), error)

    def _outputs(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch outputs"]:
        """The network's outputs as (B, k); the images survive a network that writes into them."""
        outputs = self._network(images.clone())
        if isinstance(outputs, Tensor) and outputs.ndim == 1:
            outputs = outputs.unsqueeze(1)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
            what = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise DataError(
                f"the module must return (B, k) outputs for {len(images)} image(s), it returns "
                f"{what}"
            )
        return outputs

    def _check(self, image: Tensor, targets: Tensor) -> None:
        """Run one image, to find out about outputs and gradients before the work begins."""
        outputs = self._outputs(image.clone().requires_grad_(self.needs_gradient))
        wrong = targets[(targets < 0) | (targets >= outputs.shape[1])]
        if len(wrong):
            raise XNNError(
                f"target {int(wrong[0])} is out of range: the module has outputs 0 to "
                f"{outputs.shape[1] - 1}"
            )
        if not bool(torch.isfinite(outputs).all()):
            raise NonFiniteError(
                "the network computes NaN or infinity from these images; check its weights"
            )
        if not self.needs_gradient:
            return
        if outputs.grad_fn is None:
            raise XNNError(
                f"{self.name} needs gradients, and the network's outputs carry none (it may "
                "compute under no_grad or detach); use excitation_backprop, occlusion or rise"
            )

    def _completeness(self, images: Tensor, targets: Tensor, maps: Tensor) -> float:
        gaps, deltas = [], []
        for part in torch.arange(len(images), device=images.device).split(self._chunk_size):
            delta = self._delta(images[part], targets[part])
            gaps.append((maps[part].flatten(2).sum(2) - delta).abs().max())
            deltas.append(delta.abs().max())
        gap, scale = float(torch.stack(gaps).max()), float(torch.stack(deltas).max())
        return gap / scale if scale > 0 else gap

    @torch.no_grad()
    def _delta(self, images: Tensor, targets: Tensor) -> Float[Tensor, "batch targets"]:
        """f(x) - f(baseline) of every image and target."""
        outputs = self._outputs(images) - self._outputs(self._baseline(images))
        return outputs.gather(1, targets)

    def _baseline(self, images: Tensor) -> Tensor:
        """The images at which a complete method's maps are zero."""
        return torch.zeros_like(images)


def fill_baseline(baseline: float | Tensor, images: Tensor) -> Tensor:
    """A baseline image for every image of a batch.

    Args:
        baseline: one number, or a tensor that broadcasts to (B, C, H, W), such as (C, 1, 1), in the
            preprocessed scale; there 0 is the mean colour of the training images.
        images: (B, C, H, W).

    Raises:
        DataError: the shapes do not fit.
    """
    value = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
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
