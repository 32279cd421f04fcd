"""Backup and restore on SQLite and PostgreSQL, and studies of earlier versions."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing

import pytest
from sqlalchemy import select

from cli_examples import fails
from study_database import fresh_postgresql
from study_plan import write_tiny_study
from study_session import browser, finish, practise
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.store import backup as module
from torchxnn.apps.study.store.backup import back_up, restore
from torchxnn.apps.study.store.database import FILE, open_database
from torchxnn.apps.study.store.lock import LOCK, alone_with
from torchxnn.apps.study.store.participants import begin, forget, go_on
from torchxnn.apps.study.store.schema import SCHEMA_VERSION, answers, facts, metadata, participants
from torchxnn.cli.main import main
from torchxnn.errors import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(path, keys=("birds",))
    return path


@pytest.fixture
def folder(made, tmp_path):
    """The study with an empty database."""
    path = tmp_path / "study"
    path.mkdir()
    for part in made.iterdir():
        (path / part.name).symlink_to(part)
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request):
    """URLs of empty databases; None is the file in the folder."""
    given = os.environ.get("TORCHXNN_TEST_POSTGRESQL")
    if request.param == "postgresql" and not given:
        pytest.skip("TORCHXNN_TEST_POSTGRESQL names no database; .ci/run starts one")
    return lambda: fresh_postgresql(given) if request.param == "postgresql" else None


def rows_of(folder, url=None):
    """Everything that a database holds."""
    database = open_database(folder, StudyPlan.read(folder), url)
    with closing(database), database.reading() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table))))
            for table in metadata.sorted_tables
        }


def test_a_study_rises_elsewhere_with_all_answers_while_people_take_part(folder, tmp_path, new_url):
    url = new_url()
    app = create_app(folder, url)
    ended = finish(practise(app, PROLIFIC_PID="ada", SESSION_ID="0f3c"), 3)
    half_way = practise(app, PROLIFIC_PID="bob", SESSION_ID="77aa")
    held = back_up(folder, tmp_path, url)
    assert (held.participants, held.events > 30) == (2, True)
    assert held.file.stat().st_mode & 0o077 == 0
    practise(app)  # the study goes on; the backup has none of it
    other, where = tmp_path / "other", new_url()
    restored, before = restore(held.file, other, where)
    assert (restored.participants, before) == (2, None)
    now, then = rows_of(folder, url), rows_of(other, where)
    assert then["facts"] == now["facts"]
    assert len(now["participants"]) == 3
    assert set(then["events"]) == {row for row in now["events"] if not row.startswith("(3,")}
    # cookies, links and codes go on to work, and numbers go on
    again = create_app(other, where)
    half_way.app = half_way._transport.app = again
    assert half_way.get("/stage/0").url.path == "/stage/0"
    code = ended.text.split('data-code="')[1].split('"')[0]
    link = {"PROLIFIC_PID": "ada", "SESSION_ID": "0f3c"}
    assert code in browser(again).get("/", params=link).text
    plan = StudyPlan.read(other)
    assert begin(again.state.site.database, plan, "main", 1.0)[0].number == 3
    for each in (app, again):
        each.state.site.database.close()


def test_answers_that_are_there_stay_or_are_saved_first(folder, tmp_path, new_url):
    url = new_url()
    plan = StudyPlan.read(folder)
    with closing(open_database(folder, plan, url)) as database:
        begin(database, plan, "main", 1.0)
        held = back_up(folder, tmp_path, url)
        begin(database, plan, "main", 2.0)
        with pytest.raises(DataError, match=r"holds 2 participants; .* say --replace"):
            restore(held.file, folder, url)
        _, before = restore(held.file, folder, url, replace=True)
        assert len(rows_of(folder, url)["participants"]) == 1
        assert before.participants == 2
        assert begin(database, plan, "main", 3.0)[0].number in (2, 3)  # the server goes on
    restore(before.file, tmp_path / "older", new_url())


def test_who_withdrew_after_a_backup_stays_withdrawn(folder, tmp_path, new_url):
    url = new_url()
    plan = StudyPlan.read(folder)
    with closing(open_database(folder, plan, url)) as database:
        people = [
            begin(database, plan, "main", at, person=p)[0]
            for at, p in ((1.0, "a"), (2.0, None), (3.0, None))
        ]
        for person in people:
            go_on(database, plan, person, person.step, {"age": "30"}, 4.0)
        held = back_up(folder, tmp_path, url)
        for person in people[:2]:
            forget(database, plan, person)
        restore(held.file, folder, url, replace=True)
        with database.reading() as connection:
            kept = connection.execute(select(answers.c.number)).scalars().all()
            rows = connection.execute(select(participants).order_by("number")).all()
    assert kept == [3]
    assert [row.status for row in rows] == ["withdrawn", "withdrawn", "in_progress"]
    assert [row.token is None for row in rows] == [True, True, False]


def test_an_answer_while_a_restore_saves_stops_it(folder, tmp_path, new_url, monkeypatch):
    url = new_url()
    plan = StudyPlan.read(folder)
    with closing(open_database(folder, plan, url)) as database:
        person = begin(database, plan, "main", 1.0)[0]
        held = back_up(folder, tmp_path / "a.zip", url)

        def back_up_late(*given):
            saved = back_up(*given)
            go_on(database, plan, person, person.step, {"age": "30"}, 2.0)
            return saved

        monkeypatch.setattr(module, "back_up", back_up_late)
        with pytest.raises(DataError, match=r"answered meanwhile.*stop the server, then restore"):
            restore(held.file, folder, url, replace=True)
        with database.reading() as connection:
            assert connection.scalar(select(answers.c.value)) == "30"


def test_the_answers_before_are_saved_beside_the_backup(folder, tmp_path):
    plan = StudyPlan.read(folder)
    with closing(open_database(folder, plan)) as database:
        begin(database, plan, "main", 1.0)
    (tmp_path / "backups").mkdir()
    held = back_up(folder, tmp_path / "backups")
    _, before = restore(held.file, folder, replace=True)
    assert before.file.parent == held.file.parent
    assert before.file.name.startswith("study-before-restore-")


def test_backups_of_a_database_in_use_are_of_one_moment(folder, tmp_path, new_url):
    url = new_url()
    plan = StudyPlan.read(folder)
    stop = threading.Event()
    with closing(open_database(folder, plan, url)) as database:

        def come():
            while not stop.is_set():
                number = begin(database, plan, "main", 1.0)[0].number
                with database.writing() as connection:
                    connection.exec_driver_sql(
                        f"INSERT INTO trials (number, position, started_at) VALUES ({number}, 0, 1)"
                    )

        thread = threading.Thread(target=come)
        thread.start()
        found = [back_up(folder, tmp_path / f"{n}.zip", url) for n in range(3)]
        stop.set()
        thread.join()
    counts = [held.participants for held in found]
    assert counts == sorted(counts)
    for held in found:
        with zipfile.ZipFile(held.file) as archive:
            archive.extract(FILE, tmp_path)
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            numbers = "SELECT number FROM trials EXCEPT SELECT number FROM participants"
            assert connection.execute(numbers).fetchall() == []
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_what_cannot_be_saved_or_restored_is_named(folder, made, tmp_path, capsys):
    with pytest.raises(DataError, match="has no answers yet"):
        back_up(folder, tmp_path)
    open_database(folder, StudyPlan.read(folder)).close()
    back_up(folder, tmp_path / "a.zip")
    with pytest.raises(DataError, match="a backup overwrites nothing"):
        back_up(folder, tmp_path / "a.zip")
    with pytest.raises(DataError, match="nowhere is no folder"):
        back_up(folder, tmp_path / "nowhere" / "a.zip")
    (tmp_path / "b.zip").write_text("no archive")
    assert "is no backup of a study" in fails(
        capsys, "study", "restore", tmp_path / "b.zip", "--out", tmp_path / "c"
    )
    another = tmp_path / "another"
    shutil.copytree(made, another)
    StudyPlan.read(made).model_copy(update={"version": "another"}).write(another)
    with pytest.raises(DataError, match="is another study than"):
        restore(tmp_path / "a.zip", another)


def _damage(good, bad, change):
    """A copy of a backup with other bytes in the place of its answers."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == FILE else old.read(name))


