"""Records of what people say about x-features: a judgement, a merge of spellings, a split."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from torchxnn.errors import DataError
from torchxnn.explanations.names.texts import (
    check_line,
    check_note,
    check_time,
    normalised,
    same_person,
)

Flag = Literal["", "mixed", "unclear"]
"""mixed: several things at once; unclear: nothing that a person can name."""

NAME_LENGTH, NOTE_LENGTH, WHO_LENGTH = 80, 2000, 80
ANONYMOUS = "anonymous"

BY_RULE = "torchxnn (example)"
"""Who gives names that no person gave: the demonstration, by rule."""


@dataclass(frozen=True)
class Judgement:
    """What one person says about one x-feature.

    Attributes:
        feature: 0-based x-feature.
        name: one line of at most 80 characters; empty where the person could not name it.
        note: anything else, at most 2,000 characters.
        flag: "mixed", "unclear" or empty. A name can be given all the same.
        who: the person; all nameless people count as one, and capitals make no difference.
        when: ISO 8601 in UTC; of several judgements of a person the last one counts.
        origin: where a judgement was carried over from by `XNN.adopt_names`, else empty.

    A judgement without name and flag takes back what the person said before.

    Raises:
        DataError: a text that is too long, a name of several lines, or one that looks like the
            number of an x-feature.
    """

    feature: int
    name: str
    note: str = ""
    flag: Flag = ""
    who: str = ANONYMOUS
    when: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        _settle_head(self)
        object.__setattr__(self, "name", check_line(self.name, "name", NAME_LENGTH))
        object.__setattr__(self, "note", check_note(self.note, NOTE_LENGTH))
        if self.flag not in get_args(Flag):
            raise DataError(f"flag is {self.flag!r}; it must be 'mixed', 'unclear' or ''")
        if re.fullmatch(r"x feature #?\d*", normalised(self.name)):
            raise DataError(
                f"{self.name!r} is what an x-feature without a name is called; give another name"
            )


@dataclass(frozen=True)
class Action:
    """A merge of spellings that mean the same, or a split that undoes merges.

    Attributes:
        kind: "merge" or "split".
        feature: 0-based x-feature that it is about.
        names: the spellings.
        into: what they go by after a merge; empty for a split.
        who: the person.
        when: ISO 8601 in UTC.

    Raises:
        DataError: no names, or a merge into nothing.
    """

    kind: Literal["merge", "split"]
    feature: int
    names: tuple[str, ...]
    into: str = ""
    who: str = ANONYMOUS
    when: str = ""

    def __post_init__(self) -> None:
        _settle_head(self)
        names = tuple(check_line(name, "name", NAME_LENGTH) for name in self.names)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "into", check_line(self.into, "name", NAME_LENGTH))
        if self.kind not in ("merge", "split"):
            raise DataError(f"kind is {self.kind!r}; it must be 'merge' or 'split'")
        if not names or not all(names) or (self.kind == "merge" and not self.into):
            raise DataError(f"a {self.kind} needs names, got {self.names!r} into {self.into!r}")


Record = TypeVar("Record", Judgement, Action)


def check_person(who: str) -> str:
    """The name that somebody gives themselves before they judge, with single spaces.

    Raises:
        DataError: no name of a person, or the one that names by rule are signed with: what is said
            under it counts only until a person has judged.
    """
    who = check_line(who, "person", WHO_LENGTH)
    if not same_person(who):
        raise DataError("the name of a person is empty; write yours")
    if same_person(who) == same_person(BY_RULE):
        raise DataError(f"{who!r} signs names that no person gave; write another name")
    return who


def in_order(records: Iterable[Record]) -> tuple[Record, ...]:
    """By time, each once; by content where times are equal, so that every union is the same."""
    return tuple(sorted(dict.fromkeys(records), key=lambda each: (each.when, repr(each))))


def _settle_head(record: Judgement | Action) -> None:
    """Check what every record has, and bring person and time into one form."""
    feature = record.feature
    if isinstance(feature, bool) or not isinstance(feature, int) or feature < 0:
        raise DataError(f"an x-feature is a number from 0, got {feature!r}")
    object.__setattr__(record, "who", check_line(record.who, "person", WHO_LENGTH) or ANONYMOUS)
    object.__setattr__(record, "when", check_time(record.when))
