import json
from dataclasses import replace

import pytest
import torch

from benchmark_examples import write_squares, write_weights
from benchmark_settings import CONFIG
from bird_examples import write_bird_weights, write_birds
from torchxnn.apps.benchmark.class_by_class import Plan, open_benchmark
from torchxnn.apps.benchmark.funnybirds import settings
from torchxnn.apps.benchmark.job_settings import RulesConfig
from torchxnn.apps.benchmark.rules import ABSORBING, _box, _fit, _rows, run_rules
from torchxnn.apps.benchmark.rules_tables import TESTED, by_mass, rules_text, summarise_rules
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.attribution.effective_weights import EFFECTIVE
from torchxnn.attribution.methods import METHODS, PAPER, attributor
from torchxnn.errors import DataError, XNNError
from torchxnn.explanations.maps import Units
from torchxnn.metrics.ground_truth import MOVES

(ENDING,) = (name for name, rule in ABSORBING.items() if rule == EFFECTIVE)
RULES = RulesConfig(images=3, rules=(PAPER, EFFECTIVE, ENDING))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    root = tmp_path_factory.mktemp("squares")
    write_squares(root / "data")
    weights = write_weights(root / "data", root / "weights.safetensors")
    source = TaskSource("cub", root / "data", weights, "benchmark_examples:network", "3")
    plan = Plan(source, replace(CONFIG, copies=0), root / "out")
    return plan, run_rules(plan, RULES)


def test_records_and_tables(ran):
    _, records = ran
    summary = summarise_rules(records)
    assert list(summary["rules"]) == list(summary["logit"]) == [PAPER, EFFECTIVE, ENDING]
    for found in summary["rules"].values():
        assert 0 <= found["off"] <= 1
        assert 0 <= found["pointing"] <= 1
        assert 0 < found["mass"] < 1
        assert found["told"] is None or -2 <= found["told"] <= 2
    assert {(test["rule"], test["against"]) for test in summary["tests"]} == {
        (EFFECTIVE, PAPER),
        (ENDING, EFFECTIVE),
    }
    assert {test["figure"] for test in summary["tests"]} == set(TESTED) - {"truth"}  # no removals
    assert all(test["p"] <= test["p_holm"] <= 1 for test in summary["tests"])
    maps = sum(len(record["rules"][PAPER]["maps"]) for record in records.values())
    assert sum(row["maps"] for row in by_mass(records, PAPER)) == maps
    text = rules_text(summary)
    assert f"| {EFFECTIVE} |" in text
    json.dumps(summary, allow_nan=False)


def test_it_goes_on_with_what_is_there(ran):
    plan, records = ran
    done = []
    again = run_rules(replace(plan, on_class=lambda *a: done.append(a)), RULES)
    assert (again, done) == (records, [])


def test_a_map_on_its_own_squares_tells_its_unit():
    falls = torch.zeros(2, 49, 2)
    falls[0, 3, 0], falls[0, 40, 1] = 1.0, 2.0
    falls[1, 20, 0], falls[1, 21, 1] = 1.0, 1.0
    maps = torch.zeros(2, 2, 14, 14)
    for image in range(2):
        for unit in range(2):
            row, column = divmod(int(falls[image, :, unit].argmax()), 7)
            maps[image, unit, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1.0
    rows = _rows(maps - 0.5, falls)  # negative relevance does not count
    assert [row["own"] for row in rows] == pytest.approx([1.0] * 4)
    assert all(row["others"] < 0 and row["chance"] < 0 for row in rows)
    falls[0, :, 1] = 0  # reacts to nothing
    assert [(row["image"], row["feature"]) for row in _rows(maps, falls)] == [
        (0, 0),
        (1, 0),
        (1, 1),
    ]
    assert _rows(maps, falls)[0]["told"] is None


def test_settings_out_of_range(tmp_path):
    plan = Plan(TaskSource("cub", tmp_path, tmp_path), CONFIG, tmp_path / "out")
    with pytest.raises(XNNError, match="images must be at least 2"):
        RulesConfig(images=1)
    with pytest.raises(XNNError, match="unknown attribution method 'nothing'"):
        run_rules(plan, RulesConfig(rules=("nothing",)))


def test_what_is_compared_by_default_are_methods():
    assert set(RulesConfig().rules) <= set(METHODS) - {"occlusion"}  # the judge
    of_units = {"effective_weights": EFFECTIVE}  # as FunnyBirds calls them
    assert {of_units.get(name, name) for name in settings.RULES} <= set(METHODS)


def test_truth_of_parts_is_that_of_maps_and_removals(tmp_path):
    """Of the same fit, by hand: correlation of a map's mass on the parts with what is lost."""
    weights = write_bird_weights(write_birds(tmp_path / "data"), tmp_path / "weights.safetensors")
    source = TaskSource("funnybirds", tmp_path / "data", weights, "bird_examples:bird_network", "3")
    plan = Plan(source, replace(CONFIG, copies=0), tmp_path / "out", (2,))
    config = RulesConfig(images=2, rules=(PAPER,))
    found = run_rules(plan, config)["2"]["rules"][PAPER]["truth"]

    opened, _ = open_benchmark(plan)
    xnn, _ = _fit(opened, 2)
    units = Units(xnn.attached, xnn.fitted())
    positives = opened.task.positives(2)
    mass, lost, moved = [], [], []
    for row in positives:
        image = opened.task.located[row].image[None]
        without = torch.stack([opened.task.removals[5 * row + part].image for part in range(5)])
        moved.append((xnn.contributions(image) - xnn.contributions(without))[:, 0].detach())
        if row in (positives[0], positives[-1]):
            lost.append((units(image) - units(without)).detach())
            maps = attributor(PAPER, units).attribute_many(image, range(xnn.n_features))[0]
            masks, positive = opened.task.located[row].masks, maps.clamp(min=0)
            on = torch.stack([positive[:, masks == part].sum(1) for part in range(1, 6)])
            mass.append(on / positive.sum((1, 2)))
    share = torch.cat(moved).abs().sum(0) / torch.cat(moved).abs().sum()
    kept = (share >= MOVES).nonzero().flatten()
    own = [
        float(torch.corrcoef(torch.stack([torch.cat(mass)[:, k], torch.cat(lost)[:, k]]))[0, 1])
        for k in kept
    ]
    assert len(own) > 1
    assert found == pytest.approx(sum(own) / len(own), abs=1e-5)


def test_rendered_birds_have_the_box_of_their_parts_and_body(ran):
    """Two parts (1, 2), the body (3), and an object of the background (4), which is no bird."""
    masks = torch.zeros(6, 8, dtype=torch.int64)
    masks[1, 2], masks[4, 3], masks[2, 5], masks[0, 7] = 1, 2, 3, 4
    squares = TASKS["cub"](ran[0].source)
    sample = replace(squares.located[0], box=None, masks=masks)
    birds = replace(squares, parts=("beak", "wing"), removals=squares.test)
    assert _box(birds, sample).tolist() == [2, 1, 4, 4]
    with pytest.raises(DataError, match="has no boxes of the objects"):
        _box(squares, sample)
