"""Many classes at once against the straightforward loop over classes, in one run.

    python perf/fit_speed.py --root CUB --weights cub50_squeezenet.safetensors --classes 50 \
        --json fit_speed.json

The loop is what one would write down from the paper: for each class greedy pretraining, then Adam
as PyTorch has it at batch 50 on eq. 5, on all threads. Ours is `fit_many`: groups of classes in a
subspace of Z, in one process per core, whose start is part of the time. Both have the same network
sizes, beta, eta, q, seeds, starting point, training and held-out images and stopping rule, and one
trial. They take turns: the loop is timed class by class, `fit_many` is repeated around it.

The JSON has `ratio_loop`, the median seconds of the loop per class times the classes over the
median seconds of `fit_many`, and `loss_ratio`, the mean held-out value of eq. 5 of ours over the
loop's. Beside it, on the same activations: NMF and a top-k SAE with as many concepts. `--scaling`
measures how time grows with classes, images, dimensions and x-features on generated activations,
for which no data are needed, and draws the curves.
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
from torchxnn.embeddings.linear import group_moments, second_moments
from torchxnn.embeddings.nmf import fit_nmf
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.topk_sae import TopKConfig, fit_topk_sae
from torchxnn.errors import XNNWarning
from torchxnn.metrics import measure_faithfulness
from torchxnn.parallel.engine import LocalEngine
from torchxnn.parallel.process import one_thread
from torchxnn.storage.files import replace_file
from torchxnn.training import losses
from torchxnn.training.config import ComputeConfig, Losses, ManyConfig, TrainConfig
from torchxnn.training.initialise import VectorStarter
from torchxnn.training.many import fit_many
from torchxnn.training.objective import full_set_losses
from torchxnn.training.schedule import trial_generator
from torchxnn.training.split import Split

CONSOLE = Console(stderr=True)
LOOP_BATCH = 50


@dataclass(frozen=True)
class Speed:
    """Settings of the benchmark."""

    root: Path | None = None
    """CUB-200-2011, or a part of it, in the official layout"""
    weights: Path | None = None
    """state dict of torchxnn.models.bundled:squeezenet_with_head"""
    classes: int = 50
    """number of classes, evenly spaced"""
    json: Path | None = None
    """file to write the figures to"""
    cache: Path = Path("runs/fit_speed")
    """folder to keep the recorded activations in"""
    scaling: bool = False
    """measure how time grows, on generated activations, instead"""
    figure: Path | None = None
    """with --scaling: picture of the curves"""
    n_features: int = 5
    beta: float = 2.0
    eta: float = 0.1
    q: float = 100.0
    seed: int = 0
    epochs: int = 100
    patience: int = 20
    batch_size: int = 128
    """ours"""
    subspace: int = 64
    """ours; 0 for all of Z"""
    slots: int = 4
    """ours"""
    jobs: int = os.cpu_count() or 1
    """processes, ours"""
    repeats: int = 3
    """of ours"""

    def base(self) -> TrainConfig:
        """The settings that both sides share."""
        return TrainConfig(
            beta=self.beta,
            eta=self.eta,
            q=self.q,
            seed=self.seed,
            epochs=self.epochs,
            patience=self.patience,
            trials=1,
        )

    def ours(self) -> TrainConfig:
        """Settings of `fit_many`."""
        return replace(self.base(), batch_size=self.batch_size, subspace=self.subspace or None)


# The straightforward loop


def make_split(data: Activations, target: int, config: TrainConfig) -> Split:
    """One class's part of the data."""
    positives, _ = find_positives(data, [target])
    weights = sample_weights(data, [target], config.positive_share)
    return Split(data, data.logits[:, [target]], positives, weights)


