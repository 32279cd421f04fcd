"""Commands that are killed in the middle, however busy the machine is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def kill_midway(command, folder, pattern, enough, whole, group=False):
    """Kill a command once `folder` holds `enough` of the `whole` files that it writes.

    Where the command was through before this process came to look, it begins again.

    Args:
        command: for this interpreter, without it.
        folder: what the command writes; removed before it begins again.
        pattern: of the files that are counted.
        enough: files to wait for.
        whole: files of a finished command.
        group: kill its workers too; without it they must end by themselves.

    Returns:
        The files that were there afterwards, sorted.
    """
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    while True:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and len(list(folder.glob(pattern))) < enough:
            time.sleep(0.001)
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        said = process.communicate(timeout=300)[1]  # its workers hold the other end while they live
        assert process.returncode in (0, -signal.SIGKILL), said
        there = sorted(folder.glob(pattern))
        if len(there) < whole:
            return there
        shutil.rmtree(folder)
