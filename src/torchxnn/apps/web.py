"""What the local servers share: templates, versions of files, limits and headers of answers.

Pages request nothing from elsewhere: the content security policy forbids it, and everything that
is inserted into a template is escaped.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@cache
def page_templates(folder: Path, *, trim: bool) -> Environment:
    """Templates that escape what is inserted and refuse names that have no value.

    Args:
        folder: of the templates.
        trim: whether lines that hold nothing but a statement leave no trace in the page.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,  # an update of the package does not change pages under a running server
        trim_blocks=trim,
        lstrip_blocks=trim,
    )


def version_of(folder: Path, more: Mapping[str, bytes] | None = None) -> str:
    """12 digits that change with any file of a folder, so that browsers never mix versions.

    Args:
        folder: of scripts and styles.
        more: further contents by name, such as images in memory.
    """
    digest = hashlib.sha256()
    for name, content in sorted((more or {}).items()):
        digest.update(name.encode() + content)
    for file in sorted(folder.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def same_secret(first: str, second: str) -> bool:
    """Compare secrets in constant time, whatever a form holds: halves of surrogate pairs, too."""
    one, other = (secret.encode("utf-8", "surrogatepass") for secret in (first, second))
    return hmac.compare_digest(one, other)


class Guard:
    """Outermost layer: limits requests to `body_bytes`, and sets the headers of every answer.

    `refuse` makes the answer to a request that is too large; without it that is JSON for scripts.
    """

    def __init__(
        self, app: ASGIApp, body_bytes: int, refuse: Callable[[Request], Response] | None = None
    ) -> None:
        self._app, self._most, self._refuse = app, body_bytes, refuse or _too_large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is None:
            refusal = self._refuse(Request(scope))
            for name, value in headers_for(scope["path"]).items():
                refusal.headers.setdefault(name, value)
            await refusal(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in headers_for(scope["path"]).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, replay, send_with_headers)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, or None if it is too large.

        What is somewhat too large is read nonetheless: a browser whose upload breaks off may show
        an error of its own instead of the answer.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > _DRAINED * self._most:
                return None
        parts, size, more = [], 0, scope["method"] not in ("GET", "HEAD")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            part = message.get("body", b"")
            size += len(part)
            if size <= self._most:
                parts.append(part)
            elif size > _DRAINED * self._most:
                break
            more = message.get("more_body", False)
        return b"".join(parts) if size <= self._most else None


_DRAINED = 32  # times the largest request that are read to the end to be refused


def _too_large(_: Request) -> Response:
    return JSONResponse({"detail": "too large"}, 413)


POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content security policy: nothing from elsewhere, nothing inline."""

_KEPT = "public, max-age=31536000, immutable"
_COMMON = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def headers_for(path: str) -> dict[str, str]:
    """Headers of an answer; images, scripts and styles never change under one address."""
    kept = path.startswith(("/media/", "/static/"))
    return _COMMON | {"cache-control": _KEPT if kept else "no-store"}
