"""Synthetic participants: they pass through a served study over HTTP as a browser does.

They know nothing but what a browser gets. Without help they sort pictures by their looks; with one
heatmap by the looks of the highlighted region; with x-features by the contributions, or by the
looks of all heatmaps where contributions are not shown. Each has a skill of its own: some pictures
are placed at random. So they try the site, its load and the analysis; they say nothing about
people. Those of `simulate_known` are told the truth, so that their effect is known.

What they do follows from the seed, whatever the times: they begin one after the other, as the
pictures that somebody sees follow from their number, and what is drawn for pauses is drawn apart.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from io import BytesIO
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage

from torchxnn.apps.address import LOOPBACK
from torchxnn.apps.study.settings import PRACTICE
from torchxnn.apps.study.simulate_answers import predict_answers
from torchxnn.apps.study.simulate_known import Knowing, Known
from torchxnn.errors import DataError, XNNError

ATTEMPTS = 24
"""Times that a request is repeated while the server is down or busy."""

_HIDDEN = re.compile(r'<input[^>]*type="hidden"[^>]*>')
_ATTRIBUTE = re.compile(r'(name|value)="([^"]*)"')
_LOOKS = 8  # pixels of the side of what a participant remembers of a picture


@dataclass(frozen=True)
class SimulationConfig:
    """How many come, and how they behave.

    Attributes:
        participants: how many.
        arm: that they join; None for the first one.
        at_once: how many at the same time.
        pause: mean seconds between two actions, exponentially distributed.
        seed: of their decisions. Into a study that nobody has entered the same participants come
            again with the same seed, and give the same answers; times and ids differ.
        known: the truth, and how often they are right; None for those who go by what they see.
    """

    participants: int = 10
    arm: str | None = None
    at_once: int = 5
    pause: float = 0.0
    seed: int = 0
    known: Known | None = None

    def __post_init__(self) -> None:
        if self.participants < 1 or self.at_once < 1 or self.pause < 0:
            raise XNNError("participants and at_once must be at least 1, pause not negative")


@dataclass
class Simulated:
    """What came of it.

    Attributes:
        finished: participants who reached the end.
        failed: why the others did not.
        milliseconds: from sending an answer (moves, a form with the page after it, a batch) until
            the server has kept it; one per request that went through at the first attempt.
        retried: requests that were repeated.
        acknowledged: ids of the events that the server said it has.
    """

    finished: int = 0
    failed: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    retried: int = 0
    acknowledged: set[str] = field(default_factory=set)

    def summary(self) -> str:
        """One line for people."""
        text = f"{self.finished} synthetic participants finished, {len(self.failed)} did not"
        if self.milliseconds:
            half, most = np.percentile(self.milliseconds, [50, 99])
            text += f"; answers kept after {half:.0f} ms (median), {most:.0f} ms (99%)"
        return text + (f"; {self.retried} requests repeated" if self.retried else "")


def simulate(
    url: str, config: SimulationConfig, on_finished: Callable[[], None] | None = None
) -> Simulated:
    """Send synthetic participants through the study that is served at an address.

    `on_finished` is called when one has left, in whatever way.

    Raises:
        DataError: nothing answers there, or it is no study.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DataError(f"{url!r} is no web address; give one such as http://127.0.0.1:8000")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    try:
        answer = httpx.get(f"{base}/", timeout=20)
    except httpx.HTTPError as error:
        raise DataError(f"nothing answers at {base}: {error}; start `xnn study serve`") from error
    form = re.search(r'action="([^"]*)start"', answer.text)
    if form is None:
        raise DataError(f"{base} serves no study (status {answer.status_code})")
    base = str(answer.url.join(form[1])).rstrip("/")  # the study may say that it lies below a path
    total, begun = Simulated(), [Event() for _ in range(config.participants + 1)]
    begun[0].set()
    with ThreadPoolExecutor(config.at_once) as pool:
        jobs = [
            pool.submit(_take_part, base, config, n, begun[n], begun[n + 1])
            for n in range(config.participants)
        ]
        for _ in as_completed(jobs):
            if on_finished is not None:
                on_finished()
    for job in jobs:
        _add(total, job.result())
    return total


