"""What an explanation says of one input, whatever it is: numbers, order and words.

Nothing here knows what is drawn beside them; `explanations/base` puts both on one card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.attribution.base import Certificate
from torchxnn.data.class_names import spoken
from torchxnn.errors import DataError, check_finite
from torchxnn.explanations.alike import ALIKE, Pair, find_alike, groups_of, overlap
from torchxnn.explanations.certificate import (
    READING_OF_OVERLAP,
    above_bound,
    bound_origin,
    certified,
    drawing_line,
    drawing_warnings,
    faithfulness_line,
    method_line,
    overlap_line,
)
from torchxnn.explanations.drawing.overlay import number
from torchxnn.explanations.names.texts import names_fact
from torchxnn.explanations.saved_result import SavedResult
from torchxnn.explanations.sentences import (
    NOT_ANCHORED,
    POSITIVE,
    QUANTITY,
    Account,
    account_for,
    stability_facts,
)
from torchxnn.explanations.summands import Traits, listed
from torchxnn.metrics.among_positives import AmongPositives
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.models.config import OutputKind, OutputScale

_TERMS = {
    "classes": ("Predicted", "True class"),
    "labels": ("Seen", "True labels"),
    "value": ("Value", "True value"),
}
"""What is said of the outputs, and what is true, by what they are."""

FAR_OFF = 0.25  # of the logit's scale: beyond it the reproduced logit is said to be wrong


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Said(SavedResult, ABC):
    r"""Why the network gives one input its logits, as n x-features that add up to them.

    For each target k: :math:`\hat y_k \approx \sum_i c_{ki} + b_k` (paper section 2.2, eq. 1, with
    contributions :math:`c_{ki}` that count from what a typical other image gets, :math:`b_k`). All
    tensors are kept on the CPU, without a gradient.

    Attributes:
        features: (n,), the x-features E.
        contributions: (k, n) per target, in logits; see `Embedding.contributions`.
        intercept: (k,), b.
        targets: 0-based class indices.
        target_names: one per target.
        logits: (k,), the network's own.
        reproduced: (k,), `contributions.sum(-1) + intercept`.
        predicted_class: the class that the network predicts; see `predicted_classes`. Of labels the
            first target that the network sees; None if it sees none, and of values.
        predicted_name: its name; the names of all labels that the network sees; the value.
        feature_names: one per x-feature, 1-based unless somebody named them; what one person alone
            calls it is in quotation marks, see `FeatureNames.shown`.
        certificate: of the attributions.
        faithfulness: of the fit, on held-out data; None if never measured.
        degenerate: why the fit should not be trusted; empty when it is fine.
        label: name of the true class if known.
        path: where the input came from, for people.
        anchored: whether b is what a typical other image gets, and contributions count from it. In
            files of earlier versions they are v_i E_i, and b is the bias.
        found_again: of each x-feature, see `FitReport`; empty where nobody knows.
        not_resampled: why nobody knows; see `FitReport`.
        among_positives: one per target, see `FitReport`; empty where nobody knows.
        used: of each x-feature whether painting over its region showed that the network uses it for
            the first target as claimed, see `WhatIf.used`; None where nothing was tested. Empty:
            nobody asked.
        outputs_are: see `Meaning`.
        scale: see `Meaning`.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    stem = "explanation"
    unit: ClassVar[str] = "image"
    drawn: ClassVar[str] = "Heatmaps"
    origin: ClassVar[str] = "File"

    features: Float[Tensor, " features"]
    contributions: Float[Tensor, "targets features"]
    intercept: Float[Tensor, " targets"]
    targets: tuple[int, ...]
    target_names: tuple[str, ...]
    logits: Float[Tensor, " targets"]
    reproduced: Float[Tensor, " targets"]
    predicted_class: int | None
    predicted_name: str
    feature_names: tuple[str, ...]
    certificate: Certificate
    faithfulness: Faithfulness | None
    degenerate: tuple[str, ...]
    label: str | None = None
    path: str | None = None
    anchored: bool = True
    found_again: tuple[float, ...] = ()
    not_resampled: str = ""
    among_positives: tuple[AmongPositives, ...] = ()
    outputs_are: OutputKind = "classes"
    scale: OutputScale = "logits"
    used: tuple[bool | None, ...] = ()

    @abstractmethod
    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        """Shapes of the tensors that depend on the input, and what to call the input."""

    @abstractmethod
    def map_correlation(self) -> Float[np.ndarray, "features features"] | None:
        """How far what is drawn of the x-features agrees on this input, (n, n); None if unknown."""

    @final
    def __post_init__(self) -> None:
        targets, features = len(self.targets), len(self.features)
        own, size = self._shapes()
        expected: dict[str, tuple[int, ...]] = {
            "features": (features,),
            "contributions": (targets, features),
            "intercept": (targets,),
            "logits": (targets,),
            "reproduced": (targets,),
            **own,
        }
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape:
                raise DataError(
                    f"{name} of an explanation has shape {tuple(tensor.shape)}; {targets} "
                    f"target(s), {features} x-feature(s) and {size} need {shape}"
                )
            object.__setattr__(self, name, tensor.detach().cpu())
            check_finite(f"{name} of an explanation holds NaN or infinity", tensor)
        if len(self.target_names) != targets or len(self.feature_names) != features:
            raise DataError(
                f"{len(self.target_names)} target names for {targets} target(s) and "
                f"{len(self.feature_names)} names for {features} x-feature(s); give one each"
            )
        if self.used and len(self.used) != features:
            raise DataError(f"used has {len(self.used)} entries for {features} x-feature(s)")
        known = [len(each.mean) for each in self.among_positives]
        if known and known != [features] * targets:
            raise DataError(
                f"among_positives knows {known} x-features of {len(known)} target(s); {targets} "
                f"target(s) have {features} each"
            )

    def order(self, target_index: int = 0) -> tuple[int, ...]:
        """0-based x-features by decreasing |contribution| to a target; ties keep their order."""
        sizes = self.contributions[target_index].abs()
        return tuple(torch.argsort(sizes, descending=True, stable=True).tolist())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.sentence()}>"

    def sentence(self, target_index: int = 0) -> str:
        """Say in one sentence why, or why not to say it.

        As in: "This is a European Goldfinch because of golden feather (+63.1, 79%) and red forehead
        (+15.2, 19%); against it speaks x-feature 3 (−1.2, 2%); the rest of the logit of 79.3 is
        what a typical other image gets (−0.9) and what remains unexplained (+3.1)." All numbers but
        the shares are in logits, and they add up to the network's logit; see `Account`. Where
        `declined` gives a reason, the sentence gives that instead.
        """
        account, reason = self.account(target_index), self.declined(target_index)
        return account.refusal(reason) if reason else account.sentence()

    def brief(self, target_index: int = 0) -> str:
        """The claim of the sentence alone, without figures, for lists of many explanations."""
        account = self.account(target_index)
        return account.refusal("") if self.declined(target_index) else account.brief()

    def account(self, target_index: int = 0) -> Account:
        """The summands of one target's logit, in the order of the sentence."""
        return account_for(
            self.reason_names,
            self.contributions[target_index].tolist(),
            intercept=float(self.intercept[target_index]),
            logit=float(self.logits[target_index]),
            target=self.target_names[target_index],
            predicted=self.predicted_name,
            label=self.label,
            typical=self.typical,
            traits=self.traits(target_index),
            outputs_are=self.outputs_are,
            scale=self.scale,
        )

    def traits(self, target_index: int = 0) -> Traits:
        """What sentences know of the x-features beside their contributions to a target."""
        pairs = self.alike(target_index)
        groups = groups_of(pairs, len(self.features))
        return Traits(
            groups=groups,
            here=frozenset(groups[pair.first] for pair in pairs if pair.maps is not None),
            class_mean=self.among_positives[target_index].mean if self.among_positives else (),
            found_again=self.found_again,
        )

    def alike(self, target_index: int = 0) -> tuple[Pair, ...]:
        """Pairs of x-features whose maps, or whose variation among a target's positives, agree."""
        known = self.among_positives
        return find_alike(self.map_correlation(), known[target_index].variation if known else ())

    @property
    def reason_names(self) -> tuple[str, ...]:
        """What a sentence calls the contribution of each x-feature: its absence where it is 0.

        An x-feature that is 0 here contributes by what a typical other image has of it.
        """
        return self.as_reasons(self.feature_names)

    def as_reasons(self, names: Sequence[str]) -> tuple[str, ...]:
        """The same where the x-features go by other names, one each."""
        pairs = zip(names, self.features.tolist(), strict=True)
        return tuple(name if value else f"the absence of {name}" for name, value in pairs)

    @property
    def _measured_bounds(self) -> tuple[float, ...] | None:
        return None if self.faithfulness is None else self.faithfulness.error_bound

    def error_bound(self, target_index: int = 0) -> float:
        """How far the reproduced logit may be off for the x-features to count as the reason.

        It is `Faithfulness.error_bound` of the fit, which `Faithfulness.bound_level` says how
        surely a new input stays within; of a fit that has no record of it, a quarter of the larger
        of |logit| and the sum of |contribution|.
        """
        if self._measured_bounds is not None:
            return self._measured_bounds[target_index]
        size = float(self.contributions[target_index].abs().sum())
        return FAR_OFF * max(abs(float(self.logits[target_index])), size)

    def _bound_origin(self, *target_indices: int) -> str:
        """How surely a new input stays within the measured bounds of some targets."""
        return bound_origin(self.faithfulness, target_indices, self.unit, self.outputs_are)

    def declined(self, target_index: int = 0) -> str:
        """Why no reasons can be given for this input; empty if they can."""
        if self.degenerate:
            return f"the fit is degenerate ({'; '.join(self.degenerate)})"
        logit, reproduced = float(self.logits[target_index]), float(self.reproduced[target_index])
        bound = self.error_bound(target_index)
        if abs(logit - reproduced) <= bound:
            return ""
        origin = "of a quarter of its size"
        if self._measured_bounds is not None:
            origin = self._bound_origin(target_index)
        off = above_bound(abs(logit - reproduced), bound)
        return (
            f"on this {self.unit} they reproduce a {self.quantity} of {number(reproduced)} instead "
            f"of {number(logit)}, which is off by {off} {origin}"
        )

    def certificate_lines(self) -> tuple[str, ...]:
        """How far the explanation can be trusted: faithfulness, x-features, heatmaps."""
        lines = [faithfulness_line(self.faithfulness, self.unit)]
        if self._measured_bounds is not None:
            bounds = [
                f"{number(abs(float(self.logits[k] - self.reproduced[k])))} of at most "
                f"{number(self.error_bound(k))}"
                for k in range(len(self.targets))
            ]
            lines.append(
                f"Error of the reproduced {self.quantity} on this {self.unit}: {listed(bounds)} "
                f"(the bound {self._bound_origin(*range(len(self.targets)))})."
            )
        maps = self.map_correlation()
        if maps is not None and len(maps) > 1:
            lines.append(overlap_line(maps, self.drawn, self.unit))
        return (*lines, drawing_line(self.certificate, self.drawn, self.scale))

    def certificate_of_fit(self) -> tuple[str, ...]:
        """What of the certificate holds for every input, for pages that show several."""
        lines = [faithfulness_line(self.faithfulness, self.unit)]
        if self._measured_bounds is not None:
            every = range(len(self.targets))
            bounds = listed([number(self.error_bound(k)) for k in every])
            lines.append(
                f"The bound of the error of the reproduced {self.quantity}, {bounds}, is one "
                f"{self._bound_origin(*every)}."
            )
        lines.append(method_line(self.certificate, self.drawn, self.scale))
        if len(self.features) > 1:
            lines.append(READING_OF_OVERLAP.format(drawn=self.drawn.lower(), unit=self.unit))
        return tuple(lines)

    def certificate_here(self) -> str:
        """The rest of it, which is of this input, in a line."""
        errors = [
            f"{number(abs(float(self.logits[k] - self.reproduced[k])))}"
            + (f" of at most {number(self.error_bound(k))}" if self._measured_bounds else "")
            for k in range(len(self.targets))
        ]
        found = [f"error of the reproduced {self.quantity} {listed(errors)}"]
        maps = self.map_correlation()
        if maps is not None and len(maps) > 1:
            found.append(f"overlap of the {self.drawn.lower()} {overlap(maps):.2f}")
        return f"On this {self.unit}: {'; '.join([*found, certified(self.certificate)])}."

    @property
    def quantity(self) -> str:
        """What the x-features add up to: a logit, or the value itself."""
        return "value" if self.outputs_are == "value" else QUANTITY[self.scale]

    @property
    def positive(self) -> str:
        """What the inputs are on which an output is explained, in a word or two."""
        return POSITIVE[self.outputs_are].removeprefix("the ")

    @property
    def typical(self) -> str | None:
        """What gets the intercept, "a typical other image"; None if nobody knows."""
        return f"a typical other {self.unit}" if self.anchored else None

    @final
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Predicted and true class, origin and stability as far as known: (term, text)."""
        said, true = _TERMS[self.outputs_are]
        facts = [(said, spoken(self.predicted_name))]
        if self.label is not None:
            facts.append((true, spoken(self.label)))
        if self.path is not None:
            facts.append((self.origin, self.path))
        facts += names_fact(self.feature_names)
        facts += stability_facts(self.feature_names, self.found_again, self.not_resampled)
        every = [pair for k in range(len(self.targets)) for pair in self.alike(k)]
        pairs = dict.fromkeys(
            pair.text(self.feature_names, POSITIVE[self.outputs_are]) for pair in every
        )
        if pairs:
            facts.append((ALIKE, "; ".join(pairs)))
        return tuple(facts)

    def _warnings(self, rows: Sequence[int]) -> tuple[str, ...]:
        found = [f"the fit is degenerate: {reason}" for reason in self.degenerate]
        if not self.anchored:
            found.append(NOT_ANCHORED)
        for k in rows:
            logit, reproduced = float(self.logits[k]), float(self.reproduced[k])
            size = max(abs(logit), float(self.contributions[k].abs().sum()))
            if abs(logit - reproduced) > min(FAR_OFF * size, self.error_bound(k)):
                found.append(
                    f"on this {self.unit} the x-features reproduce {number(reproduced)} instead of "
                    f"{number(logit)} for {spoken(self.target_names[k])}"
                )
        return tuple(found + drawing_warnings(self.certificate, self.unit))
