"""The same jobs, wherever they run: the contract of all engines, and the one of this machine.

An engine is given a function that prepares a process, a function that does one job, and the jobs.
What the first returns, the state of the process, is given to the second with every job, and ends
with the run. Every job runs on one thread of one process, so results do not depend on where and
beside what it runs. A worker that is lost (killed, out of memory) is replaced, its job done again.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar, final

import torch

from torchxnn.errors import WorkerError, WorkerWarning, XNNError
from torchxnn.parallel.memory import keep_freed_memory
from torchxnn.parallel.process import one_thread

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")

_SHOWN = 200  # characters of a job in an error message


class Engine(ABC):
    """Works through a list of jobs; where is up to the subclass, the results are the same."""

    @abstractmethod
    def run(
        self,
        start: Callable[..., State],
        arguments: tuple[Any, ...],
        work: Callable[[State, Job], Result],
        jobs: Sequence[Job],
    ) -> Iterator[tuple[int, Result]]:
        """Results as they become ready, each once; every job runs on one thread.

        Args:
            start: called once per process, before its first job; a function or class of a module,
                so that other processes find it. What it returns is the state of the process.
            arguments: of `start`; they may hold an `nn.Module`. Other processes get a copy.
            work: called with that state and a job, for each job; a function of a module, too.
            jobs: the jobs.

        Yields:
            The position of a job in `jobs`, and its result.

        Raises:
            WorkerError: workers were lost too often.
            Exception: what `start` or `work` raise, with its type; the other jobs are given up.
        """


@final
class LocalEngine(Engine):
    """This machine: everything in this process, or in several new ones.

    A new process that is killed is replaced and its job done again; ending this process, in
    whatever way, ends the others.

    Args:
        jobs: processes; with 1 everything happens in this one.
        retries: how often a job is done again whose process was lost.

    Raises:
        XNNError: a number out of range.

    Example:
        >>> dict(LocalEngine(2).run(prepare, (model,), draw, [0, 1, 2]))
    """

    def __init__(self, jobs: int = 1, retries: int = 3) -> None:
        if jobs < 1 or retries < 0:
            raise XNNError(f"jobs must be at least 1 and retries 0, got {jobs} and {retries}")
        self.jobs, self.retries = jobs, retries

    def run(
        self,
        start: Callable[..., State],
        arguments: tuple[Any, ...],
        work: Callable[[State, Job], Result],
        jobs: Sequence[Job],
    ) -> Iterator[tuple[int, Result]]:
        """See `Engine.run`."""
        if not jobs:
            return
        if self.jobs == 1:
            with one_thread():
                state = start(*arguments)
            for index, job in enumerate(jobs):
                with one_thread():  # not around the `yield`: between jobs the caller computes
                    result = work(state, job)
                yield index, result
            return
        try:
            task = pickle.dumps((start, arguments, work))
        except Exception as error:
            raise XNNError(
                f"this cannot be sent to other processes, so use jobs=1: {error}"
            ) from error
        processes = min(self.jobs, len(jobs))
        queue = JobQueue(jobs, self.retries, processes)
        with _Processes(task, processes) as pool:
            yield from pool.results(queue)


class JobQueue:
    """Which jobs are still to be done, and how often each was lost.

    Args:
        todo: the jobs.
        retries: how often a job is done again whose worker was lost.
        workers: how many there are; that many may be lost at once while they start.
    """

    def __init__(self, todo: Sequence[Any], retries: int, workers: int) -> None:
        self._todo, self._retries, self._workers = todo, retries, workers
        self._waiting = deque(range(len(todo)))
        self._lost: Counter[int] = Counter()
        self._lost_at_start = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> tuple[int, Any] | None:
        """The next job and its position; None if no job waits."""
        self._lost_at_start = 0  # whoever takes a job has started
        if not self._waiting:
            return None
        index = self._waiting.popleft()
        return index, self._todo[index]

    def lose(self, index: int | None, reason: str) -> None:
        """A worker was lost; its job waits again, before all others.

        Args:
            index: position of the job; None for a worker that had not started yet.
            reason: what is known about the loss.

        Raises:
            WorkerError: that was once too often.
        """
        if index is None:
            self._lose_at_start(reason)
            return
        self._lost[index] += 1
        job = repr(self._todo[index])
        job = job if len(job) <= _SHOWN else f"{job[:_SHOWN]}..."
        if self._lost[index] > self._retries:
            raise WorkerError(
                f"job {job} was given up after its worker was lost {self._lost[index]} times "
                f"({reason}); it may need more memory than there is: use fewer workers or "
                "smaller jobs"
            )
        _warn(f"a worker was lost ({reason}); its job {job} is done again")
        self._waiting.appendleft(index)

    def _lose_at_start(self, reason: str) -> None:
        self._lost_at_start += 1
        if self._lost_at_start > self._retries * self._workers:
            raise WorkerError(
                f"{self._lost_at_start} worker(s) in a row were lost while they started "
                f"({reason}); torchxnn and the model must be there in each of {self._workers} "
                "worker(s), and memory enough"
            )
        _warn(f"a worker was lost while it started ({reason}); another one is started")


def _warn(text: str) -> None:
    warnings.warn(text, WorkerWarning, stacklevel=3)


class JobRunner:
    """The side of a worker: one process, one thread; everything comes and goes as bytes."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._work: Callable[[Any, Any], Any] | None = None
        self._state: Any = None

    def start(self, task: bytes, places: Sequence[str] = (), folder: Path | None = None) -> bytes:
        """Prepare for jobs.

        Args:
            task: what `Engine.run` was given, but for the jobs.
            places: folders to look for modules in, beside those that this process knows.
            folder: what relative paths start from, if it is there.
        """
        if folder is not None and folder.is_dir():
            os.chdir(folder)
        sys.path.extend(place for place in places if place not in sys.path)
        return _call(self._start, task)

    def run(self, job: bytes) -> bytes:
        """Do a job; the bytes are for `open_result`."""
        return _call(self._run, job)

    def _start(self, task: bytes) -> None:
        start, arguments, work = pickle.loads(task)
        self._state = start(*arguments)
        self._work = work

    def _run(self, job: bytes) -> Any:
        if self._work is None:
            raise RuntimeError("a worker was given a job before it was started")
        return self._work(self._state, pickle.loads(job))


