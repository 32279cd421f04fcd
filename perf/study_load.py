"""A study under load: many participants at once; the server is killed, then moved, in the middle.

    python perf/study_load.py --participants 200 --pause 3 --json study_load.json

Server, database and participants run on this machine. The participants are `xnn study simulate`'s:
they ask for the pages, put ten pictures into groups one by one with pauses of human length between
(exponentially distributed), and hand in. Counted from when the first one comes, the server gets
SIGKILL after `--kill-after` seconds and is started again two seconds later; a backup is taken while
all go on after `--back-up-after`; after `--move-after` the server is told to stop, the study is
backed up once more and deleted (of PostgreSQL, every table), restored from the backup and served.

Printed are the times from sending an answer until it was kept, as the participants see them, and
what is missing from the database afterwards of all that the server ever said it had kept: it must
be nothing. The backup that was taken meanwhile must hold all that was kept before it began.
Requests that met a dead server are repeated as a browser would, counted, and not in the times.

All participants are threads of one process, which wait for each other when many of them look at
pictures at the same moment. So the times are also taken by a participant in a process of its own,
who comes again and again all the while (`--alone-pause` seconds between two actions): that is what
somebody sees of the server.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import numpy as np
import tyro
from sqlalchemy import create_engine, text

from torchxnn.apps.study.demo import build_demo
from torchxnn.apps.study.simulate import Simulated, SimulationConfig, simulate
from torchxnn.apps.study.store.database import FILE
from torchxnn.errors import DataError
from torchxnn.storage.files import replace_file


@dataclass(frozen=True)
class Load:
    """What to measure."""

    participants: int = 200
    """all of them at the same time"""
    pause: float = 3.0
    """mean seconds between two actions of one"""
    kill_after: float = 90.0
    """seconds until the server is killed; 0 never does"""
    down: float = 2.0
    """seconds until it is started again"""
    back_up_after: float = 120.0
    """seconds until a backup is taken while the server runs; 0 never does"""
    move_after: float = 150.0
    """seconds until the study is deleted and restored from a backup; 0 never does"""
    study: Path | None = None
    """folder of a study to copy; the beetles of `xnn study demo` by default"""
    arm: str | None = None
    """that participants join; the first one by default"""
    database: str | None = None
    """URL of another database than SQLite"""
    alone_pause: float = 0.1
    """mean seconds between two actions of the participant in a process of its own"""
    seed: int = 0
    json: Path | None = None
    """file for the figures"""


class Server:
    """`xnn study serve` as a process of its own."""

    def __init__(self, folder: Path, database: str | None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder, self.database = folder, database

    @property
    def _command(self) -> list[str]:
        extra = [] if self.database is None else ["--database", self.database]
        return [
            *(sys.executable, "-m", "torchxnn.cli", "study", "serve", str(self.folder)),
            *("--port", str(self.port), "--admin-token", "benchmark-token", *extra),
        ]

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        for _ in range(300):
            try:
                httpx.get(f"{self.url}/", timeout=1)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return
        raise SystemExit("the server does not start")

    def kill(self) -> None:
        """As a power cut would."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """In order."""
        self._process.terminate()
        self._process.wait()


class Alone:
    """Participants one after the other in a process of its own, during a `with`.

    Attributes:
        figures: times of their answers in milliseconds, once the `with` has ended.
    """

    def __init__(self, url: str, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_come_again, args=(url, load, theirs))
        self.figures: dict[str, float] = {}

    def __enter__(self) -> Alone:
        self._process.start()
        self._end.recv()  # it has loaded what it needs
        return self

    def __exit__(self, *_: object) -> None:
        self._end.send("enough")
        half, most, worst, count = self._end.recv()
        self._process.join()
        self.figures = {
            "alone_answers": count,
            "alone_median_ms": half,
            "alone_p99_ms": most,
            "alone_largest_ms": worst,
        }


def _come_again(url: str, load: Load, end: Connection) -> None:
    """Take part again and again until told that it is enough; tell the times."""
    end.send("ready")
    times: list[float] = []
    for number in range(10_000):
        config = SimulationConfig(1, load.arm, 1, load.alone_pause, 1000 + load.seed + number)
        try:
            times += simulate(url, config).milliseconds
        except DataError:  # no server is there to begin with
            time.sleep(0.1)
        if end.poll():
            break
    quantiles = np.percentile(times, [50, 99, 100])
    end.send((*(round(float(each), 1) for each in quantiles), len(times)))


@dataclass
class Seen:
    """What the backup and the move took, in seconds, and the backup that was taken meanwhile."""

    backup_began: float = 0.0
    backup: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def main(load: Load) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, seen = Path(temporary) / "study", Seen()
        if load.study is None:
            build_demo(folder, "beetles", load.seed)
        else:
            shutil.copytree(load.study, folder, ignore=shutil.ignore_patterns(f"{FILE}*"))
        server = Server(folder, load.database)
        server.start()
        planned = (
            (load.kill_after, restart, (server, load.down)),
            (load.back_up_after, save, (server, seen)),
            (load.move_after, move, (server, seen)),
        )
        timers = [threading.Timer(*each) for each in planned if each[0]]
        for timer in timers:
            timer.start()
        config = SimulationConfig(
            load.participants, load.arm, load.participants, load.pause, load.seed
        )
        start = time.perf_counter()
        with Alone(server.url, load) as alone:
            found = simulate(server.url, config)
        seconds = time.perf_counter() - start
        for timer in timers:
            timer.cancel()
            timer.join()
        server.stop()
        url = load.database or f"sqlite:///{server.folder / FILE}"
        lacks = compare(seen, url)
        figures = {**seen.seconds, **lacks, **alone.figures}
        report(load, found, read_ids(url), seconds, figures)


def restart(server: Server, down: float) -> None:
    """Kill the server and bring it back."""
    server.kill()
    time.sleep(down)
    server.start()


def run(server: Server, *arguments: object) -> float:
    """Run a command of `xnn study` on the server's database; its seconds."""
    extra = [] if server.database is None else ["--database", server.database]
    start = time.perf_counter()
    command = [sys.executable, "-m", "torchxnn.cli", "study", *map(str, arguments), *extra]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - start, 1)


