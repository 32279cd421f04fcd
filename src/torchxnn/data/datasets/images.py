"""Read a picture of any kind as RGB, or say in one line why it cannot be read."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from upath import UPath

from torchxnn.errors import DataError
from torchxnn.storage.paths import read_bytes

_ORIENTATION = 0x0112  # EXIF tag
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE = 258  # TIFF tags
_PHOTOMETRIC = 262


class UnreadableImageError(DataError):
    """A picture that cannot be read.

    Attributes:
        path: the file.
        reason: a few words, such as "truncated" or "empty file".
    """

    def __init__(self, path: Path | UPath | Traversable, reason: str):
        super().__init__(f"cannot read the image {path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (Path(self.path), self.reason)


def read_image(path: str | Path | UPath | Traversable) -> Image.Image:
    """Read the first frame of a picture as 8-bit RGB, the right way up.

    Grey, palette and CMYK pictures are converted; transparent ones are laid on white; integer
    pictures of 9 to 16 bits are scaled by their full range; EXIF orientation is applied.

    Raises:
        UnreadableImageError: a `DataError` that names the file, if it is missing, empty, truncated,
            broken, no image, has more pixels than Pillow's limit against decompression
            bombs, or has 32-bit pixels, whose range nobody knows.
    """
    with quiet_pillow():
        return _read(Path(path) if isinstance(path, str) else path)


def check_image(path: Path | UPath | Traversable) -> str | None:
    """Decode a picture completely but cheaply; what is wrong with it, or None.

    A JPEG is decoded at an eighth of its size: the whole file is read, so a truncated one is found.
    Call it inside `quiet_pillow` (once for many pictures: that is what makes threads possible).
    """
    try:
        _read(path, draft=True)
    except UnreadableImageError as error:
        return error.reason
    return None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Within it, Pillow's remarks are silent and a decompression bomb is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _read(path: Path | UPath | Traversable, draft: bool = False) -> Image.Image:
    try:
        # Of a remote file everything in one request, not block by block.
        remote = io.BytesIO(read_bytes(path)) if isinstance(path, UPath) else None
        with remote or path.open("rb") as stream:
            if not stream.read(1):
                raise UnreadableImageError(path, "empty file")
            stream.seek(0)
            with Image.open(stream) as image:
                if draft:
                    image.draft(None, (image.width // 8, image.height // 8))
                image.load()
                turn, picture = _turn(image), _rgb(image)
                return picture if turn is None else picture.transpose(turn)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise UnreadableImageError(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case IsADirectoryError():
            return "it is a folder"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return "not an image, or of a format that Pillow cannot read"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {Image.MAX_IMAGE_PIXELS} pixels (decompression bomb?)"
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or "not processed" in text or isinstance(error, EOFError):
        return "truncated"
    return f"broken ({text[:100] or type(error).__name__})"


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURN.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF data says nothing about the pixels
        return None


def _rgb(image: Image.Image) -> Image.Image:
    # Some versions of Pillow open 16-bit PNG and PGM files in the 32-bit mode.
    wide = image.mode == "I" and image.format in ("PNG", "PPM")
    if wide or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ValueError(f"32-bit {kind} have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        background = Image.new("RGBA", transparent.size, "white")
        return Image.alpha_composite(background, transparent).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    largest = 2 ** min(max(bits, 8), 16) - 1
    grey = np.asarray(image).astype(np.float64) / largest
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        grey = 1 - grey
    return Image.fromarray((grey.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")
