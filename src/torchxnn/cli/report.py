"""`xnn report`: one HTML file about a saved XNN."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torchxnn.apps.report.config import ReportConfig
from torchxnn.cli.saved_run import SavedRunOnImages, open_for
from torchxnn.cli.terminal import Terminal, count_drawings, count_images


@dataclass(frozen=True)
class WriteReport(SavedRunOnImages):
    """Write one HTML file: figures of merit, explained images, a sheet for each x-feature."""

    out: Path = Path("report.html")
    """file to write"""
    pages: ReportConfig = field(default_factory=ReportConfig)

    def execute(self, terminal: Terminal) -> None:
        """Gather and write the report."""
        from torchxnn.apps.report.build import build_report
        from torchxnn.apps.report.write import write_report
        from torchxnn.storage.files import check_writable

        check_writable(self.out)
        xnn = self.load()
        with terminal.progress() as progress:
            dataset = open_for(xnn, self.data, self.source, progress)
            report = build_report(
                xnn,
                dataset,
                title=f"Why {' or '.join(xnn.target_name(t) for t in xnn.targets)}?",
                model_name=(xnn.source or {}).get("description", ""),
                provenance=(("Data", dataset.name),),
                config=self.pages,
                source=self.source,
                on_batch=count_images(progress, "Recording activations", len(dataset)),
                on_drawing=count_drawings(progress, "Drawing heatmaps"),
            )
            write_report(report, self.out)
        terminal.say(f"Wrote {self.out}")
