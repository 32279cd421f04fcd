"""Rules of this suite itself."""

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
