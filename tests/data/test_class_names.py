import pytest

from torchxnn.data.class_names import comparable, spoken


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
        ("_", "_"),
        ("", ""),
    ],
)
def test_names_as_people_say_them(name, expected):
    assert spoken(name) == expected


@pytest.mark.parametrize("name", ["living_room", "Living room", "living-room ", "/l/living_room"])
def test_names_that_are_the_same(name):
    assert comparable(name) == "living_room"
