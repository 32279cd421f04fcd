import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import reference
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import ground_truth as truth
from torchxnn.metrics.map_truth import MapTruth, map_truth, part_mass

F64 = torch.float64


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def literal_profiles(before, after):
    images, parts, n = len(after), len(after[0]), len(before[0])
    return [
        [
            math.fsum(before[m][k] - after[m][p][k] for m in range(images)) / images
            for p in range(parts)
        ]
        for k in range(n)
    ]


def literal_specificity(profiles):
    drops = [[max(0.0, value) for value in row] for row in profiles]
    return sum(max(row) for row in drops) / sum(map(sum, drops))


def literal_recovery(profiles):
    """The best of all one-for-one assignments, by trying them all."""
    drops = [[max(0.0, value) for value in row] for row in profiles]
    n, parts = len(drops), len(drops[0])
    small, large = min(n, parts), max(n, parts)
    best = 0.0
    for chosen in itertools.permutations(range(large), small):
        pairs = zip(range(small), chosen, strict=True)
        total = sum(drops[a][b] if n <= parts else drops[b][a] for a, b in pairs)
        best = max(best, total)
    return best / sum(map(sum, drops))


def literal_told(contributions, profiles, mixture):
    rows = []
    for own, about in zip(contributions, profiles, strict=True):
        told = [0.0] * len(about[0])
        for value, drops in zip(own, about, strict=True):
            positive = [max(0.0, drop) for drop in drops]
            if sum(positive) == 0:
                continue
            for part, drop in enumerate(positive):
                stands = drop / sum(positive) if mixture else part == positive.index(max(positive))
                told[part] += max(0.0, value) * stands
        rows.append([value / sum(told) if sum(told) > 0 else 0.0 for value in told])
    return rows


BY_HAND = torch.tensor([[3.0, 1.0, 0.0], [0.0, -2.0, 2.0]], dtype=F64)  # 2 x-features, 3 parts


