"""What every request needs: the study, its database, texts and limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from torchxnn.apps.address import Address
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.recorded import says_what_is_recorded, with_list
from torchxnn.apps.study.steps import minutes_of, steps_of
from torchxnn.apps.study.store.database import Database
from torchxnn.apps.study.store.participants import Participant
from torchxnn.apps.study.texts import MINUTES, direction, render_consent
from torchxnn.apps.web import page_templates, version_of

WEB = Path(__file__).parents[1] / "web"
STATIC = WEB / "static"
_MOST_KEYS = 20_000


class Buckets:
    """Token buckets by key: `rate` requests a second on average, `burst` at once."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, key: str) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            if len(self._levels) > _MOST_KEYS:
                self._levels = {
                    each: (level, before)
                    for each, (level, before) in self._levels.items()
                    if level + (now - before) * self._rate < self._burst
                }
            level, before = self._levels.get(key, (self._burst, now))
            level = min(self._burst, level + (now - before) * self._rate)
            if level >= 1:
                self._levels[key] = (level - 1, now)
                return 0.0
            self._levels[key] = (level, now)
            return (1 - level) / self._rate


@dataclass(eq=False)
class Site:
    """One study that is being served.

    Attributes:
        folder: of the study.
        plan: what it shows.
        database: where answers go.
        texts: of the participants' language.
        consent: the researcher's text, in Markdown.
        admin_token: opens the dashboard; None closes it.
        pilot: whether all who come now are pilots.
        clock: seconds since 1970.
    """

    folder: Path
    plan: StudyPlan
    database: Database
    texts: dict[str, Any]
    consent: str
    admin_token: str | None = None
    pilot: bool = False
    clock: Callable[[], float] = time.time
    requests: Buckets = field(init=False)
    starts: Buckets = field(init=False)
    logins: Buckets = field(init=False)
    links: Buckets = field(init=False)

    def __post_init__(self) -> None:
        limits = self.plan.settings.limits
        self.requests = Buckets(limits.requests_per_second, 4 * limits.requests_per_second)
        self.starts = Buckets(limits.starts_per_second, 10 * limits.starts_per_second)
        self.logins = Buckets(0.5, 10.0)
        self.links = Buckets(0.1, 10.0)

    @cached_property
    def media(self) -> frozenset[str]:
        """Files that may be served: no other name is ever looked up."""
        return self.plan.media()

    def consent_html(self, arm: str) -> str:
        """The consent text of an arm, which says how long it takes."""
        minutes = str(minutes_of(self.plan, arm))
        listed = with_list(self.consent, self.texts)
        return render_consent(listed.replace(MINUTES, minutes))

    @property
    def says_all(self) -> bool:
        """Whether who consents now is told of all that can be kept."""
        return says_what_is_recorded(self.consent)

    @cached_property
    def static_version(self) -> str:
        """Changes when a script or a style changes."""
        return version_of(STATIC)

    def cookie(self, purpose: str) -> str:
        """Name of a cookie that no other study on the same host has."""
        return f"xnn_{purpose}_{self.database.sign('cookies', '')[:8]}"

    def page(
        self,
        template: str,
        address: Address,
        participant: Participant | None = None,
        status: int = 200,
        **values: Any,
    ) -> HTMLResponse:
        """Render a page; `participant` gives the step for the progress line."""
        step, steps, pilot, who, again = 0, 0, self.pilot, "", ""
        if participant is not None:
            who = "identified" if participant.person else "unnamed"
            again = f"{address.root}?new=1&arm={participant.arm}"
            pages = steps_of(self.plan, participant.arm)
            step, steps = pages.index(participant.step) + 1, len(pages)
            pilot = participant.kind == "pilot"
        page = page_templates(WEB / "templates", trim=False).get_template(template)
        text = page.render(
            {
                "t": self.texts,
                "lang": self.plan.settings.language,
                "dir": direction(self.plan.settings.language),
                "root": address.root,
                "title": self.plan.settings.title,
                "contact": self.plan.settings.contact,
                "static_version": self.static_version,
                "step": step,
                "steps": steps,
                "who": who,
                "again": again + ("&pilot=1" if pilot else ""),
                "pilot": pilot,
                "csrf": "",
                **values,
            }
        )
        return HTMLResponse(text, status)


def site_of(request: Request) -> Site:
    """The study that a request belongs to."""
    site: Site = request.app.state.site
    return site
