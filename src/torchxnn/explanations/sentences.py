r"""Explanations in words: "This is a B because of C (+63.1, 79%) and D (+15.2, 19%)".

Pure functions of numbers and names. Every sentence accounts for the whole logit y of a class k:
:math:`y_k=\sum_i c_{ki}+b_k+u_k`, with what a typical other image gets, :math:`b_k`, the
contributions :math:`c_{ki}`, which count from there, and what the x-features leave unexplained,
:math:`u_k=y_k-\hat y_k`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torchxnn.data.class_names import spoken
from torchxnn.explanations.drawing.overlay import number, signed
from torchxnn.explanations.summands import (
    UNKNOWN,
    Reason,
    Traits,
    joined,
    listed,
    plural,
    put_together,
    shared,
    summands_of,
    weaker,
)
from torchxnn.models.config import OutputKind, OutputScale
from torchxnn.models.meaning import boundary_of

TYPICAL = "a typical other image"

NOT_ANCHORED = (
    "contributions are not anchored: this XNN does not know what other inputs get on average, so "
    "that shares and order hang on an arbitrary offset; fit it again"
)
"""What is said wherever numbers of such an XNN, as earlier versions saved them, are read."""

POSITIVE = {"classes": "the class", "labels": "the label", "value": "high values"}
"""What the images have in common on which an output is explained, by what outputs are."""

QUANTITY: dict[OutputScale, str] = {
    "logits": "logit",
    "probabilities": "probability",
    "log-probabilities": "log-probability",
}
"""What a number of the network is called, by what its outputs are."""

FOUND_AGAIN = "Found again"
"""The term under which pages say on how many samples of the images an x-feature comes back."""

_SOUNDS_LIKE_CONSONANT = re.compile(
    r"(eu|uni|use|usu|ur[aeiou]|ut[aeiou]|one\b|once\b|ouija)", re.I
)
_SILENT_H = re.compile(r"(hour|honest|honou?r|heir)", re.I)
_SPELLED = re.compile(r"[A-Z0-9]*[A-Z](?![a-z])[A-Z0-9]*\b")
_VOWEL_LETTERS = "AEFHILMNORSX"
_NO_ARTICLE = re.compile(
    "functional|defective|(ab)?normal|benign|malignant|positive|negative|healthy|sick|intact|"
    "broken|damaged|true|false|yes|no|none|others?|unknown|background",
    re.I,
)


def stability_facts(
    names: Sequence[str], shares: Sequence[float], why_not: str = ""
) -> tuple[tuple[str, str], ...]:
    """How stable x-features are, or why nobody knows, as (term, text); none if there is no record.

    As in: "wing 55% and x-feature 2 10% of resampled images".

    Args:
        names: of the x-features.
        shares: of the bootstrap samples on which their components are found again; may be empty.
        why_not: why they are.
    """
    if shares:
        each = [f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)]
        return ((FOUND_AGAIN, f"{listed(each)} of resampled images"),)
    return ((FOUND_AGAIN, f"not measured: {why_not}"),) if why_not else ()


@dataclass(frozen=True)
class Account:
    """All summands of one class's logit on one input, put in order.

    The values of `reasons`, `elsewhere` and `objections`, `weaker`, `intercept` and `unexplained`
    add up to `logit`. X-features that are alike are one reason; see `Reason`.

    Attributes:
        target: name of the class, the label or the value.
        predicted: name of the class that the network predicts; not used of labels and values.
        label: name of the true class; None if it is not known.
        logit: the network's own, y.
        reasons: what speaks for the class with at least 5% of the sum of |contribution|, by falling
            contribution.
        objections: what speaks against it, with such shares and in such an order.
        weaker: sum of the contributions of all others; None if every other one is exactly 0.
        intercept: b, what a typical other image gets.
        unexplained: y minus the reproduced logit.
        typical: what gets b, such as "a typical other image"; None of an XNN of an earlier version,
            where b is no more than a constant.
        elsewhere: what adds to the logit here with such shares though on the class it is no larger
            than on other images, so that it is no reason.
        outputs_are: whether the target is a class, a label that the network sees if its logit is
            above 0, or a value.
        scale: whether the numbers are logits; a probability of a label is compared with 0.5.
    """

    target: str
    predicted: str
    label: str | None
    logit: float
    reasons: tuple[Reason, ...]
    objections: tuple[Reason, ...]
    weaker: float | None
    intercept: float
    unexplained: float
    typical: str | None = TYPICAL
    elsewhere: tuple[Reason, ...] = ()
    outputs_are: OutputKind = "classes"
    scale: OutputScale = "logits"

    def sentence(self) -> str:
        """The whole account in one sentence."""
        reasons = listed([one.text() for one in self.reasons])
        return f"{self._claim(reasons)}{self._elsewhere()}{self._against()}; {self._rest()}."

    def brief(self) -> str:
        """The claim without figures, for lists of many: "This is a bird because of C and D."."""
        names = [member.name for one in self.reasons for member in one.members]
        return f"{self._claim(joined(names))}."

    def refusal(self, reason: str) -> str:
        """What is said instead where the numbers do not support a sentence.

        Without a reason, that they do not.
        """
        what = "why" if self._is_decided else f"what speaks for {noun(self.target)}"
        because = f": {reason}" if reason else ""
        return f"{self._sees()}; these x-features cannot say {what}{because}."

    @property
    def _is_decided(self) -> bool:
        """Whether the network decides for the target; values are as they are."""
        if self.outputs_are == "classes":
            return self.target == self.predicted
        return self.outputs_are == "value" or self._is_seen

    @property
    def _is_seen(self) -> bool:
        return self.logit > boundary_of(self.scale)

    def _sees(self) -> str:
        """What the network says, without a reason."""
        if self.outputs_are == "value":
            return f"The {self.target} is {number(self.logit)}"
        if self.outputs_are == "labels":
            return f"The network {'sees' if self._is_seen else 'does not see'} {noun(self.target)}"
        return f"The network sees {noun(self.predicted)}"

    def _claim(self, reasons: str) -> str:
        """What is said of the target, because of these reasons."""
        target = noun(self.target)
        if not self._is_decided:
            if not reasons:
                return f"{self._sees()}; there is no evidence for {target}"
            return f"{self._sees()}; evidence for {target} is {reasons}"
        if self.outputs_are != "classes":
            claim = self._sees()
        elif self.label is not None and self.label != self.predicted:
            claim = f"The network takes {noun(self.label)} for {target}"
        else:
            claim = f"This is {target}"
        return f"{claim} because of {reasons}" if reasons else f"{claim}, but no x-feature says why"

    def _against(self) -> str:
        if not self.objections:
            return ""
        texts = [one.text(opposed=True) for one in self.objections]
        if self.outputs_are == "value":
            return f"; {listed(texts)} {plural(self.objections, 'lowers', 'lower')} it"
        return f"; against it {plural(self.objections, 'speaks', 'speak')} {listed(texts)}"

    def _elsewhere(self) -> str:
        if not self.elsewhere:
            return ""
        names = [each.text() for each in self.elsewhere]
        does = plural(self.elsewhere, "adds to it", "add to it")
        return f"; {no_larger(self.elsewhere, names, does, POSITIVE[self.outputs_are])}"

    def _rest(self) -> str:
        whose = "the" if self._is_decided else "its"
        of = self.target if self.outputs_are == "value" else QUANTITY[self.scale]
        what = "the intercept" if self.typical is None else f"what {self.typical} gets"
        texts = rest(what, self.intercept, self.weaker, self.unexplained)
        return f"the rest of {whose} {of} of {number(self.logit)} is {texts}"


def account_for(
    names: Sequence[str],
    values: Sequence[float],
    *,
    intercept: float,
    logit: float,
    target: str,
    predicted: str,
    label: str | None = None,
    typical: str | None = TYPICAL,
    traits: Traits = UNKNOWN,
    outputs_are: OutputKind = "classes",
    scale: OutputScale = "logits",
) -> Account:
    """Sort the summands of a logit into reasons, objections and the rest; see `Account`.

    `values` are the contributions of the x-features with these names, and `traits` what else is
    known of them; those of equal size keep their order.
    """
    summands = shared(summands_of(names, values))
    found = put_together(summands, {"first": traits})
    notable = [one for one in found if one.is_notable]
    return Account(
        target=target,
        predicted=predicted,
        label=label,
        logit=logit,
        reasons=tuple(one for one in notable if one.value > 0 and one.is_of_class),
        objections=tuple(one for one in notable if one.value < 0),
        weaker=weaker(found),
        intercept=intercept,
        unexplained=logit - (sum(values) + intercept),
        typical=typical,
        elsewhere=tuple(one for one in notable if one.value > 0 and not one.is_of_class),
        outputs_are=outputs_are,
        scale=scale,
    )


def no_larger(
    reasons: Sequence[Reason], names: Sequence[str], does: str, where: str = "the class"
) -> str:
    """The clause about what is no reason, since it is no larger on the class than on other images.

    Args:
        reasons: at least one.
        names: what each is called.
        does: what they do, in singular or plural.
        where: what the reasons would have to be larger on.
    """
    are = plural(reasons, "is", "are")
    return f"{listed(names)} {does} here, but {are} no larger on {where} than elsewhere"


def rest(what: str, intercept: float, others: float | None, unexplained: float) -> str:
    """The summands that are no reasons: intercept (named by `what`), weaker ones, what is left."""
    parts = [f"{what} ({signed(intercept)})"]
    if others is not None:
        parts.append(f"weaker x-features ({signed(others)})")
    return listed([*parts, f"what remains unexplained ({signed(unexplained)})"])


def written_out(terms: Sequence[float], intercept: float) -> str:
    """A sum in figures without its terms that are 0, as in "63.1 + 15.2 − 1.2 − 0.9"."""
    first, *others = [*(term for term in terms if term), intercept]
    signs = ("\N{MINUS SIGN}" if term < 0 else "+" for term in others)
    rest_of_sum = (f"{sign} {number(abs(term))}" for sign, term in zip(signs, others, strict=True))
    return " ".join([number(first), *rest_of_sum])


def noun(name: str) -> str:
    """A class name with its article: "a European Goldfinch", "an Indigo Bunting".

    Folders' names are spoken without their number and underscores: "014.Indigo_Bunting". Names that
    end in a number ("class 3"), that have an article, or that are a common property
    ("defective") stay as they are.
    """
    name = spoken(name)
    if name.startswith("not "):  # the other side of a single logit
        return f"not {noun(name[4:])}"
    first = name.split(" ")[0].lower()
    numbered = re.fullmatch(r".*\D[ _#-]?\d+", name) is not None
    if not name or first in ("a", "an", "the") or _NO_ARTICLE.fullmatch(name) or numbered:
        return name
    return f"{article(name)} {name}"


def article(name: str) -> str:
    """The article "a" or "an", by how an English name starts when it is spoken."""
    if name[0].isdigit():
        digits = re.findall(r"^\d*", name)[0]
        return "an" if digits.startswith("8") or digits in ("11", "18") else "a"
    if _SPELLED.match(name):
        return "an" if name[0] in _VOWEL_LETTERS else "a"
    if _SILENT_H.match(name):
        return "an"
    if _SOUNDS_LIKE_CONSONANT.match(name):
        return "a"
    return "an" if name[0].lower() in "aeiou" else "a"
