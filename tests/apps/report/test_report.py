import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from explanation_examples import HOSTILE, explanation, faithfulness, peak, photograph
from page_examples import Page
from torchxnn.apps.report import FeatureSheet, Report, SheetItem, write_report
from torchxnn.apps.report.build import _typical_first
from torchxnn.explanations.drawing.html import data_uri
from torchxnn.metrics.among_positives import AmongPositives
from torchxnn.metrics.orthogonality import Orthogonality
from torchxnn.training.config import Losses, TrainConfig
from torchxnn.training.report import FitReport

LOSSES = Losses(faithfulness=0.1, sparse_reconstruction=0.5, pull_away=0.2, total=0.8)
REFERENCES = ("src", "href", "srcset", "action", "data", "poster", "background", "formaction")


def fit_report(validation=None, targets=(4,), **changes):
    train = faithfulness(targets=len(targets))
    validation = validation or train
    base = FitReport(
        targets=targets, positives_by="label", held_out="split", train=train,
        validation=validation, train_losses=LOSSES, validation_losses=LOSSES,
        degenerate=validation.degenerate, trials=1, epochs=12, revived=0, seconds=3.2,
        config=TrainConfig(seed=7),
    )  # fmt: skip
    return replace(base, **changes)


def sheet(index=0, count=2, **changes):
    item = SheetItem(photograph(), peak(), 1.5, -0.7, "bird/4.jpg")
    base = FeatureSheet(index, f"x-feature {index + 1}", 0.5, (item,) * count)
    return replace(base, **changes)


def report(**changes):
    base = Report(
        title="Why bird 4",
        subtitle="Three concepts",
        model_name="squeezenet",
        layer="classifier.1",
        targets=("bird 4",),
        fit=fit_report(),
        evaluation=None,
        explanations=(explanation(),),
        sheets=(sheet(),),
        notes=("Images: CC BY.",),
    )
    return replace(base, **changes)


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        write_report(report(**changes), tmp_path / "report.html")
        return Page(tmp_path / "report.html")

    return write


def test_the_page_says_everything(written):
    page = written()
    for text in (
        "Why bird 4", "Three concepts", "squeezenet", "classifier.1", "bird 4 (class 4)",
        "How to read this", "F_reg", "F_cls", "R²", "Active", "Dead", "lower", "higher", "Held-out",
        "99.0%", "95.0%", "3 of 3", "x-feature 2", "\N{MINUS SIGN}2.00", "+1.00", "50%",
        "the network gives \N{MINUS SIGN}0.15", "conservation error 3.0e-07", "own colour scale",
        "E = 1.50", "Images: CC BY.", "seed", "torch",
    ):  # fmt: skip
        assert text in page.text, text


def test_stability_likeness_and_overlap_of_the_fit_are_said(written):
    variation = ((1.0, 0.2, 0.95), (0.2, 1.0, 0.0), (0.95, 0.0, 1.0))
    known = (AmongPositives((1.0, 2.0, 0.0), (0.1, 0.2, 0.3), variation),)
    found = Orthogonality(1.25, 3.0, 0.31, 3, 3, 7)
    fit = fit_report(among_positives=known, not_resampled="several targets")
    text = written(fit=fit, orthogonality=found).text
    assert "not measured: several targets" in text
    assert "x-features 1 and 3 (variation on the class r = 0.95)" in text
    assert "mean squared correlation 0.31, O1 1.25 of 3 x-features on 7 images" in text
    assert "x-feature 2 10%" in written(fit=fit_report(found_again=(0.5, 0.1, 1.0))).text


def test_the_certificate_of_the_fit_stands_once_and_each_card_has_its_own_line(written):
    a, b = (replace(explanation(), logits=explanation().reproduced + off) for off in (0.1, 0.2))
    fit = fit_report(not_resampled="several targets")
    told = [replace(each, not_resampled="several targets") for each in (a, b)]
    page = written(explanations=tuple(told), fit=fit)
    for once in (
        "Faithfulness on 100 held-out images", "Heatmaps: excitation backprop, float32;",
        "Overlap: mean squared correlation", "not measured: several targets",
    ):  # fmt: skip
        assert page.text.count(once) == 1, once
    assert "error of the reproduced logit 0.10; overlap of the heatmaps 0." in page.text
    assert "error of the reproduced logit 0.20; overlap of the heatmaps 0." in page.text
    assert page.text.count("conservation error 3.0e-07, fallback share 1.0%") == 2


def test_a_bound_that_all_images_share_is_said_once(written):
    known = replace(faithfulness(), error_bound=(0.5,), bound_positives=(10,))
    page = written(explanations=(explanation(faithfulness=known),) * 2)
    assert (
        page.text.count(
            "The bound of the error of the reproduced logit, 0.50, is one that a new "
            "image stays within with probability at least 10/11 (91%)"
        )
        == 1
    )
    assert page.text.count("error of the reproduced logit 0.10 of at most 0.50") == 2


