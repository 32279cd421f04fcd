"""What people are told before they begin: blanks, duration, texts of earlier versions."""

import pytest
import yaml

from study_plan import write_tiny_study
from study_session import browser, fields, join
from torchxnn.apps.study.plan import CONSENT, StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Recruitment
from torchxnn.apps.study.steps import minutes_of
from torchxnn.apps.study.texts import default_consent, default_texts, find_blanks, read_texts
from torchxnn.cli import study_serve as commands
from torchxnn.cli.main import main


@pytest.fixture
def started(monkeypatch):
    """Applications that the command would have served."""
    found = []
    monkeypatch.setattr(commands, "serve", lambda app, host, port: found.append(app))
    yield found
    for app in found:
        app.state.site.database.close()


def serve(folder, *more):
    return main(["study", "serve", str(folder), "--admin-token", "open-sesame", *more])


def test_blanks_are_what_is_in_brackets_and_no_link():
    text = "[institution], [a\n  b]; [the site](https://x.org), [it][1], \\[sic\\]\n\n[1]: https://y.org\n"
    assert find_blanks(text) == ["institution", "a b"]
    assert "institution" in find_blanks(default_consent())


def test_a_study_with_blanks_is_a_pilot_and_is_refused_to_others(tmp_path, capsys, started):
    write_tiny_study(tmp_path)
    (tmp_path / CONSENT).write_text(default_consent(), "utf-8")
    assert serve(tmp_path, "--host", "0.0.0.0") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "has blanks that nobody has filled in: [Title of the study] and" in error
    assert "or serve the study with --pilot" in error
    assert not started
    assert serve(tmp_path, "--host", "0.0.0.0", "--pilot") == 0
    assert serve(tmp_path) == 0
    said = capsys.readouterr()
    assert "marked as a pilot" in " ".join(said.out.split())
    assert "Until then this is a pilot" in " ".join(said.err.split())
    assert [app.state.site.pilot for app in started] == [True, True]
    (tmp_path / CONSENT).write_text(
        "# Welcome\n\nIt takes {minutes} minutes.\n\n{recorded}\n", "utf-8"
    )
    assert serve(tmp_path, "--base-path", "lab/") == 0
    said = capsys.readouterr()
    assert "http://127.0.0.1:8000/lab/admin" in said.out
    assert (said.err, started[-1].state.site.pilot) == ("", False)


@pytest.mark.parametrize("minutes", [None, 33])
def test_consent_and_instructions_name_the_same_duration(tmp_path, minutes):
    plan = write_tiny_study(tmp_path, minutes=minutes)
    (tmp_path / CONSENT).write_text(default_consent(), "utf-8")
    wanted = [minutes_of(plan, arm) for arm in ("main", "complementary")]
    assert wanted == ([20, 15] if minutes is None else [33, 33])
    app = create_app(tmp_path)
    for arm, count in zip(("main", "complementary"), wanted, strict=True):
        assert f"about {count} minutes." in browser(app).get("/", params={"arm": arm}).text
        client, page = join(app, arm=arm)
        page = client.post("/about-you", data=fields(page))
        assert f"about {count} minutes." in page.text
    app.state.site.database.close()


def test_a_consent_text_that_names_another_duration_is_noticed(tmp_path, capsys, started):
    write_tiny_study(tmp_path)
    (tmp_path / CONSENT).write_text("It takes 20 minutes.\n", "utf-8")
    assert serve(tmp_path) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "does not say 15 minutes, as the instructions do" in said
    assert "20 minutes, as" not in said


def test_what_came_later_leaves_studies_as_they_are(tmp_path):
    """Their database is still theirs, and their English texts need not have what came later."""
    plan = write_tiny_study(tmp_path, keys=("birds",))
    later = {"session_parameter": "STUDY_ID", "withdrawn_code": "LEFT", "failed_check_code": "LOOK"}
    recruitment = Recruitment(**later)
    changed = {"minutes": 40, "recruitment": recruitment}
    other = plan.model_copy(update={"settings": plan.settings.model_copy(update=changed)})
    assert other.fingerprint() == plan.fingerprint()
    moved = plan.settings.model_copy(update={"seed": 99})
    assert plan.model_copy(update={"settings": moved}).fingerprint() != plan.fingerprint()
    values = yaml.safe_load(default_texts("en"))
    del values["common"]["not_you"], values["message"]["broken_link"]
    values["done"]["title"] = "Goodbye"
    (tmp_path / "texts" / "en.yaml").write_text(yaml.safe_dump(values), "utf-8")
    found = read_texts(tmp_path, "en")
    assert found["done"]["title"] == "Goodbye"
    assert found["common"]["not_you"].startswith("Not you?")
    assert StudyPlan.read(tmp_path) == plan
