"""Work that engines of either kind are given."""

import os
import signal
import time
from pathlib import Path

import torch

from conftest import make_images
from torchxnn.errors import DataError

STARTED = []


class Factor:
    """The state of a process: what its jobs multiply by."""

    def __init__(self, value):
        STARTED.append(value)
        self.value = value


def multiply(factor, job):
    if job == "bad":
        raise DataError(f"no such job: {job}")
    return factor.value * job, torch.get_num_threads()


def take_model(model, folder):
    return model, folder


def logits_of(net, seed):
    images, _ = make_images(8, seed)
    with torch.no_grad():
        return net(images)


def logits_unless_first(given, seed):
    """Job 3 kills its process the first time, in the middle of others' work."""
    net, folder = given
    mark = folder / f"{seed}.tried"
    if seed == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), logits_of(net, seed)


def die(_, job):
    if job == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def gone(process):
    """Ended, though perhaps not yet forgotten by its parent."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def as_it_is(folder):
    return folder


def gpus_seen(folder, job):
    """The GPUs that a process sees, once there is a process for each of two jobs."""
    (folder / f"{job}.started").touch()
    wait_until(lambda: len(list(folder.glob("*.started"))) == 2)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()
