"""Rules of this suite itself, and of imports that no contract states."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import settings

FILES = sorted(Path(__file__).parent.rglob("*.py"))


def test_examples_have_no_deadline():
    """How long an example takes is a matter of who else computes on the machine."""
    assert settings.default.deadline is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tests_import_nothing_from_each_other(path):
    """What tests share lies beside conftest.py, so that any one of them can be read alone."""
    assert not re.search(r"^\s*(from|import) test_", path.read_text("utf-8"), re.M)


def test_modules_import_from_the_module_that_defines_a_name():
    """The `__init__` of a room is for users; within the package it would load the whole room."""
    package = Path(__file__).parents[1] / "src"
    for path in package.rglob("*.py"):
        if path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchxnn."):
                room = package.joinpath(*str(node.module).split("."))
                if (room / "__init__.py").is_file():
                    modules = [room / name.name for name in node.names]
                    assert all(m.is_dir() or m.with_suffix(".py").is_file() for m in modules), path
