"""What every power analysis is asked for; light, as the command line reads it for its help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torchxnn.errors import DataError


@runtime_checkable
class Asked(Protocol):
    """Assumptions of a power analysis, of which these are in all."""

    @property
    def alpha(self) -> float:
        """Of the family of tests, two-sided."""
        ...

    @property
    def power(self) -> float:
        """Wanted."""
        ...

    @property
    def largest(self) -> int:
        """Number of participants that is not exceeded, in all groups together."""
        ...

    @property
    def lost(self) -> float:
        """Share of participants who will be excluded."""
        ...

    @property
    def runs(self) -> int:
        """Simulated studies per number of participants."""
        ...

    @property
    def seed(self) -> int:
        """Of the simulation."""
        ...


@runtime_checkable
class OfBatches(Protocol):
    """Assumptions about the purity of batches, in percentage points."""

    @property
    def sd_between(self) -> float:
        """Standard deviation of participants' means."""
        ...

    @property
    def sd_within(self) -> float:
        """Standard deviation of one participant's batches."""
        ...

    @property
    def data_sets(self) -> int:
        """Number, each of them tested."""
        ...

    @property
    def images(self) -> int:
        """Pictures in a batch."""
        ...

    @property
    def groups(self) -> int:
        """Groups, as many as classes."""
        ...


def check_asked(options: Asked, own: Mapping[str, bool], fewest: int) -> None:
    """Refuse assumptions that make no sense.

    Args:
        options: all of them.
        own: of one kind of analysis: a rule, which begins with the name of a field -> whether it
            holds.
        fewest: the smallest `largest`.

    Raises:
        DataError: a rule does not hold; it names the rule and the value.
    """
    checks = {
        **own,
        "alpha must be between 0 and 1": 0 < options.alpha < 1,
        "power must be between 0 and 1": 0 < options.power < 1,
        f"largest must be {fewest} or more": options.largest >= fewest,
        "lost must be at least 0 and below 1": 0 <= options.lost < 1,
        "runs must be 100 or more": options.runs >= 100,
    }
    for rule, holds in checks.items():
        if not holds:
            raise DataError(f"{rule}, got {getattr(options, rule.split()[0])}")


def rules_of_batches(options: OfBatches) -> dict[str, bool]:
    """Rules for `check_asked` about purity, and whether each holds."""
    return {
        "sd_between must be 0 or more": options.sd_between >= 0,
        "sd_within must be above 0": options.sd_within > 0,
        "data_sets must be 1 or more": options.data_sets >= 1,
        "images must be 2 or more": options.images >= 2,
        "groups must be 1 or more": options.groups >= 1,
    }
