"""What is loaded, read and drawn for a first answer, and Ctrl-C at any moment."""

import gc
import importlib
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from safetensors.torch import save_file

import torchxnn
from cli_examples import FAST, fails, text_of, write_letters
from conftest import make_net
from torchxnn.cli import commands
from torchxnn.cli.benchmark import Benchmark
from torchxnn.cli.commands import COMMANDS
from torchxnn.cli.imports import computing
from torchxnn.cli.main import main
from torchxnn.models import load, weights
from torchxnn.models.bundled import solar_network
from torchxnn.parallel import process

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


class TestImportsWithoutTheCollector:
    @pytest.fixture(autouse=True)
    def kept(self, monkeypatch):
        """As often as freed memory is to be kept; here it is not."""
        kept = []
        monkeypatch.setattr(process, "keep_freed_memory", lambda: kept.append(1))
        yield kept
        gc.enable()
        gc.unfreeze()

    def test_are_exempt_from_it_for_good(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "torch")
        before = gc.get_freeze_count()
        with computing():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before + 10_000  # all that this process holds

    def test_let_freed_memory_be_kept(self, monkeypatch, kept):
        with computing():
            pass
        assert not kept  # it is the caller's process
        monkeypatch.delitem(sys.modules, "torch")
        with computing():
            pass
        assert kept == [1]

    def test_that_fail_switch_it_on_again(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "torch")
        before = gc.get_freeze_count()
        with pytest.raises(ModuleNotFoundError), computing():
            importlib.import_module("no_such_module")
        assert gc.isenabled()
        assert gc.get_freeze_count() == before

    def test_leave_it_alone_where_pytorch_is_loaded(self):
        before = gc.get_freeze_count()
        with computing():
            assert gc.isenabled()
        assert gc.get_freeze_count() == before

    def test_leave_it_off_where_somebody_switched_it_off(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "torch")
        gc.disable()
        with computing():
            pass
        assert not gc.isenabled()


def explain_one(tmp_path, model, network, *settings):
    """The words that explain an image with the XNN of a network whose weights are a file."""
    images, checkpoint = write_letters(tmp_path / "images"), tmp_path / "net.safetensors"
    save_file(network.state_dict(), checkpoint)
    words = ["fit", model, images, "--weights", checkpoint, "--layer", "classifier.1"]
    words += ["--target", "b", "--out", tmp_path / "run", *FAST, *settings]
    assert main([str(word) for word in words]) == 0
    image = next(images.glob("b/*.png"))
    return ["explain", str(tmp_path / "run"), str(image), "--out", str(tmp_path / "out")]


EXPLAINED = """
import atexit, gc, sys
atexit.register(lambda: print("ENDED", gc.isenabled()))
from torchxnn.cli.main import main
code = main({words})
print("FROZEN", code, gc.get_freeze_count(), gc.isenabled())
print("LOADED", *sorted({{"torch._dynamo", "sympy", "scipy", "sklearn", "cv2", "pandas",
                          "captum", "matplotlib.pyplot"}} & set(sys.modules)))
"""


@pytest.mark.slow
def test_explain_in_a_new_process_loads_what_it_needs_and_collects_none_of_it(tmp_path):
    model = "torchxnn.models.bundled:solar_network"
    words = explain_one(tmp_path, model, solar_network(4), "--size", "64")
    script = EXPLAINED.format(words=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    code, frozen, enabled = said["FROZEN"]
    assert (code, enabled) == ("0", "True")
    assert int(frozen) > 200_000  # PyTorch alone has twice as many
    assert said["LOADED"] == []
    assert said["ENDED"] == ["True"]  # what waits for the end of the process is still called


def test_explain_reads_and_hashes_the_network_once_and_draws_the_figure_once(tmp_path, monkeypatch):
    words = explain_one(tmp_path, "cli_examples:small_network", make_net())
    counted = Counter()

    def count(place, name):
        original = getattr(place, name)

        def counting(*arguments, **options):
            counted[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(place, name, counting)

    count(load, "read_checkpoint")
    count(weights, "_hash")
    count(FigureCanvasAgg, "draw")
    assert main(words) == 0
    assert counted == {"read_checkpoint": 1, "_hash": 1, "draw": 1}


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
