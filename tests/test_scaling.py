"""The curves and the plan of docs/scale.md come from the record of `perf/fit_scaling.py`."""

import importlib.util
import json
import sys

import pytest

from docs_examples import ROOT

PAGE = ROOT / "docs" / "scale.md"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("fit_scaling", ROOT / "perf" / "fit_scaling.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def record(script, epoch=0.5, rest=10.0):
    return {"points": [{"at": script.PLAN, "runs": [{"epoch": epoch, "rest": rest}]}]}


def test_the_page_says_what_follows_from_the_record(script):
    found = json.loads((ROOT / "docs" / "benchmarks" / "scaling.json").read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    for line in (*script.unit_costs(found), *script.growth(found), *script.plan(found)):
        assert line in page, f"`python perf/fit_scaling.py --axes` says: {line}"


def test_every_point_of_the_curves_is_on_record(script):
    found = json.loads((ROOT / "docs" / "benchmarks" / "scaling.json").read_text("utf-8"))
    for axis in script.Scaling().axes:
        for at in script.points(axis):
            assert script.seconds(found, at, "epoch"), at


def test_plan_by_hand(script):
    """1,000 classes of 50 x .5 + 10 = 35 s are 9.7 hours; .12 s an image 42.7, 1.5 s 533.8."""
    script.RECORD_SECONDS, script.MAP_SECONDS = 0.12, 1.5
    text = "\n".join(script.plan(record(script)))
    assert "20,800 training images a class: 0.50 s an epoch, 24 µs an image" in text
    assert "10.0 s of start and end: 35 s | 10 |" in text
    assert "| 43 | 10.4 GB |" in text
    assert "| 534 | 41 GB |" in text
    assert "On 64 cores that is 9.2 hours" in text  # (42.7 + 9.7 + 533.8) / 64
    assert "take 21 core-hours, and everything then 69 minutes" in text  # (42.7 + 9.7 + 20.8) / 64


def test_memory_holds_the_images_that_the_plan_measures(script):
    """8 classes a block are read; 16 would be refused, as half of what is held is for others."""
    assert abs(script.held(1.0) - script.PLAN["images"]) < 500
    positives = script.BLOCK * script.IMAGES / script.CLASSES
    assert 2 * positives <= script.held(1.0) < 4 * positives


def test_runs_are_kept_and_gone_on_with(script, tmp_path, monkeypatch):
    asked = []

    def time_fits(config, at):
        asked.append(at)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"epoch": 1.0, "rest": 2.0}

    monkeypatch.setattr(script, "time_fits", time_fits)
    monkeypatch.setattr(script, "warm_up", lambda: None)
    settings = script.Scaling(axes=("n_features",), json=tmp_path / "scaling.json")
    with pytest.raises(KeyboardInterrupt):
        script.measure(settings)
    found = script.measure(settings)
    wanted = script.points("n_features")
    assert asked == [*wanted[:3], *wanted[2:]]
    assert [row["at"] for row in found["points"]] == wanted
    assert json.loads(settings.json.read_text("utf-8")) == found


def test_a_class_costs_epochs_and_a_rest(script, monkeypatch):
    monkeypatch.setattr(script, "EPOCHS", 2)
    at = {"classes": 2, "images": 400, "dims": 16, "n_features": 2}
    run = script.time_fits(script.TrainConfig(trials=1, hidden=(8, 4)), at)
    assert run["epoch"] > 0
    assert run["rest"] > 0