def test_damage_inside_a_backup_is_one_line_and_makes_no_folder(folder, tmp_path):
    open_database(folder, StudyPlan.read(folder)).close()
    good = back_up(folder, tmp_path / "a.zip").file
    _damage(good, tmp_path / "b.zip", lambda data: b"no database" * 999)
    with pytest.raises(DataError, match=r"damaged .*b\.zip was not restored"):
        restore(tmp_path / "b.zip", tmp_path / "risen")
    data = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        at = archive.getinfo(FILE).header_offset + 30 + len(FILE)
    data[at : at + 40] = b"\xff" * 40  # the stream that is to be inflated
    (tmp_path / "c.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"c\.zip is no backup of a study, or a damaged one"):
        restore(tmp_path / "c.zip", tmp_path / "risen")
    data = bytearray(good.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1  # encrypted, says the list at the end
    (tmp_path / "d.zip").write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        restore(tmp_path / "d.zip", tmp_path / "risen")
    assert not (tmp_path / "risen").exists()


def test_a_folder_is_whole_or_no_study(folder, tmp_path, monkeypatch):
    open_database(folder, StudyPlan.read(folder)).close()
    held, risen = back_up(folder, tmp_path / "a.zip"), tmp_path / "risen"

    def fail(source, target, **_):
        target.mkdir()
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "copytree", fail)
        with pytest.raises(OSError, match="disk is full"):
            restore(held.file, risen)
    assert list(risen.iterdir()) == []
    restore(held.file, risen)
    (risen / "study.json").unlink()
    with pytest.raises(DataError, match=r"has consent\.md and no study\.json.*delete"):
        restore(held.file, risen)


def test_the_two_commands_find_the_database_in_the_environment(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XNN_STUDY_DATABASE", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert main(["study", "backup", str(folder), "--out", str(tmp_path / "a.zip")]) == 0
    monkeypatch.setenv("XNN_STUDY_DATABASE", f"sqlite:///{tmp_path / 'third.db'}")
    assert main(["study", "restore", str(tmp_path / "a.zip"), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "third.db").is_file()
    assert not (tmp_path / "b" / FILE).exists()


def test_the_two_commands(folder, tmp_path, capsys):
    open_database(folder, StudyPlan.read(folder)).close()
    assert main(["study", "backup", str(folder), "--out", str(tmp_path / "a.zip")]) == 0
    assert main(["study", "restore", str(tmp_path / "a.zip"), "--out", str(tmp_path / "b")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 participants, 0 events" in said
    assert "Start the server now, or again." in said
    assert (tmp_path / "b" / FILE).is_file()


# --- studies of earlier versions


def _version_1(folder, url=None):
    """A database as torchxnn made it when the schema had version 1."""
    plan = StudyPlan.read(folder)
    with closing(open_database(folder, plan, url)) as database:
        begin(database, plan, "main", 1.0, person="ada")
        with database.writing() as connection:
            for later in ("expired_at", "told_all"):
                connection.exec_driver_sql(f"ALTER TABLE participants DROP COLUMN {later}")
            connection.execute(facts.update().where(facts.c.name == "schema").values(value="1"))


def test_a_database_of_an_earlier_version_is_brought_up_to_date(folder, new_url):
    url = new_url()
    _version_1(folder, url)
    database = open_database(folder, StudyPlan.read(folder), url)
    with closing(database), database.reading() as connection:
        row = connection.execute(select(participants)).one()
        version = connection.scalar(select(facts.c.value).where(facts.c.name == "schema"))
    assert (row.number, row.expired_at, row.told_all) == (1, None, None)
    assert version == str(SCHEMA_VERSION)


def test_a_backup_of_an_earlier_version_is_restored(folder, tmp_path):
    open_database(folder, StudyPlan.read(folder)).close()
    held = back_up(folder, tmp_path / "a.zip")
    (folder / FILE).unlink()
    _version_1(folder)
    with zipfile.ZipFile(held.file) as archive:
        names = [name for name in archive.namelist() if name != FILE]
        with zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
            for name in names:
                old.writestr(name, archive.read(name))
            old.write(folder / FILE, FILE)
    restored, _ = restore(tmp_path / "old.zip", tmp_path / "risen")
    assert restored.participants == 1


def test_a_database_of_a_later_version_is_refused_with_the_way_out(folder):
    database = open_database(folder, StudyPlan.read(folder))
    with closing(database), database.writing() as connection:
        connection.execute(facts.update().where(facts.c.name == "schema").values(value="9"))
    with pytest.raises(DataError, match=r"later version of torchxnn \(schema 9.*install that"):
        open_database(folder, StudyPlan.read(folder))


def _image(place, number):
    return {
        "id": f"image{number}{place}", "file": "x.jpg", "label": "a", "predicted": "a",
        "set": number, "picture": "p", "heatmaps": {}, "overlays": [], "contributions": [],
    }  # fmt: skip


def test_a_plan_of_the_first_version_keeps_its_fingerprint():
    """Answers belong to a study by this number: a new setting must not change it.

    A setting that comes later has a default that means what there was before, and goes into
    `_MAY_CHANGE` of the plan, or is left out of the number while it has its default.
    """
    images = [_image(place, number) for number in (1, 2, 3) for place in (1, 2)]
    data = {
        "key": "birds", "name": "Birds", "classes": ["a", "b"], "agreement": 1.0, "about": {},
        "images": images,
    }  # fmt: skip
    settings = {
        "title": "An early study", "sets": 3, "images_per_set": 2,
        "recruitment": {"completion_url": "https://example.org/?cc={code}"},
    }  # fmt: skip
    given = {"version": "0.1.0", "settings": settings, "data_sets": [data], "practice": []}
    assert StudyPlan.model_validate(given).fingerprint().startswith("c8298ad1be426095")


def test_a_restore_fills_no_folder_of_something_else(folder, tmp_path, capsys):
    open_database(folder, StudyPlan.read(folder)).close()
    held = back_up(folder, tmp_path / "a.zip")
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "config.json").write_text("{}")
    said = fails(capsys, "study", "restore", held.file, "--out", saved)
    assert "saved is no study, and it is not empty (it has config.json); name a new" in said
    assert [path.name for path in saved.iterdir()] == ["config.json"]
    with pytest.raises(DataError, match=r"config\.json is no folder"):
        restore(held.file, saved / "config.json")
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)  # a new disk
    restore(held.file, tmp_path / "disk")
    assert StudyPlan.read(tmp_path / "disk").fingerprint() == StudyPlan.read(folder).fingerprint()


def test_who_serves_a_study_is_alone_with_its_answers(folder, tmp_path, capsys):
    open_database(folder, StudyPlan.read(folder)).close()
    held = back_up(folder, tmp_path / "a.zip")
    where = f"sqlite:///{tmp_path / 'x.db'}"
    with alone_with(folder, None, ""), alone_with(folder, where, ""):
        said = fails(capsys, "study", "serve", folder, "--port", "0")
        assert "is being served or restored by another process; use the server that runs" in said
        for url in (None, where):
            with pytest.raises(DataError, match="stop the server, then restore"):
                restore(held.file, folder, url, replace=True)
        back_up(folder, tmp_path / "b.zip")  # may run at any time
        with alone_with(folder, "postgresql+pg8000://host/name", ""):
            pass  # several servers may share it
        for url in ("sqlite://", "sqlite:///:memory:"):
            with pytest.raises(DataError, match="names no file"), alone_with(folder, url, ""):
                pass
    restore(held.file, folder, replace=True)


@pytest.mark.slow
def test_a_killed_server_holds_nothing(folder):
    code = (
        "import sys; from pathlib import Path\n"
        "from torchxnn.apps.study.store.lock import alone_with\n"
        "with alone_with(Path(sys.argv[1]), None, ''): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="by another process"), alone_with(folder, None, ""):
            pass
        process.kill()
    with alone_with(folder, None, ""):
        assert (folder / LOCK).exists()
