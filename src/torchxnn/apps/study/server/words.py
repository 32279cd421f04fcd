"""What participants say that a network looks at: in their own words, then from a list."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, Response
from pydantic import Field

from torchxnn.apps.study.design import draw_order
from torchxnn.apps.study.server.batches import find_trial
from torchxnn.apps.study.server.forms import LONGEST_TEXT, Body, Text, too_long
from torchxnn.apps.study.server.session import Problem, Session, SessionOf
from torchxnn.apps.study.settings import PRACTICE
from torchxnn.apps.study.steps import words_step
from torchxnn.apps.study.store.participants import go_on

router = APIRouter(default_response_class=HTMLResponse)

Position = Annotated[int, Field(gt=PRACTICE, le=100)]

CANNOT_TELL = ""
"""What is kept of somebody who chooses no cue."""


class Words(Body):
    """What somebody says in their own words."""

    words: Text = ""


@router.get("/stage/{position}/words")
def _words(position: Position, session: SessionOf) -> Response:
    return _page(session, position)


def _page(session: Session, position: int, words: str = "", **values: Any) -> Response:
    values = {"error": None, **values, "words": words, "longest": LONGEST_TEXT}
    return session.page(words_step(position), "words.html", **values)


@router.post("/stage/{position}/words")
def _answer_words(
    position: Position, session: SessionOf, given: Annotated[Words, Form()]
) -> Response:
    session.check(given.csrf)
    if len(given.words) > LONGEST_TEXT:
        error = too_long(session.site.texts, given.words)
        return _page(session, position, given.words, error=error, status=422)
    site, said = session.site, {f"words/{position}": given.words}
    step, now = words_step(position), site.clock()
    moved = go_on(site.database, site.plan, session.participant, step, said, now)
    return session.address.go(moved.step)


def cue_options(session: Session, position: int) -> list[str]:
    """The cues of a batch in this participant's order; none in other tasks.

    The number of a cue is its place in the list, from 1; 0 stands for "I cannot tell".
    """
    plan = session.site.plan
    if plan.settings.task != "odd_cue":
        return []
    cue = plan.data_set(find_trial(session, position).data_set).cue
    options = () if cue is None else cue.options
    return draw_order(plan.settings, session.participant.number, -position, options)


def chosen_cue(options: list[str], number: int) -> str:
    """The text of a chosen cue, or `CANNOT_TELL`.

    Raises:
        Problem: there is no such cue.
    """
    if not 0 <= number <= len(options):
        raise Problem(422, "invalid")
    return options[number - 1] if number else CANNOT_TELL
