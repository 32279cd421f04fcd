"""`xnn demo`: prepare a network, fit, evaluate, draw, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.progress import Progress

from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import describe_source
from torchxnn.cli.terminal import Terminal, count_drawings, count_epochs, count_images
from torchxnn.errors import DataError
from torchxnn.training.config import TrainConfig

if TYPE_CHECKING:
    from torchxnn.apps.demo import DemoSetup
    from torchxnn.apps.report.content import Report
    from torchxnn.apps.solar_cells import ExampleName, SeenCells
    from torchxnn.data.activations import Activations
    from torchxnn.explanations.names.judgements import FeatureNames
    from torchxnn.training.report import FitReport
    from torchxnn.xnn import XNN

NETWORK = "network.safetensors"


@dataclass(frozen=True)
class Demo:
    """Prepare a small network, explain it, and write a report."""

    data: Literal["solar", "cub", "planted"] = "solar"
    """solar: solar cells from the elpv-dataset package; cub: the European Goldfinch of CUB;
    planted: drawn shapes and a network whose reasons are known, without any photographs"""
    root: Path | None = None
    """for cub: folder in the official CUB-200-2011 layout"""
    weights: Path | None = None
    """for cub: weights of torchxnn.models.bundled:squeezenet_with_head"""
    out: Path = Path("demo")
    """folder for the report and the XNN"""
    seed: int = 0
    """of the head's training and of the fit"""

    def execute(self, terminal: Terminal) -> None:
        """Prepare, fit, evaluate, report; print the tables of faithfulness.

        Raises:
            DataError: `root` or `weights` is missing for "cub".
        """
        with computing():
            from torchxnn.apps.report.build import build_report
            from torchxnn.apps.report.write import write_with_card
            from torchxnn.cli.tables import evaluation_table, fit_table
            from torchxnn.data.datasets.base import make_loader
            from torchxnn.data.record import record_activations
            from torchxnn.storage.files import check_replaceable, check_writable
            from torchxnn.storage.saved_folder import MARKER

        start = time.perf_counter()
        check_replaceable(self.out / "xnn", MARKER)
        check_writable(self.out / "report.html")
        with terminal.progress() as progress:
            setup = self._prepare(progress)
            xnn, fit = self._fit(setup, progress)
            data = record_activations(
                xnn.model,
                xnn.layer,
                make_loader(setup.test),
                count_images(progress, "Running the network on test images", len(setup.test)),
            )
            examples = setup.seen.examples(xnn.fitted(), data) if setup.seen else ()
            self._save(xnn, examples)
            truth = setup.truth
            compared = truth.compare(xnn, data) if truth else None
            known = compared.sentences if compared else ()
            report = build_report(
                xnn,
                setup.test,
                title=setup.title,
                model_name=setup.network,
                known=known,
                notes=setup.notes,
                provenance=(("Weights", self._network_file().name),),
                on_drawing=count_drawings(progress, "Drawing heatmaps"),
                data=data,
                in_image=truth.in_image if truth else None,
            )
            page = self.out / "report.html"
            said = (
                self._remarks(setup.seen, data, examples, xnn.names, report) if setup.seen else ()
            )
            report = replace(report, remarks=said)
            if compared:
                report = replace(report, subtitle=compared.headline, reasons=compared.reasons)
            write_with_card(report, self.out / "xnn", xnn, page)
        measured = report.measured()
        terminal.show(fit_table(fit), *([evaluation_table(measured)] if measured else []))
        terminal.say(*known, *said)
        terminal.say(*setup.notes, style="dim")
        seconds = time.perf_counter() - start
        terminal.say(f"Wrote {page} after {seconds:.0f} s; open it in a browser.")

    def _save(self, xnn: XNN, examples: Sequence[ExampleName]) -> None:
        """Save it with names by rule; those that people gave to the same fit are its names, too."""
        from torchxnn.apps.solar_cells import drop_examples, with_examples
        from torchxnn.explanations.names.file import read_names

        folder = self.out / "xnn"
        drop_examples(folder)
        xnn.names = with_examples(xnn.names, examples)
        xnn.save_pretrained(folder)
        xnn.names = read_names(folder, xnn.weights_sha256, xnn.names.n_features)

    def _remarks(
        self,
        seen: SeenCells,
        data: Activations,
        examples: Sequence[ExampleName],
        names: FeatureNames,
        report: Report,
    ) -> tuple[str, ...]:
        import torch

        from torchxnn.apps.solar_cells import remarks

        found = report.evaluation or report.fit.validation
        return remarks(
            seen,
            data,
            examples,
            names,
            found.share[0],
            torch.cat([each.heatmaps for each in report.explanations]),
            {sheet.name: [item.image for item in sheet.items] for sheet in report.sheets},
            self.out / "xnn",
        )

    def _prepare(self, progress: Progress) -> DemoSetup:
        from torchxnn.apps.demo import prepare_cub, prepare_planted, prepare_solar

        if self.data == "solar":
            return prepare_solar(self.seed, progress)
        if self.data == "planted":
            return prepare_planted(self.seed)
        if self.root is None or self.weights is None:
            raise DataError("xnn demo --data cub needs --root DIR and --weights FILE")
        return prepare_cub(self.root, self.weights)

    def _fit(self, setup: DemoSetup, progress: Progress) -> tuple[XNN, FitReport]:
        """The XNN, which `xnn explain OUT/xnn IMAGE` will find its network for, and its fit."""
        from safetensors.torch import save

        from torchxnn.data.datasets.base import make_loader
        from torchxnn.parallel.process import one_thread
        from torchxnn.storage.files import replace_file
        from torchxnn.xnn import XNN

        if self.weights is None:
            state = {name: value.contiguous() for name, value in setup.model.state_dict().items()}
            replace_file(self._network_file(), save(state))
        xnn = XNN(
            setup.model,
            setup.layer,
            class_names=setup.classes,
            preprocessing=setup.preprocessing,
            source=describe_source(
                setup.factory, self._network_file(), False, setup.network, setup.test.name
            ),
        )
        config = TrainConfig(seed=self.seed)
        held_out = setup.validation
        images = len(setup.train) + (0 if held_out is None else len(held_out))
        # the planted layer is so small that more threads would only wait
        with one_thread() if self.data == "planted" else nullcontext():
            report = xnn.fit(
                make_loader(setup.train),
                setup.target,
                None if held_out is None else make_loader(held_out),
                config,
                count_images(progress, "Recording activations", images),
                count_epochs(progress, "Fitting", config.epochs),
            )
        return xnn, report

    def _network_file(self) -> Path:
        return self.weights or self.out / NETWORK
