"""What the link of an invitation says of who comes, and where it leads back to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torchxnn.apps.study.server.session import Problem, check_rate
from torchxnn.apps.study.server.site import Site
from torchxnn.apps.study.store.participants import (
    Kind,
    Participant,
    find_participant,
    fold,
    is_known,
    sign_person,
)

LONGEST = 200
_UNFILLED = re.compile(r"[{}]")
"""Recruiters write places for identifiers with braces; they must have filled them in."""


@dataclass(frozen=True)
class Link:
    """Who comes by a link.

    Attributes:
        kind: see `Kind`.
        parameters: of the recruiter, those that the study keeps.
        identifier: of the person; None without one.
        person: what is stored of the identifier.
        token: of the session that the same link leads back to, in whatever browser; None if the
            link holds nothing that others could not know.
    """

    kind: Kind
    parameters: Mapping[str, str]
    identifier: str | None
    person: str | None
    token: str | None


def read_link(site: Site, kind: Kind, given: Mapping[str, str]) -> Link:
    """Read a recruiter's parameters, by name.

    Raises:
        Problem: a place for an identifier was not filled in, or a parameter is too long.
    """
    recruitment = site.plan.settings.recruitment
    stripped = {
        name: given.get(name, "").replace("\x00", "").strip() for name in recruitment.parameters
    }
    parameters = {name: value for name, value in stripped.items() if value}
    if any(len(v) > LONGEST or _UNFILLED.search(v) for v in parameters.values()):
        raise Problem(422, "broken_link")
    if not recruitment.parameters or recruitment.parameters[0] not in parameters:
        return Link(kind, parameters, None, None, None)
    identifier = parameters[recruitment.parameters[0]]
    session = parameters.get(recruitment.session or "")
    token = None
    if session is not None:
        token = make_token(site, "link", kind, fold(identifier), fold(session))
    person = sign_person(site.database, kind, identifier)
    return Link(kind, parameters, identifier, person, token)


def is_counted(site: Site, given: Mapping[str, str]) -> bool:
    """Whether the recruiter says of whoever comes by a link that they have finished."""
    name = site.plan.settings.recruitment.completion_parameter
    return name is not None and given.get(name, "") not in ("", "0")


def make_token(site: Site, *parts: str) -> str:
    """The token of a session that can be made again of the same parts, on this server alone."""
    return site.database.sign("session", json.dumps(parts))[:40]


def is_same(participant: Participant, link: Link, new: bool) -> bool:
    """Whether somebody with a cookie is who comes by a link.

    Without an identifier in the link they are, unless they say that they are somebody `new`.
    """
    return not new if link.person is None else participant.person == link.person


def come_back(site: Site, link: Link, token: str | None) -> Participant | None:
    """Who began by the same link, or with the same `token`; None for somebody new.

    Raises:
        Problem: the person is known, but the link does not prove that it is they who come; or too
            many links of this person were tried.
    """
    if link.person is not None:
        if not is_known(site.database, link.person):
            return None
        check_rate(site.links.wait(link.person))
    found = None if token is None else find_participant(site.database, token)
    if found is None and link.person is not None:
        raise Problem(409, "already_started")
    return found
