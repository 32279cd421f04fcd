"""Versions that torchxnn was tested with, and the licences of everything it brings.

Run it in the environment of `make test`, from the repository:

    python perf/dependencies.py            # licences of all dependencies, by extra
    python perf/dependencies.py --write    # constraints.txt, the versions that are installed here

Both follow the requirements of the installed package, those of its requirements, and so on.
"""

import argparse
import platform
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILE = ROOT / "constraints.txt"
HEAD = """# The tests passed with these, on Python {python}; made by perf/dependencies.py --write.
# pip install -c constraints.txt 'torchxnn[study]' installs them again.
"""


def needed(name: str, extra: str, seen: set[str]) -> Iterator[Distribution]:
    """What a package with an extra needs, and what that needs, each once; by name."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return  # of another platform, or an extra that is not installed here
    for text in sorted(found.requires or ()):
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        plain = canonicalize_name(requirement.name)
        if plain in seen or plain == "torchxnn":
            continue
        seen.add(plain)
        try:
            yield distribution(plain)
        except PackageNotFoundError:
            continue
        for wanted in requirement.extras or {""}:
            yield from needed(plain, wanted, seen)


def licence(found: Distribution) -> str:
    """The licence as the package states it: expression, first line of the field, or classifier."""
    about = found.metadata
    if about.get("License-Expression"):
        return about["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if line.startswith("License :: OSI Approved ::")
    ]
    if classifiers:
        return ", ".join(sorted(classifiers))
    return (about.get("License") or "not stated").strip().splitlines()[0][:60]


def extras() -> list[str]:
    """All extras, the base install first."""
    return ["", *sorted(distribution("torchxnn").metadata.get_all("Provides-Extra") or ())]


def main(write: bool) -> None:
    """Print licences, or write the constraints."""
    seen: set[str] = set()
    versions = {}
    for extra in extras():
        if not write:
            print(f"\n# {extra or 'base install'}\n")
        for found in sorted(needed("torchxnn", extra, seen), key=lambda one: one.name.lower()):
            name = canonicalize_name(found.name)
            versions[name] = re.sub(r"\+.*", "", found.version)  # +cpu and the like: of one index
            if not write:
                print(f"- {name} {found.version}: {licence(found)}")
    if write:
        lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
        FILE.write_text(HEAD.format(python=platform.python_version()) + "".join(lines))
        print(f"{len(lines)} versions in {FILE.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write constraints.txt")
    main(parser.parse_args().write)
