"""What every power analysis has in common: a curve, the search on it, the answer and its file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import ClassVar, TypeVar

from scipy.stats import binomtest

from torchxnn.apps.study.analysis.power_asked import Asked
from torchxnn.errors import DataError
from torchxnn.storage.artifact import structure


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


Kind = TypeVar("Kind", bound="Answer")


@dataclass(frozen=True)
class Answer(ABC):
    """The answer to "how many participants?", as far as it is the same for every analysis.

    Attributes:
        participants: smallest number whose interval lies above the wanted power, in all groups
            together, after exclusions; None if `Asked.largest` is not enough.
        recruit: the same before exclusions.
        curve: power at every number that was tried, ascending.
        source: where the assumptions come from.
    """

    COMMAND: ClassVar[str]
    """What writes it with `--out`."""

    participants: int | None
    recruit: int | None
    curve: tuple[Power, ...]
    source: str = field(default="given", kw_only=True)

    @classmethod
    def read(cls: type[Kind], path: Path) -> Kind:
        """Read what a command such as `xnn study power` wrote with `--out`.

        Raises:
            DataError: another file.
        """
        try:
            return structure(json.loads(path.read_bytes()), cls, str(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no result of `{cls.COMMAND} --out`: {error}") from error

    @abstractmethod
    def sentence(self) -> str:
        """The answer with its assumptions."""

    def in_words(self, asked: Asked, groups: str, what: str, assumed: str) -> str:
        """The answer with its assumptions.

        Args:
            asked: what the analysis was asked for.
            groups: where the participants are, as in " in 3 arms"; empty if all do the same.
            what: is found, and how.
            assumed: of people and batches.
        """
        answer = (
            f"With up to {asked.largest} analysed participants the power stays below "
            f"{asked.power:g}"
            if self.participants is None
            else f"{self.participants} analysed participants{groups}, so {self.recruit} recruited "
            f"if {asked.lost:.0%} are excluded, have a power of at least {asked.power:g}"
        )
        return (
            f"{answer} to find {what}. Assumed ({self.source}): {assumed}. {asked.runs:,} "
            f"simulated studies per number, seed {asked.seed}."
        )


@dataclass(frozen=True)
class Search:
    """What a search for the number of participants came to.

    Attributes:
        each: smallest number of each group; None if the largest one is not enough.
        participants: the same in all groups together.
        recruit: before exclusions.
        curve: power at every number that was tried, ascending.
    """

    each: int | None
    participants: int | None
    recruit: int | None
    curve: tuple[Power, ...]


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


def most_of_each(asked: Asked, groups: int, fewest: int) -> int:
    """Largest number of participants of each of some groups."""
    return max(fewest, asked.largest // groups)


def search(
    estimate: Callable[[int], Power], asked: Asked, *, groups: int = 1, fewest: int, first: int
) -> Search:
    """Smallest number of participants with the wanted power; see `find_smallest`.

    Args:
        estimate: power at a number of people of each group.
        asked: what the analysis is asked for.
        groups: of other people each, as many in every one.
        fewest: the smallest number of each that may be the answer.
        first: number of each to begin with.
    """
    most = most_of_each(asked, groups, fewest)
    each, curve = find_smallest(estimate, asked.power, fewest, first, most)
    if each is None:
        return Search(None, None, None, curve)
    recruit = ceil(groups * each / (1 - asked.lost) - 1e-9)  # as many stay when a share is excluded
    return Search(each, groups * each, recruit, curve)


def describe_curve(curve: Sequence[Power]) -> list[tuple[str, str, str]]:
    """Participants, power and its interval, as texts."""
    return [
        (str(one.participants), f"{one.power:.1%}", f"{one.low:.1%} to {one.high:.1%}")
        for one in curve
    ]
