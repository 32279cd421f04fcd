"""Image files of every kind, good and broken, for tests of reading."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Left half red, right half blue; upper half bright, lower half dark.
COLOURS = np.zeros((40, 60, 3), dtype=np.uint8)
COLOURS[:20, :30, 0], COLOURS[20:, :30, 0] = 240, 100
COLOURS[:20, 30:, 2], COLOURS[20:, 30:, 2] = 240, 100


def picture() -> Image.Image:
    return Image.fromarray(COLOURS)


def noisy_jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_noise(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(noisy_jpeg(seed))


def broken_files(folder: Path) -> dict[str, str]:
    """Write broken files; their names and why they cannot be read."""
    jpeg, png = noisy_jpeg(), io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)).save(
        png, "PNG"
    )
    files = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png.getvalue()[: len(png.getvalue()) // 2], "truncated"),
        "empty.png": (b"", "empty file"),
        "header.jpg": (jpeg[:40], "truncated"),
        "text.jpg": (b"this is a text, not a picture", "not an image"),
        "noise.png": (b"\x89PNG\r\n\x1a\n" + bytes(range(200)), ""),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in files.items()}


def write_dicom(path, stored, **values):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data.file_meta = meta
    plain = {"Rows": stored.shape[-2], "Columns": stored.shape[-1], "SamplesPerPixel": 1,
             "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12,
             "HighBit": 11, "PixelRepresentation": 0}  # fmt: skip
    for name, value in (plain | values).items():
        setattr(data, name, value)
    data.PixelData = stored.astype(np.uint16).tobytes()
    pydicom.dcmwrite(path, data, enforce_file_format=True)
