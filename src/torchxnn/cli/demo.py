"""`xnn demo`: prepare a network, fit, evaluate, draw, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save as save_tensors

from torchxnn.apps.demo import DemoSetup, prepare_cub, prepare_solar
from torchxnn.apps.report import write_report
from torchxnn.apps.report.build import build_report
from torchxnn.cli.progress import count_drawings, count_epochs, count_images, make_progress
from torchxnn.cli.saved_run import describe_source
from torchxnn.cli.terminal import evaluation_table, fit_table
from torchxnn.data.datasets.base import make_loader
from torchxnn.errors import DataError
from torchxnn.storage.files import check_replaceable, replace_file
from torchxnn.storage.saved_folder import MARKER
from torchxnn.training.config import TrainConfig
from torchxnn.training.report import FitReport
from torchxnn.xnn import XNN

NETWORK = "network.safetensors"


def run_demo(
    data: Literal["solar", "cub"],
    root: Path | None,
    weights: Path | None,
    out: Path,
    seed: int,
    console: Console,
    errors: Console,
) -> None:
    """The demonstration from pictures to report; prints the faithfulness tables.

    Args:
        data: which demonstration.
        root: CUB folder, for "cub".
        weights: the network's weights, for "cub".
        out: folder that receives `report.html`, the saved XNN and the network's weights.
        seed: of everything random.
        console: for results.
        errors: for progress bars.

    Raises:
        DataError: `root` or `weights` is missing for "cub".
    """
    start = time.perf_counter()
    check_replaceable(out / "xnn", MARKER)
    with make_progress(errors) as progress:
        setup = _prepare(data, root, weights, seed, progress)
        xnn = XNN(
            setup.model,
            setup.layer,
            class_names=setup.classes,
            preprocessing=setup.preprocessing,
            source=describe_source(
                setup.factory, weights or out / NETWORK, False, setup.network, setup.test.name
            ),
        )
        fit = _fit(xnn, setup, seed, progress)
        weights_name = _save(xnn, setup, out, weights)
        evaluation = xnn.evaluate(
            make_loader(setup.test),
            on_batch=count_images(progress, "Evaluating on test images", len(setup.test)),
        )
        report = build_report(
            xnn,
            setup.test,
            title=setup.title,
            model_name=setup.network,
            notes=setup.notes,
            provenance=(("Weights", weights_name),),
            on_batch=count_images(progress, "Looking for examples", len(setup.test)),
            on_drawing=count_drawings(progress, "Drawing heatmaps"),
        )
        write_report(report, out / "report.html")
    if setup.accuracy is not None:
        console.print(f"{setup.network}: {setup.accuracy:.1%} of the test pictures right")
    console.print(fit_table(fit))
    console.print(evaluation_table(evaluation))
    for note in setup.notes:
        console.print(note, style="dim", highlight=False, markup=False)
    seconds = time.perf_counter() - start
    console.print(f"Wrote {out / 'report.html'} after {seconds:.0f} s; open it in a browser.")


def _prepare(
    data: str, root: Path | None, weights: Path | None, seed: int, progress: Progress
) -> DemoSetup:
    if data == "solar":
        return prepare_solar(seed, progress)
    if root is None or weights is None:
        raise DataError("xnn demo --data cub needs --root DIR and --weights FILE")
    return prepare_cub(root, weights)


def _fit(xnn: XNN, setup: DemoSetup, seed: int, progress: Progress) -> FitReport:
    config = TrainConfig(seed=seed)
    total = len(setup.train) + (len(setup.validation) if setup.validation is not None else 0)
    return xnn.fit(
        make_loader(setup.train),
        setup.target,
        None if setup.validation is None else make_loader(setup.validation),
        config,
        count_images(progress, "Recording activations", total),
        count_epochs(progress, "Fitting", config.epochs),
    )


def _save(xnn: XNN, setup: DemoSetup, out: Path, weights: Path | None) -> str:
    """Save the XNN so that `xnn explain OUT/xnn IMAGE` works; return where the network lies."""
    if weights is None:
        weights = out / NETWORK
        state = {key: value.contiguous() for key, value in setup.model.state_dict().items()}
        replace_file(weights, save_tensors(state))
    xnn.save_pretrained(out / "xnn")
    return weights.name
