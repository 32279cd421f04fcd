"""A real browser for tests of the study: server, recorder, and the three ways to use a page."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn

from torchxnn.apps.study.server.app import create_app

ADMIN = "a-token-of-the-admin"


# --- the server


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass
class Recorder:
    """An ASGI layer that keeps everything that leaves the server."""

    app: object
    sent: list = field(default_factory=list)  # (address, content type, body)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        address = scope["path"] + "?" + scope["query_string"].decode()
        kind, parts = "", []

        async def keep(message):
            nonlocal kind
            if message["type"] == "http.response.start":
                headers = {name.lower(): value for name, value in message["headers"]}
                kind = headers.get(b"content-type", b"").decode()
                parts.append(b"\n".join(headers.values()))
            else:
                parts.append(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, keep)
        self.sent.append((address, kind, b"\n".join(parts)))


@dataclass
class Served:
    url: str
    site: object
    recorder: Recorder


@contextmanager
def serve_app(app):
    """Serve an application in a thread; yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, lifespan="off", log_level="error", access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def serve(folder, **options):
    """Serve a study in a thread."""
    app = create_app(folder, admin_token=ADMIN, **options)
    recorder = Recorder(app)
    try:
        with serve_app(recorder) as url:
            yield Served(url, app.state.site, recorder)
    finally:
        app.state.site.database.close()


@contextmanager
def serve_command(folder, port):
    """`xnn study serve` as a process of its own, to be killed."""
    command = [sys.executable, "-m", "torchxnn.cli", "study", "serve", str(folder)]
    command += ["--port", str(port), "--admin-token", ADMIN]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/"))
            yield process
        finally:
            process.kill()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing after {seconds} s")
        time.sleep(0.02)


# --- the browser


def watch(page, problems):
    """Note every error of scripts, on the console, and against the content security policy."""
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: (
            message.type in ("error", "warning") and problems.append(f"console: {message.text}")
        ),
    )


class Hand:
    """How somebody uses a page; `press` and `place` differ."""

    def __init__(self, page):
        self.page = page

    def press(self, locator):
        raise NotImplementedError

    def choose(self, locator, steps):
        """The radio button that is `steps` after the first one of a group."""
        self.press(locator.nth(steps))

    def place(self, image, group):
        """Put a picture into a group."""
        raise NotImplementedError

    def card(self, image):
        return self.page.locator(f'.card[data-id="{image}"]')


class Mouse(Hand):
    def press(self, locator):
        locator.click()

    def place(self, image, group):
        drag(self.page, self.card(image).locator(".picture"), zone(self.page, group))


class Touch(Hand):
    def press(self, locator):
        locator.tap()

    def place(self, image, group):
        self.press(self.card(image).locator(".picture"))
        self.press(self.page.locator(f'.dock [data-group="{group}"]'))


class Keyboard(Hand):
    """Tab, arrows, space, digits; never a pointer."""

    def reach(self, locator):
        locator.wait_for()
        for _ in range(120):
            if locator.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {locator}")

    def press(self, locator):
        self.reach(locator)
        self.page.keyboard.press("Space" if self._is_box(locator) else "Enter")

    def _is_box(self, locator):
        return locator.evaluate("element => element.type === 'checkbox'")

    def choose(self, locator, steps):
        self.reach(locator.first)
        self.page.keyboard.press("Space")
        for _ in range(steps):
            self.page.keyboard.press("ArrowRight")

    def place(self, image, group):
        picture = self.card(image).locator(".picture")
        if self.page.locator(".picture:focus").count() == 0:
            self.reach(self.page.locator('.picture[tabindex="0"]'))
        for key in ("Home", *["ArrowRight"] * 40):
            if picture.evaluate("element => element === document.activeElement"):
                break
            self.page.keyboard.press(key)
        self.page.keyboard.press(str(group))


HANDS = {"mouse": Mouse, "touch": Touch, "keyboard": Keyboard}


def drag(page, start, end):
    box, target = start.bounding_box(), end.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(target["x"] + target["width"] / 2, target["y"] + 40, steps=3)
    page.mouse.up()


def zone(page, group):
    return page.locator(f'.zone[data-group="{group}"]')


def members(page, group):
    """Ids of the pictures in a group, 0 for none."""
    cards = zone(page, group).locator(".card")
    return cards.evaluate_all("cards => cards.map(card => card.dataset.id)")


def placed(page):
    """Groups by picture, as the page shows them."""
    return {image: group for group in range(1, 5) for image in members(page, group)}


# --- the way through the study


