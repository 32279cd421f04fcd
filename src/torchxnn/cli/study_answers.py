"""What commands say of a study and where its answers are, and how they read both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from torchxnn.cli.study_secrets import DATABASE, database_url
from torchxnn.errors import DataError

Folder = Annotated[Positional[Path], arg(metavar="STUDY", help="folder of the study")]
Database = Annotated[
    str | None,
    arg(help=f"URL of the database, if not the SQLite file in the folder; also as {DATABASE}"),
]


def read_answers(folder: Path, url: str | None, may_be_new: bool = False) -> tuple[Any, Any]:
    """Read the plan and the tables of a study; tables are None if it is new and may be."""
    from torchxnn.apps.study.export import read_tables
    from torchxnn.apps.study.plan import StudyPlan
    from torchxnn.apps.study.store.database import FILE, open_database

    plan, url = StudyPlan.read(folder), database_url(url)
    if url is None and not (folder / FILE).is_file():
        if may_be_new:
            return plan, None
        raise DataError(f"{folder} has no answers yet: serve it with `xnn study serve {folder}`")
    database = open_database(folder, plan, url)
    try:
        return plan, read_tables(database, plan)
    finally:
        database.close()