def loop_over_one(
    train: Activations, validation: Activations, target: int, n: int, config: TrainConfig
) -> tuple[SRAE, Losses, int, float, float]:
    """Fit one class: embedding, held-out losses, epochs, seconds, seconds of the start."""
    begin = time.perf_counter()
    own = Activations(train.z, train.logits, train.labels)  # pretraining is not shared
    split, held_out = make_split(own, target, config), make_split(validation, target, config)
    spread = split.logits.std(0, correction=0)
    generator = trial_generator(config, 0)
    srae = VectorStarter(split, n, config, generator).embedding
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
    steps = max(1, len(own) // config.batch_size)
    means: dict[str, torch.Tensor] = {}

    def mean(name: str, batch: torch.Tensor) -> torch.Tensor:
        old = means.get(name, batch.detach())
        means[name] = torch.lerp(old, batch.detach(), 1 / steps)
        return means[name] + batch - batch.detach()

    for epoch in range(1, config.epochs + 1):
        if config.decay_every:
            drop = 0.1 ** ((epoch - 1) // config.decay_every)
            optimizer.param_groups[0]["lr"] = config.learning_rate * drop
        draws = torch.multinomial(
            split.weights, steps * config.batch_size, replacement=True, generator=generator
        )
        for index in draws.split(config.batch_size):
            z, logits = own.z[index], split.logits[index]
            e = srae.encode(z)
            errors = losses.reconstruction_errors(srae.decode(e) / srae.scale, z / srae.scale)
            loss = losses.faithfulness(srae.readout(e) / spread, logits / spread)
            loss = loss + config.beta * losses.sparse_reconstruction(mean("q", errors), config.q)
            moments = mean("moments", second_moments(e))
            first = mean("means", group_moments(e, groups[index]))
            loss = loss + config.eta * losses.pull_away(moments, first, shares)
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
    return srae.eval(), best, epoch, time.perf_counter() - begin, started


# The comparison


def quality(embedding: Any, data: Activations, target: int) -> tuple[float, int]:
    """R^2 on a set, and the active x-features."""
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
    return found.r2, found.active


def compare(settings: Speed) -> dict[str, Any]:
    """Both sides and the baselines on the same recorded activations."""
    if settings.root is None or settings.weights is None:
        raise SystemExit("give --root and --weights, or --scaling")
    task = open_cub(TaskSource("cub", settings.root, settings.weights))
    settings.cache.mkdir(parents=True, exist_ok=True)
    CONSOLE.print(f"Activations of {len(task.train)} training and {len(task.test)} test images")
    recorded = record_task(task, 0, settings.cache, jobs=settings.jobs)
    data, test = recorded.train, recorded.test
    if data.labels is None:
        raise SystemExit("the data need labels")
    mask = split_kinds(data.labels, settings.base().validation_share, settings.seed)
    train, validation = data.select(~mask), data.select(mask)
    outputs = data.logits.shape[1]
    wanted = [i * outputs // settings.classes for i in range(min(settings.classes, outputs))]
    ours_runs = [run_ours(settings, train, validation, wanted)]
    loop = [run_loop(settings, train, validation, target) for target in wanted]
    ours_runs += [
        run_ours(settings, train, validation, wanted) for _ in range(settings.repeats - 1)
    ]
    seconds, fits = statistics.median([run[0] for run in ours_runs]), ours_runs[0][1]
    rows = []
    for target, (srae, held_out, epochs, loop_seconds, started) in zip(wanted, loop, strict=True):
        fitted = next(each for each in fits.classes if each.targets == (target,))
        if fitted.report is None:
            raise SystemExit(f"class {target}: {fitted.error}")
        mine = fits.embedding(target)
        split = make_split(test, target, settings.base())
        spread = train.logits[:, [target]].std(0, correction=0)
        r2, active = quality(srae, test, target)
        own_r2, own_active = quality(mine, test, target)
        rows.append(
            {
                "target": target,
                "loop_seconds": loop_seconds,
                "loop_start_seconds": started,
                "loop_epochs": epochs,
                "epochs": fitted.report.epochs,
                "loop_loss": held_out.total,
                "loss": fitted.report.validation_losses.total,
                "loop_test_loss": full_set_losses(srae, split, spread, settings.base()).total,
                "test_loss": full_set_losses(mine, split, spread, settings.base()).total,
                "loop_test_r2": r2,
                "test_r2": own_r2,
                "loop_active": active,
                "active": own_active,
            }
        )
    result = summarise(settings, rows, [run[0] for run in ours_runs], seconds)
    result["baselines"] = baselines(settings, train, test, wanted)
    result["machine"] = {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": [len(train), len(validation), len(test)],
        "dims": train.z.shape[1],
    }
    return result


def run_ours(
    settings: Speed, train: Activations, validation: Activations, wanted: list[int]
) -> tuple[float, Any]:
    """Seconds of `fit_many` over all classes, its processes' start included, and the fits."""
    begin = time.perf_counter()
    jobs = max(1, min(settings.jobs, len(wanted) // 2))
    fits = fit_many(
        Activations(train.z, train.logits, train.labels),
        wanted,
        validation=validation,
        n_features=settings.n_features,
        config=settings.ours(),
        compute=ComputeConfig(slots=settings.slots),
        many=ManyConfig(block=max(1, min(13, -(-len(wanted) // jobs)))),
        engine=LocalEngine(jobs),
    )
    seconds = time.perf_counter() - begin
    CONSOLE.print(f"fit_many: {len(wanted)} classes in {seconds:.1f} s")
    return seconds, fits


def run_loop(settings: Speed, train: Activations, validation: Activations, target: int) -> Any:
    """One class of the loop."""
    config = replace(settings.base(), batch_size=LOOP_BATCH)
    found = loop_over_one(train, validation, target, settings.n_features, config)
    CONSOLE.print(f"loop: class {target} in {found[3]:.1f} s, {found[2]} epochs")
    return found


def summarise(
    settings: Speed, rows: list[dict[str, Any]], runs: list[float], seconds: float
) -> dict[str, Any]:
    """Ratios and means."""

    def mean(name: str) -> float:
        return statistics.mean(row[name] for row in rows)

    per_class = statistics.median(row["loop_seconds"] for row in rows)
    start = statistics.median(row["loop_start_seconds"] for row in rows)
    return {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "classes": len(rows),
        "loop_seconds": sum(row["loop_seconds"] for row in rows),
        "loop_median_seconds_per_class": per_class,
        "loop_median_start_seconds": start,
        "seconds": seconds,
        "seconds_of_runs": runs,
        "ratio_loop": per_class * len(rows) / seconds,
        "ratio_loop_total": sum(row["loop_seconds"] for row in rows) / seconds,
        "ratio_loop_without_its_start": (per_class - start) * len(rows) / seconds,
        "loss_ratio": mean("loss") / mean("loop_loss"),
        "loss_ratio_test": mean("test_loss") / mean("loop_test_loss"),
        "mean_loss": mean("loss"),
        "mean_loop_loss": mean("loop_loss"),
        "mean_epochs": mean("epochs"),
        "mean_loop_epochs": mean("loop_epochs"),
        "mean_test_r2": mean("test_r2"),
        "mean_loop_test_r2": mean("loop_test_r2"),
        "mean_active": mean("active"),
        "mean_loop_active": mean("loop_active"),
        "rows": rows,
    }


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
            weights = sample_weights(train, (target,), settings.base().positive_share)
            own = with_readout(embedding, e, train.logits[:, [target]], weights)
            values.append(quality(own, test, target)[0])
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
            sample_weights(train, (target,), settings.base().positive_share).sqrt().unsqueeze(1)
        )
        ones = [torch.cat([x, torch.ones(len(x), 1)], 1) for x in (e, other)]
        solution = torch.linalg.lstsq(
            (weights * ones[0]).double(), (weights * train.logits[:, [target]]).double()
        ).solution
        logit = test.logits[:, target].double()
        rest = ones[1].double() @ solution[:, 0] - logit
        values.append(float(1 - rest.square().sum() / (logit - logit.mean()).square().sum()))
    return {"seconds": seconds, "mean_test_r2": statistics.mean(values)}


# How time grows


def generated(images: int, dims: int, classes: int, seed: int = 0) -> Activations:
    """Z >= 0 with 77% zeros and a decaying spectrum, logits of classes that are ReLUs of it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    codes = torch.randn(images, 64, generator=generator) / torch.arange(1, 65).sqrt()
    centres = 2 * torch.randn(classes, 64, generator=generator) / torch.arange(1, 65).sqrt()
    mixing = torch.randn(64, dims, generator=generator)
    z = torch.relu((codes + centres[labels]) @ mixing - 1.5)
    heads = torch.randn(dims, classes, generator=generator) / dims**0.5
    logits = torch.relu(z @ heads) + 4 * torch.nn.functional.one_hot(labels, classes)
    return Activations(z, logits, labels)


def scaling(settings: Speed) -> dict[str, Any]:
    """Processor seconds of one thread along four axes, the others as in the middle."""
    middle = {"classes": 8, "images": 1200, "dims": 1024, "n_features": 5}
    axes = {
        "classes": [1, 2, 4, 8, 16],
        "images": [600, 1200, 2400, 4800],
        "dims": [256, 512, 1024, 2048],
        "n_features": [2, 5, 10, 20],
    }
    found: dict[str, Any] = {"middle": middle, "epochs": 4}
    for name, values in axes.items():
        found[name] = []
        for value in values:
            at = {**middle, name: value}
            runs = [time_fit(settings, at, found["epochs"]) for _ in range(settings.repeats)]
            row = {"value": value, "seconds": statistics.median(runs), "runs": runs}
            found[name].append(row)
            CONSOLE.print(f"{name} {value}: {row['seconds']:.2f} s for {found['epochs']} epochs")
    return found


def time_fit(settings: Speed, at: dict[str, int], epochs: int) -> float:
    """Processor seconds of some epochs: of fits of so many and one, less those of one."""
    data = generated(at["images"], at["dims"], max(8, at["classes"]))
    config = replace(settings.ours(), patience=10**6, revive=None, pretrain_epochs=1)
    taken = []
    for count in (1, 1 + epochs):
        begin = time.process_time()
        fit_many(
            data,
            list(range(at["classes"])),
            n_features=at["n_features"],
            config=replace(config, epochs=count),
            compute=ComputeConfig(slots=settings.slots),
        )
        taken.append(time.process_time() - begin)
    return taken[1] - taken[0]


def draw(found: dict[str, Any], path: Path) -> None:
    """The four curves, log-log, with lines of proportional growth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "classes": "classes",
        "images": "images",
        "dims": "dimensions of Z",
        "n_features": "x-features n",
    }
    figure, panels = plt.subplots(1, 4, figsize=(11, 2.8), sharey=True, constrained_layout=True)
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        x = [row["value"] for row in found[name]]
        y = [row["seconds"] for row in found[name]]
        low = [min(row["runs"]) for row in found[name]]
        high = [max(row["runs"]) for row in found[name]]
        panel.fill_between(x, low, high, color="#4c78a8", alpha=0.25, linewidth=0)
        panel.plot(x, y, "o-", color="#4c78a8", label="measured")
        panel.plot(x, [y[-1] * v / x[-1] for v in x], "--", color="#888888", label="proportional")
        panel.set(xscale="log", yscale="log", xlabel=title)
        panel.set_xticks(x, [str(v) for v in x])
        panel.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
        panel.minorticks_off()
    panels[0].set_ylabel(f"processor seconds\nof {found['epochs']} epochs")
    panels[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def show(result: dict[str, Any]) -> None:
    """Print the comparison."""
    table = Table(title=f"{result['classes']} classes, {result['machine']['images']} images")
    for name in ("", "loop", "fit_many", "ratio"):
        table.add_column(name, justify="left" if not name else "right")
    loop, ours = result["loop_seconds"], result["seconds"]
    spread = ", ".join(f"{s:.1f}" for s in result["seconds_of_runs"])
    table.add_row("seconds, all classes", f"{loop:.1f}", f"{ours:.1f} ({spread})", "")
    per_class = result["loop_median_seconds_per_class"]
    table.add_row(
        "median seconds per class",
        f"{per_class:.2f}",
        f"{ours / result['classes']:.2f}",
        f"[bold]{result['ratio_loop']:.2f}[/]",
    )
    table.add_row(
        "the same, without the loop's start",
        "",
        "",
        f"{result['ratio_loop_without_its_start']:.2f}",
    )
    for title, name in (
        ("held-out loss (eq. 5)", "loss"),
        ("epochs", "epochs"),
        ("test R2", "test_r2"),
        ("active x-features, test", "active"),
    ):
        values = result[f"mean_loop_{name}"], result[f"mean_{name}"]
        ratio = f"[bold]{result['loss_ratio']:.4f}[/]" if name == "loss" else ""
        table.add_row(title, *(f"{value:.3f}" for value in values), ratio)
    table.add_row("test loss", "", "", f"{result['loss_ratio_test']:.4f}")
    CONSOLE.print(table)
    for name, row in result["baselines"].items():
        CONSOLE.print(f"{name}: {row}")


def main() -> None:
    """Run, print, write."""
    settings = tyro.cli(Speed)
    if settings.scaling:
        result = scaling(settings)
        if settings.figure is not None:
            draw(result, settings.figure)
    else:
        result = compare(settings)
        show(result)
    if settings.json is not None:
        replace_file(settings.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
