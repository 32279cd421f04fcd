"""How much several people agree: Krippendorff's alpha for categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """How much people agree on the categories of units.

    Attributes:
        alpha: at most 1 (all agree); 0 is chance, and less is worse than chance; higher is better.
            NaN where it is not defined: no unit has two judgements, or all are of one category.
        units: units with at least two judgements; others say nothing about agreement.
        judgements: judgements of these units.
        people: people who judged at least one of these units.
        categories: different categories among these judgements.
    """

    alpha: float
    units: int
    judgements: int
    people: int
    categories: int


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> Agreement:
    r"""Krippendorff's alpha for nominal data, any number of people, and missing judgements.

    .. math:: \alpha=1-\frac{D_o}{D_e},\quad
        D_o=\frac1n\sum_u\sum_{c\neq k}\frac{n_{uc}n_{uk}}{m_u-1},\quad
        D_e=\frac1{n(n-1)}\sum_{c\neq k}n_cn_k

    with :math:`n_{uc}` judgements of category c among the :math:`m_u\ge2` of unit u, :math:`n_c`
    their sums over units, and :math:`n=\sum_um_u`. Source: Krippendorff, Computing Krippendorff's
    alpha-reliability, 2011. Higher is better. `ratings` hold per unit the category that each person
    gave it, None where there is no judgement; people stand in the same order in every unit.

    Example:
        >>> krippendorff_alpha([("wing", "wing"), ("beak", "crown"), ("tail", None)]).units
        2
    """
    judged = [{i: c for i, c in enumerate(unit) if c is not None} for unit in ratings]
    people = {person for unit in judged if len(unit) > 1 for person in unit}
    pairable = [list(unit.values()) for unit in judged if len(unit) > 1]
    totals = Counter(category for unit in pairable for category in unit)
    n = totals.total()
    observed = sum(_differing_pairs(Counter(unit)) / (len(unit) - 1) for unit in pairable)
    expected = _differing_pairs(totals)
    alpha = 1 - (n - 1) * observed / expected if expected else float("nan")
    return Agreement(alpha, len(pairable), n, len(people), len(totals))


def _differing_pairs(counts: Counter[Hashable]) -> int:
    """Ordered pairs of judgements of different categories."""
    return counts.total() ** 2 - sum(count**2 for count in counts.values())
