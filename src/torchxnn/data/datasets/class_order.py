"""Which class folder belongs to which output of a network: names, numbers, and class maps."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchxnn.data.class_names import comparable
from torchxnn.errors import DataError, near_ones

_NAMED_MAPS = ("id2label", "label2id", "class_to_idx", "classes", "names")
"""Keys under which a file of settings keeps its class map."""


@dataclass(frozen=True)
class ClassOrder:
    """The place of every class folder among the outputs of a network.

    Attributes:
        classes: names of all classes in the order of the outputs.
        places: the class index of each folder by its name.
    """

    classes: tuple[str, ...]
    places: dict[str, int]


def composed(name: str) -> str:
    """A name with its accents as single characters, as most systems but not all write them."""
    return unicodedata.normalize("NFC", name)


def in_order(folders: Sequence[str]) -> tuple[str, ...]:
    """Class folders sorted: by value if all are whole numbers (2 before 10), else as text."""
    if all(re.fullmatch("[0-9]+", name) for name in folders):
        return tuple(sorted(folders, key=lambda name: (int(name), name)))
    return tuple(sorted(folders))


def by_value(names: Sequence[str]) -> list[str]:
    """Names that differ in a number at their end alone sorted by it, others as they are.

    "class_2" comes before "class_10".
    """
    found = [re.fullmatch("(.*?)([0-9]+)", name, re.DOTALL) for name in names]
    parts = [(match[1], int(match[2])) for match in found if match]
    if len(parts) < len(names) or len({stem for stem, _ in parts}) != 1:
        return list(names)
    return [name for _, name in sorted(zip(parts, names, strict=True))]


def order_of_folders(
    folders: Sequence[str], names: Sequence[str] | None, classes: int, mapped: bool = False
) -> ClassOrder | None:
    """Find every class folder's place; None if the folders do not tell.

    Folders take the places of their names among the class names, where case, accents' encoding and
    underscores do not count if no two classes differ in them alone; of names that are several words
    ("goldfish, Carassius auratus") the first will do. Folders that are numbers 0 to
    K - 1, or 1 to K, are indices. Without class names, K folders are the K classes in order.

    Args:
        folders: their names.
        names: of the classes, if known.
        classes: how many there are, K.
        mapped: whether the user said what the names are: then some of the K numbers will do.

    Raises:
        DataError: two folders belong to one class, or a class name is given twice.
    """
    if names is not None:
        check_different(names)
        found = _by_name(folders, names) or _by_first_synonym(folders, names)
        if found is not None:
            return ClassOrder(tuple(names), found)
    numbers = _by_number(folders, classes)
    if names is None:
        ordered = in_order(folders)
        places = {folder: place for place, folder in enumerate(ordered)}
        return ClassOrder(ordered, places) if len(folders) == classes else None
    if numbers is not None and (mapped or len(folders) == classes):
        return ClassOrder(tuple(names), numbers)
    return None


def check_different(names: Sequence[str]) -> None:
    """Refuse class names of which two are the same.

    Raises:
        DataError: the message names the first.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"the class name {repeated[0]!r} is given twice")


def _by_name(folders: Sequence[str], names: Sequence[str]) -> dict[str, int] | None:
    for form in (str, composed, lambda name: comparable(composed(name))):
        found = _matched(folders, names, form)
        if found is not None:
            return found
    return None


def _matched(
    folders: Sequence[str], names: Sequence[str], form: Callable[[str], str]
) -> dict[str, int] | None:
    """The places of folders whose names are class names in some form; None if one is not."""
    places = {form(name): index for index, name in enumerate(names)}
    if len(places) < len(names) or not all(form(folder) in places for folder in folders):
        return None
    found = {folder: places[form(folder)] for folder in folders}
    shared = [index for index, count in Counter(found.values()).items() if count > 1]
    if shared:
        both = [folder for folder, index in found.items() if index == shared[0]]
        raise DataError(
            f"the folders {both[0]!r} and {both[1]!r} are both of class {names[shared[0]]!r}; "
            "put their images into one"
        )
    return found


def _by_first_synonym(folders: Sequence[str], names: Sequence[str]) -> dict[str, int] | None:
    """Folders called by the first of several words for a class, "goldfish, Carassius auratus".

    None if a folder is not, or if two classes begin with the same word.
    """
    first = [comparable(composed(name.partition(",")[0])) for name in names]
    places = {word: index for index, word in enumerate(first) if first.count(word) == 1}
    found = {folder: places.get(comparable(composed(folder))) for folder in folders}
    known = {folder: index for folder, index in found.items() if index is not None}
    return known if len(known) == len(found) == len(set(known.values())) else None


