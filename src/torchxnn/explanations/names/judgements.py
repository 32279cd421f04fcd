"""Names that people give to x-features: every judgement is kept, and a rule settles the name.

Nothing is ever overwritten: judgements, merges and splits are records of who said what and when,
and the names follow from replaying them. So two collections of records are put together by taking
their union, in whatever order people worked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

from torchxnn.errors import DataError
from torchxnn.explanations.names.records import (
    ANONYMOUS,
    BY_RULE,
    Action,
    Flag,
    Judgement,
    in_order,
)
from torchxnn.explanations.names.texts import (
    bare,
    normalised,
    same_person,
    utc,
    words_of_a_rule,
    words_of_one,
)

Status = Literal["", "by rule", "one person", "agreed"]
"""Who stands behind the name that an x-feature is shown by: nobody, a rule, one person, or more."""


@dataclass(frozen=True)
class Settled:
    """What people say about one x-feature, and whether they agree.

    Attributes:
        feature: 0-based.
        name: the name that it is shown by; empty if there is none. `status` says whose it is.
        votes: how many people are for each name, by decreasing number; names that were merged are
            counted together. People who could not name it are counted under "".
        people: how many judged; a rule is none.
        flags: how many people said "mixed" and "unclear".
        disagreement: whether names were given and none is agreed on.
        by_rule: whether nobody judged but a rule (`BY_RULE`), which is no person.
    """

    feature: int
    name: str
    votes: tuple[tuple[str, int], ...]
    people: int
    flags: tuple[tuple[str, int], ...]
    disagreement: bool
    by_rule: bool = False

    @property
    def agreeing(self) -> int:
        """How many people gave that name."""
        return dict(self.votes)[self.name] if self.name and not self.by_rule else 0

    @property
    def status(self) -> Status:
        """Whose name it is: one alone cannot agree with anybody."""
        if not self.name:
            return ""
        if self.by_rule:
            return "by rule"
        return "agreed" if self.agreeing > 1 else "one person"

    @property
    def said_by(self) -> str:
        """Whose name it is in words, as in "2 of 3 people"."""
        if self.status == "by rule":
            return "a rule, as an example; no person"
        if self.status == "one person":
            return "one person alone"
        if self.status == "agreed":
            return f"{self.agreeing} of {self.people} people"
        if not self.people:
            return "nobody"
        if self.people == 1:
            return "one person could not name it"
        return f"{self.people} people do not agree" if self.disagreement else "nobody could name it"

    @property
    def flag(self) -> Flag:
        """What more than half of the people flagged it as, else empty."""
        kinds: tuple[Flag, ...] = ("mixed", "unclear")
        return next((flag for flag in kinds if 2 * dict(self.flags)[flag] > self.people), "")


@dataclass(frozen=True)
class FeatureNames:
    """All judgements about the x-features of one XNN, and the names that follow from them.

    The last judgement of each person counts. An x-feature has a name when more than half of the
    people who judged it gave that name; case, spaces, hyphens and underscores make no difference.
    People who could not name it count too. Otherwise the x-feature stays without a name and is
    listed in `disagreements`, until more people judge it or somebody merges names that mean the
    same. A name is agreed on if at least two people gave it; that of one person is shown in
    quotation marks, that of a rule in single angle ones.

    Attributes:
        n_features: number of x-features, n.
        judgements: of all people, oldest first.
        actions: merges and splits, oldest first.

    Raises:
        DataError: a record about an x-feature that is not there.

    Example:
        >>> names = FeatureNames(5).judge(0, "golden feather", who="Ada")
        >>> names.shown()[0], names.agreed(0)
        ('“golden feather”', '')
        >>> names.judge(0, "Golden feather", who="Bo").agreed(0)
        'golden feather'
    """

    n_features: int
    judgements: tuple[Judgement, ...] = ()
    actions: tuple[Action, ...] = ()

    def __post_init__(self) -> None:
        features = [j.feature for j in self.judgements] + [a.feature for a in self.actions]
        last = max(features, default=-1)
        if last >= self.n_features:
            raise DataError(
                f"no x-feature {last}: there are {self.n_features}, so 0 to {self.n_features - 1}"
            )
        object.__setattr__(self, "judgements", in_order(self.judgements))
        object.__setattr__(self, "actions", in_order(self.actions))

    def judge(
        self,
        feature: int,
        name: str,
        *,
        who: str = ANONYMOUS,
        note: str = "",
        flag: Flag = "",
        when: str = "",
    ) -> FeatureNames:
        """With one more judgement; see `Judgement`."""
        return self._with(Judgement(feature, name, note, flag, who, when or self._next_time()))

    def merge(
        self, feature: int, names: Iterable[str], into: str, *, who: str = ANONYMOUS, when: str = ""
    ) -> FeatureNames:
        """With the statement that these names of an x-feature mean the same, and go by `into`."""
        when = when or self._next_time()
        return self._with(Action("merge", feature, tuple(names), into, who, when))

    def split(
        self, feature: int, name: str, *, who: str = ANONYMOUS, when: str = ""
    ) -> FeatureNames:
        """With the merges undone that a name of an x-feature is part of."""
        return self._with(Action("split", feature, (name,), "", who, when or self._next_time()))

    def union(self, other: FeatureNames) -> FeatureNames:
        """The records of both; the order does not matter, and records in both count once.

        Raises:
            DataError: another number of x-features.
        """
        if other.n_features != self.n_features:
            raise DataError(
                f"names of {self.n_features} and of {other.n_features} x-features belong to "
                "different XNNs; `XNN.adopt_names` carries names over to a refitted one"
            )
        return replace(
            self,
            judgements=self.judgements + other.judgements,
            actions=self.actions + other.actions,
        )

    def latest(self, feature: int) -> dict[str, Judgement]:
        """The judgement that counts of each person, by person; those taken back are left out.

        A name `BY_RULE` counts until a person has judged.
        """
        last = {self.person(j.who): j for j in self.judgements if j.feature == feature}
        valid = {who: j for who, j in last.items() if j.name or j.flag}
        people = {who: j for who, j in valid.items() if who != BY_RULE}
        return people or valid

    def person(self, who: str) -> str:
        """A person as they first wrote their name here; `who` if they are new."""
        return self._people.get(same_person(who), who)

    def settled(self, feature: int) -> Settled:
        """What people agree on about an x-feature, and how they voted."""
        return self._settled[feature]

    def agreed(self, feature: int) -> str:
        """The name of an x-feature that at least two people agree on, or an empty text."""
        settled = self._settled[feature]
        return settled.name if settled.status == "agreed" else ""

    def name(self, feature: int) -> str:
        """The name that an x-feature is shown by, one person's or agreed on, or an empty text."""
        return self._settled[feature].name

    @property
    def disagreements(self) -> tuple[int, ...]:
        """0-based x-features that were named, but without agreement."""
        return tuple(s.feature for s in self._settled if s.disagreement)

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody whose judgement counts, by name; a rule is nobody."""
        found = {who for i in range(self.n_features) for who in self.latest(i)}
        return tuple(sorted(found - {BY_RULE}))

    def shown(self) -> tuple[str, ...]:
        """A label for every x-feature: its name, or "x-feature 3" (counted from 1).

        What one person alone calls it stands in quotation marks: “golden feather”; what a rule
        calls it, as an example, in single angle ones: ‹dark cell›. Where several
        x-features have the same name, each carries its number: "wing bar #2".
        """
        often = Counter(normalised(settled.name) for settled in self._settled if settled.name)
        return tuple(self._label(settled, often) for settled in self._settled)

    @staticmethod
    def _label(settled: Settled, often: Mapping[str, int]) -> str:
        number = settled.feature + 1
        if not settled.name:
            return f"x-feature {number}"
        words = {"one person": words_of_one, "by rule": words_of_a_rule}
        label = words.get(settled.status, bare)(settled.name)
        return f"{label} #{number}" if often[normalised(settled.name)] > 1 else label

    def opinions(self) -> tuple[tuple[str | None, ...], ...]:
        """Per x-feature and person of `people` the name given, normalised and merged.

        None where a person said nothing; "" where the person could not name it. This is what
        `metrics.krippendorff_alpha` takes.
        """
        rows = []
        for feature in range(self.n_features):
            synonyms, latest = self._synonyms(feature), self.latest(feature)
            said = {who: _canonical(one.name, synonyms) for who, one in latest.items()}
            rows.append(tuple(map(said.get, self.people)))
        return tuple(rows)

    @cached_property
    def _people(self) -> dict[str, str]:
        """How each person is compared -> how they first wrote their name."""
        written = [*((j.when, j.who) for j in self.judgements)]
        return {same_person(who): who for _, who in sorted(written, reverse=True)}

    @cached_property
    def _settled(self) -> tuple[Settled, ...]:
        return tuple(self._settle(feature) for feature in range(self.n_features))

    def _settle(self, feature: int) -> Settled:
        synonyms, latest = self._synonyms(feature), self.latest(feature)
        spelled: dict[str, Counter[str]] = {}
        for judgement in sorted(latest.values(), key=lambda each: each.when):
            key = _canonical(judgement.name, synonyms)
            spelled.setdefault(key, Counter())[judgement.name] += 1
        shown = {
            key: synonyms.get(key, spellings.most_common(1)[0][0])
            for key, spellings in spelled.items()
        }
        counted = Counter({shown[key]: spellings.total() for key, spellings in spelled.items()})
        votes, voters = tuple(counted.most_common()), len(latest)
        name = next((name for name, count in votes if name and 2 * count > voters), "")
        by_rule = set(latest) == {BY_RULE}
        flags = Counter(judgement.flag for judgement in latest.values())
        return Settled(
            feature=feature,
            name=name,
            votes=votes,
            people=0 if by_rule else voters,
            flags=tuple((flag, flags[flag]) for flag in ("mixed", "unclear")),
            disagreement=not name and any(text for text, _ in votes),
            by_rule=by_rule,
        )

    def _synonyms(self, feature: int) -> dict[str, str]:
        """Normalised spelling -> what it goes by, after all merges and splits in their order."""
        found: dict[str, str] = {}
        for action in self.actions:
            if action.feature != feature:
                continue
            keys = {normalised(name) for name in action.names}
            groups = {normalised(found[key]) for key in keys if key in found}
            members = {k for k, into in found.items() if normalised(into) in groups}
            if action.kind == "split":
                found = {k: into for k, into in found.items() if k not in members}
            else:
                touched = keys | members | {normalised(action.into)}
                found |= dict.fromkeys(touched, action.into)
        return found

    def _with(self, record: Judgement | Action) -> FeatureNames:
        if isinstance(record, Judgement):
            return replace(self, judgements=(*self.judgements, record))
        return replace(self, actions=(*self.actions, record))

    def _next_time(self) -> str:
        """Now, but after everything that is recorded, whatever the clocks say."""
        last = max([j.when for j in self.judgements] + [a.when for a in self.actions], default="")
        if not last:
            return utc()
        return max(utc(), utc(datetime.fromisoformat(last) + timedelta(microseconds=1)))


def _canonical(name: str, synonyms: Mapping[str, str]) -> str:
    key = normalised(name)
    return normalised(synonyms.get(key, key))
