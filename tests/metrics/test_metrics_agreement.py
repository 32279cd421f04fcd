import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from torchxnn.metrics import krippendorff_alpha

# Krippendorff, Computing Krippendorff's alpha-reliability (2011), section C: four observers, twelve
# units, some missing; nominal alpha is 0.743. Section B: two observers, nominal; alpha is 0.692.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_the_published_example_with_missing_data():
    found = krippendorff_alpha(list(zip(*OBSERVERS, strict=True)))
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert (found.units, found.judgements, found.people, found.categories) == (11, 40, 4, 5)


def test_the_published_example_of_two_observers():
    first = ["a", "a", "b", "b", "d", "c", "c", "c", "e", "d", "d", "a"]
    second = ["b", "a", "b", "b", "b", "c", "c", "c", "e", "d", "d", "d"]
    found = krippendorff_alpha(list(zip(first, second, strict=True)))
    assert found.alpha == pytest.approx(0.692, abs=5e-4)


def test_the_published_binary_example():
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    found = krippendorff_alpha(list(zip(first, second, strict=True)))
    assert found.alpha == pytest.approx(0.095, abs=5e-4)


def test_limits():
    assert krippendorff_alpha([("a", "a"), ("b", "b")]).alpha == 1
    assert krippendorff_alpha([("a", "b"), ("b", "a")]).alpha == pytest.approx(-0.5)
    assert math.isnan(krippendorff_alpha([("a", None), (None, None)]).alpha)
    assert math.isnan(krippendorff_alpha([("a", "a"), ("a", "a")]).alpha)
    assert krippendorff_alpha([]).units == 0


ratings = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=3), max_size=8
)


@given(ratings)
def test_against_the_literal_version(units):
    expected = reference.krippendorff_alpha(units)
    found = krippendorff_alpha(units).alpha
    assert (math.isnan(found) and expected is None) or found == pytest.approx(expected, abs=1e-12)
