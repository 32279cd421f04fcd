"""The command line; `xnn --help` lists its commands."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from torchxnn.cli.atlas import AtlasCommand
from torchxnn.cli.attribute import Attribute
from torchxnn.cli.benchmark import Cub, Mnist, Nyu, Places, SeedStability, Tune
from torchxnn.cli.cache import Cache
from torchxnn.cli.fit import Fit
from torchxnn.cli.name import Name
from torchxnn.cli.saved_run import SavedRun, open_for
from torchxnn.cli.study import (
    INSTALL,
    Analyse,
    Export,
    Init,
    PowerCommand,
    Preregister,
    Serve,
    Simulate,
    StudyDemo,
)
from torchxnn.cli.what_if import WhatIfCommand
from torchxnn.data.datasets.open import DataConfig
from torchxnn.errors import DataError, XNNError, XNNWarning
from torchxnn.models.load import load_model
from torchxnn.storage.artifact import to_json
from torchxnn.storage.files import replace_file

OUT, ERR = Console(), Console(stderr=True)


@dataclass(frozen=True)
class Layers:
    """List the layers of a model with output shapes, and mark those an XNN can be attached to."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME or package.module:factory"""
    size: int | None = None
    """height and width of the input in pixels; by default what the model expects"""

    def execute(self) -> None:
        """Print the table."""
        from torchxnn.cli.terminal import layers_table
        from torchxnn.models.layers import list_layers

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XNNWarning)  # random weights have the same shapes
            loaded = load_model(self.model, allow_random=True)
        size = self.size or loaded.preprocessing.size
        layers = list_layers(loaded.model, torch.zeros(1, 3, size, size))
        OUT.print(layers_table(self.model, size, layers))


@dataclass(frozen=True)
class Explain(SavedRun):
    """Explain images: a folder with PNGs, JSON and an HTML page for each."""

    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE [IMAGE ...]")]
    """image files"""
    out: Path = Path("explanations")
    """folder to write one folder per image into"""
    method: str = "excitation_backprop"
    """attribution method; docs/attribution_methods.md lists them"""
    against: Path | None = None
    """folder of another XNN of the same model: also say why one class rather than the other"""

    def execute(self) -> None:
        """Explain each image; unreadable ones are skipped and counted."""
        from torchxnn.data.datasets.images import read_image
        from torchxnn.explanations.contrast import contrast
        from torchxnn.xnn import XNN

        xnn = self.load()
        other = None if self.against is None else XNN.from_pretrained(self.against, xnn.model)
        if not self.images:
            raise DataError("no images given")
        preprocessing = xnn.preprocessing
        skipped: list[str] = []
        names: set[str] = set()
        for path in self.images:
            try:
                image = preprocessing(read_image(path))
            except DataError as error:
                skipped.append(str(error))
                continue
            explanation = xnn.explain(image.to(xnn.device), path=path.name, method=self.method)
            folder = self.out / _free_name(path.stem, names)
            explanation.save(folder)
            OUT.print(explanation.summary(), highlight=False, markup=False)
            OUT.print(f"  {folder}/explanation.html", highlight=False, markup=False)
            if other is not None:
                second = other.explain(image.to(xnn.device), path=path.name, method=self.method)
                found = contrast(explanation, second)
                found.save(folder / "contrast")
                OUT.print(found.sentence(), highlight=False, markup=False)
        if skipped:
            ERR.print(f"[yellow]{len(skipped)} of {len(self.images)} images skipped:[/]")
            for line in skipped:
                ERR.print(f"  {line}", markup=False, highlight=False)
        if len(skipped) == len(self.images):
            raise DataError("none of the images could be read")


@dataclass(frozen=True)
class Evaluate(SavedRun):
    """Measure how faithful and how orthogonal a saved XNN is on a folder of images."""

    data: Annotated[Positional[Path], arg(metavar="DIR")]
    """folder of images in class folders, or a CUB-200-2011 folder (its test split)"""
    maps: bool = True
    """draw heatmaps of the positives, for orthogonality; --no-maps is faster"""
    json: Path | None = None
    """file to write the figures to"""
    source: DataConfig = field(default_factory=DataConfig)

    def execute(self) -> None:
        """Measure, print, and write JSON if asked."""
        from torchxnn.cli.progress import count_images, make_progress
        from torchxnn.cli.terminal import evaluation_table

        xnn = self.load()
        with make_progress(ERR) as progress:
            opened = open_for(xnn, self.data, self.source, progress)
            evaluation = xnn.evaluate(
                self.source.loader(opened),
                maps=self.maps,
                on_batch=count_images(progress, "Evaluating", len(opened)),
            )
        OUT.print(evaluation_table(evaluation))
        if self.json is not None:
            _write_json(self.json, asdict(evaluation))


