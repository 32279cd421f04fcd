"""All words that a participant reads, one file per language."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from torchxnn.apps.study.plan import CONSENT, TEXTS
from torchxnn.errors import DataError, XNNWarning

_OURS = files("torchxnn.apps.study") / "texts"
REFERENCE = "en"
"""The language whose file says which texts there are."""

_RIGHT_TO_LEFT = frozenset({"ar", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})


def direction(language: str) -> str:
    """In which direction a language is read, as HTML has it: "ltr" or "rtl"."""
    return "rtl" if language.split("-")[0] in _RIGHT_TO_LEFT else "ltr"


def read(path: Path, parse: Callable[[str], Any] = str) -> Any:
    """A text file that a researcher wrote, or what `parse` makes of it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def text_file(language: str, task: str = "clustering") -> str:
    """Name of the file of a language, or of a further task's own texts in it."""
    return f"{language}.yaml" if task == "clustering" else f"{task}_{language}.yaml"


def text_tasks(task: str) -> list[str]:
    """Tasks whose files a study needs: a further task's texts come on top of those of clustering.

    They add to them, or take their place.
    """
    return ["clustering", *(() if task == "clustering" else (task,))]


def default_texts(language: str, task: str = "clustering") -> str:
    """Our file for a language, or the English one to be translated."""
    own = _OURS / text_file(language if is_shipped(language) else REFERENCE, task)
    return own.read_text("utf-8")


def is_shipped(language: str) -> bool:
    """Whether the texts of a language are ours, so that nothing is to be translated."""
    return language in ASKED


ASKED = {
    "en": {
        "clustering": "asked to put them into groups",
        "forward_simulation": "asked what the artificial intelligence says of others",
        "odd_cue": "asked what the artificial intelligence looks at",
    },
    "de": {
        "clustering": "Sie werden gebeten, sie in Gruppen zu ordnen",
        "forward_simulation": "Sie werden gefragt, was die künstliche Intelligenz zu anderen sagt",
        "odd_cue": "Sie werden gefragt, worauf die künstliche Intelligenz achtet",
    },
}
"""What the consent text says that participants do, by language and task."""


def default_consent(task: str = "clustering", language: str = REFERENCE) -> str:
    """A consent text with blanks, in Markdown, that says what is done in a task.

    It is in English for a language that has none of ours.
    """
    known = language if is_shipped(language) else REFERENCE
    text = (_OURS / f"consent_{known}.md").read_text("utf-8")
    return text.replace(ASKED[known]["clustering"], ASKED[known][task])


def read_texts(folder: Path, language: str, task: str = "clustering") -> dict[str, Any]:
    """Texts of a study's language; what a file of an earlier version lacks is ours.

    Raises:
        DataError: the file is missing or broken, or a text is of the wrong kind; the message names
            it.
    """
    texts: dict[str, Any] = {}
    for part in text_tasks(task):
        path, ours = folder / TEXTS / text_file(language, part), default_texts(REFERENCE, part)
        if not path.exists():
            english = text_file(REFERENCE, part)
            raise DataError(f"{path} is missing: copy {TEXTS}/{english} there and translate it")
        found, expected = read(path, yaml.safe_load), yaml.safe_load(ours)
        if is_shipped(language):
            found = _filled(found, yaml.safe_load(default_texts(language, part)))
        found = _with_english(found, expected, path)
        problem = _difference(found, expected, "")
        if problem:
            raise DataError(f"{path}: {problem}")
        texts = _merged(texts, found)
    return texts


def _merged(first: Any, second: Any) -> Any:
    """Texts of both; those of the second take the place of those of the first."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return {**first, **{name: _merged(first.get(name), text) for name, text in second.items()}}


def _filled(found: Any, ours: Any) -> Any:
    """Texts with those of ours that are not there."""
    if not (isinstance(found, dict) and isinstance(ours, dict)):
        return found
    return {name: _filled(found.get(name, text), text) for name, text in ours.items()}


_ADMIN = "admin"
"""Part of a language file that the researcher alone reads."""


def _with_english(found: Any, english: Any, path: Path) -> Any:
    """Texts with English ones where a translation has none, so that an update stops no study.

    A warning names those that participants read.
    """
    missing = list(_missing(found, english, ""))
    read_by_all = [name for name in missing if name.split(".")[0] != _ADMIN]
    if read_by_all:
        warnings.warn(
            f"{path} lacks {', '.join(read_by_all)}: participants read them in English until you "
            "translate them there",
            XNNWarning,
            stacklevel=3,
        )
    return _filled(found, english) if missing else found


def _missing(found: Any, expected: Any, place: str) -> Iterator[str]:
    """Names of the texts that a language file lacks, each with those above it."""
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return
    for key, value in expected.items():
        where = f"{place}.{key}" if place else str(key)
        if key in found:
            yield from _missing(found[key], value, where)
        else:
            yield where


def _difference(found: Any, expected: Any, place: str) -> str | None:
    """What a language file lacks, compared with the English one; None for nothing."""
    name = place or "the file"
    inner: Iterable[tuple[Any, Any]]
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return f"{name} must hold {', '.join(map(str, expected))}"
        inner = expected.items()
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return f"{name} must be a list of {len(expected)}"
        inner = enumerate(expected)
    else:
        return None if isinstance(found, type(expected)) else f"{name} must be a text"
    for key, value in inner:
        if isinstance(found, dict) and key not in found:
            return f"{place}.{key} is missing"
        problem = _difference(found[key], value, f"{place}.{key}" if place else str(key))
        if problem:
            return problem
    return None


def read_consent(folder: Path) -> str:
    """The researcher's consent text, in Markdown.

    Raises:
        DataError: the file is missing or empty.
    """
    path = folder / CONSENT
    text: str = read(path)
    if not text.strip():
        raise DataError(f"{path} is empty: participants must be told what they agree to")
    return text


def render_consent(text: str) -> str:
    """A consent text as HTML; HTML in the text itself is shown, not obeyed."""
    return str(MarkdownIt("commonmark", {"html": False}).render(text))


MINUTES = "{minutes}"
"""Stands in a consent text for how long a study takes."""


def says_minutes(text: str, minutes: int) -> bool:
    """Whether a consent text names the time that the other pages name."""
    return MINUTES in text or re.search(rf"\b{minutes}\b", text) is not None


_BLANK = re.compile(r"(?<![\\\]])\[([^\[\]]*)\](?![(\[:])")


def find_blanks(text: str) -> list[str]:
    """What nobody has filled in of a consent text: words in [brackets] that are no links.

    A bracket that is to stay is written as Markdown has it, with a backslash before it.
    """
    return [" ".join(found.split()) for found in _BLANK.findall(text)]