def _call(work: Callable[[bytes], Any], content: bytes) -> bytes:
    try:
        return pickle.dumps((True, work(content)))
    except Exception as error:
        text = "".join(traceback.format_exception(error)).rstrip()
        try:
            failure = pickle.dumps((False, (error, text)))
            pickle.loads(failure)  # some exceptions can be written but not read
        except Exception:
            failure = pickle.dumps((False, (RuntimeError(repr(error)), text)))
        return failure


def open_result(content: bytes) -> Any:
    """What a `JobRunner` returned, or raise what it raised."""
    fine, result = pickle.loads(content)
    if fine:
        return result
    error, text = result
    error.add_note(f"In a worker:\n{text}")
    raise error


@dataclass(eq=False)
class _Process:
    """A process; `index` is the position of its job, None while it has none."""

    process: BaseProcess
    connection: Connection
    greeted: bool = False
    index: int | None = None


class _Processes:
    """Processes of this machine; leaving the `with`, or forgetting the object, ends them."""

    def __init__(self, task: bytes, count: int) -> None:
        self._task, self._count = task, count
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Process] = []
        self._end = util.Finalize(self, _end_processes, (self._workers,), exitpriority=10)

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def results(self, queue: JobQueue) -> Iterator[tuple[int, Any]]:
        """Hand out the jobs and gather the results; a worker has its next job before that."""
        for _ in range(self._count):
            self._add()
        while queue or any(worker.index is not None for worker in self._workers):
            ready = wait([worker.connection for worker in self._workers])
            for worker in [each for each in self._workers if each.connection in ready]:
                try:
                    content = worker.connection.recv_bytes()
                except (EOFError, OSError):
                    self._replace(worker, queue)
                    continue
                result = open_result(content) if worker.greeted else None
                index, worker.index = worker.index, None
                with suppress(OSError):  # lost just now: the next `wait` finds out
                    self._go_on(worker, queue)
                if index is not None:
                    yield index, result

    def _go_on(self, worker: _Process, queue: JobQueue) -> None:
        if not worker.greeted:  # it runs, so it takes what is too long for a pipe, too
            worker.greeted = True
            worker.connection.send_bytes(self._task)
            return
        taken = queue.take()
        if taken is not None:
            worker.index, job = taken
            worker.connection.send_bytes(pickle.dumps(job))

    def _replace(self, worker: _Process, queue: JobQueue) -> None:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        queue.lose(worker.index, f"exit code {worker.process.exitcode}")
        self._add()

    def _add(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,))
        process.start()
        theirs.close()
        self._workers.append(_Process(process, ours))


def _end_processes(workers: list[_Process]) -> None:
    for worker in workers:
        worker.process.terminate()
        worker.connection.close()
    for worker in workers:
        worker.process.join()
    workers.clear()


def _serve(connection: Connection) -> None:
    """The main function of a process: answer every message with a result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, too, and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runner = JobRunner()
    with suppress(EOFError, OSError):
        connection.send_bytes(b"here")
        connection.send_bytes(runner.start(connection.recv_bytes()))
        while True:
            connection.send_bytes(runner.run(connection.recv_bytes()))


def _end_with_parent() -> None:
    """A worker in the middle of a long job notices that its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
