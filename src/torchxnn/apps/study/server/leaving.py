"""How participants go: the last page, and leaving with all answers deleted."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, Response

from torchxnn.apps.address import Address, AddressOf
from torchxnn.apps.study.server.forms import Body
from torchxnn.apps.study.server.session import COOKIE, SessionOf, SiteOf
from torchxnn.apps.study.server.site import Site
from torchxnn.apps.study.steps import DONE, LATE, UNFINISHED, steps_of
from torchxnn.apps.study.store.participants import forget
from torchxnn.apps.web import same_secret

router = APIRouter(default_response_class=HTMLResponse)

RETURN_SECONDS = 10
"""Until the last page leads to the recruiter's by itself, unless somebody asks to stay."""

Stay = Annotated[str, Query(max_length=5)]


def _way_back(site: Site, code: str | None, stay: str) -> dict[str, Any]:
    """What a last page shows of the way to the recruiter: the code, the address, the seconds."""
    url = site.plan.settings.recruitment.completion_url
    back = url.replace("{code}", quote(code)) if url and code else None
    seconds = RETURN_SECONDS if back and not stay else 0
    return {"code": code, "back": back, "seconds": seconds}


@router.get("/done")
def _done(session: SessionOf, stay: Stay = "") -> Response:
    return session.page(
        DONE, "done.html", **_way_back(session.site, session.participant.code, stay)
    )


@router.get(f"/{UNFINISHED}")
def _unfinished(session: SessionOf) -> Response:
    """For those whom the recruiter takes for finished, and who are not."""
    participant = session.participant
    if participant.step == DONE or session.is_late:
        return session.go()
    pages = steps_of(session.site.plan, participant.arm)
    return session.show("unfinished.html", left=len(pages) - 1 - pages.index(participant.step))


@router.get(f"/{LATE}")
def _late(session: SessionOf) -> Response:
    """For those whose place was given away, and all others, too."""
    if not session.is_late:
        return session.go()
    minutes = round(session.site.plan.settings.limits.expire_minutes)
    told = session.site.texts["late"]
    words = {"heading": told["title"], "text": told["text"].format(minutes=minutes)}
    return session.show("no_place.html", **words, **_without_place(session.site))


def turn_away(site: Site, address: Address, status: int) -> Response:
    """The page of those who come when all places are taken."""
    told = site.texts["message"]["full"]
    words = {"heading": told["title"], "text": told["text"]}
    return site.page("no_place.html", address, status=status, **words, **_without_place(site))


def _without_place(site: Site) -> dict[str, Any]:
    return _way_back(site, site.plan.settings.recruitment.full_code, stay="1")


@router.get("/delete")
def _delete(session: SessionOf) -> Response:
    return session.show("delete.html")


@router.post("/delete")
def _answer_delete(session: SessionOf, given: Annotated[Body, Form()]) -> Response:
    session.check(given.csrf)
    site, number = session.site, session.participant.number
    forget(site.database, site.plan, session.participant)
    response = session.address.go(f"left?number={number}&proof={_prove(site, number)}")
    session.address.delete_cookie(response, site.cookie(COOKIE))
    return response


@router.get("/left")
def _left(
    site: SiteOf,
    address: AddressOf,
    number: Annotated[int, Query(ge=0, le=2**31)] = 0,
    proof: Annotated[str, Query(max_length=40)] = "",
    stay: Stay = "",
) -> Response:
    """The code is shown only to who was led here by leaving."""
    code = site.plan.settings.recruitment.withdrawn_code
    shown = code if same_secret(proof, _prove(site, number)) else None
    query = f"?number={number}&proof={proof}&"
    return site.page("left.html", address, query=query, **_way_back(site, shown, stay))


def _prove(site: Site, number: int) -> str:
    """What shows that a participant has left."""
    return site.database.sign("left", str(number))[:20]