class TestByHand:
    def test_profiles(self):
        before = torch.tensor([[5.0, 1.0], [3.0, 1.0]])
        after = torch.tensor([[[1.0, 1.0], [5.0, 0.0]], [[1.0, 1.0], [3.0, 2.0]]])
        changes = truth.removal_changes(before, after)
        assert changes.tolist() == [[[4, 0], [0, 1]], [[2, 0], [0, -1]]]
        assert truth.change_profiles(changes).tolist() == [[3, 0], [0, 0]]

    def test_specificity_coverage_rises_and_recovery(self):
        assert truth.specificity(BY_HAND) == pytest.approx((3 + 2) / 6)
        assert truth.rises(BY_HAND) == pytest.approx(2 / 8)
        found = truth.recovery(BY_HAND)
        assert found.value == pytest.approx(5 / 6)
        assert found.parts == (0, 2)
        assert 1 / 3 < found.chance < 5 / 6
        # 10 in all, so a part matters above 1: parts 0 and 1 do
        logit = torch.tensor([6.0, 3.0, 1.0], dtype=F64)
        assert truth.coverage(BY_HAND, logit) == 0.5  # part 1: its only drop, 1, is not above 1
        assert truth.coverage(BY_HAND, logit / 8) == 1.0
        assert truth.coverage(BY_HAND, logit / 8, own=True) == 0.5  # none is most about part 1

    def test_recovery_with_more_x_features_than_parts(self):
        found = truth.recovery(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], dtype=F64))
        assert found.value == pytest.approx(5 / 6)
        assert found.parts == (-1, 1, 0)

    def test_reproduced_change(self):
        network = torch.tensor([[1.0, 3.0]])
        exact = truth.reproduced_change(network, network)
        assert (exact.r2, exact.correlation) == (1.0, pytest.approx(1))
        half = truth.reproduced_change(network / 2, network)
        assert half.r2 == pytest.approx(1 - (0.25 + 2.25) / 2)
        assert half.correlation == pytest.approx(1)
        still = truth.reproduced_change(network, torch.ones(1, 2))
        assert still == truth.ReproducedChange(None, 0.0)

    def test_alike_and_moving(self):
        changes = drawn(0, 6, 4, 1)
        same = torch.cat([changes, 2 * changes + 1, drawn(1, 6, 4, 1), 1e-3 * changes], 2)
        assert truth.moving(same) == (0, 1, 2)  # the last one hardly moves
        assert truth.alike_pairs(same) == 1
        assert truth.moving(torch.zeros(2, 2, 2)) == ()
        assert truth.alike_pairs(torch.zeros(2, 2, 2)) == 0

    def test_told_and_causal_shares(self):
        contributions = torch.tensor([[3.0, 1.0, -2.0]])
        profiles = torch.tensor([[[3.0, 1.0], [0.0, 2.0], [9.0, 0.0]]])
        assert truth.told_shares(contributions, profiles).tolist() == [[0.75, 0.25]]
        mixed = truth.told_shares(contributions, profiles, mixture=True)
        assert mixed[0].tolist() == pytest.approx([0.5625, 0.4375])
        causes = truth.causal_shares(torch.tensor([[1.0, 3.0, -5.0], [-1.0, 0.0, 0.0]]))
        assert causes.tolist() == [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]]

    def test_part_mass(self):
        maps = torch.tensor([[[[1.0, -4.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]]])
        masks = torch.tensor([[[0, 1], [2, 2]]])
        assert part_mass(maps, masks, 3).tolist() == [[[0.25, 0.0, 0.75], [0.0, 0.0, 0.0]]]

    def test_map_truth(self):
        changes = drawn(2, 8, 5, 2)
        mass = changes.transpose(1, 2) * 0.1
        background = torch.tensor([[0.2, 0.4]]).expand(8, 2)
        there = torch.ones(8, 2, dtype=torch.bool)
        found = map_truth(mass, background, changes, (0, 1), there)
        assert found.own == pytest.approx(1)
        first, second = changes[:, :, 0].flatten().tolist(), changes[:, :, 1].flatten().tolist()
        assert found.others == pytest.approx(reference.pearson(first, second))
        assert found.background == pytest.approx(0.3)
        assert (found.features, found.missing) == (2, 0)
        swapped = map_truth(mass.flip(1), background, changes, (0, 1), there)
        assert swapped.others == pytest.approx(1)
        assert swapped.own == pytest.approx(found.others)
        alone = map_truth(mass, background, changes, (1,), there)
        assert (alone.own, alone.others) == (pytest.approx(1), None)
        nothing = map_truth(mass, background, changes, (), there)
        assert nothing == MapTruth(None, None, None, 0, None)

    def test_exact_shares_are_the_ceiling_of_positive_maps(self):
        there, background = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1)
        falls = torch.tensor([[[3.0], [1.0]], [[1.0], [0.0]]])
        shares = torch.tensor([[[0.75, 0.25]], [[1.0, 0.0]]])
        found = map_truth(shares, background, falls, (0,), there)
        assert found.exact == pytest.approx(found.own)
        expected = reference.pearson([0.75, 0.25, 1.0, 0.0], [3.0, 1.0, 1.0, 0.0])
        assert found.exact == pytest.approx(expected)
        # Where every image loses as much, and nothing rises, exact shares say all.
        alike = torch.tensor([[[3.0], [1.0]], [[0.5], [3.5]]])
        assert map_truth(shares, background, alike, (0,), there).exact == pytest.approx(1)
        rising = torch.tensor([[[3.0], [-1.0]], [[2.0], [-4.0]]])
        assert map_truth(shares, background, rising, (0,), there).exact < 1

    def test_a_map_that_does_not_exist_is_not_perfect(self):
        changes = drawn(3, 4, 5, 2)
        mass = changes.transpose(1, 2).clone()
        background = torch.full((4, 2), 0.5)
        there = torch.ones(4, 2, dtype=torch.bool)
        there[2:, 0] = False
        mass[2:, 0], background[2:, 0] = 0, 0
        found = map_truth(mass, background, changes, (0, 1), there)
        assert found.background == 0.5
        assert found.own == pytest.approx(1)
        assert found.missing == 0.25
        gone = map_truth(mass, background, changes, (0, 1), torch.zeros_like(there))
        assert gone == MapTruth(None, None, None, 0, 1.0)

    def test_the_scale_of_an_x_feature_changes_no_figure_of_maps(self):
        changes, mass = drawn(4, 6, 5, 2), drawn(5, 6, 2, 5)
        background, there = torch.rand(6, 2), torch.ones(6, 2, dtype=torch.bool)
        one = map_truth(mass, background, changes, (0, 1), there)
        scaled = changes * torch.tensor([1e-3, 1.0])
        other = map_truth(mass, background, scaled, (0, 1), there)
        assert (one.own, one.others) == pytest.approx((other.own, other.others))

    def test_recovery_against_causes(self):
        causes = torch.tensor([4.0, 2.0, 1.0], dtype=F64)
        assert truth.recovery(torch.diag(causes), causes).value == 1
        # x-features 0 and 1 drop 3 and 2 with their parts, 1 elsewhere, and 2 come back: 8 in all
        assert truth.recovery(BY_HAND, causes).value == pytest.approx((3 + 1) / 8)
        collapsed = torch.zeros(3, 3, dtype=F64)
        collapsed[0, 0] = 1e-3  # hardly anything moves
        assert truth.recovery(collapsed).value == 1
        assert truth.recovery(collapsed, causes).value == pytest.approx(1e-3 / 7)
        cancelling = torch.tensor([[100.0, 0, 0], [-96.0, 0, 0]], dtype=F64)
        assert truth.recovery(cancelling).value == 1
        assert truth.recovery(cancelling, causes).value == pytest.approx(4 / 196)
        with pytest.raises(DataError, match="2 causes for 3 parts"):
            truth.recovery(BY_HAND, causes[:2])


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), parts=st.integers(1, 4))
def test_figures_equal_their_literal_versions(seed, n, parts):
    before, after = drawn(seed, 3, n), drawn(seed + 1, 3, parts, n)
    changes = truth.removal_changes(before, after)
    profiles = truth.change_profiles(changes)
    expected = literal_profiles(before.tolist(), after.tolist())
    assert torch.allclose(profiles, torch.tensor(expected, dtype=F64))
    if bool((profiles > 0).any()):
        assert truth.specificity(profiles) == pytest.approx(literal_specificity(expected))
        assert truth.recovery(profiles, shuffles=1).value == pytest.approx(
            literal_recovery(expected)
        )
    about = truth.without_own(changes)
    left_out = truth.change_profiles(torch.cat([changes[:1], changes[2:]]))
    assert torch.allclose(about[1], left_out)
    for mixture in (False, True):
        told = truth.told_shares(before, about, mixture=mixture)
        wanted = literal_told(before.tolist(), about.tolist(), mixture)
        assert torch.allclose(told, torch.tensor(wanted, dtype=F64))


