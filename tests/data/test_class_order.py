"""Which class folder is which output: by name, by number, by a class map."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchxnn.data.datasets.class_order import in_order, order_of_folders, read_class_map
from torchxnn.errors import DataError


@given(st.sets(st.integers(0, 300), min_size=1), st.booleans())
def test_whole_numbers_are_in_order_of_value(numbers, padded):
    folders = [f"{number:03d}" if padded else str(number) for number in sorted(numbers, key=str)]
    assert [int(name) for name in in_order(folders)] == sorted(numbers)


@pytest.mark.parametrize(
    ("folders", "names", "classes", "mapped", "expected"),
    [
        (["0", "1", "10", "11", "2"], None, 5, False, {"0": 0, "1": 1, "2": 2, "10": 3, "11": 4}),
        (["b", "a"], None, 2, False, {"a": 0, "b": 1}),
        (["b", "a"], None, 3, False, None),
        (["dog", "cat"], ("cat", "cow", "dog"), 3, False, {"dog": 2, "cat": 0}),
        (["Grey_Cat"], ("cow", "grey cat"), 2, False, {"Grey_Cat": 1}),
        (["A", "a"], ("a", "A"), 2, False, {"A": 1, "a": 0}),
        (["pig"], ("cat", "cow"), 2, False, None),
        (["0", "1", "2"], ("cat", "cow", "dog"), 3, False, {"0": 0, "1": 1, "2": 2}),
        (["01", "02", "03"], ("cat", "cow", "dog"), 3, False, {"01": 0, "02": 1, "03": 2}),
        (["0", "2"], ("cat", "cow", "dog"), 3, False, None),  # another data set's, as likely
        (["0", "2"], ("cat", "cow", "dog"), 3, True, {"0": 0, "2": 2}),
        (["1", "3"], ("cat", "cow", "dog"), 3, True, {"1": 0, "3": 2}),
        (["1", "2"], ("cat", "cow", "dog"), 3, True, None),  # from 0 or from 1?
        (["0", "3"], ("cat", "cow", "dog"), 3, True, None),
        (["1", "01", "2"], ("cat", "cow", "dog"), 3, True, None),
    ],
)
def test_places_of_folders(folders, names, classes, mapped, expected):
    order = order_of_folders(folders, names, classes, mapped)
    assert (order and order.places) == expected
    if order is not None and names is not None:
        assert order.classes == names


def test_two_folders_of_one_class_are_refused():
    with pytest.raises(DataError, match="'grey cat' and 'Grey_Cat' are both of class 'Grey-Cat'"):
        order_of_folders(["grey cat", "Grey_Cat"], ("Grey-Cat", "cow"), 2)


NAMES = ("cat", "grey dog", "cow, brown")
BY_INDEX = dict(enumerate(NAMES))
MAPS = {
    "index name": "0 cat\n1 grey dog\n2 cow, brown\n",
    "from 1": "1 cat\n2 grey dog\n3 cow, brown\n",
    "tabs": "1\tgrey dog\n0\tcat\n2\tcow, brown",
    "name index": "grey dog 1\ncow, brown 2\ncat 0\n",
    "names": "cat\r\ngrey dog\r\ncow, brown\r\n",
    "list": json.dumps(NAMES),
    "to index": json.dumps({name: index for index, name in reversed(BY_INDEX.items())}),
    "from index": json.dumps(BY_INDEX),
    "several": json.dumps({index: [name, "x"] for index, name in BY_INDEX.items()}),
    "config": json.dumps({"hidden": 3, "id2label": BY_INDEX}),
}


@pytest.mark.parametrize("kind", MAPS)
def test_class_maps(tmp_path, kind):
    file = tmp_path / "classes"
    file.write_text(MAPS[kind], "utf-8")
    assert read_class_map(file, 3) == NAMES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 cow\n", ("class 0", "class 1", "cow")),
        ('{"cat": 1}', ("class 0", "cat", "class 2")),
        ("3\n1\n7\n", ("3", "1", "7")),  # names that are numbers
        ("class 0\nclass 1\nclass 2", ("class 0", "class 1", "class 2")),
        ("\ufeffcat\ncow\ndog", ("cat", "cow", "dog")),
        ("index,name\n0,cat\n1,cow\n2,dog", ("cat", "cow", "dog")),
        ("class_name; class_id\ncat; 2\ncow; 1\ndog; 3", ("cow", "cat", "dog")),
        ("name tag\nlabel\nbox", ("name tag", "label", "box")),  # no header
    ],
)
def test_class_maps_that_name_some_classes_or_look_odd(tmp_path, text, expected):
    file = tmp_path / "classes"
    file.write_text(text, "utf-8")
    assert read_class_map(file, 3) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("{", "is broken JSON"),
        ('{"cat": "first"}', r"neither \{name: index\} nor \{index: name\}"),
        ('{"cat": 0, "dog": 0}', "the index 0 to two classes"),
        ("0 cat\n0 dog\n1 cow", "the index 0 to two classes"),
        ("cat,0\ndog,1\ncow,1", "the index 1 to two classes"),
        ("0 cat\n1 cat", "'cat' is given twice"),
        ('["cat", "cat"]', "'cat' is given twice"),
        ('{"cat": 5}', "has an index 5; the network tells 3 classes apart, 0 to 2"),
        ("a\nb\nc\nd\n", "has an index 3"),
    ],
)
def test_class_maps_that_are_refused(tmp_path, text, message):
    file = tmp_path / "classes"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_map(file, 3)
    with pytest.raises(DataError, match="cannot be read"):
        read_class_map(tmp_path / "nowhere", 3)


def test_the_first_of_several_words_for_a_class_is_enough_where_it_tells():
    names = ("stork, Ciconia", "crane, Grus", "crane, a machine", "owl")
    found = order_of_folders(["owl", "Stork"], names, 4)
    assert found.places == {"owl": 3, "Stork": 0}
    assert order_of_folders(["owl", "crane"], names, 4) is None
    assert order_of_folders(["stork, Ciconia", "owl"], names, 4).places["owl"] == 3
