"""Files of many formats: read where something installed reads them, else counted and named."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from image_examples import write_dicom
from torchxnn.data.datasets import images
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.datasets.images import UnreadableImageError, read_image, read_input
from torchxnn.errors import SkippedImagesWarning, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

GREY = Preprocessing(size=8, resize="squash", mean=(0.0,), std=(1.0,))
COLOUR = Preprocessing(size=8, resize="squash")


def test_dicom_is_rescaled_windowed_and_inverted(tmp_path):
    stored = np.arange(64).reshape(8, 8) * 60
    write_dicom(tmp_path / "full.dcm", stored)
    full = read_input(tmp_path / "full.dcm", GREY)[0].numpy()
    np.testing.assert_allclose(full, stored / 4095, atol=1e-6)
    window = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 200, "WindowWidth": 800}
    write_dicom(tmp_path / "w.dcm", stored, **window)
    expected = ((2 * stored - 1000 - 199.5) / 799 + 0.5).clip(0, 1)
    found = read_input(tmp_path / "w.dcm", GREY)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    write_dicom(tmp_path / "i.dcm", stored, **window, PhotometricInterpretation="MONOCHROME1")
    inverted = np.asarray(read_image(tmp_path / "i.dcm"))[..., 0] / 255
    np.testing.assert_allclose(inverted, 1 - expected, atol=0.51 / 255)


def test_dicom_of_several_frames_is_refused(tmp_path):
    write_dicom(tmp_path / "x.dcm", np.zeros((3, 8, 8)), NumberOfFrames=3)
    with pytest.raises(UnreadableImageError, match="3 frames"):
        read_image(tmp_path / "x.dcm")


def filled(folder):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / name / "x.png")
    return folder


@pytest.mark.skipif(".avif" not in images.READABLE, reason="this Pillow reads no AVIF")
def test_avif_counts_among_the_images(tmp_path):
    Image.new("RGB", (8, 8), "red").save(filled(tmp_path) / "a" / "y.AVIF")
    assert ImageFolder(tmp_path, COLOUR).paths == ("a/x.png", "a/y.AVIF", "b/x.png")


def test_what_is_not_read_is_named_with_the_way_out(tmp_path, monkeypatch):
    folder = filled(tmp_path)
    np.save(folder / "a" / "y.npy", np.zeros((8, 8, 3)))
    (folder / "b" / "z.psd").write_bytes(b"8BPS")
    with pytest.warns(SkippedImagesWarning, match=r"\.npy 1 \(needs --arrays\), \.psd 1"):
        ImageFolder(folder, COLOUR)


def test_a_broken_dicom_is_left_out_by_name(tmp_path):
    pytest.importorskip("pydicom")
    (filled(tmp_path) / "a" / "y.dcm").write_bytes(bytes(128) + b"DICM" + bytes(64))
    with pytest.warns(SkippedImagesWarning, match=r"1 of 3 images could not be read.*a/y\.dcm"):
        ImageFolder(tmp_path, COLOUR)


def test_folders_of_arrays_hold_arrays(tmp_path):
    six = Preprocessing(size=8, resize="squash", mean=(0.0,) * 6, std=(1.0,))
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", np.ones((6, 8, 8)))
    np.save(tmp_path / "b" / "y.npy", np.ones((5, 8, 8)))
    with pytest.warns(SkippedImagesWarning, match=r"b/y\.npy \(.*takes 6 channel"):
        folder = ImageFolder(tmp_path, six)
    assert folder.paths == ("a/x.npy", "b/x.npy")
    assert folder[0].image.shape == (6, 8, 8)


def test_the_first_page_of_a_tiff_is_read_and_said(tmp_path):
    pages = [Image.new("L", (8, 8), level) for level in (10, 20, 30)]
    pages[0].save(filled(tmp_path) / "a" / "y.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(SkippedImagesWarning, match=r"1 TIFF file\(s\) have several pages.*a/y\.tif"):
        ImageFolder(tmp_path, COLOUR)
    with pytest.warns(XNNWarning, match="has 3 pages: the first is read"):
        assert np.asarray(read_image(tmp_path / "a" / "y.tif")).max() == 10


def test_heic_is_read_only_where_its_plug_in_is():
    assert (".heic" in images.READABLE) == (".heif" in images.READABLE)
    assert images.NEEDS[".heic"] == "pip install pillow-heif"


def test_files_without_an_ending_are_read_by_their_contents(tmp_path):
    folder = filled(tmp_path / "images")
    for place, kind in enumerate(("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")):
        Image.new("RGB", (8, 8), "blue").save(folder / "a" / f"00{place}", kind)
    (folder / "a" / "notes-of-mine").write_text("not an image")
    (folder / "a" / "LICENSE").write_text("BM is no picture here")
    with pytest.warns(SkippedImagesWarning, match="left out: without an extension 1"):
        found = ImageFolder(folder, COLOUR)
    assert [path for path in found.paths if path.startswith("a/0")] == [
        f"a/00{i}" for i in range(6)
    ]
    assert found[0].image.shape == (3, 8, 8)


def test_dicom_without_an_ending_is_read(tmp_path):
    folder = filled(tmp_path / "images")
    write_dicom(folder / "a" / "IM0001", np.arange(64).reshape(8, 8) * 60)
    found = ImageFolder(folder, GREY)
    row = found.paths.index("a/IM0001")
    np.testing.assert_allclose(found[row].image[0].flatten(), np.arange(64) * 60 / 4095, atol=1e-6)


def test_arrays_are_read_by_many_threads(tmp_path, monkeypatch):
    """A parser that fails once, as that of Python 3.11 does by chance, costs no image."""
    np.save(tmp_path / "a.npy", np.full((8, 8), 0.25))
    real, failures = np.load, iter([SystemError("AST constructor recursion depth mismatch")])

    def load(stream, **keywords):
        for failure in failures:
            raise failure
        return real(stream, **keywords)

    monkeypatch.setattr(np, "load", load)
    assert read_input(tmp_path / "a.npy", replace(GREY, arrays=True)).eq(0.25).all()
