"""What is built for upload: every file of the package in it, and it works without the source."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from docs_examples import ROOT

PACKAGE = ROOT / "src" / "torchxnn"


def run(*words, **settings):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that is built from the source archive, as an index would have it."""
    pytest.importorskip("build", reason="pip install build")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("torchxnn/")}
    ours = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == ours
    assert "torchxnn/py.typed" in inside


@pytest.mark.slow
def test_the_wheel_works_without_the_source_beside_it(wheel, tmp_path):
    place = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel)
    alone = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    where = "import torchxnn, torchxnn.cli.main; print(torchxnn.__file__)"
    assert str(place) in run(sys.executable, "-c", where, cwd=tmp_path, env=alone)
    program = [sys.executable, "-c", "from torchxnn.cli.main import main; raise SystemExit(main())"]
    assert "torchxnn" in run(*program, "--version", cwd=tmp_path, env=alone)
    run(*program, "demo", "--data", "planted", "--out", "demo", cwd=tmp_path, env=alone)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_program_that_uses_the_package_is_type_checked(wheel, tmp_path):
    """py.typed and the stubs of the rooms: a wrong argument is found downstream."""
    place = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel)
    program = tmp_path / "program.py"
    program.write_text(
        "from torch import nn\n\nfrom torchxnn import XNN\n\n"
        "model = nn.Linear(2, 2)\nxnn = XNN(model, layer='0')\nname: str = xnn.layer\n"
        "XNN(model, layer=3.5)\n"
    )
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nignore_missing_imports = True\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, program],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(place), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if "program.py" in line]
    assert any(":8: error" in line and "float" in line for line in lines), done.stdout
    assert not any(":6: error" in line for line in lines), done.stdout


def test_the_citation_names_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def requirements():
    """Those of the base install and of all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def test_constraints_have_a_version_of_everything_that_is_required():
    """`make constraints` writes the file."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert list(pinned) == sorted(pinned)
    assert len(pinned) == sum(not line.startswith("#") for line in lines)
    for one in requirements():
        assert Version(pinned[canonicalize_name(one.name)]) in one.specifier, one


def test_an_incomplete_environment_writes_no_constraints(monkeypatch, tmp_path):
    script = runpy.run_path(str(ROOT / "perf" / "dependencies.py"))
    file = tmp_path / "constraints.txt"
    monkeypatch.setitem(script["main"].__globals__, "FILE", file)
    monkeypatch.setitem(
        script["main"].__globals__,
        "direct",
        lambda: {"": [Requirement("numpy")], "more": [Requirement("no-such-package>=1")]},
    )
    with pytest.raises(SystemExit, match=r"no-such-package; pip install --editable '\.\[more\]'"):
        script["main"](write=True)
    assert not file.exists()


def test_every_requirement_has_a_lowest_version_that_can_be_tested():
    script = runpy.run_path(str(ROOT / "perf" / "lowest_versions.py"))
    pins = script["pins"]()
    assert len(pins) == len(requirements())
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", pin) for pin in pins)
    assert script["lowest"]("mkdocstrings[python]>=0.26") == "mkdocstrings[python]==0.26"
    with pytest.raises(SystemExit, match="numpy: give one lower bound"):
        script["lowest"]("numpy")
