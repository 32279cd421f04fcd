import json
from dataclasses import replace

import pytest
import torch

from benchmark_examples import write_squares, write_weights
from benchmark_settings import CONFIG
from torchxnn.apps.benchmark.class_by_class import Plan
from torchxnn.apps.benchmark.job_settings import RulesConfig
from torchxnn.apps.benchmark.rules import ABSORBING, _box, _rows, run_rules
from torchxnn.apps.benchmark.rules_tables import by_mass, rules_text, summarise_rules
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.attribution.effective_weights import EFFECTIVE
from torchxnn.attribution.methods import PAPER
from torchxnn.errors import DataError, XNNError

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
    assert {test["rule"] for test in summary["tests"]} == {EFFECTIVE, ENDING}
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
