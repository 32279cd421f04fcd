"""`xnn explain`: why images are what the model says they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import SavedRun, folder_names
from torchxnn.cli.terminal import Terminal, say_cost
from torchxnn.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from torchxnn.apps.what_if.result import WhatIf
    from torchxnn.xnn import XNN


@dataclass(frozen=True)
class Explain(SavedRun):
    """Explain images: a folder with PNGs, JSON and an HTML page for each."""

    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE [IMAGE ...]")]
    """image files"""
    out: Path = Path("explanations")
    """folder to write one folder per image into"""
    method: str | None = None
    """attribution method, from docs/attribution_methods.md, which says what is taken otherwise"""
    against: Path | None = None
    """folder of another XNN of the same model: also say why one class rather than the other"""
    what_if: bool = False
    """also paint over each x-feature's region, and say of which that shows the network's use; about
    100 runs of the network per x-feature (see xnn whatif for settings)"""

    def execute(self, terminal: Terminal) -> None:
        """Explain each image; unreadable ones are skipped and counted."""
        with computing():
            from torchxnn.data.datasets.images import read_input
            from torchxnn.explanations.contrast import contrast
            from torchxnn.explanations.drawing import figure  # noqa: F401 - drawn in any case
            from torchxnn.xnn import XNN

        xnn = self.load()
        other = None if self.against is None else XNN.from_pretrained(self.against, xnn.model)
        if not self.images:
            raise DataError("no images given")
        preprocessing = xnn.preprocessing
        skipped: list[str] = []
        told = False
        for path, name in zip(self.images, folder_names(self.images), strict=True):
            try:
                image = read_input(path, preprocessing).to(xnn.device)
            except DataError as error:
                skipped.append(str(error))
                continue
            folder = self.out / name
            explanation = xnn.explain(image, path=path.name, method=self.method)
            if self.what_if and not told:
                self._say_cost(xnn, image, terminal)
                told = True
            taken = self._what_if(xnn, image, path.name)
            if taken is not None:
                explanation = replace(explanation, used=taken.uses())
            found = None
            if other is not None:  # before anything is written over what lies there
                second = other.explain(image, path=path.name, method=self.method)
                found = contrast(explanation, second)
            explanation.save(folder)
            terminal.say(explanation.summary(), f"  {folder}/explanation.html")
            if taken is not None:
                taken.save(folder / "what_if")
                terminal.say(f"  {folder}/what_if/what_if.html")
            if found is not None:
                found.save(folder / "contrast")
                terminal.say(found.sentence(), f"  {folder}/contrast/contrast.html")
        if skipped:
            terminal.complain(f"{len(skipped)} of {len(self.images)} images skipped:")
            for line in skipped:
                terminal.complain(f"  {line}", "none")
        if len(skipped) == len(self.images):
            raise DataError("none of the images could be read")

    def _say_cost(self, xnn: XNN, image: Tensor, terminal: Terminal) -> None:
        from torchxnn.apps.what_if.one_image import expected_cost

        say_cost(terminal, *expected_cost(xnn, image), len(self.images))

    def _what_if(self, xnn: XNN, image: Tensor, name: str) -> WhatIf | None:
        if not self.what_if:
            return None
        from torchxnn.apps.what_if.one_image import what_if

        return what_if(xnn, image, path=name)
