"""The summands of a logit, and the reasons that sentences make of them.

A contribution of one x-feature is a `Summand`. X-features that are alike are one `Reason`, however
many they are: their contributions of one sign are added up and named together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torchxnn.explanations.drawing.overlay import signed

NOTABLE_SHARE = 0.05
"""Of the sum of |contribution|: below it a reason is not named but one of the weaker ones."""

SELDOM = 0.5
"""An x-feature that fewer resamplings of the images find again is named with that share."""

_UNNAMED = re.compile(r"(.*\b|)x-feature (\d+)", re.DOTALL)
"""An x-feature without a name of its own: what stands before, and its number."""

Of = Literal["first", "second"]


@dataclass(frozen=True)
class Summand:
    """What one x-feature adds to a logit, or to the difference of two.

    Attributes:
        name: Name of the x-feature.
        value: The contribution, in logits; in a difference with the sign that it has there.
        share: |value| divided by the sum of |value| over all summands, a fraction.
        feature: 0-based x-feature of its XNN.
        of: In a difference, which class's XNN it belongs to.
    """

    name: str
    value: float
    share: float
    feature: int
    of: Of = "first"


@dataclass(frozen=True)
class Traits:
    """What is known of the x-features of one XNN beside their contributions.

    Attributes:
        groups: of each x-feature; those of one number are alike. Empty: none are.
        here: groups that are alike by what is drawn on this input, not by the class's images alone.
        class_mean: mean contribution of each on the class's images, where typical other images get
            0; empty where nobody knows.
        found_again: share of resamplings that find each again; empty where nobody knows.
    """

    groups: tuple[int, ...] = ()
    here: frozenset[int] = frozenset()
    class_mean: tuple[float, ...] = ()
    found_again: tuple[float, ...] = ()

    def group(self, feature: int) -> int:
        """The number of an x-feature's group."""
        return self.groups[feature] if self.groups else feature


UNKNOWN = Traits()


@dataclass(frozen=True)
class Reason:
    """Summands of one sign that are alike and so count as one; mostly there is one of them.

    Attributes:
        members: by falling size.
        others: names of those that are like them and have the other sign.
        here: whether they are alike by what is drawn on this input.
        on_class: mean sum of their contributions on the class; None if nobody knows.
        found_again: of each member; empty where nobody knows.
    """

    members: tuple[Summand, ...]
    others: tuple[str, ...] = ()
    here: bool = False
    on_class: float | None = None
    found_again: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """What they add to the logit together."""
        return sum(one.value for one in self.members)

    @property
    def share(self) -> float:
        """Their part of the sum of |value| over all summands."""
        return sum(one.share for one in self.members)

    @property
    def of(self) -> Of:
        """In a difference, which class's XNN they belong to."""
        return self.members[0].of

    @property
    def is_notable(self) -> bool:
        """Whether it is large enough to be named."""
        return self.value != 0 and self.share >= NOTABLE_SHARE

    @property
    def is_of_class(self) -> bool:
        """Whether it is larger on the class than on typical other images, as far as known."""
        return self.on_class is None or self.on_class > 0

    def text(self, opposed: bool = False) -> str:
        """Names, signed contribution and share, as in: "red forehead (+15.2, 19%)".

        Or: "x-features 1 and 3, which are alike here (+12.0, 60%)"; behind the share how seldom any
        of them is found again. If `opposed`, also which x-features of the other sign they are like.
        """
        return f"{self.words(opposed)} ({signed(self.value)}, {self._part()})"

    def figures(self) -> str:
        """The same with the figures alone behind the names, as in: "red forehead +15.2 (19%)"."""
        return f"{joined([one.name for one in self.members])} {signed(self.value)} ({self._part()})"

    def _part(self) -> str:
        """Its share, and how seldom any of its members is found again."""
        part = f"{self.share:.0%}"
        if any(share < SELDOM for share in self.found_again):
            shares = listed([f"{share:.0%}" for share in self.found_again])
            part += f"; found again in {shares} of resamplings"
        return part

    def words(self, opposed: bool = False) -> str:
        """Names, and which others they are like, without figures."""
        likeness = ["alike"] if len(self.members) > 1 else []
        if opposed and self.others:
            likeness.append(f"like {joined(self.others)}")
        where = " here" if self.here else ""
        verb = plural([self], "is", "are")
        said = f", which {verb} {' and '.join(likeness)}{where}" if likeness else ""
        return f"{joined([one.name for one in self.members])}{said}"


def owned(names: Sequence[str], others: Sequence[str], owner: str) -> tuple[str, ...]:
    """Names that tell whose x-feature each is, as in "bathroom's x-feature 2".

    An x-feature that somebody named keeps its name, unless `others`, those of another XNN, has the
    same one.
    """
    return tuple(
        f"{owner}'s {name}" if name in others or _UNNAMED.fullmatch(name) else name
        for name in names
    )


def plural(reasons: Sequence[Reason], one: str, several: str) -> str:
    """The word that goes with these reasons as its subject."""
    return one if sum(len(each.members) for each in reasons) == 1 else several


def summands_of(names: Sequence[str], values: Sequence[float], of: Of = "first") -> list[Summand]:
    """The summands of one XNN, in its order and without their shares."""
    pairs = enumerate(zip(names, values, strict=True))
    return [Summand(name, value, 0.0, feature, of) for feature, (name, value) in pairs]


def shared(summands: Sequence[Summand]) -> tuple[Summand, ...]:
    """The same with their shares, by falling size; those of equal size keep their order."""
    total = sum(abs(one.value) for one in summands) or 1.0
    found = [replace(one, share=abs(one.value) / total) for one in summands]
    return tuple(sorted(found, key=lambda one: -abs(one.value)))


def put_together(summands: Sequence[Summand], traits: Mapping[Of, Traits]) -> tuple[Reason, ...]:
    """Make one reason of those that are alike and have one sign, by falling size.

    Summands of 0 say nothing and are left out.

    Args:
        summands: with their shares, by falling size.
        traits: of the XNNs that they belong to.
    """
    groups: dict[tuple[Of, int, bool], list[Summand]] = {}
    for one in summands:
        if one.value:
            key = one.of, traits[one.of].group(one.feature), one.value > 0
            groups.setdefault(key, []).append(one)
    reasons = []
    for (of, group, positive), members in groups.items():
        known, features = traits[of], [one.feature for one in members]
        opposed = groups.get((of, group, not positive), [])
        reasons.append(
            Reason(
                tuple(members),
                tuple(one.name for one in opposed),
                group in known.here,
                sum(known.class_mean[i] for i in features) if known.class_mean else None,
                tuple(known.found_again[i] for i in features) if known.found_again else (),
            )
        )
    return tuple(sorted(reasons, key=lambda reason: -abs(reason.value)))


def weaker(reasons: Sequence[Reason]) -> float | None:
    """Sum of those that are not notable; None if every one of them is exactly 0."""
    others = [one.value for one in reasons if not one.is_notable]
    return sum(others) if others else None


def joined(names: Sequence[str]) -> str:
    """Several x-features as one subject: "x-features 1 and 3", "wing and x-feature 3".

    What stands before all of them is said once, as in "bathroom's x-features 1 and 3".
    """
    found = [_UNNAMED.fullmatch(name) for name in names]
    parts = [match.groups() for match in found if match]
    if len(names) < 2 or len(parts) < len(names) or len({before for before, _ in parts}) > 1:
        return listed(names)
    return f"{parts[0][0]}x-features {listed([number for _, number in parts])}"


def listed(texts: Sequence[str]) -> str:
    """Join texts as in: C; C and D; C, D and E."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
