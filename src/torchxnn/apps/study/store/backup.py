"""A whole study as one file, taken while people take part, and a study made of such a file.

The file is a ZIP of the study folder with the answers as a SQLite database, whatever database they
came from: so it can also be restored into the other kind. It holds what the answers hold, the
server's secret and the recruiter's identifiers: protect it as you protect the study.
"""

from __future__ import annotations

import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, delete, func, insert, select, text

from torchxnn.apps.study.plan import CONSENT, MEDIA, PLAN, TEXTS, StudyPlan
from torchxnn.apps.study.store.database import FILE, Database, open_database, open_sqlite
from torchxnn.apps.study.store.schema import events, metadata, participants
from torchxnn.errors import DataError

_PARTS = (PLAN, CONSENT, TEXTS, MEDIA)
_ROWS = 1000


@dataclass(frozen=True)
class Held:
    """What a backup holds.

    Attributes:
        file: where it is.
        participants: people of every kind and status.
        events: things that they did.
    """

    file: Path
    participants: int
    events: int


def back_up(folder: Path, out: Path, url: str | None = None) -> Held:
    """Write a study and its answers, all of one moment, to a new file.

    The study may be served meanwhile. In a folder `out` the file is named by the study and the
    time. `url` is that of another database than the SQLite file in the folder.

    Raises:
        DataError: there is nothing to save, the file exists, or the copy is damaged.
    """
    plan = StudyPlan.read(folder)
    if url is None and not (folder / FILE).is_file():
        raise DataError(f"{folder} has no answers yet: copy the folder, it is all there is")
    if out.is_dir():
        out /= f"{folder.resolve().name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"
    if out.exists():
        raise DataError(f"{out} exists; a backup overwrites nothing, name another file")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent} is no folder; make it, so that the backup has a place")
    with TemporaryDirectory(dir=out.parent, prefix=".torchxnn-") as temporary:
        copy, archive = Path(temporary) / FILE, Path(temporary) / "backup.zip"
        with closing(open_database(folder, plan, url)) as database:
            _copy_out(database, copy)
        held = _check(copy, out)
        _pack(folder, copy, archive)
        archive.chmod(0o600)
        archive.replace(out)
    return held


def _copy_out(database: Database, file: Path) -> None:
    """All rows of one moment as a SQLite file."""
    with database.snapshot() as connection:
        source = connection.connection.driver_connection
        if isinstance(source, sqlite3.Connection):
            with closing(sqlite3.connect(file)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
            return
        engine = open_sqlite(file)
        metadata.create_all(engine)
        with engine.execution_options(write=True).begin() as copy:
            _copy_rows(connection, copy)
        with engine.connect() as copy:
            copy.connection.driver_connection.execute("PRAGMA journal_mode=DELETE")  # type: ignore[union-attr]
        engine.dispose()


def _copy_rows(source: Connection, target: Connection) -> None:
    """Every row of every table, into tables that are empty."""
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=_ROWS).execute(select(table)).mappings()
        for part in rows.partitions(_ROWS):
            target.execute(insert(table), [dict(row) for row in part])


def _check(copy: Path, out: Path) -> Held:
    with closing(sqlite3.connect(copy)) as connection:
        said = connection.execute("PRAGMA integrity_check").fetchone()[0]
        astray = connection.execute("PRAGMA foreign_key_check").fetchone()
        if said != "ok" or astray:
            raise DataError(f"the copy of the answers is damaged ({said}); {out} was not written")
        people = connection.execute(f"SELECT COUNT(*) FROM {participants.name}").fetchone()[0]
        done = connection.execute(f"SELECT COUNT(*) FROM {events.name}").fetchone()[0]
    return Held(out, people, done)


def _pack(folder: Path, answers: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as made:
        for part in _PARTS:
            root = folder / part
            files = sorted(root.iterdir()) if root.is_dir() else [root]
            for file in files:  # pictures are compressed already
                made.write(file, file.relative_to(folder))
        made.write(answers, FILE, zipfile.ZIP_DEFLATED)


def restore(
    file: Path, folder: Path, url: str | None = None, replace: bool = False
) -> tuple[Held, Held | None]:
    """Make the study of a backup: the folder, if it is not there, and the answers.

    Answers come all or not at all. `url` is that of another database than the SQLite file in the
    folder. Where answers are already, they stay, unless they are to be replaced: then they are
    saved beside the folder first.

    Returns:
        What was restored, and what was saved of the answers before.

    Raises:
        DataError: no backup, a damaged one, another study in the folder, or answers are there.
    """
    with _unpacked(file) as source:
        plan = StudyPlan.read(source)
        held = _check(source / FILE, file)
        with closing(open_database(source, plan)) as backup:
            _make_folder(source, folder)
            own = StudyPlan.read(folder)
            if own.fingerprint() != plan.fingerprint():
                raise DataError(f"{folder} is another study than {file}; name another folder")
            with closing(open_database(folder, own, url)) as database:
                before = _set_aside(database, folder, url, replace)
                _put_in(backup, database, replace)
    return held, before


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix="torchxnn-") as temporary:
        folder = Path(temporary) / "study"
        try:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)  # keeps to the folder, whatever names are in the file
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{file} is no backup of a study, or a damaged one: {error}") from error
        if not (folder / FILE).is_file():
            raise DataError(f"{file} is no backup of a study: it holds no {FILE}")
        yield folder


def _make_folder(source: Path, folder: Path) -> None:
    """The study's own files, where there is no study yet."""
    if not (folder / PLAN).exists():
        shutil.copytree(
            source, folder, ignore=shutil.ignore_patterns(f"{FILE}*"), dirs_exist_ok=True
        )


def _set_aside(database: Database, folder: Path, url: str | None, replace: bool) -> Held | None:
    """Save the answers that are there; None if there are none."""
    with database.reading() as connection:
        count = connection.scalar(select(func.count()).select_from(participants)) or 0
    if not count:
        return None
    if not replace:
        raise DataError(
            f"the database of {folder} holds {count} participants; to put the backup in their "
            "place, say --replace: they are saved to a file beside the folder first"
        )
    return back_up(folder, folder.resolve().parent, url)


def _put_in(backup: Database, database: Database, replace: bool) -> None:
    """Replace all rows in one transaction: whoever looks sees all of the old ones or of the new."""
    with backup.snapshot() as source, database.writing() as target:
        if target.dialect.name != "sqlite":
            names = ", ".join(table.name for table in metadata.sorted_tables)
            target.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
        if not replace and target.scalar(select(func.count()).select_from(participants)):
            raise DataError("somebody has begun meanwhile: stop the server, then restore")
        for table in reversed(metadata.sorted_tables):
            target.execute(delete(table))
        _copy_rows(source, target)
        if target.dialect.name != "sqlite":  # numbers go on after the last one
            last = target.scalar(select(func.max(participants.c.number)))
            sequence = func.pg_get_serial_sequence("participants", "number")
            target.execute(select(func.setval(sequence, last or 1, last is not None)))
