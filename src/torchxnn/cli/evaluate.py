"""`xnn evaluate`: the figures of merit of a saved XNN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import SavedRunOnImages, open_for
from torchxnn.cli.terminal import Terminal, count_images


@dataclass(frozen=True)
class Evaluate(SavedRunOnImages):
    """Measure how faithful and how orthogonal a saved XNN is on a folder of images."""

    maps: bool = True
    """draw heatmaps of the positives, for orthogonality; --no-maps is faster"""
    json: Path | None = None
    """file to write the figures to"""

    def execute(self, terminal: Terminal) -> None:
        """Measure, print, and write JSON if asked."""
        with computing():
            from torchxnn.cli.tables import evaluation_table
            from torchxnn.storage.artifact import to_json
            from torchxnn.storage.files import check_writable, replace_file

        if self.json is not None:
            check_writable(self.json)
        xnn = self.load()
        with terminal.progress() as progress:
            dataset = open_for(xnn, self.data, self.source, progress)
            evaluation = xnn.evaluate(
                self.source.loader(dataset),
                maps=self.maps,
                on_batch=count_images(progress, "Evaluating", len(dataset)),
            )
        terminal.show(evaluation_table(evaluation))
        if self.json is not None:
            found = replace(evaluation, weights_sha256=xnn.weights_sha256)
            replace_file(self.json, to_json(found))
