"""Who is analysed: rules that were set before looking, applied before any statistic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import pandas as pd

from torchxnn.apps.study.analysis.evidence import (
    Evidence,
    describe_machine_rules,
    machine_like,
    measure_evidence,
)
from torchxnn.apps.study.analysis.options import (
    PARTICIPANT,
    PILOT,
    SYNTHETIC,
    AnalysisOptions,
    floats,
)
from torchxnn.apps.study.analysis.purity import PLACEMENT_COLUMNS, TRIAL_COLUMNS
from torchxnn.errors import DataError

Answer = TypeVar("Answer")

WITHDREW = "withdrew"
UNFINISHED = "did not finish"
ATTENTION = "failed the attention check"
TOO_FAST = "too fast"
MACHINE = "acted like a program"
RULE_OFF = "nobody left out for acting like a program"
RULE_PLANNED, RULE_STRICT = "as planned", "one signal is enough"
REASONS = (WITHDREW, UNFINISHED, ATTENTION, TOO_FAST, MACHINE)

_NEEDED = {
    "participants": (
        *("participant", "arm", "kind", "status", "age", "gender", "computer_science"),
        *("ai_courses", "attention_passed", "difficulty", "rating_one_heatmap", "rating_xnn"),
        "comments",
    ),
    "trials": (*TRIAL_COLUMNS, "submitted_at"),
    "placements": PLACEMENT_COLUMNS,
}


@dataclass(frozen=True)
class Excluded:
    """A participant who is left out.

    Attributes:
        participant: number.
        arm: of the participant.
        reasons: each of `REASONS` that holds, in that order.
    """

    participant: int
    arm: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """Who is analysed and who is not, and why.

    Attributes:
        kept: numbers of the analysed participants, ascending.
        kept_kinds: how many of them are of each kind.
        kept_arms: how many of them are in each arm.
        excluded: everybody of the analysed kinds who is left out, ascending.
        reasons: how often each reason holds; a participant can have several.
        left_out_kinds: how many are not looked at because of their kind.
        attention_unknown: kept without an answer to an attention check.
        time_unknown: kept with an analysed trial whose active time is not known.
    """

    kept: tuple[int, ...]
    kept_kinds: dict[str, int]
    kept_arms: dict[str, int]
    excluded: tuple[Excluded, ...]
    reasons: dict[str, int]
    left_out_kinds: dict[str, int]
    attention_unknown: int
    time_unknown: int

    @property
    def banner(self) -> str:
        """What every page of a report must say of its data; empty if all are participants."""
        words = {"Synthetic": SYNTHETIC, "Pilot": PILOT}
        odd = {word: n for word, kind in words.items() if (n := self.kept_kinds.get(kind))}
        counts = (
            f"{n} of {len(self.kept)} analysed participants: {word.lower()}"
            for word, n in odd.items()
        )
        return f"{' and '.join(odd)} data: no finding ({'; '.join(counts)})." if odd else ""


def check_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuse tables that are not those of an export.

    Raises:
        DataError: a table or a column is missing, or a participant has two rows.
    """
    for name, columns in _NEEDED.items():
        if name not in tables:
            raise DataError(f"the export has no table {name}")
        missing = [column for column in columns if column not in tables[name].columns]
        if missing:
            raise DataError(f"table {name} has no column {', '.join(missing)}")
    numbers = tables["participants"]["participant"]
    if numbers.duplicated().any():
        twice = numbers[numbers.duplicated()].iloc[0]
        raise DataError(f"participant {twice} has two rows in the table of participants")


def select_participants(tables: Mapping[str, pd.DataFrame], options: AnalysisOptions) -> Selection:
    """Apply the exclusion rules to an export.

    Raises:
        DataError: a table or a column is missing.
    """
    check_tables(tables)
    people = tables["participants"].set_index("participant").sort_index()
    looked_at = people[people["kind"].isin(options.kinds)]
    trials = tables["trials"]
    analysed = trials[(trials["position"] > 0) & trials["submitted_at"].notna()]
    seconds = floats(analysed.set_index("participant")["active_seconds"])
    reasons = _reasons(looked_at, seconds, options)
    asked = [int(number) for number in looked_at.index[looked_at["kind"] != SYNTHETIC]]
    rules = options.exclusions
    machines = machine_like(measure_evidence(tables, rules.pauses), asked, rules.machine)
    reasons[MACHINE] = reasons.index.isin(machines)
    excluded = [
        Excluded(int(number), str(looked_at.at[number, "arm"]), tuple(reasons.columns[row]))
        for number, row in zip(reasons.index, reasons.to_numpy(), strict=True)
        if row.any()
    ]
    kept = looked_at[~reasons.any(axis=1)]
    others = people[~people["kind"].isin(options.kinds)]
    return Selection(
        kept=tuple(int(number) for number in kept.index),
        kept_kinds=_counts(kept["kind"]),
        kept_arms=_counts(kept["arm"]),
        excluded=tuple(excluded),
        reasons={str(name): int(n) for name, n in reasons.sum().items() if n},
        left_out_kinds=_counts(others["kind"]),
        attention_unknown=int(kept["attention_passed"].isna().sum()),
        time_unknown=int(seconds[seconds.isna()].index.intersection(kept.index).nunique()),
    )


