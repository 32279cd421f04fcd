"""A gallery of comparison figures, one per class, on one page (paper figures .13 to .17)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, UnidentifiedImageError

from torchxnn.apps.benchmark.figures.comparison import comparison_figure
from torchxnn.apps.benchmark.figures.looks import target_of
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.canvas import save_figure
from torchxnn.explanations.drawing.html import render
from torchxnn.explanations.drawing.overlay import number
from torchxnn.storage.files import replace_file
from torchxnn.xnn import XNN

_PAGE = Path(__file__).parent / "templates" / "gallery.html.j2"

INDEX = "index.html"
LONGEST_STEM = 80  # characters of a class name in a file name


@dataclass(frozen=True)
class GalleryEntry:
    """One picture of a gallery; plain values, so that it can be kept in a JSON file.

    Attributes:
        name: of the class.
        file: name of the PNG in the gallery's folder.
        alt: what the picture shows, for those who cannot see it.
        facts: (term, text), shown above the picture.
    """

    name: str
    file: str
    alt: str
    facts: tuple[tuple[str, str], ...] = ()


def add_to_gallery(
    xnn: XNN, samples: Sequence[Sample], folder: Path | str, f_reg: float | None = None
) -> GalleryEntry:
    """Write the `comparison_figure` of a class into a folder; an older one is replaced.

    The class is the first that the XNN explains; the file is named after it and its index. The
    other arguments are those of `comparison_figure`.

    Returns:
        The entry for `write_gallery`.

    Raises:
        DataError: see `comparison_figure`.
        OSError: the file cannot be written; an old one is as it was.
    """
    target = target_of(xnn, None)
    name = xnn.target_name(target)
    file = f"{target:03d}_{_stem(name)}.png"
    save_figure(comparison_figure(xnn, samples, f_reg=f_reg), Path(folder) / file)
    values = [("Class", str(target))]
    if f_reg is not None:
        values.append(("F_reg", number(f_reg)))
    if xnn.report is not None:
        found = xnn.report.validation
        values.append(("Active x-features", f"{found.active} of {found.n_features}"))
        values += [("Degenerate", reason) for reason in xnn.report.degenerate]
    alt = (
        f"Heatmaps of the whole logit and of {len(xnn.feature_names)} x-features on "
        f"{len(samples)} images of {name}, each x-feature with its contribution"
    )
    return GalleryEntry(name, file, alt, tuple(values))


def write_gallery(
    entries: Sequence[GalleryEntry],
    folder: Path | str,
    title: str = "x-features of every class",
    notes: Sequence[str] = (),
) -> Path:
    """Write `index.html`, which shows the pictures in the folder and requests nothing else.

    Pictures are loaded when they are scrolled to. The page appears whole or not at all. Entries are
    in its order, their files in the folder already; notes are such as licence and sources of the
    photographs.

    Returns:
        The path of the page.

    Raises:
        DataError: no entries, two with one file, or a file that is missing, no picture, or not
            directly in the folder.
        OSError: the page cannot be written; an old one is as it was.
    """
    if not entries:
        raise DataError("a gallery needs at least one entry")
    files = [entry.file for entry in entries]
    for file in files:
        if files.count(file) > 1:
            raise DataError(f"two entries of the gallery show the same file {file}")
    views = [_view(entry, Path(folder)) for entry in entries]
    page = Path(folder) / INDEX
    replace_file(page, render(_PAGE, entries=views, title=title, notes=tuple(notes)))
    return page


def _view(entry: GalleryEntry, folder: Path) -> dict[str, Any]:
    if entry.file in ("", ".", "..") or re.search(r"[/\\]", entry.file):
        raise DataError(f"{entry.file!r} is not the name of a file in the gallery's own folder")
    try:
        with Image.open(folder / entry.file) as picture:
            width, height = picture.size
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f"the picture of {entry.name} is missing or broken: {folder / entry.file}"
        ) from error
    return {**asdict(entry), "address": "./" + quote(entry.file), "width": width, "height": height}


def _stem(name: str) -> str:
    """A class name as part of a file name that every system takes."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")[:LONGEST_STEM] or "class"
