"""Many classes at once against the straightforward loop over classes, in one run.

    python perf/fit_speed.py --root CUB --weights cub50_squeezenet.safetensors --json fit_speed.json

The loop is what one would write down from the formulas: one class after the other, each with its
own independent components, pretraining and subspace, then `torch.optim.Adam` as it comes on eq. 5,
`torch.multinomial` for the batches, the exact held-out losses after every epoch, on all threads. It
is run twice per class: with the settings of `fit_many` (`same`), and with those that were the
default of `TrainConfig` before the subspace was (`before`: all of Z, 100 epochs, a tenth of the
learning rate after 60). It leaves out the revival of x-features that are off on every positive.
Ours is `fit_many` with the default settings, in one process of one thread per core, whose start is
part of the time. All have one trial, the same images, seeds and stopping rule.

The loop takes some classes alone (`--loop-classes`), `fit_many` all. The JSON has `ratio_before`
and `ratio_same`: the median seconds of the loop per class times the classes, over the median
seconds of `fit_many`. `--baselines` adds NMF and a top-k SAE with as many concepts on
the same activations. `--scaling` measures how time grows with classes, images, dimensions and
x-features on generated activations, for which no data are needed, and draws the curves.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from torchxnn.apps.benchmark.record import record_task
from torchxnn.apps.benchmark.tasks import TaskSource, open_cub
from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives, sample_weights, split_kinds
from torchxnn.embeddings.concepts import with_readout
from torchxnn.embeddings.linear import group_moments, lstsq, second_moments
from torchxnn.embeddings.nmf import fit_nmf
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.topk_sae import TopKConfig, fit_topk_sae
from torchxnn.errors import XNNWarning
from torchxnn.metrics import measure_faithfulness
from torchxnn.parallel.engine import LocalEngine
from torchxnn.parallel.process import one_thread
from torchxnn.storage.files import replace_file
from torchxnn.training import losses
from torchxnn.training.class_results import ManyFits
from torchxnn.training.components import hold_near_components
from torchxnn.training.config import ComputeConfig, Losses, ManyConfig, TrainConfig
from torchxnn.training.initialise import SharedStarts, VectorStarter
from torchxnn.training.many import BLOCK, fit_many
from torchxnn.training.objective import full_set_losses
from torchxnn.training.schedule import Schedule, trial_generator
from torchxnn.training.split import Split

CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class Speed:
    """Settings of the benchmark."""

    root: Path | None = None
    """CUB-200-2011, or a part of it, in the official layout"""
    weights: Path | None = None
    """state dict of torchxnn.models.bundled:squeezenet_with_head"""
    classes: int = 50
    """number of classes of fit_many, evenly spaced"""
    loop_classes: int = 3
    """number of them that the loop fits"""
    json: Path | None = None
    """file to write the figures to, and to go on with"""
    cache: Path = Path("runs/fit_speed")
    """folder to keep the recorded activations in"""
    baselines: bool = False
    """fit methods that see no target, too"""
    n_features: int = 5
    seed: int = 0
    epochs: int | None = None
    """ours; None for the default"""
    slots: int | None = None
    """ours; None for the default"""
    jobs: int = os.cpu_count() or 1
    """processes, ours"""
    repeats: int = 1
    """of ours"""

    def ours(self) -> TrainConfig:
        """Settings of `fit_many`."""
        config = TrainConfig(seed=self.seed, trials=1)
        return config if self.epochs is None else replace(config, epochs=self.epochs)

    def loops(self) -> dict[str, TrainConfig]:
        """Settings of the two loops."""
        ours = self.ours()
        return {
            "same": ours,
            "before": replace(ours, subspace=None, epochs=2 * ours.epochs, decay_every=60),
        }


# The straightforward loop


def make_split(data: Activations, target: int, config: TrainConfig) -> Split:
    """One class's part of the data."""
    positives, _ = find_positives(data, [target])
    weights = sample_weights(data, [target], config.positive_share)
    return Split(data, data.logits[:, [target]], positives, weights)


def start_of(
    train: Activations, validation: Activations, target: int, n: int, config: TrainConfig
) -> tuple[SRAE, Split, Split, torch.Generator]:
    """What the loop begins a class with, nothing of it shared with another class."""
    starts = SharedStarts()
    splits = (make_split(each, target, config) for each in (train, validation))
    split, held_out = hold_near_components(*splits, [target], n, config, starts).splits
    generator = trial_generator(config.seed, 0)
    return VectorStarter(split, n, config, generator, starts).embedding, split, held_out, generator


