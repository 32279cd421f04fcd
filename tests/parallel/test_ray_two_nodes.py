"""Two nodes of Ray, each with processes, an object store and a folder of its own; one is killed."""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from conftest import make_images, make_net
from engine_examples import gone, wait_until
from torchxnn.apps.heatmaps.attribute import attribute_many
from torchxnn.apps.heatmaps.config import HeatmapConfig
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import WorkerWarning
from torchxnn.parallel.ray_engine import RayEngine
from torchxnn.xnn import XNN

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")

RAY = sysconfig.get_path("scripts") + "/ray"
NODE = "TORCHXNN_TEST_NODE"
HOST = "127.0.0.1"
CONFIG = HeatmapConfig(images="all", dtype="float32", images_at_once=5, chunk_rows=5)
IMAGES = 60


class Images(Dataset):
    """Images that the second node stops at, and that the first does not get ahead of it with."""

    def __init__(self, folder):
        self.images, _ = make_images(IMAGES)
        self.folder = folder

    def __len__(self):
        return IMAGES

    def __getitem__(self, row):
        if row >= 20:
            (self.folder / f"{os.environ.get(NODE, 'here')}-{row}").touch()
            if os.environ.get(NODE) == "second":
                time.sleep(600)  # until it is killed
            elif os.environ.get(NODE) == "first":
                wait_until(lambda: any(self.folder.glob("second-*")))
        return self.images[row]


def make_xnn():
    xnn = XNN(make_net(4), "classifier.1", 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        xnn.attach_embedding(SRAE(24, 3, 1, hidden=(16,)).eval(), (1,), 4)
    return xnn


def processes_of(node):
    """All that was started with a node's environment, workers too."""
    mark, found = f"{NODE}={node}".encode(), set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes().split(b"\0"):
                found.add(int(place.name))
        except OSError:  # another's, or gone
            continue
    return found


def kill(node):
    """End a node as a lost machine does: none of its processes says good-bye."""
    while found := {process for process in processes_of(node) if not gone(process)}:
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def started(name, *options):
    """A node with one processor; its folder is short, since Ray puts sockets into it."""
    command = [RAY, "start", "--num-cpus=1", "--block"]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "said"
        with log.open("w") as said:
            process = subprocess.Popen(
                [*command, f"--node-ip-address={HOST}", "--disable-usage-stats",
                 "--object-store-memory=100000000", f"--temp-dir={folder}", *options],
                env={**os.environ, NODE: name, "RAY_USAGE_STATS_ENABLED": "0"},
                stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(lambda: process.poll() is not None or "block forever" in log.read_text())
            assert process.poll() is None, log.read_text()
            yield Path(folder)
        finally:
            kill(name)
            process.wait()


@pytest.fixture
def cluster(monkeypatch):
    """The address of two nodes, and their folders."""
    # A head asks for a token, and who names its address must say so before Ray is imported.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    pytest.importorskip("ray")
    if not sys.platform.startswith("linux"):
        pytest.skip("whose process is whose is read from /proc")
    made = [RAY, "get-auth-token", "--generate"]  # one that is there is kept
    subprocess.run(made, check=True, capture_output=True)
    with ExitStack() as nodes:
        head = "--port=0", "--head", "--include-dashboard=false"  # a port of its own choice
        first = nodes.enter_context(started("first", *head))
        address = (first / "ray_current_cluster").read_text().strip()
        second = nodes.enter_context(started("second", f"--address={address}"))
        yield address, first, second


@pytest.mark.slow
def test_a_node_that_is_lost_in_the_middle_costs_its_job_and_nothing_else(cluster, tmp_path):
    """Heatmaps of two nodes, one of which is killed while it draws, are those of this process."""
    address, *folders = cluster
    assert all(list(folder.glob("session_*/sockets/plasma_store")) for folder in folders)
    seen = tmp_path / "seen"
    seen.mkdir()
    images, done = Images(seen), []

    def lose():
        wait_until(lambda: any(seen.glob("second-*")))
        kill("second")

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        attribute_many(
            make_xnn(), images, tmp_path / "ray", CONFIG, engine=RayEngine(address, workers=2),
            on_images=lambda now, _: done.append(now),
        )  # fmt: skip
    loser.join()
    assert not processes_of("second")
    lost = [str(each.message) for each in said if issubclass(each.category, WorkerWarning)]
    assert any("is done again" in text for text in lost), lost
    assert done[-1] == IMAGES
    assert done == sorted(set(done))
    assert any(seen.glob("first-*"))
    attribute_many(make_xnn(), Images(seen), tmp_path / "here", CONFIG)
    found, expected = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("ray", "here")
    )
    assert found == expected
