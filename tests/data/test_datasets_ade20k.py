"""ADE20K: the challenge data and both full releases, their class numbers and names."""

import json

import numpy as np
import pytest
from PIL import Image

from dataset_examples import (
    ADE_CODES,
    ADE_MASKS,
    ADE_NAMES,
    ade_colours,
    change_line,
    quarters,
    write_ade_challenge,
    write_ade_full,
    write_lines,
    write_mask,
)
from image_examples import write_noise
from torchxnn.data.datasets.ade20k import ADE20K, class_numbers, match_instances, read_attributes
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=40, resize="squash")
RELEASES = ("challenge", "2016", "2021")
BEDROOM = {"2016": "images/training/b/bedroom", "2021": "images/ADE/training/home_or_hotel/bedroom"}


def write(root, release):
    return write_ade_challenge(root) if release == "challenge" else write_ade_full(root, release)


def expected(name: str, release: str) -> np.ndarray:
    numbers = ADE_MASKS[name]
    if release != "challenge":
        numbers = tuple(ADE_CODES.get(number, 0) for number in numbers)
    return quarters(*numbers, size=40)


@pytest.mark.parametrize("release", RELEASES)
def test_split_scenes_and_masks(tmp_path, release):
    whole = ADE20K(write(tmp_path, release), SQUASH)
    assert whole.release == release
    assert whole.classes == ("bedroom", "living_room")
    assert whole.labels == (0, 1, 0)
    assert ADE20K(tmp_path, SQUASH, "train").labels == (0, 1)
    test = ADE20K(tmp_path, SQUASH, "test")
    assert (test.labels, test.absent) == ((0,), ("living_room",))
    for index, name in enumerate(ADE_MASKS):
        sample = whole[index]
        assert sample.path.endswith(f"/{name}.jpg")
        assert sample.image.shape == (3, 40, 40)
        np.testing.assert_array_equal(sample.masks, expected(name, release))


@pytest.mark.parametrize("release", RELEASES)
def test_scenes_of_a_network_keep_its_indices(tmp_path, release):
    write(tmp_path, release)
    with pytest.warns(XNNWarning, match="has no images of office"):
        rooms = ADE20K(tmp_path, SQUASH, classes=["living room", "office", "Bedroom"])
    assert (rooms.labels, rooms.absent) == ((2, 0, 2), ("office",))
    with pytest.raises(DataError, match="has no class 'bedrooms'; near ones: bedroom"):
        ADE20K(tmp_path, SQUASH, classes=["bedrooms"])


def test_names_of_the_challenge(tmp_path):
    names = ADE20K(write_ade_challenge(tmp_path), SQUASH).object_names
    assert names == ("other", "wall", "bed", "sofa, couch")
    change_line(tmp_path / "objectInfo150.txt", 1, "Idx\tRatio\tTrain\tVal\tStuff\tName")
    for number, name in enumerate(["wall", "bed", "sofa"], 1):
        change_line(tmp_path / "objectInfo150.txt", number + 1, f"{number}\t0\t1\t1\t1\t{name}")
    assert ADE20K(tmp_path, SQUASH).object_names == ("other", "wall", "bed", "sofa")


@pytest.mark.parametrize("release", ["2016", "2021"])
def test_names_of_the_full_releases(tmp_path, release):
    names = ADE20K(write_ade_full(tmp_path, release), SQUASH).object_names
    assert len(names) == 2979
    assert (names[0], names[7]) == ("other", "class 7")
    assert {number: names[code] for number, code in ADE_CODES.items()} == ADE_NAMES


def test_class_numbers_by_hand():
    colours = np.array([[[0, 0, 9], [0, 255, 0], [110, 162, 3], [255, 255, 255]]], dtype=np.uint8)
    assert class_numbers(colours).tolist() == [[0, 255, 11 * 256 + 162, 25 * 256 + 255]]


def test_sub_scenes_and_folders_of_instances(tmp_path):
    """Scenes may be nested (2016) or joined by two underscores (2021)."""
    for release, folder in (
        ("2016", "training/c/church/indoor"),
        ("2021", "ADE/training/cultural/church__indoor"),
    ):
        root = write_ade_full(tmp_path / release, release)
        stem = root / "images" / folder / "ADE_train_00000009"
        write_noise(stem.with_suffix(".jpg"))
        write_mask(stem.with_name(f"{stem.name}_seg.png"), ade_colours((1, 1, 1, 1), (5, 5, 5, 5)))
        write_lines(stem.with_name(f"{stem.name}_atr.txt"), [])
        write_lines(stem.with_suffix(".json"), ['{"annotation": {"object": []}}'])
        write_noise(stem / "instance_000.jpg")  # in the folder of instances: no picture
        data = ADE20K(root, SQUASH, classes=["church indoor"])
        assert (len(data), data.labels) == (1, (0,))
        assert len(ADE20K(root, SQUASH)) == 4


