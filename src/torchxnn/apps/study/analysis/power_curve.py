"""What every power analysis has in common: a curve, the search on it, and the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

from scipy.stats import binomtest

from torchxnn.errors import DataError
from torchxnn.storage.artifact import structure

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Power:
    """Power with one number of participants.

    Attributes:
        participants: analysed, so after exclusions.
        power: share of the simulated studies that found what was needed.
        low: lower end of Wilson's 95% interval for it, which is the error of the simulation alone.
        high: upper end of the same interval.
    """

    participants: int
    power: float
    low: float
    high: float


def power_of(participants: int, found: int, runs: int) -> Power:
    """Power if `found` of `runs` simulated studies found what was needed."""
    interval = binomtest(found, runs).proportion_ci(method="wilson")  # of 95%
    return Power(participants, found / runs, float(interval.low), float(interval.high))


def find_smallest(
    estimate: Callable[[int], Power], wanted: float, fewest: int, first: int, most: int
) -> tuple[int | None, tuple[Power, ...]]:
    """Smallest number whose interval lies above the wanted power, by doubling and then halving.

    Args:
        estimate: power at a number of people.
        wanted: power.
        fewest: the smallest number that may be the answer.
        first: number to begin with.
        most: largest number.

    Returns:
        The number, None if `most` is not enough, and the power at all that were tried, ascending.
    """
    tried: dict[int, Power] = {}

    def enough(people: int) -> bool:
        if people not in tried:
            tried[people] = estimate(people)
        return tried[people].low >= wanted

    low, high = fewest - 1, min(first, most)
    while not enough(high) and high < most:
        low, high = high, min(2 * high, most)
    found = high if enough(high) else None
    while found is not None and found - low > 1:
        middle = (low + found) // 2
        low, found = (low, middle) if enough(middle) else (middle, found)
    return found, tuple(tried[number] for number in sorted(tried))


def recruited(participants: int | None, lost: float) -> int | None:
    """How many are recruited so that as many stay when a share is excluded."""
    return None if participants is None else ceil(participants / (1 - lost) - 1e-9)


def read_power(path: Path, kind: type[Answer], command: str) -> Answer:
    """Read what a command such as `xnn study power` wrote with `--out`.

    Raises:
        DataError: another file.
    """
    try:
        return structure(json.loads(path.read_bytes()), kind, str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no result of `{command} --out`: {error}") from error


def describe_curve(curve: Sequence[Power]) -> list[tuple[str, str, str]]:
    """Participants, power and its interval, as texts."""
    return [
        (str(one.participants), f"{one.power:.1%}", f"{one.low:.1%} to {one.high:.1%}")
        for one in curve
    ]
