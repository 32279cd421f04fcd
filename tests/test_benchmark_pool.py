"""Jobs in one process and in several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from torchxnn.benchmark.pool import run_jobs

STARTED = []


def start(factor):
    STARTED.append(factor)


def double(job):
    if job == "bad":
        raise ValueError(f"no such job: {job}")
    return 2 * job, torch.get_num_threads()


def write_identity_and_wait(job):
    Path(job).write_text(str(os.getpid()))
    time.sleep(120)


def test_one_process_runs_here_on_one_thread():
    before = torch.get_num_threads()
    assert list(run_jobs(start, (3,), double, [1, 2], 1)) == [(2, 1), (4, 1)]
    assert STARTED[-1] == 3
    assert torch.get_num_threads() == before


def test_nothing_to_do_starts_nothing():
    count = len(STARTED)
    assert list(run_jobs(start, (1,), double, [], 4)) == []
    assert len(STARTED) == count


@pytest.mark.slow
def test_several_processes_give_the_same_and_pass_errors_on():
    assert sorted(run_jobs(start, (3,), double, [1, 2, 3], 2)) == [(2, 1), (4, 1), (6, 1)]
    with pytest.raises(ValueError, match="no such job"):
        list(run_jobs(start, (3,), double, [1, "bad"], 2))


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    """The worker is in the middle of a job when its parent is killed."""
    identity = tmp_path / "worker"
    code = (
        "from test_benchmark_pool import start, write_identity_and_wait\n"
        "from torchxnn.benchmark.pool import run_jobs\n"
        "if __name__ == '__main__':\n"
        f"    list(run_jobs(start, (1,), write_identity_and_wait, [{str(identity)!r}], 2))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": places}
    ) as parent:
        for _ in range(600):
            if identity.exists() and identity.read_text():
                break
            time.sleep(0.1)
        parent.send_signal(signal.SIGKILL)
    worker = int(identity.read_text())
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")
