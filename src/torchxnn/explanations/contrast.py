"""Why one class rather than another: two explanations of one input, set against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from torchxnn.data.class_names import spoken
from torchxnn.errors import DataError
from torchxnn.explanations.base import Reasons
from torchxnn.explanations.card import Card, Evidence, Panel, Row, weakness
from torchxnn.explanations.drawing.html import (
    FIGURES,
    FIGURES_OF_VALUES,
    card_fragment,
    render_card,
)
from torchxnn.explanations.drawing.overlay import Scale, number, signed
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.saved_result import SavedResult
from torchxnn.explanations.sentences import NOT_ANCHORED, no_larger, noun
from torchxnn.explanations.summands import (
    Reason,
    Summand,
    listed,
    owned,
    plural,
    put_together,
    shared,
    summands_of,
    weaker,
)
from torchxnn.explanations.text_table import ListExplanation, TableExplanation, TextExplanation
from torchxnn.explanations.volume import VolumeExplanation
from torchxnn.models.config import OutputKind
from torchxnn.storage.artifact import Format

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchxnn.explanations.drawing.form import PaperColumns, Style

PANELS = 7  # x-features that the figure shows
_BOTH = "first", "second"  # folders of the two explanations
_KINDS = {
    kind.format.name: kind
    for kind in (Explanation, VolumeExplanation, TextExplanation, TableExplanation)
}


@final
@dataclass(frozen=True, repr=False)
class Contrast(SavedResult):
    r"""The difference of two logits of one input, as a sum over the x-features of both classes.

    .. math:: y_a-y_b=\sum_i c^a_i-\sum_j c^b_j+(b_a-b_b)+(u_a-u_b)

    with what typical other images get, the intercepts b, and the unexplained rests
    :math:`u=y-\hat y`. The values of `summands`, `intercept` and `unexplained` add up to
    `difference`. The first class has the larger logit.

    Attributes:
        first: name of class a.
        second: name of class b.
        predicted: name of the class that the network predicts.
        outputs_are: see `Meaning`; labels and values do not exclude each other.
        logits: the network's own, of the two.
        difference: the first minus the second; never negative.
        summands: x-features of both by falling size; those of the second class with the opposite
            sign.
        intercept: difference of the intercepts.
        unexplained: difference of the unexplained rests.
        declined: why no reasons are given; empty if they are.
        explanations: the two that it is made of, and their target's position in them; folders of
            their own, `first` and `second`, where a contrast is saved.
    """

    stem = "contrast"
    format = Format("torchxnn.contrast", 1, "a saved contrast")
    first: str
    second: str
    predicted: str
    logits: tuple[float, float]
    difference: float
    summands: tuple[Summand, ...]
    intercept: float
    unexplained: float
    declined: str
    explanations: tuple[tuple[Reasons, int], tuple[Reasons, int]] = field(repr=False, compare=False)
    outputs_are: OutputKind = "classes"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.sentence()}>"

    def sentence(self) -> str:
        """Say why the first class rather than the second, or why that is not said.

        As in: "A European Goldfinch rather than an American Goldfinch: golden feather speaks for a
        European Goldfinch. The other way, black cap speaks for an American Goldfinch. In logits:
        golden feather +6.31 (60%), black cap −1.20 (11%), what typical other images get +0.05, what
        remains unexplained +0.04; together 5.20." The numbers add up to the difference; shares are
        of the sum of |value|, and below 5% an x-feature is one of the weaker ones. X-features of
        one class that are alike are one reason, and one of the first class that is no larger on it
        than elsewhere is none. Those without a name of their own are called by their class, as in
        "European Goldfinch's x-feature 2".
        """
        start = self._start()
        if self.declined:
            return f"{start}, but these x-features cannot say why: {self.declined}."
        first, second = noun(self.first), noun(self.second)
        found = self._reasons()
        notable = [each for each in found if each.is_notable]
        elsewhere = [each for each in notable if _is_no_reason(each)]
        pros = [each for each in notable if each.value > 0 and each not in elsewhere]
        contras = [each for each in notable if each.value < 0]
        pro = _said(pros, {"first": f"for {first}", "second": f"against {second}"})
        contra = _said(contras, {"second": f"for {second}", "first": f"against {first}"})
        texts = [f"{start}: {pro}." if pro else f"{start}, but no x-feature says why."]
        if contra:
            texts.append(f"The other way, {contra}.")
        if elsewhere:
            does, names = _speaks(elsewhere), [each.words() for each in elsewhere]
            clause = no_larger(elsewhere, names, f"{does} for {first}")
            texts.append(f"Besides, {clause}.")
        return " ".join([*texts, self._in_figures(found)])

    def _start(self) -> str:
        """Which of the two it is, as far as the outputs exclude each other."""
        first, second = noun(self.first), noun(self.second)
        start = f"{first} rather than {second}"
        if self.outputs_are == "labels":
            start = f"the logit of {first} is larger than that of {second}"
        elif self.outputs_are == "value":
            start = f"the value of {self.first} is larger than that of {self.second}"
        elif self.predicted not in (self.first, self.second):
            start = f"the network sees {noun(self.predicted)}; of the two, {start}"
        return start[0].upper() + start[1:]

    def _in_figures(self, found: Sequence[Reason]) -> str:
        """The summands in figures, which add up to the difference."""
        terms = [each.figures() for each in found if each.is_notable]
        what = f"what {self._typical} get" if self._typical else "the intercepts"
        terms.append(f"{what} {signed(self.intercept)}")
        others = weaker(found)
        if others is not None:
            terms.append(f"weaker x-features {signed(others)}")
        terms.append(f"what remains unexplained {signed(self.unexplained)}")
        begin = FIGURES_OF_VALUES if self.outputs_are == "value" else FIGURES
        return f"{begin} {', '.join(terms)}; together {number(self.difference)}."

    def card(self, scale: Scale = "each") -> Card:
        """Put the contrast into words and order: A is the first class, B the second.

        Args:
            scale: As in `Reasons.card`.
        """
        (a, k), (b, m) = self.explanations
        relevance = {"first": a.relevance()[0], "second": b.relevance()[0]}
        active = [one for one in self.summands if one.value]
        drawn = [relevance[one.of][one.feature] for one in active[:PANELS] or self.summands[:1]]
        panels = [
            self._panel(one, evidence)
            for one, evidence in zip(active, a.evidence(torch.stack(drawn), scale), strict=False)
        ]
        (difference,) = a.evidence((a.relevance()[1][k] - b.relevance()[1][m]).unsqueeze(0))
        left_out = len(active) - len(panels)
        more = f" {left_out} smaller x-feature(s) are not drawn." if left_out else ""
        return Card(
            sentence=self.sentence(),
            facts=self._facts(),
            rows=(self._row(),),
            panels=tuple(panels),
            logit_panels=(Panel("A minus B", difference),),
            certificate=tuple(
                f"{letter}: {line}"
                for letter, (each, _) in zip("AB", self.explanations, strict=True)
                for line in each.certificate_lines()
            ),
            warnings=self._warnings(),
            caption="Values are contributions to the logit of A minus that of B; A minus B is the "
            f"difference of the two logits, and of what draws them.{more} {a.caption(scale)}",
        )

    def plot(
        self, scale: Scale = "each", style: Style = "screen", columns: PaperColumns = 1
    ) -> Figure:
        """Draw the largest summands and the difference of the logits; see `Reasons.plot`."""
        from torchxnn.explanations.drawing.figure import draw_card

        return draw_card(self.card(scale), style, columns)

    def _page(self) -> bytes:
        return render_card(self.card())

    def _repr_html_(self) -> str:
        return card_fragment(self.card())

    def _write(self, folder: Path) -> tuple[dict[str, Any], bytes, Figure]:
        for name, (explanation, _) in zip(_BOTH, self.explanations, strict=True):
            explanation.save(folder / name)
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "explanations"}
        record = {
            "sentence": self.sentence(),
            **values,
            "explanations": self.explanations[0][0].format.name,
            "positions": [index for _, index in self.explanations],
        }
        return record, self._page(), self.plot()

    @classmethod
    def _read(cls, folder: Path, record: dict[str, Any]) -> Contrast:
        if "explanations" not in record:
            raise DataError(
                f"the contrast in {folder} was saved without its explanations; make it anew with "
                "`contrast`"
            )
        kind = _KINDS[record["explanations"]]
        first, second = (kind.load(folder / name) for name in _BOTH)
        return contrast(first, second, *record["positions"])

    def _reasons(self) -> tuple[Reason, ...]:
        """The summands of both, those of one class that are alike together."""
        (a, k), (b, m) = self.explanations
        return put_together(self.summands, {"first": a.traits(k), "second": b.traits(m)})

    def _panel(self, one: Summand, evidence: Evidence) -> Panel:
        explanation, index = self.explanations[_BOTH.index(one.of)]
        letter = "AB"[_BOTH.index(one.of)]
        return Panel(
            f"{letter}: {explanation.reason_names[one.feature]}",
            evidence,
            (one.value,),
            details=explanation.details(one.feature, index),
            like=explanation.like(one.feature, index),
            weak=weakness(explanation.mass(one.feature)),
        )

    def _facts(self) -> tuple[tuple[str, str], ...]:
        """What both explanations share, and by letter what is known of either's x-features."""
        (a, _), (b, _) = self.explanations
        both = [fact for fact in a.facts() if fact in b.facts()]
        own = [
            (f"{term} of {letter}", text)
            for letter, explanation in (("A", a), ("B", b))
            for term, text in explanation.facts()
            if (term, text) not in both
        ]
        return (("A", spoken(self.first)), ("B", spoken(self.second)), *both, *own)

    @property
    def _typical(self) -> str | None:
        """What gets the two intercepts, "typical other images"; None if nobody knows."""
        anchored = all(explanation.anchored for explanation, _ in self.explanations)
        return f"typical other {self.explanations[0][0].unit}s" if anchored else None

    def _warnings(self) -> tuple[str, ...]:
        found = [self.declined] if self.declined else []
        return tuple(found if self._typical else [*found, NOT_ANCHORED])

    def _row(self) -> Row:
        explained = self.difference - self.unexplained
        constant = self._typical or "intercepts"
        equation = (
            f"Logit of A {number(self.logits[0])}, of B {number(self.logits[1])}: the network's "
            f"difference is {number(self.difference)}, the x-features and {constant} "
            f"({signed(self.intercept)}) reproduce {number(explained)}"
        )
        return Row("A minus B", self.difference, explained, self.intercept, constant, equation)


