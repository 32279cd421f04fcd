"""Where each of many XNNs is saved, and what is there already."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from torchxnn.errors import ModelError
from torchxnn.storage.artifact import structure
from torchxnn.storage.paths import Location, file_sizes
from torchxnn.storage.saved_folder import MARKER, read_about, read_saved
from torchxnn.training.report import FitReport


def class_folder(targets: Sequence[int], class_names: Sequence[str] | None) -> str:
    """Name of a class's folder: its index, and its name as far as every file system takes it."""
    words = [] if class_names is None else [class_names[t] for t in targets if t < len(class_names)]
    plain = unicodedata.normalize("NFKD", " ".join(words)).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:60]
    return "-".join([*(f"{target:04d}" for target in targets), *([slug] if slug else [])])


def check_places(places: Sequence[Location], out: Location, key: str) -> None:
    """Refuse before any work what would mix XNNs of different data or settings.

    Args:
        places: folders of the classes.
        out: the folder that they lie in.
        key: of the data and the settings, as it is saved with each XNN.

    Raises:
        FileExistsError: a folder holds something else.
        ModelError: a folder holds an XNN of other data or settings.
    """
    there = file_sizes(out)
    for place in places:
        if str(place).replace("\\", "/").rpartition("/")[2] not in there:
            continue
        inside = file_sizes(place)
        if inside and MARKER not in inside:
            raise FileExistsError(f"{place} exists and is no saved XNN; choose another --out")
        if MARKER in inside and read_about(place).get("fit_key") != key:
            raise ModelError(
                f"{place} was fitted to other data or with other settings; choose another --out, "
                "or remove it"
            )


def finished_report(place: Location | None) -> FitReport | None:
    """The report of a class that an earlier run has finished; its weights are checked."""
    if place is None or MARKER not in file_sizes(place):
        return None
    return structure(read_saved(place)[0]["report"], FitReport, f"the report in {place}")
