"""Pictures of every kind are read correctly, or refused in one line."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile

from image_examples import COLOURS, broken_files, noisy_jpeg, picture
from torchxnn.data.datasets.images import (
    UnreadableImageError,
    check_image,
    quiet_pillow,
    read_image,
)
from torchxnn.errors import DataError


def read(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_rgb(tmp_path):
    picture().save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), COLOURS)
    np.testing.assert_array_equal(read(str(tmp_path / "a.png")), COLOURS)


def test_grey_becomes_three_equal_colours(tmp_path):
    grey = picture().convert("L")
    grey.save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        read(tmp_path / "a.png"), np.asarray(grey)[..., None].repeat(3, 2)
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_are_scaled_by_the_full_range(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535, 4095, 300]], dtype=np.uint16).repeat(8, 0)
    if suffix == ".pgm":  # not every Pillow writes 16 bits here
        (tmp_path / "a.pgm").write_bytes(b"P5 6 8 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}")[0, :, 0].tolist() == [0, 1, 128, 255, 16, 1]


def test_12_bit_tiff_is_scaled_by_its_own_range(tmp_path):
    """Two pixels of 12 bits, 4095 and 0, packed into three bytes by hand."""
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, 1), (279, 4, 3)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    data = b"II*\x00" + struct.pack("<I", 12) + b"\xff\xf0\x00\x00" + directory
    (tmp_path / "a.tif").write_bytes(data)
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 0]


def test_16_bits_where_white_is_zero(tmp_path):
    image = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    image.save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as saved:
        assert saved.tag_v2[262] == 0
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 0]


def test_16_bit_big_endian_and_colour(tmp_path):
    Image.fromarray(np.array([[0, 65535, 32768]], dtype=np.uint16).astype(">u2")).save(
        tmp_path / "a.tif"
    )
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "integers"), (np.float32, "floats")])
def test_32_bits_are_refused(tmp_path, dtype, kind):
    Image.fromarray(np.zeros((4, 4), dtype=dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=f"32-bit {kind} have no known range"):
        read_image(tmp_path / "a.tif")


def test_palette(tmp_path):
    picture().quantize(8).save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png"), COLOURS, atol=8)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\x00\xff")
    assert read(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, :, 1].tolist() == [255, 0]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    picture().convert("CMYK").save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as saved:
        assert saved.mode == "CMYK"
    blocks = read(tmp_path / f"a{suffix}")[[5, 5, 35, 35], [5, 55, 5, 55]]
    np.testing.assert_allclose(blocks, COLOURS[[5, 5, 35, 35], [5, 55, 5, 55]], atol=6)


def test_transparent_pictures_lie_on_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [0, 0, 255, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0].tolist() == [[255, 0, 0], [255, 255, 255], [204, 204, 204]]


def test_grey_with_alpha_lies_on_white(tmp_path):
    image = Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 0)])
    image.save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, 0].tolist() == [255, 255, 255]


def test_rgb_with_a_transparent_colour(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", transparency=(240, 0, 0))
    assert read(tmp_path / "a.png")[0, 0].tolist() == [255, 255, 255]


TURNED = {
    1: COLOURS,
    2: COLOURS[:, ::-1],
    3: COLOURS[::-1, ::-1],
    4: COLOURS[::-1],
    5: COLOURS.transpose(1, 0, 2),
    6: np.rot90(COLOURS, -1),
    7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
    8: np.rot90(COLOURS, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied(tmp_path, orientation):
    """Orientation n says how the stored picture was turned; these turn it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), TURNED[orientation])


@pytest.mark.parametrize("exif", [b"Exif\x00\x00nonsense", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
def test_broken_exif_is_no_reason_to_refuse(tmp_path, exif):
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read(tmp_path / f"a{suffix}")[4, 4], [255, 0, 0], atol=3)


@pytest.mark.parametrize(
    "name", ["cut.jpg", "cut.png", "empty.png", "header.jpg", "text.jpg", "noise.png"]
)
def test_broken_files_are_named(tmp_path, name):
    reason = broken_files(tmp_path)[name]
    with pytest.raises(DataError, match="cannot read the image") as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert reason in str(caught.value)
    with quiet_pillow():
        assert check_image(tmp_path / name) == caught.value.reason


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="it is a folder"):
        read_image(tmp_path)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    for limit in (2000, 500):  # Pillow warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=f"more than {limit} pixels"):
            read_image(tmp_path / "a.png")


def test_every_cut_of_a_jpeg_is_found(tmp_path):
    """The cheap check at an eighth of the size finds what a full decode finds."""
    data = noisy_jpeg()
    path = tmp_path / "a.jpg"
    with quiet_pillow():
        for share in np.linspace(0.02, 0.98, 25):
            path.write_bytes(data[: int(len(data) * share)])
            assert check_image(path) is not None
        path.write_bytes(data)
        assert check_image(path) is None


def test_error_travels_between_processes(tmp_path):
    error = UnreadableImageError(tmp_path / "a.jpg", "truncated")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, str(copy)) == (error.path, error.reason, str(error))


def test_pillow_is_left_as_it_was(tmp_path):
    picture().save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