def _said(reasons: Sequence[Reason], relations: dict[str, str]) -> str:
    """Reasons of one sign, as in: "C and D speak for a bird, and E speaks against a dog"."""
    found = []
    for of, relation in relations.items():
        own = [one for one in reasons if one.of == of]
        if own:
            names = listed([one.words(opposed=one.value < 0) for one in own])
            comma = "," if ", which " in names else ""
            found.append(f"{names}{comma} {_speaks(own)} {relation}")
    return ", and ".join(found)


def _speaks(reasons: Sequence[Reason]) -> str:
    return plural(reasons, "speaks", "speak")


def _is_no_reason(reason: Reason) -> bool:
    """Whether it would speak for the first class but is no larger on it than elsewhere."""
    return reason.of == "first" and reason.value > 0 and not reason.is_of_class


def contrast(
    first: Reasons, second: Reasons, first_index: int = 0, second_index: int = 0
) -> Contrast:
    """Set two explanations of one input against each other, from two XNNs of one model.

    Args:
        first: The explanation of one class.
        second: The explanation of another class, of the same input; one XNN with several targets
            may have made both, so it may be `first` itself.
        first_index: Position of the class among the targets of `first`.
        second_index: Position of the class among the targets of `second`.

    Returns:
        The contrast of the class with the larger logit to the other.

    Raises:
        DataError: The explanations are of different inputs or models, or of the same class.

    Example:
        >>> contrast(goldfinch.explain(image), bunting.explain(image)).sentence()
    """
    _check(first, second, first_index, second_index)
    if float(second.logits[second_index]) > float(first.logits[first_index]):
        first, second, first_index, second_index = second, first, second_index, first_index
    a, b = first.account(first_index), second.account(second_index)
    own, other = first.contributions[first_index], -second.contributions[second_index]
    names, other_names = first.feature_names, second.feature_names
    if not _of_one_xnn(first, second):
        names = owned(first.feature_names, second.feature_names, spoken(a.target))
        other_names = owned(second.feature_names, first.feature_names, spoken(b.target))
    summands = [
        *summands_of(first.as_reasons(names), own.tolist(), "first"),
        *summands_of(second.as_reasons(other_names), other.tolist(), "second"),
    ]
    reasons = [(a.target, first.declined(first_index)), (b.target, second.declined(second_index))]
    refusals = [f"for {noun(name)}, {reason}" for name, reason in reasons if reason]
    return Contrast(
        first=a.target,
        second=b.target,
        predicted=a.predicted,
        logits=(a.logit, b.logit),
        difference=a.logit - b.logit,
        summands=shared(summands),
        intercept=a.intercept - b.intercept,
        unexplained=a.unexplained - b.unexplained,
        declined="; ".join(refusals),
        explanations=((first, first_index), (second, second_index)),
        outputs_are=first.outputs_are,
    )


def _of_one_xnn(first: Reasons, second: Reasons) -> bool:
    """Whether two explanations are about the same x-features, by what one input gives them."""
    return first.targets == second.targets and torch.equal(first.features, second.features)


def _check(first: Reasons, second: Reasons, first_index: int, second_index: int) -> None:
    if first.targets[first_index] == second.targets[second_index]:
        raise DataError(
            f"both explanations are about {first.target_names[first_index]}; a contrast needs two "
            "outputs"
        )
    same = type(first) is type(second)
    if isinstance(first, Explanation) and isinstance(second, Explanation):
        same = np.array_equal(first.image, second.image)
    if isinstance(first, VolumeExplanation) and isinstance(second, VolumeExplanation):
        same = np.array_equal(first.volume, second.volume)
    if isinstance(first, ListExplanation) and isinstance(second, ListExplanation):
        same = same and first.entries == second.entries
    same = same and first.outputs_are == second.outputs_are
    if first.outputs_are == "classes":  # else each names first what it explains
        same = same and first.predicted_class == second.predicted_class
    if not same:
        raise DataError(
            "the two explanations are of different inputs or of different models; explain the same "
            "input with both XNNs, and give both the same `preprocessing`, which draws the image"
        )
