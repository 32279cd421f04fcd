"""Rules of this suite itself, and of imports that no contract states."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from hypothesis import settings

from torchxnn.models.preprocessing import Preprocessing

FILES = sorted(Path(__file__).parent.rglob("*.py"))


def test_examples_have_no_deadline():
    """How long an example takes is a matter of who else computes on the machine."""
    assert settings.default.deadline is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tests_import_nothing_from_each_other(path):
    """What tests share lies beside conftest.py, so that any one of them can be read alone."""
    assert not re.search(r"^\s*(from|import) test_", path.read_text("utf-8"), re.M)


PACKAGE = Path(__file__).parents[1] / "src"


def faces_imported(source):
    """Imports of `torchxnn` itself or of a room as a whole, which load more than is asked for."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
            if is_face(node.module or "") and not all(map(is_module, names)):
                found.append(str(node.module))
        else:
            continue
        found += filter(is_face, names)
    return found


def is_face(name):
    """Whether a dotted name is the package or a room, whose `__init__` is for users."""
    room = PACKAGE.joinpath(*name.split("."))
    return name.split(".")[0] == "torchxnn" and (room / "__init__.py").is_file()


def is_module(name):
    """Whether a dotted name is a module or a folder of the package."""
    path = PACKAGE.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize(
    "line",
    [
        "import torchxnn",
        "import torchxnn.embeddings",
        "from torchxnn import XNN",
        "from torchxnn import embeddings",
        "from torchxnn.embeddings import SRAE",
    ],
)
def test_a_face_is_recognised(line):
    assert faces_imported(line)


def test_a_module_is_no_face():
    assert not faces_imported("import torchxnn.errors\nfrom torchxnn.embeddings import srae")
    assert not faces_imported("from torchxnn.embeddings.srae import SRAE\nimport torch")


def test_modules_import_from_the_module_that_defines_a_name():
    """The `__init__` of a room is for users; within the package it would load the whole room."""
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            assert not faces_imported(path.read_text("utf-8")), path


def test_factories_written_for_earlier_versions_find_preprocessing():
    """The former module gives the very class, and nothing in the package uses it."""
    former = importlib.import_module("torchxnn.datasets.base")
    assert former.Preprocessing is Preprocessing
    shim = PACKAGE / "torchxnn" / "datasets"
    for path in PACKAGE.rglob("*.py"):
        assert path.parent == shim or "torchxnn.datasets" not in path.read_text("utf-8"), path
