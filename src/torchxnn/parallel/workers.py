"""Hand out jobs to workers that may be lost, wherever these are, and gather the results.

Why not a pool of a library: `concurrent.futures` and loky give up the jobs of all workers when one
is lost and do not say whose job it was, keep no state of a process but in a module, and cannot end
a running job; Ray's own restarts count per worker and not per job, are silent, and go on for ever
with a worker that dies while it starts, and its pool hands the next job to the dead one.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from torchxnn.errors import WorkerError, WorkerWarning
from torchxnn.parallel.process import keep_freed_memory

Worker = TypeVar("Worker", bound=Hashable)

_SHOWN = 200  # characters of a job in a message


@dataclass(frozen=True)
class Loss:
    """A worker was lost; `reason` is what is known about it."""

    reason: str


class Workers(ABC, Generic[Worker]):
    """Workers of one kind, each of them a `JobRunner` that does one thing at a time."""

    @abstractmethod
    def add(self) -> Worker:
        """Begin to start one; its first report says that it is ready."""

    @abstractmethod
    def send(self, worker: Worker, job: bytes) -> None:
        """Give a job to a worker that is ready; should it be lost, its next report says so."""

    @abstractmethod
    def next_report(self) -> tuple[Worker, bytes | Loss]:
        """Wait until a worker that started or has a job is ready or lost.

        Returns:
            The worker, and what its `JobRunner` gave. A lost one is forgotten.
        """

    @abstractmethod
    def end(self) -> None:
        """End them all, in the middle of a job, too."""


def work_through(
    workers: Workers[Worker], count: int, jobs: Sequence[Any], retries: int
) -> Iterator[tuple[int, Any]]:
    """Results as they become ready, each once; a worker has its next job before that.

    A lost worker's job is done again before all others, by a worker that has nothing left to do
    where there is one: on what is left of a cluster there may be no room for another.

    Args:
        workers: none yet; all have ended when this does, however it does.
        count: of workers.
        jobs: what to do.
        retries: how often a job is done again whose worker was lost, and how many workers in a row
            may be lost while they start, times `count`.

    Yields:
        The position of a job, and its result.

    Raises:
        WorkerError: workers were lost too often.
        Exception: what a job raises.
    """
    waiting = deque(range(len(jobs)))
    losses: Counter[int | None] = Counter()  # None: while they started, since one did
    busy: dict[Worker, int | None] = {}
    idle: list[Worker] = []
    rested: set[Worker] = set()  # idle until now: may have been lost long before the job was sent
    try:
        busy |= {workers.add(): None for _ in range(count)}
        while waiting or any(index is not None for index in busy.values()):
            worker, report = workers.next_report()
            index = busy.pop(worker)
            if isinstance(report, Loss):
                losses[index] += worker not in rested
                if index is None:
                    _lost_at_start(report.reason, losses[index], retries, count)
                else:
                    _lost_with_job(report.reason, losses[index], retries, jobs[index])
                    waiting.appendleft(index)
                if not (waiting and idle):
                    busy[workers.add()] = None
                    continue
                worker, index = idle.pop(), None
                rested.add(worker)
            else:
                rested.discard(worker)
                losses[None] = 0
                result = open_result(report)
            if waiting:
                busy[worker] = position = waiting.popleft()
                workers.send(worker, pickle.dumps(jobs[position]))
            else:
                idle.append(worker)
            if index is not None:
                yield index, result
    finally:
        workers.end()


def _lost_with_job(reason: str, times: int, retries: int, job: Any) -> None:
    text = repr(job)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    if times > retries:
        raise WorkerError(
            f"job {text} was given up after its worker was lost {times} times ({reason}); it may "
            "need more memory than there is: use fewer workers or smaller jobs"
        )
    _warn(f"a worker was lost ({reason}); its job {text} is done again")


def _lost_at_start(reason: str, times: int, retries: int, count: int) -> None:
    if times > retries * count:
        raise WorkerError(
            f"{times} worker(s) in a row were lost while they started ({reason}); torchxnn and the "
            f"model must be there in each of {count} worker(s), and memory enough"
        )
    _warn(f"a worker was lost while it started ({reason}); another one is started")


def _warn(text: str) -> None:
    warnings.warn(text, WorkerWarning, stacklevel=4)


class JobRunner:
    """The side of a worker: one process, one thread; everything comes and goes as bytes."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._work: Callable[[Any, Any], Any] | None = None
        self._state: Any = None

    def start(self, task: bytes, places: Sequence[str] = (), folder: Path | None = None) -> bytes:
        """Prepare for jobs; `task` is what `Engine.run` was given, but for the jobs.

        `places` are folders to look for modules in, beside those that this process knows, and
        `folder` is what relative paths start from, if it is there.
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