@dataclass(frozen=True)
class WriteReport(SavedRun):
    """Write one HTML file: figures of merit, explained images, a sheet for each x-feature."""

    data: Annotated[Positional[Path], arg(metavar="DIR")]
    """folder of images in class folders, or a CUB-200-2011 folder (its test split)"""
    out: Path = Path("report.html")
    """file to write"""
    images: int = 6
    """images explained in full"""
    sheet: int = 8
    """images per x-feature's sheet"""
    source: DataConfig = field(default_factory=DataConfig)

    def execute(self) -> None:
        """Gather and write the report."""
        from torchxnn.apps.report import write_report
        from torchxnn.apps.report.build import ReportConfig, build_report
        from torchxnn.cli.progress import count_drawings, count_images, make_progress

        xnn = self.load()
        with make_progress(ERR) as progress:
            opened = open_for(xnn, self.data, self.source, progress)
            report = build_report(
                xnn,
                opened,
                title=f"Why {' or '.join(xnn.target_name(t) for t in xnn.targets)}?",
                model_name=(xnn.source or {}).get("description", ""),
                provenance=(("Data", opened.name),),
                config=ReportConfig(
                    self.images, self.sheet, self.source.images_per_pass, self.source.workers
                ),
                on_batch=count_images(progress, "Recording activations", len(opened)),
                on_drawing=count_drawings(progress, "Drawing heatmaps"),
            )
            write_report(report, self.out)
        OUT.print(f"Wrote {self.out}", highlight=False, markup=False)


@dataclass(frozen=True)
class Check:
    """Check excitation backprop on a model: conservation per layer; do maps need the weights?"""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME or package.module:factory"""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="[IMAGE ...]")] = ()
    """real images to check on, beside random input"""
    weights: Path | None = None
    """state dict of the model; without it random weights are checked if there are no others"""
    target: int | None = None
    """output to explain; by default the one with the highest logit on the first image"""
    size: int | None = None
    """height and width of the input in pixels; by default what the model expects"""
    randomize: bool = False
    """destroy the weights layer by layer from the top and show how the maps change"""
    out: Path | None = None
    """with --randomize: PNG to draw the maps into"""
    seed: int = 0
    """of the random input and the random weights"""

    def execute(self) -> None:
        """Print a table per input, and the cascade if asked."""
        from torchxnn.apps.check import CheckConfig, run_check

        run_check(CheckConfig(**vars(self)), OUT, ERR)


@dataclass(frozen=True)
class Demo:
    """Train a small network on real photographs, explain it, and write a report."""

    data: Literal["solar", "cub"] = "solar"
    """solar: solar cells from the elpv-dataset package; cub: the European Goldfinch of CUB"""
    root: Path | None = None
    """for cub: folder in the official CUB-200-2011 layout"""
    weights: Path | None = None
    """for cub: weights of torchxnn.models.bundled:squeezenet_with_head"""
    out: Path = Path("demo")
    """folder for the report and the XNN"""
    seed: int = 0
    """of the head's training and of the fit"""

    def execute(self) -> None:
        """Prepare, fit, evaluate, report."""
        from torchxnn.cli.demo import run_demo

        run_demo(self.data, self.root, self.weights, self.out, self.seed, OUT, ERR)


@dataclass(frozen=True)
class Benchmark:
    """Rebuild the paper's evaluation: methods, metrics, tables and figures on a data set."""

    job: (
        Annotated[Cub, subcommand("cub")]
        | Annotated[Nyu, subcommand("nyu")]
        | Annotated[Places, subcommand("places")]
        | Annotated[Mnist, subcommand("mnist")]
        | Annotated[Tune, subcommand("tune")]
        | Annotated[SeedStability, subcommand("stability")]
    )

    def execute(self) -> None:
        """Run the chosen benchmark."""
        self.job.execute(OUT, ERR)


@dataclass(frozen=True)
class Study:
    """Run a human study (paper section 4.1): build it, serve it, analyse it."""

    job: (
        Annotated[Init, subcommand("init")]
        | Annotated[StudyDemo, subcommand("demo")]
        | Annotated[Serve, subcommand("serve")]
        | Annotated[Simulate, subcommand("simulate")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Analyse, subcommand("analyse")]
        | Annotated[PowerCommand, subcommand("power")]
        | Annotated[Preregister, subcommand("preregister")]
    )

    def execute(self) -> None:
        """Run the chosen job."""
        try:
            self.job.execute(OUT, ERR)
        except ModuleNotFoundError as error:
            raise XNNError(f"{error.name} is not installed; {INSTALL}") from error


Command = (
    Annotated[Layers, subcommand("layers")]
    | Annotated[Cache, subcommand("cache")]
    | Annotated[Fit, subcommand("fit")]
    | Annotated[Explain, subcommand("explain")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[WriteReport, subcommand("report")]
    | Annotated[Attribute, subcommand("attribute")]
    | Annotated[Name, subcommand("name")]
    | Annotated[AtlasCommand, subcommand("atlas")]
    | Annotated[WhatIfCommand, subcommand("whatif")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Benchmark, subcommand("benchmark")]
    | Annotated[Study, subcommand("study")]
    | Annotated[Demo, subcommand("demo")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can act on are one line and exit code 2."""
    try:
        command = tyro.cli(
            Command,
            prog="xnn",
            description="Explain a trained network as 'A is B because of C, D and E'.",
            args=argv,
            config=(OmitArgPrefixes,),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("always", XNNWarning)
            warnings.showwarning = _show_warning
            command.execute()
    except BrokenPipeError:  # whoever read the output has seen enough, as in `xnn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (XNNError, OSError) as error:
        ERR.print(f"xnn: error: {_one_line(error)}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        ERR.print("xnn: interrupted; nothing half-written is left behind", style="red")
        return 130
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, XNNWarning):
        ERR.print(f"xnn: warning: {message}", style="yellow", markup=False, highlight=False)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _free_name(stem: str, taken: set[str]) -> str:
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def _write_json(path: Path, values: dict[str, Any]) -> None:
    replace_file(path, to_json(values))


if __name__ == "__main__":
    sys.exit(main())