def test_the_page_links_the_card_beside_it(written):
    assert "card of this XNN" not in written().text
    page = written(card=(("Markdown", "a #1.card.md"), ("JSON", "x:y.card.json")))
    goals = [link["href"] for link in page.all("a") if not link["href"].startswith("#")]
    assert goals == ["./a%20%231.card.md", "./x%3Ay.card.json"]


def test_provenance_is_lines_and_says_nothing_twice(written):
    fit = fit_report(config=TrainConfig(epochs=40, trials=5, beta=100.0, hidden=(16,)))
    page = written(fit=fit, provenance=(("model", "a net"),))
    told = page.text[page.text.rindex("Provenance\n") :]
    lines = [line for line in map(str.strip, told.splitlines()) if line]
    assert lines[3:5] == ["Modela net", "Positivesfound by their label"]
    assert "Fit12 of at most 40 epochs in the best trial; 1 of at most 5 trials; 3 s" in lines
    loss = "0.8 in all, of weighted terms: faithfulness 0.1, reconstruction (sparse) 0.5, pull-away"
    assert f"Held-out loss{loss} 0.2" in lines
    assert {"most epochs40", "most trials5", "beta100", "hidden16", "subspace64"} <= set(lines)
    assert len(lines) == len(set(lines))
    assert "{" not in told
    assert "pool" not in told
    of_maps = written(fit=fit, on_maps=True).text
    assert "poolingnone" in of_maps
    assert "channels64, 32" in of_maps
    assert "hidden16" not in of_maps


def test_contributions_are_in_order_and_coloured_by_sign(written):
    amounts = re.findall(r'class="amount (\w+)">([^<]+)<', written().source)
    assert amounts == [
        ("negative", "\N{MINUS SIGN}2.00"), ("positive", "+1.00"), ("positive", "+0.50")
    ]  # fmt: skip


def test_nothing_is_requested_from_outside(written):
    page = written()
    for tag, attrs in page.tags:
        for name in REFERENCES:
            assert attrs.get(name, "data:").startswith(("data:", "#")), (tag, attrs[name])
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
    assert not page.all("script")
    assert not page.all("link")
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert not re.search(r"https?://", page.source)


def test_the_policy_allows_the_style_sheet_and_data_images_only(written):
    page = written()
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert len(page.all("html")) == len(page.all("main")) + len(page.all("header")) == 1
    assert page.all("html")[0]["lang"] == "en"


def test_the_policy_names_the_hash_of_the_very_style_sheet(written):
    source = written().source
    (style,) = re.findall(r"<style>(.*?)</style>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"&#39;sha256-{digest}&#39;" in source or f"'sha256-{digest}'" in source


def test_every_image_has_alternative_text_and_every_link_a_goal(written):
    page = written(explanations=(explanation(), explanation(((1.0, 0.0, 2.0), (0.0, 1.0, 1.0)))))
    assert len(page.all("img")) > 10
    assert all(image["alt"].strip() for image in page.all("img"))
    goals = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {a["href"][1:] for a in page.all("a")} <= goals
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))


def test_hostile_names_are_harmless_everywhere(written):
    item = SheetItem(photograph(), peak(), 1.0, 1.0, HOSTILE)
    page = written(
        title=HOSTILE, subtitle=HOSTILE, model_name=HOSTILE, layer=HOSTILE, targets=(HOSTILE,),
        notes=(HOSTILE,), provenance=((HOSTILE, HOSTILE),),
        sheets=(sheet(name=HOSTILE, items=(item,)),),
        explanations=(
            explanation(
                target_names=(HOSTILE,), predicted_name=HOSTILE, label=HOSTILE, path=HOSTILE,
                feature_names=(HOSTILE, "x-feature 2", "b"), degenerate=(HOSTILE,),
            ),
        ),
    )  # fmt: skip
    assert not page.all("script")
    assert "<script" not in page.source
    assert page.text.count("<script>alert") > 10
    assert not re.search("[\u202a-\u202e\x07]", page.source)
    assert "\u96ea" in page.text


def test_the_first_card_is_a_typical_one_whose_reasons_can_be_given():
    told, missed = explanation(predicted_class=1), explanation(predicted_class=0)
    declined = explanation(predicted_class=1, degenerate=("dead",))
    own = [True, True, True, True, True, False]
    assert _typical_first([told, told, told, told, told, missed], own, 1) == [2, 0, 1, 3, 4, 5]
    assert _typical_first([told, told, declined, told, missed, told], own, 1) == [1, 0, 2, 3, 4, 5]
    assert _typical_first([declined, missed, missed, told, told, told], own, 1) == [
        3,
        0,
        1,
        2,
        4,
        5,
    ]
    assert _typical_first([declined, missed], [True, True], 1) == [1, 0]
    assert _typical_first([declined, told], [True, False], 1) == [0, 1]


