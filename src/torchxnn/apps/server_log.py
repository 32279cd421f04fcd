"""What a server writes about itself: times and kinds of failures, nothing of those who come.

No address, no identifier, no path with a personal link, and no answer gets into a line: a failure
is named by the pattern of its path and its kind, and tracebacks go without the message of the
exception, which may quote what somebody sent. Of the libraries below (asyncio, the pool of the
database), whose messages quote exceptions too, a line has the name of the logger and the place.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import Any

from fastapi import Request

LOGGER = "torchxnn.server"
_TIME = "%Y-%m-%dT%H:%M:%S%z"
_CAUGHT = tuple[type[BaseException], BaseException, TracebackType | None]


class Unnamed(logging.Formatter):
    """Lines with the time in UTC; exceptions with their kind and place, without their message."""

    def formatException(self, ei: Any) -> str:
        """The calls that led to an exception and its kind; of its causes, the kinds alone."""
        caught: _CAUGHT = ei
        kind, error, place = caught
        lines = ["".join(traceback.format_tb(place)).rstrip(), kind.__name__]
        cause = error.__cause__ or error.__context__
        while cause is not None:
            lines.append(f"because of {type(cause).__name__}")
            cause = cause.__cause__ or cause.__context__
        return "\n".join(line for line in lines if line)


def log_failure(request: Request, status: int, error: Exception) -> None:
    """One line for a request that failed: method, pattern of the path, status, kind of failure."""
    route = request.scope.get("route")
    pattern = getattr(route, "path", "a path that no page has")
    where = f"{request.method} {pattern}"
    logging.getLogger(LOGGER).error("%s failed with %d: %s", where, status, type(error).__name__)


LOG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "unnamed": {
            "()": Unnamed,
            "format": "%(asctime)s %(levelname)s %(message)s",
            "datefmt": _TIME,
        },
        "unsaid": {
            "()": Unnamed,
            "format": "%(asctime)s %(levelname)s of %(name)s at %(module)s.%(funcName)s",
            "datefmt": _TIME,
        },
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "unnamed"},
        "others": {"class": "logging.StreamHandler", "formatter": "unsaid"},
    },
    "root": {"handlers": ["others"], "level": "WARNING"},
    "loggers": {
        LOGGER: {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
"""Settings of `logging` for a server; uvicorn's own lines are warnings and failures alone."""
