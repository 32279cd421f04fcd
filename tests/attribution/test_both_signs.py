"""Competition of signed inputs for units of both signs, against the literal version."""

import pytest
import torch

from reference_ebp import pass_down
from torchxnn.attribution.excitation_backprop.both_signs import LEAST_SHARE, BothSigns
from torchxnn.attribution.excitation_backprop.competition import PARTS_KEPT, Competition
from torchxnn.attribution.excitation_backprop.linear_map import LinearMap
from torchxnn.attribution.excitation_backprop.rules.linear import from_left
from torchxnn.errors import NonFiniteError

ROWS, INPUTS, UNITS, SEEDS = 5, 12, 9, 3


def example(bias, *, recorded=True, matrix=True, part=1.0):
    """A product y = x w + b, relevance of its units, and what the literal version makes of it."""
    generator = torch.Generator().manual_seed(0)
    x, w, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, INPUTS), (INPUTS, UNITS), (UNITS,))
    )
    x[0, 3:], w[:2, 4] = 0, 0
    x[1], w[:, 2] = x[1].abs(), w[:, 2].abs()  # (1, 2): nothing speaks against the unit
    b[2] = -abs(b[2])
    y = x @ w + bias * b
    relevance = torch.rand((SEEDS, ROWS, UNITS), generator=generator, dtype=torch.float64)
    relevance[:, :, int(part * UNITS) :] = 0
    linear = from_left(w, *((y, bias * b) if recorded else ()))
    if not matrix:
        linear = LinearMap(linear.apply, linear.adjoint, w, None, linear.output, linear.bias)
    signs = [[-1 if value < 0 else 1 for value in row] for row in y.tolist()]
    rows = [
        torch.stack([pass_down(w.T, w.T, x[i], signs[i], seed[i]) for i in range(ROWS)])
        for seed in relevance
    ]
    return linear, x, y < 0, relevance, torch.stack(rows)


def quiet(lost):
    return lost


@pytest.mark.parametrize("bias", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("matrix", [True, False])
def test_all_signs_equal_the_literal_version(bias, recorded, matrix):
    linear, x, negative, relevance, expected = example(bias, recorded=recorded, matrix=matrix)
    kept, noted = relevance.clone(), []

    def note(lost):
        noted.append(lost)
        return lost

    found = Competition(linear, x, None).pass_down(relevance, negative, note)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(relevance, kept)
    if bias == 30:  # unit 2 of row 1 is negative by its bias alone, and told as such
        (lost,) = noted
        assert lost.shape == relevance.shape
        assert torch.equal(lost[:, 1, 2], relevance[:, 1, 2])


def test_inputs_that_take_no_part_are_left_out():
    linear, x, negative, relevance, _ = example(1.0)
    takes_part = torch.ones_like(x, dtype=torch.bool)
    takes_part[:, ::3] = False
    found = Competition(linear, x, takes_part).pass_down(relevance, negative, quiet)
    without, _, _, _, _ = example(1.0, recorded=False)
    expected = Competition(without, x * takes_part, None).pass_down(relevance, negative, quiet)
    torch.testing.assert_close(found * takes_part, expected, rtol=1e-10, atol=1e-14)
    assert not bool(found[:, :, ::3].any())


@pytest.mark.parametrize("bias", [1.0, 30.0])
def test_columns_without_relevance_cost_nothing(bias):
    """As of queries and keys in one product with the values."""
    linear, x, negative, relevance, expected = example(bias, part=0.4)
    columns = []

    def adjoint(q, w):
        columns.append(q.shape[-1])
        return q @ w.mT

    counted = LinearMap(
        linear.apply, adjoint, linear.weight, None, linear.output, linear.bias, matrix=True
    )
    shapes = []

    def note(lost):
        shapes.append(lost.shape)
        return lost

    found = Competition(counted, x, None).pass_down(relevance, negative, note)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert max(columns) == int(0.4 * UNITS)
    assert all(shape == relevance.shape for shape in shapes)


def test_few_ranges_of_columns_are_kept():
    """Of many chunks of seeds that reach other columns each, and the maps stay what they are."""
    linear, x, negative, relevance, _ = example(1.0)
    one = Competition(linear, x, None)
    for first in (0, 3, 6, 1, 0, 5, 0):
        some = torch.zeros_like(relevance)
        some[:, :, first : first + 3] = relevance[:, :, first : first + 3]
        found = one.pass_down(some, negative, quiet)
        alone = Competition(linear, x, None).pass_down(some, negative, quiet)
        assert torch.equal(found, alone)
        assert len(one._parts) <= PARTS_KEPT
    assert list(one._parts) == [(5, 8), (0, 3)]  # the last used ones


def test_two_products_and_two_gradients_are_enough():
    """Of four combinations of signs: one product, as the other is known, and two gradients."""
    linear, x, negative, relevance, _ = example(0.0)
    calls = []

    def apply(x, w):
        calls.append("apply")
        return x @ w

    def adjoint(q, w):
        calls.append("adjoint")
        return q @ w.mT

    counted = LinearMap(apply, adjoint, linear.weight, None, linear.output, linear.bias)
    Competition(counted, x, None).pass_down(relevance, negative, quiet)
    assert calls == ["apply", "adjoint", "adjoint"]


def test_units_that_rounding_would_decide_are_left_to_the_plain_form():
    """x = (1, -e) with equal weights: for a unit whose bias makes it negative only e speaks."""
    weight = torch.ones(2, 1)
    for small, weak in ((0.5, False), (1e-3, True)):
        x, negative = torch.tensor([[1.0, -small]]), torch.ones(1, 1, dtype=torch.bool)
        both = BothSigns(from_left(weight), x, negative, complete=True)
        assert bool((~both.strong).any()) is weak
        assert (small / (1 + small) > LEAST_SHARE) is not weak


def test_overflow_is_refused_where_relevance_meets_it():
    """Contributions of the first unit overflow; those of the second are -1e30 each."""
    weight, x = torch.tensor([[1e30, 1.0], [1e30, 1.0]]), torch.full((1, 2), -1e30)
    negative = torch.ones(1, 2, dtype=torch.bool)
    competition = Competition(from_left(weight), x, None)
    second, first = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    passed = competition.pass_down(second, negative, quiet, cut=False)
    torch.testing.assert_close(passed, torch.tensor([[[0.5, 0.5]]]))
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        competition.pass_down(first, negative, quiet, cut=False)
