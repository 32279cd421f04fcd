"""A study under load: many participants at once, the server killed and restarted in the middle.

    python perf/study_load.py --participants 200 --pause 3 --json study_load.json

Server, database and participants run on this machine. The participants are `xnn study simulate`'s:
they ask for the pages, put ten pictures into groups one by one with pauses of human length between
(exponentially distributed), and hand in. `--kill-after` seconds after the first one came the server
gets SIGKILL; it is started again two seconds later. Printed are the times from sending an answer
until it was kept, as the participants see them, and what is missing from the database afterwards of
all that the server ever said it had kept: it must be nothing. Requests that met a dead server are
repeated as a browser would, counted, and not in the times.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import tyro
from sqlalchemy import create_engine, text

from torchxnn.apps.study.demo import build_demo
from torchxnn.apps.study.simulate import Simulated, SimulationConfig, simulate
from torchxnn.apps.study.store.database import FILE
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
    database: str | None = None
    """URL of another database than SQLite"""
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
        extra = [] if database is None else ["--database", database]
        self._command = [
            *(sys.executable, "-m", "torchxnn.cli", "study", "serve", str(folder)),
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


def main(load: Load) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        build_demo(folder, "digits", load.seed)
        server = Server(folder, load.database)
        server.start()
        killer = threading.Timer(load.kill_after, restart, (server, load.down))
        if load.kill_after:
            killer.start()
        config = SimulationConfig(
            load.participants, at_once=load.participants, pause=load.pause, seed=load.seed
        )
        start = time.perf_counter()
        found = simulate(server.url, config)
        seconds = time.perf_counter() - start
        killer.cancel()
        server.stop()
        stored = read_ids(load.database or f"sqlite:///{folder / FILE}")
    report(load, found, stored, seconds)


def restart(server: Server, down: float) -> None:
    """Kill the server and bring it back."""
    server.kill()
    time.sleep(down)
    server.start()


def read_ids(url: str) -> set[str]:
    """Ids of all events on the disk, read with plain SQL."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = set(connection.scalars(text("SELECT id FROM events")))
    engine.dispose()
    return found


def report(load: Load, found: Simulated, stored: set[str], seconds: float) -> None:
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
    }
    print(json.dumps(figures, indent=1, default=str))
    if load.json is not None:
        replace_file(load.json, json.dumps(figures, indent=1, default=str).encode())


if __name__ == "__main__":
    main(tyro.cli(Load, description=__doc__))
