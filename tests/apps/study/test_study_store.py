import multiprocessing
import os
import signal
import sqlite3
import threading

import pytest
from sqlalchemy import select

from study_database import fresh_postgresql
from study_plan import write_tiny_study
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.steps import steps_of, trials_of
from torchxnn.apps.study.store.database import FILE, open_database
from torchxnn.apps.study.store.participants import (
    RefusedError,
    begin,
    find_participant,
    forget,
    go_on,
)
from torchxnn.apps.study.store.places import is_full, take_up
from torchxnn.apps.study.store.schema import answers, events, participants, placements, trials
from torchxnn.apps.study.store.trials import Event, read_trial, save_events, submit_trial
from torchxnn.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(path)
    return path


@pytest.fixture
def plan(folder):
    return StudyPlan.read(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path, plan):
    if request.param == "postgresql":
        url = os.environ.get("TORCHXNN_TEST_POSTGRESQL")
        if not url:
            pytest.skip("TORCHXNN_TEST_POSTGRESQL names no database; .ci/run starts one")
        opened = open_database(tmp_path, plan, fresh_postgresql(url))
    else:
        opened = open_database(tmp_path, plan)
    yield opened
    opened.close()


def join(database, plan, arm="main", now=1000.0, **more):
    return begin(database, plan, arm, now, **more)


def walk_to(database, plan, participant, step, now=1000.0):
    """Answer all pages before a step; batches are sorted somehow."""
    while participant.step != step:
        at = participant.step
        if at.startswith("stage/") and not at.endswith("/confidence"):
            position = int(at.split("/")[1])
            read_trial(database, participant, position, now)
            if position:
                trial = trials_of(plan, participant.arm, participant.place)[position - 1]
                images = plan.data_set(trial.data_set).images_of(trial.set)
            else:
                images = plan.practice
            ids = [image.id for image in images]
            moves = [move(image, 1 + place % 4) for place, image in enumerate(ids)]
            save_events(database, participant, position, moves, now)
            submit_trial(database, plan, participant, position, ids, now)
            participant = find_number(database, participant)
        else:
            participant = go_on(database, plan, participant, at, {}, now)
    return participant


def find_number(database, participant):
    with database.reading() as connection:
        row = connection.execute(
            select(participants.c.step).where(participants.c.number == participant.number)
        ).one()
    return type(participant)(**{**vars(participant), "step": row.step})


_COUNT = iter(range(10**9))


def move(image, group, name=None):
    value = {"group": group, "how": "drag"}
    name = name or f"{next(_COUNT):016x}"
    return Event(id=name, type="move", image=image, value=value, ms=5.0)


def test_numbers_places_and_cookies(database, plan):
    first, token = join(database, plan)
    second, other = join(database, plan)
    assert (first.number, first.place, second.number, second.place) == (1, 0, 2, 1)
    assert find_participant(database, token) == first
    assert find_participant(database, other) == second
    assert find_participant(database, "x" * 32) is None
    with database.reading() as connection:
        stored = connection.scalars(select(participants.c.token)).all()
    assert token not in stored


def test_places_of_dropouts_are_given_again(database, plan):
    people = [join(database, plan)[0] for _ in range(4)]
    forget(database, plan, people[1])
    late = 1000 + 60 * plan.settings.limits.expire_minutes + 1
    read_trial(database, walk_to(database, plan, people[3], "stage/0", late), 0, late)
    places = [join(database, plan, now=late)[0].place for _ in range(4)]
    assert places == [0, 1, 2, 4]  # 3 is still there


def test_arms_and_kinds_have_places_of_their_own(database, plan):
    places = [
        join(database, plan, arm, kind=kind)[0].place
        for arm in ("main", "complementary")
        for kind in ("participant", "pilot", "synthetic")
    ]
    assert places == [0] * 6


def test_nobody_takes_part_twice_not_even_in_another_arm(database, plan):
    join(database, plan, person="p1")
    with pytest.raises(RefusedError, match=r"^already_started$"):
        join(database, plan, "complementary", person="p1")
    again = join(database, plan, person="p2")[0]
    forget(database, plan, again)
    with pytest.raises(RefusedError, match=r"^already_started$"):
        join(database, plan, person="p2")
    with database.reading() as connection:
        assert not {"p1", "p2"} & set(connection.scalars(select(participants.c.person)))


