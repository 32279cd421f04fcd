"""One server at a time for the answers in a SQLite file.

A second server would have a token of its own for the dashboard and count requests by itself, and a
restore would take the secret from under a running one. On PostgreSQL several servers may share the
answers, so that there is no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import make_url

from torchxnn.apps.study.store.database import FILE
from torchxnn.errors import DataError

LOCK = f"{FILE}.lock"
"""The lock's file in the folder of a study; that it is there says nothing."""


@contextmanager
def alone_with(folder: Path, url: str | None, way_out: str) -> Iterator[None]:
    """Hold the answers of a study for this process in a `with`, where they are a file.

    The system gives the lock back when the process ends, also after a kill. `way_out` ends the
    error.

    Raises:
        DataError: another process holds it, the disk has no locks, or the URL names no file.
    """
    if url is not None and not url.startswith("sqlite"):
        yield
        return
    database = None if url is None else make_url(url).database
    if url is not None and (not database or database == ":memory:"):
        raise DataError(
            f"{url} names no file: answers would be lost with the server; give "
            "sqlite:///FILE, or leave --database out"
        )
    place = folder / LOCK if url is None else Path(f"{database}.lock")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{folder} is being served or restored by another process; {way_out}"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"{place} cannot be locked ({error}); put the study on a disk of this machine "
            "that can be written, or keep the answers in PostgreSQL (--database)"
        ) from error
    try:
        yield
    finally:
        lock.release()
