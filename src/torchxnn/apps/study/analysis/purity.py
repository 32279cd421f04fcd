"""How well a grouping of pictures agrees with classes: purity, its chance level, adjusted Rand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import comb

import pandas as pd

from torchxnn.errors import DataError

TRIAL = ["participant", "position"]
PLACEMENT_COLUMNS = [*TRIAL, "image", "group", "predicted", "label"]
TRIAL_COLUMNS = [
    *(*TRIAL, "arm", "kind", "data_set", "stage", "method", "set", "active_seconds"),
    *("confidence", "moves", "toggles", "zooms"),
]


def purity(groups: Sequence[Hashable], classes: Sequence[Hashable]) -> float:
    r"""Share of the pictures that are of the most common class in their group.

    .. math:: \frac1N\sum_g\max_c n_{gc}

    Source: Manning, Raghavan and Schuetze, Introduction to Information Retrieval, 2008, section
    16.3. Higher is better. It is at least the share of the largest class and 1 if every group holds
    a single class, so groups of one picture are pure for nothing: read it beside `expected_purity`.

    Args:
        groups: the group of every picture, whatever the names.
        classes: the class of every picture, in the same order.

    Returns:
        In (0, 1].

    Raises:
        DataError: no pictures, or not as many groups as classes.

    Example:
        >>> purity([1, 1, 1, 2], ["gull", "gull", "tern", "tern"])
        0.75
    """
    _check(groups, classes)
    best: dict[Hashable, int] = {}
    for (group, _), count in Counter(zip(groups, classes, strict=True)).items():
        best[group] = max(best.get(group, 0), count)
    return sum(best.values()) / len(groups)


def adjusted_rand_index(groups: Sequence[Hashable], classes: Sequence[Hashable]) -> float:
    r"""Agreement of two partitions about pairs of pictures, 0 by chance and 1 if they are equal.

    With :math:`S=\sum\binom{n_{gc}}2`, :math:`A=\sum\binom{n_g}2`, :math:`B=\sum\binom{n_c}2` and
    :math:`T=\binom N2`

    .. math:: \frac{S-AB/T}{(A+B)/2-AB/T}

    in exact integers until the last division. Source: Hubert and Arabie, Comparing partitions,
    1985. Higher is better. Two partitions that are both one group, or both single pictures, are
    equal: 1. Arguments are those of `purity`.

    Returns:
        At most 1; negative is worse than chance.

    Raises:
        DataError: no pictures, or not as many groups as classes.
    """
    _check(groups, classes)
    both = _pairs(Counter(zip(groups, classes, strict=True)))
    first, second = _pairs(Counter(groups)), _pairs(Counter(classes))
    total = comb(len(groups), 2)
    denominator = (first + second) * total - 2 * first * second
    if denominator == 0:
        return 1.0
    return 2 * (both * total - first * second) / denominator


def expected_purity(groups: Sequence[Hashable], classes: Sequence[Hashable]) -> float:
    r"""Mean purity when the same group sizes are filled with the same pictures at random: exact.

    A group of s pictures then holds a multivariate hypergeometric sample, so that

    .. math:: P(\max_c X_c\le m)=\frac{[x^s]\prod_c\sum_{k\le m}\binom{n_c}kx^k}{\binom Ns},

    and expectations add up over groups whatever their dependence. Integers until the last division,
    no simulation. Arguments are those of `purity`, of which only the sizes of groups and the counts
    of classes matter.

    Returns:
        In (0, 1].

    Raises:
        DataError: no pictures, or not as many groups as classes.

    Example:
        >>> round(expected_purity([1, 1, 2, 2], ["a", "a", "b", "b"]), 4)
        0.6667
    """
    _check(groups, classes)
    counts = tuple(sorted(Counter(classes).values()))
    sizes = Counter(groups).values()
    return sum(_expected_largest(size, counts) for size in sizes) / len(groups)


def score_trials(
    trials: pd.DataFrame, placements: pd.DataFrame, participants: Sequence[int] | None = None
) -> pd.DataFrame:
    """Score every submitted trial of an export but the practice round.

    `participants` are those to score; None is everybody.

    Returns:
        A row per trial, by participant and position: participant, position, arm, kind, data_set,
        stage, method, set, images, groups (used), purity, ari, chance (all with respect to the
        network's prediction), purity_labels, ari_labels, chance_labels (with respect to the labels;
        NA where a picture has none), active_seconds, confidence, moves, toggles, zooms.

    Raises:
        DataError: a picture without group or prediction, twice in a trial, or without its trial.
    """
    rows = placements.loc[placements["position"] > 0, PLACEMENT_COLUMNS]
    chosen = trials.loc[trials["position"] > 0, TRIAL_COLUMNS].astype(dict.fromkeys(TRIAL, "int64"))
    if participants is not None:
        rows = rows[rows["participant"].isin(list(participants))]
        chosen = chosen[chosen["participant"].isin(list(participants))]
    _check_placements(rows)
    scored = [
        {**dict(zip(TRIAL, key, strict=True)), **_scores(part)}
        for key, part in rows.groupby(TRIAL, sort=True)
    ]
    scores = pd.DataFrame(scored, columns=[*TRIAL, *_SCORES])
    scores = scores.astype({**dict.fromkeys(TRIAL, "int64"), **dict.fromkeys(_SCORES, "float64")})
    merged = scores.merge(chosen, on=TRIAL, how="left", validate="one_to_one")
    if merged["stage"].isna().any():
        row = merged[merged["stage"].isna()].iloc[0]
        raise DataError(
            f"placements of participant {row['participant']} at position {row['position']} have "
            "no row in the table of trials"
        )
    order = [*TRIAL, *TRIAL_COLUMNS[2:8], *_SCORES, *TRIAL_COLUMNS[8:]]
    return merged[order].sort_values(TRIAL, ignore_index=True)


_MEASURES = {"purity": purity, "ari": adjusted_rand_index, "chance": expected_purity}
_SCORES = ("images", "groups", *_MEASURES, *(f"{name}_labels" for name in _MEASURES))


def _scores(part: pd.DataFrame) -> Mapping[str, int | float | None]:
    groups = part["group"].tolist()
    labels: Sequence[Hashable] | None = part["label"].tolist()
    if part["label"].isna().any():
        labels = None
    found: dict[str, int | float | None] = {"images": len(groups), "groups": len(set(groups))}
    for suffix, classes in (("", part["predicted"].tolist()), ("_labels", labels)):
        for name, score in _MEASURES.items():
            found[name + suffix] = None if classes is None else score(groups, classes)
    return found


def _check_placements(rows: pd.DataFrame) -> None:
    for column in ("group", "predicted"):
        missing = rows[rows[column].isna()]
        if len(missing):
            where = missing.iloc[0]
            raise DataError(
                f"image {where['image']} of participant {where['participant']} at position "
                f"{where['position']} has no {column}; placements hold submitted trials only"
            )
    twice = rows[rows.duplicated([*TRIAL, "image"])]
    if len(twice):
        where = twice.iloc[0]
        raise DataError(
            f"image {where['image']} is twice in position {where['position']} of participant "
            f"{where['participant']}"
        )


def _check(groups: Sequence[Hashable], classes: Sequence[Hashable]) -> None:
    if len(groups) != len(classes) or len(groups) == 0:
        raise DataError(
            "a grouping needs one group and one class per picture, got "
            f"{len(groups)} groups and {len(classes)} classes"
        )


def _pairs(counts: Counter) -> int:
    return sum(comb(count, 2) for count in counts.values())


def _expected_largest(size: int, counts: tuple[int, ...]) -> float:
    """Expected count of the most common class among `size` pictures drawn without replacement."""
    every = comb(sum(counts), size)
    return sum(every - _ways(size, counts, most) for most in range(size)) / every


def _ways(size: int, counts: tuple[int, ...], most: int) -> int:
    """Number of samples of `size` pictures with at most `most` of each class."""
    ways = [1] + [0] * size
    for count in counts:
        ways = [
            sum(comb(count, k) * ways[drawn - k] for k in range(min(most, drawn) + 1))
            for drawn in range(size + 1)
        ]
    return ways[size]
