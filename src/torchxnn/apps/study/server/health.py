"""Whether the server works: for whatever starts it, watches it and leads people to it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from torchxnn.apps.study.server.session import SiteOf
from torchxnn.apps.study.store.schema import facts

router = APIRouter()


@router.get("/health")
def health(site: SiteOf) -> JSONResponse:
    """Status 200 if the database answers, 503 if not; nothing about anybody."""
    try:
        with site.database.reading() as connection:
            connection.scalar(select(facts.c.value).limit(1))
    except SQLAlchemyError:
        return JSONResponse({"database": "failed"}, 503)
    return JSONResponse({"database": "ok"})
