"""What each measure against degenerate fits buys, on the same activations, in one run.

    python perf/fit_ablation.py --root CUB --weights cub50_squeezenet.safetensors --out DIR
    python perf/fit_ablation.py --data solar --out DIR

Each row adds one measure to the row above; the last row is the default of `TrainConfig`. Figures
are means over the classes, on test images that neither fitted nor stopped anything; "degenerate"
counts classes with fewer than 2 active x-features or R^2 below 0.5 there. Writes `ablation.json`
and `ablation.md`.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from torchxnn.apps.demo import prepare_cub, prepare_solar
from torchxnn.data.activations import Activations
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.positives import find_positives
from torchxnn.data.record import record_activations
from torchxnn.errors import DegenerateFitWarning, XNNError
from torchxnn.metrics import Faithfulness, measure_faithfulness
from torchxnn.storage.files import replace_file
from torchxnn.training.config import TrainConfig
from torchxnn.training.fit import fit_embedding

CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class Ablation:
    """Settings of the benchmark."""

    out: Path
    """folder for the JSON and the table"""
    data: Literal["cub", "solar"] = "cub"
    root: Path | None = None
    """for cub: the official layout"""
    weights: Path | None = None
    """for cub: state dict of torchxnn.models.bundled:squeezenet_with_head"""
    classes: int = 10
    """number of classes, evenly spaced, for cub"""
    seed: int = 0
    threads: int = 1


def rows(seed: int) -> dict[str, TrainConfig]:
    """The settings of each row, from a plain implementation of eq. 5 to the default."""
    full = TrainConfig(seed=seed)
    one = replace(full, trials=1)
    plain = replace(
        one,
        pull_away="cosine",
        positive_share=None,
        pretrain_epochs=0,
        split_logit=False,
        revive=None,
    )
    weighted = replace(plain, positive_share=full.positive_share)
    pretrained = replace(weighted, pretrain_epochs=full.pretrain_epochs)
    started = replace(pretrained, split_logit=True)
    revived = replace(started, revive=full.revive)
    return {
        "plain eq. 5": plain,
        "+ weight on positives": weighted,
        "+ greedy pretraining": pretrained,
        "+ x-layer starts as parts of the logit": started,
        "+ revival of weak x-features": revived,
        "+ correlations instead of cosines": replace(revived, pull_away="correlation"),
        "+ centred within classes": one,
        "+ up to 3 trials (default)": full,
    }


def load(settings: Ablation) -> tuple[Activations, Activations | None, Activations, list[int]]:
    """Training, validation and test activations, and the classes."""
    if settings.data == "solar":
        setup = prepare_solar(settings.seed)
        classes = [setup.target]
    else:
        if settings.root is None or settings.weights is None:
            raise SystemExit("--data cub needs --root and --weights")
        setup = prepare_cub(settings.root, settings.weights)
        step = len(setup.classes) // settings.classes
        classes = list(range(len(setup.classes) - 1, -1, -step))[: settings.classes][::-1]
    held_out = setup.validation
    parts = [
        None if part is None else record_activations(setup.model, setup.layer, make_loader(part))
        for part in (setup.train, held_out, setup.test)
    ]
    return parts[0], parts[1], parts[2], classes  # type: ignore[return-value]


@torch.no_grad()
def measure(embedding: Any, data: Activations, target: int) -> Faithfulness:
    """Faithfulness on a data set."""
    features = embedding.encode(data.z)
    positives, _ = find_positives(data, [target])
    return measure_faithfulness(
        features,
        embedding.contributions(features),
        embedding.readout(features),
        data.logits,
        (target,),
        positives,
    )


def run_row(
    config: TrainConfig,
    parts: tuple[Activations, Activations | None, Activations],
    classes: list[int],
) -> list[dict[str, Any]]:
    """One fit per class; a fit that fails is reported as such."""
    results = []
    for target in classes:
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DegenerateFitWarning)
                embedding, report = fit_embedding(parts[0], parts[1], [target], 5, config)
        except XNNError as error:
            results.append({"target": target, "failed": str(error)})
            continue
        seconds = time.perf_counter() - start
        figures = measure(embedding, parts[2], target)
        results.append(
            {
                "target": target,
                "seconds": seconds,
                "trials": report.trials,
                "epochs": report.epochs,
                "degenerate": list(figures.degenerate),
                "top_share": max(figures.share[0]),
                **asdict(figures),
            }
        )
    return results


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table of means over the classes."""
    lines = [
        "| setting | R² | F_reg | F_reg pos. | F_cls | F_cls pos. | active | dead | top share |"
        " degenerate | s per class (median) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, all_classes in results.items():
        good = [r for r in all_classes if "failed" not in r]
        failed = len(all_classes) - len(good)

        def mean(key: str, good: list[dict[str, Any]] = good) -> float:
            return statistics.mean(r[key] for r in good)

        degenerate = sum(bool(r["degenerate"]) for r in good)
        note = f" (+{failed} failed)" if failed else ""
        lines.append(
            f"| {name} | {mean('r2'):.3f} | {mean('f_reg'):.3f} | {mean('f_reg_positives'):.3f} |"
            f" {mean('f_cls'):.2%} | {mean('f_cls_positives'):.1%} | {mean('active'):.1f} |"
            f" {mean('dead'):.1f} | {mean('top_share'):.2f} |"
            f" {degenerate} of {len(good)}{note} |"
            f" {statistics.median(r['seconds'] for r in good):.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all rows and write the results after each."""
    settings = tyro.cli(Ablation)
    torch.set_num_threads(settings.threads)
    train, validation, test, classes = load(settings)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, config in rows(settings.seed).items():
        CONSOLE.print(f"{name} ...")
        results[name] = run_row(config, (train, validation, test), classes)
        about = {"classes": classes, "threads": settings.threads, "seed": settings.seed}
        text = json.dumps({**about, "rows": results}, indent=1)
        replace_file(settings.out / "ablation.json", text.encode())
        replace_file(settings.out / "ablation.md", table(results).encode())
    print(table(results))


if __name__ == "__main__":
    main()
