"""What every explanation holds and says, whatever its input is: numbers, order and words.

`Reasons` is what explanations of an image, a text and a row have in common. `card()` puts it into
words and order once, and figures, pages and saved folders all draw that card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.attribution.base import Certificate
from torchxnn.data.positives import target_position
from torchxnn.errors import DataError, check_finite
from torchxnn.explanations.alike import ALIKE, Pair, find_alike, groups_of, likeness, overlap
from torchxnn.explanations.card import Card, Evidence, Panel, Row, strength, weakness
from torchxnn.explanations.certificate import (
    READING_OF_MASS,
    READING_OF_OVERLAP,
    READING_OF_USE,
    above_bound,
    bound_origin,
    certified,
    drawing_line,
    drawing_warnings,
    faithfulness_line,
    method_line,
    overlap_line,
)
from torchxnn.explanations.drawing.html import card_fragment, render_card
from torchxnn.explanations.drawing.overlay import Scale, number, signed
from torchxnn.explanations.names.texts import names_fact
from torchxnn.explanations.saved_result import SavedResult
from torchxnn.explanations.sentences import (
    NOT_ANCHORED,
    POSITIVE,
    QUANTITY,
    Account,
    account_for,
    stability_facts,
    written_out,
)
from torchxnn.explanations.summands import Traits, listed, shared, summands_of
from torchxnn.metrics.among_positives import AmongPositives
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.models.config import OutputKind, OutputScale
from torchxnn.storage.artifact import structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchxnn.explanations.drawing.figure import PaperColumns, Style

Kind = TypeVar("Kind", bound="Reasons")

_EARLIER = {"anchored": False, "found_again": [], "not_resampled": "", "among_positives": [],
            "outputs_are": "classes", "scale": "logits", "used": []}  # fmt: skip
"""What files of earlier versions do not say."""

_TERMS = {
    "classes": ("Predicted", "True class"),
    "labels": ("Seen", "True labels"),
    "value": ("Value", "True value"),
}
"""What is said of the outputs, and what is true, by what they are."""

_TRAINED = {"classes": "the class's", "labels": "the label's", "value": "the"}

FAR_OFF = 0.25  # of the logit's scale: beyond it the reproduced logit is said to be wrong


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Reasons(SavedResult, ABC):
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
    def relevance(self) -> tuple[Tensor, Tensor]:
        """What was attributed to the input: of the x-features, (n, ...), and the logits, (k, ...).

        Signed, and neither scaled nor smoothed.
        """

    @abstractmethod
    def evidence(self, relevance: Tensor, scale: Scale = "each") -> Sequence[Evidence]:
        """Relevance (maps, ...) on this input, ready to be drawn; one for each map."""

    @abstractmethod
    def map_correlation(self) -> Float[np.ndarray, "features features"] | None:
        """How far what is drawn of the x-features agrees on this input, (n, n); None if unknown."""

    @abstractmethod
    def caption(self, scale: Scale = "each") -> str:
        """How to read what is drawn."""

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

    def summary(self) -> str:
        """Plain text for a terminal."""
        lines = [self.sentence(), *(f"  {term}: {text}" for term, text in self.facts())]
        for k, name in enumerate(self.target_names):
            lines.append(f"  {self._row(k).equation}")
            for one in shared(summands_of(self.feature_names, self.contributions[k].tolist())):
                idle = "  (inactive here)" if float(self.features[one.feature]) == 0 else ""
                figures = f"{signed(one.value):>9} {one.share:>4.0%}"
                details = "; ".join(self.details(one.feature, k))
                lines.append(
                    f"    {figures}  {one.name} for {name}{idle}{details and f'  ({details})'}"
                )
        lines += [f"  Warning: {warning}" for warning in self._warnings(range(len(self.targets)))]
        return "\n".join([*lines, *(f"  {line}" for line in self.certificate_lines())])

    @final
    def card(self, target: int | None = None, scale: Scale = "each") -> Card:
        """Put the explanation into words and order, ready to be drawn.

        Args:
            target: Class index of the one target to show; None shows all.
            scale: "each": what is drawn of every x-feature uses the whole colour scale; "shared":
                the x-features share one, so that they can be compared.

        Raises:
            DataError: `target` is not among the targets of this explanation.
        """
        rows = self._rows(target)
        order = list(self.order(rows[0]))
        relevance, of_logits = self.relevance()
        panels = []
        for i, evidence in zip(order, self.evidence(relevance[order], scale), strict=True):
            values = tuple(float(self.contributions[k, i]) for k in rows)
            idle = float(self.features[i]) == 0 or not any(values)
            note = "inactive here" if idle else ""
            details, like = self.details(i, rows[0]), self.like(i, rows[0])
            weak = weakness(self.mass(i))
            panels.append(Panel(self.feature_names[i], evidence, values, note, details, like, weak))
        logit_panels = []
        for k in rows:
            name = f"The whole {self.quantity}"
            if len(rows) > 1:
                name = f"The {self.quantity} of {self.target_names[k]}"
            (evidence,) = self.evidence(of_logits[k : k + 1])
            mass = self._logit_mass(of_logits[k])
            details = tuple(text for text in (self.place(of_logits[k]), strength(mass)) if text)
            logit_panels.append(Panel(name, evidence, details=details, weak=weakness(mass)))
        return Card(
            sentence=self.sentence(rows[0]),
            facts=self.facts(),
            rows=tuple(self._row(k) for k in rows),
            panels=tuple(panels),
            logit_panels=tuple(logit_panels),
            certificate=self.certificate_lines(),
            warnings=self._warnings(rows),
            caption=f"{self.caption(scale)}{self._reading_of_details()}",
        )

    def details(self, feature: int, k: int) -> tuple[str, ...]:
        """What is known of an x-feature, in few words: its map, class against rest, stability."""
        own = self.place(self.relevance()[0][feature]), strength(self.mass(feature))
        details = [text for text in own if text]
        if self.among_positives:
            known = self.among_positives[k]
            mean, spread = known.mean[feature], known.spread[feature]
            details.append(f"{self.positive} {signed(mean)} ± {number(spread)}, rest 0")
        if self.found_again:
            details.append(f"found again {self.found_again[feature]:.0%}")
        if self.used and k == 0 and self.used[feature] is not None:
            details.append("use shown" if self.used[feature] else "use not shown")
        return tuple(details)

    def place(self, relevance: Tensor) -> str:
        """Where what is drawn of a map lies, as in "slices 2, 3, 4" of a volume; else empty."""
        return ""

    def mass(self, feature: int) -> float | None:
        """Contrast mass of an x-feature's map; None if it is off, or nobody measured it."""
        known = self.certificate.contrast_mass
        return None if known is None or not float(self.features[feature]) else known[feature]

    def _logit_mass(self, relevance: Tensor) -> float | None:
        """The same of a logit's own map."""
        if self.certificate.contrast_mass is None:
            return None
        return float(relevance.double().clamp(min=0).sum())

    def like(self, feature: int, k: int) -> str:
        """Which x-features one is like, as in "like x-features 1 and 3"; empty if there is none."""
        return likeness(self.alike(k), self.feature_names)[feature]

    def _reading_of_details(self) -> str:
        drawn = "" if self.certificate.contrast_mass is None else f" {READING_OF_MASS}"
        if any(each is not None for each in self.used):
            drawn += f" {READING_OF_USE.format(quantity=self.quantity)}"
        if not self.among_positives:
            return drawn
        return (
            f"{drawn} {self.positive.capitalize()}: mean contribution ± standard deviation on "
            f"{_TRAINED[self.outputs_are]} training {self.unit}s; the rest, typical other "
            f"{self.unit}s, get 0 on average."
        )

    @final
    def _record(self) -> dict[str, Any]:
        """What the JSON file holds of an explanation, of whatever input."""
        order = {target: self.order(k) for k, target in enumerate(self.targets)}
        values = {field.name: getattr(self, field.name) for field in fields(Reasons)}
        return {"sentence": self.sentence(), "order": order, **values}

    @final
    @classmethod
    def _of_record(cls: type[Kind], folder: Path, record: dict[str, Any], **own: Any) -> Kind:
        """An explanation from such values, and those that have another name or lie elsewhere."""
        record = {**_EARLIER, **record}
        values = {each.name: record[each.name] for each in fields(cls) if each.name not in own}
        return structure({**values, **own}, cls, str(folder))

    @final
    def plot(
        self,
        target: int | None = None,
        scale: Scale = "each",
        style: Style = "screen",
        columns: PaperColumns = 1,
    ) -> Figure:
        """Draw the figure: x-features by contribution, the logit as a whole, the certificate.

        Args:
            target: As in `card`.
            scale: As in `card`.
            style: "screen", or "paper": fits a paper's column, 7 to 8 points, without sentence and
                certificate, which belong into the caption.
            columns: With "paper", 1 for 3.3 inches and 2 for 6.9.

        Returns:
            A figure that belongs to no window: use its `savefig`, or `save_figure`.
        """
        from torchxnn.explanations.drawing.figure import draw_card

        return draw_card(self.card(target, scale), style, columns)

    @final
    def _page(self) -> bytes:
        return render_card(self.card())

    @final
    def _repr_html_(self) -> str:
        return card_fragment(self.card())

    def _rows(self, target: int | None) -> tuple[int, ...]:
        """Positions of the targets to show; the predicted class first."""
        if target is not None:
            return (target_position(self.targets, target),)
        every = range(len(self.targets))
        return tuple(sorted(every, key=lambda k: self.targets[k] != self.predicted_class))

    def _row(self, k: int) -> Row:
        logit, reproduced = float(self.logits[k]), float(self.reproduced[k])
        terms = [float(self.contributions[k, i]) for i in self.order(k)]
        intercept, constant = float(self.intercept[k]), self.typical or "intercept"
        equation = (
            f"{self.quantity.capitalize()} of {self.target_names[k]}: the network gives "
            f"{number(logit)}; the x-features reproduce {number(reproduced)} = "
            f"{written_out(terms, intercept)} ({constant})"
        )
        return Row(self.target_names[k], logit, reproduced, intercept, constant, equation)

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
        facts = [(said, self.predicted_name)]
        if self.label is not None:
            facts.append((true, self.label))
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
                    f"{number(logit)} for {self.target_names[k]}"
                )
        return tuple(found + drawing_warnings(self.certificate, self.unit))
