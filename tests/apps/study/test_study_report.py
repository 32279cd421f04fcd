"""The report and its files: what they say, and what they say when there is little to say."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from study_data import make_plan, make_tables
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.report import write_report
from torchxnn.apps.study.analysis.results import compute

FAST = AnalysisOptions(resamples=100)
SYNTHETIC = replace(FAST, include_synthetic=True)
HOSTILE = "<script>alert(1)</script> & birds"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report of 30 + 14 simulated participants, under a hostile title."""
    out = tmp_path_factory.mktemp("results") / "report"
    plan = make_plan(title=HOSTILE)
    return out, write_report(make_tables(), plan, SYNTHETIC, out), plan


def page(out):
    return (out / "report.html").read_text("utf-8")


def write(tmp_path, tables, plan=None, options=FAST):
    results = write_report(tables, plan or make_plan(), options, tmp_path / "out")
    json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    return results, page(tmp_path / "out")


@pytest.fixture
def light(monkeypatch):
    """Figures as SVG alone: most of the time goes into drawing."""
    monkeypatch.setattr("torchxnn.apps.study.analysis.figures.FORMATS", ("svg",))


def test_files(written):
    out, results, _ = written
    assert {p.name for p in out.iterdir()} == {
        "report.html", "results.json", "scores.csv", "evidence.csv", "figures"
    }  # fmt: skip
    assert len(list((out / "figures").iterdir())) == 9
    numbers = json.loads((out / "results.json").read_text("utf-8"))
    scores = pd.read_csv(out / "scores.csv")
    assert len(scores) == 30 * 6 + 14 * 4
    cell = scores.query("arm == 'main' and data_set == 'birds' and stage == 'XNN'")
    told = next(c for c in numbers["cells"] if c["stage"] == "XNN" and c["data_set"] == "birds")
    assert told["purity"]["mean"] == pytest.approx(cell["purity"].mean())
    assert told["chance"] == pytest.approx(cell["chance"].mean())
    assert numbers["options"]["resamples"] == results.options.resamples


def test_known_effects_are_found(written):
    _, results, _ = written
    for c in results.paired:
        if c.family == "primary":
            assert (c.n, c.mean_difference > 0.1, c.p_holm < 0.01) == (30, True, True)
    found = {(c.data_set, c.name): c for c in results.model.contrasts}
    assert found["birds", "XNN - 1-Heatmap"].low > 0
    assert [len(results.between), results.missing, results.incomplete] == [6, (), 0]


@pytest.mark.usefixtures("light")
def test_synthetic_data_are_called_so_everywhere(written, tmp_path):
    out, results, _ = written
    banner = "Synthetic data: no finding (44 of 44 analysed participants: synthetic)."
    assert results.banner == banner
    text = page(out)
    assert f'role="alert"><strong>{banner}' in text
    assert "it tells nothing about people" in text
    for name in ("purity", "confidence", "ratings"):
        assert "<!-- Synthetic data: no finding" in (out / f"figures/{name}.svg").read_text("utf-8")
    real, text = write(tmp_path, make_tables(8, 0, kind="participant"))
    assert real.banner == ""
    assert "ynthetic data" not in text
    assert "ynthetic" not in (tmp_path / "out/figures/purity.svg").read_text("utf-8")


def test_page_requests_nothing_and_escapes_what_it_shows(written):
    text = page(written[0])
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; birds" in text
    assert "<script" not in text
    assert "default-src &#39;none&#39;" in text
    assert not re.findall(r'(?:src|href)="(?!data:image/svg\+xml;base64,|#)', text)
    assert not re.search(r"url\((?!data:)|@import", text)


@pytest.mark.slow
def test_same_data_give_the_same_files(tmp_path):
    plan = make_plan(("birds",), complementary=False)
    tables = make_tables(4, 0, skill={"birds": dict.fromkeys(plan.main.all_stages, 0.5)})
    for name in ("once", "again"):
        write_report(tables, plan, SYNTHETIC, tmp_path / name)
    paths = [p for p in (tmp_path / "once").rglob("*") if p.suffix in (".png", ".pdf", ".svg")]
    assert len(paths) == 9
    for path in (*paths, tmp_path / "once/scores.csv"):
        other = tmp_path / "again" / path.relative_to(tmp_path / "once")
        assert path.read_bytes() == other.read_bytes()


