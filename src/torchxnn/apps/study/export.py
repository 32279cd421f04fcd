"""The answers as tidy tables, with a description of every column."""

from __future__ import annotations

import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import select

from torchxnn.apps.study.columns import COLUMNS, TYPES
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.recorded import size_of
from torchxnn.apps.study.settings import ATTENTION, ATTENTION_ANSWER, PRACTICE
from torchxnn.apps.study.steps import attention_position, trials_of
from torchxnn.apps.study.store.database import Database
from torchxnn.apps.study.store.schema import answers, events, participants, placements, trials
from torchxnn.storage.files import replace_file, without_formula

Tables = dict[str, pd.DataFrame]
"""Tables by name; see `COLUMNS`."""

Row = Any
"""A row of a query; its columns are those of the schema."""

Done = dict[int, dict[int, list[Row]]]
"""Events by participant and batch, in the order in which they came."""

IDLE_SECONDS = 60.0
"""Longest pause between two events that counts as active time."""

_TOGGLES = ("overlay", "all_overlays", "feature", "compare_feature")


def read_tables(database: Database, plan: StudyPlan) -> Tables:
    """All answers; synthetic and pilot participants are in it and marked."""
    rows = _read(database)
    given: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows["answers"]:
        given[row.number][row.question] = row.value
    done: Done = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows["events"], key=lambda row: (row.number, row.sequence)):
        done[row.number][row.position].append(row)
    people = {row.number: row for row in rows["participants"]}
    found = {
        "participants": [
            _participant(plan, row, given[row.number], chain(*done[row.number].values()))
            for row in people.values()
        ],
        "trials": [
            _trial(plan, people[row.number], row, given[row.number], done[row.number][row.position])
            for row in rows["trials"]
        ],
        "placements": _placements(plan, people, rows),
        "events": [
            {
                **row._mapping,
                "participant": row.number,
                "at": _time(row.at),
                "value": json.dumps(row.value, sort_keys=True),
            }
            for of in done.values()
            for row in chain(*of.values())
        ],
        "images": [
            {**image.model_dump(), "data_set": data.key, "image": image.id}
            for data in plan.data_sets
            for image in data.images
        ],
    }
    return {name: _frame(name, values) for name, values in found.items()}


def _read(database: Database) -> dict[str, list[Row]]:
    tables = (participants, answers, trials, placements, events)
    with database.snapshot() as connection:  # tables agree with each other
        return {
            table.name: list(connection.execute(select(table).order_by(*table.primary_key.columns)))
            for table in tables
        }


