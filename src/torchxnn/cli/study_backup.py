"""The commands `xnn study backup` and `xnn study restore`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchxnn.cli.study_secrets import database_url
from torchxnn.cli.terminal import Terminal


@dataclass(frozen=True)
class Backup:
    """Save a study and its answers as one file, also while it is served."""

    study: Annotated[Positional[Path], arg(metavar="STUDY")]
    """folder of the study"""
    out: Path
    """file to write, or a folder, where it is named by the study and the time"""
    database: str | None = None
    """URL of the database, if not the SQLite file in the folder; also as XNN_STUDY_DATABASE in the
    environment"""

    def execute(self, terminal: Terminal) -> None:
        """Write the backup, and say what it holds."""
        from torchxnn.apps.study.store.backup import back_up

        held = back_up(self.study, self.out, database_url(self.database))
        terminal.say(
            f"Wrote {held.file}: {held.participants} participants, {held.events} events. It holds "
            "their answers and identifiers: protect it."
        )


@dataclass(frozen=True)
class Restore:
    """Make a study and its answers of a backup."""

    backup: Annotated[Positional[Path], arg(metavar="BACKUP.zip")]
    """file written by `xnn study backup`"""
    out: Path
    """folder of the study; made if it is not there"""
    database: str | None = None
    """URL of the database, if not the SQLite file in the folder; also as XNN_STUDY_DATABASE in the
    environment"""
    replace: bool = False
    """put the backup in the place of answers that are there; they are saved beside it first"""

    def execute(self, terminal: Terminal) -> None:
        """Restore the study, and say what it holds."""
        from torchxnn.apps.study.store.backup import restore

        url = database_url(self.database)
        held, before = restore(self.backup, self.out, url, self.replace)
        if before is not None:
            terminal.say(f"What was there is in {before.file}: {before.participants} participants")
        terminal.say(
            f"Restored {self.out}: {held.participants} participants, {held.events} events. Start "
            "the server now, or again."
        )
