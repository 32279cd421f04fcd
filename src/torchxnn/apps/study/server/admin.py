"""For the researcher: who is where, and all data as one file."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Header, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from torchxnn.apps.address import AddressOf
from torchxnn.apps.study.design import all_cells, draw_cell
from torchxnn.apps.study.export import write_archive
from torchxnn.apps.study.server.session import ADMIN_COOKIE, Problem, SiteOf, check_rate, same
from torchxnn.apps.study.server.site import Site
from torchxnn.apps.study.store.participants import count_cells, list_participants

router = APIRouter(prefix="/admin", default_response_class=HTMLResponse)

ADMIN_SECONDS = 12 * 3600


def _is_admin(
    request: Request,
    site: SiteOf,
    authorization: Annotated[str | None, Header(max_length=300)] = None,
) -> bool:
    if site.admin_token is None:
        raise Problem(404, "not_found")
    if authorization:
        check_rate(site.logins.wait("admin"))
        return same(authorization, f"Bearer {site.admin_token}")
    cookie = request.cookies.get(site.cookie(ADMIN_COOKIE), "")
    return same(cookie, site.database.sign("admin", site.admin_token))


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
    now = site.clock()
    return site.page(
        "admin.html",
        address,
        **_counts(site),
        participants=[
            {**row._mapping, "minutes_ago": round((now - row.seen_at) / 60)}
            for row in list_participants(site.database)
        ],
        updated=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
    )


@router.post("")
def log_in(
    site: SiteOf, address: AddressOf, token: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """Check the token and remember it in a cookie for half a day."""
    if site.admin_token is None:
        raise Problem(404, "not_found")
    check_rate(site.logins.wait("admin"))
    if not same(token, site.admin_token):
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


def _counts(site: Site) -> dict[str, Any]:
    """Participants by arm and status, and by cell of the design; others than proper ones apart."""
    settings = site.plan.settings
    keys = [data.key for data in site.plan.data_sets]
    counts: dict[str, Counter[str]] = {arm.name: Counter() for arm in settings.arms}
    cells: Counter[tuple[str, str, str]] = Counter()
    for (arm, kind, state, place), count in count_cells(site.database).items():
        name = state if kind == "participant" else f"{kind}, {state}"
        counts[arm][name] += count
        if kind == "participant":
            label = draw_cell(settings, settings.arm(arm), keys, place).label
            cells[arm, label, state] += count
    orders = {
        arm.name: [cell.label for cell in all_cells(arm, keys, settings.between)]
        for arm in settings.arms
    }
    return {"counts": counts, "cells": cells, "orders": orders}
