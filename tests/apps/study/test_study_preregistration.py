"""The plan as a document, and the three commands from the command line."""

import json
from dataclasses import replace

import pytest

from study_data import make_plan, make_tables
from study_plan import write_tiny_study
from study_session import finish, practise
from torchxnn.apps.study.analysis.exclusions import describe_rules
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.power import SampleSize, find_sample_size
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.apps.study.analysis.preregistration import Answers, write_preregistration
from torchxnn.apps.study.analysis.report import write_report
from torchxnn.apps.study.analysis.wording import (
    describe_analysis,
    describe_design,
    describe_hypotheses,
)
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Exclusions, Limits
from torchxnn.cli.main import main
from torchxnn.errors import DataError

PLAN, OPTIONS = make_plan(), AnalysisOptions(resamples=100)
DATE = "2026-11-24 10:00 UTC"


def write(path, plan=PLAN, answers=None, power=None, options=OPTIONS, created=DATE):
    write_preregistration(plan, options, answers or Answers(), path, created, power)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def power():
    return find_sample_size(PowerOptions(effect=20.0, runs=100))


def plain(text):
    """Without the backslashes of Markdown."""
    return text.replace("\\", "")


def test_says_what_the_report_says(tmp_path, monkeypatch):
    monkeypatch.setattr("torchxnn.apps.study.analysis.figures.FORMATS", ("svg",))
    text = plain(write(tmp_path / "plan.md"))
    write_report(make_tables(6, 0, kind="participant"), PLAN, OPTIONS, tmp_path / "out")
    report = (tmp_path / "out/report.html").read_text("utf-8").replace("&#39;", "'")
    said = [
        *describe_design(PLAN), *describe_rules(OPTIONS), *describe_hypotheses(PLAN, OPTIONS),
        *(words for _, words in describe_analysis(PLAN, OPTIONS)),
    ]  # fmt: skip
    for sentence in said:
        assert sentence in text
        assert sentence in report
    for fact in ("Which birds?", PLAN.fingerprint(), "Seed of the study: 7", DATE, "statsmodels: "):
        assert fact in text
    assert "No participant had begun when this was written." in text
    assert "exploratory" in text


def test_changes_only_with_its_date(tmp_path):
    first, second = write(tmp_path / "1.md"), write(tmp_path / "2.md")
    assert first == second
    later = write(tmp_path / "3.md", created="2027-01-01 00:00 UTC")
    assert later.replace("2027-01-01 00:00 UTC", DATE) == first


def test_is_never_overwritten(tmp_path):
    path = tmp_path / "plan.md"
    path.write_text("deposited")
    with pytest.raises(DataError, match="never overwritten"):
        write(path)
    assert path.read_text() == "deposited"
    with pytest.raises(DataError, match="about participants"):
        write(tmp_path / "new.md", options=replace(OPTIONS, include_pilots=True))
    assert not (tmp_path / "new.md").exists()


def test_says_first_that_it_is_late(tmp_path):
    late = "Not a preregistration: 1 participant had already finished, and 2 more had begun"
    text = write(tmp_path / "plan.md", answers=Answers(1, 2, 3, 4))
    assert text.index(late) < text.index("## Status")
    assert "3 pilots and 4 simulated participants" in text
    page = write(tmp_path / "plan.html", answers=Answers(1, 2, 3, 4))
    assert f'role="alert"><strong>{late}' in page
    people = make_tables(3, 0, kind="participant")["participants"]
    people["status"] = ["finished", "in_progress", "withdrawn"]
    assert Answers.count(people) == Answers(1, 2, 0, 0)


def test_number_of_participants(tmp_path, power):
    text = plain(write(tmp_path / "1.md", power=power))
    assert power.sentence() in text
    assert f"| {power.participants} |" in text
    assert "The arm main ends when 30 participants have finished" in text
    few = make_plan(arms=(PLAN.main.model_copy(update={"participants": 3}), *PLAN.arms[1:]))
    assert "3 in main are fewer than the" in write(tmp_path / "2.md", plan=few, power=power)
    free = make_plan(arms=(PLAN.main.model_copy(update={"participants": None}),))
    ends = f"Recruiting for the arm main ends at {power.recruit} participants"
    assert ends in write(tmp_path / "3.md", plan=free, power=power)
    assert "No power analysis was given" in write(tmp_path / "4.md", plan=free)
    one = make_plan(("birds",))
    with pytest.raises(DataError, match=r"another design \(data_sets 2\).*--data-sets 1"):
        write(tmp_path / "5.md", plan=one, power=power)


def test_names_do_no_harm(tmp_path):
    hostile = make_plan(title="<script>x</script> | *a*\n# b")
    text = write(tmp_path / "plan.md", plan=hostile)
    assert "\\<script\\>x\\</script\\> \\| \\*a\\* \\# b" in text.splitlines()[0]
    page = write(tmp_path / "plan.html", plan=hostile)
    assert "<script" not in page
    assert "default-src &#39;none&#39;" in page


# --- commands


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with two finished participants, a pilot and a simulated one."""
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(
        path,
        exclusions=Exclusions(minimum_seconds=0.0),
        limits=Limits(requests_per_second=1000, starts_per_second=1000),
    )
    app = create_app(path)
    for kind in ({}, {}, {"synthetic": "1"}):
        finish(practise(app, **kind), 6)
    practise(app, pilot="1")
    app.state.site.database.close()
    return path


def test_analyse(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torchxnn.apps.study.analysis.figures.FORMATS", ("svg",))
    out = tmp_path / "results"
    assert main(["study", "analyse", str(study), "--out", str(out), "--resamples", "100"]) == 0
    numbers = json.loads((out / "results.json").read_text("utf-8"))
    assert numbers["selection"]["kept"] == [1, 2]
    assert numbers["options"]["exclusions"]["minimum_seconds"] == 0
    assert "Wrote" in capsys.readouterr().out
    assert main(["study", "analyse", str(study), "--out", str(study)]) == 2
    assert "holds no report.html" in " ".join(capsys.readouterr().err.split())


def test_analyse_nobody(tmp_path, capsys):
    write_tiny_study(tmp_path / "study")
    command = ["study", "analyse", str(tmp_path / "study"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "has no answers yet" in " ".join(capsys.readouterr().err.split())
    app = create_app(tmp_path / "study")
    practise(app, synthetic="1")
    app.state.site.database.close()
    assert main(command) == 2
    assert "1 of the kind synthetic (--include-synthetic)" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*command, "--include-synthetic"]) == 2
    assert "1 did not finish" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_power_and_preregister(study, tmp_path, capsys):
    file, plan = tmp_path / "power.json", tmp_path / "plan.md"
    given = ["--effect", "25", "--runs", "100"]
    assert main(["study", "power", *given, "--out", str(file)]) == 0
    answer = SampleSize.read(file)
    assert answer.sentence() in capsys.readouterr().out
    write_tiny_study(tmp_path / "new")
    command = ["study", "preregister", str(tmp_path / "new"), "--out", str(plan)]
    assert main([*command, "--power", str(file)]) == 0
    assert answer.sentence() in plain(plan.read_text("utf-8"))
    assert not (tmp_path / "new/study.db").exists()
    assert main(command) == 2
    late = tmp_path / "late.md"
    assert main(["study", "preregister", str(study), "--out", str(late)]) == 0
    assert "2 participants had already finished" in late.read_text("utf-8")
    assert "2 participants had already finished" in " ".join(capsys.readouterr().err.split())
    assert main(["study", "power", "--study", str(study), "--runs", "100"]) == 2
    assert "pilots do not tell" in " ".join(capsys.readouterr().err.split())
