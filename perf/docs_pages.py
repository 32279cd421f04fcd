"""Photograph the pages that torchxnn writes: a report, an atlas, the stage of a study.

The report and the atlas are of handwritten digits and the network of `docs_gallery.py`, the study
of beetles that the package draws. Run from the repository, with Playwright and Chromium:

    python perf/docs_pages.py

It writes `docs/gallery/page_*.webp`; some minutes on one core.
"""

import argparse
import runpy
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from torchxnn import XNN, TrainConfig
from torchxnn.apps.atlas import build_atlas
from torchxnn.apps.report import build_report, write_report
from torchxnn.apps.study.build import write_study
from torchxnn.apps.study.demo import prepare_figures
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import StudySettings
from torchxnn.data import ImageFolder
from torchxnn.errors import XNNWarning
from torchxnn.parallel import LocalEngine

README: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("docs_readme.py")))
GALLERY: dict[str, Any] = README["LIMITS"]["GALLERY"]
CHROMIUM = "/usr/bin/chromium"
SIZES = {"report": (1180, 900), "atlas": (1180, 900), "study": (1280, 900)}
"""Width and height of the window in pixels."""


def main(docs: Path, epochs: int = 8, classes: int = 10, only: Sequence[str] = ()) -> None:
    """Train, fit, write the pages, photograph them; `only` names some of the pages."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, chromium() as open_page:
        folder = Path(place)
        if not only or {"report", "atlas"} & set(only):
            digits = write_digits(folder, epochs, classes)
            page = open_page("report", (folder / "report.html").as_uri())
            keep(page.locator("article.card").first.screenshot(), docs, "report")
            if not only or "atlas" in only:
                write_atlas(folder, digits)
                page = open_page("atlas", (folder / "atlas" / "index.html").as_uri())
                keep(page.screenshot(), docs, "atlas")
        if not only or "study" in only:
            with serve(write_beetles(folder)) as address:
                page = open_page("study", address)
                go_to_stage(page)
                keep(page.screenshot(), docs, "study")


@contextmanager
def chromium() -> Iterator[Callable[[str, str], Page]]:
    """A function that opens an address in a window of its own."""
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_page(name: str, address: str) -> Page:
            width, height = SIZES[name]
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(600_000)  # a busy machine is no failure
            page.goto(address)
            page.wait_for_load_state("networkidle")
            return page

        yield open_page
        browser.close()


def keep(png: bytes, docs: Path, name: str) -> None:
    """Write what was seen of a page."""
    GALLERY["save_webp"](png, docs / "gallery" / f"page_{name}.webp")


# --- digits: report and atlas


@dataclass(frozen=True, eq=False)
class Digits:
    """The network, and a folder of test images as people have them."""

    model: torch.nn.Module
    dataset: ImageFolder


def write_digits(folder: Path, epochs: int, classes: int) -> Digits:
    """A folder of test images, saved XNNs of digits, the four among them, and a report of it."""
    model, images, labels, train, test = GALLERY["train_network"](epochs)
    named = tuple(f"{number:02} {word}" for number, word in enumerate(GALLERY["WORDS"]))
    for row in test.tolist():
        own = folder / "images" / named[labels[row]]
        own.mkdir(parents=True, exist_ok=True)
        pixels = (images[row].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(own / f"{row}.png")
    dataset = ImageFolder(folder / "images", GALLERY["PREPROCESSING"], classes=named)
    loader = [(images[batch], labels[batch]) for batch in train.split(100)]
    for target in sorted({README["FOUR"], *range(classes)}):
        xnn = XNN(model, "9", class_names=named, preprocessing=GALLERY["PREPROCESSING"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XNNWarning)  # the pages say so
            xnn.fit(loader, target, config=TrainConfig(seed=0))
        if target == README["FOUR"]:
            for feature, name in README["NAMES"].items():
                xnn.names = xnn.names.judge(feature, name, who="the authors")
            found = build_report(
                xnn, dataset, title="Why is this a four?", model_name="a small network"
            )
            write_report(found, folder / "report.html")
        xnn.save_pretrained(folder / "runs" / f"{target:04d}")
    return Digits(model, dataset)


def write_atlas(folder: Path, digits: Digits) -> None:
    """Of all saved XNNs."""
    build_atlas(
        digits.model,
        folder / "runs",
        digits.dataset,
        folder / "atlas",
        title="Atlas of ten digits",
        model_name="a small network",
        engine=LocalEngine(1),
    )


# --- beetles: the study


def write_beetles(folder: Path) -> Path:
    """A study of drawn beetles with three batches in each stage."""
    settings = StudySettings(title="A study to try things out", sets=3, attention_check=False)
    write_study(settings, [lambda: prepare_figures("beetles")], folder / "study")
    return folder / "study"


def go_to_stage(page: Page) -> None:
    """As a participant to the first batch with x-features, and four pictures into groups."""
    page.get_by_role("checkbox").click()
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Go to the practice round").click()
    sort(page)
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Next part").click()
    page.locator(".zones.many").wait_for()
    sort(page)
    page.get_by_role("button", name="Check").click()
    leave(page, "Go on to the study")
    page.locator("#work").wait_for()
    while not page.locator(".switch").count():
        sort(page)
        leave(page, "Done with this batch")
        page.locator("[name=confidence]").nth(4).click()
        leave(page, "Continue")
        page.locator("#work").wait_for()
    sort(page, 4)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(300)  # until what was moved has come to rest


def leave(page: Page, button: str) -> None:
    """Press a button that leads to another page, and wait for that."""
    before = page.url
    page.get_by_role("button", name=button).click()
    page.wait_for_url(lambda url: url != before)


def sort(page: Page, most: int = 99) -> None:
    """Put pictures into groups by keyboard, `most` of them."""
    page.locator("#work").wait_for()
    pictures = page.locator(".tray .picture")
    pictures.first.focus()
    for number in range(min(most, pictures.count())):
        page.keyboard.press(str(number % 4 + 1))


@contextmanager
def serve(study: Path) -> Iterator[str]:
    """The study's server in a thread; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    app = create_app(study)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, lifespan="off", log_level="error", access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        app.state.site.database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    parser.add_argument("--only", nargs="*", default=(), choices=tuple(SIZES))
    chosen = parser.parse_args()
    main(chosen.docs, only=chosen.only)
