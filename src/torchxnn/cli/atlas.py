"""`xnn atlas`: a static site about the XNNs of many classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.cli.saved_run import open_for
from torchxnn.cli.terminal import Terminal, count_steps
from torchxnn.data.config import DataConfig
from torchxnn.parallel.config import EngineConfig


@dataclass(frozen=True)
class AtlasCommand:
    """Write a static site about the XNNs of many classes; run it again to go on after a kill."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUNS [RUNS ...]")]
    """folders of saved XNNs, as `xnn fit --targets all` writes them, or saved XNNs"""
    data: Path
    """folder of images in class folders, or a CUB-200-2011 folder (its test split)"""
    out: Path
    """folder for the site"""
    cache: Path | None = None
    """activation cache of the same images (`xnn cache`); without it they are recorded once"""
    title: str = "Atlas of x-features"
    """of the index"""
    weights: Path | None = None
    """state dict of the model, if it has moved since"""
    model: str | None = None
    """the model, if it has another name now"""
    pages: AtlasConfig = field(default_factory=AtlasConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    source: DataConfig = field(default_factory=DataConfig)

    def execute(self, terminal: Terminal) -> None:
        """Build what is missing, and say what is there."""
        from torchxnn.apps.atlas.build import build_atlas
        from torchxnn.apps.atlas.runs import find_runs
        from torchxnn.apps.saved_xnn import open_run
        from torchxnn.data.activation_cache import ActivationCache

        engine = self.engine.make()
        found, _ = find_runs(self.runs)
        xnn = open_run(found[0].place, self.model, self.weights)
        with terminal.progress() as progress:
            dataset = open_for(xnn, self.data, self.source, progress)
            atlas = build_atlas(
                xnn.model,
                self.runs,
                dataset,
                self.out,
                cache=None if self.cache is None else ActivationCache.open(self.cache),
                config=self.pages,
                engine=engine,
                title=self.title,
                model_name=(xnn.source or {}).get("description", ""),
                images_per_pass=self.source.images_per_pass,
                on_step=count_steps(progress),
            )
        for failure in atlas.failures:
            terminal.warn(f"{failure.name} is missing: {failure.reason}")
        degenerate = sum(bool(entry.degenerate) for entry in atlas.entries)
        terminal.say(
            f"{len(atlas.entries)} classes ({degenerate} degenerate), {atlas.nbytes / 1e6:.1f} MB, "
            f"at most {atlas.largest / 1e6:.2f} MB per class. Open {self.out}/index.html"
        )
