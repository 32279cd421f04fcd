"""Which outputs an XNN explains, and how many x-features that takes by default."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

from torchxnn.errors import DataError

FEATURES_ONE_TARGET, FEATURES_SEVERAL_TARGETS = 5, 7


def default_features(n_targets: int) -> int:
    """X-features if none are asked for: 5 for one target, 7 for several (paper section 4)."""
    return FEATURES_ONE_TARGET if n_targets == 1 else max(FEATURES_SEVERAL_TARGETS, n_targets)


def as_targets(target: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    """One class index or several, of whatever integer type.

    Raises:
        DataError: not integers.
    """
    try:
        return (operator.index(target),)  # type: ignore[arg-type]
    except TypeError:
        pass
    try:
        return tuple(operator.index(t) for t in target)  # type: ignore[union-attr]
    except TypeError as error:
        raise DataError(f"a target is a class index or several, got {target!r}") from error
