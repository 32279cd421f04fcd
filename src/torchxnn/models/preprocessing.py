"""How a picture becomes the tensor that a network expects, and where its points end up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer, UInt8
from PIL import Image
from torch import Tensor

from torchxnn.errors import DataError
from torchxnn.models.config import Resize, Size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
MOST_CHANNELS = 64

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Frame:
    """How a picture of a given size is laid into the rectangle that the network sees.

    A point (x, y) of the picture lies at (x * scale_x - left, y * scale_y - top) in the rectangle.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    height: int
    width: int

    def points(self, points: Float[Tensor, "points 2"]) -> Float[Tensor, "points 2"]:
        """Move points (x, y) from the picture into the rectangle."""
        scale = torch.tensor([self.scale_x, self.scale_y], dtype=points.dtype)
        offset = torch.tensor([self.left, self.top], dtype=points.dtype)
        return points * scale - offset

    def parts(self, parts: Float[Tensor, "parts 3"]) -> Float[Tensor, "parts 3"]:
        """Move parts (x, y, visible); those that end up outside the rectangle become 0, 0, 0."""
        moved = self.points(parts[:, :2])
        inside = ((moved >= 0) & (moved < self._corner(moved))).all(dim=1) & (parts[:, 2] > 0)
        return torch.cat([moved, torch.ones(len(parts), 1)], dim=1) * inside[:, None]

    def box(self, box: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
        """Move a box (x, y, width, height) and clip it to the rectangle."""
        corners = self.points(torch.stack([box[:2], box[:2] + box[2:]])).clamp(min=0)
        corners = corners.minimum(self._corner(corners))
        return torch.cat([corners[0], corners[1] - corners[0]])

    def mask(self, mask: Integer[np.ndarray, "rows columns"]) -> Int64[Tensor, "height width"]:
        """Move a map of class numbers that is as large as the picture; nearest neighbour.

        The pixel (x, y) of the rectangle takes the number at its centre, which lies at
        ((x + 0.5 + left) / scale_x, (y + 0.5 + top) / scale_y) in the picture.
        """
        height, width = mask.shape
        # A centre on a border between two pixels goes to the right or lower one, not to chance.
        rows = ((np.arange(self.height) + 0.5 + self.top) / self.scale_y + 1e-9).astype(np.int64)
        columns = ((np.arange(self.width) + 0.5 + self.left) / self.scale_x + 1e-9).astype(np.int64)
        chosen = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
        return torch.from_numpy(mask[chosen].astype(np.int64))

    def _corner(self, like: Tensor) -> Float[Tensor, "2"]:
        return torch.tensor([self.width, self.height], dtype=like.dtype)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the tensor that a network expects, and back for drawing.

    `squash` resizes straight to height x width, or to a multiple of that of which it cuts the
    centre out if `shorter_side` says so. `crop` resizes until the picture covers the
    rectangle, its shorter side times `shorter_side` / shorter side of the rectangle (by default
    256 / 224), and cuts the centre out. Resizing is antialiased. The result is (p - mean) / std
    for pixel values p: those of pictures lie in [0, 1], those of arrays are what `as_pixels` says.
    The fields are plain values, for a JSON file.

    Attributes:
        size: height and width of the tensor, in pixels; one number for a square.
        resize: "squash" or "crop".
        mean: per channel (red, green and blue of three). How many numbers there are says how many
            channels the network takes, 1 to 64; where `std` has more, one counts for all.
        std: per channel, > 0; or one for all.
        interpolation: "bilinear", "bicubic", "lanczos" or "nearest".
        shorter_side: of what is resized, before it is cut; in pixels, at least the shorter side of
            the rectangle.
        shown: 0-based channels that are drawn: three as red, green and blue, or one as grey; None
            takes the first three, or the first where there are fewer.
        arrays: whether the images of a folder are `.npy` arrays, not pictures; always so where
            there are neither 1 nor 3 channels.
        floor_crop: where the centre lies between two pixels, begin at the first of them, as
            transformers does; otherwise at the even one, as torchvision and timm do.

    Raises:
        DataError: if a value is out of range; the message names it.
    """

    size: Size = 224
    resize: Resize = "crop"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    shorter_side: int | None = None
    shown: tuple[int, ...] | None = None
    arrays: bool = False
    floor_crop: bool = False

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple | list) else (self.size, self.size)
        if len(sides) != 2 or not all(isinstance(n, int) and 8 <= n <= 4096 for n in sides):
            raise DataError(f"preprocessing size must be 8 to 4096 pixels, got {self.size}")
        square = sides[0] == sides[1]
        object.__setattr__(self, "size", sides[0] if square else (sides[0], sides[1]))
        for name, allowed in (("resize", Resize), ("interpolation", Interpolation)):
            if (value := getattr(self, name)) not in get_args(allowed):
                choices = " or ".join(repr(choice) for choice in get_args(allowed))
                raise DataError(f"{name} must be {choices}, got {value!r}")
        self._check_channels()
        if self.shorter_side is not None and self.shorter_side < min(sides):
            raise DataError(
                f"shorter_side must be at least size ({min(sides)}), got {self.shorter_side}"
            )

    def _check_channels(self) -> None:
        channels = max(len(self.mean), len(self.std))
        for name in ("mean", "std"):
            numbers = tuple(getattr(self, name))
            numbers = numbers * channels if len(numbers) == 1 else numbers
            count = len(numbers) == channels and 1 <= channels <= MOST_CHANNELS
            if not count or not all(math.isfinite(number) for number in numbers):
                raise DataError(
                    f"{name} must be one finite number per channel (1 to {MOST_CHANNELS}), or one "
                    f"for all, got {getattr(self, name)} for {channels} channel(s)"
                )
            if name == "std" and min(numbers) <= 0:
                raise DataError(f"std must be positive, got {self.std}")
            object.__setattr__(self, name, numbers)
        shown = self.shown
        if shown is not None and (
            len(shown) not in (1, 3) or not all(0 <= channel < channels for channel in shown)
        ):
            raise DataError(
                f"shown must be 1 or 3 channels from 0 to {channels - 1}, got {tuple(shown)}"
            )

    @property
    def height(self) -> int:
        """Of the tensor, in pixels."""
        return self.size[0] if isinstance(self.size, tuple) else self.size

    @property
    def width(self) -> int:
        """Of the tensor, in pixels."""
        return self.size[1] if isinstance(self.size, tuple) else self.size

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the tensor: channels, height, width."""
        return self.channels, self.height, self.width

    @property
    def takes_arrays(self) -> bool:
        """Whether images are arrays of numbers: said so, or no picture has as many channels."""
        return self.arrays or self.channels not in (1, 3)

    def with_channels(self, channels: int) -> Preprocessing:
        """The same for another number of channels: every one gets the mean of mean and of std."""
        if channels == self.channels:
            return self
        mean, std = sum(self.mean) / self.channels, sum(self.std) / self.channels
        return replace(self, mean=(mean,) * channels, std=(std,) * channels, shown=None)

    def frame(self, width: int, height: int) -> Frame:
        """Where a picture of width x height pixels ends up in the rectangle."""
        wide, high = self._resized(width, height)
        cut = math.floor if self.floor_crop else round  # `round` goes to the even one of two
        left, top = cut((wide - self.width) / 2), cut((high - self.height) / 2)
        return Frame(wide / width, high / height, left, top, self.height, self.width)

    def __call__(self, image: Image.Image | np.ndarray) -> Float[Tensor, "channels height width"]:
        """Turn a picture, or pixel values (rows, columns, channels), into a float32 tensor.

        Raises:
            DataError: a picture for a network of neither 1 nor 3 channels, or an array with
                another number of channels than the network takes.
        """
        if isinstance(image, Image.Image):
            pixels = self._fit(self._coloured(image)).astype(np.float32) / 255
        else:
            values = np.asarray(image, dtype=np.float32)
            values = values[:, :, np.newaxis] if values.ndim == 2 else values
            if values.shape[2:] == (1,) and self.channels == 3:
                values = values.repeat(3, axis=2)
            if values.shape[2:] != (self.channels,):
                raise DataError(
                    f"the network takes {self.channels} channel(s), the array is {values.shape}; "
                    "give (rows, columns, channels), or set --in-channels"
                )
            planes = [self._fit(Image.fromarray(plane)) for plane in values.transpose(2, 0, 1)]
            pixels = np.stack(planes, axis=2)
        pixels = pixels.reshape(self.height, self.width, self.channels)
        normalised = (torch.from_numpy(pixels) - torch.tensor(self.mean)) / torch.tensor(self.std)
        return normalised.permute(2, 0, 1).contiguous()

    def _coloured(self, image: Image.Image) -> Image.Image:
        if self.channels not in (1, 3):
            raise DataError(
                f"the network takes {self.channels} channels, which a picture of mode "
                f"{image.mode} does not have; give a .npy array (rows, columns, channels)"
            )
        return image.convert("L" if self.channels == 1 else "RGB")

    def _fit(self, plane: Image.Image) -> np.ndarray:
        frame = self.frame(plane.width, plane.height)
        size = self._resized(plane.width, plane.height)
        resized = plane.resize(size, _RESAMPLING[self.interpolation])
        edges = (frame.left, frame.top, frame.left + self.width, frame.top + self.height)
        return np.array(resized.crop(edges))

    def normalise(
        self, pixels: Float[Tensor, "*batch channels height width"]
    ) -> Float[Tensor, "*batch channels height width"]:
        """Pixel values as the network expects them."""
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (pixels - mean.to(pixels)) / std.to(pixels)

    def picture(
        self, image: Float[Tensor, "channels height width"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Undo the normalisation, for drawing: red, green, blue in 0 to 255; one channel is grey.

        Arrays have no known range: each channel that is shown is stretched from its 2nd to its
        98th percentile in this image.

        Raises:
            DataError: if the image has another number of channels than the network takes.
        """
        if image.shape[0] not in (1, self.channels):
            raise DataError(
                f"an image to draw must have {self.channels} channel(s), got {image.shape[0]}"
            )
        drawn = list(self.shown or range(3 if self.channels >= 3 else 1))
        own = [0] if image.shape[0] == 1 else drawn
        pixels = image.detach().cpu().float()[own].permute(1, 2, 0).expand(-1, -1, 3)
        pixels = pixels * torch.tensor(self.std)[drawn] + torch.tensor(self.mean)[drawn]
        if self.takes_arrays:
            pixels = _stretch(pixels)
        return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        least = min(self.width, self.height)
        if self.resize == "squash":
            enlarged = (self.shorter_side or least) / least
            return round(self.width * enlarged), round(self.height * enlarged)
        shorter = self.shorter_side or round(least * 256 / 224)
        wide, high = (round(side * shorter / least) for side in (self.width, self.height))
        if wide * height >= high * width:
            return wide, int(wide * height / width)
        return int(high * width / height), high


def _stretch(pixels: Float[Tensor, "height width 3"]) -> Float[Tensor, "height width 3"]:
    low, high = pixels.flatten(0, 1).quantile(torch.tensor([0.02, 0.98]), dim=0)
    return (pixels - low) / (high - low).clamp(min=1e-12)
