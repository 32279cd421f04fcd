"""Synthetic participants whose effect is known: they are told the truth, and use it now and then.

From what a browser gets nobody can be right with a probability that was chosen, as the answers are
not sent. So these read the study's own file, and are right with the share that is set for their
stage: the analysis of what they did must find these shares again.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.errors import DataError

_CUE = re.compile(r'name="cue" value="(\d+)"[^>]*><span>([^<]*)</span>')


@dataclass(frozen=True)
class Known:
    """A study's truth, and how often its participants are right.

    Attributes:
        plan: of the study that is served.
        right: share of right answers by stage: of pictures whose answer is predicted, or that are
            placed knowingly in a clustering, of cues that are found. The others are guesses among
            the wrong ones; in a clustering among all groups.
    """

    plan: StudyPlan
    right: Mapping[str, float]

    def __post_init__(self) -> None:
        for stage, share in self.right.items():
            if not 0 <= share <= 1:
                raise DataError(f"the share right with {stage} must be from 0 to 1, got {share:g}")


class Knowing:
    """How one participant answers.

    Attributes:
        known: truth and shares.
    """

    def __init__(self, known: Known, generator: random.Random) -> None:
        self.known, self._random = known, generator
        self._truth = {
            image.id: (data, data.classes.index(image.predicted) + 1)
            for data in known.plan.data_sets
            for image in data.images
        }
        self._found = False
        self._right = ""

    def answers(self, content: Mapping[str, Any]) -> dict[str, int]:
        """An answer to each picture of a batch, by its id; with the odd cue those that are seen.

        Raises:
            DataError: the batch is of another study.
        """
        ids = [image["id"] for image in content["images"]]
        unknown = [each for each in ids if each not in self._truth]
        if unknown:
            raise DataError("the study that is served is not the one of --study")
        share = self.known.right[content["stage"]]
        if content["task"] == "odd_cue":
            return self._look(content, ids, share)
        between = self.known.plan.settings.between
        most = content["answers"] if between else content["groups"]
        return {each: self._answer(each, share, most, between) for each in ids}

    def _answer(self, image: str, share: float, most: int, between: bool) -> int:
        truth = self._truth[image][1]
        if self._random.random() < share:
            return truth
        others = [n for n in range(1, most + 1) if n != truth or not between]
        return self._random.choice(others)

    def _look(self, content: Mapping[str, Any], ids: list[str], share: float) -> dict[str, int]:
        """Pictures that are asked for: the cue is found at each with the same probability."""
        drawn = self._random.random()
        found = drawn < share
        seen = len(ids)
        if found and share < 1:
            at_each = math.log1p(-share) / len(ids)
            seen = min(seen, max(1, math.ceil(math.log1p(-drawn) / at_each)))
        elif found:
            seen = 1
        cue = self._truth[ids[0]][0].cue
        self._found, self._right = found, "" if cue is None else cue.right
        return dict.fromkeys(ids[:seen], 1)

    def cue(self, page: str) -> int:
        """The number of the cue that is chosen on the page after a batch.

        Raises:
            DataError: the right one is not among them.
        """
        options = {unescape(text): int(number) for number, text in _CUE.findall(page)}
        right = options.get(self._right)
        if right is None:
            raise DataError("the cues that are served are not those of --study")
        if self._found:
            return right
        return self._random.choice([number for number in options.values() if number != right])
