"""What is answered without loading PyTorch, and Ctrl-C at any moment."""

import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import torchxnn
from cli_examples import fails, text_of
from torchxnn.cli import commands
from torchxnn.cli.benchmark import Benchmark
from torchxnn.cli.commands import COMMANDS
from torchxnn.cli.main import main

PACKAGE = Path(torchxnn.__file__).parent
FACES = sorted(
    str(stub.parent.relative_to(PACKAGE.parent)).replace("/", ".")
    for stub in PACKAGE.rglob("__init__.pyi")
)

ASKED = """
import sys
import torchxnn
from torchxnn.cli.main import main
for words in {words}:
    try:
        main(words)
    except SystemExit:
        pass
    print("LOADED", words, sorted({{"torch", "numpy"}} & set(sys.modules)))
"""


def loaded_by(*words):
    """What each of some command lines loads, all of them in one new process."""
    script = ASKED.format(words=[list(each) for each in words])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("LOADED")], done


def test_help_version_and_a_typo_do_not_load_pytorch():
    lines, done = loaded_by(["--version"], ["--help"], ["fti"], [])
    assert len(lines) == 4
    assert all(line.endswith("[]") for line in lines), lines
    assert "near ones: fit" in done.stderr
    assert done.stdout.startswith(f"torchxnn {torchxnn.__version__}, torch ")
    for name in COMMANDS:
        assert name in done.stdout
    assert "embed a layer into a few x-features" in " ".join(done.stdout.split())


def test_help_of_commands_does_not_load_pytorch():
    jobs = get_args(get_type_hints(Benchmark, include_extras=True)["job"])
    of_benchmarks = [["benchmark", get_args(job)[1].name, "--help"] for job in jobs]
    words = [*([name, "--help"] for name in COMMANDS), *of_benchmarks]
    lines, _ = loaded_by(*words)
    assert len(lines) == len(words)
    assert all(line.endswith("[]") for line in lines), lines


@pytest.mark.slow
def test_a_network_of_torchvision_is_explained_without_pytorchs_compiler(tmp_path):
    """They took half of the time of `xnn explain`; the compiler is there where it is asked for."""
    script = f"""
import sys, torch
from torchxnn.attribution import ExcitationBackprop
from torchxnn.models.load import load_model
spec = "torchxnn.models.bundled:squeezenet_with_head"
model = load_model(spec, num_classes=3, allow_random=True).model
torch.save(model.state_dict(), {str(tmp_path / "model.pt")!r})
model = load_model(spec, {str(tmp_path / "model.pt")!r}).model
ExcitationBackprop(model).attribute(torch.rand(1, 3, 64, 64), 0)
print(sorted({{"torch._dynamo", "sympy"}} & set(sys.modules)))
from torchvision.ops import roi_align
import torch._dynamo.utils, torchvision.ops.roi_align
print(sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu"), torch._dynamo.utils)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "[]"
    assert second.startswith("True <module 'torch._dynamo.utils' from")


def test_a_command_that_is_like_none_has_no_near_ones(capsys):
    assert fails(capsys, "zzz") == "there is no command 'zzz'; `xnn --help` lists them"


def test_every_command_is_where_the_table_says():
    for place in COMMANDS.values():
        module, _, name = place.partition(":")
        kind = getattr(importlib.import_module(module), name)
        assert callable(kind.execute)
        assert kind.__doc__ == commands._described(place)


@pytest.mark.parametrize("room", FACES)
def test_all_names_of_a_face_are_there(room):
    """Each is found when it is asked for, also where a module of the room has the same name."""
    face = importlib.import_module(room)
    assert face.__all__
    assert set(face.__all__) <= set(dir(face))
    for name in face.__all__:
        assert not isinstance(getattr(face, name), type(sys)), name


class TestCtrlC:
    @pytest.fixture
    def during(self, monkeypatch, capsys):
        """Run `main` with something in the place of its parser; exit code and what it says."""

        def run(work):
            monkeypatch.setattr(commands, "parse", lambda argv: work())
            before = signal.getsignal(signal.SIGINT), sys.unraisablehook
            code = main([])
            assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
            return code, text_of(capsys)[1]

        return run

    def test_is_one_line(self, during):
        assert during(lambda: signal.raise_signal(signal.SIGINT)) == (130, "Stopped.")

    def test_that_a_compiled_module_made_another_error_of(self, during):
        def work():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                raise ImportError("KeyboardInterrupt: <EMPTY MESSAGE>") from error

        assert during(work) == (130, "Stopped.")

    def test_where_python_swallows_it(self, during):
        class Dying:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        def work():
            Dying()
            time.sleep(30)

        start = time.monotonic()
        assert during(work) == (130, "Stopped.")
        assert time.monotonic() - start < 20

    def test_other_errors_stay_what_they_are(self, during):
        with pytest.raises(ZeroDivisionError):
            during(lambda: 1 / 0)
