"""Batches: what is placed where, and everything that was done on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.recorded import PATH, SIZES, TRUSTED, is_path, size_of
from torchxnn.apps.study.settings import Frozen
from torchxnn.apps.study.steps import stage_step
from torchxnn.apps.study.store.database import Database
from torchxnn.apps.study.store.participants import Participant, RefusedError, advance, lock_step
from torchxnn.apps.study.store.schema import NO_NUL, events, participants, placements, trials

EventType = Literal[
    "open", "loaded", "image_error", "move", "overlay", "all_overlays", "feature", "sort",
    "select", "compare", "compare_feature", "zoom", "visibility", "device", "phase", "focus",
]  # fmt: skip
Number = Annotated[float, Field(allow_inf_nan=False)]
Plain = bool | int | Number | Annotated[str, Field(max_length=60, pattern=NO_NUL)] | None
Name = Annotated[str, Field(max_length=20, pattern=NO_NUL)]


class Event(Frozen):
    """Something that a participant did on the page of a batch, as the browser sends it.

    Attributes:
        id: made by the browser; the same event sent twice is kept once.
        type: such as "move".
        image: id of the picture, if it was about one.
        value: what exactly.
        client_ms: milliseconds since the page was opened, sent as "ms".
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    type: EventType
    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{4,40}$")] | None = None
    value: Annotated[dict[Name, Plain], Field(max_length=8)] = Field(default_factory=dict)
    client_ms: Annotated[float, Field(alias="ms", ge=0, le=1e10, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _check(self) -> Event:
        if self.type == "move":
            group = self.value.get("group")
            if self.image is None or (
                group is not None and (isinstance(group, bool) or not isinstance(group, int))
            ):
                raise ValueError("a move needs an image and a group, or null to take it back")
            if not {*PATH, TRUSTED}.isdisjoint(self.value) and not is_path(self.value):
                raise ValueError("a move's travel, direct and samples are numbers from 0")
            if not isinstance(self.value.get(TRUSTED, True), bool):
                raise ValueError("trusted is true or false")
        if self.type == "device" and any(size_of(self.value, name) is None for name in SIZES):
            raise ValueError("a device needs width and height in whole pixels")
        return self


def without_hand(given: Sequence[Event]) -> list[Event]:
    """Events without what says how the hand moved and whether the page was in front."""
    hand = {*PATH, TRUSTED}
    return [
        event.model_copy(
            update={"value": {name: v for name, v in event.value.items() if name not in hand}}
        )
        for event in given
        if event.type != "focus"
    ]


def read_trial(
    database: Database, participant: Participant, position: int, now: float
) -> dict[str, int]:
    """Groups (from 1) of the images that have one; the first call notes that the batch began.

    Raises:
        RefusedError: "elsewhere", as the participant is at another page, the step `next`.
    """
    number = participant.number
    with _at(database, participant, position, now) as connection:
        known = connection.scalar(
            select(trials.c.position).where(_of(trials, participant, position))
        )
        if known is None:
            connection.execute(
                insert(trials).values(number=number, position=position, started_at=now)
            )
        return _groups(connection, participant, position)


def save_events(
    database: Database, participant: Participant, position: int, new: Sequence[Event], now: float
) -> None:
    """Keep events in their order; a move also places its picture.

    Events that are known already, by id, change nothing.

    Raises:
        RefusedError: "elsewhere", as the participant is at another page, the step `next`.
    """
    number = participant.number
    with _at(database, participant, position, now) as connection:
        known = set(
            connection.scalars(
                select(events.c.id).where(
                    events.c.number == number, events.c.id.in_([event.id for event in new])
                )
            )
        )
        last = connection.scalar(
            select(func.max(events.c.sequence)).where(events.c.number == number)
        )
        fresh = {event.id: event for event in new if event.id not in known}
        rows = [
            {
                **event.model_dump(),
                "number": number,
                "sequence": (last or 0) + place,
                "position": position,
                "at": now,
            }
            for place, event in enumerate(fresh.values(), start=1)
        ]
        if rows:
            connection.execute(insert(events), rows)
        for event in fresh.values():
            if event.type == "move" and event.image is not None:
                _place(connection, participant, position, event, now)


def submit_trial(
    database: Database,
    plan: StudyPlan,
    participant: Participant,
    position: int,
    images: Sequence[str],
    now: float,
) -> str:
    """Close a batch whose pictures, named by `images`, are all placed.

    Returns:
        The next page.

    Raises:
        RefusedError: "elsewhere", or "unplaced", as some pictures have no group: their ids.
    """
    with _at(database, participant, position, now) as connection:
        groups = _groups(connection, participant, position)
        missing = [image for image in images if image not in groups]
        if missing:
            raise RefusedError("unplaced", unplaced=missing)
        connection.execute(
            update(trials).where(_of(trials, participant, position)).values(submitted_at=now)
        )
        return advance(connection, plan, participant, stage_step(position), now)


@contextmanager
def _at(
    database: Database, participant: Participant, position: int, now: float
) -> Iterator[Connection]:
    """A transaction for somebody at a batch."""
    number = participants.c.number == participant.number
    with database.writing() as connection:
        if not lock_step(connection, participant.number, stage_step(position)):
            raise RefusedError("elsewhere", next=participant.step)
        yield connection
        connection.execute(
            update(participants)
            .where(number, participants.c.status != "finished")
            .values(seen_at=now)
        )


def _of(table: Any, participant: Participant, position: int) -> Any:
    return and_(table.c.number == participant.number, table.c.position == position)


def _groups(connection: Connection, participant: Participant, position: int) -> dict[str, int]:
    found = connection.execute(
        select(placements.c.image, placements.c.in_group).where(
            _of(placements, participant, position)
        )
    )
    return {row.image: row.in_group for row in found}


def _place(
    connection: Connection, participant: Participant, position: int, event: Event, now: float
) -> None:
    """Put a picture into a group, or back: the last move counts."""
    connection.execute(
        delete(placements).where(
            _of(placements, participant, position), placements.c.image == event.image
        )
    )
    group = event.value.get("group")
    if group is not None:
        connection.execute(
            insert(placements).values(
                number=participant.number,
                position=position,
                image=event.image,
                in_group=group,
                at=now,
            )
        )
