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
from torchxnn.models.volumes import MODES, resize_volume

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
MOST_CHANNELS = 64
LEAST, MOST = 8, 4096
"""Pixels of a side; a depth may be as small as 1."""

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
    for pixel values p: those of pictures lie in [0, 1], those of arrays and volumes are what their
    files hold. The fields are plain values, for a JSON file.

    A size of three sides says that the network takes volumes, (C, D, H, W). `crop` cuts the centre
    out in all three, and enlarges nothing by 256 / 224 unless `shorter_side` says so.

    Attributes:
        size: height and width of the tensor, in pixels, or one number for a square; depth, height
            and width of volumes.
        resize: "squash" or "crop".
        mean: per channel (red, green and blue of three). How many numbers there are says how many
            channels the network takes, 1 to 64; where `std` has more, one counts for all.
        std: per channel, > 0; or one for all.
        interpolation: "bilinear", "bicubic", "lanczos" or "nearest"; of volumes all but "lanczos",
            and in three dimensions.
        shorter_side: of what is resized, before it is cut; in pixels, at least the shorter side of
            the rectangle.
        shown: 0-based channels that are drawn: three as red, green and blue, or one as grey; None
            takes the first three, or the first where there are fewer.
        arrays: whether the images of a folder are `.npy` arrays, not pictures; always so where
            there are neither 1 nor 3 channels. Of a folder of volumes, whether it is `.npy` alone.
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
        sides = self._check_size()
        for name, allowed in (("resize", Resize), ("interpolation", Interpolation)):
            if (value := getattr(self, name)) not in get_args(allowed):
                choices = " or ".join(repr(choice) for choice in get_args(allowed))
                raise DataError(f"{name} must be {choices}, got {value!r}")
        if len(sides) == 3:
            self._check_volumes()
        self._check_channels()
        if self.shorter_side is not None and self.shorter_side < min(sides):
            raise DataError(
                f"shorter_side must be at least size ({min(sides)}), got {self.shorter_side}"
            )

    def _check_size(self) -> tuple[int, ...]:
        sides = tuple(self.size) if isinstance(self.size, tuple | list) else (self.size,) * 2
        deep = "" if len(sides) == 2 else ", and of a volume depth (from 1), height and width"
        if not 2 <= len(sides) <= 3 or not all(
            isinstance(side, int) and low <= side <= MOST
            for low, side in zip((LEAST, LEAST, 1), reversed(sides), strict=False)
        ):
            raise DataError(
                f"preprocessing size must be {LEAST} to {MOST} pixels{deep}, got {self.size}"
            )
        square = len(sides) == 2 and sides[0] == sides[1]
        object.__setattr__(self, "size", sides[0] if square else sides)
        return sides

    def _check_volumes(self) -> None:
        if self.interpolation not in MODES:
            raise DataError(
                f"volumes are resized by {', '.join(MODES)}, not by {self.interpolation}"
            )
        if self.resize == "squash" and self.shorter_side is not None:
            raise DataError("volumes are squashed straight to their size: leave shorter_side out")

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
        return self.size[-2] if isinstance(self.size, tuple) else self.size

    @property
    def width(self) -> int:
        """Of the tensor, in pixels."""
        return self.size[-1] if isinstance(self.size, tuple) else self.size

    @property
    def depth(self) -> int | None:
        """Of a volume, in slices; None of an image."""
        sides = self.size if isinstance(self.size, tuple) else ()
        return sides[0] if len(sides) == 3 else None

    @property
    def unit(self) -> str:
        """What the network takes: "image" or "volume"."""
        return "image" if self.depth is None else "volume"

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor: channels, height and width; of a volume channels, depth, height, width."""
        depth = () if self.depth is None else (self.depth,)
        return self.channels, *depth, self.height, self.width

    @property
    def takes_arrays(self) -> bool:
        """Whether images are arrays of numbers: said so, volumes, or of channels as no picture."""
        return self.arrays or self.depth is not None or self.channels not in (1, 3)

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

    def __call__(self, image: Image.Image | np.ndarray) -> Float[Tensor, "channels *pixels"]:
        """Turn a picture, or pixel values (rows, columns, channels), into a float32 tensor.

        A network of volumes takes their values (channels, slices, rows, columns).

        Raises:
            DataError: a picture for a network of neither 1 nor 3 channels, or an array with
                another number of channels than the network takes.
        """
        if self.depth is not None:
            return self._volume(image, self.depth)
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

    def _volume(
        self, values: Image.Image | np.ndarray, depth: int
    ) -> Float[Tensor, "channels depth height width"]:
        own = np.zeros(()) if isinstance(values, Image.Image) else np.asarray(values, np.float32)
        if own.ndim != 4 or own.shape[0] != self.channels:
            raise DataError(
                f"the network takes volumes of {self.channels} channel(s): give an array "
                f"(channels, slices, rows, columns), not {own.shape or 'a picture'}"
            )
        size = depth, self.height, self.width
        covered = None
        if self.resize == "crop":
            enlarged = (self.shorter_side or min(size)) / min(size)
            covered = tuple(round(side * enlarged) for side in size)
        return self.normalise(resize_volume(own, size, self.interpolation, covered))

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

    def normalise(self, pixels: Float[Tensor, "*pixels"]) -> Float[Tensor, "*pixels"]:
        """Pixel values (*batch, channels, [depth,] height, width) as the network expects them."""
        sides = (1,) * (len(self.shape) - 1)
        mean, std = (torch.tensor(each).reshape(-1, *sides) for each in (self.mean, self.std))
        return (pixels - mean.to(pixels)) / std.to(pixels)

    def check_takes_images(self, what: str) -> None:
        """Refuse what is made for images alone, where the network takes volumes.

        Raises:
            DataError: with the way out; `what` begins the line, as in "an atlas shows images".
        """
        if self.depth is not None:
            raise DataError(
                f"{what}, and the network takes volumes "
                f"({' x '.join(map(str, self.shape))}): explain some with `xnn explain`, many with "
                "`xnn report`; in Python, XNN.attribute gives the maps of every voxel"
            )

    def picture(self, image: Float[Tensor, "channels *pixels"]) -> UInt8[np.ndarray, "*pixels 3"]:
        """Undo the normalisation, for drawing: red, green, blue in 0 to 255; one channel is grey.

        Arrays have no known range: each channel that is shown is stretched from its 2nd to its
        98th percentile in this image; of a volume from the half to the 99.5th of all slices, since
        what matters may be small.

        Raises:
            DataError: if the image has another number of channels than the network takes.
        """
        if image.shape[0] not in (1, self.channels):
            raise DataError(
                f"an image to draw must have {self.channels} channel(s), got {image.shape[0]}"
            )
        drawn = list(self.shown or range(3 if self.channels >= 3 else 1))
        own = [0] if image.shape[0] == 1 else drawn
        sides = image.shape[1:]
        pixels = image.detach().cpu().float()[own].movedim(0, -1).expand(*sides, 3)
        pixels = pixels * torch.tensor(self.std)[drawn] + torch.tensor(self.mean)[drawn]
        if self.takes_arrays:
            pixels = _stretch(pixels, 0.02 if self.depth is None else 0.005)
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


def _stretch(pixels: Float[Tensor, "*pixels 3"], cut: float) -> Float[Tensor, "*pixels 3"]:
    # `Tensor.quantile` refuses more than 16 million values, which a volume may have.
    bounds = np.quantile(pixels.flatten(0, -2).numpy(), [cut, 1 - cut], axis=0)
    low, high = torch.from_numpy(bounds).to(pixels)
    return (pixels - low) / (high - low).clamp(min=1e-12)
