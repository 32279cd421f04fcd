"""Any folder for a network: what its class folders mean, and when they are not used."""

import json

import pytest

from image_examples import write_noise
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.open import find_target, open_dataset
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

SMALL = Preprocessing(size=8, resize="squash")


def write(root, *folders):
    for number, folder in enumerate(folders):
        write_noise(root / folder / "1.jpg", number)
    return root


def opened(root, outputs, names=None, **config):
    return open_dataset(root, SMALL, DataConfig(**config), outputs, names, "train")


def test_numbered_folders_are_the_outputs_and_it_is_said_when_that_is_in_doubt(tmp_path):
    with pytest.warns(XNNWarning, match="2 before 10; if the network was trained with labels"):
        found = opened(write(tmp_path, *map(str, range(1, 12))), 11)
    assert found.class_names == tuple(map(str, range(1, 12)))
    assert found.dataset.labels == tuple(range(11))
    assert opened(tmp_path, 11, found.class_names).dataset.labels == tuple(range(11))  # no doubt


def test_folders_that_end_in_numbers_are_sorted_as_text_and_it_is_said(tmp_path):
    with pytest.warns(XNNWarning, match=r"end in numbers and are .* \(kind_0, kind_1, kind_10, "):
        found = opened(write(tmp_path / "a", *(f"kind_{k}" for k in range(11))), 11)
    assert found.dataset.labels[2] == 2
    opened(write(tmp_path / "b", *(f"kind_{k:02d}" for k in range(11))), 11)  # no doubt
    opened(write(tmp_path / "c", *(f"kind_{k}" for k in range(9)), "kind_x10"), 10)


def test_arrays_are_read_on_request(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 x \.npy.*--arrays reads \.npy files"):
        opened(tmp_path, 1)


def test_a_class_map_gives_the_order(tmp_path):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"1": "cat", "0": "dog", "2": "emu"}))
    found = opened(write(tmp_path / "images", "cat", "dog"), 3, class_map=file)
    assert found.class_names == ("dog", "cat", "emu")
    assert found.dataset.labels == (1, 0)
    numbered = opened(write(tmp_path / "numbers", "0", "2"), 3, class_map=file)
    assert numbered.dataset.labels == (0, 2)
    with pytest.raises(DataError, match=r"cats is none of the classes of .*; near ones: cat"):
        opened(write(tmp_path / "other", "cats"), 3, class_map=file)


def test_a_class_map_is_for_class_folders(tmp_path):
    (tmp_path / "map").write_text("a\nb\n")
    (tmp_path / "mnist").mkdir()
    with pytest.raises(DataError, match="layout of mnist, which has no use for a class map"):
        opened(tmp_path / "mnist", 10, layout="mnist", class_map=tmp_path / "map")


def test_parts_of_a_split_are_no_classes(tmp_path):
    write(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    for names in (None, ("cat", "dog")):
        with pytest.raises(DataError, match=r"train, val, which are parts of a split .*train"):
            opened(tmp_path, 2, names)
    assert opened(tmp_path / "val", 2).class_names == ("cat", "dog")


def test_folders_that_do_not_fit_name_the_class_map(tmp_path):
    with pytest.warns(XNNWarning, match=r"do not belong .* \(--class-map FILE\)"):
        assert opened(write(tmp_path, "a", "b"), 3).dataset.labels is None


def test_a_target_is_found_however_its_accents_are_written():
    assert find_target("Me\u0301sange", 2, ["Spatz", "M\u00e9sange"]) == 1
