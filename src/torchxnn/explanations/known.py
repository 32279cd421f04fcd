"""What a logit is known to be made of, for pages that set it beside what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

Verdict = Literal["found", "mixed", "missed", "false"]
"""found: the x-feature that it is matched with is mostly that; mixed: is something else as much or
more; missed: it is matched with none, or with one that answers to nothing; false: it is no reason,
and an x-feature is most that."""


@dataclass(frozen=True, eq=False)
class KnownReason:
    """A reason that a logit is known to have, or is known not to have, and what was found of it.

    Attributes:
        name: for people.
        picture: (H, W, 3) uint8.
        planted: what is true of it, in few words.
        said: what the x-features say of it, in few words.
        verdict: of the two.
    """

    name: str
    picture: UInt8[np.ndarray, "height width 3"]
    planted: str
    said: str
    verdict: Verdict
