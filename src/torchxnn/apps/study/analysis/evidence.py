"""Who answers: what the events of a session say of a hand or a program, figure by figure.

No figure proves anything by itself: keyboards, assistive technology and habits give single signals
to honest people. So a rule counts signals, and the report shows what the rule changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from torchxnn.apps.study.recorded import TRUSTED, is_path
from torchxnn.apps.study.settings import MachineRules

FEWEST = 10
"""Acts, or moves with a mouse, below which a figure of them is not computed."""

TOGETHER_MS = 20.0
"""Moves closer than this are one act: several pictures that were put into a group at once."""

_OF_PAGES = ("away", "pasted")
"""Figures of every page; the others are of the hand that groups pictures."""

_LONG = 100.0  # pixels of a path that can be called straight or not
_SAMPLES = 5  # positions of the pointer that make a path
_POINTERS = ("mouse", "pen")  # a finger leaves no path between two taps


@dataclass(frozen=True)
class Figure:
    """What is measured of every participant, and when it is a signal.

    Attributes:
        name: of the figure, and of its threshold in `MachineRules`.
        text: for people, with its unit.
        high: whether values above the threshold are the signal, rather than those below.
    """

    name: str
    text: str
    high: bool

    def holds(self, value: float | None, rules: MachineRules) -> bool:
        """Whether a value is a signal; one that is not known never is."""
        threshold = float(getattr(rules, self.name))
        return value is not None and (value > threshold if self.high else value < threshold)


FIGURES = (
    Figure("pause_ms", "median pause between two acts (ms)", high=False),
    Figure("pause_cv", "coefficient of variation of the pauses", high=False),
    Figure("jumps", "share of moves before which the pointer did not travel", high=True),
    Figure("straight", "straight line / path of the pointer", high=True),
    Figure("scripted", "share of moves that no device made", high=True),
    Figure("away", "share of the time with the page hidden or another window in front", high=True),
    Figure("pasted", "share of the comment that was pasted", high=True),
)


def figures_of(pauses: bool) -> tuple[Figure, ...]:
    """Those of a task; without pauses, where pictures are not grouped, few are recorded."""
    return tuple(figure for figure in FIGURES if pauses or figure.name in _OF_PAGES)


@dataclass(frozen=True)
class Evidence:
    """What is known of how one participant acted; None where too little is recorded.

    Attributes:
        participant: number.
        acts: number of moves, those of several pictures at once counted once.
        pause_ms: see `FIGURES`, as all that follow.
        pause_cv: standard deviation / mean.
        jumps: in [0, 1], of moves with a mouse or pen.
        straight: in [0, 1], 1 for lines.
        scripted: in [0, 1].
        away: in [0, 1].
        pasted: in [0, 1].
    """

    participant: int
    acts: int
    pause_ms: float | None = None
    pause_cv: float | None = None
    jumps: float | None = None
    straight: float | None = None
    scripted: float | None = None
    away: float | None = None
    pasted: float | None = None

    def signals(self, rules: MachineRules) -> tuple[str, ...]:
        """Names of the figures that are signals."""
        return tuple(f.name for f in FIGURES if f.holds(getattr(self, f.name), rules))


def measure_evidence(
    tables: Mapping[str, pd.DataFrame], pauses: bool = True
) -> dict[int, Evidence]:
    """Figures of every participant of an export, practice left out, by number.

    `pauses` says whether those between acts are figures; see `ExclusionRules`.
    """
    events = tables.get("events")
    own: dict[int, list[Mapping[Any, Any]]] = {}
    if events is not None:
        for row in events[events["position"] > 0].to_dict("records"):
            own.setdefault(int(row["participant"]), []).append(row)
    return {
        int(person["participant"]): _measure(
            person, own.get(int(person["participant"]), []), pauses
        )
        for person in tables["participants"].to_dict("records")
    }


def machine_like(
    evidence: Mapping[int, Evidence], people: Iterable[int], rules: MachineRules
) -> set[int]:
    """Those of the people who have as many signals as the rule asks for; 0 asks for nothing."""
    if not rules.signals:
        return set()
    known = {number: evidence[number] for number in people if number in evidence}
    return {n for n, one in known.items() if len(one.signals(rules)) >= rules.signals}


def evidence_table(
    evidence: Iterable[Evidence], rules: MachineRules, pauses: bool = True
) -> pd.DataFrame:
    """A row per participant: the figures of the task and the names of the signals."""
    rows = [asdict(one) | {"signals": " ".join(one.signals(rules))} for one in evidence]
    columns = ["participant", "acts", *(f.name for f in figures_of(pauses)), "signals"]
    return pd.DataFrame(rows, columns=columns)


def _measure(person: Mapping[Any, Any], rows: Sequence[Mapping[Any, Any]], paced: bool) -> Evidence:
    events = [dict(row, value=json.loads(row["value"])) for row in rows]
    moves = [event["value"] for event in events if event["type"] == "move"]
    acts, pauses = _pauses(events)
    enough = paced and len(pauses) >= FEWEST - 1
    return Evidence(
        participant=int(person["participant"]),
        acts=acts,
        pause_ms=float(np.median(pauses)) if enough else None,
        pause_cv=float(np.std(pauses, ddof=1) / np.mean(pauses)) if enough else None,
        **_paths(moves),
        scripted=_share([not by for m in moves if isinstance(by := m.get(TRUSTED), bool)]),
        away=_away(events),
        pasted=_pasted(person),
    )


def _pauses(events: Sequence[Mapping[str, Any]]) -> tuple[int, np.ndarray]:
    """How many acts there are, and the milliseconds between those of one page."""
    acts, pauses, before = 0, list[float](), None
    for event in events:
        if event["type"] == "open":
            before = None
        elif event["type"] == "move":
            now = float(event["client_ms"])
            if before is not None and now - before < TOGETHER_MS:
                continue
            if before is not None:
                pauses.append(now - before)
            acts, before = acts + 1, now
    return acts, np.array(pauses)


def _paths(moves: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Share of the moves without a path, and how straight the paths are."""
    known = [m for m in moves if m.get("by") in _POINTERS and is_path(m)]
    long = [m for m in known if m["samples"] >= _SAMPLES and m["travel"] >= _LONG]
    straight = None
    if len(long) >= FEWEST:
        straight = sum(float(m["direct"]) for m in long) / sum(float(m["travel"]) for m in long)
    return {"jumps": _share([m["samples"] < _SAMPLES for m in known]), "straight": straight}


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if len(hits) >= FEWEST else None


