import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import pointing_game
from torchxnn.metrics.pointing import chance_levels, pixels_inside, pointing_hits


def box(*values):
    return torch.tensor([values], dtype=torch.float32)


def test_one_maximum_inside_and_outside():
    maps = torch.zeros(2, 4, 5)
    maps[0, 1, 2] = 3.0
    maps[1, 3, 0] = 0.1
    boxes = torch.tensor([[2.0, 1.0, 2.0, 2.0], [2.0, 1.0, 2.0, 2.0]])
    assert pointing_hits(maps, boxes).tolist() == [1.0, 0.0]
    result = pointing_game(maps, boxes)
    assert (result.hit_rate, result.maps, result.empty) == (0.5, 2, 0)
    assert result.chance == pytest.approx(4 / 20)


def test_x_is_the_column():
    maps = torch.zeros(1, 4, 5)
    maps[0, 0, 4] = 1.0
    assert pointing_hits(maps, box(4, 0, 1, 1)).item() == 1
    assert pointing_hits(maps, box(0, 3, 1, 1)).item() == 0


def test_ties_share_the_hit():
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 0] = maps[0, 0, 1] = maps[0, 1, 1] = 2.0
    assert pointing_hits(maps, box(0, 0, 2, 1)).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_empty_map_counts_as_chance(value):
    maps = torch.full((1, 4, 4), value)
    maps[0, 0, 0] -= 1
    result = pointing_game(maps, box(0, 0, 2, 2))
    assert (result.hit_rate, result.chance, result.empty) == (0.25, 0.25, 1)


def test_pixels_count_by_their_centre():
    inside = pixels_inside(box(0.4, 0.6, 1.2, 1.0), (3, 3))
    assert inside[0].nonzero().tolist() == [[1, 0], [1, 1]]
    # the left edge belongs to the box, the right one does not
    assert pixels_inside(box(0.5, 0.0, 1.0, 3.0), (1, 3))[0].tolist() == [[True, False, False]]


def test_a_box_of_no_area_is_never_hit():
    maps = torch.ones(1, 3, 3)
    assert pointing_game(maps, box(1, 1, 0, 0)).hit_rate == 0


def test_errors():
    with pytest.raises(DataError, match="no maps"):
        pointing_game(torch.zeros(0, 2, 2), torch.zeros(0, 4))
    with pytest.raises(DataError, match="negative"):
        pointing_game(torch.zeros(1, 2, 2), box(0, 0, -1, 1))
    with pytest.raises(NonFiniteError):
        pointing_game(torch.full((1, 2, 2), float("nan")), box(0, 0, 1, 1))
    with pytest.raises(NonFiniteError):
        pointing_game(torch.zeros(1, 2, 2), box(0, 0, float("inf"), 1))


@given(seed=st.integers(0, 1000))
def test_hits_equal_the_literal_version(seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(-2, 3, (3, 4, 5), generator=generator).float()
    boxes = torch.rand(3, 4, generator=generator) * 4
    hits, chances = pointing_hits(maps, boxes), chance_levels(boxes, (4, 5))
    for one, (x, y, w, h), hit, chance in zip(
        maps.tolist(), boxes.tolist(), hits, chances, strict=True
    ):
        values = {(r, c): max(one[r][c], 0) for r in range(4) for c in range(5)}
        best = [place for place, value in values.items() if value == max(values.values())]
        inside = {(r, c) for r, c in values if x <= c + 0.5 < x + w and y <= r + 0.5 < y + h}
        assert float(hit) == pytest.approx(len(inside & set(best)) / len(best))
        assert float(chance) == pytest.approx(len(inside) / 20)