def test_what_is_odd_has_a_section_of_its_own(written):
    assert "What is odd" not in written().text
    page = written(remarks=("Odd: <b>corners</b> light up.",))
    assert "Odd: <b>corners</b> light up." in page.text
    assert page.source.index('id="main"') < page.source.index('id="remarks"')
    assert 'href="#remarks"' in page.source


def test_a_degenerate_fit_is_announced_at_the_top(written):
    assert "degenerate. Do not read" not in written().text
    bad = faithfulness(active=1, dead=2, r2=0.2)
    page = written(fit=fit_report(bad))
    assert "This fit is degenerate" in page.text
    for reason in bad.degenerate:
        assert page.text.index(reason) < page.text.index("How to read this")
    assert any(a.get("role") == "alert" for _, a in page.tags)
    assert "0.200" in page.text


def test_a_fit_that_fails_on_test_data_is_announced_too(written):
    page = written(evaluation=faithfulness(r2=-0.5))
    assert "on test images: R^2 -0.50" in page.text
    assert "Test" in page.text


def test_several_targets_get_a_table_of_contributions(written):
    page = written(
        targets=("bird 4", "bird 5"),
        fit=fit_report(faithfulness(targets=2), targets=(4, 5)),
        explanations=(explanation(((1.0, -2.0, 0.0), (0.5, 3.0, 0.0))),),
    )
    table = page.source[page.source.index('class="sums"') :]
    cells = re.findall(r'<td class="(\w+)">([^<]+)</td>', table[: table.index("</table>")])
    minus = "\N{MINUS SIGN}"
    assert cells == [
        ("negative", f"{minus}2.00"), ("positive", "+1.00"), ("none", "0"), ("muted", "+0.25"),
        ("positive", "+3.00"), ("positive", "+0.50"), ("none", "0"), ("muted", "+0.25"),
    ]  # fmt: skip
    assert page.text.count("bird 5 (class 5)") == 1


def test_shares_say_which_x_features_speak_for_and_against(written):
    found = faithfulness(mean_contribution=((3.0, -1.0, 0.5),))
    rows = re.findall(r'<b class="(\w+)">(. \w+)</b>', written(evaluation=found).source)
    against = ("negative", "\N{MINUS SIGN} against")
    assert rows == [("positive", "+ for"), against, ("positive", "+ for")]
    earlier = written()  # a record that does not say
    assert not re.findall(r'<b class="(\w+)">(. \w+)</b>', earlier.source)


def test_inactive_features_and_an_empty_sheet_are_said(written):
    page = written(
        explanations=(explanation(((1.0, 0.0, 2.0),)),), sheets=(sheet(), sheet(1, count=0))
    )
    assert page.text.count("inactive here") == 1
    assert "Inactive on every image" in page.text


def test_a_single_feature_and_a_report_without_images(written):
    assert "x-feature 1" in written(explanations=(), sheets=()).text
    one = faithfulness(n=1)
    page = written(fit=fit_report(one, train=one), explanations=(explanation(((2.0,),)),))
    assert "+2.00" in page.text


def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_report(report(), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_same_report_twice_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_report(report(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.slow
def test_a_report_of_twelve_images_and_five_sheets_stays_below_six_megabytes(tmp_path):
    """On images that compress far worse than photographs; two cards and one sheet, scaled up."""
    coarse = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    noise = coarse.repeat(4, axis=0).repeat(4, axis=1)
    five = explanation(((5.0, 4.0, 3.0, 2.0, -1.0),), size=(224, 224), image=noise)
    item = SheetItem(noise, peak(224, 224), 1.0, 1.0, "x.jpg")
    fit = fit_report(faithfulness(n=5))
    sizes = []
    for explanations, sheets in (((five,) * 2, ()), ((), (sheet(items=(item,) * 8),))):
        write_report(report(fit=fit, explanations=explanations, sheets=sheets), tmp_path / "a.html")
        sizes.append((tmp_path / "a.html").stat().st_size)
    assert 6 * sizes[0] + 5 * sizes[1] < 6e6


def test_large_images_are_shrunk():
    assert len(data_uri(photograph(1000, 800))) < 1.2 * len(data_uri(photograph(256, 205)))


def test_one_explanation_is_a_page_of_its_own(tmp_path):
    explanation().to_html(tmp_path / "one.html")
    page = Page(tmp_path / "one.html")
    assert (
        "because of x-feature 1 (+1.00, 29%) and x-feature 3 (+0.50, 14%); against it" in page.text
    )
    assert all(image["alt"] for image in page.all("img"))
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert "own colour scale" in page.text
