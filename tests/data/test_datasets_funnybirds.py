"""FunnyBirds: layout, part maps, what is left out, renderings without parts, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_examples import BIRD_CLASSES, BIRD_PARTS, draw_bird, write_funnybirds
from torchxnn.data.datasets import funnybirds
from torchxnn.data.datasets.funnybirds import PARTS, FunnyBirds, FunnyBirdsInterventions
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=32, resize="squash")


def test_split_numbers_and_names(tmp_path):
    train, test = (FunnyBirds(write_funnybirds(tmp_path), SQUASH, s) for s in ("train", "test"))
    assert train.classes == test.classes == ("bird 0", "bird 1", "bird 2", "bird 3")
    assert train.labels == test.labels == (0, 0, 1, 1, 2, 2, 3, 3)
    assert train.numbers == (0, 1, 3, 4, 6, 7, 9, 10)  # the third of each class was not written
    assert test.numbers == tuple(range(8))
    assert train.paths[2] == "train/1/000003.png"
    assert train.kind_names[0] == ("beak01 yellow", "beak02 yellow")
    assert train.background_objects == (2,) * 8
    both = FunnyBirds(tmp_path, SQUASH)
    assert both.paths == train.paths + test.paths
    assert both.kinds.tolist() == train.kinds.tolist() + test.kinds.tolist()


@pytest.mark.parametrize(("suffix", "alpha"), [(".png", True), (".webp", False), (".webp", True)])
def test_png_and_webp_with_and_without_alpha_read_alike(tmp_path, suffix, alpha):
    birds = FunnyBirds(write_funnybirds(tmp_path / "a"), SQUASH)
    others = FunnyBirds(write_funnybirds(tmp_path / "b", suffix, alpha), SQUASH)
    for one, other in zip(birds, others, strict=True):
        assert other.path == one.path.replace(".png", suffix)
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.masks, other.masks)


def test_the_folder_above_and_a_picture_that_is_there_twice(tmp_path):
    write_funnybirds(tmp_path / "FunnyBirds")
    draw_bird({}).save(tmp_path / "FunnyBirds/test/0/000000.webp")
    birds = FunnyBirds(tmp_path, SQUASH, "test")
    assert birds.root.name == "FunnyBirds"
    assert birds.paths[0].endswith(".png")
    assert len(birds) == 8


def test_what_is_left_out_and_the_classes_that_agree(tmp_path):
    birds = FunnyBirds(write_funnybirds(tmp_path), SQUASH, "train")
    assert birds.class_kinds.tolist() == [list(kinds) for kinds in BIRD_CLASSES]
    assert birds.kinds[0].tolist() == [-1, -1, 0, 0, 0]
    assert birds.placeholder[:2].tolist() == [[True, True, False, False, False], [False] * 5]
    # Without beak and eye, class 0 (0 0 0 0 0) looks like class 1 (1 0 0 0 0).
    assert birds.agreeing[0].tolist() == [True, True, False, False]
    assert birds.agreeing[1].tolist() == [True, False, False, False]
    assert birds.shows(0)[0].tolist() == [False, False, True, True, True]
    assert birds.shows(3)[1].tolist() == [True, True, False, False, True]
    own = birds.agreeing[range(8), birds.labels]
    assert own.all()


def test_part_maps(tmp_path):
    birds = FunnyBirds(write_funnybirds(tmp_path), SQUASH, "test")
    masks = birds[0].masks
    expected = np.zeros((32, 32), dtype=int)
    boxes = [(7, 1, 7, 1, 7), (8, 4, 10, 24, 31), (6, 10, 24, 10, 22), (4, 18, 26, 2, 12)]
    boxes += [(3, 24, 31, 13, 16), (5, 13, 20, 12, 19), (1, 12, 15, 21, 28), (2, 11, 13, 17, 20)]
    for number, top, bottom, left, right in boxes:
        expected[top:bottom, left:right] = number
    assert masks.tolist() == expected.tolist()
    assert birds.object_names[:9] == ("background", *PARTS, "body", *birds.object_names[7:9])
    assert birds.object_names[8] == "background object 1"


def test_palettes_are_read_as_colours(tmp_path):
    birds = FunnyBirds(write_funnybirds(tmp_path), SQUASH, "test")
    before, path = birds[0].masks, tmp_path / "test_part_map/0/000000.png"
    with Image.open(path) as saved:
        pixels = np.asarray(saved).reshape(-1, 3)
    colours, numbers = np.unique(pixels, axis=0, return_inverse=True)
    image = Image.fromarray(numbers.reshape(32, 32).astype(np.uint8)).convert("P")
    image.putdata(numbers.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    image.save(path)
    with Image.open(path) as saved:
        assert saved.mode == "P"
    assert torch.equal(birds[0].masks, before)


def test_without_part_maps_there_are_no_masks(tmp_path):
    birds = FunnyBirds(write_funnybirds(tmp_path), SQUASH, "test")
    (tmp_path / "test_part_map").rename(tmp_path / "elsewhere")
    assert birds[0].masks is None


def test_antialiased_pixels_take_the_neighbour_most_like_them(tmp_path):
    path = tmp_path / "map.png"
    colours = np.zeros((2, 8, 3), dtype=np.uint8)
    colours[:, 4:] = (255, 255, 253)
    # Half of an eye and half of black is nearest to the body (170) of all known colours.
    colours[:, 3] = (150, 150, 149)
    assert funnybirds._part_numbers(colours, path).tolist() == [[0, 0, 0, 2, 2, 2, 2, 2]] * 2
    colours[:, 3] = (100, 100, 99)
    assert funnybirds._part_numbers(colours, path).tolist() == [[0, 0, 0, 0, 2, 2, 2, 2]] * 2
    colours = np.zeros((6, 20, 3), dtype=np.uint8)
    colours[:3, :3] = (0, 0, 200)  # the middle one has no known neighbour
    assert funnybirds._part_numbers(colours, path)[0, 0] == 4


CODES = list(funnybirds._COLOURS.items())


@settings(max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(CODES).map(lambda item: item[0]), st.tuples(*[st.integers(0, 255)] * 3)
        ),
        min_size=12,
        max_size=12,
    )
)
def test_part_numbers_against_a_literal_version(colours):
    table = dict(CODES)
    grid = [colours[:4], colours[4:8], colours[8:]]
    array = np.array(grid, dtype=np.uint8)
    if sum(colour not in table for colour in colours) > 3:
        with pytest.raises(DataError, match="is no part map"):
            funnybirds._part_numbers(array, Path("map.png"))
        return
    numbers = funnybirds._part_numbers(array, Path("map.png"))

    def distance(one, other):
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))

    for row, line in enumerate(grid):
        for column, colour in enumerate(line):
            near = [
                grid[r][c]
                for r in range(max(row - 1, 0), min(row + 2, 3))
                for c in range(max(column - 1, 0), min(column + 2, 4))
                if grid[r][c] in table
            ]
            choices = [colour] if colour in table else near or list(table)
            nearest = min(distance(colour, other) for other in choices)
            best = {table[other] for other in choices if distance(colour, other) == nearest}
            assert numbers[row, column] in best


def test_interventions(tmp_path):
    birds = FunnyBirds(write_funnybirds(tmp_path), SQUASH, "test")
    removed = FunnyBirdsInterventions(birds)
    assert len(removed) == 5 * len(birds)
    assert removed.labels == tuple(label for label in birds.labels for _ in range(5))
    for row in (0, 7, 39):
        image, part = divmod(row, 5)
        path = removed.paths[row]
        assert path.startswith(birds.paths[image].replace("test/", "test_interventions/")[:-4])
        assert PARTS[part] not in path
        kinds = dict(zip(PARTS, birds.kinds[image].tolist(), strict=True))
        del kinds[PARTS[part]]
        expected = draw_bird(kinds | {"object 0": 0, "object 1": 0})
        assert torch.equal(removed[row].image, SQUASH(expected))
    assert birds.rendering(0, ()) == "test_interventions/0/000000/body_.png"
    assert birds.rendering(0, ("eye", "beak")) is None
    assert birds.without_background_object(0, 1) is None
    extra = tmp_path / "test_interventions/0/000000/background_interventions/1.png"
    extra.parent.mkdir()
    draw_bird({}).save(extra)
    assert birds.without_background_object(0, 1) == extra.relative_to(tmp_path).as_posix()


def test_interventions_that_are_not_there(tmp_path):
    write_funnybirds(tmp_path)
    with pytest.raises(DataError, match=r"has the split 'all': open it with split='test'"):
        FunnyBirdsInterventions(FunnyBirds(tmp_path, SQUASH))
    (tmp_path / "test_interventions/1/000002/body_beak_eye_tail_wing.png").unlink()
    with pytest.raises(
        DataError,
        match=r"test/1/000002.png without its foot is missing .* no "
        r"test_interventions/1/000002/body_beak_eye_tail_wing\.png",
    ):
        FunnyBirdsInterventions(FunnyBirds(tmp_path, SQUASH, "test"))


def test_an_intervention_of_another_size_is_refused(tmp_path):
    write_funnybirds(tmp_path)
    path = tmp_path / "test_interventions/1/000002/body_beak_eye_tail_wing.png"
    with Image.open(path) as image:
        half = image.resize((image.width // 2, image.height))
    half.save(path)
    interventions = FunnyBirdsInterventions(FunnyBirds(tmp_path, SQUASH, "test"))
    row = interventions.paths.index(path.relative_to(tmp_path).as_posix())
    with pytest.raises(DataError, match=r"eye_tail_wing\.png has .* test/1/000002\.png with all"):
        interventions[row]
    assert interventions[row - 1].label == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("classes.json", r"is not FunnyBirds: there is no classes\.json"),
        ("parts.json", r"cannot read .*parts\.json"),
        ("dataset_train.json", r"cannot read .*dataset_train\.json"),
        ("test/1/000003.png", r"1 of 16 images are missing .* test/1/000003\.png"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, message):
    (write_funnybirds(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=message):
        FunnyBirds(tmp_path, SQUASH)


def change(entry, **values):
    return {**entry, **values}


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("classes.json", lambda v: v[1:], r"classes\.json, entry 0: expected class_idx 0"),
        ("classes.json", lambda v: [], r"classes\.json lists no class"),
        ("classes.json", lambda v: {"a": 1}, r"classes\.json is damaged"),
        ("classes.json", lambda v: [change(v[0], parts={"eye": 0})], r"'foot' is missing"),
        (
            "classes.json",
            lambda v: [change(v[0], parts=v[0]["parts"] | {"tail": 2})],
            r"entry 0: tail 2 is out of range, parts\.json lists 2 kinds",
        ),
        (
            "parts.json",
            lambda v: {"beak": v["beak"]},
            r"parts\.json is damaged: .*'eye' is missing",
        ),
        ("parts.json", lambda v: [], r"parts\.json is damaged"),
        ("dataset_test.json", lambda v: v[0], r"dataset_test\.json: expected a list of entries"),
        ("dataset_test.json", lambda v: [1], r"dataset_test\.json: expected a list of entries"),
        (
            "dataset_test.json",
            lambda v: [*v[:3], change(v[3], class_idx=4)],
            r"dataset_test\.json, entry 3: class_idx must be 0 to 3, got 4",
        ),
        ("dataset_test.json", lambda v: [{}], r"entry 0: class_idx must be 0 to 3, got None"),
        (
            "dataset_test.json",
            lambda v: [change(v[0], tail_color="pink")],
            r"entry 0: parts\.json knows no tail with tail_model 'tail01\.glb', tail_color 'pink'",
        ),
        (
            "dataset_test.json",
            lambda v: [v[0], change(v[2], class_idx=0), *v[2:]],
            r"_test\.json, entry 1: beak is of kind 1, that of class 0 is 0 in classes\.json",
        ),
        (
            "dataset_test.json",
            lambda v: v[:5],
            r"000005\.png and dataset_test\.json do not belong together: entry 5 is missing",
        ),
        (
            "dataset_train.json",
            lambda v: [*v[:4], change(v[0], class_idx=0), *v[5:]],
            r"train/1/000004\.png and dataset_train\.json .*: entry 4 is of class 0",
        ),
    ],
)
def test_a_broken_entry_is_named(tmp_path, name, changed, message):
    path = write_funnybirds(tmp_path) / name
    path.write_text(json.dumps(changed(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=message):
        FunnyBirds(tmp_path, SQUASH)


def test_no_json_and_no_pictures(tmp_path):
    write_funnybirds(tmp_path)
    (tmp_path / "parts.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot read .*parts\.json, it is no JSON"):
        FunnyBirds(tmp_path, SQUASH)
    write_funnybirds(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"\(train\) has no images of bird 0"):
        FunnyBirds(tmp_path, SQUASH, "train")


def test_broken_part_maps_are_named(tmp_path):
    birds = FunnyBirds(write_funnybirds(tmp_path), SQUASH, "test")
    path = tmp_path / "test_part_map/0/000000.png"
    Image.new("RGB", (16, 32)).save(path)
    with pytest.raises(DataError, match=r"000000\.png has 16 x 32 pixels, its picture .* 32 x 32"):
        birds[0]
    Image.new("RGB", (32, 32), (90, 80, 70)).save(path)
    with pytest.raises(DataError, match=r"000000\.png is no part map: 100% of its pixels"):
        birds[0]
    Image.new("L", (32, 32)).save(path)
    with pytest.raises(DataError, match=r"expected red, green and blue .* got mode L"):
        birds[0]
    path.unlink()
    with pytest.raises(DataError, match=r"000000\.png: there is no such file"):
        birds[0]


def test_parts_are_those_of_the_official_order():
    assert tuple(BIRD_PARTS) == PARTS
