"""How a picture becomes the tensor that a network expects, and where its points end up."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer, UInt8
from PIL import Image
from torch import Tensor

from torchxnn.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Resize = Literal["squash", "crop"]
Interpolation = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Frame:
    """How a picture of a given size is laid into the square that the network sees.

    A point (x, y) of the picture lies at (x * scale_x - left, y * scale_y - top) in the square.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    size: int

    def points(self, points: Float[Tensor, "points 2"]) -> Float[Tensor, "points 2"]:
        """Move points (x, y) from the picture into the square."""
        scale = torch.tensor([self.scale_x, self.scale_y], dtype=points.dtype)
        offset = torch.tensor([self.left, self.top], dtype=points.dtype)
        return points * scale - offset

    def parts(self, parts: Float[Tensor, "parts 3"]) -> Float[Tensor, "parts 3"]:
        """Move parts (x, y, visible); those that end up outside the square become 0, 0, 0."""
        moved = self.points(parts[:, :2])
        inside = ((moved >= 0) & (moved < self.size)).all(dim=1) & (parts[:, 2] > 0)
        return torch.cat([moved, torch.ones(len(parts), 1)], dim=1) * inside[:, None]

    def box(self, box: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
        """Move a box (x, y, width, height) and clip it to the square."""
        corners = self.points(torch.stack([box[:2], box[:2] + box[2:]])).clamp(0, self.size)
        return torch.cat([corners[0], corners[1] - corners[0]])

    def mask(self, mask: Integer[np.ndarray, "height width"]) -> Int64[Tensor, "size size"]:
        """Move a map of class numbers that is as large as the picture; nearest neighbour.

        The pixel (x, y) of the square takes the number at its centre, which lies at
        ((x + 0.5 + left) / scale_x, (y + 0.5 + top) / scale_y) in the picture.
        """
        height, width = mask.shape
        centres = np.arange(self.size) + 0.5
        # A centre on a border between two pixels goes to the right or lower one, not to chance.
        rows = ((centres + self.top) / self.scale_y + 1e-9).astype(np.int64).clip(0, height - 1)
        columns = ((centres + self.left) / self.scale_x + 1e-9).astype(np.int64).clip(0, width - 1)
        return torch.from_numpy(mask[np.ix_(rows, columns)].astype(np.int64))


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the tensor that a network expects, and back for drawing.

    `squash` resizes straight to size x size. `crop` resizes the shorter side to `shorter_side`
    (by default size * 256 / 224) and cuts the centre out. Resizing is antialiased. The result is
    (p - mean) / std for pixel values p in [0, 1]. The fields are plain values, for a JSON file.

    Attributes:
        size: height and width of the tensor, in pixels.
        resize: "squash" or "crop".
        mean: per colour (red, green, blue), in [0, 1].
        std: per colour, > 0.
        interpolation: "bilinear" or "bicubic".
        shorter_side: for "crop" only; in pixels, at least `size`.

    Raises:
        DataError: if a value is out of range; the message names it.
    """

    size: int = 224
    resize: Resize = "crop"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 8 <= self.size <= 4096:
            raise DataError(f"preprocessing size must be 8 to 4096 pixels, got {self.size}")
        for name, allowed in (("resize", Resize), ("interpolation", Interpolation)):
            if (value := getattr(self, name)) not in get_args(allowed):
                choices = " or ".join(repr(choice) for choice in get_args(allowed))
                raise DataError(f"{name} must be {choices}, got {value!r}")
        for name in ("mean", "std"):
            colours = getattr(self, name)
            if len(colours) != 3 or not all(math.isfinite(colour) for colour in colours):
                raise DataError(f"{name} must be three finite numbers, got {colours}")
            if name == "std" and min(colours) <= 0:
                raise DataError(f"std must be positive, got {colours}")
        if self.shorter_side is not None and self.shorter_side < self.size:
            raise DataError(
                f"shorter_side must be at least size ({self.size}), got {self.shorter_side}"
            )

    def frame(self, width: int, height: int) -> Frame:
        """Where a picture of width x height pixels ends up in the square."""
        wide, high = self._resized(width, height)
        left, top = round((wide - self.size) / 2), round((high - self.size) / 2)
        return Frame(wide / width, high / height, left, top, self.size)

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 size size"]:
        """Turn a picture into a normalised float32 tensor."""
        frame = self.frame(image.width, image.height)
        resized = image.convert("RGB").resize(
            self._resized(image.width, image.height), _RESAMPLING[self.interpolation]
        )
        edges = (frame.left, frame.top, frame.left + self.size, frame.top + self.size)
        pixels = torch.from_numpy(np.array(resized.crop(edges), dtype=np.float32) / 255)
        normalised = (pixels - torch.tensor(self.mean)) / torch.tensor(self.std)
        return normalised.permute(2, 0, 1).contiguous()

    def picture(
        self, image: Float[Tensor, "channels height width"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Undo the normalisation, for drawing: red, green, blue in 0 to 255; one channel is grey.

        Raises:
            DataError: if the image has neither 3 channels nor 1.
        """
        if image.shape[0] not in (1, 3):
            raise DataError(f"an image to draw must have 3 channels or 1, got {image.shape[0]}")
        pixels = image.detach().cpu().permute(1, 2, 0)
        pixels = pixels * torch.tensor(self.std) + torch.tensor(self.mean)
        return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.resize == "squash":
            return self.size, self.size
        shorter = self.shorter_side or round(self.size * 256 / 224)
        longer = int(shorter * max(width, height) / min(width, height))
        return (shorter, longer) if width <= height else (longer, shorter)