@given(seed=st.integers(0, 10_000), shift=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10))
def test_an_offset_changes_nothing_and_a_scale_no_share(seed, shift, scale):
    before, after = drawn(seed, 4, 3), drawn(seed + 1, 4, 5, 3)
    one = truth.removal_changes(before, after)
    other = truth.removal_changes(before * scale + shift, after * scale + shift)
    assert torch.allclose(one * scale, other, atol=1e-9)
    assert truth.specificity(truth.change_profiles(one)) == pytest.approx(
        truth.specificity(truth.change_profiles(other)), abs=1e-6
    )
    assert truth.moving(one) == truth.moving(other)


def test_limits():
    apart = torch.eye(5, dtype=F64)
    assert truth.specificity(apart) == 1
    assert truth.recovery(apart).value == 1
    assert truth.recovery(apart).chance < 0.8
    even = torch.ones(5, 5, dtype=F64)
    assert truth.specificity(even) == pytest.approx(0.2)
    assert truth.recovery(even).value == pytest.approx(0.2)
    assert truth.recovery(even).chance == pytest.approx(0.2)
    assert truth.coverage(even, torch.ones(5)) == 1
    assert truth.coverage(0.01 * even, torch.ones(5)) == 0
    nothing = torch.zeros(5, 5)
    assert truth.specificity(nothing) is truth.rises(nothing) is truth.recovery(nothing) is None
    assert truth.coverage(nothing, torch.zeros(5)) is None


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(DataError, match="do not belong together"):
        truth.removal_changes(torch.zeros(2, 3), torch.zeros(2, 5, 4))
    with pytest.raises(DataError, match="at least one image"):
        truth.removal_changes(torch.zeros(0, 3), torch.zeros(0, 5, 3))
    with pytest.raises(NonFiniteError):
        truth.removal_changes(torch.full((1, 1), torch.nan), torch.zeros(1, 1, 1))
    with pytest.raises(DataError, match="at least 2"):
        truth.without_own(torch.zeros(1, 5, 3))
    with pytest.raises(DataError, match="do not belong together"):
        truth.reproduced_change(torch.zeros(2, 5), torch.zeros(5, 2))
    with pytest.raises(DataError, match="numbers 0 to 7, expected 0 to 2"):
        part_mass(torch.ones(1, 1, 1, 2), torch.tensor([[[0, 7]]]), 3)
    with pytest.raises(DataError, match="do not belong together"):
        part_mass(torch.ones(1, 1, 1, 2), torch.tensor([[[0]]]), 3)
    there = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(DataError, match="do not belong together"):
        map_truth(torch.zeros(2, 3, 5), torch.zeros(2, 3), torch.zeros(2, 3, 5), (), there)
