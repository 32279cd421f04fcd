"""What is kept of a participant, and the sentence of the consent text that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECORDED = "{recorded}"
"""Stands in a consent text for the list of what is kept."""

EVENTS: dict[str, str] = {
    "move": "moves",
    "select": "moves",
    "overlay": "shown",
    "all_overlays": "shown",
    "feature": "shown",
    "sort": "shown",
    "compare": "shown",
    "compare_feature": "shown",
    "zoom": "shown",
    "open": "times",
    "loaded": "times",
    "image_error": "times",
    "phase": "times",
    "visibility": "focus",
    "focus": "focus",
    "device": "device",
}
"""Kind of event -> name of the sentence, in the texts under consent, recorded.

What a move says of the hand, "focus", and what was pasted are kept only where it is said.
"""

ANSWERS: dict[str, str] = {
    **dict.fromkeys(("age", "gender", "computer_science", "ai_courses"), "answers"),
    **dict.fromkeys(("difficulty", "rating_one_heatmap", "rating_xnn", "comments"), "answers"),
    **dict.fromkeys(("confidence", "attention", "words", "cue", "answer"), "answers"),
    "pasted": "hand",
}
"""Question -> name of the sentence."""

PATH = ("travel", "direct", "samples")
"""What a move says of the pointer's path, as numbers."""

TRUSTED = "trusted"
"""Whether a device made a move, which the browser itself says."""

SIZES = ("width", "height")
"""Pixels of the window, in an event "device"."""

_LARGEST = 1e9
"""Above all that is measured in pixels or positions."""


def says_what_is_recorded(consent: str) -> bool:
    """Whether a consent text lists all that is kept, so that all of it may be kept."""
    return RECORDED in consent


def with_list(consent: str, texts: Mapping[str, Any]) -> str:
    """The consent text with the list in place of its name, in Markdown."""
    sentences = texts["consent"]["recorded"].values()
    return consent.replace(RECORDED, "\n".join(f"- {sentence}" for sentence in sentences))


def is_path(value: Mapping[str, Any]) -> bool:
    """Whether a move says all of the pointer's path: `PATH`, as numbers that can be measured."""
    return all(_measured(value.get(name)) for name in PATH)


def size_of(device: Mapping[str, Any], name: str) -> int | None:
    """A size of `SIZES`; None if it is no whole number of pixels."""
    value = device.get(name)
    return value if isinstance(value, int) and _measured(value) else None


def _measured(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= _LARGEST
