"""A report on a phone and on paper, in a real browser."""

from dataclasses import replace

import pytest

from explanation_examples import explanation, faithfulness, peak, photograph
from real_browser import PHONE
from torchxnn.apps.report import FeatureSheet, Report, SheetItem, write_report
from torchxnn.training.config import Losses, TrainConfig
from torchxnn.training.report import FitReport

pytestmark = pytest.mark.slow

SHEET = 703, 1032  # pixels of A4 within margins of 12 mm


def write(folder, cards, sheets, **more):
    """Cards of five x-features, with all that a map can be said to be, and as many sheets."""
    found = faithfulness(n=5, error_bound=(0.9,), bound_positives=(10,))
    shown = explanation(
        ((2.1, 1.9, 1.6, -0.9, 0.4),), size=(64, 64), faithfulness=found,
        target_names=("European Goldfinch",), path="birds/European_Goldfinch_0001.jpg",
        **more,
    )  # fmt: skip
    item = SheetItem(photograph(), peak(), 1.5, -0.7, "entrance_hall", "mass 2.5%")
    losses = Losses(faithfulness=0.1, sparse_reconstruction=0.5, pull_away=0.2, total=0.8)
    fit = FitReport(
        targets=(4,), positives_by="label", held_out="split", train=found, validation=found,
        train_losses=losses, validation_losses=losses, degenerate=(), trials=1, epochs=12,
        revived=0, seconds=3.2, config=TrainConfig(), not_resampled="several targets",
    )  # fmt: skip
    file = folder / "report.html"
    write_report(
        Report(
            title="Why European Goldfinch?", subtitle="", model_name="torchvision:squeezenet1_1",
            layer="classifier.1", targets=("European Goldfinch",), fit=fit, evaluation=None,
            explanations=(shown,) * (cards - 1) + (replace(shown, anchored=False),),
            remarks=("Odd: corners light up.",),
            sheets=tuple(
                FeatureSheet(i, f"x-feature {i + 1}", 0.2, (item,) * 8) for i in range(sheets)
            ),
        ),
        file,
    )  # fmt: skip
    return file


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of three cards and a sheet."""
    return write(tmp_path_factory.mktemp("short"), 3, 1)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """A page of six cards, as the demonstration has, and five sheets."""
    more = {"found_again": (0.95,) * 5, "used": (True, False, None, None, None)}
    return write(tmp_path_factory.mktemp("long"), 6, 5, **more)


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


HEIGHT = "document.documentElement.scrollHeight"
FOLDED = (".certificate", ".howto", ".figures", ".settings", ".of-maps .evidence", ".of-all p")
"""What a small screen folds, and nothing else does."""


def is_seen(page, selector):
    """Which of the elements are seen: closed folds leave them in the page, but skipped."""
    return page.evaluate(
        f"[...document.querySelectorAll('{selector}')].map(e => e.checkVisibility())"
    )


def test_a_phone_reads_answers_and_maps_first_and_opens_the_rest(chromium, long_file):
    with chromium.new_context(**PHONE) as context:
        page = context.new_page()
        page.goto(long_file.as_uri())
        assert page.evaluate(HEIGHT) < 8000
        assert is_seen(page, ".evidence") == [True] * 3 + [False] * 3
        assert is_seen(page, ".verdict") == [True] * 6 + [False] * 6
        assert not any(is_seen(page, ".details > span:not(.verdict)"))
        for selector in (".card h3", ".card > .key", ".card > .banner", "#remarks p", ".shares li"):
            found = is_seen(page, selector)
            assert found, selector
            assert all(found), selector
        for selector in FOLDED:
            assert not any(is_seen(page, selector)), selector
        for summary in page.locator(".fold > summary").all():
            summary.tap()
        for selector in (*FOLDED, ".of-each"):
            assert all(is_seen(page, selector)), selector
        sheet = page.locator(".sheet ol").first
        assert sheet.evaluate("e => e.scrollWidth > e.clientWidth && e.clientHeight < 300")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]


@pytest.mark.parametrize("media", ["screen", "print"])
def test_wide_screens_and_paper_show_all_without_a_fold(chromium, long_file, media):
    """Paper is as narrow as a tablet, which folds nothing either."""
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.emulate_media(media=media)
        if media == "print":
            page.set_viewport_size({"width": 390, "height": 900})
        page.goto(long_file.as_uri())
        assert not any(is_seen(page, ".fold > summary, .of-each"))
        assert not page.locator("details[open]").count()
        for selector in (*FOLDED, ".panels .details span"):
            found = is_seen(page, selector)
            assert found, selector
            assert all(found), selector


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
