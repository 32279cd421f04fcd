import contextlib
import ctypes
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from torchxnn.parallel import process
from torchxnn.parallel.process import keep_freed_memory, one_thread

MEASURE = """
import resource, torch
from torchxnn.parallel.process import keep_freed_memory
torch.set_num_threads(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def of_ten_times():
    torch.ones(10_000_000)
    before = faults()
    for _ in range(10):
        torch.ones(10_000_000)
    return faults() - before
left = of_ten_times()
assert keep_freed_memory()
of_ten_times()  # blocks may wander through the heap until one fits what was freed
print(left, of_ten_times())
"""


def test_freed_memory_is_used_again():
    """40 MB are asked for ten times: each time anew without it, not with it."""
    if platform.libc_ver()[0] != "glibc":
        assert not keep_freed_memory()
        return
    command = [sys.executable, "-c", MEASURE]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    left, kept = map(int, said.split())
    assert kept < 0.5 * left


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not process.keep_freed_memory()


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_one_thread_is_undone_after_an_error():
    inside = 0
    with contextlib.suppress(ZeroDivisionError), one_thread():
        inside = torch.get_num_threads()
        raise ZeroDivisionError
    assert inside == 1
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_one_thread_holds_until_the_outermost_block_ends():
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_one_thread_in_two_threads_of_python_at_once():
    """The second enters before the first leaves, and does not take one for the usual number."""
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first():
        with one_thread():
            first_in.set()
            assert second_in.wait(30)
        first_out.set()
        return torch.get_num_threads()

    def second():
        assert first_in.wait(30)
        with one_thread():
            second_in.set()
            assert first_out.wait(30)
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.submit(first), threads.submit(second)
        assert one.result() == 3
        assert other.result() == (1, 3)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(torch.get_num_threads).result() == 3