def loop_over_one(
    train: Activations, validation: Activations, target: int, n: int, config: TrainConfig
) -> tuple[SRAE, Losses, int, float, float]:
    """Fit one class: embedding, held-out losses, epochs, seconds, seconds of the start."""
    begin = time.perf_counter()
    srae, split, held_out, generator = start_of(train, validation, target, n, config)
    spread = split.logits.std(0, correction=0)
    started = time.perf_counter() - begin
    optimizer = torch.optim.Adam(
        srae.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    groups = split.groups(config.pull_away)
    if groups is None:
        raise ValueError("the loop centres x-features")
    shares = split.weights @ groups
    best, best_epoch = full_set_losses(srae, held_out, spread, config), 0
    state = copy.deepcopy(srae.state_dict())
    steps = max(1, len(train) // config.batch_size)
    means: dict[str, torch.Tensor] = {}

    def mean(name: str, batch: torch.Tensor) -> torch.Tensor:
        old = means.get(name, batch.detach())
        means[name] = torch.lerp(old, batch.detach(), 1 / steps)
        return means[name] + batch - batch.detach()

    for epoch in range(1, config.epochs + 1):
        optimizer.param_groups[0]["lr"] = Schedule(config, best, epoch - 1).learning_rate
        draws = torch.multinomial(
            split.weights, steps * config.batch_size, replacement=True, generator=generator
        )
        for index in draws.split(config.batch_size):
            z, logits = train.z[index], split.logits[index]
            e = srae.encode(z)
            errors = losses.reconstruction_errors(srae.decode(e) / srae.scale, z / srae.scale)
            loss = losses.faithfulness(srae.readout(e) / spread, logits / spread)
            loss = loss + config.beta * losses.sparse_reconstruction(mean("q", errors), config.q)
            moments = mean("moments", second_moments(e))
            first = mean("means", group_moments(e, groups[index]))
            loss = loss + config.eta * losses.pull_away(moments, first, shares)
            if split.components is not None:
                apart = (e * srae.readout.weight - split.components[index]) / spread
                loss = loss + config.components * apart.square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        current = full_set_losses(srae, held_out, spread, config)
        if current.total < best.total:
            best, best_epoch = current, epoch
            state = copy.deepcopy(srae.state_dict())
        if epoch - best_epoch >= config.patience:
            break
    srae.load_state_dict(state)
    return srae.expanded().eval(), best, epoch, time.perf_counter() - begin, started


# The comparison


FIGURES = ("loss", "epochs", "r2", "f_reg", "f_reg_positives", "active")


def quality(embedding: Any, data: Activations, target: int) -> dict[str, float]:
    """Faithfulness on a set, and the active x-features."""
    with torch.no_grad():
        e = embedding.encode(data.z)
        found = measure_faithfulness(
            e,
            embedding.contributions(e),
            embedding.readout(e),
            data.logits,
            (target,),
            find_positives(data, [target])[0],
        )
    return {name: getattr(found, name) for name in FIGURES if hasattr(found, name)}


def compare(settings: Speed) -> dict[str, Any]:
    """Both loops and `fit_many` on the same activations; goes on with what is on record."""
    if settings.root is None or settings.weights is None:
        raise SystemExit("give --root and --weights")
    record = begun(settings)
    task = open_cub(TaskSource("cub", settings.root, settings.weights))
    settings.cache.mkdir(parents=True, exist_ok=True)
    CONSOLE.print(f"Activations of {len(task.train)} training and {len(task.test)} test images")
    recorded = record_task(task, 0, settings.cache, jobs=settings.jobs)
    data, test = recorded.train, recorded.test
    if data.labels is None:
        raise SystemExit("the data need labels")
    mask = split_kinds(data.labels, settings.ours().validation_share, settings.seed)
    train, validation = data.select(~mask), data.select(mask)
    wanted = spaced(data.logits.shape[1], settings.classes)
    rows, runs = record["rows"], record["seconds_of_runs"]
    while len(runs) < settings.repeats:
        seconds, fits = run_ours(settings, train, validation, wanted)
        runs.append(seconds)
        if len(runs) == 1:
            rows += [row_of_ours(fits, target, test) for target in wanted]
        write(settings, record)
    for number, place in enumerate(spaced(len(wanted), settings.loop_classes)):
        names = list(settings.loops())
        for name in names if number % 2 else names[::-1]:  # neither is always the first
            known = {"target": wanted[place], "loop": name}
            if not any(known.items() <= row.items() for row in rows):
                row = run_loop(settings, train, validation, test, wanted[place], name)
                rows.append({**known, **row})
                write(settings, record)
    result = {**record, **summarise(settings, rows, runs)}
    if settings.baselines:
        result["baselines"] = baselines(settings, train, test, wanted)
    result["machine"] = {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": [len(train), len(validation), len(test)],
        "dims": train.z.shape[1],
    }
    return result


DECIDE = ("classes", "n_features", "seed", "epochs", "slots", "jobs")
"""Settings without which runs cannot be compared."""


def begun(settings: Speed) -> dict[str, Any]:
    """What the JSON has of earlier calls with these settings; nothing without one."""
    own = {name: getattr(settings, name) for name in DECIDE}
    if settings.json is None or not settings.json.exists():
        return {"begun_with": own, "rows": [], "seconds_of_runs": []}
    found: dict[str, Any] = json.loads(settings.json.read_text("utf-8"))
    if found.get("begun_with") != own:
        raise SystemExit(f"{settings.json} was begun with {found.get('begun_with')}, not {own}")
    return found


def write(settings: Speed, record: dict[str, Any]) -> None:
    """Write what there is so far."""
    if settings.json is not None:
        replace_file(settings.json, (json.dumps(record, indent=1) + "\n").encode())


def spaced(count: int, most: int) -> list[int]:
    """Places among so many, evenly spaced."""
    return [i * count // most for i in range(min(most, count))]


def run_ours(
    settings: Speed, train: Activations, validation: Activations, wanted: list[int]
) -> tuple[float, ManyFits]:
    """Seconds of `fit_many` over all classes, its processes' start included, and the fits."""
    begin = time.perf_counter()
    jobs = max(1, min(settings.jobs, len(wanted) // 2))
    per_job = -(-len(wanted) // jobs)
    fits = fit_many(
        Activations(train.z, train.logits, train.labels),
        wanted,
        validation=validation,
        n_features=settings.n_features,
        config=settings.ours(),
        compute=ComputeConfig(slots=settings.slots),
        many=ManyConfig(block=-(-per_job // -(-per_job // BLOCK))),
        engine=LocalEngine(jobs),
    )
    seconds = time.perf_counter() - begin
    CONSOLE.print(f"fit_many: {len(wanted)} classes in {seconds:.1f} s")
    return seconds, fits


def run_loop(
    settings: Speed,
    train: Activations,
    validation: Activations,
    test: Activations,
    target: int,
    name: str,
) -> dict[str, Any]:
    """One class of one of the loops: its figures."""
    config = settings.loops()[name]
    own = Activations(train.z, train.logits, train.labels)  # nothing that was computed is shared
    found = loop_over_one(own, validation, target, settings.n_features, config)
    embedding, lowest, epochs, seconds, started = found
    CONSOLE.print(f"loop, {name}: class {target} in {seconds:.1f} s, {epochs} epochs")
    times = {"seconds": seconds, "start_seconds": started}
    return {**times, "loss": lowest.total, "epochs": epochs, **quality(embedding, test, target)}


def row_of_ours(fits: ManyFits, target: int, test: Activations) -> dict[str, Any]:
    """One class of `fit_many`: its figures."""
    fitted = next(each for each in fits.classes if each.targets == (target,))
    if fitted.report is None:
        raise SystemExit(f"class {target}: {fitted.error}")
    report = fitted.report
    about = {"loss": report.validation_losses.total, "epochs": report.epochs}
    figures = quality(fits.embedding(target), test, target)
    return {"target": target, "loop": "fit_many", **about, **figures}


def summarise(settings: Speed, rows: list[dict[str, Any]], runs: list[float]) -> dict[str, Any]:
    """Ratios and means; figures of `fit_many` are also given of the loop's classes alone."""
    seconds = statistics.median(runs)
    loops = {name: [r for r in rows if r["loop"] == name] for name in settings.loops()}
    looped = {row["target"] for row in loops["same"]}
    ours = [row for row in rows if row["loop"] == "fit_many"]
    found: dict[str, Any] = {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "classes": len(ours),
        "seconds": seconds,
        "seconds_of_runs": runs,
        "rows": rows,
    }
    sets = {**loops, "fit_many": [r for r in ours if r["target"] in looped], "all": ours}
    found["means"] = {
        name: {k: statistics.mean(row[k] for row in some) for k in FIGURES}
        for name, some in sets.items()
    }
    for name, some in loops.items():
        per_class = statistics.median(row["seconds"] for row in some)
        found[f"seconds_per_class_{name}"] = per_class
        found[f"ratio_{name}"] = per_class * len(ours) / seconds
    return found


# Methods that see no target, with as many concepts


def baselines(
    settings: Speed, train: Activations, test: Activations, wanted: list[int]
) -> dict[str, Any]:
    """Seconds and mean test R^2 of NMF (CRAFT) and a top-k SAE, with a readout per class."""
    found: dict[str, Any] = {}
    fits: dict[str, Callable[[], Any]] = {
        "NMF": lambda: fit_nmf(train.z, settings.n_features, seed=settings.seed),
        "TopK-SAE": lambda: fit_topk_sae(
            train.z, settings.n_features, TopKConfig(seed=settings.seed)
        ),
    }
    for name, fit in fits.items():
        begin = time.perf_counter()
        with warnings.catch_warnings(), one_thread():
            warnings.simplefilter("ignore", XNNWarning)
            embedding = fit()
        seconds = time.perf_counter() - begin
        e = embedding.encode(train.z)
        values = []
        for target in wanted:
            weights = sample_weights(train, (target,), settings.ours().positive_share)
            own = with_readout(embedding, e, train.logits[:, [target]], weights)
            values.append(quality(own, test, target)["r2"])
        found[name] = {"seconds": seconds, "mean_test_r2": statistics.mean(values)}
    found["TopK-SAE (overcomplete)"] = overcomplete_sae(settings, train, test, wanted)
    return found


def overcomplete_sae(
    settings: Speed, train: Activations, test: Activations, wanted: list[int]
) -> dict[str, Any]:
    """The same model of the package `overcomplete`, if it is installed (`pip install --no-deps`).

    Its drawing functions do not import beside a recent matplotlib; they are left out.
    """
    pictures = types.ModuleType("overcomplete.visualization")
    pictures.__getattr__ = lambda name: None  # type: ignore[method-assign]
    sys.modules.setdefault(pictures.__name__, pictures)
    try:
        from overcomplete.sae import TopKSAE, train_sae
    except ImportError as error:
        return {"missing": str(error)}
    torch.manual_seed(settings.seed)
    scale = train.z.std()
    top_k = -(-settings.n_features // 2)
    sae = TopKSAE(train.z.shape[1], nb_concepts=settings.n_features, top_k=top_k, device="cpu")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(train.z / scale), batch_size=128, shuffle=True
    )
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)

    def criterion(x: Any, x_hat: Any, *_: Any) -> Any:
        return (x - x_hat).square().mean()

    begin = time.perf_counter()
    train_sae(sae, loader, criterion, optimizer, nb_epochs=100, monitoring=0, device="cpu")
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        e, other = (sae.encode(part.z / scale)[1] for part in (train, test))
    values = []
    for target in wanted:
        weights = (
            sample_weights(train, (target,), settings.ours().positive_share).sqrt().unsqueeze(1)
        )
        ones = [torch.cat([x, torch.ones(len(x), 1)], 1) for x in (e, other)]
        solution = lstsq(
            (weights * ones[0]).double(), (weights * train.logits[:, [target]]).double()
        )
        logit = test.logits[:, target].double()
        rest = ones[1].double() @ solution[:, 0] - logit
        values.append(float(1 - rest.square().sum() / (logit - logit.mean()).square().sum()))
    return {"seconds": seconds, "mean_test_r2": statistics.mean(values)}


# In words and numbers


def show(result: dict[str, Any]) -> None:
    """Print the comparison."""
    table = Table(title=f"{result['classes']} classes, {result['machine']['images']} images")
    columns = {"before": "loop, before", "same": "loop, same", "fit_many": "fit_many"}
    for name in ("", *columns.values(), "fit_many, all"):
        table.add_column(name, justify="left" if not name else "right")
    spread = ", ".join(f"{s:.1f}" for s in result["seconds_of_runs"])
    loops = [f"{result[f'seconds_per_class_{name}']:.2f}" for name in ("before", "same")]
    ours = f"{result['seconds'] / result['classes']:.3f}"
    table.add_row("seconds per class (median)", *loops, ours, f"all in {spread}")
    ratios = [f"[bold]{result[f'ratio_{name}']:.1f}[/]" for name in ("before", "same")]
    table.add_row("the same over that of fit_many", *ratios, "1", "")
    for name in FIGURES:
        values = [result["means"][column][name] for column in (*columns, "all")]
        table.add_row(name, *(f"{value:.3f}" for value in values))
    CONSOLE.print(table)
    for name, row in result.get("baselines", {}).items():
        CONSOLE.print(f"{name}: {row}")


def main() -> None:
    """Run what is missing, print, write."""
    settings = tyro.cli(Speed)
    result = compare(settings)
    show(result)
    write(settings, result)


if __name__ == "__main__":
    main()
