"""What every explanation holds, says and shows, whatever its input is.

`Reasons` is what explanations of an image, a text and a row have in common: what `Said` says, and
what is drawn of it. `card()` puts both into order once, and figures, pages and saved folders all
draw that card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from torch import Tensor

from torchxnn.data.class_names import spoken
from torchxnn.data.positives import target_position
from torchxnn.explanations.alike import likeness
from torchxnn.explanations.card import Card, Evidence, Panel, Row, strength, weakness
from torchxnn.explanations.certificate import READING_OF_MASS, READING_OF_USE
from torchxnn.explanations.drawing.html import card_fragment, render_card
from torchxnn.explanations.drawing.overlay import Scale, number, signed
from torchxnn.explanations.said import Said
from torchxnn.explanations.sentences import written_out
from torchxnn.explanations.summands import shared, summands_of
from torchxnn.storage.artifact import structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchxnn.explanations.drawing.form import PaperColumns, Style

Kind = TypeVar("Kind", bound="Reasons")

_EARLIER = {"anchored": False, "found_again": [], "not_resampled": "", "among_positives": [],
            "outputs_are": "classes", "scale": "logits", "used": []}  # fmt: skip
"""What files of earlier versions do not say."""

_TRAINED = {"classes": "the class's", "labels": "the label's", "value": "the"}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Reasons(Said, ABC):
    """Why the network gives one input its logits, as words and as pictures; see `Said`."""

    @abstractmethod
    def relevance(self) -> tuple[Tensor, Tensor]:
        """What was attributed to the input: of the x-features, (n, ...), and the logits, (k, ...).

        Signed, and neither scaled nor smoothed.
        """

    @abstractmethod
    def evidence(self, relevance: Tensor, scale: Scale = "each") -> Sequence[Evidence]:
        """Relevance (maps, ...) on this input, ready to be drawn; one for each map."""

    @abstractmethod
    def caption(self, scale: Scale = "each") -> str:
        """How to read what is drawn."""

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
            name, verdict = self.feature_names[i], self.verdict(i, rows[0])
            panels.append(Panel(name, evidence, values, note, details, like, weak, verdict))
        logit_panels = []
        for k in rows:
            name = f"The whole {self.quantity}"
            if len(rows) > 1:
                name = f"The {self.quantity} of {spoken(self.target_names[k])}"
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
        if verdict := self.verdict(feature, k):
            details.append(verdict)
        return tuple(details)

    def verdict(self, feature: int, k: int) -> str:
        """Whether the network was shown to use an x-feature as claimed; empty if nobody asked."""
        if not self.used or k or self.used[feature] is None:
            return ""
        return "use shown" if self.used[feature] else "use not shown"

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

    @abstractmethod
    def _write_evidence(self, folder: Path, card: Card) -> dict[str, Any]:
        """Write tensors, and the images that a card draws; returns the values of the JSON file."""

    @final
    def _write(self, folder: Path) -> tuple[dict[str, Any], bytes, Figure]:
        """One card for all; files are compressed, which leaves Python free, while it is drawn."""
        from torchxnn.explanations.drawing.figure import draw_card

        card = self.card()
        with ThreadPoolExecutor(1) as beside:
            record = beside.submit(self._write_evidence, folder, card)
            page, figure = render_card(card), draw_card(card)
        return record.result(), page, figure

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
        name, terms = spoken(self.target_names[k]), self.contributions[k, list(self.order(k))]
        intercept, constant = float(self.intercept[k]), self.typical or "intercept"
        equation = (
            f"{self.quantity.capitalize()} of {name}: the network gives "
            f"{number(logit)}; the x-features reproduce {number(reproduced)} = "
            f"{written_out(terms.tolist(), intercept)} ({constant})"
        )
        return Row(name, logit, reproduced, intercept, constant, equation)
