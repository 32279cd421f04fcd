"""Texts of people: how names and people are checked and compared, and how a name is shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from torchxnn.errors import DataError

OPENING, CLOSING = "\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"
OF_A_RULE = (
    "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
    "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
)
_QUOTATION_MARKS = f'{OPENING}{CLOSING}{"".join(OF_A_RULE)}\N{DOUBLE LOW-9 QUOTATION MARK}"'

NAMES = "Names"
"""The term under which pages say which names are one person's, or a rule's."""


def normalised(name: str) -> str:
    """A name as it is compared: case, spaces, hyphens and underscores make no difference."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(re.sub(r"[-_\u2010-\u2015]", " ", text).split()).strip(
        f" .,;:!'{_QUOTATION_MARKS}"
    )


def same_person(who: str) -> str:
    """A person's name as it is compared: "Ada", "ada" and "ADA " are one person.

    Characters that are not seen, such as a space without width, make no difference.
    """
    seen = "".join(c for c in who if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", seen).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def words_of_one(name: str) -> str:
    """A name as it is shown while one person alone has given it: in quotation marks."""
    return f"{OPENING}{bare(name)}{CLOSING}"


def words_of_a_rule(name: str) -> str:
    """A name as it is shown while a rule has given it, as an example, and no person has judged."""
    return f"{OF_A_RULE[0]}{bare(name)}{OF_A_RULE[1]}"


def bare(name: str) -> str:
    """A name without quotation marks around it; these say that it is one person's."""
    return name.strip(_QUOTATION_MARKS).strip() or name


def names_fact(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Which of the labels that x-features are shown by nobody agreed on, as (term, text).

    Empty if none is. As in: "in quotation marks is what one person calls it, which nobody else has
    confirmed: “golden feather”", or "named by a rule, as an example; no person looked: ‹dark
    cell›".
    """
    said = {
        (OPENING, CLOSING): "in quotation marks is what one person calls it, which nobody else has "
        "confirmed: ",
        OF_A_RULE: "named by a rule, as an example; no person looked: ",
    }
    texts = []
    for (opening, closing), text in said.items():
        found = [label for label in labels if label.startswith(opening) and closing in label]
        texts += [text + ", ".join(found)] if found else []
    return ((NAMES, "; ".join(texts)),) if texts else ()


def utc(when: datetime | None = None) -> str:
    """A time, by default now, as ISO 8601 in UTC with microseconds; such texts sort by time."""
    return (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def check_time(when: str) -> str:
    """A time in that form; now if there is none.

    Raises:
        DataError: it is not ISO 8601.
    """
    if not when:
        return utc()
    try:
        return utc(datetime.fromisoformat(when))
    except (TypeError, ValueError) as error:
        raise DataError(f"a time is ISO 8601, such as {utc()}, got {when!r}") from error


def check_line(text: str, what: str, longest: int) -> str:
    """A text of one line with single spaces.

    Raises:
        DataError: it is too long, or has several lines.
    """
    if not isinstance(text, str):
        raise DataError(f"a {what} is a text, got {text!r}")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in " \t" for c in text):
        raise DataError(f"a {what} is one line without control characters, got {text!r}")
    text = " ".join(text.split())
    if len(text) > longest:
        raise DataError(f"a {what} has at most {longest} characters, got {len(text)}")
    return text


def check_note(text: str, longest: int) -> str:
    """A text of any lines, without control characters.

    Raises:
        DataError: it is too long.
    """
    if not isinstance(text, str):
        raise DataError(f"a note is a text, got {text!r}")
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    if len(text) > longest:
        raise DataError(f"a note has at most {longest} characters, got {len(text)}")
    return text.strip()
