"""The same jobs on a Ray cluster, with the results of the local engine.

Ray is optional: `pip install 'torchxnn[ray]'`. Every worker is an actor with one processor and one
thread, and a GPU where jobs need one; it holds one job at a time, so a lost worker or machine costs
one job, which is done again.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, final

from torchxnn.errors import WorkerError, XNNError
from torchxnn.parallel.engine import Engine, Jobs, Task
from torchxnn.parallel.workers import JobRunner, Loss, Workers, work_through

INSTALL = "pip install 'torchxnn[ray]'"

_SHOWN = 200  # characters of what Ray says about a lost worker

_KNOCK_SECONDS = 10.0


_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no FutureWarning about graphics cards
}


@final
class RayEngine(Engine):
    """A Ray cluster; what the jobs need is put into its shared storage once.

    A lost worker is replaced, on whatever machine has a free processor, and its job done again.
    A cluster that this engine started ends with the jobs; one that was there stays.

    Args:
        address: of a running cluster, or "auto"; None starts one on this machine, unless this
            process is connected to a cluster already.
        workers: how many; None for one per processor of the cluster, or per GPU if jobs need GPUs.
        retries: how often a job is done again whose worker was lost.
        patience: seconds to wait for a worker to start, where none is at work, before giving up.

    Raises:
        XNNError: Ray is not installed, or a number is out of range.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        retries: int = 3,
        patience: float = 600.0,
    ) -> None:
        _import_ray()
        if (workers is not None and workers < 1) or retries < 0:
            raise XNNError(f"workers must be at least 1 and retries 0, got {workers} and {retries}")
        self.address, self.workers = address, workers
        self.retries, self.patience = retries, patience

    def _run(self, task: Task, jobs: Jobs, gpu: bool) -> Iterator[tuple[int, Any]]:
        ray = _import_ray()
        with _connected(ray, self.address, self.workers):
            there = ray.cluster_resources()
            if gpu and there.get("GPU", 0) < 1:
                raise XNNError(
                    "the Ray cluster has no GPU, and every job needs one; compute on the CPU, or "
                    "add machines with GPUs (`ray start --num-gpus` if Ray does not find them)"
                )
            room = self.workers or int(there.get("GPU" if gpu else "CPU", 1))
            jobs = jobs(room) if callable(jobs) else jobs
            actors = _Actors(ray, ray.put(ray.cloudpickle.dumps(task)), self.patience, gpu)
            yield from work_through(actors, max(1, min(room, len(jobs))), jobs, self.retries)


@final
class _Actors(Workers[int]):
    """Actors of a cluster by number, and the references to what they report next."""

    def __init__(self, ray: Any, task: Any, patience: float, gpu: bool = False) -> None:
        self._ray, self._task, self._patience = ray, task, patience
        self._needs = "1 CPU and 1 GPU" if gpu else "1 CPU"
        kind = ray.remote(num_cpus=1, num_gpus=int(gpu), max_restarts=0, max_task_retries=0)
        self._kind = kind(JobRunner)  # Ray lets an actor with a GPU see that one alone
        self._numbers = count()
        self._actors: dict[int, Any] = {}
        self._reports: dict[Any, int] = {}
        self._starting: set[int] = set()

    def add(self) -> int:
        number = next(self._numbers)
        self._actors[number] = actor = self._kind.remote()
        self._reports[actor.start.remote(self._task, sys.path, Path.cwd())] = number
        self._starting.add(number)
        return number

    def send(self, worker: int, job: bytes) -> None:
        self._reports[self._actors[worker].run.remote(job)] = worker

    def next_report(self) -> tuple[int, bytes | Loss]:
        end = time.monotonic() + self._patience
        while not (ready := self._ray.wait(list(self._reports), num_returns=1, timeout=1.0)[0]):
            nobody_works = self._starting.issuperset(self._reports.values())
            if nobody_works and time.monotonic() > end:
                raise WorkerError(
                    f"no worker has started within {self._patience:.0f} s; the cluster has "
                    f"{self._ray.available_resources()} free, and a worker needs {self._needs}"
                )
        worker = self._reports.pop(ready[0])
        self._starting.discard(worker)
        try:
            report = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            del self._actors[worker]
            return worker, Loss(_reason(error))
        return worker, report

    def end(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)


def _reason(error: Exception) -> str:
    """What is known about a loss, short enough for one line; Ray's texts end with the cause."""
    cause = (str(error).strip().splitlines() or [""])[-1].strip()
    cause = cause if len(cause) <= _SHOWN else f"{cause[:_SHOWN]}..."
    return f"{type(error).__name__}: {cause}"


@contextmanager
def _connected(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """A connection to a cluster in a `with`; one that this process has already is used as it is."""
    if ray.is_initialized():
        yield
        return
    own = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    try:
        _knock(address)
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own
        )
    except OSError as error:
        raise XNNError(f"no Ray cluster answers at {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Find out in seconds that nobody is there; Ray itself takes minutes.

    Raises:
        OSError: nobody is there.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        with socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS):
            pass


def _import_ray() -> Any:
    """Ray, told to be quiet before it is imported.

    Raises:
        XNNError: it is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise XNNError(f"the engine ray needs Ray: {INSTALL}") from error
    return ray
