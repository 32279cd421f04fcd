"""What the researcher's page says: who is where, what is left, and what it costs.

It is made of numbers of participants, their pages and times; nothing of a link, and no answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from torchxnn.apps.study.design import all_cells, draw_cell
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import Arm
from torchxnn.apps.study.steps import steps_of
from torchxnn.apps.study.store.places import silent_since

HERE_SECONDS = 300.0
"""Whoever was seen within this time counts as being here."""

Row = Any
"""A row of `list_participants`."""


Cell = tuple[str, int | None, int, int]
"""Label, people wanted (None without a limit), finished and in progress."""


@dataclass(frozen=True)
class Costs:
    """Money, with the recruiter's fee: for those who finished, are on their way, are to come."""

    finished: str
    on_the_way: str
    to_come: str
    total: str


@dataclass(frozen=True)
class ArmNow:
    """How an arm stands; proper participants alone.

    Attributes:
        name: of the arm.
        counts: people by what the texts call them under `admin.states`.
        left: who can still come; None if the arm has no limit.
        beyond: how many more than the arm wants hold a place.
        pages: of those in progress, people by page, in the order of the pages.
        cells: of the design.
        minutes: median of those who finished; None for nobody.
        costs: see `Costs`; None if the study does not say what a participant costs.
    """

    name: str
    counts: dict[str, int]
    left: int | None
    beyond: int
    pages: list[tuple[str, int]]
    cells: list[Cell]
    minutes: int | None
    costs: Costs | None


def arms_now(plan: StudyPlan, rows: Sequence[Row], now: float) -> list[ArmNow]:
    """How every arm stands."""
    proper = [row for row in rows if row.kind == "participant"]
    arms = plan.settings.arms
    return [_arm(plan, arm, [row for row in proper if row.arm == arm.name], now) for arm in arms]


def _arm(plan: StudyPlan, arm: Arm, rows: Sequence[Row], now: float) -> ArmNow:
    finished = [row for row in rows if row.status == "finished"]
    active = [row for row in rows if row.status == "in_progress"]
    silent = sum(row.seen_at < silent_since(plan, now) for row in active)
    held = len(finished) + len(active)
    left = None if arm.participants is None else max(0, arm.participants - held + silent)
    steps = Counter(row.step for row in active)
    times = [(row.finished_at - row.consented_at) / 60 for row in finished]
    return ArmNow(
        name=arm.name,
        counts=_states(plan, rows, now),
        left=left,
        beyond=0 if arm.participants is None else max(0, held - arm.participants),
        pages=[(step, steps[step]) for step in steps_of(plan, arm.name) if steps[step]],
        cells=_cells(plan, arm, rows),
        minutes=round(median(times)) if times else None,
        costs=_costs(plan, len(finished), len(active) - silent, left),
    )


def _states(plan: StudyPlan, rows: Sequence[Row], now: float) -> dict[str, int]:
    failed = plan.settings.recruitment.failed_check_code
    active = [row for row in rows if row.status == "in_progress"]
    here = sum(now - row.seen_at < HERE_SECONDS for row in active)
    silent = sum(row.seen_at < silent_since(plan, now) for row in active)
    status = Counter(row.status for row in rows)
    came_back = sum(row.expired_at is not None and row.status != "expired" for row in rows)
    return {
        "finished": status["finished"],
        "failed_check": sum(failed is not None and row.code == failed for row in rows),
        "here": here,
        "away": len(active) - here - silent,
        "silent": silent,
        "expired": status["expired"],
        "came_back": came_back,
        "withdrawn": status["withdrawn"],
    }


def _cells(plan: StudyPlan, arm: Arm, rows: Sequence[Row]) -> list[Cell]:
    settings, keys = plan.settings, [data.key for data in plan.data_sets]

    def label(place: int) -> str:
        return draw_cell(settings, arm, keys, place).label

    wanted = Counter(map(label, range(arm.participants or 0)))
    found = Counter((label(row.place), row.status) for row in rows)
    return [
        (
            cell.label,
            None if arm.participants is None else wanted[cell.label],
            found[cell.label, "finished"],
            found[cell.label, "in_progress"],
        )
        for cell in all_cells(arm, keys, settings.between)
    ]


def _costs(plan: StudyPlan, finished: int, active: int, left: int | None) -> Costs | None:
    pay = plan.settings.recruitment.pay
    if pay is None:
        return None
    each = pay.amount * (1 + pay.fee)

    def money(people: int) -> str:
        return f"{people * each:,.2f} {pay.currency}".strip()

    to_come = left or 0
    return Costs(money(finished), money(active), money(to_come), money(finished + active + to_come))


def people_now(plan: StudyPlan, rows: Sequence[Row], now: float, most: int) -> list[dict[str, Any]]:
    """The last ones to come, newest first: where they are, since when, and when they were seen."""
    found = []
    for row in rows[:most]:
        pages = steps_of(plan, row.arm)
        end = row.finished_at or now
        found.append(
            {
                **row._mapping,
                "page": f"{pages.index(row.step) + 1}/{len(pages)} {row.step}",
                "minutes": round((end - row.consented_at) / 60),
                "minutes_ago": round((now - row.seen_at) / 60),
            }
        )
    return found
