"""What the local servers share: templates, versions of files, limits and headers of answers.

Pages request nothing from elsewhere: the content security policy forbids it, and everything that
is inserted into a template is escaped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.types import ASGIApp, Message, Receive, Scope, Send


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


class Guard:
    """Outermost layer: limits requests to `body_bytes`, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, body_bytes: int) -> None:
        self._app, self._most = app, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is None:
            await _answer(send, scope, 413, b'{"detail":"too large"}')
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
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in headers_for(scope["path"]) if pair[0] not in known),
                ]
            await send(message)

        await self._app(scope, replay, send_with_headers)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, or None if it is too large."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._most:
                return None
        parts, size, more = [], 0, scope["method"] not in ("GET", "HEAD")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most:
                return None
            more = message.get("more_body", False)
        return b"".join(parts)


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

_COMMON = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
_KEPT = (b"cache-control", b"public, max-age=31536000, immutable")
_FRESH = (b"cache-control", b"no-store")


def headers_for(path: str) -> list[tuple[bytes, bytes]]:
    """Headers of an answer; images, scripts and styles never change under one address."""
    kept = path.startswith(("/media/", "/static/"))
    return [*_COMMON, _KEPT if kept else _FRESH]


async def _answer(send: Send, scope: Scope, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), *headers_for(scope["path"])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