def evidence_of(
    tables: Mapping[str, pd.DataFrame], selection: Selection, options: AnalysisOptions
) -> tuple[Evidence, ...]:
    """How everybody of the analysed kinds acted, the excluded too."""
    looked_at = {*selection.kept, *(one.participant for one in selection.excluded)}
    found = measure_evidence(tables, options.exclusions.pauses)
    return tuple(one for number, one in found.items() if number in looked_at)


def by_rule(
    options: AnalysisOptions, answer: Callable[[AnalysisOptions], tuple[Answer, ...]]
) -> dict[str, tuple[Answer, ...]]:
    """The main answers by how many signals of a program leave somebody out: none, as planned, one.

    `answer` gives them under some options.
    """
    planned, found = options.exclusions.machine.signals, {}
    names = {0: RULE_OFF, 1: RULE_STRICT, planned: RULE_PLANNED}
    for signals in dict.fromkeys((0, planned, 1)):
        rules = replace(options.exclusions.machine, signals=signals)
        changed = replace(options, exclusions=replace(options.exclusions, machine=rules))
        found[names[signals]] = answer(changed)
    return found


def has_pilots(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Whether anybody took part as a pilot."""
    return bool((tables["participants"]["kind"] == PILOT).any())


def check_anybody(selection: Selection) -> None:
    """Refuse to analyse nobody.

    Raises:
        DataError: nobody is left; it says who is left out why, and which flag includes them.
    """
    if selection.kept:
        return
    flags = {PILOT: " (--include-pilots)", SYNTHETIC: " (--include-synthetic)"}
    found = [
        f"{count} of the kind {kind}{flags.get(kind, '')}"
        for kind, count in selection.left_out_kinds.items()
    ]
    found += [f"{count} {reason}" for reason, count in selection.reasons.items()]
    raise DataError(
        f"nobody is left to analyse: {', '.join(found)}; the exclusion rules are those of the study"
        if found
        else "nobody is left to analyse: the study has no participants yet"
    )


def describe_rules(options: AnalysisOptions) -> tuple[str, ...]:
    """The rules in sentences, for a report and for a preregistration."""
    rules = options.exclusions
    sentences = [
        "People who withdrew are left out.",
        "People who did not finish are left out."
        if rules.unfinished
        else "People who did not finish count wherever a pair of trials is complete.",
        "People who failed an attention check are left out."
        if rules.attention
        else "Attention checks exclude nobody.",
        f"People with less than {rules.minimum_seconds:g} s of active time (page visible) on any "
        "analysed trial are left out."
        if rules.minimum_seconds > 0
        else "No minimum time is asked for.",
        *describe_machine_rules(rules.machine, rules.pauses),
    ]
    kinds = [kind for kind in (PILOT, SYNTHETIC) if kind not in options.kinds]
    if kinds:
        sentences.append(f"Participants marked as {' or '.join(kinds)} are not analysed.")
    included = [kind for kind in options.kinds if kind != PARTICIPANT]
    if included:
        sentences.append(f"Participants marked as {' or '.join(included)} are analysed too.")
    if SYNTHETIC in included and rules.minimum_seconds > 0:
        sentences.append("The minimum time is not asked of simulated participants.")
    if SYNTHETIC in included and rules.machine.signals:
        sentences.append("Simulated participants may act like programs.")
    return tuple(sentences)


def _reasons(people: pd.DataFrame, seconds: pd.Series, options: AnalysisOptions) -> pd.DataFrame:
    """Which of `REASONS` (columns) hold for whom (rows)."""
    rules, status = options.exclusions, people["status"]
    shortest = seconds.groupby(level=0).min().reindex(people.index)
    holds = {
        WITHDREW: status == "withdrawn",
        UNFINISHED: status.isin(["in_progress", "expired"]) & rules.unfinished,
        ATTENTION: ~people["attention_passed"].astype("boolean").fillna(True) & rules.attention,
        # no trial or no time known: NaN; a program needs no time to look, so that the rule would
        # leave out every simulated participant
        TOO_FAST: (shortest < rules.minimum_seconds) & (people["kind"] != SYNTHETIC),
    }
    return pd.DataFrame(holds, index=people.index).fillna(False).astype(bool)


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(key): int(count) for key, count in values.value_counts().sort_index().items()}