def _away(events: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the time between the events of a page in which it was hidden or not in front."""
    total, gone, before, here = 0.0, 0.0, None, {"visibility": True, "focus": True}
    for event in events:
        now = float(event["client_ms"])
        if event["type"] == "open":
            before, here = now, {"visibility": True, "focus": True}
            continue
        if before is not None:
            passed = max(0.0, now - before)
            total += passed
            gone += 0.0 if all(here.values()) else passed
        if event["type"] in here:
            here[event["type"]] = bool(event["value"].get("visible", event["value"].get("on")))
        before = now
    return gone / total if total else None


def _pasted(person: Mapping[Any, Any]) -> float | None:
    """Share of the comment that was pasted; None without a comment or without a record."""
    comment, pasted = person.get("comments"), person.get("pasted")
    if not isinstance(comment, str) or not comment.strip() or pasted is None or pd.isna(pasted):
        return None
    return min(1.0, float(pasted) / len(comment))


def describe_machine_rules(rules: MachineRules, pauses: bool = True) -> tuple[str, ...]:
    """The rule and its thresholds in sentences, for reports and preregistrations.

    `pauses` says whether those between acts are figures.
    """
    if not rules.signals:
        return ("Nobody is left out for acting like a program.",)
    shown = figures_of(pauses)
    limits = "; ".join(
        f"{figure.text} {'above' if figure.high else 'below'} {getattr(rules, figure.name):g}"
        for figure in shown
    )
    return (
        f"People who act like a program in {rules.signals} or more of {len(shown)} respects are "
        f"left out: {limits}. What is not recorded, or rests on fewer than {FEWEST} acts, is no "
        "signal.",
    )
