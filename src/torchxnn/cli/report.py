"""`xnn report`: one HTML file about a saved XNN."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torchxnn.apps.report.config import ReportConfig
from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import SavedRunOnImages, open_for
from torchxnn.cli.terminal import Terminal, count_drawings, count_images, say_cost

if TYPE_CHECKING:
    from torch import Tensor

    from torchxnn.apps.report.build import Uses
    from torchxnn.xnn import XNN


@dataclass(frozen=True)
class WriteReport(SavedRunOnImages):
    """Write one HTML file: figures of merit, explained images, a sheet for each x-feature."""

    out: Path = Path("report.html")
    """file to write"""
    what_if: bool = False
    """also say on each explained image of which x-features painting over shows the network's use;
    about 100 runs of the network per x-feature and image"""
    pages: ReportConfig = field(default_factory=ReportConfig)

    def execute(self, terminal: Terminal) -> None:
        """Gather and write the report."""
        with computing():
            from torchxnn.apps.report.build import build_report
            from torchxnn.apps.report.write import write_with_card
            from torchxnn.data.class_names import spoken
            from torchxnn.storage.files import check_writable

        check_writable(self.out)
        xnn = self.load()
        names = (spoken(xnn.target_name(target), xnn.class_names) for target in xnn.targets)
        with terminal.progress() as progress:
            dataset = open_for(xnn, self.data, self.source, progress)
            report = build_report(
                xnn,
                dataset,
                title=f"Why {' or '.join(names)}?",
                model_name=(xnn.source or {}).get("description", ""),
                provenance=(("Data", dataset.name),),
                config=self.pages,
                source=self.source,
                on_batch=count_images(progress, "Recording activations", len(dataset)),
                on_drawing=count_drawings(progress, "Drawing heatmaps"),
                used=_uses(terminal, self.pages.images) if self.what_if else None,
            )
            beside = " and ".join(write_with_card(report, self.run, xnn, self.out))
        terminal.say(f"Wrote {self.out}, and beside it the card of the XNN, {beside}")


def _uses(terminal: Terminal, images: int) -> Uses:
    """Of which x-features an intervention on one image shows that the network uses them."""
    from torchxnn.apps.what_if.one_image import expected_cost, what_if

    told = False

    def uses(xnn: XNN, image: Tensor) -> tuple[bool | None, ...]:
        nonlocal told
        if not told:
            say_cost(terminal, *expected_cost(xnn, image), images)
        told = True
        return what_if(xnn, image).uses()

    return uses
