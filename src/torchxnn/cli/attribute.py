"""`xnn attribute`: the heatmaps of a whole data set, on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchxnn.apps.heatmaps.config import HeatmapConfig
from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import SavedRunOnImages, open_for
from torchxnn.cli.terminal import Terminal, count_drawings
from torchxnn.parallel.config import EngineConfig


@dataclass(frozen=True)
class Attribute(SavedRunOnImages):
    """Draw heatmaps of a class's images, or of all, to disk; run again to go on after a kill."""

    out: str
    """folder for the heatmaps, or a URL of object storage; `Heatmaps` reads it"""
    heatmaps: HeatmapConfig = field(default_factory=HeatmapConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def execute(self, terminal: Terminal) -> None:
        """Draw what is missing, and say what is there, and why so many."""
        with computing():
            from torchxnn.apps.heatmaps.attribute import attribute_many

        engine = self.engine.make()
        xnn = self.load()
        with terminal.progress() as progress:
            dataset = open_for(xnn, self.data, self.source, progress)
            heatmaps = attribute_many(
                xnn,
                dataset,
                self.out,
                self.heatmaps,
                engine=engine,
                on_images=count_drawings(progress, "Drawing heatmaps"),
            )
        n, height, width = heatmaps[0].heatmaps.shape
        drawn = f"{len(heatmaps)} of {len(dataset)} images"
        if self.heatmaps.images == "positives":
            names = " or ".join(repr(xnn.target_name(target)) for target in xnn.targets)
            by = "the network's prediction" if dataset.labels is None else "their labels"
            drawn += f" (those of {names} by {by}; --images all draws the others, too)"
        terminal.say(f"{drawn}, {n} heatmaps of {height} x {width} each, in {self.out}")
