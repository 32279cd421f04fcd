"""Where an application lies for those who come: below a path of a host, behind a proxy or not.

`BasePath` is the outermost layer of a server and takes the path off; whatever lies further in knows
paths of the application alone, such as "stage/1", without a slash before them. The request's
`Address` is what puts the place before such a path again: `root` in pages, `go` in redirects,
`whole` in texts, and `set_cookie`. What scripts are told stays a path of the application, to which
they put the `root` of their page.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import URL, Headers
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from torchxnn.errors import XNNError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that this machine alone can open."""

_KEY = "torchxnn.address"
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")


@dataclass(frozen=True)
class Address:
    """The place of an application, as whoever sent a request sees it.

    Attributes:
        prefix: path of the host below which everything lies; "" for none, or for one of which
            neither the command nor the proxy tells.
        root: what a page puts before a path of the application: the prefix and a slash, or, without
            one, the way up from the page, which is right behind any proxy.
        host: scheme and host, such as "https://lab.example.org".
    """

    prefix: str
    root: str
    host: str

    def whole(self, path: str) -> str:
        """The address that people can keep, with scheme and host."""
        return f"{self.host}{self.prefix}/{path}"

    def go(self, path: str) -> RedirectResponse:
        """Send the browser to a path of the application, with GET."""
        return RedirectResponse(self.root + path, status_code=303)

    def set_cookie(
        self,
        response: Response,
        name: str,
        value: str,
        seconds: int,
        *,
        within: str = "",
        strict: bool = False,
    ) -> None:
        """A cookie that scripts cannot read, of this application alone, or of a path `within` it.

        Where the path of the application is not known, the browser sends it to the whole host.
        Other sites cannot send it along with a form; if it is strict, not with a link either.
        """
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path=f"{self.prefix}/{within}".rstrip("/") if self.prefix else "/",
            httponly=True,
            samesite="strict" if strict else "lax",
            secure=self.host.startswith("https:"),
        )

    def delete_cookie(self, response: Response, name: str) -> None:
        """Take back a cookie that `set_cookie` has set."""
        response.delete_cookie(name, path=self.prefix or "/")


def address_of(request: Request) -> Address:
    """The place of the application that a request was sent to."""
    address: Address = request.scope[_KEY]
    return address


AddressOf = Annotated[Address, Depends(address_of)]


def check_base_path(given: str, taken: Collection[str] = ()) -> str:
    """A path below which an application lies, without a slash at its end; "" for the root.

    Raises:
        XNNError: it is no path, or begins with a name `taken` by the application itself.
    """
    path = "/" + given.strip().strip("/")
    path = "" if path == "/" else path
    if not _PREFIX.fullmatch(path):
        raise XNNError(
            f"base_path must be a path without a host, such as /study, of letters, digits and "
            f"- . _ ~, got {given!r}"
        )
    if path.partition("/")[2].partition("/")[0] in taken:
        raise XNNError(
            f"base_path {path} begins as addresses of the pages themselves do; take another one, "
            f"such as /study{path}"
        )
    return path


def first_names(routes: Iterable[BaseRoute]) -> set[str]:
    """What the paths of an application begin with."""
    paths = (getattr(route, "path", "") for route in routes)
    return {path.split("/")[1] for path in paths if path.strip("/")}


class BasePath:
    """Outermost layer: finds out where the application lies, and takes that path off requests.

    A proxy may pass the path on or take it away. A path that was not given is taken from the
    header X-Forwarded-Prefix. Scheme and host are those of X-Forwarded-Proto and X-Forwarded-Host,
    if a proxy sends them: they decide only what whoever sends them is shown.
    """

    def __init__(self, app: ASGIApp, base_path: str = "") -> None:
        self._app, self._given = app, check_base_path(base_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            scope = self._placed(scope)
        await self._app(scope, receive, send)

    def _placed(self, scope: Scope) -> Scope:
        headers = Headers(scope=scope)
        path = scope["path"]
        prefix = self._given or scope.get("root_path", "") or _forwarded_prefix(headers)
        if prefix and f"{path}/".startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        scheme = _first(headers, "x-forwarded-proto").lower()
        scope = {**scope, "path": path.rstrip("/") or "/", "root_path": ""}
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        host = _first(headers, "x-forwarded-host")
        if not _HOST.fullmatch(host):
            host = URL(scope=scope).netloc
        up = "../" * (path.count("/") - 1) or "./"
        root = f"{prefix}/" if prefix else up
        return {**scope, _KEY: Address(prefix, root, f"{scope['scheme']}://{host}")}


def _first(headers: Headers, name: str) -> str:
    """The first of the values that proxies have put into a header, the one of the outermost."""
    return headers.get(name, "").partition(",")[0].strip()


def _forwarded_prefix(headers: Headers) -> str:
    """The path that a proxy says it has taken away; "" if it says none, or nothing sensible."""
    prefix = _first(headers, "x-forwarded-prefix").rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""