def agree(page, hand, url, **parameters):
    """From the link to the page after the consent."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    page.goto(f"{url}/?{query}")
    hand.press(page.get_by_role("checkbox"))
    hand.press(page.get_by_role("button", name="Start"))
    page.wait_for_url("**/about-you")


def begin(page, hand, url, **parameters):
    """From the link to the practice round."""
    agree(page, hand, url, **parameters)
    hand.press(page.get_by_role("button", name="Continue"))
    page.wait_for_url("**/instructions")
    hand.press(page.get_by_role("button", name="Go to the practice round"))
    opened(page, 0)


def opened(page, position):
    """Wait for a batch, or a part of the practice round; the ids of its pictures in order."""
    page.wait_for_url(f"**/stage/{position}")
    page.locator("#work").wait_for()
    return pictures(page)


def pictures(page):
    """The ids of the pictures on the page, by their numbers."""
    found = page.locator(".card").evaluate_all(
        """cards => cards.map((card) => [
          Number(card.querySelector(".small").innerText), card.dataset.id
        ])"""
    )
    return [image for _, image in sorted(found)]


def saved(page):
    page.locator('#status[data-state="saved"]').wait_for()


def sort(page, hand, position):
    """Put all pictures of a batch into groups; which went where."""
    opened(page, position)
    found = {}
    for _ in parts(page, hand, position):
        wanted = {image: n % 4 + 1 for n, image in enumerate(pictures(page))}
        for image, group in wanted.items():
            hand.place(image, group)
        assert placed(page) == wanted
        found |= wanted
    return found


def parts(page, hand, position):
    """Once for each part of a batch: two of the practice round, whose answers are checked."""
    yield 1
    if position == 0:
        hand.press(page.get_by_role("button", name="Check"))
        hand.press(page.get_by_role("button", name="Next part"))
        page.locator(".zones.many").wait_for()
        yield 2
        hand.press(page.get_by_role("button", name="Check"))


def sort_quickly(page, position):
    """Put all pictures of a batch somewhere, with digits alone."""
    opened(page, position)
    for _ in parts(page, Keyboard(page), position):
        page.locator(".tray .picture").first.focus()
        for n, _ in enumerate(pictures(page)):
            page.keyboard.press(str(n % 4 + 1))
        assert len(placed(page)) == len(pictures(page))


def hand_in(page, hand):
    before = page.url
    last = re.compile("Done with this batch|Go on to the study")
    hand.press(page.get_by_role("button", name=last))
    page.wait_for_url(lambda url: url != before)


def skip_to(page, hand, url, position, **parameters):
    """To the start of a batch, without looking."""
    begin(page, hand, url, **parameters)
    for each in range(position):
        sort_quickly(page, each)
        hand_in(page, hand)
        if each:
            answer_confidence(page, hand, 4)
    return opened(page, position)


def answer_confidence(page, hand, level):
    page.wait_for_url("**/confidence")
    hand.choose(page.locator("[name=confidence]"), level)
    if page.locator("[name=attention]").count():
        hand.choose(page.locator("[name=attention]"), 2)
    before = page.url
    hand.press(page.get_by_role("button", name="Continue"))
    page.wait_for_url(lambda url: url != before)


def stage_of(page):
    """The stage that a batch shows, by what is on the page."""
    if page.locator(".switch").count():
        return "XNN"
    return "1-Heatmap" if page.get_by_role("button", name="Show all heatmaps").count() else "NoVis"


# --- what a page looks like

NAMED_ROLES = {
    "button", "checkbox", "combobox", "dialog", "image", "img", "link", "progressbar", "radio",
    "radiogroup", "textbox", "ProgressIndicator",
}  # fmt: skip


def nameless(page):
    """Controls and pictures without an accessible name, from the browser's accessibility tree."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    found = [
        node.get("role", {}).get("value")
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in NAMED_ROLES
        if not node.get("name", {}).get("value", "").strip()
    ]
    assert nodes
    return found


CONTRASTS = """() => {
  const channels = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: parts.slice(0, 3), alpha: parts[3] ?? 1 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const { rgb, alpha } = channels(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(".unseen, .skip:not(:focus), noscript, option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(channels(style.color).rgb), luminance(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push([walker.currentNode.data.trim().slice(0, 40), ratio, large ? 3 : 4.5]);
  }
  return found;
}"""


def weak_contrasts(page):
    """Texts whose contrast is below WCAG AA, with the ratio."""
    page.evaluate(  # colours that still change are none yet
        """() => Promise.all(document.getAnimations()
          .filter((a) => a.effect.getTiming().iterations < 99)
          .map((a) => a.finished.catch(() => 0)))"""
    )
    found = page.evaluate(CONTRASTS)
    assert found
    return [(text, round(ratio, 2)) for text, ratio, least in found if ratio < least]


def overflow(page):
    """Pixels by which the page, or a window over it, is wider than it may be."""
    return page.evaluate(
        """() => Math.max(
          document.documentElement.scrollWidth - screen.width,
          ...[...document.querySelectorAll("dialog")].map((d) => d.scrollWidth - d.clientWidth),
        )"""
    )


def leaks(sent, words):
    """Addresses and answers in which a word is found."""
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words).encode(), re.I)
    return [
        (address, match[0])
        for address, kind, body in sent
        for text in (address.encode(), b"" if address.startswith("/static/") else body)
        if (match := pattern.search(text))
    ]
