"""Put the application together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException as StarletteHTTPException

from torchxnn.apps.address import BasePath, address_of, check_base_path, first_names
from torchxnn.apps.server_log import LOGGER, log_failure
from torchxnn.apps.study.plan import MEDIA, StudyPlan
from torchxnn.apps.study.server import admin, api, entry, health, leaving, pages, words
from torchxnn.apps.study.server.session import COOKIE, Problem, SiteOf
from torchxnn.apps.study.server.site import STATIC, Site, site_of
from torchxnn.apps.study.store.database import open_database
from torchxnn.apps.study.store.participants import RefusedError
from torchxnn.apps.study.texts import read_consent, read_texts
from torchxnn.apps.web import Guard
from torchxnn.storage.artifact import __version__

_PARTS = (entry, pages, words, leaving, api, admin, health)


def create_app(
    folder: Path,
    database_url: str | None = None,
    admin_token: str | None = None,
    pilot: bool = False,
    base_path: str = "",
) -> FastAPI:
    """The application of the study in a folder; `pilot` says whether all who come now are pilots.

    `database_url` is that of another database than the SQLite file in the folder; `admin_token`
    opens dashboard and export, None closes them; `base_path` is where the study lies on its host.

    Raises:
        DataError: no study, broken texts, or a database of another study.
        XNNError: `base_path` is no path, or begins as an address of the study itself does.
    """
    plan = StudyPlan.read(folder)
    site = Site(
        folder=folder,
        plan=plan,
        database=open_database(folder, plan, database_url),
        texts=read_texts(folder, plan.settings.language, plan.settings.task),
        consent=read_consent(folder),
        admin_token=admin_token,
        pilot=pilot,
    )
    about: dict[str, Any] = {"title": plan.settings.title, "version": __version__}
    app = FastAPI(**about, openapi_url=None, redirect_slashes=False, lifespan=_running)
    app.state.site = site
    for part in _PARTS:
        app.include_router(part.router)
    app.add_api_route("/start", entry.make_start(plan), methods=["POST"])
    app.add_api_route("/media/{name}", _media, response_class=FileResponse)
    app.mount(f"/static/{site.static_version}", StaticFiles(directory=STATIC))
    app.add_middleware(Guard, body_bytes=plan.settings.limits.body_bytes, refuse=_too_large)
    # FastAPI keeps an included router as one route without a path of its own.
    routes = [*app.routes, *(route for part in _PARTS for route in part.router.routes)]
    app.add_middleware(BasePath, base_path=check_base_path(base_path, first_names(routes)))
    web = RequestValidationError, StarletteHTTPException
    for kind in (RefusedError, *web, SQLAlchemyError):
        app.add_exception_handler(kind, _explain)
    return app


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """From the first request to the last; then SQLite puts its log into the file."""
    log = logging.getLogger(LOGGER)
    log.info("the study is served")
    yield
    app.state.site.database.close()
    log.info("the study is served no more")


_OF_NOBODY = ("no_session", "forged", "already_started", "broken_link")
"""Messages to people whom the cookie does not name."""


def _media(name: str, site: SiteOf) -> FileResponse:
    if name not in site.media:
        raise HTTPException(404)
    return FileResponse(site.folder / MEDIA / name)


def _too_large(request: Request) -> Response:
    return _explain(request, Problem(413, "too_long"))


def _explain(request: Request, error: Exception) -> Response:
    """Every failure as JSON for scripts, and as a page that says what to do for people."""
    status, key = 500, "failed"
    extra: dict[str, Any] = {}
    headers: Mapping[str, str] = {}
    if isinstance(error, RefusedError):
        status, key, extra, headers = error.status, error.key, error.extra, error.headers
    elif isinstance(error, RequestValidationError):
        status, key = 422, "invalid"  # what was wrong where, without repeating what was sent
        wrong = [{"where": list(e["loc"]), "what": e["msg"]} for e in error.errors()[:10]]
        extra = {"errors": wrong}
    elif isinstance(error, SQLAlchemyError):
        status, key, headers = 503, "failed", {"Retry-After": "2"}
    elif isinstance(error, StarletteHTTPException):
        status = error.status_code
        key = {404: "not_found", 405: "not_found"}.get(status, "failed")
        headers = error.headers or {}
    if status >= 500:
        log_failure(request, status, error)
    site = site_of(request)
    text = site.texts["message"][key]
    address = address_of(request)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"detail": text["text"], **extra}, status, headers)
    if key == "full":
        return leaving.turn_away(site, address, status)
    # whoever the cookie belongs to need not be the one who reads this
    home = site.cookie(COOKIE) in request.cookies and key not in _OF_NOBODY
    told = {"heading": text["title"], "text": text["text"], "home": home}
    page = site.page("message.html", address, status=status, **told)
    page.headers.update(headers)
    return page