def test_other_folders_are_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds no report\.html"):
        write_report(make_tables(4, 0), make_plan(), SYNTHETIC, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("light")
def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("torchxnn.apps.study.analysis.report.render_report", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(make_tables(4, 0), make_plan(), SYNTHETIC, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("light")
def test_one_participant(tmp_path):
    results, text = write(tmp_path, make_tables(1, 0, kind="participant"))
    assert "mean difference of 1 participant " in text
    assert "Too few pairs differ" in text or "no pair differs" in text
    assert "No mixed model: a mixed model needs at least 2 participants, got 1." in text
    assert "Significant" not in text
    assert results.cells[0].purity.sd is None


@pytest.mark.usefixtures("light")
def test_all_ties(tmp_path):
    sure = {"birds": dict.fromkeys(("NoVis", "1-Heatmap", "XNN"), 1.0)}
    tables = make_tables(6, 0, skill=sure, participant_sd=0, kind="participant")
    results, text = write(tmp_path, tables, make_plan(("birds",), complementary=False))
    assert all(c.p == 1 and c.mean_difference == 0 for c in results.paired)
    assert "no pair differs, so there is nothing to test" in text
    assert "every trial has the same purity" in text
    assert "Significant" not in text


@pytest.mark.usefixtures("light")
def test_one_data_set_without_another_arm(tmp_path):
    one = {"birds": {"NoVis": 0.2, "1-Heatmap": 0.4, "XNN": 0.8}}
    tables = make_tables(12, 0, skill=one, kind="participant")
    results, text = write(tmp_path, tables, make_plan(("birds",), complementary=False))
    assert results.between == ()
    assert [t.term for t in results.model.terms] == ["stage", "order"]
    assert 'id="arms"' not in text
    assert "(a) Birds" not in (tmp_path / "out/figures/purity.svg").read_text("utf-8")


@pytest.mark.usefixtures("light")
def test_only_the_other_arm_has_people(tmp_path):
    tables = make_tables(0, 8, kind="participant")
    results, text = write(tmp_path, tables)
    assert results.selection.kept_arms == {"complementary": 8}
    assert all(c.n == 0 and c.p is None and c.p_holm is None for c in results.paired)
    assert "no participant has both XNN and 1-Heatmap" in text
    assert results.ratings.xnn is None


def test_nobody(tmp_path):
    results, text = write(tmp_path, make_tables(5, 0))  # all synthetic, and not asked for
    assert results.selection.kept == ()
    assert "There is nobody to analyse" in text
    assert not list((tmp_path / "out/figures").iterdir())


def test_a_missing_trial_is_left_out_of_its_pairs_alone():
    tables = make_tables(10, 0, kind="participant")
    lost = "participant == 3 and data_set == 'birds' and stage == 'XNN'"
    placements = tables["placements"]
    tables["placements"] = placements.drop(placements.query(lost).index)
    results, scores = compute(tables, make_plan(complementary=False), FAST)
    sizes = {(c.data_set, c.first, c.second): c.n for c in results.paired}
    assert sizes["birds", "XNN", "1-Heatmap"] == sizes["birds", "XNN", "NoVis"] == 9
    assert sizes["birds", "1-Heatmap", "NoVis"] == sizes["cells", "XNN", "1-Heatmap"] == 10
    assert (results.incomplete, len(scores)) == (1, 59)


def test_sensitivity_without_exclusions_counts_everybody():
    tables = make_tables(10, 0, kind="participant")
    people = tables["participants"]
    people.loc[people["participant"] == 1, "attention_passed"] = False
    people.loc[people["participant"] == 2, "status"] = "withdrawn"
    results, _ = compute(tables, make_plan(complementary=False), FAST)
    assert {c.n for c in results.paired} == {8}
    assert {c.n for c in results.sensitivity if c.measure == "purity, nobody excluded"} == {9}
    by = {(c.measure, c.data_set): c for c in results.sensitivity}
    assert by["ari", "birds"].p_holm == pytest.approx(
        min(1, 2 * by["ari", "birds"].p)
        if by["ari", "birds"].p <= by["ari", "cells"].p
        else max(by["ari", "birds"].p, 2 * by["ari", "cells"].p)
    )
    assert np.isfinite(by["purity above chance", "cells"].mean_difference)
