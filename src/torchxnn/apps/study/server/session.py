"""Who is asking: cookies, signatures against forged requests, limits per participant."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import RedirectResponse, Response

from torchxnn.apps.address import Address, AddressOf
from torchxnn.apps.study.server.site import Site, site_of
from torchxnn.apps.study.steps import LATE
from torchxnn.apps.study.store.participants import Participant, RefusedError, find_participant
from torchxnn.apps.study.store.places import take_up
from torchxnn.apps.web import same_secret

COOKIE, START_COOKIE, ADMIN_COOKIE = "study", "start", "admin"
"""Purposes of cookies, see `Site.cookie`."""

COOKIE_SECONDS = 30 * 24 * 3600

SiteOf = Annotated[Site, Depends(site_of)]


class Problem(RefusedError):
    """What ends a request early, with a status and headers of its own."""

    def __init__(self, status: int, key: str, **headers: str) -> None:
        super().__init__(key)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def check_rate(seconds: float) -> None:
    """End the request if there is something to wait for."""
    if seconds:
        raise Problem(429, "too_fast", Retry_After=str(math.ceil(seconds)))


class Session:
    """A participant who is signed in.

    Attributes:
        site: the study.
        address: where it lies for them.
        participant: as the database has them at the start of the request.
        token: of the cookie.
        csrf: what forms and scripts have to send back.
    """

    def __init__(self, site: Site, address: Address, participant: Participant, token: str) -> None:
        self.site, self.address, self.participant, self.token = site, address, participant, token
        self.csrf = site.database.sign("csrf", token)

    def go(self) -> RedirectResponse:
        """Lead them to the page where they are."""
        return self.address.go(LATE if self.is_late else self.participant.step)

    @property
    def told_all(self) -> bool:
        """Whether they were told, at their consent and today, of all that can be kept.

        Only then the hand is watched and what says how it moved is kept.
        """
        return self.site.says_all and bool(self.participant.told_all)

    @property
    def is_late(self) -> bool:
        """Whether their place is somebody else's, and no other one is free."""
        return self.participant.status == "expired"

    def show(self, template: str, **values: Any) -> Response:
        """A page for them."""
        values["csrf"] = self.csrf
        return self.site.page(template, self.address, self.participant, **values)

    def page(self, step: str, template: str, **values: Any) -> Response:
        """The page of a step, or where to go instead if they are not at it."""
        if self.participant.step != step or self.is_late:
            return self.go()
        return self.show(template, **values)

    def check(self, given: str | None) -> None:
        """Refuse a request that does not come from one of our pages."""
        if given is None or not same_secret(given, self.csrf):
            raise Problem(403, "forged")


def find_session(request: Request, site: SiteOf, address: AddressOf) -> Session | None:
    """The participant of the cookie, if there is one.

    Raises:
        Problem: too many requests.
    """
    token = request.cookies.get(site.cookie(COOKIE))
    if not token or len(token) > 100:
        return None
    check_rate(site.requests.wait(token))
    participant = find_participant(site.database, token)
    if participant is not None and participant.status == "expired":
        take_up(site.database, site.plan, participant.number, site.clock())
        participant = find_participant(site.database, token)
    return None if participant is None else Session(site, address, participant, token)


def need_session(session: Annotated[Session | None, Depends(find_session)]) -> Session:
    """The participant of the cookie.

    Raises:
        Problem: nobody is signed in.
    """
    if session is None:
        raise Problem(401, "no_session")
    return session


SessionOf = Annotated[Session, Depends(need_session)]
AnySession = Annotated[Session | None, Depends(find_session)]


def check_script(
    session: SessionOf, x_csrf_token: Annotated[str | None, Header(max_length=100)] = None
) -> Session:
    """The participant, for requests that scripts make and that change something."""
    session.check(x_csrf_token)
    return session


ScriptSession = Annotated[Session, Depends(check_script)]
