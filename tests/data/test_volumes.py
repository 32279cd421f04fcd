"""Volumes: how files become (C, D, H, W), what a size of three sides means, and what is refused."""

import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from image_examples import write_dicom
from torchxnn.cli.arguments import _parse_size, _write_size
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets import images, volumes
from torchxnn.data.datasets.augment import alter
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.datasets.images import UnreadableImageError, read_input
from torchxnn.data.datasets.open import open_dataset
from torchxnn.errors import DataError, ModelError, SkippedImagesWarning, XNNWarning
from torchxnn.models.channels import settle_channels
from torchxnn.models.load import count_outputs
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import structure, to_json

SIZE = (4, 10, 12)
ONE = Preprocessing(size=SIZE, resize="squash", mean=(0.0,), std=(1.0,))
THREE = Preprocessing(size=SIZE, resize="squash", mean=(0.0,) * 3, std=(1.0,))


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def saved(path, values):
    np.save(path, values)
    return path


# --- the preprocessing


def test_a_size_of_three_sides_is_saved_and_read_back():
    assert (ONE.depth, ONE.height, ONE.width, ONE.shape, ONE.unit) == (*SIZE, (1, *SIZE), "volume")
    assert structure(json.loads(to_json(ONE)), Preprocessing, "it") == ONE
    for old, size in ((64, 64), ([16, 64], (16, 64))):
        found = structure({"size": old}, Preprocessing, "it")
        assert (found.size, found.depth, found.unit) == (size, None, "image")
    with pytest.raises(DataError, match=r"damaged: .*\[1, 2, 3, 4\]"):
        structure({"size": [1, 2, 3, 4]}, Preprocessing, "it")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (4, 5, 12)}, r"of a volume depth \(from 1\), height and width, got \(4, 5, 12\)"),
        ({"size": (0, 10, 12)}, r"got \(0, 10, 12\)"),
        ({"interpolation": "lanczos"}, "volumes are resized by bilinear, bicubic, nearest, not"),
        ({"resize": "squash", "shorter_side": 8}, "leave shorter_side out"),
    ],
)
def test_what_volumes_do_not_have_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        Preprocessing(**{"size": SIZE, **values})


def test_sizes_of_the_command_line():
    for text, size in (("224", 224), ("16x64", (16, 64)), ("32x16x64", (32, 16, 64))):
        assert (_parse_size(text), _write_size(size)) == (size, text)
    with pytest.raises(ValueError, match="depth x height x width"):
        _parse_size("1x2x3x4")
    assert DataConfig(size=SIZE).preprocessing(Preprocessing()).depth == 4


def test_squash_is_linear_in_all_three_and_averages_where_it_shrinks():
    ramp = np.stack(np.meshgrid(*map(np.arange, (8, 20, 24)), indexing="ij")).sum(0)[None]
    found = ONE(ramp.astype(np.float32))[0, 1:-1, 1:-1, 1:-1]
    own = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij")).sum(0)
    np.testing.assert_allclose(found, (2 * own + 1.5)[1:-1, 1:-1, 1:-1], atol=1e-4)
    values = noise(1, *SIZE) / 255
    np.testing.assert_allclose(ONE(values), values, atol=1e-7)


def test_crop_cuts_the_centre_of_all_three():
    crop = Preprocessing(size=SIZE, resize="crop", mean=(0.0,), std=(1.0,), interpolation="nearest")
    values = noise(1, 10, 18, 20).astype(np.float32)
    whole = Preprocessing(size=(10, 18, 20), resize="crop", mean=(0.0,), std=(1.0,))
    np.testing.assert_array_equal(whole(values), values)
    long = np.zeros((1, 40, 10, 12), np.float32)
    long[:, 18:22] = 1
    np.testing.assert_array_equal(crop(long), np.ones((1, *SIZE)))


def test_mean_and_std_per_channel_and_back_to_a_picture():
    own = Preprocessing(size=SIZE, resize="squash", mean=(0.2, 0.4), std=(0.5, 2.0), shown=(1,))
    values = (noise(2, *SIZE) / 255).astype(np.float32)
    volume = own(values)
    np.testing.assert_allclose(volume[1], (values[1] - 0.4) / 2, atol=1e-6)
    picture = own.picture(volume)
    assert (picture.shape, picture.dtype) == ((*SIZE, 3), np.uint8)
    order = values[1].ravel().argsort()
    assert (np.diff(picture[..., 0].ravel()[order].astype(int)) >= 0).all()
    with pytest.raises(DataError, match=r"takes volumes of 2 channel\(s\): give an array"):
        own(values[0])


def test_altered_copies_of_volumes_are_volumes():
    assert alter(torch.rand(1, *SIZE), torch.Generator()).shape == (1, *SIZE)


# --- the network


