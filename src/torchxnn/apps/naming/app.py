"""The application: an overview, a page per x-feature, and forms that work without scripts."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from torchxnn.apps.address import (
    Address,
    AddressOf,
    BasePath,
    address_of,
    check_base_path,
    first_names,
)
from torchxnn.apps.naming.site import STATIC, Site, agreement_text
from torchxnn.apps.web import Guard, same_secret
from torchxnn.errors import DataError, ModelError
from torchxnn.explanations.names.file import names_csv
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.explanations.names.records import BY_RULE, NOTE_LENGTH, check_person
from torchxnn.explanations.names.texts import same_person
from torchxnn.storage.artifact import __version__

BODY_BYTES = 64_000
COOKIE_SECONDS = 30 * 24 * 3600
HOSTS = ["127.0.0.1", "localhost", "[::1]", "testserver"]
HEADINGS = {
    "top": ("Most active", "The images, of whatever class, on which the x-feature is largest."),
    "spaced": ("Evenly spaced", "Further images of the class, from strong to weak."),
    "against": (
        "Against the prediction",
        "Further images: where it speaks for the class and the network sees another one, or speaks "
        "against the class that the network sees.",
    ),
}
"""What is said of the groups of images, to who has answered."""

BLIND_HEADINGS = {
    "top": ("Most active", "The images on which the x-feature is largest."),
    "spaced": ("From strong to weak", "Further images on which it is active."),
    "against": ("More images", "Others on which it is active."),
}
"""The same before that, without what would steer the answer."""


def create_app(site: Site, base_path: str = "") -> FastAPI:
    """The application of one run; `base_path` is where it lies on its host.

    Raises:
        DataError: `site.who` is no name of a person.
        ModelError: the names in the folder cannot be used.
        XNNError: `base_path` is no path, or begins as an address of the pages does.
    """
    site.names()
    if site.who:
        check_person(site.who)
    about: dict[str, Any] = {"title": site.title, "version": __version__}
    app = FastAPI(**about, openapi_url=None, redirect_slashes=False)  # nor pages about it
    app.state.site = site
    app.add_api_route("/", _overview, response_class=HTMLResponse)
    app.add_api_route("/names.csv", _csv)
    app.add_api_route(f"/media/{site.version}/{{name}}", _media)
    app.add_api_route("/who", _who, methods=["POST"])
    app.add_api_route("/feature/{number}", _feature, response_class=HTMLResponse)
    app.add_api_route("/feature/{number}", _judge, methods=["POST"])
    app.add_api_route("/feature/{number}/merge", _merge, methods=["POST"])
    app.add_api_route("/feature/{number}/split", _split, methods=["POST"])
    app.mount(f"/static/{site.version}", StaticFiles(directory=STATIC))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    app.add_middleware(Guard, body_bytes=BODY_BYTES, refuse=_too_large)
    app.add_middleware(BasePath, base_path=check_base_path(base_path, first_names(app.routes)))
    web = RequestValidationError, StarletteHTTPException
    for kind in (DataError, ModelError, OSError, *web):
        app.add_exception_handler(kind, _explain)
    return app


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _person(request: Request) -> str:
    site = _site(request)
    who = unquote(request.cookies.get(site.cookie, "")) or site.who
    return site.names().person(who) if who else ""


def _signer(request: Request, signed: Annotated[str, Form()] = "") -> str:
    """Who sends a form: whom its page named, whoever has begun in the browser since."""
    who = _site(request).names().person(signed) if signed else _person(request)
    return check_person(who) if who else ""


def _index(number: int, request: Request) -> int:
    if not 1 <= number <= _site(request).n_features:
        raise HTTPException(404)
    return number - 1


def _checked(request: Request, token: Annotated[str, Form()] = "") -> None:
    """Refuse forms that another site sent."""
    if not same_secret(token, _site(request).token):
        raise HTTPException(403)


SiteOf = Annotated[Site, Depends(_site)]
Person = Annotated[str, Depends(_person)]
Signer = Annotated[str, Depends(_signer)]
Index = Annotated[int, Depends(_index)]
Text = Annotated[str, Form()]
Checked = Depends(_checked)


def _overview(
    site: SiteOf,
    address: AddressOf,
    person: Person,
    who: str = "",
    saved: str = "",
    known: str = "",
) -> Response:
    """Who has judged what; a link that names a person fills in the form, and signs nobody in."""
    names = site.names()
    asked = names.person(check_person(who)) if who else ""
    rows = [
        {
            "number": i + 1,
            "mine": names.latest(i).get(person),
            "settled": names.settled(i),
            "images": site.gallery.features[i].groups["top"][:4],
        }
        for i in range(site.n_features)
    ]
    values: dict[str, Any] = {
        "rows": rows,
        "agreement": agreement_text(names),
        "saved": bool(saved),
        "asked": "" if same_person(asked) == same_person(person) else asked,
        "known": site.known(names, person) if known else "",
    }
    return site.page("overview.html", address, who=person, **values, **site.progress(names, person))


def _csv(site: SiteOf, who: Person) -> Response:
    names = site.names()
    if site.progress(names, who)["open"]:
        raise DataError(
            "the table has what others say, and opens when you have judged every x-feature; who is "
            "no judge writes it with: xnn name RUN --export FILE"
        )
    headers = {"Content-Disposition": 'attachment; filename="names.csv"'}
    return Response(names_csv(names), 200, headers, "text/csv; charset=utf-8")


def _media(name: str, site: SiteOf) -> Response:
    if name not in site.gallery.files:
        raise HTTPException(404)
    return Response(site.gallery.files[name], media_type="image/webp")


def _who(
    site: SiteOf,
    address: AddressOf,
    before: Person,
    who: Text = "",
    back: Annotated[int, Form()] = 0,
    _: None = Checked,
) -> Response:
    """Go on as a person; who was here before does so under the name as it was first written."""
    names = site.names()
    person = names.person(check_person(who))
    path = f"feature/{back}" if 1 <= back <= site.n_features else ""
    if person != before and site.known(names, person):
        path += "?known=1"
    answer = address.go(path)
    address.set_cookie(answer, site.cookie, quote(person), COOKIE_SECONDS, strict=True)
    return answer


def _feature(
    index: Index, site: SiteOf, address: AddressOf, who: Person, saved: int = 0, known: str = ""
) -> HTMLResponse:
    return _feature_page(site, address, index, who, saved=saved, known=bool(known))


def _judge(
    index: Index,
    site: SiteOf,
    address: AddressOf,
    who: Signer,
    name: Text = "",
    note: Text = "",
    flag: Text = "",
    then: Text = "",
    _: None = Checked,
) -> Response:
    if not who:
        raise DataError("say who you are first, on the overview")
    try:
        if flag not in ("", "mixed", "unclear"):
            raise DataError(f"flag is {flag!r}; it must be 'mixed', 'unclear' or ''")
        names = site.names().judge(index, name, who=who, note=note, flag=flag)  # type: ignore[arg-type]
    except DataError as error:
        typed = {"name": name, "note": note, "flag": flag}
        return _feature_page(site, address, index, who, typed=typed, problem=str(error), status=422)
    site.write(names)
    following = site.progress(names, who, index)["next"]
    if then == "stay":
        return address.go(f"feature/{index + 1}?saved={index + 1}")
    return address.go(f"feature/{following}?saved={index + 1}" if following else "?saved=1")


def _merge(
    index: Index,
    site: SiteOf,
    address: AddressOf,
    who: Signer,
    names: Annotated[list[str] | None, Form()] = None,
    into: Text = "",
    _: None = Checked,
) -> Response:
    known = _after_answer(site, index, who)
    site.write(known.merge(index, [*(names or []), into], into, who=who))
    return address.go(f"feature/{index + 1}#others")


def _split(
    index: Index, site: SiteOf, address: AddressOf, who: Signer, name: Text = "", _: None = Checked
) -> Response:
    site.write(_after_answer(site, index, who).split(index, name, who=who))
    return address.go(f"feature/{index + 1}#others")


def _after_answer(site: Site, index: int, who: str) -> FeatureNames:
    """All records, for who has judged an x-feature.

    Raises:
        DataError: the person has not.
    """
    names = site.names()
    if who not in names.latest(index):
        raise DataError(f"judge x-feature {index + 1} yourself before you merge what others say")
    return names


def _feature_page(
    site: Site,
    address: Address,
    index: int,
    who: str,
    *,
    typed: dict[str, str] | None = None,
    problem: str = "",
    saved: int = 0,
    known: bool = False,
    status: int = 200,
) -> HTMLResponse:
    names = site.names()
    latest = names.latest(index)
    mine = latest.get(who)
    if typed is None:
        said = (mine.name, mine.note, mine.flag) if mine else ("", "", "")
        typed = dict(zip(("name", "note", "flag"), said, strict=True))
    feature = site.gallery.features[index]
    headings = HEADINGS if mine else BLIND_HEADINGS
    before = names.latest(saved - 1).get(who) if 1 <= saved <= site.n_features else None
    values: dict[str, Any] = {
        "who": who,
        "number": index + 1,
        "count": site.n_features,
        "groups": [(*headings[group], images) for group, images in feature.groups.items()],
        "suggestions": feature.suggestions if mine else (),
        "places": site.gallery.places,
        "typed": typed,
        "problem": problem,
        "saved": saved if 1 <= saved <= site.n_features else 0,
        "before": before,
        "known": site.known(names, who) if known else "",
        "judged": mine is not None,
        "others": [one for person, one in latest.items() if person not in (who, BY_RULE)],
        "settled": names.settled(index),
        "merged": [a for a in names.actions if a.feature == index],
        **site.progress(names, who, index),
    }
    return site.page("feature.html", address, status, **values)


def _too_large(request: Request) -> Response:
    return _explain(request, StarletteHTTPException(413))


def _explain(request: Request, error: Exception) -> Response:
    """Every failure as a page that says what to do."""
    status, text = 500, "The file could not be read or written. Nothing that was saved is lost."
    if isinstance(error, StarletteHTTPException):
        status = error.status_code
        text = {
            403: "This form was not sent from this page, or the server was restarted: go back, "
            "reload the page, and send it again.",
            404: "There is no such page.",
            413: "What was sent is too long, and nothing of it is saved: go back (the form still "
            f"has what you wrote), and shorten it. A note has at most {NOTE_LENGTH:,} characters.",
        }.get(status, "This request cannot be answered.")
    elif isinstance(error, RequestValidationError):
        wrong = ", ".join(str(each["loc"][-1]) for each in error.errors()[:10])
        status, text = 422, f"This is no request that a page here makes (wrong: {wrong})."
    elif isinstance(error, DataError):
        status, text = 422, f"{error}."
    elif isinstance(error, (ModelError, OSError)):
        text = f"{text} ({error})"
    return _site(request).page("message.html", address_of(request), status, text=text)