def test_a_full_arm_takes_nobody_but_pilots(tmp_path):
    arms = ({"name": "main", "participants": 2}, {"name": "other"})
    plan = write_tiny_study(tmp_path, arms=arms)
    database = open_database(tmp_path, plan)
    people = [join(database, plan)[0] for _ in range(2)]
    with pytest.raises(RefusedError, match=r"^full$"):
        join(database, plan)
    join(database, plan, "other")
    join(database, plan, kind="pilot")
    forget(database, plan, people[0])
    assert join(database, plan)[0].place == people[0].place
    database.close()


def test_pages_come_one_after_the_other_and_an_answer_counts_once(database, plan):
    person, _ = join(database, plan)
    steps = steps_of(plan, "main")
    assert person.step == steps[0] == "about-you"
    moved = go_on(database, plan, person, "about-you", {"age": "18-30"}, 1001.0)
    assert moved.step == steps[1]
    again = go_on(database, plan, person, "about-you", {"age": "31-40"}, 1002.0)
    assert again.step == steps[1]
    with database.reading() as connection:
        assert connection.scalars(select(answers.c.value)).all() == ["18-30"]
    end = walk_to(database, plan, moved, "ratings")
    done = go_on(database, plan, end, "ratings", {"difficulty": "4"}, 1003.0)
    assert (done.step, done.status) == ("done", "finished")
    assert done.code
    assert len(done.code) == 8


def test_the_last_move_counts_and_events_are_kept_once(database, plan):
    person = walk_to(database, plan, join(database, plan)[0], "stage/0")
    image = plan.practice[0].id
    read_trial(database, person, 0, 1.0)
    first = move(image, 1, "a" * 16)
    save_events(database, person, 0, [first, move(image, 3, "b" * 16)], 2.0)
    save_events(database, person, 0, [first], 3.0)  # sent again: the move back must not come back
    assert read_trial(database, person, 0, 4.0) == {image: 3}
    save_events(database, person, 0, [move(image, None, "c" * 16)], 5.0)
    assert read_trial(database, person, 0, 6.0) == {}
    with database.reading() as connection:
        kept = connection.execute(select(events.c.id, events.c.sequence, events.c.at)).all()
    assert [tuple(row) for row in kept] == [("a" * 16, 1, 2.0), ("b" * 16, 2, 2.0), ("c" * 16, 3, 5.0)]  # fmt: skip # noqa: E501


def test_a_batch_is_closed_only_when_everything_is_placed(database, plan):
    person = walk_to(database, plan, join(database, plan)[0], "stage/0")
    ids = [image.id for image in plan.practice]
    read_trial(database, person, 0, 1.0)
    save_events(database, person, 0, [move(image, 2) for image in ids[:-1]], 2.0)
    with pytest.raises(RefusedError, match=r"^unplaced$") as caught:
        submit_trial(database, plan, person, 0, ids, 3.0)
    assert caught.value.extra == {"unplaced": ids[-1:]}
    save_events(database, person, 0, [move(ids[-1], 4)], 4.0)
    assert submit_trial(database, plan, person, 0, ids, 5.0) == "stage/1"
    for act in (
        lambda: save_events(database, person, 0, [move(ids[0], 1)], 6.0),
        lambda: submit_trial(database, plan, person, 0, ids, 6.0),
        lambda: read_trial(database, person, 0, 6.0),
    ):
        with pytest.raises(RefusedError, match=r"^elsewhere$"):
            act()


def test_forgetting_deletes_everything_but_the_place(database, plan):
    person, token = join(database, plan, parameters={"PROLIFIC_PID": "p"}, person="p")
    walk_to(database, plan, person, "stage/2")
    forget(database, plan, person)
    assert find_participant(database, token) is None
    with database.reading() as connection:
        for table in (answers, trials, placements, events):
            assert connection.execute(select(table)).all() == []
        row = connection.execute(select(participants)).one()
    assert row.status == "withdrawn"
    assert row.token is None
    assert row.parameters == {}