def conv(kind, channels=1):
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool3d if kind is nn.Conv3d else nn.AdaptiveAvgPool2d
    return nn.Sequential(kind(channels, 4, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 3))


def test_images_and_volumes_are_not_mixed_up():
    with pytest.raises(
        ModelError,
        match=r"takes volumes \(its first convolution is a Conv3d\).*"
        r"1 x 16 x 16 image has no depth: give --size DEPTHxHEIGHTxWIDTH",
    ):
        count_outputs(conv(nn.Conv3d), Preprocessing(size=16, mean=(0.0,), std=(1.0,)))
    with pytest.raises(ModelError, match=r"takes images \(.*Conv2d\), not volumes \(1 x 4 x"):
        count_outputs(conv(nn.Conv2d), ONE)
    assert count_outputs(conv(nn.Conv3d), ONE) == 3


def test_the_first_convolution_says_how_many_channels_volumes_have():
    with pytest.warns(XNNWarning, match=r"the network takes 1 channel\(s\)"):
        assert settle_channels(conv(nn.Conv3d), Preprocessing(size=SIZE)).shape == (1, *SIZE)


# --- files


def test_arrays_in_three_orders(tmp_path):
    values, path = noise(*SIZE), tmp_path / "x.npy"
    own = torch.from_numpy(values / 255).float()
    for given in (values, values[None], values[..., None]):
        torch.testing.assert_close(read_input(saved(path, given), ONE)[0], own)
    three = np.stack([values, values // 2, values // 4])
    for given in (three, np.moveaxis(three, 0, -1)):
        found = read_input(saved(path, given), THREE)
        torch.testing.assert_close(found, torch.from_numpy(three / 255).float())
    grey = read_input(saved(path, values), THREE)
    torch.testing.assert_close(grey, own.expand(3, *SIZE))


def test_integers_have_a_full_range_and_other_numbers_are_as_they_are(tmp_path):
    wide = noise(*SIZE, dtype=np.uint16)
    found = read_input(saved(tmp_path / "x.npy", wide), ONE)[0]
    np.testing.assert_allclose(found, wide / 65535, atol=1e-6)
    hounsfield = noise(*SIZE).astype(np.int16) - 1000
    np.testing.assert_array_equal(
        read_input(saved(tmp_path / "x.npy", hounsfield), ONE)[0], hounsfield
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((10, 12)), r"an array \(10, 12\); the network takes 1 channel\(s\) of depth"),
        (np.zeros((2, *SIZE)), r"an array \(2, 4, 10, 12\); the network takes 1 channel"),
        (np.zeros((1, 4, 10, 1)), "whose channels may be the first or the last"),
        (np.zeros((1, 10, 12)), "one slice: put all slices of a volume into one file"),
        (np.zeros((10, 12, 4)), r"the slices of 10 x 12 x 4 are last; move this axis to the front"),
        (np.full(SIZE, np.nan), "NaN or infinity"),
        (np.zeros(SIZE, complex), "save real numbers"),
    ],
)
def test_arrays_that_leave_a_doubt_are_refused(tmp_path, values, message):
    with pytest.raises(UnreadableImageError, match=message):
        read_input(saved(tmp_path / "x.npy", values), ONE)


def test_a_picture_of_three_channels_is_no_volume(tmp_path):
    for shape in ((3, 10, 12), (10, 12, 3)):
        with pytest.raises(UnreadableImageError, match="may be one slice of 3 channels"):
            read_input(saved(tmp_path / "x.npy", np.zeros(shape)), THREE)


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pages_of_a_tiff_are_slices(tmp_path, dtype, full):
    values = noise(*SIZE, dtype=dtype)
    pages = [Image.fromarray(page) for page in values]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_allclose(read_input(tmp_path / "x.tif", ONE)[0], values / full, atol=1e-6)
    pages[0].save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match="one slice"):
        read_input(tmp_path / "x.tif", ONE)
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=[pages[1].resize((8, 8))])
    with pytest.raises(UnreadableImageError, match="pages of several sizes"):
        read_input(tmp_path / "x.tif", ONE)


def test_frames_of_a_dicom_file_are_slices(tmp_path):
    stored = noise(*SIZE) * np.uint16(16)
    window = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 200, "WindowWidth": 800}
    write_dicom(tmp_path / "x.dcm", stored, NumberOfFrames=4, **window)
    expected = ((2.0 * stored - 1000 - 199.5) / 799 + 0.5).clip(0, 1)
    np.testing.assert_allclose(read_input(tmp_path / "x.dcm", ONE)[0], expected, atol=1e-6)
    write_dicom(tmp_path / "y.dcm", stored[0])
    with pytest.raises(UnreadableImageError, match="one slice: put all slices"):
        read_input(tmp_path / "y.dcm", ONE)