def test_a_single_object_as_matlab_writes_it(tmp_path):
    write_ade_full(tmp_path, "2021")
    path = tmp_path / BEDROOM["2021"] / "ADE_train_00000001.json"
    item = {"name": "caf\u00e9", "name_ndx": 17}
    path.write_bytes(
        json.dumps({"annotation": {"object": item}}, ensure_ascii=False).encode("latin-1")
    )
    assert ADE20K(tmp_path, SQUASH).object_names[17] == "café"


def test_names_need_a_sure_match():
    named = {1: "sofa", 2: "bed", 3: "wall"}
    numbers, instances = (0, 3, 2, 1), (0, 30, 60, 90)
    colours = ade_colours(numbers, instances).astype(np.uint8)
    assert match_instances(colours, named) == {2473: "sofa", 165: "bed", 2978: "wall"}
    assert match_instances(colours, {1: "sofa", 2: "bed"}) == {}  # one object too few
    assert match_instances(colours, {1: "sofa", 2: "bed", 4: "wall"}) == {}  # a gap
    assert match_instances(colours, {1: "bed", 2: "bed", 3: "wall"}) == {}  # two numbers, one name
    twice = ade_colours((3, 3, 2, 2), (10, 20, 30, 40)).astype(np.uint8)
    assert match_instances(twice, {1: "sofa", 2: "sofa", 3: "bed", 4: "bed"}) == {
        2473: "sofa",
        165: "bed",
    }
    assert match_instances(twice, {1: "sofa", 2: "lamp", 3: "bed", 4: "bed"}) == {}
    mixed = ade_colours((3, 2, 1, 0), (10, 10, 20, 0)).astype(np.uint8)
    assert match_instances(mixed, {1: "sofa", 2: "wall"}) == {}  # an instance of two classes


def test_a_hidden_object_does_not_shift_the_names(tmp_path):
    write_ade_full(tmp_path, "2016")
    path = tmp_path / BEDROOM["2016"] / "ADE_train_00000001_atr.txt"
    write_lines(
        path,
        [
            '001 # 0 # 1 # ghost # ghost # ""',
            *path.read_text()
            .replace("003", "004")
            .replace("002", "003")
            .replace("001 # 0", "002 # 0")
            .splitlines(),
        ],
    )
    names = ADE20K(tmp_path, SQUASH).object_names
    assert "ghost" not in names
    assert names[2978] == "wall"


def test_known_names_spare_decoding(tmp_path):
    """Once three pictures agree on all names of a picture, its mask is not read."""
    write_ade_full(tmp_path, "2016")
    folder = tmp_path / BEDROOM["2016"]
    for number in range(10, 15):
        stem = folder / f"ADE_train_000000{number}"
        write_noise(stem.with_suffix(".jpg"))
        write_lines(stem.with_name(f"{stem.name}_atr.txt"), ['001 # 0 # 0 # wall # wall # ""'])
        colours = ade_colours((1, 1, 1, 1), (5, 5, 5, 5))
        write_mask(stem.with_name(f"{stem.name}_seg.png"), colours)
    (folder / "ADE_train_00000014_seg.png").write_bytes(b"broken")
    data = ADE20K(tmp_path, SQUASH, classes=["bedroom"])
    assert data.object_names[2978] == "wall"
    with pytest.raises(DataError, match=r"ADE_train_00000014_seg\.png"):
        data[data.paths.index(f"{BEDROOM['2016']}/ADE_train_00000014.jpg")]


def test_attributes_keep_parts_apart(tmp_path):
    lines = ['001 # 0 # 0 # bed # bed # ""', '001 # 1 # 1 # headboard # head # "a, b # c"', ""]
    write_lines(tmp_path / "x_atr.txt", lines)
    assert read_attributes(tmp_path / "x_atr.txt") == {1: "bed"}


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, "002 # 0 # 0 # bed", r"atr\.txt, line 2: expected INSTANCE # LEVEL"),
        (2, 'x # 0 # 0 # bed # bed # ""', r"atr\.txt, line 2: expected"),
        (2, '001 # 0 # 0 # bed # bed # ""', r"atr\.txt, line 2: object 001 is there twice"),
    ],
)
def test_a_broken_attribute_is_named(tmp_path, line, text, message):
    write_ade_full(tmp_path, "2016")
    change_line(tmp_path / BEDROOM["2016"] / "ADE_train_00000001_atr.txt", line, text)
    with pytest.raises(DataError, match=message):
        _ = ADE20K(tmp_path, SQUASH).object_names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotation": ', r"00000001\.json .* line 1: "),
        ('{"annotation": 3}', r"00000001\.json .*no objects"),
        ('{"annotation": {"object": [{"name": "bed"}]}}', r"object 0 has no number name_ndx"),
        ('{"annotation": {"object": [{"name_ndx": 3}]}}', r"object 0 has no number name_ndx or no"),
        ('{"annotation": {"object": 3}}', r"object 0 has no number"),
    ],
)
def test_broken_json_is_named(tmp_path, text, message):
    write_ade_full(tmp_path, "2021")
    (tmp_path / BEDROOM["2021"] / "ADE_train_00000001.json").write_text(text)
    with pytest.raises(DataError, match=message):
        _ = ADE20K(tmp_path, SQUASH).object_names


