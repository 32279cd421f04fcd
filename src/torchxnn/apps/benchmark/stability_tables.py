"""Markdown of what other fits find again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchxnn.apps.benchmark.job_settings import REFITS
from torchxnn.apps.benchmark.over_classes import SIGNIFICANT
from torchxnn.apps.benchmark.stability import FEW
from torchxnn.apps.benchmark.tables import NONE, number, table
from torchxnn.metrics.stability import SAME

LABELS = {
    "matched": "matched ↑",
    "chance": "shuffled",
    "start": "before training",
    "once": "each concept once ↑",
    "concepts": "concepts ↑",
    "plain": "with the logit ↑",
    "plain_chance": "its shuffled",
    "swap_r": "R after a swap ↑",
    "swap_r_lost": "R lost ↓",
    "swap_r2_lost": "R² lost ↓",
    "r2": "R² ↑",
    "active": "active ↑",
}

LOWER = ("swap_r_lost", "swap_r2_lost")
"""Figures of which less is better."""


def stability_text(found: Mapping[str, Any]) -> str:
    """All figures of `run_stability` with their intervals, and the tests, as Markdown."""
    classes = next(iter(found["classes"].values()))
    images = [row["images"] for row in classes.values()]
    parts = [
        "# What other fits find again",
        f"Means over {len(classes)} class(es), {found['settings']['fits']} fits of each "
        "kind, method and class, and "
        "95% bootstrap intervals over classes. Fits are compared on "
        f"{_between(images)} images of the class (test images, and the held-out training images "
        f"where those are fewer than {FEW}).",
        "\n".join(f"- {kind}: {what}" for kind, what in REFITS.items()),
        *(
            text
            for name, kinds in found["methods"].items()
            for text in (f"## {name}", _method_table(kinds))
        ),
    ]
    if found["tests"]:
        first = found["tests"][0]["first"]
        parts += [
            f"## {first} against the others",
            "Two-sided Wilcoxon tests over classes, p after Holm over all of them. What is lost "
            "comes first, then what is not decided.",
            _test_table(found["tests"]),
        ]
    parts += ["## What the figures are", _meaning()]
    return "\n\n".join(parts) + "\n"


def _between(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _method_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures as rows, kinds of refits as columns."""
    rows = [
        [label, *(_with_interval(kinds[kind][figure]) for kind in REFITS)]
        for figure, label in LABELS.items()
    ]
    return table(["figure", *REFITS], rows)


def _with_interval(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return NONE
    low, high = value["low"], value["high"]
    return number(value["mean"]) + ("" if low is None else f" [{number(low)}, {number(high)}]")


def _test_table(tests: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            _verdict(test),
            test["refits"],
            LABELS[test["figure"]],
            test["other"],
            f"{test['p_holm']:.2g}",
            f"{test['median_difference']:+.3f}",
            f"{test['higher']} and {test['lower']} of {test['classes']}",
        ]
        for test in sorted(tests, key=lambda test: _ORDER.index(_verdict(test)))
    ]
    head = ["", "refits", "figure", "against", "p", "median difference", "higher and lower in"]
    return table(head, rows)


_ORDER = ("lost", "not decided", "won")


def _verdict(test: Mapping[str, Any]) -> str:
    if test["p_holm"] >= SIGNIFICANT:
        return "not decided"
    more = test["higher"] > test["lower"]
    return "lost" if more == (test["figure"] in LOWER) else "won"


def _meaning() -> str:
    return "\n".join(
        f"- {text}"
        for text in (
            "matched: x-features of two fits matched one for one, correlation of their "
            "contributions among the images of the class after what is linear in the logit was "
            "taken out; signed. Read it against shuffled images.",
            "before training: the same of the points where the fits began. 1 says that they all "
            "began at the same point.",
            f"each concept once: x-features of one fit that correlate at {SAME} or more, the logit "
            "taken out, are one concept, and concepts are matched instead; concepts: how many "
            "there are.",
            "with the logit: the same without taking the logit out, as this command said before.",
            "R after a swap: the other fit's match, scaled by least squares on training images, "
            "takes the place of an x-feature; correlation of the reproduced with the network's "
            "logit on all test images. R lost and R² lost: by how much that is less than before.",
            "R², active: of the fits themselves, on all test images.",
        )
    )
