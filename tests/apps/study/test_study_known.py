"""Simulated participants whose effect is known pass over HTTP, and the analysis finds it again."""

import random
from contextlib import contextmanager

import pytest

import study_browser as b
from study_plan import CLASSES, write_tiny_study
from torchxnn.apps.study.analysis.answers.results import compute_answers
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Limits
from torchxnn.apps.study.simulate import SimulationConfig, simulate
from torchxnn.apps.study.simulate_known import Knowing, Known
from torchxnn.cli.main import main
from torchxnn.errors import DataError

FAST = Limits(requests_per_second=1e6, starts_per_second=1e6)
OPTIONS = AnalysisOptions(include_synthetic=True, resamples=200)
EFFECT = {"NoVis": 0.3, "1-Heatmap": 0.4, "XNN": 0.9}


@contextmanager
def serving(folder):
    app = create_app(folder)
    with b.serve_app(app) as url:
        yield app, url


def contents(plan, stage, task):
    """What the server says of each batch."""
    for data in plan.data_sets:
        for number in range(1, plan.settings.sets + 1):
            images = [{"id": image.id} for image in data.images_of(number)]
            yield data, {
                "task": task, "stage": stage, "images": images, "answers": 4, "groups": 4
            }  # fmt: skip


def test_shares_are_those_that_are_set(tmp_path):
    plan = write_tiny_study(tmp_path)
    truth = {
        image.id: CLASSES.index(image.predicted) + 1
        for data in plan.data_sets
        for image in data.images
    }
    for task, share, expected in (
        ("forward_simulation", 0.7, 0.7),
        ("clustering", 0.6, 0.6 + 0.4 / 4),  # the others go into any group
    ):
        settings = plan.settings.model_copy(update={"task": task})
        known = Known(plan.model_copy(update={"settings": settings}), {"XNN": share})
        person = Knowing(known, random.Random(1))
        right = [
            answer == truth[image]
            for _ in range(20)
            for _, content in contents(plan, "XNN", task)
            for image, answer in person.answers(content).items()
        ]
        assert len(right) == 2000
        assert sum(right) / 2000 == pytest.approx(expected, abs=0.03)


def test_a_cue_is_found_as_often_and_the_sooner_the_more_often(tmp_path):
    plan = write_tiny_study(tmp_path, task="odd_cue")
    page = "".join(
        f'<input type="radio" name="cue" value="{n}" required><span>{text}</span>'
        for n, text in enumerate(plan.data_sets[0].cue.options, start=1)
    )
    means = []
    for share in (0.4, 0.8):
        person = Knowing(Known(plan, {"NoVis": share}), random.Random(2))
        right, seen = [], []
        for _ in range(80):
            for _, content in contents(plan, "NoVis", "odd_cue"):
                seen.append(len(person.answers(content)))
                right.append(person.cue(page) == 1)
        assert sum(right) / 800 == pytest.approx(share, abs=0.05)
        assert all(n == 10 for n, hit in zip(seen, right, strict=True) if not hit)
        means.append(sum(seen) / 800)
    assert means[1] < means[0] - 1
    always = Knowing(Known(plan, {"NoVis": 1.0}), random.Random(3))
    _, content = next(contents(plan, "NoVis", "odd_cue"))
    assert len(always.answers(content)) == 1
    with pytest.raises(DataError, match="not those of --study"):
        always.cue("another page")


def test_another_study_and_half_of_the_options_are_one_line(tmp_path, capsys):
    plan = write_tiny_study(tmp_path)
    person = Knowing(Known(plan, EFFECT), random.Random(1))
    with pytest.raises(DataError, match="not the one of --study"):
        person.answers({"task": "clustering", "stage": "XNN", "images": [{"id": "elsewhere"}]})
    with pytest.raises(DataError, match=r"share right with XNN must be from 0 to 1, got 1\.5"):
        Known(plan, {"XNN": 1.5})
    given = ["study", "simulate", "http://127.0.0.1:9"]
    assert main([*given, "--right", "0.5", "0.6", "0.7"]) == 2
    assert "--study and --right belong together" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("task", ["forward_simulation", "odd_cue"])
def test_over_http_the_effect_is_found_and_none_is_not(tmp_path, task):
    for name, right in (("effect", EFFECT), ("none", dict.fromkeys(EFFECT, 0.6))):
        folder = tmp_path / name
        keys = ("birds",) if task == "forward_simulation" else ("birds", "cells")
        folder.mkdir()
        plan = write_tiny_study(
            folder, keys=keys, task=task, rounds=1, sets=2, limits=FAST, demographics=False
        )
        with serving(folder) as (app, url):
            config = SimulationConfig(36, at_once=4, seed=5, known=Known(plan, right))
            found = simulate(url, config)
            tables = read_tables(app.state.site.database, plan)
        assert (found.finished, found.failed) == (36, [])
        results, rows = compute_answers(tables, plan, OPTIONS)
        shares = rows.groupby("stage")["right"].mean()
        of_each = len(rows) // 3
        for stage, share in right.items():
            error = (share * (1 - share) / of_each) ** 0.5
            assert abs(shares[stage] - share) < 4 * error + 1e-9, (stage, shares)
        significant = [c.people.p_holm < 0.05 for c in (*results.contrasts, *results.sooner)]
        assert significant[0] == (name == "effect")
        if name == "none":
            assert not any(significant)
        elif task == "odd_cue":
            assert results.sooner[0].people.mean_difference < 0
