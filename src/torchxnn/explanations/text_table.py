"""Explanations of inputs that are lists of parts: the tokens of a text, the columns of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from torchxnn.explanations.base import Reasons
from torchxnn.explanations.drawing.canvas import figure_bytes, save_figure
from torchxnn.explanations.drawing.overlay import number
from torchxnn.explanations.drawing.paper_figure import Columns
from torchxnn.explanations.drawing.part_figure import draw_part_card
from torchxnn.explanations.drawing.part_page import part_fragment, render_part_card
from torchxnn.explanations.part_card import PartCard, PartPanel
from torchxnn.explanations.record import MARKER, read_record, write_record
from torchxnn.storage.files import replace_file, replace_folder

PAGE = "explanation.html"
Loaded = TypeVar("Loaded", bound="PartExplanation")
_CAPTION = (
    "Red (+) makes the x-feature stronger, blue (\N{MINUS SIGN}) weaker; each x-feature has its "
    "own colour scale, and every number is in units of the x-feature (of the logit: in logits)."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class PartExplanation(Reasons, ABC):
    """Why the network gives one text or one row its logits.

    What is not listed here is explained at `Reasons`.

    Attributes:
        parts: tokens, or names of columns.
        attributions: (n, parts), what each part adds to each x-feature E_i, signed.
        logit_attributions: (k, parts), the same for each original logit.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    kind: ClassVar[Literal["text", "table"]]
    drawn: ClassVar[str] = "Attributions"
    origin: ClassVar[str] = "Source"
    tensors: ClassVar[tuple[str, ...]] = ("attributions", "logit_attributions")
    parts: tuple[str, ...]
    attributions: Float[Tensor, "features parts"]
    logit_attributions: Float[Tensor, "targets parts"]

    @abstractmethod
    def _shown(self) -> tuple[str, ...]:
        """The value of every part in words; empty where there is none."""

    @final
    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        count = len(self.parts)
        shapes: dict[str, tuple[int, ...]] = {
            "attributions": (len(self.features), count),
            "logit_attributions": (len(self.targets), count),
        }
        shapes |= {name: (count,) for name in self.tensors if name not in shapes}
        return shapes, f"{count} {'token' if self.kind == 'text' else 'column'}(s)"

    @final
    def card(self, target: int | None = None) -> PartCard:
        """Put the explanation into words and order, ready to be drawn.

        Args:
            target: class index of the one target to show; None shows all.

        Raises:
            DataError: `target` is not among the targets of this explanation.
        """
        rows = self._rows(target)
        panels = []
        for i in self.order(rows[0]):
            values = tuple(float(self.contributions[k, i]) for k in rows)
            note = "inactive here" if float(self.features[i]) == 0 or not any(values) else ""
            panels.append(
                PartPanel(self.feature_names[i], self.attributions[i].numpy(), values, note)
            )
        return PartCard(
            kind=self.kind,
            parts=self.parts,
            shown=self._shown(),
            sentence=self.sentence(rows[0]),
            facts=self._facts(),
            rows=tuple(self._row(k) for k in rows),
            panels=tuple(panels),
            logit_panels=tuple(
                PartPanel(self.target_names[k], self.logit_attributions[k].numpy()) for k in rows
            ),
            certificate=self.certificate_lines(),
            warnings=self._warnings(rows),
            caption=_CAPTION,
        )

    @final
    def plot(
        self,
        target: int | None = None,
        style: Literal["screen", "paper"] = "screen",
        columns: Columns = 1,
    ) -> Figure:
        """Draw a figure: per x-feature the text on colours, or bars.

        Args:
            target: as in `card`.
            style: "paper" fits a paper's column, 7 to 8 points.
            columns: with "paper", 1 for 3.3 inches and 2 for 6.9.
        """
        return draw_part_card(self.card(target), style, columns)

    @final
    def save_figure(self, file: Path | str, **options: Any) -> None:
        """Write the figure as PNG, PDF or SVG by the file's ending; options as for `plot`."""
        save_figure(self.plot(**options), file)

    @final
    def to_html(self, file: Path | str) -> None:
        """Write one self-contained HTML page that opens offline; whole or not at all."""
        replace_file(Path(file), render_part_card(self.card()))

    @final
    def save(self, directory: Path | str) -> None:
        """Write a folder: `explanation.json`, `figure.png` and `explanation.html`, as a whole.

        Raises:
            FileExistsError: the folder holds something that is not an explanation.
            OSError: it cannot be written.
        """
        with replace_folder(Path(directory), MARKER) as folder:
            more: dict[str, Any] = {name: getattr(self, name).tolist() for name in self.tensors}
            more["parts"] = self.parts
            write_record(folder, self._format(), self, more)
            (folder / "figure.png").write_bytes(figure_bytes(self.plot(), "png"))
            (folder / PAGE).write_bytes(render_part_card(self.card()))

    @classmethod
    def load(cls: type[Loaded], directory: Path | str) -> Loaded:
        """Read what `save` wrote.

        Raises:
            DataError: the folder holds no such explanation, or one of a newer version.
        """
        record, values = read_record(Path(directory), cls._format())
        for name in cls.tensors:
            values[name] = torch.tensor(record[name], dtype=torch.float32)
        return cls(parts=tuple(record["parts"]), **values)

    @classmethod
    def _format(cls) -> str:
        return f"torchxnn.{cls.kind}_explanation"

    @final
    def _repr_html_(self) -> str:
        return part_fragment(self.card())


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TextExplanation(PartExplanation):
    """Why a network of token ids gives one text its logits; `parts` are the tokens."""

    kind = "text"
    unit = "text"

    def _shown(self) -> tuple[str, ...]:
        return ()


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TableExplanation(PartExplanation):
    """Why a network of feature vectors gives one row its logits; `parts` are the columns.

    Attributes:
        values: (D,), of the row, in the units that people know.
    """

    kind = "table"
    unit = "row"
    tensors = (*PartExplanation.tensors, "values")
    values: Float[Tensor, " columns"]

    def _shown(self) -> tuple[str, ...]:
        return tuple(number(float(value)) for value in self.values)
