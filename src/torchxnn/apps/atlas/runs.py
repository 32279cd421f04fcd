"""Find saved XNNs in folders, and leave out those that an atlas of one model cannot show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchxnn.data.class_names import spoken
from torchxnn.errors import DataError, ModelError
from torchxnn.models.meaning import CLASSES, Meaning, read_meaning
from torchxnn.storage.saved_folder import MARKER, WEIGHTS, read_about
from torchxnn.training.class_results import INDEX


@dataclass(frozen=True)
class SavedClass:
    """A saved XNN, and its name in the atlas.

    Attributes:
        name: of its folder in the atlas.
        place: where it is saved.
        targets: 0-based classes that it explains.
        layer: that it embeds.
        fingerprint: of the model that it explains.
        key: of everything that is saved, its weights and the names of its x-features.
        meaning: of the model's outputs.
    """

    name: str
    place: Path
    targets: tuple[int, ...]
    layer: str
    fingerprint: str
    key: str
    meaning: Meaning = CLASSES


@dataclass(frozen=True)
class Failure:
    """A class that is not in the atlas.

    Attributes:
        name: of its folder.
        reason: for people.
    """

    name: str
    reason: str


def find_runs(
    places: Sequence[Path], fingerprint: str | None = None
) -> tuple[tuple[SavedClass, ...], tuple[Failure, ...]]:
    """The saved XNNs in some folders, by first target and name, and those that cannot be shown.

    Args:
        places: folders with a saved XNN each, or folders of such folders.
        fingerprint: of the model; None takes that of the first XNN.

    Raises:
        DataError: no such folder, or none holds an XNN that can be shown.
    """
    found: list[SavedClass] = []
    failures: list[Failure] = []
    taken: set[str] = set()
    for place in places:
        failures += _failed_fits(place)
    for place in _folders(places):
        name = _free(place.resolve().name, taken)
        try:
            saved = _open(place, name)
        except (ModelError, KeyError, TypeError, ValueError, OSError) as error:
            failures.append(Failure(name, f"{type(error).__name__}: {error}"))
            continue
        fingerprint = fingerprint or saved.fingerprint
        if saved.fingerprint != fingerprint:
            failures.append(Failure(name, "it explains another model, or other weights"))
        elif saved.meaning.outputs_are == "value":
            failures.append(Failure(name, _VALUES))
        elif found and saved.meaning != found[0].meaning:
            kinds = saved.meaning.outputs_are, found[0].meaning.outputs_are
            failures.append(
                Failure(name, f"its outputs are {kinds[0]}, those of others {kinds[1]}")
            )
        else:
            found.append(saved)
    if not found:
        why = f"; {failures[0].name}: {failures[0].reason}" if failures else ""
        raise DataError(f"no saved XNN in {', '.join(map(str, places))}{why}")
    return tuple(sorted(found, key=lambda each: (each.targets, each.name))), tuple(failures)


_VALUES = (
    "its output is a value, and an atlas compares classes or labels; `xnn report` makes a page "
    "about it"
)


def _folders(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            raise DataError(f"there is no folder {place}")
        if (place / MARKER).is_file():
            yield place
            continue
        yield from sorted(each.parent for each in place.glob(f"*/{MARKER}"))


def _failed_fits(place: Path) -> list[Failure]:
    """Classes whose fit failed, from the index that `xnn fit --targets all` writes."""
    try:
        about = json.loads((place / INDEX).read_text("utf-8"))
        return [
            Failure(
                spoken(" or ".join(entry["names"] or map(str, entry["targets"]))), entry["error"]
            )
            for entry in about["classes"]
            if entry["error"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # an index is for convenience: there need not be one


def _open(place: Path, name: str) -> SavedClass:
    about = read_about(place)
    return SavedClass(
        name=name,
        place=place.resolve(),
        targets=tuple(int(target) for target in about["targets"]),
        layer=str(about["layer"]),
        fingerprint=str(about["model_fingerprint"]),
        key=_key(place),
        meaning=read_meaning(about),
    )


def _key(place: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(each for each in place.iterdir() if each.suffix in (".json", ".csv")):
        digest.update(f"{file.name}\n".encode())
        digest.update(file.read_bytes())
    with (place / WEIGHTS).open("rb") as weights:  # every build reads them once more to apply them
        digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken and can be a folder beside the site's own files."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name) or "xnn"
    found, number = name, 2
    while found.casefold() in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found.casefold())
    return found
