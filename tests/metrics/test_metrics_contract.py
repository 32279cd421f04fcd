"""What every registered metric keeps to."""

import dataclasses
import re

import pytest

from torchxnn.apps.benchmark.maps import OCCLUSION
from torchxnn.apps.benchmark.measure import FIT_FIGURES
from torchxnn.apps.benchmark.summary import TESTED
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.metrics.table import METRICS, faithfulness_rows

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
FOUND = Faithfulness(
    f_reg=0.25, f_cls=0.9, f_reg_positives=0.5, f_cls_positives=0.75, r2=0.4, images=2000,
    positives=1500, n_features=5, active=1, dead=2, share=((1.0, 0.0, 0.0, 0.0, 0.0),),
)  # fmt: skip


def described(metric):
    """What the docstring of the result says about the figure."""
    text = " ".join((metric.result.__doc__ or "").split())
    others = "|".join(field.name for field in dataclasses.fields(metric.result))
    found = re.search(rf"\b{metric.field}: (.*?)(?= (?:{others}): |$)", text)
    return found.group(1) if found else ""


@every_metric
def test_every_figure_is_one_of_a_frozen_result(metric):
    fields = {field.name: field for field in dataclasses.fields(metric.result)}
    assert metric.result.__dataclass_params__.frozen
    assert metric.field in fields
    assert metric.counted is None or metric.counted in fields
    assert described(metric)


@every_metric
def test_every_figure_says_what_it_means_and_which_way_is_better(metric):
    assert re.fullmatch(r"[^a-z].*|x-features.*", metric.meaning)
    assert metric.meaning.endswith(".")
    if metric.better in ("lower", "higher"):
        whole = " ".join((metric.result.__doc__ or "").split())
        every = f"every figure is better when {metric.better}"
        assert f"{metric.better} is better" in described(metric) or every in whole
    assert metric.label.startswith(metric.name)


def test_names_are_different():
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)


def test_what_a_benchmark_compares_is_registered():
    by_other_maps = {OCCLUSION}
    assert set(FIT_FIGURES) - by_other_maps <= set(METRICS)
    for name in set(TESTED) & set(METRICS):
        assert METRICS[name].better.replace("2 or more", "higher") == TESTED[name]


def test_texts_by_hand():
    names = ("f_reg", "f_cls", "r2", "active", "positives", "margin")
    texts = [METRICS[name].text(FOUND) for name in names]
    assert texts == ["0.25", "90.00%", "0.400", "1 of 5", "1,500 of 2,000", "-"]
    rows = {row["name"]: row for row in faithfulness_rows([("train", FOUND)])}
    assert rows["R²"]["cells"] == [{"text": "0.400", "bad": True}]
    assert rows["Active x-features"]["better"] == "2 or more"
    assert rows["Dead x-features"]["cells"] == [{"text": "2", "bad": True}]
    assert not rows["F_reg"]["cells"][0]["bad"]
