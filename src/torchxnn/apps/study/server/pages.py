"""The pages of a participant after the consent, in the order in which they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from torchxnn.apps.study.server.forms import (
    LONGEST_TEXT,
    About,
    Body,
    Confidence,
    Ratings,
    too_long,
)
from torchxnn.apps.study.server.session import Problem, Session, SessionOf
from torchxnn.apps.study.server.words import chosen_cue, cue_options
from torchxnn.apps.study.settings import ATTENTION, HARDEST, PRACTICE, Arm, Stage
from torchxnn.apps.study.steps import (
    ABOUT,
    INSTRUCTIONS,
    RATINGS,
    attention_position,
    confidence_step,
    count_trials,
    minutes_of,
    stage_step,
    stages_of,
)
from torchxnn.apps.study.store.participants import go_on

router = APIRouter(default_response_class=HTMLResponse)

QUESTIONS = ("age", "gender", "computer_science", "ai_courses")

Position = Annotated[int, Field(ge=PRACTICE, le=100)]


def _answered(session: Session, step: str, csrf: str, given: Mapping[str, Any]) -> RedirectResponse:
    """Keep what was given, and go on."""
    session.check(csrf)
    texts = {key: str(value) for key, value in given.items() if value not in (None, "")}
    site = session.site
    moved = go_on(site.database, site.plan, session.participant, step, texts, site.clock())
    return session.address.go(moved.step)


@router.get("/next")
def _next(session: SessionOf) -> Response:
    return session.go()


# --- before the batches


@router.get("/about-you")
def _about(session: SessionOf) -> Response:
    return session.page(ABOUT, "about.html", questions=QUESTIONS, error=None)


@router.post("/about-you")
def _answer_about(session: SessionOf, given: Annotated[About, Form()]) -> Response:
    answers = given.model_dump(include=set(QUESTIONS))
    for name, value in answers.items():
        question = session.site.texts["about"]["questions"][name]
        if value and value not in {option["value"] for option in question["options"]}:
            raise Problem(422, "invalid")
    return _answered(session, ABOUT, given.csrf, answers)


@router.get("/instructions")
def _instructions(session: SessionOf) -> Response:
    plan = session.site.plan
    arm = plan.settings.arm(session.participant.arm)
    between, words = plan.settings.between, session.site.texts["instructions"]
    names = _stages(session) if between else _introduced(arm)
    return session.page(
        INSTRUCTIONS,
        "instructions.html",
        stages=[words["stages"][name] for name in names],
        how=[words[name] for name in (["how"] if between else ["mouse", "touch", "keyboard"])],
        groups=plan.groups,
        images=plan.settings.images_per_set,
        trials=count_trials(plan, arm.name),
        minutes=minutes_of(plan, arm.name),
        site=session.address.whole(""),
        personal=f"resume/{quote(session.token)}",
    )


def _introduced(arm: Arm) -> list[str]:
    """Stages of an arm as the instructions call what they show."""
    other = arm.shows != "both"
    return [f"XNN_{arm.shows}" if other and stage == "XNN" else stage for stage in arm.all_stages]


@router.post("/instructions")
def _answer_instructions(session: SessionOf, given: Annotated[Body, Form()]) -> Response:
    return _answered(session, INSTRUCTIONS, given.csrf, {})


# --- batches


@router.get("/stage/{position}")
def _stage(position: Position, session: SessionOf) -> Response:
    last = count_trials(session.site.plan, session.participant.arm)
    values = {"position": position, "last": last, "practice": position == PRACTICE}
    settings = session.site.plan.settings
    template = "answers.html" if settings.between else "stage.html"
    return session.page(stage_step(position), template, task=settings.task, **values)


@router.get("/stage/{position}/confidence")
def _confidence(position: Position, session: SessionOf) -> Response:
    return _confidence_page(session, position)


def _confidence_page(session: Session, position: int, **values: Any) -> Response:
    cues = cue_options(session, position)
    values = {
        "attention": _is_checked(session, position),
        "cues": cues,
        "cue": None,
        "error": None,
    } | values
    return session.page(confidence_step(position), "confidence.html", **values)


def _is_checked(session: Session, position: int) -> bool:
    """Whether attention is checked after a batch."""
    return position == attention_position(session.site.plan, session.participant.arm)


@router.post("/stage/{position}/confidence")
def _answer_confidence(
    position: Position, session: SessionOf, given: Annotated[Confidence, Form()]
) -> Response:
    checked, cues = _is_checked(session, position), cue_options(session, position)
    unanswered = (checked and given.attention is None) or (cues and given.cue is None)
    if given.confidence is None or unanswered:
        missing = session.site.texts["confidence"]["missing"]
        return _confidence_page(session, position, error=missing, status=422, cue=given.cue)
    answers: dict[str, Any] = {f"confidence/{position}": given.confidence}
    if cues:
        answers[f"cue/{position}"] = chosen_cue(cues, given.cue or 0)
    if checked and given.attention is not None:
        answers[ATTENTION] = given.attention
    return _answered(session, confidence_step(position), given.csrf, answers)


# --- after the batches


@router.get("/ratings")
def _ratings(session: SessionOf) -> Response:
    return _ratings_page(session, Ratings())


def _stages(session: Session) -> set[Stage]:
    """Stages that this participant meets."""
    who = session.participant
    return stages_of(session.site.plan, who.arm, who.place)


def _rated(session: Session) -> list[str]:
    """Names of the questions on the agents that this participant has met."""
    names = {"1-Heatmap": "rating_one_heatmap", "XNN": "rating_xnn"}
    return [name for stage, name in names.items() if stage in _stages(session)]


def _ratings_page(
    session: Session, given: Ratings, error: str | None = None, status: int = 200
) -> Response:
    values = {
        **{"agents": _rated(session), "hardest": HARDEST, "values": given.model_dump()},
        "hand": session.told_all,
        "longest": LONGEST_TEXT,
    }
    return session.page(RATINGS, "ratings.html", status=status, error=error, **values)


@router.post("/ratings")
def _answer_ratings(session: SessionOf, given: Annotated[Ratings, Form()]) -> Response:
    needed = [*_rated(session), "difficulty"]
    if any(getattr(given, name) is None for name in needed):
        return _ratings_page(session, given, session.site.texts["ratings"]["missing"], 422)
    if len(given.comments) > LONGEST_TEXT:
        error = too_long(session.site.texts, given.comments)
        return _ratings_page(session, given, error, 422)
    told = ["pasted"] if session.told_all else []
    answers = {name: getattr(given, name) for name in [*needed, "comments", *told]}
    return _answered(session, RATINGS, given.csrf, answers)
