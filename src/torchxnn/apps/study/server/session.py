"""Who is asking: cookies, signatures against forged requests, limits per participant."""

from __future__ import annotations

import hmac
import math
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from torchxnn.apps.study.server.site import Site, site_of
from torchxnn.apps.study.store.participants import Participant, RefusedError, find_participant

COOKIE, START_COOKIE, ADMIN_COOKIE = "xnn_study", "xnn_start", "xnn_admin"
COOKIE_SECONDS = 30 * 24 * 3600

SiteOf = Annotated[Site, Depends(site_of)]


class Problem(RefusedError):
    """What ends a request early, with a status and headers of its own."""

    def __init__(self, status: int, key: str, **headers: str) -> None:
        super().__init__(key)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def same(first: str, second: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(first.encode(), second.encode())


def check_rate(seconds: float) -> None:
    """End the request if there is something to wait for."""
    if seconds:
        raise Problem(429, "too_fast", Retry_After=str(math.ceil(seconds)))


def set_cookie(
    request: Request, response: Response, name: str, value: str, seconds: int, path: str = "/"
) -> None:
    """A cookie that scripts cannot read and other sites cannot send along with a form."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=path,
        httponly=True,
        samesite="strict" if name == ADMIN_COOKIE else "lax",
        secure=request.url.scheme == "https",
    )


class Session:
    """A participant who is signed in.

    Attributes:
        site: the study.
        participant: as the database has them at the start of the request.
        token: of the cookie.
        csrf: what forms and scripts have to send back.
    """

    def __init__(self, site: Site, participant: Participant, token: str) -> None:
        self.site, self.participant, self.token = site, participant, token
        self.csrf = site.database.sign("csrf", token)

    def check(self, given: str | None) -> None:
        """Refuse a request that does not come from one of our pages."""
        if given is None or not same(given, self.csrf):
            raise Problem(403, "forged")


def find_session(request: Request, site: SiteOf) -> Session | None:
    """The participant of the cookie, if there is one.

    Raises:
        Problem: too many requests.
    """
    token = request.cookies.get(COOKIE)
    if not token or len(token) > 100:
        return None
    check_rate(site.requests.wait(token))
    participant = find_participant(site.database, token)
    return None if participant is None else Session(site, participant, token)


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
