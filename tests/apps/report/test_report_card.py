"""A report and the card beside it say the same of one XNN."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from atlas_examples import make_parts, small_network
from page_examples import Page
from torchxnn import XNN
from torchxnn.apps.report import ReportConfig, build_report
from torchxnn.apps.report.write import write_with_card
from torchxnn.apps.run_card import read_card
from torchxnn.attribution.base import Certificate
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.record import record_activations
from torchxnn.errors import ModelError
from torchxnn.explanations.certificate import worst_certificate
from torchxnn.metrics.table import METRICS

# the tiny network has few units that agree with a unit's sign
pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def built(parts):
    run = parts.runs / parts.folders[1]
    xnn = XNN.from_pretrained(run, small_network())
    xnn.names = xnn.names.judge(0, "blue wing", who="Ada")
    config = ReportConfig(images=2, sheet=2)
    return run, xnn, build_report(xnn, parts.dataset, title="Why?", model_name="net", config=config)


def test_card_and_page_say_the_same_names_figures_and_accuracy(built, tmp_path):
    run, xnn, report = built
    files = write_with_card(report, run, xnn, tmp_path / "page.html")
    assert files == ["page.card.md", "page.card.json"]
    page, card = Page(tmp_path / "page.html"), json.loads((tmp_path / files[1]).read_bytes())
    assert [one["name"] for one in card["features"]] == list(xnn.feature_names)
    assert "“blue wing”" in page.text
    assert [one["share"] for one in card["features"]] == list(report.evaluation.share[0])
    own, images = report.evaluation.bound_positives[0], report.evaluation.images
    assert own < images
    assert card["shares_on"] == f"the {own} positives among {images} images evaluated"
    rows = dict(card["faithfulness"])
    for name in ("r2", "f_reg", "f_reg_positives", "f_cls"):
        text = METRICS[name].text(report.evaluation)
        assert text in rows["on the images evaluated"]
        assert text in page.text
    assert "of which XNN is not recorded" not in rows["on the images evaluated"]
    accuracy = dict(card["network"])["labels of the images evaluated"]
    assert f"Labels of these images{accuracy}" in page.text.replace("\n", "")
    overlap = dict(card["maps"])["overlap"]
    assert f"{report.orthogonality.maps} images" in overlap
    for figure in ("mean_squared_correlation", "o1"):
        text = f"{getattr(report.orthogonality, figure):.2f}"
        assert text in overlap
        assert text in page.text[page.text.index("Overlap of the heatmaps") :]
    assert card["title"] == "Why Blue <b>jay & co?"
    assert page.text.count("Blue <b>jay & co") > 3
    without_files = re.sub(r"File.*/\d+\.png", "", page.text)
    assert not re.search(r"00[1-4]\.", without_files), "a folder's name instead of the class's"
    links = [link["href"] for link in page.all("a")]
    assert {f"./{name}" for name in files} <= set(links)


def test_no_card_of_another_xnn_that_was_saved_there_since_the_first_was_loaded(
    built, parts, tmp_path
):
    run, xnn, report = built
    there = tmp_path / "run"
    shutil.copytree(parts.runs / parts.folders[2], there)
    features = [json.loads((each / "xnn.json").read_bytes())["embedding"]["n_features"]
                for each in (run, there)]  # fmt: skip
    assert features == [xnn.embedding.n_features] * 2  # so the weights alone tell
    with pytest.raises(ModelError, match="of another XNN than the one in"):
        write_with_card(report, there, xnn, tmp_path / "page.html")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_card_takes_the_names_of_the_page_though_somebody_named_more_since(built):
    run, xnn, _ = built
    assert read_card(run).features[0].name == "x-feature 1"
    assert read_card(run, names=xnn.names).features[0].name == "“blue wing”"


def test_recorded_activations_are_not_recorded_again(built, parts, monkeypatch):
    _, xnn, report = built
    data = record_activations(xnn.model, xnn.layer, make_loader(parts.dataset))
    monkeypatch.setattr("torchxnn.apps.report.build.record_activations", None)
    config = ReportConfig(images=2, sheet=2)
    again = build_report(
        xnn, parts.dataset, title="Why?", model_name="net", config=config, data=data
    )
    assert again.evaluation == report.evaluation


def test_the_worst_of_certificates_by_hand():
    one = Certificate(1e-7, 0.2, "float32", "m", {}, None, (0.3, None), (0.1, 0.0))
    two = replace(one, conservation_error=2e-7, fallback_share=0.1, contrast_mass=(0.1, 0.5),
                  fallback_shares=(0.0, 0.2))  # fmt: skip
    worst = replace(one, conservation_error=2e-7, contrast_mass=(0.1, 0.5),
                    fallback_shares=(0.1, 0.2))  # fmt: skip
    assert worst_certificate([one, two]) == worst
    nothing = Certificate(None, None, "float32", "m", {}, 0.5)
    assert worst_certificate([nothing, replace(nothing, completeness_error=0.7)]) == replace(
        nothing, completeness_error=0.7
    )
    off = replace(one, contrast_mass=(None, None))
    assert worst_certificate([off, off]).contrast_mass == (None, None)