@pytest.mark.parametrize(
    ("name", "line", "text", "message"),
    [
        (
            "sceneCategories.txt",
            2,
            "ADE_train_00000002",
            r"line 2: expected a picture and its scene",
        ),
        (
            "sceneCategories.txt",
            2,
            "train_2 bedroom",
            r"line 2: expected ADE_train_NUMBER or ADE_val",
        ),
        ("sceneCategories.txt", 2, "ADE_train_/../x bedroom", r"sceneCategories\.txt, line 2"),
        ("sceneCategories.txt", 2, "ADE_train_00000001 bedroom", r"line 2: .* is there twice"),
        (
            "sceneCategories.txt",
            2,
            "ADE_train_00000007 office",
            r"images are missing .*00000007\.jpg",
        ),
        ("objectInfo150.txt", 1, "1\t2\t3", r"line 1: expected a header with Idx and Name"),
        ("objectInfo150.txt", 3, "7\t0\t6046\t612\tbed", r"line 3: expected class number 2"),
        ("objectInfo150.txt", 3, "2\tbed", r"objectInfo150\.txt, line 3"),
    ],
)
def test_a_broken_line_is_named(tmp_path, name, line, text, message):
    change_line(write_ade_challenge(tmp_path) / name, line, text)
    with pytest.raises(DataError, match=message):
        ADE20K(tmp_path, SQUASH)


def test_an_object_list_without_objects(tmp_path):
    write_lines(write_ade_challenge(tmp_path) / "objectInfo150.txt", ["Idx\tName"])
    with pytest.raises(DataError, match=r"objectInfo150\.txt has no classes"):
        ADE20K(tmp_path, SQUASH)


@pytest.mark.parametrize(
    ("release", "name", "message"),
    [
        ("challenge", "sceneCategories.txt", r"cannot read .*sceneCategories\.txt"),
        ("challenge", "objectInfo150.txt", r"cannot read .*objectInfo150\.txt"),
        ("challenge", "annotations/training/ADE_train_00000001.png", "1 of 3 masks are missing"),
        ("2016", f"{BEDROOM['2016']}/ADE_train_00000001_seg.png", "1 of 3 masks are missing"),
        ("2016", f"{BEDROOM['2016']}/ADE_train_00000001_atr.txt", r"1 of 3 texts .*_atr\.txt"),
        ("2021", f"{BEDROOM['2021']}/ADE_train_00000001.json", r"1 of 3 texts .*00000001\.json"),
    ],
)
def test_a_missing_file_is_named(tmp_path, release, name, message):
    (write(tmp_path, release) / name).unlink()
    with pytest.raises(DataError, match=message):
        ADE20K(tmp_path, SQUASH)


def test_missing_folders(tmp_path):
    with pytest.raises(DataError, match=r"is not ADE20K: .*ADEChallengeData2016"):
        ADE20K(tmp_path, SQUASH)
    write_ade_full(tmp_path, "2016")
    (tmp_path / "images/validation").rename(tmp_path / "validation")
    assert len(ADE20K(tmp_path, SQUASH, "train")) == 2
    with pytest.raises(DataError, match="has no folder images/validation"):
        ADE20K(tmp_path, SQUASH, "test")
    write_noise(tmp_path / "images/training/b/ADE_train_00000005.jpg")
    with pytest.raises(DataError, match=r"ADE_train_00000005\.jpg is not in a scene folder"):
        ADE20K(tmp_path, SQUASH, "train")


def test_broken_masks_are_named(tmp_path):
    challenge = ADE20K(write_ade_challenge(tmp_path / "a"), SQUASH)
    write_mask(tmp_path / "a/annotations/training/ADE_train_00000001.png", quarters(0, 1, 2, 4))
    with pytest.raises(DataError, match=r"has class number 4, objectInfo150\.txt ends at 3"):
        challenge[0]
    full = ADE20K(write_ade_full(tmp_path / "b", "2016"), SQUASH)
    path = tmp_path / "b" / BEDROOM["2016"] / "ADE_train_00000001_seg.png"
    write_mask(path, quarters(0, 1, 2, 3))
    with pytest.raises(DataError, match=r"_seg\.png: expected red, green and blue .* got mode L"):
        full[0]
    Image.new("RGB", (80, 60)).save(path)
    with pytest.raises(DataError, match=r"_seg\.png has 80 x 60 pixels, its picture .* 80 x 80"):
        full[0]
