import math

import pytest
import torch

from reference import insertion_deletion_masks, pearson, step_curve_area
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import (
    deletion_masks,
    feature_regions,
    feature_use,
    insertion_masks,
    shifted_regions,
    step_curve,
)
from torchxnn.metrics.insertion_deletion import area_under


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_masks_as_written():
    regions = random(4, 5, 6) > 0.3
    order = torch.tensor([2, 0, 3, 1])
    deletion, insertion = insertion_deletion_masks(regions.tolist(), order.tolist())
    assert deletion_masks(regions, order).tolist() == deletion
    assert insertion_masks(regions, order).tolist() == insertion


def test_deletion_ends_where_insertion_begins():
    regions, order = random(3, 8, 8) > 1, torch.tensor([1, 2, 0])
    deletion, insertion = deletion_masks(regions, order), insertion_masks(regions, order)
    assert deletion[0].all()
    assert insertion[-1].all()
    assert torch.equal(deletion[-1], insertion[0])
    assert torch.equal(~deletion[-1], regions.any(0))


def test_area_as_written_and_in_closed_form():
    values = random(7, 6)
    assert step_curve(values).area == pytest.approx(step_curve_area(values), rel=1e-12)
    # a sum of n parts: deleting part j at step j leaves y - c_1 - ... - c_j, and the area is
    # y - sum_j c_j (n - j + 1/2) / n
    parts = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    n, y = len(parts), float(parts.sum())
    steps = y - torch.cat([torch.zeros(1), parts.cumsum(0)])
    weights = (n - torch.arange(1, n + 1) + 0.5) / n
    expected = y - float((parts * weights).sum())
    assert step_curve(steps.unsqueeze(0)).area == pytest.approx(expected, rel=1e-12)
    # the largest part first is the best order of deletion there is
    for seed in range(5):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        other = y - torch.cat([torch.zeros(1), parts[order].cumsum(0)])
        assert step_curve(other.unsqueeze(0)).area >= expected - 1e-12


def test_curve_of_known_values():
    found = step_curve(torch.tensor([[3.0, 1.0, 0.0], [3.0, 3.0, 3.0]]))
    assert found.mean == (3.0, 2.0, 1.5)
    assert found.area == pytest.approx((1.25 + 3) / 2)
    assert found.interval.low <= found.area <= found.interval.high
    same = step_curve(torch.full((5, 4), 2.0))
    assert (same.area, same.interval.low, same.interval.high) == (2.0, 2.0, 2.0)
    one = step_curve(torch.tensor([[1.0, 0.0]]))
    assert math.isnan(one.interval.low)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (torch.zeros(0, 3), DataError),
        (torch.zeros(3, 1), DataError),
        (torch.tensor([[1.0, math.nan]]), NonFiniteError),
    ],
)
def test_curves_that_cannot_be_drawn(values, error):
    with pytest.raises(error):
        step_curve(values)


def test_regions_are_the_highest_positive_pixels():
    maps = torch.tensor([[[3.0, 1.0], [2.0, -5.0]], [[-1.0, -2.0], [0.0, 4.0]]])
    found = feature_regions(maps, 2)
    assert found.tolist() == [[[True, False], [True, False]], [[False, False], [False, True]]]
    off = feature_regions(maps, 2, torch.tensor([True, False]))
    assert not off[1].any()
    assert torch.equal(off[0], found[0])
    with pytest.raises(DataError):
        feature_regions(maps, 0)


def test_shifted_regions_keep_size_and_shape_and_move():
    regions = torch.zeros(50, 6, 7, dtype=torch.bool)
    regions[:, 1:3, 2:5] = True
    found = shifted_regions(regions, 3)
    assert torch.equal(found.sum((1, 2)), regions.sum((1, 2)))
    assert not (found == regions).flatten(1).all(1).any()
    for each in found:  # some shift brings it back
        moves = [each.roll((i, j), (0, 1)) for i in range(6) for j in range(7)]
        assert any(torch.equal(move, regions[0]) for move in moves)
    assert torch.equal(found, shifted_regions(regions, 3))
    assert not torch.equal(found, shifted_regions(regions, 4))
    one = torch.ones(1, 1, 1, dtype=torch.bool)
    assert torch.equal(shifted_regions(one, 0), one)


def test_use_as_written():
    first, second, control = random(20), random(20, seed=1), random(20, seed=2)
    found = feature_use(first, second + first, control)
    assert found.reproduced == pytest.approx(float(first.mean()))
    assert found.control == pytest.approx(float(control.mean()))
    expected = pearson(first.tolist(), (second + first).tolist())
    assert found.correlation == pytest.approx(expected, rel=1e-9)
    assert found.correlation_interval.low < expected < found.correlation_interval.high
    assert found.images == 20


def test_use_of_known_values():
    line = torch.arange(5.0)
    found = feature_use(line, 2 * line - 7, torch.zeros(5))
    assert found.correlation == pytest.approx(1)
    assert found.correlation_interval.low == pytest.approx(1)
    assert found.real == pytest.approx(-3)
    assert feature_use(line, -line, line).correlation == pytest.approx(-1)
    flat = feature_use(line, torch.ones(5), line)
    assert math.isnan(flat.correlation)
    assert math.isnan(flat.correlation_interval.low)
    single = feature_use(line[:1], line[:1], line[:1])
    assert math.isnan(single.correlation)
    with pytest.raises(DataError, match="none of the images"):
        feature_use(line[:0], line[:0], line[:0])
    with pytest.raises(NonFiniteError):
        feature_use(line, line / 0, line)


def test_correlation_does_not_depend_on_level_and_unit():
    first, second = random(30), random(30, seed=4)
    base = feature_use(first, second, first)
    moved = feature_use(1e6 + first, 1e-3 * second, first)
    assert moved.correlation == pytest.approx(base.correlation, abs=1e-6)


def test_area_needs_two_steps():
    assert area_under(torch.tensor([[0.0, 2.0, 4.0]])).tolist() == [2.0]
    with pytest.raises(DataError):
        area_under(torch.zeros(2, 1))
