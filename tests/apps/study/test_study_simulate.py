"""What simulated participants do follows from the seed alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from torchxnn.apps.study.simulate import SimulationConfig, _take_part

TESTS = Path(__file__).parents[2]

RUN = """
import asyncio, json, random, sys, threading
from pathlib import Path
import uvicorn
from study_plan import write_tiny_study
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Limits
from torchxnn.apps.study.simulate import SimulationConfig, simulate

folder, task = Path(sys.argv[1]), sys.argv[2]
limits = Limits(requests_per_second=1e6, starts_per_second=1e6)
sets = 3 if task == "clustering" else 2
plan = write_tiny_study(folder, task=task, rounds=1, sets=sets, images_per_set=4, limits=limits)
app = create_app(folder)

async def uneven(scope, receive, send):
    "Every answer takes another time, and some requests are turned away."
    if scope["type"] == "http":
        await asyncio.sleep(random.random() * 0.02)
        if random.random() < 0.01:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
    await app(scope, receive, send)

server = uvicorn.Server(uvicorn.Config(uneven, port=0, log_level="error"))
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
while not server.started:
    thread.join(0.05)
port = server.servers[0].sockets[0].getsockname()[1]
found = simulate(f"http://127.0.0.1:{port}", SimulationConfig(5, at_once=4, seed=int(sys.argv[3])))
tables = read_tables(app.state.site.database, plan)
server.should_exit = True
thread.join()
assert (found.finished, found.failed) == (5, []), found
OF_TIME = ("seconds", "_at", "at", "client_ms")
print(json.dumps({
    name: json.loads(table.drop(columns=[c for c in table if c.endswith(OF_TIME)]).to_json())
    for name, table in tables.items() if name != "events"
}))
"""


def simulated(folder, task, seed, hash_seed):
    """A process that serves a new study to 5 participants, and tells what is exported of them."""
    folder.mkdir()
    path = os.pathsep.join([str(TESTS), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), task, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["clustering", "forward_simulation"])
def test_two_processes_with_one_seed_give_the_same_answers(tmp_path, task):
    """On a server that is never the same: other pauses, and requests that are turned away."""
    given = {"first": (4, "1"), "again": (4, "2"), "other": (5, "1")}
    processes = {name: simulated(tmp_path / name, task, *seeds) for name, seeds in given.items()}
    told = {name: process.communicate()[0] for name, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0, 0, 0]
    first, again, other = (json.loads(told[name]) for name in given)
    for name, table in first.items():
        assert table == again[name], name
    assert len(first["participants"]["participant"]) == 5
    answers = "rating_xnn" if task == "clustering" else "difficulty"
    assert first["participants"][answers] != other["participants"][answers]


def test_who_cannot_begin_lets_the_next_one_begin_after_those_before(monkeypatch):
    monkeypatch.setattr("torchxnn.apps.study.simulate.ATTEMPTS", 1)
    waits, begun, found = Event(), Event(), []

    class Before(Event):
        def wait(self, timeout=None):
            waits.set()
            return super().wait(timeout)

    before = Before()

    def take_part():
        try:
            nobody = "http://127.0.0.1:9"
            found.append(_take_part(nobody, SimulationConfig(), 0, before, begun))
        finally:
            waits.set()  # also without having waited

    thread = Thread(target=take_part, daemon=True)
    thread.start()
    waits.wait()
    assert not begun.is_set()
    before.set()
    thread.join()
    assert found[0].failed
    assert begun.is_set()
