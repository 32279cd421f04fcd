"""Participants: who comes, where they are, and how they leave."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select, update

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import ATTENTION, ATTENTION_ANSWER
from torchxnn.apps.study.steps import DONE, next_step, steps_of
from torchxnn.apps.study.store.database import Database
from torchxnn.apps.study.store.places import expire, find_place, lock_beginners
from torchxnn.apps.study.store.schema import answers, events, participants, placements, trials

Kind = Literal["participant", "pilot", "synthetic"]
"""Who is behind a participant; analyses keep them apart."""


@dataclass(frozen=True)
class Participant:
    """A participant as the server needs it.

    Attributes:
        number: from 1, never given twice.
        arm: name.
        place: in the design, from 0.
        kind: see `Kind`.
        status: "in_progress", "finished", "expired" or "withdrawn".
        step: the page where they are.
        code: completion code, once finished.
        person: keyed hash of the recruiter's identifier; None without one.
        told_all: whether the text that they consented to listed all that can be kept; None if that
            is not known.
    """

    number: int
    arm: str
    place: int
    kind: Kind
    status: str
    step: str
    code: str | None
    person: str | None
    told_all: bool | None


_COLUMNS = tuple(participants.c[field.name] for field in fields(Participant))


class RefusedError(Exception):
    """What was asked does not fit to where things stand.

    Attributes:
        key: of the text, under `message` in the language file.
        extra: further values of a JSON answer.
        status: of the answer.
        headers: of the answer.
    """

    status: int = 409
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, key: str, **extra: Any) -> None:
        super().__init__(key)
        self.key, self.extra = key, extra


def hash_token(token: str) -> str:
    """What is stored of a cookie: a stolen database opens no session."""
    return hashlib.sha256(token.encode()).hexdigest()


def fold(identifier: str) -> str:
    """An identifier without what a person may write in another way: case, and spaces around."""
    return " ".join(identifier.split()).casefold()


def sign_person(database: Database, kind: Kind, identifier: str) -> str:
    """What is stored of a recruiter's identifier: a hash that only this study's server can make."""
    return database.sign(kind, fold(identifier))


def begin(
    database: Database,
    plan: StudyPlan,
    arm: str,
    now: float,
    *,
    kind: Kind = "participant",
    parameters: Mapping[str, str] = MappingProxyType({}),
    person: str | None = None,
    token: str | None = None,
    told_all: bool = False,
) -> tuple[Participant, str]:
    """Enter somebody who gave consent, and give them a place in the design.

    The place is the lowest one that nobody of the same arm and kind holds: places of people who
    withdrew or were silent for too long are free again. Pilots and synthetic participants have
    places of their own, so that they leave no gaps. `parameters` are those of recruitment in the
    URL; `person` is the recruiter's identifier of the person, if there is one. Who begins with a
    `token` that is known has sent the consent form twice, and is the participant of the first time.
    `told_all` is kept with them: see `Participant`.

    Returns:
        The participant and the token for the cookie, a random one if none was given; only its
        hash is kept.

    Raises:
        RefusedError: "already_started", as this person is known, in whatever arm; or "full", as the
            arm has as many participants as it wants.
    """
    token = token or secrets.token_urlsafe(24)
    if person is not None:
        person = sign_person(database, kind, person)
    with database.writing() as connection:
        lock_beginners(connection)
        known = _find(connection, token)
        if known is not None:
            return known, token
        if person and connection.scalar(
            select(participants.c.number).where(participants.c.person == person)
        ):
            raise RefusedError("already_started")
        expire(connection, plan, now)
        place = find_place(connection, plan, arm, kind)
        if place is None:
            raise RefusedError("full")
        row = connection.execute(
            insert(participants)
            .values(
                arm=arm,
                place=place,
                kind=kind,
                status="in_progress",
                step=steps_of(plan, arm)[0],
                token=hash_token(token),
                person=person,
                parameters=dict(parameters),
                language=plan.settings.language,
                consent_version=plan.settings.consent_version,
                consented_at=now,
                told_all=told_all,
                seen_at=now,
            )
            .returning(*_COLUMNS)
        ).one()
    return Participant(*row), token


def find_participant(database: Database, token: str) -> Participant | None:
    """Whose cookie this is; None for nobody's."""
    with database.reading() as connection:
        return _find(connection, token)


