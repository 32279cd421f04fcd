"""Databases of earlier versions: one step from each version of the schema to the next.

The rule: whoever changes a table raises `SCHEMA_VERSION` and adds the step here; a step adds, and
takes nothing away. A database is brought up to date when it is opened, in one transaction. One of a
later version is refused, as nobody knows what its columns mean.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, func, select, update

from torchxnn.apps.study.store.schema import SCHEMA_VERSION, facts
from torchxnn.errors import DataError


def _add_expired_at(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE participants ADD COLUMN expired_at FLOAT")


def _add_told_all(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE participants ADD COLUMN told_all BOOLEAN")


_STEPS: dict[int, Callable[[Connection], None]] = {1: _add_expired_at, 2: _add_told_all}
"""What leads away from a version."""


def migrate(connection: Connection, shown: str) -> None:
    """Bring a database, `shown` to the user by this name, up to `SCHEMA_VERSION`.

    Raises:
        DataError: it is of a later version.
    """
    if connection.dialect.name != "sqlite":  # SQLite has a single writer anyway
        connection.execute(select(func.pg_advisory_xact_lock(2)))
    this = facts.c.name == "schema"
    found = int(connection.scalar(select(facts.c.value).where(this)) or 0)
    if found not in (SCHEMA_VERSION, *_STEPS):
        raise DataError(
            f"the database {shown} was made by a later version of torchxnn (schema {found}, this "
            f"one knows {SCHEMA_VERSION}): install that version; the database is as it was"
        )
    for version in range(found, SCHEMA_VERSION):
        _STEPS[version](connection)
    connection.execute(update(facts).where(this).values(value=str(SCHEMA_VERSION)))
