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
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, final

import torch

from torchxnn.errors import XNNError
from torchxnn.parallel.process import one_thread
from torchxnn.parallel.workers import JobRunner, Loss, Workers, work_through

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")


Task = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, Any], Any]]
"""What `Engine.run` is given, but for the jobs."""

Jobs = Sequence[Any] | Callable[[int], Sequence[Any]]
"""The jobs, or what makes them for a number of workers."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that says which GPUs a process sees, before it first asks for one."""


class Engine(ABC):
    """Works through a list of jobs; where is up to the subclass, the results are the same."""

    @final
    def run(
        self,
        start: Callable[..., State],
        arguments: tuple[Any, ...],
        work: Callable[[State, Job], Result],
        jobs: Sequence[Job] | Callable[[int], Sequence[Job]],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """Results as they become ready, each once; every job runs on one thread.

        Args:
            start: called once per process, before its first job; a function or class of a module,
                so that other processes find it. What it returns is the state of the process.
            arguments: of `start`; they may hold an `nn.Module`. Other processes get a copy.
            work: called with that state and a job, for each job; a function of a module, too.
            jobs: the jobs, or what makes them when it is told how many workers there will be.
            gpu: whether every worker needs a GPU. Each has one of its own, which is the only one
                that it sees, "cuda"; no two share one.

        Yields:
            The position of a job in `jobs`, and its result.

        Raises:
            WorkerError: workers were lost too often.
            XNNError: GPUs are needed, and a cluster has none.
            Exception: what `start` or `work` raise, with its type; the other jobs are given up.
        """
        if callable(jobs) or jobs:
            yield from self._run((start, arguments, work), jobs, gpu)

    @abstractmethod
    def _run(self, task: Task, jobs: Jobs, gpu: bool) -> Iterator[tuple[int, Any]]:
        """See `run`; jobs that are there already are one at least."""


@final
class LocalEngine(Engine):
    """This machine: everything in this process, or in several new ones.

    With one job at once everything happens in this process. A new one that is killed is replaced
    and its job done again, `retries` times at most; ending this process, in whatever way, ends the
    others. Where jobs need GPUs, no more of them run at once than this process sees GPUs.

    Raises:
        XNNError: a number out of range.

    Example:
        >>> dict(LocalEngine(2).run(prepare, (model,), draw, [0, 1, 2]))
    """

    def __init__(self, jobs: int = 1, retries: int = 3) -> None:
        for name, value, least in (("jobs", jobs, 1), ("retries", retries, 0)):
            if value < least:
                raise XNNError(f"{name} must be at least {least}, got {value}")
        self.jobs, self.retries = jobs, retries

    def _run(self, task: Task, jobs: Jobs, gpu: bool) -> Iterator[tuple[int, Any]]:
        gpus = visible_gpus() if gpu else []
        most = min(self.jobs, max(1, len(gpus))) if gpu else self.jobs
        jobs = jobs(most) if callable(jobs) else jobs
        if most == 1:
            yield from _run_here(task, jobs)
            return
        try:
            content = pickle.dumps(task)
        except Exception as error:
            raise XNNError(
                f"this cannot be sent to other processes, so use jobs=1: {error}"
            ) from error
        count = min(most, len(jobs))
        yield from work_through(_Processes(content, gpus), count, jobs, self.retries)


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, as `VISIBLE` names them; none is started for it."""
    named = os.environ.get(VISIBLE)
    every = [str(number) for number in range(torch.cuda.device_count())]
    return every if named is None else [each.strip() for each in named.split(",")][: len(every)]


def _run_here(task: Task, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    start, arguments, work = task
    with one_thread():
        state = start(*arguments)
    for index, job in enumerate(jobs):
        with one_thread():  # not around the `yield`: between jobs the caller computes
            result = work(state, job)
        yield index, result


@final
class _Processes(Workers[Connection]):
    """Processes of this machine, each known by our end of a pipe to it.

    Forgetting the object, or ending this process, ends them. If there are GPUs, each process sees
    the one that fewest others see.
    """

    def __init__(self, task: bytes, gpus: Sequence[str] = ()) -> None:
        self._task, self._gpus = task, gpus
        self._gpu_of: dict[Connection, str] = {}
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, BaseProcess] = {}
        self._starting: set[Connection] = set()
        self._busy: set[Connection] = set()
        self._end = util.Finalize(self, _end_processes, (self._processes,), exitpriority=10)

    def add(self) -> Connection:
        ours, theirs = self._context.Pipe()
        taken = list(self._gpu_of.values())
        gpu = min(self._gpus, key=taken.count) if self._gpus else None
        process = self._context.Process(target=_serve, args=(theirs, gpu))
        with _without_interrupts():  # also while it imports, before it can say so itself
            process.start()
        theirs.close()
        self._processes[ours] = process
        if gpu is not None:
            self._gpu_of[ours] = gpu
        self._starting.add(ours)
        self._busy.add(ours)
        return ours

    def send(self, worker: Connection, job: bytes) -> None:
        self._busy.add(worker)
        with suppress(OSError):  # lost just now: the next report says so
            worker.send_bytes(job)

    def next_report(self) -> tuple[Connection, bytes | Loss]:
        while True:
            ready = wait(self._busy)
            worker = next(each for each in self._busy if each in ready)
            self._busy.remove(worker)
            try:
                content = worker.recv_bytes()
            except (EOFError, OSError):
                return worker, self._bury(worker)
            if worker not in self._starting:
                return worker, content
            self._starting.remove(worker)
            self.send(worker, self._task)  # it runs, so it takes what is too long for a pipe, too

    def end(self) -> None:
        self._end()

    def _bury(self, worker: Connection) -> Loss:
        self._starting.discard(worker)
        worker.close()
        self._gpu_of.pop(worker, None)
        process = self._processes.pop(worker)
        process.join()
        return Loss(f"exit code {process.exitcode}")


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that start in a `with` never hear of Ctrl-C; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_processes(processes: dict[Connection, BaseProcess]) -> None:
    for connection, process in processes.items():
        process.terminate()
        connection.close()
    for process in processes.values():
        process.join()
    processes.clear()


def _serve(connection: Connection, gpu: str | None = None) -> None:
    """The main function of a process: answer every message with a result."""
    if gpu is not None:
        os.environ[VISIBLE] = gpu  # in time: PyTorch asks for GPUs when the first one is used
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
