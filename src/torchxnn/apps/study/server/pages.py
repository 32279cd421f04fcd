"""The pages of a participant, in the order in which they come."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.session import (
    COOKIE,
    COOKIE_SECONDS,
    START_COOKIE,
    AnySession,
    Problem,
    Session,
    SessionOf,
    SiteOf,
    check_rate,
    same,
    set_cookie,
)
from torchxnn.apps.study.server.site import Site
from torchxnn.apps.study.settings import HARDEST, LIKERT, PRACTICE
from torchxnn.apps.study.steps import (
    ABOUT,
    DONE,
    INSTRUCTIONS,
    RATINGS,
    attention_position,
    confidence_step,
    count_trials,
    stage_step,
)
from torchxnn.apps.study.store.participants import Kind, begin, find_participant, forget, go_on
from torchxnn.apps.study.store.schema import NO_NUL

router = APIRouter(default_response_class=HTMLResponse)

QUESTIONS = ("age", "gender", "computer_science", "ai_courses")

Text = Annotated[str, Field(max_length=4000, pattern=NO_NUL)]
Word = Annotated[str, Field(max_length=100, pattern=NO_NUL)]
Parameter = Annotated[str, Field(max_length=200, pattern=NO_NUL)]
Point = Annotated[int, Field(ge=1, le=LIKERT)]
Position = Annotated[int, Field(ge=PRACTICE, le=100)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    csrf: Word = ""


class _About(_Body):
    age: Word = ""
    gender: Word = ""
    computer_science: Word = ""
    ai_courses: Word = ""


class _Confidence(_Body):
    confidence: Point | None = None
    attention: Point | None = None


class _Ratings(_Body):
    rating_one_heatmap: Point | None = None
    rating_xnn: Point | None = None
    difficulty: Annotated[int, Field(ge=0, le=HARDEST)] | None = None
    comments: Text = ""


def _go(path: str) -> RedirectResponse:
    return RedirectResponse(f"/{path}", status_code=303)


def _page(session: Session, step: str, template: str, **values: Any) -> Response:
    """The page of a step, or where to go instead if the participant is not at it."""
    at = session.participant.step
    if at != step:
        return _go(at)
    return session.site.page(template, session.participant, csrf=session.csrf, **values)


def _answered(session: Session, step: str, csrf: str, given: Mapping[str, Any]) -> RedirectResponse:
    """Keep what was given, and go on."""
    session.check(csrf)
    texts = {key: str(value) for key, value in given.items() if value not in (None, "")}
    site = session.site
    moved = go_on(site.database, site.plan, session.participant, step, texts, site.clock())
    return _go(moved.step)


# --- consent


@router.get("/")
def _consent(
    request: Request,
    site: SiteOf,
    session: AnySession,
    arm: Annotated[str | None, Query(max_length=40)] = None,
    pilot: Annotated[str, Query(max_length=5)] = "",
    synthetic: Annotated[str, Query(max_length=5)] = "",
) -> Response:
    if session is not None and session.participant.status != "withdrawn":
        return _go(session.participant.step)
    settings = site.plan.settings
    name = arm or settings.arms[0].name
    if name not in {each.name for each in settings.arms}:
        raise Problem(404, "not_found")
    hidden = {"arm": name, "kind": _kind(site, pilot, synthetic)}
    for parameter in settings.recruitment.parameters:
        value = request.query_params.get(parameter, "").replace("\x00", "")
        if value:
            hidden[f"p_{parameter}"] = value[:200]
    # it ties the consent form to the browser that it was shown in
    token = request.cookies.get(START_COOKIE) or secrets.token_urlsafe(18)
    page = site.page(
        "consent.html",
        consent_html=site.consent_html,
        start_url="/start",
        hidden=hidden,
        pilot=hidden["kind"] == "pilot",
        csrf=site.database.sign("start", token),
    )
    set_cookie(request, page, START_COOKIE, token, 24 * 3600)
    return page


def _kind(site: Site, pilot: str, synthetic: str) -> Kind:
    if synthetic not in ("", "0"):
        return "synthetic"
    return "pilot" if site.pilot or pilot not in ("", "0") else "participant"


def make_start(plan: StudyPlan) -> Any:
    """The handler of the consent form, for the parameters of this study."""
    recruitment = plan.settings.recruitment
    fields: dict[str, Any] = {f"p_{name}": (Parameter, "") for name in recruitment.parameters}
    body = create_model(
        "Consent",
        __base__=_Body,
        arm=(Annotated[str, Field(max_length=40)], plan.settings.arms[0].name),
        kind=(Kind, "participant"),
        agree=(Annotated[str, Field(max_length=10)], ""),
        **fields,
    )

    def start(request: Request, site: SiteOf, sent: Any) -> Response:
        token = request.cookies.get(START_COOKIE) or ""
        if not token or not same(sent.csrf, site.database.sign("start", token)):
            raise Problem(403, "forged")
        if sent.arm not in {arm.name for arm in plan.settings.arms}:
            raise Problem(404, "not_found")
        if sent.agree != "yes":
            raise Problem(422, "no_consent")
        check_rate(site.starts.wait("all"))
        parameters = {name: getattr(sent, f"p_{name}") for name in recruitment.parameters}
        parameters = {name: value for name, value in parameters.items() if value}
        person = parameters.get(recruitment.parameters[0]) if recruitment.parameters else None
        kind: Kind = "pilot" if site.pilot and sent.kind == "participant" else sent.kind
        told: dict[str, Any] = {"kind": kind, "parameters": parameters, "person": person}
        participant, secret = begin(site.database, plan, sent.arm, site.clock(), **told)
        response = _go(participant.step)
        set_cookie(request, response, COOKIE, secret, COOKIE_SECONDS)
        return response

    start.__annotations__["sent"] = Annotated[body, Form()]
    return start


@router.get("/resume/{token}")
def _resume(token: str, request: Request, site: SiteOf) -> Response:
    check_rate(site.logins.wait("resume"))
    participant = find_participant(site.database, token) if len(token) <= 100 else None
    if participant is None:
        raise Problem(404, "not_found")
    response = _go(participant.step)
    set_cookie(request, response, COOKIE, token, COOKIE_SECONDS)
    return response


@router.get("/next")
def _next(session: SessionOf) -> Response:
    return _go(session.participant.step)


# --- before the batches


@router.get("/about-you")
def _about(session: SessionOf) -> Response:
    return _page(session, ABOUT, "about.html", questions=QUESTIONS, error=None)


@router.post("/about-you")
def _answer_about(session: SessionOf, given: Annotated[_About, Form()]) -> Response:
    answers = given.model_dump(include=set(QUESTIONS))
    for name, value in answers.items():
        question = session.site.texts["about"]["questions"][name]
        if value and value not in {option["value"] for option in question["options"]}:
            raise Problem(422, "invalid")
    return _answered(session, ABOUT, given.csrf, answers)


@router.get("/instructions")
def _instructions(request: Request, session: SessionOf) -> Response:
    plan = session.site.plan
    arm = plan.settings.arm(session.participant.arm)
    return _page(
        session,
        INSTRUCTIONS,
        "instructions.html",
        stages=arm.all_stages,
        groups=plan.groups,
        images=plan.settings.images_per_set,
        trials=count_trials(plan, arm.name),
        resume_url=f"{request.base_url}resume/{quote(session.token)}",
    )


@router.post("/instructions")
def _answer_instructions(session: SessionOf, given: Annotated[_Body, Form()]) -> Response:
    return _answered(session, INSTRUCTIONS, given.csrf, {})


# --- batches


@router.get("/stage/{position}")
def _stage(position: Position, session: SessionOf) -> Response:
    last = count_trials(session.site.plan, session.participant.arm)
    values = {"position": position, "last": last, "practice": position == PRACTICE}
    return _page(session, stage_step(position), "stage.html", **values)


@router.get("/stage/{position}/confidence")
def _confidence(position: Position, session: SessionOf) -> Response:
    return _confidence_page(session, position)


def _confidence_page(session: Session, position: int, **values: Any) -> Response:
    values = {"attention": _is_checked(session, position), "error": None} | values
    return _page(session, confidence_step(position), "confidence.html", **values)


def _is_checked(session: Session, position: int) -> bool:
    """Whether attention is checked after a batch."""
    return position == attention_position(session.site.plan, session.participant.arm)


@router.post("/stage/{position}/confidence")
def _answer_confidence(
    position: Position, session: SessionOf, given: Annotated[_Confidence, Form()]
) -> Response:
    checked = _is_checked(session, position)
    if given.confidence is None or (checked and given.attention is None):
        missing = session.site.texts["confidence"]["missing"]
        return _confidence_page(session, position, error=missing, status=422)
    answers = {f"confidence/{position}": given.confidence}
    if checked and given.attention is not None:
        answers["attention"] = given.attention
    return _answered(session, confidence_step(position), given.csrf, answers)


# --- after the batches


@router.get("/ratings")
def _ratings(session: SessionOf) -> Response:
    return _ratings_page(session, _Ratings())


def _rated(session: Session) -> list[str]:
    """Names of the questions on the agents that this participant has met."""
    stages = session.site.plan.settings.arm(session.participant.arm).stages
    names = {"1-Heatmap": "rating_one_heatmap", "XNN": "rating_xnn"}
    return [name for stage, name in names.items() if stage in stages]


def _ratings_page(
    session: Session, given: _Ratings, error: str | None = None, status: int = 200
) -> Response:
    values = {"agents": _rated(session), "hardest": HARDEST, "values": given.model_dump()}
    return _page(session, RATINGS, "ratings.html", status=status, error=error, **values)


@router.post("/ratings")
def _answer_ratings(session: SessionOf, given: Annotated[_Ratings, Form()]) -> Response:
    needed = [*_rated(session), "difficulty"]
    if any(getattr(given, name) is None for name in needed):
        return _ratings_page(session, given, session.site.texts["ratings"]["missing"], 422)
    answers = {name: getattr(given, name) for name in [*needed, "comments"]}
    return _answered(session, RATINGS, given.csrf, answers)


@router.get("/done")
def _done(session: SessionOf) -> Response:
    code, settings = session.participant.code or "", session.site.plan.settings
    url = settings.recruitment.completion_url
    address = url and url.replace("{code}", quote(code))
    return _page(session, DONE, "done.html", code=code, completion_url=address)


# --- leaving


@router.get("/delete")
def _delete(session: SessionOf) -> Response:
    return session.site.page("delete.html", session.participant, csrf=session.csrf)


@router.post("/delete")
def _answer_delete(session: SessionOf, given: Annotated[_Body, Form()]) -> Response:
    session.check(given.csrf)
    forget(session.site.database, session.participant)
    response = _go("left")
    response.delete_cookie(COOKIE)
    return response


@router.get("/left")
def _left(site: SiteOf) -> Response:
    return site.page("left.html")
