"""How participants come in: by the link of their invitation, the consent form, a personal link."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import Field, create_model

from torchxnn.apps.address import Address, AddressOf
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.forms import Body, Word
from torchxnn.apps.study.server.links import (
    LONGEST,
    Link,
    come_back,
    is_counted,
    is_same,
    make_token,
    read_link,
)
from torchxnn.apps.study.server.session import (
    COOKIE,
    COOKIE_SECONDS,
    START_COOKIE,
    AnySession,
    Problem,
    SiteOf,
    check_rate,
)
from torchxnn.apps.study.server.site import Site
from torchxnn.apps.study.steps import DONE, UNFINISHED
from torchxnn.apps.study.store.participants import Kind, Participant, begin, find_participant
from torchxnn.apps.study.store.places import is_full
from torchxnn.apps.study.store.schema import NO_NUL
from torchxnn.apps.web import same_secret

router = APIRouter(default_response_class=HTMLResponse)

Parameter = Annotated[str, Field(max_length=LONGEST, pattern=NO_NUL)]


@router.get("/")
def _consent(
    request: Request,
    site: SiteOf,
    address: AddressOf,
    session: AnySession,
    arm: Annotated[str | None, Query(max_length=40)] = None,
    pilot: Annotated[str, Query(max_length=5)] = "",
    synthetic: Annotated[str, Query(max_length=5)] = "",
    new: Annotated[str, Query(max_length=5)] = "",
) -> Response:
    link = read_link(site, _kind(site, pilot, synthetic), request.query_params)
    counted = is_counted(site, request.query_params)
    if session is not None and is_same(session.participant, link, new not in ("", "0")):
        return session.go() if session.is_late else address.go(_again(session.participant, counted))
    back = come_back(site, link, link.token)
    if back is not None and link.token is not None:
        return _enter(site, address, _again(back, counted), link.token)
    settings = site.plan.settings
    browser = request.cookies.get(site.cookie(START_COOKIE)) or secrets.token_urlsafe(18)
    name = arm or _allocate(site, link, browser)
    if name not in {each.name for each in settings.arms}:
        raise Problem(404, "not_found")
    if is_full(site.database, site.plan, name, link.kind, site.clock()):
        raise Problem(409, "full")  # before anybody reads what they agree to
    return _ask_for_consent(browser, site, address, name, link, counted)


def _again(participant: Participant, counted: bool) -> str:
    """Where somebody is led to who comes by the link of the invitation once more.

    `counted` says whether the recruiter takes them for finished.
    """
    if participant.step == DONE:
        return f"{DONE}?stay=1"
    return UNFINISHED if counted else participant.step


def _allocate(site: Site, link: Link, browser: str) -> str:
    """The arm of somebody whose link names none: the first, or one drawn of those with places.

    The draw is the person's, or the browser's if the link names nobody: coming again changes it
    only if the arm has become full.
    """
    settings, now = site.plan.settings, site.clock()
    names = [arm.name for arm in settings.arms]
    if settings.allocation == "first":
        return names[0]
    free = [name for name in names if not is_full(site.database, site.plan, name, link.kind, now)]
    who = link.person or browser
    return min(free or names, key=lambda name: site.database.sign("arm", f"{name}/{who}"))


def _ask_for_consent(
    browser: str, site: Site, address: Address, arm: str, link: Link, counted: bool
) -> Response:
    """The form of whoever comes by a link, tied to the browser that it is shown in."""
    hidden = {"arm": arm, "kind": link.kind, "form": secrets.token_hex(8)}
    hidden |= {f"p_{name}": value for name, value in link.parameters.items()}
    page = site.page(
        "consent.html",
        address,
        consent_html=site.consent_html(arm),
        hidden=hidden,
        pilot=link.kind == "pilot",
        counted=counted,
        csrf=site.database.sign("start", browser),
    )
    address.set_cookie(page, site.cookie(START_COOKIE), browser, 24 * 3600)
    return page


def _enter(site: Site, address: Address, step: str, token: str) -> Response:
    """Let the browser be a participant's, and lead to a page."""
    response = address.go(step)
    address.set_cookie(response, site.cookie(COOKIE), token, COOKIE_SECONDS)
    return response


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
        __base__=Body,
        arm=(Annotated[str, Field(max_length=40)], plan.settings.arms[0].name),
        kind=(Kind, "participant"),
        agree=(Annotated[str, Field(max_length=10)], ""),
        form=(Word, ""),
        **fields,
    )

    def start(request: Request, site: SiteOf, address: AddressOf, sent: Any) -> Response:
        browser = request.cookies.get(site.cookie(START_COOKIE)) or ""
        if not browser or not same_secret(sent.csrf, site.database.sign("start", browser)):
            raise Problem(403, "forged")
        if sent.arm not in {arm.name for arm in plan.settings.arms}:
            raise Problem(404, "not_found")
        if sent.agree != "yes":
            raise Problem(422, "no_consent")
        check_rate(site.starts.wait("all"))
        given = {name: getattr(sent, f"p_{name}") for name in recruitment.parameters}
        kind: Kind = "pilot" if site.pilot and sent.kind == "participant" else sent.kind
        link = read_link(site, kind, given)
        # a form that is sent twice, say after going back, begins nothing anew
        token = link.token or make_token(site, "form", browser, sent.form, link.person or "")
        participant = come_back(site, link, token) or _begin(site, sent.arm, link, token)
        return _enter(site, address, participant.step, token)

    start.__annotations__["sent"] = Annotated[body, Form()]
    return start


def _begin(site: Site, arm: str, link: Link, token: str) -> Participant:
    told: dict[str, Any] = {"kind": link.kind, "parameters": link.parameters}
    told |= {"person": link.identifier, "token": token, "told_all": site.says_all}
    return begin(site.database, site.plan, arm, site.clock(), **told)[0]


@router.get("/resume/{token}")
def _resume(token: str, site: SiteOf, address: AddressOf) -> Response:
    check_rate(site.logins.wait("resume"))
    participant = find_participant(site.database, token) if len(token) <= 100 else None
    if participant is None:
        raise Problem(404, "not_found")
    return _enter(site, address, participant.step, token)