def _add(total: Simulated, one: Simulated) -> None:
    total.finished += one.finished
    total.failed += one.failed
    total.milliseconds += one.milliseconds
    total.retried += one.retried
    total.acknowledged |= one.acknowledged


def _take_part(
    base: str, config: SimulationConfig, number: int, before: Event, begun: Event
) -> Simulated:
    """What one does, who begins when `before` is set; `begun` is set when they have, or failed."""
    found = Simulated()
    try:
        person = _Person(base, config, number, found)
        with person.client:
            person.run(before, begun)
    except (httpx.HTTPError, XNNError, KeyError, ValueError) as error:
        found.failed.append(f"participant {number + 1}: {type(error).__name__}: {error}")
    finally:
        before.wait()
        begun.set()
    return found


class _Person:
    """One synthetic participant."""

    def __init__(self, base: str, config: SimulationConfig, number: int, found: Simulated) -> None:
        # on this machine there is no certificate to check; reading them takes longer than all else
        url = httpx.URL(base)
        checked = url.scheme == "https" or url.host not in LOOPBACK
        self.client = httpx.Client(base_url=base, timeout=30, follow_redirects=True, verify=checked)
        self.config, self.found = config, found
        self.random = random.Random(f"{config.seed}/{number}")
        self.pauses = random.Random(f"{config.seed}/{number}/pauses")
        self.knowing = None if config.known is None else Knowing(config.known, self.random)
        self.skill = min(0.98, max(0.3, self.random.gauss(0.75, 0.12)))

    def run(self, before: Event, begun: Event) -> None:
        """From consent to the end; consent is given after that of those `before`."""
        arm = {} if self.config.arm is None else {"arm": self.config.arm}
        page = self._ask("GET", "/", params={"synthetic": "1", **arm})
        self._wait()
        before.wait()
        page = self._send("/start", page, {"agree": "yes"})
        begun.set()
        for _ in range(200):
            path = page.url.path.removeprefix(self.client.base_url.path.rstrip("/"))
            if path == "/done":
                self.found.finished += 1
                return
            page = self._answer(path, page)
        raise XNNError("the study does not end")

    def _answer(self, path: str, page: httpx.Response) -> httpx.Response:
        if match := re.fullmatch(r"/stage/(\d+)", path):
            return self._sort(int(match.group(1)))
        choose = self.random.randint
        if path.endswith("/confidence"):
            fields = {"confidence": str(choose(2, 6))}
            if 'name="attention"' in page.text:
                fields["attention"] = "3" if self.random.random() < 0.95 else "5"
            if cues := page.text.count('name="cue"'):
                drawn = choose(0, cues - 1)
                fields["cue"] = str(self.knowing.cue(page.text) if self.knowing else drawn)
        elif path == "/ratings":
            names = ("rating_one_heatmap", "rating_xnn")
            fields = {n: str(choose(2, 7)) for n in names if f'name="{n}"' in page.text}
            fields |= {"difficulty": str(choose(1, 7)), "comments": "written by a program"}
        elif path in ("/about-you", "/instructions") or path.endswith("/words"):
            fields = {}
        else:
            raise XNNError(f"unexpected page {path} (status {page.status_code})")
        self._wait()
        return self._send(path, page, fields)

    def _send(self, path: str, page: httpx.Response, fields: Mapping[str, str]) -> httpx.Response:
        """Send the form of a page, with its hidden fields."""
        hidden = {}
        for tag in _HIDDEN.findall(page.text):
            found = dict(_ATTRIBUTE.findall(tag))
            if "name" in found:
                hidden[found["name"]] = found.get("value", "")
        return self._ask("POST", path, data={**hidden, **fields})

    def _sort(self, position: int) -> httpx.Response:
        """Look at the pictures, put them into groups, hand in."""
        start = time.perf_counter()
        content = self._ask("GET", f"/api/stages/{position}").json()
        signature = {"X-CSRF-Token": content["csrf"]}
        events = [self._event("open", start), self._event("device", start, None, _DEVICE)]
        if content["features"]:
            value = {"feature": self.random.randint(1, content["features"]), "on": True}
            events.append(self._event("feature", start, None, value))
        elif content["stage"] == "1-Heatmap":
            events.append(self._event("all_overlays", start, None, {"on": True}))
        self._keep(position, events, signature)
        for image, group in self._answers(content).items():
            self._wait()
            move = {"group": group, "how": "drag", "by": "mouse"}
            self._keep(position, [self._event("move", start, image, move)], signature)
        answer = self._ask("POST", f"/api/stages/{position}/submit", headers=signature)
        return self._ask("GET", answer.json()["next"])

    def _answers(self, content: Mapping[str, Any]) -> dict[str, int]:
        """A group, or an answer of the network, for every picture; some are drawn at random."""
        if self.knowing is not None and content["position"] != PRACTICE:
            return self.knowing.answers(content)
        if content["task"] == "forward_simulation":
            found, most = predict_answers(content, self._pixels), content["answers"]
        elif content["task"] == "odd_cue":
            seen = content["images"][: self.random.randint(1, len(content["images"]))]
            found, most = {image["id"]: 1 for image in seen}, 1
        else:
            found, most = self._groups(content), content["groups"]
        return {
            image: self.random.randint(1, most) if self.random.random() > self.skill else answer
            for image, answer in found.items()
        }

    def _groups(self, content: Mapping[str, Any]) -> dict[str, int]:
        """A group for every picture, by what the stage shows of it."""
        images = content["images"]
        looks = np.array([self._look(image) for image in images])
        looks = (looks - looks.mean(0)) / (looks.std(0) + 1e-9)
        # not k-means, which warns where pictures show the same, as an x-feature that is off does
        groups = fcluster(linkage(looks, "ward"), content["groups"], "maxclust")
        pairs = zip(images, groups, strict=True)
        return {image["id"]: int(group) for image, group in pairs}

    def _look(self, image: Mapping[str, Any]) -> np.ndarray:
        if any(feature["contribution"] is not None for feature in image["features"]):
            return np.array([feature["contribution"] for feature in image["features"]])
        if image["features"]:
            return np.concatenate([self._pixels(each["overlay"]) for each in image["features"]])
        return self._pixels(image["heatmap"] or image["picture"])

    def _pixels(self, path: str) -> np.ndarray:
        """What is remembered of a picture."""
        answer = self._ask("GET", path)
        with Image.open(BytesIO(answer.content)) as picture:
            small = picture.convert("RGB").resize((_LOOKS, _LOOKS))
        return np.asarray(small, dtype=np.float64).flatten()

    def _event(
        self,
        name: str,
        start: float,
        image: str | None = None,
        value: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {
            "id": f"{self.random.getrandbits(64):016x}",
            "type": name,
            "image": image,
            "value": dict(value or {}),
            "ms": (time.perf_counter() - start) * 1000,
        }

    def _keep(
        self, position: int, events: list[dict[str, Any]], headers: Mapping[str, str]
    ) -> None:
        path = f"/api/stages/{position}/events"
        answer = self._ask("POST", path, json={"events": events}, headers=dict(headers))
        self.found.acknowledged |= set(answer.json()["saved"])

    def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """A request, repeated with growing pauses while the server is down or busy."""
        for attempt in range(ATTEMPTS):
            start = time.perf_counter()
            try:
                answer = self.client.request(method, path, **sent)
            except httpx.TransportError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                if answer.status_code not in (429, 502, 503, 504):
                    if answer.status_code != 409:  # repeated: it names the page to go on with
                        answer.raise_for_status()
                    if method == "POST" and attempt == 0:
                        self.found.milliseconds.append((time.perf_counter() - start) * 1000)
                    return answer
            self.found.retried += 1
            time.sleep(min(4.0, 0.25 * 2**attempt) * (0.5 + self.pauses.random()))
        raise XNNError(f"{method} {path}: the server stayed busy")

    def _wait(self) -> None:
        if self.config.pause:
            time.sleep(self.pauses.expovariate(1 / self.config.pause))


_DEVICE = {"width": 1280, "height": 800, "ratio": 1, "pointer": "fine"}
