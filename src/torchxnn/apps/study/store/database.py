"""Open SQLite or PostgreSQL so that what is acknowledged survives a kill."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.store.migrations import migrate
from torchxnn.apps.study.store.schema import SCHEMA_VERSION, facts, metadata
from torchxnn.errors import DataError

FILE = "study.db"
LOCK_SECONDS = 10.0


class Database:
    """Connections to one study's answers.

    Attributes:
        secret: of the server, for signatures; the same after a restart.
    """

    def __init__(self, engine: Engine, secret: str) -> None:
        self._engine = engine
        # SQLite has one writer at a time; waiting for this lock is fair and needs no polling.
        self._writer = threading.Lock() if engine.dialect.name == "sqlite" else None
        self.secret = secret

    def sign(self, purpose: str, value: str) -> str:
        """A signature that only this study's server can make."""
        message = f"{purpose}/{value}".encode()
        return hmac.new(self.secret.encode(), message, hashlib.sha256).hexdigest()

    def reading(self) -> Connection:
        """A connection that writes nothing; a `with` gives it back."""
        return self._engine.connect()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that writes nothing, and whose reads all see one moment."""
        options = {} if self._writer else {"isolation_level": "REPEATABLE READ"}
        with self._engine.connect() as connection:
            yield connection.execution_options(**options)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: after the `with` it is on the disk, after an exception it never was."""
        with (
            self._writer or nullcontext(),
            self._engine.execution_options(write=True).begin() as connection,
        ):
            yield connection

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


def open_database(folder: Path, plan: StudyPlan, url: str | None = None) -> Database:
    """Open the database of a study, and make its tables if it is new.

    SQLite's file lies in the folder of the study; `url` is that of another database, such as
    `postgresql+pg8000://user:password@host/name`.

    A database of an earlier version is brought up to date.

    Raises:
        DataError: it cannot be opened, is of another study or a later version.
    """
    address = url or folder.resolve() / FILE
    shown = url.rpartition("@")[2] if url else str(folder / FILE)
    try:
        engine = _postgresql(url) if url and not url.startswith("sqlite") else open_sqlite(address)
        metadata.create_all(engine)
        found = _facts(engine, plan)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise DataError(f"the database {shown} cannot be opened: {reason}") from error
    except ImportError as error:
        raise DataError(
            f"the driver of the database {shown} is not installed ({error.name}); for PostgreSQL "
            "use postgresql+pg8000://..., whose driver comes with 'torchxnn[study]'"
        ) from error
    if found["study"] != plan.fingerprint():
        raise DataError(
            f"the database {shown} holds the answers of another study, or study.json was changed "
            "after it began; restore study.json, or move the database away to start anew"
        )
    if found["schema"] != str(SCHEMA_VERSION):
        with engine.execution_options(write=True).begin() as connection:
            migrate(connection, shown)
    return Database(engine, found["secret"])


def _postgresql(url: str) -> Engine:
    return create_engine(
        url, pool_size=10, max_overflow=20, pool_pre_ping=True, hide_parameters=True
    )


def open_sqlite(file: Path | str) -> Engine:
    """SQLite's file, or URL, with a log that is on the disk before an answer is acknowledged."""
    engine = create_engine(
        file if isinstance(file, str) else f"sqlite:///{file}",
        pool_size=20,
        max_overflow=40,
        hide_parameters=True,
        connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` says so
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _facts(engine: Engine, plan: StudyPlan) -> dict[str, str]:
    """Facts of the database; the first one to open it writes them."""
    with engine.connect() as connection:
        found = {str(row.name): str(row.value) for row in connection.execute(select(facts))}
    if found:
        return found
    new = {
        "schema": str(SCHEMA_VERSION),
        "study": plan.fingerprint(),
        "secret": secrets.token_hex(32),
    }
    try:
        with engine.execution_options(write=True).begin() as connection:
            connection.execute(insert(facts), [{"name": k, "value": v} for k, v in new.items()])
    except IntegrityError:  # somebody else was first
        return _facts(engine, plan)
    return new
