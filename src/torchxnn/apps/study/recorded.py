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


def says_what_is_recorded(consent: str) -> bool:
    """Whether a consent text lists all that is kept, so that all of it may be kept."""
    return RECORDED in consent


def with_list(consent: str, texts: Mapping[str, Any]) -> str:
    """The consent text with the list in place of its name, in Markdown."""
    sentences = texts["consent"]["recorded"].values()
    return consent.replace(RECORDED, "\n".join(f"- {sentence}" for sentence in sentences))
