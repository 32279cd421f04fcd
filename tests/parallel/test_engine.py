"""Jobs in one process and in several; a worker that is lost is not a job that is lost."""

import contextlib
import gc
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from conftest import make_net
from engine_examples import (
    STARTED,
    Factor,
    as_it_is,
    die,
    gone,
    gpus_seen,
    logits_of,
    logits_unless_first,
    multiply,
    take_model,
    wait_until,
)
from torchxnn.errors import DataError, WorkerError, WorkerWarning, XNNError
from torchxnn.parallel.engine import LocalEngine, _Processes, visible_gpus
from torchxnn.parallel.workers import JobRunner, Loss, Workers, open_result, work_through


def find_place(_, name):
    return str(Path(name).absolute())


def write_identity_and_wait(_, job):
    Path(job).write_text(str(os.getpid()))
    time.sleep(120)


class StubbornError(Exception):
    """Can be pickled, but not read back."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_stubborn(_, job):
    raise StubbornError(job, job)


def test_one_process_runs_here_on_one_thread():
    assert list(LocalEngine().run(Factor, (3,), multiply, [1, 2])) == [(0, (3, 1)), (1, (6, 1))]
    assert STARTED[-1] == 3


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_between_the_jobs_the_caller_keeps_its_threads():
    for _, (_, threads) in LocalEngine().run(Factor, (3,), multiply, [1, 2]):
        assert (threads, torch.get_num_threads()) == (1, 3)
    with pytest.raises(DataError) as caught:  # its traceback keeps the run alive
        list(LocalEngine().run(Factor, (3,), multiply, [1, "bad"]))
    assert torch.get_num_threads() == 3
    results = LocalEngine().run(Factor, (3,), multiply, [1, 2])
    next(results)
    assert torch.get_num_threads() == 3
    assert caught.type is DataError


def test_the_state_of_a_process_ends_with_the_run():
    states = []

    def start():
        states.append(weakref.ref(state := Factor(1)))
        return state

    list(LocalEngine().run(start, (), multiply, [1]))
    given_up = LocalEngine().run(start, (), multiply, [1, 2])
    next(given_up)
    assert states[1]() is not None
    del given_up
    gc.collect()
    assert [state() for state in states] == [None, None]


def test_runs_at_the_same_time_do_not_see_each_others_state():
    meet = threading.Barrier(2, timeout=30)

    def work(factor, job):
        meet.wait()
        return multiply(factor, job)[0]

    def run(value):
        return dict(LocalEngine().run(Factor, (value,), work, [1, 2, 3]))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, (2, 5))) == [{0: 2, 1: 4, 2: 6}, {0: 5, 1: 10, 2: 15}]


def test_nothing_to_do_starts_nothing():
    count = len(STARTED)
    assert list(LocalEngine(4).run(Factor, (1,), multiply, [])) == []
    assert len(STARTED) == count


def test_numbers_out_of_range():
    with pytest.raises(XNNError, match="jobs must be at least 1, got 0"):
        LocalEngine(0)
    with pytest.raises(XNNError, match="retries must be at least 0, got -1"):
        LocalEngine(1, -1)


def test_what_cannot_be_sent_is_said():
    with pytest.raises(XNNError, match="use jobs=1"):
        list(LocalEngine(2).run(lambda: None, (), multiply, [1]))


class Scripted(Workers):
    """Workers that do every job, but for those lost as the script says; one step per report."""

    def __init__(self, *lost):
        self.lost, self.given, self.reports, self.ended = list(lost), [], deque(), False

    def add(self):
        worker = object()
        self._report(worker, "start", None)
        return worker

    def send(self, worker, job):
        self.given.append(pickle.loads(job))
        self._report(worker, pickle.loads(job), pickle.loads(job))

    def next_report(self):
        return self.reports.popleft()

    def end(self):
        self.ended = True

    def _report(self, worker, what, result):
        lost = what in self.lost
        if lost:
            self.lost.remove(what)
        content = Loss("killed") if lost else pickle.dumps((True, result))
        self.reports.append((worker, content))


def test_a_lost_job_comes_next_and_its_worker_is_replaced():
    workers = Scripted("a", "c" * 999)
    jobs = ["a", "b", "c" * 999]
    with pytest.warns(WorkerWarning) as warned:
        assert dict(work_through(workers, 1, jobs, retries=1)) == dict(enumerate(jobs))
    assert workers.given == ["a", "a", "b", "c" * 999, "c" * 999]
    assert str(warned[0].message) == "a worker was lost (killed); its job 'a' is done again"
    assert re.search(r"c{50}\.\.\. is done again", str(warned[1].message))
    assert workers.ended


def test_a_job_is_given_up_in_the_end():
    workers = Scripted("b" * 999, "b" * 999)
    results = work_through(workers, 1, ["a", "b" * 999], retries=1)
    assert next(results) == (0, "a")
    with (
        pytest.warns(WorkerWarning, match="is done again"),
        pytest.raises(WorkerError, match=r"b{50}\.\.\. was given up .* lost 2 times \(killed\)"),
    ):
        next(results)
    assert workers.ended


def test_workers_that_never_start_end_the_run():
    with (
        pytest.warns(WorkerWarning, match="another one is started") as warned,
        pytest.raises(WorkerError, match=r"3 worker\(s\) in a row were lost while they started"),
    ):
        list(work_through(Scripted(*["start"] * 9), 2, ["a", "b"], retries=1))
    assert len(warned) == 2


class Crowded(Scripted):
    """There is room for some workers; those beyond never start, whoever waits for them."""

    def __init__(self, room, *lost):
        super().__init__(*lost)
        self.room = room

    def add(self):
        self.room -= 1
        return super().add() if self.room >= 0 else object()


def test_a_job_that_is_lost_last_goes_to_a_worker_that_has_nothing_to_do():
    """Where a machine was lost there is no room for another worker, and one is idle."""
    workers = Crowded(2, "b")
    with pytest.warns(WorkerWarning, match="'b' is done again"):
        assert dict(work_through(workers, 2, ["a", "b"], retries=1)) == {0: "a", 1: "b"}
    assert workers.given == ["a", "b", "b"]


def test_idle_workers_that_were_lost_with_their_machine_do_not_count_against_a_job():
    workers = Scripted("c", "c", "c")
    with pytest.warns(WorkerWarning, match="'c' is done again") as warned:
        assert dict(work_through(workers, 3, "abc", retries=1)) == dict(enumerate("abc"))
    assert len(warned) == 3
    with pytest.warns(WorkerWarning), pytest.raises(WorkerError, match="lost 2 times"):
        list(work_through(Scripted(*"cccc"), 3, "abc", retries=1))


def test_who_stops_asking_ends_the_workers():
    workers = Scripted()
    results = work_through(workers, 1, ["a", "b"], retries=1)
    next(results)
    results.close()
    assert workers.ended


@pytest.mark.slow
def test_errors_keep_their_type_and_name_the_worker():
    with pytest.raises(DataError, match="no such job") as caught:
        list(LocalEngine(2).run(Factor, (3,), multiply, ["bad"]))
    assert "in multiply" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_sent_is_sent_as_text():
    runner = JobRunner()
    open_result(runner.start(pickle.dumps((Factor, (1,), raise_stubborn))))
    with pytest.raises(RuntimeError, match="StubbornError"):
        open_result(runner.run(pickle.dumps(1)))


def test_a_worker_finds_modules_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "there").mkdir()
    runner, task = JobRunner(), pickle.dumps((Factor, (1,), find_place))
    open_result(runner.start(task, [sys.path[0], "more"], Path("there").absolute()))
    assert open_result(runner.run(pickle.dumps("x"))) == str(tmp_path / "there" / "x")
    assert sys.path[-1] == "more"
    open_result(runner.start(task, [], Path("/nowhere")))


@pytest.mark.slow
def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(tmp_path):
    """Bit for bit as here, and the network's memory is not shared with the workers."""
    net = make_net()
    expected = [logits_of(net, seed) for seed in range(6)]
    with pytest.warns(WorkerWarning, match=r"exit code -9\); its job 3 is done again"):
        found = list(LocalEngine(2).run(take_model, (net, tmp_path), logits_unless_first, range(6)))
    assert sorted(index for index, _ in found) == list(range(6))
    assert all(torch.equal(logits, expected[index]) for index, (_, logits) in found)
    assert not any(parameter.is_shared() for parameter in net.parameters())
    assert len(list(tmp_path.glob("*.tried"))) == 1
    wait_until(lambda: all(gone(process) for _, (process, _) in found))


