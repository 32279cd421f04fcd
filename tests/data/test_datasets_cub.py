"""CUB-200-2011 in its official layout: split, parts, boxes, and errors that name file and line."""

import pytest
import torch
from PIL import Image

from dataset_examples import CUB_FILES, change_line, write_cub
from torchxnn.data.datasets.cub import CUB
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=40, resize="squash")


def test_split_labels_and_names(tmp_path):
    train, test = (CUB(write_cub(tmp_path), SQUASH, split) for split in ("train", "test"))
    assert (train.ids, test.ids) == ((2, 3), (1,))
    assert (train.labels, test.labels) == ((0, 1), (0,))
    assert train.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert train.part_names == ("back", "left eye")
    assert test[0].path == "images/001.Black_footed_Albatross/one.jpg"
    assert len(CUB(tmp_path, SQUASH)) == 3
    with pytest.raises(DataError, match="split must be"):
        CUB(tmp_path, SQUASH, "validation")


def test_the_folder_above_will_do(tmp_path):
    write_cub(tmp_path / "CUB_200_2011")
    assert len(CUB(tmp_path, SQUASH)) == 3


def test_parts_and_boxes_squashed(tmp_path):
    sample = CUB(write_cub(tmp_path), SQUASH)[0]  # 80 x 80 becomes 40 x 40
    assert sample.image.shape == (3, 40, 40)
    assert sample.parts.tolist() == [[20.0, 10.0, 1.0], [0.0, 0.0, 0.0]]
    assert sample.box.tolist() == [10.0, 5.0, 20.0, 10.0]


def test_parts_and_boxes_of_a_wide_picture(tmp_path):
    write_cub(tmp_path)
    Image.new("RGB", (160, 80)).save(tmp_path / "images/001.Black_footed_Albatross/one.jpg")
    squashed = CUB(tmp_path, SQUASH)[0]
    assert squashed.parts[0].tolist() == [10.0, 10.0, 1.0]
    assert squashed.box.tolist() == [5.0, 5.0, 10.0, 10.0]
    # 160 x 80 stays; the middle 40 x 40 starts at 60, 20.
    cropped = CUB(tmp_path, Preprocessing(size=40, resize="crop", shorter_side=80))[0]
    assert cropped.parts.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert cropped.box.tolist() == [0.0, 0.0, 0.0, 10.0]


def test_a_part_on_the_far_edge_is_outside(tmp_path):
    parts = CUB(write_cub(tmp_path), SQUASH)[1].parts
    assert parts.tolist() == [[5.0, 35.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", CUB_FILES)
def test_a_missing_file_is_named(tmp_path, name):
    (write_cub(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=name):
        CUB(tmp_path, SQUASH)


def test_a_missing_image_is_named(tmp_path):
    (write_cub(tmp_path) / "images/002.Laysan_Albatross/three.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images are missing .* images/002.*three\.jpg"):
        CUB(tmp_path, SQUASH)


@pytest.mark.parametrize(
    ("name", "line", "text", "message"),
    [
        ("images.txt", 2, "two a.jpg", r"images\.txt, line 2: expected 2 values, got 'two a\.jpg'"),
        ("images.txt", 2, "2 /etc/passwd", r"images\.txt, line 2"),
        ("images.txt", 2, "2 ../up.jpg", r"images\.txt, line 2"),
        ("images.txt", 2, "1 a.jpg", r"images\.txt, line 2: number 1 is there twice"),
        ("image_class_labels.txt", 3, "3", r"image_class_labels\.txt, line 3: expected 2 values"),
        ("image_class_labels.txt", 3, "3 9", r"image 3 has class 9, which classes\.txt"),
        ("image_class_labels.txt", 3, "4 1", r"line 3: images\.txt does not list image 4"),
        ("image_class_labels.txt", 3, None, r"no line for image 3"),
        ("train_test_split.txt", 1, "1 2", r"train_test_split\.txt, line 1"),
        ("bounding_boxes.txt", 1, "1 2 3 4", r"bounding_boxes\.txt, line 1: expected 5 values"),
        ("bounding_boxes.txt", 1, "1 2 3 4 nan", r"bounding_boxes\.txt, line 1"),
        ("parts/part_locs.txt", 4, "2 7 1 1 1", r"part_locs\.txt, line 4: .* no part 7"),
        ("parts/part_locs.txt", 4, None, r"part_locs\.txt: image 2 has no line for part 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path, name, line, text, message):
    change_line(write_cub(tmp_path) / name, line, text)
    with pytest.raises(DataError, match=message):
        CUB(tmp_path, SQUASH)


def test_a_file_that_is_no_text(tmp_path):
    (write_cub(tmp_path) / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"classes\.txt: not a text file"):
        CUB(tmp_path, SQUASH)


def test_an_empty_file(tmp_path):
    (write_cub(tmp_path) / "classes.txt").write_text("")
    with pytest.raises(DataError, match=r"classes\.txt is empty"):
        CUB(tmp_path, SQUASH)


def test_parts_are_tensors_of_the_right_shape(tmp_path):
    sample = CUB(write_cub(tmp_path), SQUASH)[2]
    assert sample.parts.shape == (2, 3)
    assert sample.parts.dtype == torch.float32
