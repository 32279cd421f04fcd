"""`xnn whatif`: take x-features away, and see whether the network's own logit follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from tyro.conf import Positional, arg

from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import SavedRun, folder_names, open_for
from torchxnn.cli.terminal import NUMBERS, Terminal, count_drawings, say_cost
from torchxnn.data.config import DataConfig
from torchxnn.errors import DataError

if TYPE_CHECKING:
    from torchxnn.apps.what_if.table import Figure, WhatIfTable


_ORDERS = {
    "contribution": "by contribution",
    "random": "in random order",
    "elsewhere": "such regions elsewhere",
}


@dataclass(frozen=True)
class WhatIfCommand(SavedRun):
    """Take x-features away: does the network's own logit move as the explanation claims?"""

    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE [IMAGE ...]")]
    """image files; with --table one folder of images (a CUB-200-2011 folder: its test split)"""
    out: Path = Path("what_if")
    """folder to write one folder per image into; with --table the JSON file's folder"""
    table: bool = False
    """insertion and deletion by x-feature over the images of the class"""
    target: int | None = None
    """class whose logit counts; by default the first that the XNN explains"""
    most: int = 32
    """with --table: images to use"""
    what: WhatIfConfig = field(default_factory=WhatIfConfig)
    source: DataConfig = field(default_factory=DataConfig)

    def execute(self, terminal: Terminal) -> None:
        """Measure, print, write."""
        if not self.images:
            raise DataError("no images given")
        if self.table:
            self._table(terminal)
            return
        with computing():
            from torchxnn.apps.what_if.one_image import expected_cost, what_if
            from torchxnn.apps.what_if.painting import preprocessing_of
            from torchxnn.data.datasets.images import read_input

        xnn = self.load()
        preprocessing = preprocessing_of(xnn)
        for at, (path, name) in enumerate(zip(self.images, folder_names(self.images), strict=True)):
            image = read_input(path, preprocessing).to(xnn.device)
            if not at:
                say_cost(terminal, *expected_cost(xnn, image, self.what), len(self.images))
            result = what_if(xnn, image, target=self.target, config=self.what, path=path.name)
            result.save(self.out / name)
            terminal.say(*(result.sentence(one.feature) for one in result.changes))
            terminal.say(f"  {self.out / name}/what_if.html")

    def _table(self, terminal: Terminal) -> None:
        from torchxnn.apps.what_if.table import what_if_table
        from torchxnn.storage.artifact import to_json
        from torchxnn.storage.files import replace_file

        if len(self.images) != 1:
            raise DataError(f"--table takes one folder of images, got {len(self.images)}")
        xnn = self.load()
        with terminal.progress() as progress:
            dataset = open_for(xnn, self.images[0], self.source, progress)
            found = what_if_table(
                xnn,
                dataset,
                target=self.target,
                most=self.most,
                config=self.what,
                on_image=count_drawings(progress, "Painting over regions"),
            )
        terminal.show(feature_table(found), curve_table(found))
        file = self.out / "what_if_table.json"
        replace_file(file, to_json(found))
        terminal.say(f"Wrote {file}")


def feature_table(found: WhatIfTable) -> Table:
    """Per x-feature what the explanation claims and what the network does."""
    names = "typical (reproduced)", "painted over (network)", "elsewhere (network)", "r"
    table = Table(
        "x-feature",
        *map(NUMBERS, names),
        title=f"{found.target_name}: change of the logit without each x-feature, {found.images} "
        "images",
        title_justify="left",
        caption="Mean [95% interval]. Typical: the x-feature is set to that of a typical other "
        "image. r: over images, of that and painted over; higher is better.",
        caption_justify="left",
    )
    for name, use in zip(found.feature_names, found.features, strict=True):
        if use is None:
            table.add_row(name, "inactive", "", "", "")
            continue
        figures = ("reproduced", "real", "control", "correlation")
        pairs = ((getattr(use, each), getattr(use, f"{each}_interval")) for each in figures)
        table.add_row(name, *starmap(_value, pairs))
    return table


_FIGURES: dict[Figure, str] = {
    "logit": "network's logit",
    "probability": "probability",
    "reproduced": "reproduced logit",
}


def curve_table(found: WhatIfTable) -> Table:
    """Areas under the curves of insertion and deletion."""
    from torchxnn.apps.what_if.table import ORDERS, WAYS

    table = Table(
        "",
        "order",
        *map(NUMBERS, (_FIGURES[figure] for figure in found.figures)),
        title="Area under the curve",
        title_justify="left",
        caption="Deletion: lower is better. Insertion: higher is better. Mean [95% interval].",
        caption_justify="left",
    )
    for way, order in product(WAYS, ORDERS):
        curves = [found.curve(way, order, each) for each in found.figures]
        cells = [_value(curve.area, curve.interval) for curve in curves]
        table.add_row(way, _ORDERS[order], *cells)
    return table


def _value(mean: float, interval: Any) -> str:
    return f"{mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
