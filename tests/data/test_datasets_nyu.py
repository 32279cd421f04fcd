"""NYU Depth v2: split, scene types as classes of a network, masks, errors that name a line."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_examples import change_line, quarters, write_mask, write_nyu
from torchxnn.data.datasets.nyu import NYUDepth
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=40, resize="squash")


def test_split_labels_and_names(tmp_path):
    train, test = (NYUDepth(write_nyu(tmp_path), SQUASH, split) for split in ("train", "test"))
    assert train.classes == test.classes == ("bedroom", "kitchen", "living_room")
    assert (train.ids, test.ids) == (("0002", "0003"), ("0001", "0004"))
    assert (train.labels, test.labels) == ((0, 1), (1, 2))
    assert (train.absent, test.absent) == (("living_room",), ("bedroom",))
    assert train.object_names == ("void", "wall", "floor", "night_stand")
    assert test[1].path == "images/0004.jpg"
    assert len(NYUDepth(tmp_path, SQUASH)) == 4
    with pytest.raises(DataError, match="split must be"):
        NYUDepth(tmp_path, SQUASH, "val")


def test_scenes_of_a_network_keep_its_indices(tmp_path):
    write_nyu(tmp_path)
    with pytest.warns(XNNWarning, match="has no images of entrance hall; the other classes keep"):
        rooms = NYUDepth(tmp_path, SQUASH, classes=("Living room", "entrance hall", "kitchen"))
    assert rooms.classes == ("Living room", "entrance hall", "kitchen")
    assert rooms.absent == ("entrance hall",)
    assert (rooms.ids, rooms.labels) == (("0001", "0003", "0004"), (2, 2, 0))
    assert [rooms[index].label for index in range(3)] == [2, 2, 0]


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        (["kitchens"], "has no class 'kitchens'; near ones: kitchen"),
        (["kitchen", "Kitchen"], "'Kitchen' is given twice"),
        ("kitchen", "as a list of names, got 'kitchen'"),
        ([], "as a list of names"),
    ],
)
def test_wrong_scenes(tmp_path, scenes, message):
    with pytest.raises(DataError, match=message):
        NYUDepth(write_nyu(tmp_path), SQUASH, classes=scenes)


def test_scenes_of_the_other_split(tmp_path):
    with pytest.raises(DataError, match=r"\(train\) has no images of living_room"):
        NYUDepth(write_nyu(tmp_path), SQUASH, "train", classes=["living_room"])


def test_masks_squashed(tmp_path):
    sample = NYUDepth(write_nyu(tmp_path), SQUASH)[0]
    assert sample.image.shape == (3, 40, 40)
    assert sample.masks.dtype == torch.int64
    np.testing.assert_array_equal(sample.masks, quarters(0, 1, 2, 3, size=40))


def test_masks_of_a_wide_picture_are_cropped_with_it(tmp_path):
    write_nyu(tmp_path)
    Image.new("RGB", (160, 80)).save(tmp_path / "images/0001.jpg")
    write_mask(tmp_path / "masks/0001.png", np.arange(160).repeat(80).reshape(160, 80).T // 40)
    # 160 x 80 stays; the middle 40 x 40 starts at column 60: 20 columns of 1, then 20 of 2.
    masks = NYUDepth(tmp_path, Preprocessing(size=40, resize="crop", shorter_side=80))[0].masks
    assert masks.tolist() == [[1] * 20 + [2] * 20] * 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labels.csv", r"not NYU Depth v2 as expected: there is no labels\.csv"),
        ("classes.txt", r"cannot read .*classes\.txt"),
        ("images/0003.jpg", r"1 of 4 images are missing .* images/0003\.jpg"),
        ("masks/0003.png", r"1 of 4 masks are missing .* masks/0003\.png"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, message):
    (write_nyu(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=message):
        NYUDepth(tmp_path, SQUASH)


@pytest.mark.parametrize(
    ("name", "line", "text", "message"),
    [
        ("labels.csv", 1, "id,room,split,x", r"labels\.csv, line 1: there is no column 'scene'"),
        ("labels.csv", 3, "two,bedroom,train,x", r"line 3: expected a number as id, got 'two'"),
        ("labels.csv", 3, "0002,,train,x", r"line 3: image 0002 has no scene type"),
        (
            "labels.csv",
            3,
            "0002,bedroom,val,x",
            r"line 3: expected train or test as split, got 'val'",
        ),
        ("labels.csv", 3, "0001,bedroom,train,x", r"line 3: image 0001 is there twice"),
        ("labels.csv", 3, "0002,bedroom,train", r"line 3: expected 4 values as in the header"),
        ("labels.csv", 3, "0002,bedroom,train,x,y", r"line 3: expected 4 values"),
        ("labels.csv", 3, '0002,bedroom,train,"x', r"labels\.csv, line \d: unexpected end of data"),
        (
            "classes.txt",
            3,
            "3 floor",
            r"classes\.txt, line 3: expected class number 2, got '3 floor'",
        ),
        ("classes.txt", 3, "2", r"classes\.txt, line 3: expected a number and a name"),
    ],
)
def test_a_broken_line_is_named(tmp_path, name, line, text, message):
    change_line(write_nyu(tmp_path) / name, line, text)
    with pytest.raises(DataError, match=message):
        NYUDepth(tmp_path, SQUASH)


def test_empty_files_and_no_text(tmp_path):
    write_nyu(tmp_path)
    (tmp_path / "labels.csv").write_text("id,scene,split\n")
    with pytest.raises(DataError, match=r"labels\.csv has no rows"):
        NYUDepth(tmp_path, SQUASH)
    (tmp_path / "classes.txt").write_text("")
    with pytest.raises(DataError, match=r"classes\.txt is empty"):
        NYUDepth(tmp_path, SQUASH)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"classes\.txt: not a text file"):
        NYUDepth(tmp_path, SQUASH)


def test_broken_masks_are_named(tmp_path):
    rooms = NYUDepth(write_nyu(tmp_path), SQUASH)
    path = tmp_path / "masks/0001.png"
    write_mask(path, quarters(0, 1, 2, 4))
    with pytest.raises(DataError, match=r"0001\.png has class number 4, classes\.txt ends at 3"):
        rooms[0]
    write_mask(path, quarters(0, 1, 2, 3, size=60))
    with pytest.raises(DataError, match=r"0001\.png has 60 x 60 pixels, .*0001\.jpg 80 x 80"):
        rooms[0]
    write_mask(path, np.zeros((80, 80, 3)))
    with pytest.raises(DataError, match=r"0001\.png: expected one channel .* got mode RGB"):
        rooms[0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot read the image .*0001\.png"):
        rooms[0]
    path.unlink()
    with pytest.raises(DataError, match=r"0001\.png: there is no such file"):
        rooms[0]


def test_numbers_above_255_and_palettes_are_taken_as_they_are(tmp_path):
    rooms = NYUDepth(write_nyu(tmp_path), SQUASH)
    path = tmp_path / "masks/0001.png"
    Image.fromarray(quarters(0, 1, 2, 300).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match="class number 300"):
        rooms[0]
    image = Image.fromarray(quarters(0, 1, 2, 3).astype(np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0] * 256)
    image.putdata(quarters(0, 1, 2, 3).ravel().tolist())
    image.save(path)
    np.testing.assert_array_equal(rooms[0].masks, quarters(0, 1, 2, 3, size=40))
