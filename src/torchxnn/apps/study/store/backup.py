"""A whole study as one file, taken while people take part, and a study made of such a file.

The file is a ZIP of the study folder with the answers as a SQLite database, whatever database they
came from: so it can also be restored into the other kind. It holds what the answers hold, the
server's secret and the recruiter's identifiers: protect it as you protect the study.
"""

from __future__ import annotations

import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, text

from torchxnn.apps.study.plan import CONSENT, MEDIA, PLAN, TEXTS, StudyPlan
from torchxnn.apps.study.store.database import FILE, Database, open_database, open_sqlite
from torchxnn.apps.study.store.lock import LOCK, alone_with
from torchxnn.apps.study.store.participants import erase
from torchxnn.apps.study.store.schema import events, metadata, participants
from torchxnn.errors import DataError

_PARTS = (PLAN, CONSENT, TEXTS, MEDIA)
_ROWS = 1000
_Counts = tuple[int | float | None, ...]
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
"""What reading a damaged archive raises; `RuntimeError` and its kinds: encrypted, or unknown."""


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
        held = _check(copy, out, f"{out} was not written")
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


def _check(copy: Path, file: Path, outcome: str) -> Held:
    """What the answers of a backup hold; `outcome` is what an error says of what was not done."""
    try:
        with closing(sqlite3.connect(copy)) as connection:
            said = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                said = "rows of nobody"
            people = connection.execute(f"SELECT COUNT(*) FROM {participants.name}").fetchone()[0]
            done = connection.execute(f"SELECT COUNT(*) FROM {events.name}").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise DataError(f"the copy of the answers is damaged ({error}); {outcome}") from error
    if said != "ok":
        raise DataError(f"the copy of the answers is damaged ({said}); {outcome}")
    return Held(file, people, done)


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
    saved beside the backup first. Who has withdrawn there stays withdrawn, though the backup may
    hold what they answered.

    Returns:
        What was restored, and what was saved of the answers before.

    Raises:
        DataError: no backup, a damaged one, something else or another study in the folder, answers
            are there, the study is being served, or somebody answers meanwhile.
    """
    with _unpacked(file) as source:
        plan = StudyPlan.read(source)
        held = _check(source / FILE, file, f"{file} was not restored")
        with closing(open_database(source, plan)) as backup:
            _make_folder(source, folder)
            with alone_with(folder, url, "stop the server, then restore"):
                before = _fill(backup, plan, file, folder, url, replace)
    return held, before


def _fill(
    backup: Database, plan: StudyPlan, file: Path, folder: Path, url: str | None, replace: bool
) -> Held | None:
    """Put the answers of a backup into the database of a folder; what was saved of those before."""
    own = StudyPlan.read(folder)
    if own.fingerprint() != plan.fingerprint():
        raise DataError(f"{folder} is another study than {file}; name another folder")
    with closing(open_database(folder, own, url)) as database:
        with database.reading() as connection:
            counted = _count(connection)
        before = _set_aside(folder, url, file, counted, replace)
        _put_in(backup, database, own, counted)
    return before


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix="torchxnn-") as temporary:
        folder = Path(temporary) / "study"
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts:
                        raise DataError(f"{file} is no backup of a study: it holds {name!r}")
                archive.extractall(folder)
        except _DAMAGED as error:
            raise DataError(f"{file} is no backup of a study, or a damaged one: {error}") from error
        if not (folder / FILE).is_file():
            raise DataError(f"{file} is no backup of a study: it holds no {FILE}")
        yield folder


def _make_folder(source: Path, folder: Path) -> None:
    """The study's own files, where there is no study yet; the plan comes last, as it makes one."""
    if (folder / PLAN).exists():
        return
    for part in _PARTS:
        if (folder / part).exists():
            raise DataError(
                f"{folder} has {part} and no {PLAN}, as a restore leaves it that was stopped: "
                f"delete {folder / part}, or name another folder"
            )
    _check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".torchxnn-") as temporary:
        copy = Path(temporary) / "study"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(f"{FILE}*"))
        for part in (*_PARTS[1:], PLAN):
            if (copy / part).exists():
                (copy / part).rename(folder / part)


def _check_empty(folder: Path) -> None:
    """Refuse to fill a folder of something else.

    Raises:
        DataError: it is no folder, or has more in it than a new disk or a stopped restore leaves.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name a new one for the study")
    names = sorted(path.name for path in folder.iterdir())
    found = [n for n in names if not n.startswith(".torchxnn-") and n not in (LOCK, "lost+found")]
    if found:
        more = f" and {len(found) - 3} more" if found[3:] else ""
        raise DataError(
            f"{folder} is no study, and it is not empty (it has {', '.join(found[:3])}{more}); "
            "name a new or an empty folder"
        )


def _count(connection: Connection) -> _Counts:
    """Rows of every table, participants first, and when somebody was last seen.

    Whatever somebody does that is acknowledged changes one of them.
    """
    tables = (participants, *(t for t in metadata.sorted_tables if t is not participants))
    counts = [connection.scalar(select(func.count()).select_from(table)) for table in tables]
    return (*counts, connection.scalar(select(func.max(participants.c.seen_at))))


def _set_aside(
    folder: Path, url: str | None, file: Path, counted: _Counts, replace: bool
) -> Held | None:
    """Save the answers that are there beside the backup `file`; None if there are none."""
    if not counted[0]:
        return None
    if not replace:
        raise DataError(
            f"the database of {folder} holds {counted[0]} participants; to put the backup in "
            "their place, say --replace: they are saved to a file beside the backup first"
        )
    name = f"{folder.resolve().name}-before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"
    return back_up(folder, file.resolve().parent / name, url)


def _put_in(backup: Database, database: Database, plan: StudyPlan, counted: _Counts) -> None:
    """Replace all rows in one transaction: whoever looks sees all of the old ones or of the new."""
    with backup.snapshot() as source, database.writing() as target:
        if target.dialect.name != "sqlite":
            names = ", ".join(table.name for table in metadata.sorted_tables)
            target.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
        if _count(target) != counted:
            raise DataError(
                "somebody has answered meanwhile, and nothing was restored: stop the server, then "
                "restore"
            )
        gone = target.execute(select(participants).where(participants.c.status == "withdrawn"))
        withdrawn = gone.all()
        for table in reversed(metadata.sorted_tables):
            target.execute(delete(table))
        _copy_rows(source, target)
        for row in withdrawn:
            _forget_again(target, plan, row)
        if target.dialect.name != "sqlite":  # numbers go on after the last one
            last = target.scalar(select(func.max(participants.c.number)))
            sequence = func.pg_get_serial_sequence("participants", "number")
            target.execute(select(func.setval(sequence, last or 1, last is not None)))


def _forget_again(target: Connection, plan: StudyPlan, row: Any) -> None:
    """Erase whoever withdrew after the backup, known by identifier, or number and consent."""
    c = participants.c
    same = (c.number == row.number) & (c.consented_at == row.consented_at)
    if row.person is not None:
        same = or_(same, c.person == row.person)
    for number, arm in target.execute(select(c.number, c.arm).where(same)).all():
        erase(target, plan, arm, number)
