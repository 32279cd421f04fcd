import ctypes
import platform
import subprocess
import sys

from torchxnn.parallel import memory
from torchxnn.parallel.memory import keep_freed_memory

MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    from torchxnn.parallel.memory import keep_freed_memory
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(10_000_000)
before = faults()
for _ in range(10):
    torch.ones(10_000_000)
print(faults() - before)
"""


def faults(how):
    command = [sys.executable, "-c", MEASURE, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_used_again():
    """40 MB are asked for ten times: each time anew without it, not with it."""
    if platform.libc_ver()[0] != "glibc":
        assert not keep_freed_memory()
        return
    assert faults("keep") < 0.5 * faults("leave")


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
