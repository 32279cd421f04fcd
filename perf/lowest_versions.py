"""Run the tests with the lowest versions that pyproject.toml allows.

Every requirement of the package and of its extras is installed at its lower bound, in an
environment of its own; what these require themselves, and the tools of the tests, are the newest
that fit. A bound that was never released, or that another one rules out, is found by pip; one that
lacks something, by the tests. Run it from the repository:

    python perf/lowest_versions.py                    # some gigabytes are fetched, some ten minutes
    python perf/lowest_versions.py --environment DIR  # keep the environment, or use it again
    python perf/lowest_versions.py --tests apps/study # of one room or app
    python perf/lowest_versions.py --list             # only say what would be installed
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
TOOLS = (
    *("pytest", "pytest-xdist", "beartype", "hypothesis"),
    *("ipykernel", "lightning", "nbclient", "playwright"),
)
"""What the default tests need beside the extras."""
IGNORED = (
    "ignore::DeprecationWarning",  # of the versions of then, read by the libraries of today
    "ignore::PendingDeprecationWarning",
)


def lowest(requirement: str) -> str:
    """`name[extra]==bound` of a requirement `name[extra]>=bound`.

    Raises:
        SystemExit: a requirement without a lower bound.
    """
    read = Requirement(requirement)
    bounds = [one.version for one in read.specifier if one.operator == ">="]
    if len(bounds) != 1:
        raise SystemExit(f"{requirement}: give one lower bound (>=), so that it can be tested")
    extras = f"[{','.join(sorted(read.extras))}]" if read.extras else ""
    return f"{read.name}{extras}=={bounds[0]}"


def pins() -> list[str]:
    """The lower bounds of the package and of all its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [lowest(requirement) for group in groups for requirement in group]


def main(environment: Path, tests: Sequence[str], jobs: int) -> int:
    """Make the environment if need be, install, run the tests; pytest's exit code."""
    python = environment / "bin" / "python"
    if not python.is_file():
        venv.create(environment, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *pins(), *TOOLS, "--editable", str(ROOT)])
    if done.returncode:
        return done.returncode  # pip has said which bound it could not have
    words = [str(python), "-m", "pytest", "-q", "-m", "not slow", "-n", str(jobs)]
    words += ["--dist", "loadfile", *(word for rule in IGNORED for word in ("-W", rule))]
    words += [str(ROOT / "tests" / room) for room in tests]
    return subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, help="a folder; else one that is thrown away")
    parser.add_argument("--tests", nargs="*", default=[""], help="files or folders below tests/")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="only say what would be installed")
    chosen = parser.parse_args()
    if chosen.list:
        sys.stdout.write("\n".join(pins()) + "\n")
    elif chosen.environment:
        sys.exit(main(chosen.environment, chosen.tests, chosen.jobs))
    else:
        with tempfile.TemporaryDirectory() as place:
            sys.exit(main(Path(place), chosen.tests, chosen.jobs))
