"""`xnn card`: what a saved XNN explains, how well, who named what, as Markdown and JSON."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from torchxnn.cli.terminal import Terminal
from torchxnn.errors import DataError

if TYPE_CHECKING:
    from torchxnn.metrics.evaluation import Evaluation


@dataclass(frozen=True)
class CardCommand:
    """Print the card of a saved XNN: network, data, faithfulness, names, stability, limits."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder written by `xnn fit`; neither its network nor its images are needed"""
    evaluation: Path | None = None
    """what `xnn evaluate RUN DIR --json FILE` wrote, for figures on further images and of maps"""
    out: Path | None = None
    """file to write the card to as Markdown, instead of printing it"""
    json: Path | None = None
    """file to write the card to as JSON"""

    def execute(self, terminal: Terminal) -> None:
        """Read, print or write.

        Raises:
            DataError: the evaluation cannot be read.
        """
        from torchxnn.apps.run_card import read_card
        from torchxnn.storage.artifact import to_json
        from torchxnn.storage.files import replace_file

        card = read_card(self.run, self._evaluation())
        if self.json is not None:
            replace_file(self.json, to_json(card))
        if self.out is not None:
            replace_file(self.out, card.markdown().encode())
        else:
            print(card.markdown(), end="")  # noqa: T201 - a page of Markdown, not wrapped

    def _evaluation(self) -> Evaluation | None:
        from torchxnn.metrics.evaluation import Evaluation
        from torchxnn.storage.artifact import structure

        if self.evaluation is None:
            return None
        try:
            values = json_format.loads(self.evaluation.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self.evaluation} is no JSON; write it with xnn evaluate RUN DIR --json FILE"
            ) from error
        return structure(values, Evaluation, str(self.evaluation))
