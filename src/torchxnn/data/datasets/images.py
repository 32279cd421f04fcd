"""Read an image of any kind as a network takes it, or say in one line why it cannot be read."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor
from upath import UPath

from torchxnn.data.datasets import arrays, dicom, volumes
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.paths import Stream, read_bytes

T = TypeVar("T")
AnyPath = Path | UPath | Traversable


def _readable() -> frozenset[str]:
    found = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    found |= {".tif", ".tiff", ".webp", ".apng", ".jpe", ".tga"}
    if "avif" in features.modules and features.check("avif"):  # an older Pillow warns of the name
        found.add(".avif")
    if features.check("jpg_2000"):
        found |= {".j2k", ".jp2"}
    with suppress(ImportError):  # a plug-in of Pillow, where a person has installed it
        import_module("pillow_heif").register_heif_opener()
        found |= {".heic", ".heif"}
    return frozenset(found | (dicom.SUFFIXES if dicom.INSTALLED else set()))


READABLE = _readable()
"""Endings of the files that are read as pictures, with the plug-ins that are installed here."""
ARRAYS = frozenset({".npy"})
_PAGED = frozenset({".tif", ".tiff"})
_BANDS = ARRAYS | {".png", ".tif", ".tiff"}
_VOLUME = "a network of volumes, --size DEPTHxHEIGHTxWIDTH"
_NIBABEL = "" if volumes.NIFTI_INSTALLED else ", and pip install 'torchxnn[formats]'"
NEEDS = {
    ".dcm": "pip install 'torchxnn[formats]'",
    ".dicom": "pip install 'torchxnn[formats]'",
    ".heic": "pip install pillow-heif",
    ".heif": "pip install pillow-heif",
    ".avif": "a newer Pillow",
    ".npy": "--arrays",
    ".nii": f"{_VOLUME}{_NIBABEL}",
    ".nii.gz": f"{_VOLUME}{_NIBABEL}",
}
"""What it takes to read files of an ending that `readable` may lack."""

_HEAD = 132
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""First bytes of JPEG, PNG, GIF, BMP and TIFF."""

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

    def __init__(self, path: AnyPath, reason: str):
        super().__init__(f"cannot read the image {path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (Path(self.path), self.reason)


def readable(preprocessing: Preprocessing) -> frozenset[str]:
    """Endings, in small letters, of the files in a folder that are images for a network."""
    if preprocessing.arrays:
        return ARRAYS
    if preprocessing.depth is not None:
        return volumes.READABLE
    return _BANDS if preprocessing.takes_arrays else READABLE


def read_image(path: str | AnyPath) -> Image.Image:
    """Read the first frame of a picture as 8-bit RGB, the right way up.

    Grey, palette and CMYK pictures are converted; transparent ones are laid on white; integer
    pictures of 9 to 16 bits are scaled by their full range; EXIF orientation is applied. A TIFF of
    several pages gives its first, with a warning.

    Raises:
        UnreadableImageError: a `DataError` that names the file, if it is missing, empty, truncated,
            broken, no image, has more pixels than Pillow's limit against decompression
            bombs, or has 32-bit pixels, whose range nobody knows.
    """
    path = Path(path) if isinstance(path, str) else path
    with quiet_pillow():
        if _suffix(path) in dicom.SUFFIXES:
            return _eight_bits(_read(path, _decode_dicom)).convert("RGB")
        return _read(path, _decode_rgb)


def read_input(path: str | AnyPath, preprocessing: Preprocessing, *, warn: bool = True) -> Tensor:
    """Read an image as the network's input (C, H, W), whatever number of channels it takes.

    For a network of volumes, (C, D, H, W), a file is a volume: a `.npy` array (D, H, W),
    (C, D, H, W) or (D, H, W, C), the pages of a TIFF, the frames of a DICOM file, or NIfTI, whose
    third axis is the depth. Integers count as those of arrays below.

    For three channels a picture is read as `read_image` does; for one as grey, with all levels of
    a 16-bit picture. For another number the bands of a picture (grey and alpha; red, green, blue
    and alpha), or the pages of a TIFF, are the channels. A `.npy` file holds (rows, columns),
    (rows, columns, C) or (C, rows, columns): uint8 and uint16 are divided by their full range,
    other numbers are taken as they are.

    Args:
        path: the file.
        preprocessing: of the network.
        warn: of a TIFF with several pages.

    Raises:
        UnreadableImageError: as `read_image`, or an image with another number of channels.
    """
    path = Path(path) if isinstance(path, str) else path
    with quiet_pillow():
        return preprocessing(_read(path, _decoder(path, preprocessing), warn))


def check_input(path: AnyPath, preprocessing: Preprocessing) -> str | None:
    """What is wrong with an image for a network, or None; pictures are decoded cheaply.

    Call it inside `quiet_pillow`, as `check_image`.
    """
    decode = _decoder(path, preprocessing)
    if decode in (_decode_rgb, _decode_grey):
        return check_image(path)
    return _complaint(path, decode)


def check_image(path: AnyPath) -> str | None:
    """Decode a picture completely but cheaply; what is wrong with it, or None.

    A JPEG is decoded at an eighth of its size: the whole file is read, so a truncated one is found.
    Call it inside `quiet_pillow` (once for many pictures: that is what makes threads possible).
    """
    draft = _decode_dicom if _suffix(path) in dicom.SUFFIXES else partial(_decode_rgb, draft=True)
    return _complaint(path, draft)


def count_pages(path: AnyPath) -> int:
    """Pages of a TIFF; 1 of every other file, and of one that cannot be read."""
    if _suffix(path) not in _PAGED:
        return 1
    try:
        with _open(path) as stream, Image.open(stream) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # Pillow's decoders raise almost anything on a broken file
        return 1


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Within it, Pillow's remarks are silent and a decompression bomb is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def begins_as_image(path: Path) -> bool:
    """Whether a file's first bytes are those of a picture or of DICOM, whatever it is called."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return head[128:132] == b"DICM" or head.startswith(_BEGINNINGS) or head[8:12] == b"WEBP"


def suffix_of(name: str) -> str:
    """The extension of a file's name in small letters with its dot; ".nii.gz" is one."""
    suffix = PurePosixPath(name).suffix.lower()
    return ".nii.gz" if name.lower().endswith(".nii.gz") else suffix


def _suffix(path: AnyPath) -> str:
    """The ending of a file, in small letters; of one without any that holds DICOM, that of it."""
    suffix = suffix_of(path.name)
    if suffix or not isinstance(path, Path) or not dicom.INSTALLED or not path.is_file():
        return suffix
    with path.open("rb") as stream:
        return ".dcm" if stream.read(_HEAD)[128:132] == b"DICM" else suffix


def _decoder(path: AnyPath, preprocessing: Preprocessing) -> Callable[[Stream], Any]:
    """What reads a file as a picture, or as pixel values, that the preprocessing takes."""
    if preprocessing.depth is not None:
        suffix = _suffix(path)
        if suffix not in volumes.READABLE:
            return partial(_refuse_as_volume, path=path, suffix=suffix)
        return volumes.volume_reader(suffix, preprocessing)
    if _suffix(path) in ARRAYS:
        return partial(arrays.read_array, channels=preprocessing.channels)
    if preprocessing.channels not in (1, 3):
        return partial(arrays.read_bands, channels=preprocessing.channels)
    if _suffix(path) in dicom.SUFFIXES:
        return partial(_decode_dicom, grey=preprocessing.channels == 1)
    return _decode_rgb if preprocessing.channels == 3 else _decode_grey


def _refuse_as_volume(stream: Stream, path: AnyPath, suffix: str) -> Any:
    endings = ", ".join(sorted(volumes.READABLE))
    reason = f"no volume by its ending; the network takes volumes, which are {endings}"
    if suffix in volumes.NIFTI | dicom.SUFFIXES:
        reason = "it needs pip install 'torchxnn[formats]'"
    raise UnreadableImageError(path, reason)


def _open(path: AnyPath) -> Stream:
    # Of a remote file everything in one request, not block by block.
    return io.BytesIO(read_bytes(path)) if isinstance(path, UPath) else path.open("rb")


def _read(path: AnyPath, decode: Callable[[Stream], T], warn: bool = True) -> T:
    """What a decoder makes of a file; whatever it raises becomes one line."""
    try:
        with _open(path) as stream:
            if not stream.read(1):
                raise UnreadableImageError(path, "empty file")
            stream.seek(0)
            found = decode(stream)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise UnreadableImageError(path, _reason(error)) from error
    if warn and decode in (_decode_rgb, _decode_grey) and (pages := count_pages(path)) > 1:
        warnings.warn(f"{path} has {pages} pages: the first is read", XNNWarning, stacklevel=3)
    return found


def _complaint(path: AnyPath, decode: Callable[[Stream], Any]) -> str | None:
    try:
        _read(path, decode, warn=False)
    except UnreadableImageError as error:
        return error.reason
    return None


def _decode_rgb(stream: Stream, draft: bool = False) -> Image.Image:
    with Image.open(stream) as image:
        if draft:
            image.draft(None, (image.width // 8, image.height // 8))
        image.load()
        return _eight_bits(_upright(image)).convert("RGB")


def _decode_grey(stream: Stream) -> Image.Image | np.ndarray:
    with Image.open(stream) as image:
        image.load()
        found = _upright(image)
        return found.convert("L") if isinstance(found, Image.Image) else found


def _decode_dicom(stream: Stream, grey: bool = False) -> Image.Image | np.ndarray:
    found = dicom.read_dicom(stream)
    return _eight_bits(found) if grey and found.ndim == 3 else found


def _eight_bits(found: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(found, Image.Image):
        return found
    return Image.fromarray((found.clip(0, 1) * 255).round().astype(np.uint8))


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


def _upright(image: Image.Image) -> Image.Image | Float[np.ndarray, "height width"]:
    """The picture the right way up: grey values from 0 to 1 of one with 16 bits, or else RGB or L.

    Whatever is transparent lies on white.
    """
    turn, picture = _turn(image), _plain(image)
    if turn is None:
        return picture
    if isinstance(picture, Image.Image):
        return picture.transpose(turn)
    return np.asarray(Image.fromarray(picture).transpose(turn))


def _plain(image: Image.Image) -> Image.Image | Float[np.ndarray, "height width"]:
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
    return image if image.mode == "L" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Float[np.ndarray, "height width"]:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    largest = 2 ** min(max(bits, 8), 16) - 1
    grey = np.asarray(image).astype(np.float64) / largest
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        grey = 1 - grey
    return grey.clip(0, 1).astype(np.float32)
