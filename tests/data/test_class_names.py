import pytest

from torchxnn.data.class_names import comparable, spoken, spoken_all


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("048.European_Goldfinch", "European Goldfinch"),
        ("European Goldfinch", "European Goldfinch"),
        ("14 Indigo-Bunting", "Indigo-Bunting"),
        ("living_room", "living room"),
        ("001.A or 002.B_c", "A or B c"),
        ("12.5", "12.5"),
        ("3.5 inch", "3.5 inch"),
        ("7", "7"),
        ("1 star", "1 star"),
        ("5 Stars", "5 Stars"),
        ("2_door", "2 door"),
        ("0_door", "0 door"),
        ("4_Dove", "Dove"),
        ("04_dove", "dove"),
        ("101.head-phones", "head-phones"),
        ("_", "_"),
        ("", ""),
    ],
)
def test_names_as_people_say_them(name, expected):
    assert spoken(name) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("2_door", "4_door"), ("2 door", "4 door")),
        (("1 star", "5 stars"), ("1 star", "5 stars")),
        (("001.crane", "002.Old_dove", "003.crane"), ("001.crane", "Old dove", "003.crane")),
        (("10 Stars", "20 Stars", "Stars"), ("10 Stars", "20 Stars", "Stars")),
        (("a_b", "a_b"), ("a b", "a b")),  # the same class name twice is no better written raw
    ],
)
def test_names_of_a_list_stay_apart(names, expected):
    assert spoken_all(names) == expected


@pytest.mark.parametrize("name", ["living_room", "Living room", "living-room ", "/l/living_room"])
def test_names_that_are_the_same(name):
    assert comparable(name) == "living_room"
