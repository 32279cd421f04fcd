"""A report on a phone and on paper, in a real browser."""

import importlib.util
from pathlib import Path

import pytest

import study_browser as b
from explanation_examples import explanation, faithfulness, peak, photograph
from torchxnn.apps.report import FeatureSheet, Report, SheetItem, write_report
from torchxnn.training.config import Losses, TrainConfig
from torchxnn.training.report import FitReport

if not Path(b.CHROMIUM).is_file():
    pytest.skip(f"no browser at {b.CHROMIUM}", allow_module_level=True)
if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed", allow_module_level=True)

from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SHEET = 703, 1032  # pixels of A4 within margins of 12 mm


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Three cards of five x-features, with all that a map can be said to be."""
    found = faithfulness(n=5, error_bound=(0.9,), bound_positives=(10,))
    shown = explanation(
        ((2.1, 1.9, 1.6, -0.9, 0.4),), size=(64, 64), faithfulness=found,
        target_names=("European Goldfinch",), path="birds/European_Goldfinch_0001.jpg",
    )  # fmt: skip
    item = SheetItem(photograph(), peak(), 1.5, -0.7, "entrance_hall", "mass 2.5%")
    losses = Losses(faithfulness=0.1, sparse_reconstruction=0.5, pull_away=0.2, total=0.8)
    fit = FitReport(
        targets=(4,), positives_by="label", held_out="split", train=found, validation=found,
        train_losses=losses, validation_losses=losses, degenerate=(), trials=1, epochs=12,
        revived=0, seconds=3.2, config=TrainConfig(), not_resampled="several targets",
    )  # fmt: skip
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        Report(
            title="Why European Goldfinch?", subtitle="", model_name="torchvision:squeezenet1_1",
            layer="classifier.1", targets=("European Goldfinch",), fit=fit, evaluation=None,
            explanations=(shown,) * 3, sheets=(FeatureSheet(0, "x-feature 1", 0.4, (item,) * 8),),
        ),
        file,
    )  # fmt: skip
    return file


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=b.CHROMIUM, args=b.ARGUMENTS)
        yield browser
        browser.close()


def cut(page):
    """Texts of names and details that are wider than their place."""
    return page.evaluate(
        "[...document.querySelectorAll('.name, .amount, .details, figcaption, dd, h3')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)"
        ".map(e => e.textContent.trim())"
    )


def test_a_phone_shows_the_image_and_its_maps_on_one_screen(chromium, page_file):
    with chromium.new_context(**PHONE) as context:
        page = context.new_page()
        page.goto(page_file.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == PHONE["viewport"]["width"]
        for evidence in page.locator(".evidence").all():
            images = [image.bounding_box() for image in evidence.locator("img").all()]
            assert len(images) == 1 + 2 * 6
            top = min(box["y"] for box in images)
            assert max(box["y"] + box["height"] for box in images) - top < 700
            assert images[0]["width"] > 150
            assert min(box["width"] for box in images) > 75
        first = page.locator(".evidence img").first.bounding_box()
        assert first["y"] + first["height"] / 2 < PHONE["viewport"]["height"]
        assert cut(page) == []


def test_two_cards_fit_a_printed_page_and_nothing_is_cut(chromium, page_file):
    with chromium.new_context(viewport={"width": SHEET[0], "height": SHEET[1]}) as context:
        page = context.new_page()
        page.emulate_media(media="print")
        page.goto(page_file.as_uri())
        boxes = [card.bounding_box() for card in page.locator(".card").all()]
        assert len(boxes) == 3
        assert boxes[2]["y"] + boxes[2]["height"] - boxes[1]["y"] < SHEET[1]
        assert page.get_by_text("The whole logit").first.is_visible()
        assert cut(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == SHEET[0]