@pytest.mark.slow
def test_a_deadly_job_is_named():
    with pytest.raises(WorkerError, match="job 'deadly' was given up after its worker was lost 1"):
        list(LocalEngine(2, retries=0).run(Factor, (1,), die, ["deadly"]))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, how):
    """The worker is in the middle of a job when its parent is killed or interrupted."""
    identity = tmp_path / "worker"
    script = tmp_path / "parent.py"
    script.write_text(
        "from test_engine import Factor, write_identity_and_wait\n"
        "from torchxnn.parallel.engine import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    jobs = LocalEngine(2)\n"
        f"    list(jobs.run(Factor, (1,), write_identity_and_wait, [{str(identity)!r}]))\n"
    )
    places = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": places},
        stderr=subprocess.DEVNULL,
    ) as parent:
        wait_until(lambda: identity.exists() and identity.read_text())
        parent.send_signal(how)
    worker = int(identity.read_text())
    try:
        wait_until(lambda: gone(worker), 10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


# GPUs


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("said", "seen"),
    [(None, ["0", "1"]), ("3,1", ["3", "1"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])],
)
def test_gpus_are_those_that_this_process_sees(monkeypatch, said, seen):
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus() == seen


@pytest.mark.parametrize(("jobs", "gpu", "told"), [(1, True, 1), (1, False, 1), (3, True, 1)])
def test_jobs_are_made_for_as_many_workers_as_there_are(monkeypatch, jobs, gpu, told):
    """Three jobs with one GPU are one at a time, in this process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = []

    def make(workers):
        asked.append(workers)
        return [1, 2]

    found = list(LocalEngine(jobs).run(Factor, (3,), multiply, make, gpu))
    assert [result for _, (result, _) in found] == [3, 6]
    assert asked == [told]


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_every_process_sees_a_gpu_of_its_own(tmp_path):
    found = list(LocalEngine(4).run(as_it_is, (tmp_path,), gpus_seen, range, gpu=True))
    assert sorted(seen for _, (seen, _) in found) == ["0", "1"]
    assert len({process for _, (_, process) in found} | {os.getpid()}) == 3
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.usefixtures("two_gpus")
def test_a_worker_in_the_place_of_a_lost_one_takes_its_gpu(monkeypatch):
    started = []

    class Process(BaseProcess):
        exitcode = 1

        def __init__(self, target, args):
            started.append(args[1])

        def start(self):
            pass

        terminate = join = start

    processes = _Processes(b"", ["0", "1"])
    monkeypatch.setattr(processes._context, "Process", Process)
    first, _ = processes.add(), processes.add()
    processes._bury(first)
    processes.add()
    processes.end()
    assert started == ["0", "1", "0"]