def test_values_of_single_dicom_frames_are_refused(tmp_path):
    pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset

    group, values = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, -1000, "HU"
    group.PixelValueTransformationSequence = [values]
    write_dicom(tmp_path / "x.dcm", noise(*SIZE), NumberOfFrames=4,
                SharedFunctionalGroupsSequence=[group])  # fmt: skip
    with pytest.raises(UnreadableImageError, match="slopes or windows of single frames"):
        read_input(tmp_path / "x.dcm", ONE)


def test_nifti_is_read_with_its_slope_and_its_third_axis_is_the_depth(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="reads NIfTI")
    stored = noise(*SIZE).astype(np.int16)
    image = nibabel.Nifti1Image(stored.T, np.eye(4))
    for name in ("x.nii", "x.nii.gz"):
        nibabel.save(image, tmp_path / name)
        np.testing.assert_array_equal(read_input(tmp_path / name, ONE)[0], stored)
    assert gzip.decompress((tmp_path / "x.nii.gz").read_bytes())[344:348] == b"n+1\0"
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "x.nii")
    np.testing.assert_allclose(read_input(tmp_path / "x.nii", ONE)[0], stored / 2 - 3, atol=1e-4)
    two = Preprocessing(size=SIZE, resize="squash", mean=(0.0,) * 2, std=(1.0,))
    both = np.stack([stored, stored[::-1]])
    nibabel.save(nibabel.Nifti1Image(both.T, np.eye(4)), tmp_path / "x.nii")
    np.testing.assert_array_equal(read_input(tmp_path / "x.nii", two), both)


def test_readable_endings_and_what_others_need():
    assert {".npy", ".tif", ".tiff"} <= images.readable(ONE)
    assert (".nii.gz" in images.readable(ONE)) == volumes.NIFTI_INSTALLED
    assert not {".nii", ".nii.gz"} & images.READABLE
    assert images.NEEDS[".nii.gz"].startswith("a network of volumes")
    assert ("torchxnn[formats]" in images.NEEDS[".nii"]) != volumes.NIFTI_INSTALLED


def test_a_file_of_another_kind_says_which_are_volumes(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match=r"the network takes volumes, which are .*\.npy"):
        read_input(tmp_path / "x.png", ONE)
    (tmp_path / "x.nii").write_bytes(b"x")
    monkeypatch.setattr(volumes, "READABLE", volumes.READABLE - volumes.NIFTI)
    with pytest.raises(UnreadableImageError, match=r"it needs pip install 'torchxnn\[formats\]'"):
        read_input(tmp_path / "x.nii", ONE)


# --- folders


def class_folders(root, values=None):
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(2):
            np.save(root / name / f"{i}.npy", noise(*SIZE) if values is None else values)
    return root


def test_class_folders_of_volumes(tmp_path):
    (class_folders(tmp_path) / "a" / "scan.nii.gz").write_bytes(gzip.compress(b"nothing"))
    (tmp_path / "b" / "photo.png").write_bytes(b"")
    with pytest.warns(SkippedImagesWarning) as said:
        opened = open_dataset(tmp_path, ONE, DataConfig(), 2, None, "train")
    assert opened.dataset.labels == (0, 0, 1, 1)
    batch, labels = next(iter(make_loader(opened.dataset)))
    assert (batch.shape, labels.tolist()) == ((4, 1, *SIZE), [0, 0, 1, 1])
    text = " ".join(str(each.message) for each in said)
    assert ".png 1" in text
    assert "a/scan.nii.gz (" in text if volumes.NIFTI_INSTALLED else ".nii.gz 1 (needs" in text


def test_volumes_beside_images_are_named_with_what_they_need(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "x.png")
    (tmp_path / "a" / "scan.NII.GZ").write_bytes(b"x")
    with pytest.warns(SkippedImagesWarning, match=r"\.nii\.gz 1 \(needs a network of volumes"):
        ImageFolder(tmp_path, Preprocessing(size=8))


def test_a_folder_of_slices_says_that_a_volume_is_one_file(tmp_path):
    class_folders(tmp_path / "arrays", noise(1, 10, 12))
    with pytest.raises(
        DataError,
        match=r"none of the 4 volumes in .*first, a/0\.npy: .*one slice: "
        "put all slices of a volume into one file",
    ):
        ImageFolder(tmp_path / "arrays", ONE)
    for name in "ab":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "pictures" / name / "x.png")
    with pytest.raises(DataError, match=r"has no volumes \(.*; a volume is one file of all its sl"):
        ImageFolder(tmp_path / "pictures", ONE)


def test_official_layouts_have_no_volumes(tmp_path):
    with pytest.raises(DataError, match="in the layout of cub, which has images, and the network"):
        open_dataset(tmp_path, ONE, DataConfig(layout="cub"), 2, None, "train")
