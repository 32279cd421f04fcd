"""For the researcher: who is where, and all data as one file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Header, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from torchxnn.apps.address import AddressOf
from torchxnn.apps.study.export import write_archive
from torchxnn.apps.study.server.overview import arms_now, people_now
from torchxnn.apps.study.server.session import ADMIN_COOKIE, Problem, SiteOf, check_rate
from torchxnn.apps.study.server.site import Site
from torchxnn.apps.study.store.participants import list_participants
from torchxnn.apps.web import same_secret

router = APIRouter(prefix="/admin", default_response_class=HTMLResponse)

ADMIN_SECONDS = 12 * 3600

MOST_SHOWN = 500
"""Participants in the table of the dashboard; the counts are of all."""


def _is_admin(
    request: Request,
    site: SiteOf,
    authorization: Annotated[str | None, Header(max_length=300)] = None,
) -> bool:
    if site.admin_token is None:
        raise Problem(404, "not_found")
    if authorization:
        check_rate(site.logins.wait("admin"))
        return same_secret(authorization, f"Bearer {site.admin_token}")
    cookie = request.cookies.get(site.cookie(ADMIN_COOKIE), "")
    return same_secret(cookie, site.database.sign("admin", site.admin_token))


IsAdmin = Annotated[bool, Depends(_is_admin)]


def need_admin(admin: IsAdmin) -> None:
    """Refuse everybody but the researcher.

    Raises:
        Problem: no admin token was set, or a wrong one was given.
    """
    if not admin:
        raise Problem(401, "admin_only", WWW_Authenticate="Bearer")


@router.get("")
def dashboard(site: SiteOf, address: AddressOf, admin: IsAdmin) -> Response:
    """The dashboard, or the form for the token."""
    if not admin:
        return site.page("admin_login.html", address, status=401, error=None)
    return site.page("admin.html", address, **_now(site))


@router.get("/live", dependencies=[Depends(need_admin)])
def live(site: SiteOf, address: AddressOf) -> Response:
    """The part of the dashboard that changes; the page asks for it every few seconds."""
    return site.page("admin_live.html", address, **_now(site))


@router.post("")
def log_in(
    site: SiteOf, address: AddressOf, token: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """Check the token and remember it in a cookie for half a day."""
    if site.admin_token is None:
        raise Problem(404, "not_found")
    check_rate(site.logins.wait("admin"))
    if not same_secret(token, site.admin_token):
        wrong = site.texts["admin"]["wrong"]
        return site.page("admin_login.html", address, status=401, error=wrong)
    response = address.go("admin")
    value = site.database.sign("admin", site.admin_token)
    name = site.cookie(ADMIN_COOKIE)
    address.set_cookie(response, name, value, ADMIN_SECONDS, within="admin", strict=True)
    return response


@router.get("/export.zip", dependencies=[Depends(need_admin)])
def export(site: SiteOf, background: BackgroundTasks) -> FileResponse:
    """All tables as CSV and JSON."""
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
        path = Path(file.name)
    background.add_task(path.unlink, missing_ok=True)
    write_archive(site.database, site.plan, path)
    return FileResponse(path, media_type="application/zip", filename="study.zip")


def _now(site: Site) -> dict[str, Any]:
    """What the dashboard shows."""
    now, rows = site.clock(), list_participants(site.database)
    return {
        "arms": arms_now(site.plan, rows, now),
        "people": people_now(site.plan, rows, now, MOST_SHOWN),
        "updated": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
    }