def test_forgetting_leaves_neither_how_far_they_came_nor_when(database, plan):
    person, _ = join(database, plan, now=1000.0)
    walk_to(database, plan, person, "stage/0", now=2000.0)
    with database.writing() as connection:
        late = {"finished_at": 3000.0, "expired_at": 2500.0, "code": "C"}
        connection.execute(participants.update().values(late))
    forget(database, plan, person)
    with database.reading() as connection:
        row = connection.execute(select(participants)).one()
    assert (row.step, row.consented_at, row.seen_at) == (person.step, 1000.0, 1000.0)
    assert (row.finished_at, row.expired_at, row.code) == (None, None, None)


def test_many_at_once_lose_nothing_and_share_no_place(database, plan):
    people = []
    lock = threading.Lock()

    def come():
        person, _ = join(database, plan)
        person = walk_to(database, plan, person, "stage/0")
        read_trial(database, person, 0, 1.0)
        for image in plan.practice:
            save_events(database, person, 0, [move(image.id, 1)], 2.0)
        with lock:
            people.append(person)

    threads = [threading.Thread(target=come) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(person.place for person in people) == list(range(12))
    with database.reading() as connection:
        assert len(connection.execute(select(events)).all()) == 12 * len(plan.practice)


def test_secret_survives_and_foreign_databases_are_refused(tmp_path, plan, folder):
    first = open_database(tmp_path, plan)
    first.close()
    again = open_database(tmp_path, plan)
    assert again.secret == first.secret
    again.close()
    other = plan.model_copy(update={"version": "changed"})
    with pytest.raises(DataError, match="holds the answers of another study"):
        open_database(tmp_path, other)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / FILE).write_bytes(b"this is no database at all, but text")
    with pytest.raises(DataError, match="cannot be opened"):
        open_database(tmp_path / "sub", plan)
    with pytest.raises(DataError, match="cannot be opened"):
        open_database(tmp_path / "missing", plan)


def test_sqlite_writes_through_to_the_disk(tmp_path, plan):
    database = open_database(tmp_path, plan)
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def test_an_exception_leaves_nothing_behind(database, plan):
    person, _ = join(database, plan)

    def fail():
        with database.writing() as connection:
            connection.execute(
                answers.insert().values(number=person.number, question="q", value="v", at=1.0)
            )
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        fail()
    with database.reading() as connection:
        assert connection.execute(select(answers)).all() == []


def _write_until_killed(folder, pipe):
    plan = StudyPlan.read(folder)
    database = open_database(folder, plan)
    person, _ = join(database, plan)
    person = go_on(database, plan, person, "about-you", {}, 1.0)
    person = go_on(database, plan, person, "instructions", {}, 1.0)
    read_trial(database, person, 0, 1.0)
    for count in range(10**6):
        event = move(plan.practice[count % 8].id, 1 + count % 4, f"{count:016x}")
        save_events(database, person, 0, [event], 2.0)
        pipe.send(event.id)


@pytest.mark.slow
def test_what_was_acknowledged_survives_sigkill(tmp_path):
    write_tiny_study(tmp_path)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_write_until_killed, args=(tmp_path, theirs))
    process.start()
    theirs.close()
    acknowledged = {ours.recv() for _ in range(40)}
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while ours.poll():
        try:
            acknowledged.add(ours.recv())
        except EOFError:
            break
    with sqlite3.connect(tmp_path / FILE) as connection:
        kept = {row[0] for row in connection.execute("SELECT id FROM events")}
    connection.close()
    assert acknowledged <= kept
    assert len(kept) <= len(acknowledged) + 1


def test_who_comes_back_takes_a_place_up_again(database, plan):
    first, token = join(database, plan)
    late = 1000 + 60 * plan.settings.limits.expire_minutes + 1
    assert join(database, plan, now=late)[0].place == first.place
    assert find_participant(database, token).status == "expired"
    assert not is_full(database, plan, "main", "participant", late)
    take_up(database, plan, first.number, late)
    again = find_participant(database, token)
    assert (again.status, again.place) == ("in_progress", 1)
