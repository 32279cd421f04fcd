"""Places365 in the official layout and as a folder of rooms."""

import pytest

from dataset_examples import change_line, write_places, write_places_rooms
from torchxnn.data.datasets.places365 import PLACES_ROOMS, Places365
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

SMALL = Preprocessing(size=24, resize="squash")


def test_official_layout(tmp_path):
    train, test = (Places365(write_places(tmp_path), SMALL, split) for split in ("train", "test"))
    assert train.layout == "standard"
    assert train.classes == ("bathroom", "bedroom", "church/indoor", "living_room")
    assert train.labels == (0, 1, 1, 2, 3)
    assert train.paths[3] == "data_256/c/church/indoor/00000001.jpg"
    assert (test.labels, test.absent) == ((3, 1), ("bathroom", "church/indoor"))
    assert test[0].path == "val_256/Places365_val_00000001.jpg"
    assert test[0].image.shape == (3, 24, 24)
    assert Places365(tmp_path, SMALL).labels == (*train.labels, *test.labels)


@pytest.mark.parametrize(
    ("train", "val"), [("data_256_standard", "val_256"), ("data_large", "val_large")]
)
def test_other_official_folders(tmp_path, train, val):
    places = Places365(write_places(tmp_path, train, val), SMALL)
    assert places.paths[0] == f"{train}/b/bathroom/00000001.jpg"
    assert places.paths[-1] == f"{val}/Places365_val_00000002.jpg"


def test_chosen_categories_in_their_order(tmp_path):
    chosen = ["living room", "/b/bedroom", "church_indoor"]
    places = Places365(write_places(tmp_path), SMALL, "train", classes=chosen)
    assert places.classes == tuple(chosen)
    assert places.labels == (1, 1, 2, 0)
    assert places[0].path == "data_256/b/bedroom/00000001.jpg"
    with pytest.warns(XNNWarning, match="has no images of church_indoor"):
        assert Places365(tmp_path, SMALL, "test", classes=chosen).labels == (0, 1)


def test_only_the_pictures_of_chosen_categories_must_be_there(tmp_path):
    (write_places(tmp_path) / "data_256/b/bathroom/00000001.jpg").unlink()
    assert len(Places365(tmp_path, SMALL, "train", classes=["bedroom"])) == 2
    with pytest.raises(DataError, match=r"1 of 5 images are missing .*data_256/b/bathroom"):
        Places365(tmp_path, SMALL, "train")


def test_an_unknown_category_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no class 'bed room 2'; near ones: bedroom"):
        Places365(write_places(tmp_path), SMALL, classes=["bathroom", "bed room 2"])
    with pytest.raises(DataError, match="has no class 'conference_room'"):
        Places365(tmp_path, SMALL, classes=PLACES_ROOMS)


def test_the_ten_rooms_of_the_paper():
    assert len(set(PLACES_ROOMS)) == 10
    assert sorted(PLACES_ROOMS) == list(PLACES_ROOMS)


@pytest.mark.parametrize(
    ("name", "line", "text", "message"),
    [
        ("categories_places365.txt", 2, "/b/bedroom 2", r"line 2: expected a category .* number 1"),
        ("categories_places365.txt", 2, "bedroom 1", r"categories_places365\.txt, line 2"),
        ("categories_places365.txt", 2, "/b/bedroom", r"categories_places365\.txt, line 2"),
        ("places365_train_standard.txt", 3, "/b/x.jpg 4", r"train_standard\.txt, line 3: expected"),
        ("places365_train_standard.txt", 3, "/b/x.jpg -1", r"train_standard\.txt, line 3"),
        ("places365_train_standard.txt", 3, "/b/../../x.jpg 1", r"train_standard\.txt, line 3"),
        ("places365_val.txt", 1, "Places365_val_00000001.jpg", r"places365_val\.txt, line 1"),
    ],
)
def test_a_broken_line_is_named(tmp_path, name, line, text, message):
    change_line(write_places(tmp_path) / name, line, text)
    with pytest.raises(DataError, match=message):
        Places365(tmp_path, SMALL)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match=r"not Places365: .*categories_places365\.txt"):
        Places365(tmp_path, SMALL)
    (write_places(tmp_path) / "val_256").rename(tmp_path / "other")
    with pytest.raises(DataError, match="no folder val_256 or val_large for its test images"):
        Places365(tmp_path, SMALL)
    (tmp_path / "places365_train_standard.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*places365_train_standard\.txt"):
        Places365(tmp_path, SMALL, "train")


def test_folder_of_rooms(tmp_path):
    rooms = Places365(write_places_rooms(tmp_path), SMALL)
    assert (rooms.layout, rooms.classes) == ("rooms", ("bedroom", "kitchen"))
    assert rooms.labels == (0, 1, 0, 1)
    assert rooms[0].path == "images/eval/bedroom/Places365_val_00000002.jpg"
    assert Places365(tmp_path, SMALL, "train").labels == (1, 0, 1)
    assert Places365(tmp_path, SMALL, "test").absent == ("kitchen",)
    chosen = Places365(tmp_path, SMALL, "train", classes=["kitchen"])
    assert (chosen.labels, chosen.paths[1]) == ((0, 0), "images/train/kitchen/2.jpg")
    with pytest.raises(DataError, match="has no class 'office'"):
        Places365(tmp_path, SMALL, classes=["kitchen", "office"])


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "file,room,split,source_path", "line 1: there is no column 'class'"),
        (3, "train/kitchen/1.jpg,kitchen,validation,x", "line 3: expected one of train, eval"),
        (3, "../1.jpg,kitchen,train,x", "line 3: expected a file below images/"),
        (3, "train/kitchen/1.jpg,,train,x", "line 3: expected a file below images/ and a class"),
        (4, "train/kitchen/1.jpg,kitchen,train,x", r"line 4: train/kitchen/1\.jpg is there twice"),
        (3, "train/kitchen/9.jpg,kitchen,train,x", r"1 of 4 images are missing .*kitchen/9\.jpg"),
    ],
)
def test_a_broken_row_is_named(tmp_path, line, text, message):
    change_line(write_places_rooms(tmp_path) / "labels.csv", line, text)
    with pytest.raises(DataError, match=message):
        Places365(tmp_path, SMALL)
