"""`xnn study ...`: the dataclasses of the command line, thin."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional, arg

from torchxnn.errors import DataError, XNNError

Folder = Annotated[Positional[Path], arg(metavar="STUDY")]

INSTALL = "this needs the study extra: pip install 'torchxnn[study]'"


@dataclass(frozen=True)
class Init:
    """Build a study folder from fitted XNNs."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG.yaml")]
    """settings; docs/study.md lists them"""
    out: Path
    """folder of the study; must not exist"""

    def execute(self, out: Console, err: Console) -> None:
        """Build, and say what to do next."""
        from torchxnn.progress import make_progress
        from torchxnn.study.build import build_study
        from torchxnn.study.config import StudyConfig

        config = StudyConfig.read(self.config)
        with make_progress(err) as progress:
            plan = build_study(config, self.out, _count(progress))
        _say_next(plan, self.out, out)


@dataclass(frozen=True)
class StudyDemo:
    """Build a small complete study from package data: digits and solar cells."""

    out: Path = Path("study")
    """folder of the study; must not exist"""
    data: Literal["both", "digits", "cells"] = "both"
    """data sets"""
    seed: int = 0
    """of everything random"""

    def execute(self, out: Console, err: Console) -> None:
        """Train, fit, build."""
        from torchxnn.progress import make_progress
        from torchxnn.study.demo import NOTES, build_demo

        with make_progress(err) as progress:
            plan = build_demo(self.out, self.data, self.seed, progress, _count(progress))
        for note in NOTES if self.data != "digits" else ():
            out.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)
        _say_next(plan, self.out, out)


@dataclass(frozen=True)
class Serve:
    """Serve a study to participants."""

    study: Folder
    """folder of the study"""
    port: int = 8000
    """TCP port"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 for all"""
    admin_token: str | None = None
    """opens the dashboard at /admin; made up and printed if it is not given"""
    database: str | None = None
    """URL of another database than the SQLite file in the folder, such as
    postgresql+pg8000://user:password@host/name"""
    pilot: bool = False
    """mark everybody who comes as a pilot"""

    def execute(self, out: Console, err: Console) -> None:
        """Serve until interrupted."""
        del err
        import uvicorn

        from torchxnn.study.server import create_app

        if self.admin_token is not None and len(self.admin_token) < 8:
            raise XNNError("admin_token must have at least 8 characters: it opens all answers")
        token = self.admin_token or secrets.token_urlsafe(12)
        app = create_app(self.study, self.database, token, self.pilot)
        address = f"http://{self.host}:{self.port}"
        _say(out, f"Participants: {address}/")
        _say(out, f"Dashboard:    {address}/admin")
        if self.admin_token is None:
            _say(out, f"Admin token:  {token}")
        if self.pilot:
            out.print("Everybody who comes now is marked as a pilot.")
        uvicorn.run(
            app,
            host=self.host,
            port=self.port,
            access_log=False,  # it would hold addresses of participants
            log_level="warning",
            server_header=False,
        )


@dataclass(frozen=True)
class Export:
    """Write all answers as CSV, Parquet and JSON, with a data dictionary."""

    study: Folder
    """folder of the study"""
    out: Path
    """folder for the files"""
    database: str | None = None
    """URL of the database, if it is not the SQLite file in the folder"""

    def execute(self, out: Console, err: Console) -> None:
        """Read and write."""
        del err
        from torchxnn.study.export import write_tables

        _, tables = _read(self.study, self.database)
        files = write_tables(tables, self.out)
        rows = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
        out.print(
            f"{rows}; {len(files)} files in {self.out}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@dataclass(frozen=True)
class Simulate:
    """Let synthetic participants, always marked as such, pass through a study over HTTP."""

    url: Annotated[Positional[str], arg(metavar="URL")]
    """where the study is served"""
    participants: int = 10
    """how many"""
    arm: str | None = None
    """arm that they join; the first one by default"""
    at_once: int = 5
    """how many at the same time"""
    pause: float = 0.0
    """mean seconds between two actions; people take about 3"""
    seed: int = 0
    """of their decisions"""

    def execute(self, out: Console, err: Console) -> None:
        """Simulate, and count."""
        from torchxnn.progress import make_progress
        from torchxnn.study.simulate import SimulationConfig, simulate

        config = SimulationConfig(self.participants, self.arm, self.at_once, self.pause, self.seed)
        with make_progress(err) as progress:
            task = progress.add_task("Participants", total=self.participants)
            found = simulate(self.url, config, lambda: progress.advance(task))
        _say(out, found.summary())
        if found.failed:
            raise XNNError(f"{len(found.failed)} did not finish; the first: {found.failed[0]}")


def _read(folder: Path, url: str | None) -> tuple[Any, Any]:
    """Plan and tables of a study."""
    from torchxnn.study.export import read_tables
    from torchxnn.study.plan import StudyPlan
    from torchxnn.study.store import open_database
    from torchxnn.study.store.database import FILE

    plan = StudyPlan.read(folder)
    if url is None and not (folder / FILE).is_file():
        raise DataError(f"{folder} has no answers yet: serve it with `xnn study serve {folder}`")
    database = open_database(folder, plan, url)
    try:
        return plan, read_tables(database, plan)
    finally:
        database.close()


def _count(progress: Progress) -> Callable[[str, int, int], None]:
    """A bar per data set."""
    bars: dict[str, Any] = {}

    def count(name: str, done: int, total: int) -> None:
        if name not in bars:
            bars[name] = progress.add_task(f"Drawing {name}", total=total)
        progress.update(bars[name], completed=done)

    return count


def _say_next(plan: Any, folder: Path, out: Console) -> None:
    for data in plan.data_sets:
        line = (
            f"{data.name}: {len(data.images)} pictures in {plan.settings.sets} sets; the network "
            f"agrees with {data.agreement:.0%} of the labels"
        )
        _say(out, line)
    _say(
        out,
        f"Wrote {folder}. Fill in the [blanks] of {folder / 'consent.md'}, then: "
        f"xnn study serve {folder}",
    )


def _say(out: Console, text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