def is_known(database: Database, person: str) -> bool:
    """Whether somebody of this keyed hash has begun, in whatever arm; also if they have left."""
    query = select(participants.c.number).where(participants.c.person == person)
    with database.reading() as connection:
        return connection.scalar(query) is not None


def _find(connection: Connection, token: str) -> Participant | None:
    query = select(*_COLUMNS).where(participants.c.token == hash_token(token))
    row = connection.execute(query).one_or_none()
    return None if row is None else Participant(*row)


def go_on(
    database: Database,
    plan: StudyPlan,
    participant: Participant,
    step: str,
    given: Mapping[str, str],
    now: float,
) -> Participant:
    """Keep the answers `given` on the page `step`, by question, and move to the next page.

    If the participant is not at that page any more (a second tab, a request sent twice), nothing
    changes.
    """
    with database.writing() as connection:
        if not lock_step(connection, participant.number, step):
            return _read(connection, participant.number)
        own = answers.c.number == participant.number
        connection.execute(delete(answers).where(own, answers.c.question.in_(list(given))))
        rows = [
            {"number": participant.number, "question": question, "value": value, "at": now}
            for question, value in given.items()
        ]
        if rows:
            connection.execute(insert(answers), rows)
        advance(connection, plan, participant, step, now)
        return _read(connection, participant.number)


def lock_step(connection: Connection, number: int, step: str) -> bool:
    """Whether the participant is at a page; until the transaction ends nobody else moves them."""
    found = connection.scalar(
        select(participants.c.step)
        .where(participants.c.number == number, participants.c.status != "withdrawn")
        .with_for_update()
    )
    return found == step


def advance(
    connection: Connection, plan: StudyPlan, participant: Participant, step: str, now: float
) -> str:
    """Move a participant to the page after `step`; at the last one they have finished."""
    new = next_step(steps_of(plan, participant.arm), step)
    values: dict[str, object] = {"step": new, "seen_at": now}
    if new == DONE:
        code = _code(connection, plan, participant.number)
        values |= {"status": "finished", "finished_at": now, "code": code}
    connection.execute(
        update(participants).where(participants.c.number == participant.number).values(values)
    )
    return new


def _code(connection: Connection, plan: StudyPlan, number: int) -> str:
    """What somebody who has finished shows the recruiter."""
    recruitment = plan.settings.recruitment
    own = answers.c.number == number, answers.c.question == ATTENTION
    answer = connection.scalar(select(answers.c.value).where(*own))
    if recruitment.failed_check_code and answer not in (None, str(ATTENTION_ANSWER)):
        return recruitment.failed_check_code
    return recruitment.completion_code or secrets.token_hex(4).upper()


def forget(database: Database, plan: StudyPlan, participant: Participant) -> None:
    """Delete all that somebody answered, and what could tell who it was; see `erase`."""
    with database.writing() as connection:
        erase(connection, plan, participant.arm, participant.number)


def erase(connection: Connection, plan: StudyPlan, arm: str, number: int) -> None:
    """Leave of somebody of an arm that they agreed and withdrew, not how far they came, nor when.

    What stays is number, arm, place and kind, language and version of the consent text, when they
    agreed to it, and the keyed hash of the recruiter's identifier, so that nobody starts twice.
    """
    for table in (answers, trials, placements, events):
        connection.execute(delete(table).where(table.c.number == number))
    gone = dict.fromkeys(("token", "code", "told_all", "finished_at", "expired_at"))
    connection.execute(
        update(participants)
        .where(participants.c.number == number)
        .values(
            status="withdrawn",
            parameters={},
            step=steps_of(plan, arm)[0],
            seen_at=participants.c.consented_at,
            **gone,
        )
    )


def list_participants(database: Database) -> list[Any]:
    """What the researcher sees of everybody, newest first: no answers, and nothing of the link."""
    c = participants.c
    query = select(
        c.number, c.arm, c.kind, c.status, c.step, c.place, c.code,
        c.consented_at, c.seen_at, c.finished_at, c.expired_at,
    )  # fmt: skip
    with database.reading() as connection:
        return list(connection.execute(query.order_by(c.number.desc())))


def _read(connection: Connection, number: int) -> Participant:
    query = select(*_COLUMNS).where(participants.c.number == number)
    return Participant(*connection.execute(query).one())
