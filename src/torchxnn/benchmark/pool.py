"""Work through a list of jobs in one process or in several, with the same results."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

from torchxnn.memory import keep_freed_memory
from torchxnn.threads import one_thread

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    start: Callable[..., None],
    arguments: tuple[Any, ...],
    work: Callable[[Job], Result],
    todo: Sequence[Job],
    processes: int,
) -> Iterator[Result]:
    """Results in the order in which they are ready; every job runs on one thread.

    Args:
        start: called once per process, before its first job.
        arguments: of `start`.
        work: called with each job; a function of a module, so that other processes find it.
        todo: the jobs.
        processes: how many; with 1 everything happens in this one.
    """
    if not todo:
        return
    if processes == 1:
        with one_thread():
            start(*arguments)
            for job in todo:
                yield work(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start_on_one_thread, (start, arguments)) as pool:
        futures = [pool.submit(work, job) for job in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_on_one_thread(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    start(*arguments)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