def _frame(name: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The documented columns and types, even of no rows; nothing else of a row gets out."""
    columns = COLUMNS[name]
    frame = pd.DataFrame.from_records(list(rows), columns=list(columns))
    return frame.astype({column: TYPES[kind] for column, (kind, _) in columns.items()})


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _participant(
    plan: StudyPlan, row: Row, given: Mapping[str, str], done: Iterable[Row]
) -> dict[str, Any]:
    own = list(done)
    device: Mapping[str, Any] = next((e.value for e in own if e.type == "device"), {})
    counts = count_hands(own).most_common()
    asked = attention_position(plan, row.arm) is not None
    attention = given.get(ATTENTION)
    return {
        **given,
        **row._mapping,
        "participant": row.number,
        "slot": row.place,
        "consented_at": _time(row.consented_at),
        "finished_at": _time(row.finished_at),
        "expired_at": _time(row.expired_at),
        "seconds": None if row.finished_at is None else row.finished_at - row.consented_at,
        "input": counts[0][0] if counts else None,
        "inputs": ", ".join(f"{hand} {count}" for hand, count in counts) or None,
        "screen_width": size_of(device, "width"),
        "screen_height": size_of(device, "height"),
        "attention_passed": int(attention) == ATTENTION_ANSWER if asked and attention else None,
        "parameters": json.dumps(row.parameters, sort_keys=True),
    }


def count_hands(own: Iterable[Any]) -> Counter[str]:
    """Moves by what they were made with; events are in their order.

    Events of earlier versions do not tell: then a drag or a tap is of a finger if the device that
    was in use has a coarse pointer.
    """
    counts: Counter[str] = Counter()
    pointer = "mouse"
    for event in own:
        if event.type == "device":
            pointer = "touch" if event.value.get("pointer") == "coarse" else "mouse"
        elif event.type == "move":
            guess = "keyboard" if event.value.get("how") == "keyboard" else pointer
            counts[str(event.value.get("by") or guess)] += 1
    return counts


def _about(plan: StudyPlan, person: Row, position: int) -> dict[str, Any]:
    """Which batch in which stage; the practice round has neither."""
    if position == PRACTICE:
        batch = {"data_set": "practice", "stage": "practice", "method": "none", "set": 0}
        batch["learned"] = 0
        shows = "none"
    else:
        trial = trials_of(plan, person.arm, person.place)[position - 1]
        batch, shows = vars(trial), plan.settings.arm(person.arm).shown(trial.stage)
    who = {"participant": person.number, "arm": person.arm, "kind": person.kind}
    return {**who, **batch, "shows": shows, "position": position}


def _trial(
    plan: StudyPlan, person: Row, row: Row, given: Mapping[str, str], own: Sequence[Row]
) -> dict[str, Any]:
    types = Counter(event.type for event in own)
    seconds = None if row.submitted_at is None else row.submitted_at - row.started_at
    about = _about(plan, person, row.position)
    return about | {
        "started_at": _time(row.started_at),
        "submitted_at": _time(row.submitted_at),
        "seconds": seconds,
        "active_seconds": active_seconds(own),
        "confidence": given.get(f"confidence/{row.position}"),
        **_cue(plan, row, given, own, about["data_set"]),
        "moves": types["move"],
        "toggles": sum(types[name] for name in _TOGGLES),
        "zooms": types["zoom"],
    }


def _cue(
    plan: StudyPlan, row: Row, given: Mapping[str, str], own: Iterable[Row], data_set: str
) -> dict[str, Any]:
    """What somebody took for the cue of a batch; nothing in other tasks and in practice."""
    if plan.settings.task != "odd_cue" or row.position == PRACTICE or row.submitted_at is None:
        return {}
    planted = plan.data_set(data_set).cue
    answered = f"confidence/{row.position}" in given
    chosen = given.get(f"cue/{row.position}")
    right = planted is not None and chosen == planted.right
    return {
        "seen": len({event.image for event in own if event.type == "move"}),
        "cue": chosen,
        "cue_right": right if answered else None,
        "words": given.get(f"words/{row.position}"),
    }


def active_seconds(own: Iterable[Any]) -> float:
    """Time that the page was visible and something happened at least every `IDLE_SECONDS`.

    Events, with `type`, `value` and `client_ms`, are those of one batch in their order; "open"
    begins a new page, whose clock starts anew.
    """
    total, before, visible = 0.0, None, True
    for event in own:
        if event.type == "open":
            before, visible = event.client_ms, True
            continue
        if before is not None and visible:
            total += min(IDLE_SECONDS, max(0.0, (event.client_ms - before) / 1000))
        if event.type == "visibility":
            visible = bool(event.value.get("visible"))
        before = event.client_ms
    return total


def _placements(
    plan: StudyPlan, people: Mapping[int, Row], rows: Mapping[str, list[Row]]
) -> list[dict[str, Any]]:
    submitted = {(t.number, t.position) for t in rows["trials"] if t.submitted_at is not None}
    known = {image.id: image for image in plan.images}
    found = []
    for row in rows["placements"]:
        if row.position == PRACTICE or (row.number, row.position) not in submitted:
            continue
        about = _about(plan, people[row.number], row.position)
        shown = known[row.image].model_dump(include={"predicted", "label"})
        found.append({**about, **shown, "image": row.image, "group": row.in_group})
    return found


# --- files


def dictionary() -> str:
    """The data dictionary, in Markdown."""
    lines = [
        "# Data dictionary",
        "",
        "One row per participant, per batch, per picture placed, per event, per picture of the "
        "study. Missing values are empty in CSV and null in JSON. Times are UTC. In CSV a text "
        "that a spreadsheet would run as a formula has an apostrophe before it; Parquet and JSON "
        "hold texts as they were written.",
    ]
    for name, columns in COLUMNS.items():
        lines += ["", f"## {name}", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| {column} | {kind} | {text} |" for column, (kind, text) in columns.items()]
    return "\n".join(lines) + "\n"


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Texts that a spreadsheet would run, say a comment that starts with "=", as plain texts."""
    texts = [name for name in table.columns if table[name].dtype.kind == "O"]
    return table.assign(
        **{str(name): table[name].map(without_formula, na_action="ignore") for name in texts}
    )


def render(tables: Tables) -> dict[str, bytes]:
    """File names and contents: CSV and JSON of every table, and the data dictionary."""
    found = {"dictionary.md": dictionary().encode()}
    for name, table in tables.items():
        found[f"{name}.csv"] = _without_formulas(table).to_csv(index=False).encode()
        found[f"{name}.json"] = table.to_json(
            orient="records", indent=1, force_ascii=False, double_precision=12
        ).encode()
    return found


def write_tables(tables: Tables, folder: Path) -> list[str]:
    """Write CSV, JSON, Parquet and the dictionary; returns the names of the files."""
    found = render(tables)
    for name, table in tables.items():
        stream = BytesIO()
        table.to_parquet(stream, index=False)
        found[f"{name}.parquet"] = stream.getvalue()
    for name, content in found.items():
        replace_file(folder / name, content)
    return sorted(found)


def write_archive(database: Database, plan: StudyPlan, path: Path) -> None:
    """The same as CSV and JSON in one ZIP file, for the dashboard."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in render(read_tables(database, plan)).items():
            archive.writestr(name, content)