def _by_number(folders: Sequence[str], classes: int) -> dict[str, int] | None:
    """Folders 0 to K - 1 or 1 to K, or some of them that tell which; None otherwise."""
    if not all(re.fullmatch("[0-9]+", name) for name in folders):
        return None
    numbers = {name: int(name) for name in folders}
    least, largest = min(numbers.values()), max(numbers.values())
    if len(set(numbers.values())) < len(numbers) or largest > classes:
        return None
    if least == 0 and largest < classes:
        return numbers
    if least > 0 and largest == classes:
        return {name: number - 1 for name, number in numbers.items()}
    return None


# Class maps


def read_class_map(file: Path, classes: int) -> tuple[str, ...]:
    """Names of all classes in the order of the outputs, as a file says.

    The file is text with "index name", "name index" or just a name on each line, also as a table
    with a header (index,name), or JSON: a list of
    names, {name: index}, {index: name} or {index: [name, ...]}, also under `id2label`,
    `class_to_idx` and the like, as configurations have it. Indices run from 0, or from 1 to the
    number of classes. A class that the file does not name is "class 3".

    Args:
        file: path of the class map.
        classes: how many the network tells apart.

    Raises:
        DataError: no such file, not such a file, an index or a name twice, or an index that the
            network has not; the message names it.

    Example:
        >>> ImageFolder("photos", preprocessing, classes=read_class_map(Path("map.txt"), 10))
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the class map {file} cannot be read: {error}") from error
    pairs = _from_json(file, text) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    if not pairs:
        raise DataError(f"the class map {file} names no class")
    indices = _from_zero([index for index, _ in pairs], classes, file)
    check_different([name for _, name in pairs])
    named = dict(zip(indices, (name for _, name in pairs), strict=True))
    return tuple(named.get(index, f"class {index}") for index in range(classes))


def _from_zero(indices: Sequence[int], classes: int, file: Path) -> list[int]:
    repeated = [index for index, count in Counter(indices).items() if count > 1]
    if repeated:
        raise DataError(f"the class map {file} gives the index {repeated[0]} to two classes")
    first = 1 if min(indices) == 1 and max(indices) == classes else 0
    outside = [index for index in indices if not first <= index < first + classes]
    if outside:
        raise DataError(
            f"the class map {file} has an index {outside[0]}; the network tells {classes} classes "
            f"apart, 0 to {classes - 1}"
        )
    return [index - first for index in indices]


def _from_json(file: Path, text: str) -> list[tuple[int, str]]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"the class map {file} is broken JSON: {error}") from error
    if isinstance(found, dict):
        found = next((found[key] for key in _NAMED_MAPS if key in found), found)
    if isinstance(found, list):
        return [(index, _name(value)) for index, value in enumerate(found)]
    items = list(found.items())
    if all(re.fullmatch("[0-9]+", key) for key in found) and not all(
        map(_is_index, found.values())
    ):
        return [(int(key), _name(value)) for key, value in items]
    if not all(map(_is_index, found.values())):
        raise DataError(f"the class map {file} is neither {{name: index}} nor {{index: name}}")
    return [(value, key) for key, value in items]


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _name(value: Any) -> str:
    """A class name, or the first of several, as ImageNet's own map has the folder's name first."""
    return str(value[0] if isinstance(value, list) and value else value)


_WORD = (
    "(?:index|idx|id|number|output|label|target|class|name|(?:class|label)[ _]?(?:id|index|name))"
)
_HEADER = rf"\W*{_WORD}\W*[\s,;:]\W*{_WORD}\W*"
"""A first line of a table, such as "index,name" or "class_name;class_id"."""

_INDEX_NAME, _NAME_INDEX = (
    r"\s*(\d+)[\s,;:]+(?P<name>\S.*?)\s*",
    r"\s*(?P<name>\S.*?)[\s,;:]+(\d+)\s*",
)


def _from_lines(text: str) -> list[tuple[int, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and re.fullmatch(_HEADER, lines[0], re.IGNORECASE):
        return _from_lines("\n".join(lines[1:]))
    for form in (_INDEX_NAME, _NAME_INDEX):
        found = [re.fullmatch(form, line) for line in lines]
        pairs = [(int(m[1] if form is _INDEX_NAME else m[2]), m["name"]) for m in found if m]
        indices, names = len(dict(pairs)), len({name for _, name in pairs})
        # an index or a name may be there twice, and it is said; of names like "class 2" all would
        all_different = len(lines) == (indices if form is _INDEX_NAME else names)
        if len(lines) == len(pairs) and (all_different or len(lines) == names <= 2 * indices):
            return pairs
    return [(index, line.strip()) for index, line in enumerate(lines)]


def unknown_folder(folders: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    """The first folder whose name is no class name, and near ones for a message."""
    known = {comparable(composed(name)) for name in names}
    strange = [folder for folder in folders if comparable(composed(folder)) not in known]
    first = (strange or list(folders))[0]
    return first, near_ones(first, names)


def places_by_name(order: Mapping[str, int], paths: Sequence[str]) -> tuple[int, ...]:
    """The class index of each path "folder/.../file" by its first part."""
    return tuple(order[path.partition("/")[0]] for path in paths)
