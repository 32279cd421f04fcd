"""Places in the design: who holds one, who gives it back, and who comes back for it.

Participants in progress and finished ones hold a place each, never more than their arm wants. Who
is silent for longer than `limits.expire_minutes` gives it back when the next one comes; what they
answered stays. If they come back they take a place up again, unless all are taken.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, or_, select, update

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import PRACTICE
from torchxnn.apps.study.store.database import Database
from torchxnn.apps.study.store.schema import participants, trials

HELD = ("in_progress", "finished")
"""Statuses of those who hold a place."""


def lock_beginners(connection: Connection) -> None:
    """Let nobody else take a place until the transaction ends."""
    if connection.dialect.name != "sqlite":  # SQLite has a single writer anyway
        connection.execute(select(func.pg_advisory_xact_lock(1)))


def silent_since(plan: StudyPlan, now: float) -> float:
    """Whoever was last seen before this has been silent for too long."""
    return now - 60 * plan.settings.limits.expire_minutes


def expire(connection: Connection, plan: StudyPlan, now: float) -> None:
    """Let all who have been silent for too long give their places back."""
    connection.execute(
        update(participants)
        .where(
            participants.c.status == "in_progress", participants.c.seen_at < silent_since(plan, now)
        )
        .values(status="expired", expired_at=now)
    )


def find_place(
    connection: Connection, plan: StudyPlan, arm: str, kind: str, wanted: int | None = None
) -> int | None:
    """The place `wanted` if nobody holds it, else the lowest that is free; None if all are taken.

    Two hold the same place after one came back late to finish what they had begun in it.
    """
    of = participants.c.arm == arm, participants.c.kind == kind, participants.c.status.in_(HELD)
    held = list(connection.scalars(select(participants.c.place).where(*of)))
    most = plan.settings.arm(arm).participants
    if kind == "participant" and most is not None and len(held) >= most:
        return None
    taken = set(held)
    if wanted is not None and wanted not in taken:
        return wanted
    return next(place for place in range(len(taken) + 1) if place not in taken)


def take_up(database: Database, plan: StudyPlan, number: int, now: float) -> None:
    """Let somebody who had given their place back go on, if a place is free.

    Who has seen a batch of the design stays with its place, even if somebody else has it by now.
    """
    own = participants.c.number == number
    with database.writing() as connection:
        lock_beginners(connection)
        expire(connection, plan, now)
        row = connection.execute(select(participants).where(own)).one()
        if row.status != "expired":
            return
        place = find_place(connection, plan, row.arm, row.kind, row.place)
        if place is None:
            return
        begun = select(trials.c.number).where(trials.c.number == number)
        if connection.scalar(begun.where(trials.c.position > PRACTICE)) is not None:
            place = row.place
        values = {"status": "in_progress", "seen_at": now, "place": place}
        connection.execute(update(participants).where(own).values(values))


def is_full(database: Database, plan: StudyPlan, arm: str, kind: str, now: float) -> bool:
    """Whether an arm has no place for one more, not even of somebody who has been silent."""
    most = plan.settings.arm(arm).participants
    if kind != "participant" or most is None:
        return False
    c = participants.c
    awake = c.seen_at >= silent_since(plan, now)
    holds = or_(c.status == "finished", (c.status == "in_progress") & awake)
    query = select(func.count()).where(c.arm == arm, c.kind == kind, holds)
    with database.reading() as connection:
        return (connection.scalar(query) or 0) >= most