def save(server: Server, seen: Seen) -> None:
    """Take a backup while the server runs."""
    file = server.folder.parent / "meanwhile.zip"
    seen.backup_began = time.time()
    seen.seconds["backup_seconds"] = run(server, "backup", server.folder, "--out", file)
    seen.backup = file


def move(server: Server, seen: Seen) -> None:
    """Stop the server, lose everything but a backup, and go on from that."""
    file, new = server.folder.parent / "moved.zip", server.folder.parent / "new"
    start = time.perf_counter()
    server.stop()
    seen.seconds["stop_seconds"] = round(time.perf_counter() - start, 1)
    run(server, "backup", server.folder, "--out", file)
    shutil.rmtree(server.folder)
    if server.database is not None:
        engine = create_engine(server.database)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
    seen.seconds["restore_seconds"] = run(server, "restore", file, "--out", new)
    server.folder = new
    server.start()
    seen.seconds["away_seconds"] = round(time.perf_counter() - start, 1)


def compare(seen: Seen, url: str) -> dict[str, int]:
    """What the backup that was taken meanwhile lacks of what was kept before it began."""
    if seen.backup is None:
        return {}
    with zipfile.ZipFile(seen.backup) as archive:
        archive.extract(FILE, seen.backup.parent)
    saved = read_ids(f"sqlite:///{seen.backup.parent / FILE}")
    # an answer has the time at which its request came; it was kept within these seconds, or later
    before = read_ids(url, seen.backup_began - 5)
    return {"events_in_backup": len(saved), "events_backup_lacks": len(before - saved)}


def read_ids(url: str, until: float = math.inf) -> set[str]:
    """Ids of all events on the disk that came before a time, read with plain SQL."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = list(connection.execute(text("SELECT id, at FROM events")))
    engine.dispose()
    return {name for name, at in found if at < until}


def report(
    load: Load, found: Simulated, stored: set[str], seconds: float, more: Mapping[str, float]
) -> None:
    """Print the figures, and write them."""
    half, most, worst = np.percentile(found.milliseconds, [50, 99, 100])
    figures = {
        "settings": {name: value for name, value in asdict(load).items() if name != "json"},
        "seconds": round(seconds, 1),
        "finished": found.finished,
        "failed": found.failed[:5],
        "answers": len(found.milliseconds),
        "answers_per_second": round(len(found.milliseconds) / seconds, 1),
        "median_ms": round(half, 1),
        "p99_ms": round(most, 1),
        "largest_ms": round(worst, 1),
        "requests_repeated": found.retried,
        "events_acknowledged": len(found.acknowledged),
        "events_lost": len(found.acknowledged - stored),
        **more,
    }
    print(json.dumps(figures, indent=1, default=str))
    if load.json is not None:
        replace_file(load.json, json.dumps(figures, indent=1, default=str).encode())


if __name__ == "__main__":
    main(tyro.cli(Load, description=__doc__))
