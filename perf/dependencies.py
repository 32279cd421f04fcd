"""Versions that torchxnn was tested with, and the licences of everything it brings.

Run it in the environment of `make test`, from the repository; `make constraints` does both:

    pip install --editable '.[benchmark,demo,docs,formats,huggingface,peers,ray,study]'
    python perf/dependencies.py            # licences of all dependencies, by extra
    python perf/dependencies.py --write    # constraints.txt, the versions that are installed here

Both follow the requirements of pyproject.toml, those of what is required, and so on. A file that
would lack one of pyproject.toml's own is not written.
"""

import argparse
import platform
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILE = ROOT / "constraints.txt"
HEAD = """# The tests passed with these, on Python {python}; made by perf/dependencies.py --write.
# pip install -c constraints.txt 'torchxnn[study]' installs them again.
"""


def direct() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for by extra, the base install ("") first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **dict(sorted(project["optional-dependencies"].items()))}
    return {extra: [Requirement(text) for text in texts] for extra, texts in groups.items()}


def needed(
    requirements: Iterable[Requirement], seen: set[str], extra: str = ""
) -> Iterator[Distribution]:
    """What is installed of the requirements, and what that needs, each once; by name."""
    for requirement in sorted(requirements, key=str):
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        plain = canonicalize_name(requirement.name)
        if plain in seen:
            continue
        seen.add(plain)
        try:
            found = distribution(plain)
        except PackageNotFoundError:
            continue  # of another platform; of pyproject.toml's own `main` says so
        yield found
        own = [Requirement(text) for text in found.requires or ()]
        for wanted in requirement.extras or {""}:
            yield from needed(own, seen, wanted)


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


def main(write: bool) -> None:
    """Print licences, or write the constraints.

    Raises:
        SystemExit: something that pyproject.toml names is not installed here.
    """
    seen: set[str] = set()
    versions = {}
    for extra, requirements in direct().items():
        if not write:
            print(f"\n# {extra or 'base install'}\n")
        for found in sorted(needed(requirements, seen), key=lambda one: one.name.lower()):
            name = canonicalize_name(found.name)
            versions[name] = re.sub(r"\+.*", "", found.version)  # +cpu and the like: of one index
            if not write:
                print(f"- {name} {found.version}: {licence(found)}")
    lacking = {canonicalize_name(one.name) for group in direct().values() for one in group}
    lacking -= versions.keys()
    if lacking:
        everything = ",".join(extra for extra in direct() if extra)
        way_out = f"pip install --editable '.[{everything}]'"
        raise SystemExit(f"\nnot installed here: {', '.join(sorted(lacking))}; {way_out}")
    if write:
        lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
        FILE.write_text(HEAD.format(python=platform.python_version()) + "".join(lines))
        print(f"{len(lines)} versions in {FILE.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write constraints.txt")
    main(parser.parse_args().write)
