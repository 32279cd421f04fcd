"""Explain many classes at once: blocks of classes as jobs that share one reading of Z.

A job takes a block of classes, reads the activations that they need, and fits them as a group
(`fit_group`). All blocks may read the same activations, if these fit the memory that a job is
given; otherwise a block takes the positives of its classes and a random sample of all others,
whose weights make up for those left out. Finished classes are kept one by one, so that nothing is
fitted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, SupportsIndex

import torch

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.data.positives import all_positives, as_targets, default_features, sample_classes
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, XNNError
from torchxnn.models.config import OutputsConfig
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import check_targets, count_classes
from torchxnn.parallel.engine import Engine, LocalEngine
from torchxnn.storage.artifact import digest
from torchxnn.storage.paths import Location, Place, as_place
from torchxnn.storage.saved_folder import write_saved
from torchxnn.training.class_results import (
    FittedClass,
    ManyFits,
    check_places,
    class_folder,
    finished_report,
)
from torchxnn.training.config import ComputeConfig, ManyConfig, TrainConfig
from torchxnn.training.device import check_worker_device, fit_device
from torchxnn.training.fit import fit_group
from torchxnn.training.initialise import SharedStarts
from torchxnn.training.memory import Needs, load_splits
from torchxnn.training.report import FitReport, describe_xnn
from torchxnn.training.restarts import FitResult

BLOCK = 16
"""Classes per job on a CPU."""


@dataclass(frozen=True, eq=False)
class _Work:
    """What every worker is given."""

    needs: Needs
    validation: Activations | None
    n_features: int | None
    compute: ComputeConfig
    out: Place | None

    @property
    def own_gpu(self) -> bool:
        """Whether each job has a GPU of its own: the user wants CUDA and names no one GPU."""
        device = torch.device(self.compute.device)
        return device.type == "cuda" and device.index is None

    @cached_property
    def key(self) -> str:
        """A fingerprint of all that decides what a class gives, but for rounding."""
        needs = self.needs
        if not isinstance(needs.data, ActivationCache):
            return ""
        parts: dict[str, Any] = {
            "cache": needs.data.store.about,
            "layer": needs.layer,
            "n_features": self.n_features,
            "config": needs.config,
            "autocast": self.compute.autocast,
            "memory": None if needs.all_fit else needs.memory,
        }
        if needs.meaning != CLASSES:
            parts["meaning"] = needs.meaning
        return digest(parts)

    def place(self, targets: tuple[int, ...]) -> Place | None:
        """Where the XNN of a class is saved; None if it is not."""
        data = self.needs.data
        if self.out is None or not isinstance(data, ActivationCache):
            return None
        return self.out / class_folder(targets, data.class_names)


_Block = tuple[tuple[int, ...], ...]
"""The classes of one job."""

_Answer = tuple[FittedClass, Embedding | None]


def fit_many(
    data: Activations | ActivationCache | Location,
    targets: Sequence[SupportsIndex | Sequence[SupportsIndex]] | None = None,
    *,
    layer: str | None = None,
    validation: Activations | None = None,
    n_features: int | None = None,
    config: TrainConfig | None = None,
    compute: ComputeConfig | None = None,
    many: ManyConfig | None = None,
    outputs: OutputsConfig | None = None,
    engine: Engine | None = None,
    out: Location | None = None,
    on_class: Callable[[FittedClass], None] | None = None,
) -> ManyFits:
    """Fit an XNN to each of many classes of one recording (paper eq. 5, once per class).

    The mathematics is that of `XNN.fit` one class after the other. Without `validation`, and unless
    the cache says which images are held out, a share of every class is held out, the same images
    for all fits. One class that fails is reported and does not stop the rest.

    Args:
        data: recorded activations, an activation cache, or where it lies.
        targets: class indices, or tuples of them for XNNs of several targets; None for all outputs
            that have enough positives.
        layer: of the cache; may be left out if it holds one.
        validation: held-out activations, with `Activations` alone.
        n_features: n; None takes 5 for one target and 7 for several.
        config: settings of each fit.
        compute: slots, device and precision.
        many: classes and memory per job.
        outputs: what the user says that the model's outputs mean; None asks the labels.
        engine: where jobs run; None for this process.
        out: folder or URL; every XNN is saved there, in a folder of its own, as it is finished, and
            one that is there from the same data and settings is not fitted again. Needs a cache.
        on_class: called with each class as its job ends, first with those that were there.

    Returns:
        What became of every class. With `out` the embeddings are read when asked for.

    Raises:
        DataError: no such layer or target, or settings that no fit could begin with.
        ModelError: `out` holds XNNs from other data or settings.
        XNNError: a device of `compute` that is not here.

    Example:
        >>> fits = fit_many("cache", targets=[5, 20, 47], out="runs")
        >>> [fitted.report.validation.r2 for fitted in fits.classes]
    """
    if not isinstance(data, (Activations, ActivationCache)):
        data = ActivationCache.open(data)
    many = many or ManyConfig()
    data, meaning = _meant(data, outputs or OutputsConfig())
    if validation is not None:
        validation = validation.meant(meaning)
    needs = Needs(data, _layer(data, layer), config or TrainConfig(), many.memory, meaning)
    folder = None if out is None else as_place(out)
    work = _Work(needs, validation, n_features, compute or ComputeConfig(), folder)
    _check(work)
    if engine is None or isinstance(engine, LocalEngine):  # other machines have their own
        fit_device(work.compute)
    else:
        check_worker_device(work.compute)
    wanted = _wanted(work, targets)
    found: dict[tuple[int, ...], FittedClass] = {}
    embeddings: dict[tuple[int, ...], Embedding] = {}

    def note(fitted: FittedClass) -> None:
        found[fitted.targets] = fitted
        if on_class is not None:
            on_class(fitted)

    places = {target: work.place(target) for target in wanted}
    if work.out is not None:
        check_places([place for place in places.values() if place], work.out, work.key)
    for target, place in places.items():
        report = finished_report(place)
        if report is not None:
            note(FittedClass(target, report, location=str(place), resumed=True))
    left = [target for target in wanted if target not in found]

    def blocks(workers: int) -> list[_Block]:
        return _blocks(left, many.block or _block_size(work, len(left), workers))

    runs = (engine or LocalEngine()).run(_start, (work,), _fit_block, blocks, work.own_gpu)
    for _, answers in runs if left else ():
        for fitted, embedding in answers:
            if embedding is not None:
                embeddings[fitted.targets] = embedding
            note(fitted)
    return ManyFits(tuple(found[target] for target in wanted), embeddings)


def _meant(
    data: Activations | ActivationCache, config: OutputsConfig
) -> tuple[Activations | ActivationCache, Meaning]:
    """The data, and what the outputs mean as the user or the labels say."""
    if isinstance(data, ActivationCache):
        return data, data.settled_labels(config)[1]
    settled = data.settled(config)
    return settled, settled.meaning


def _layer(data: Activations | ActivationCache, layer: str | None) -> str:
    if isinstance(data, Activations):
        return layer or ""
    if layer is None and len(data.layers) > 1:
        raise DataError(f"the cache holds layers {', '.join(data.layers)}; say which one: layer=")
    layer = data.layers[0] if layer is None else layer
    data.dims(layer)
    return layer


def _check(work: _Work) -> None:
    data = work.needs.data
    if work.out is not None and not isinstance(data, ActivationCache):
        raise DataError(
            "XNNs can be saved from an activation cache alone, which says what model and data "
            "they belong to; give a cache, or leave out `out`"
        )
    if work.validation is not None and not isinstance(data, Activations):
        raise DataError("validation goes with Activations; a cache has its own held-out images")


def _wanted(
    work: _Work, targets: Sequence[SupportsIndex | Sequence[SupportsIndex]] | None
) -> list[tuple[int, ...]]:
    data = work.needs.data
    if targets is not None:
        wanted = [as_targets(target) for target in targets]
        if not wanted or len(set(wanted)) < len(wanted):
            raise DataError("targets must be different classes, and at least one")
        check_targets([each for target in wanted for each in target], data.n_outputs)
        return wanted
    return targets_with_positives(data, work.needs.config, work.needs.meaning)


def targets_with_positives(
    data: Activations | ActivationCache, config: TrainConfig, meaning: Meaning = CLASSES
) -> list[tuple[int, ...]]:
    """All outputs that have enough positives to be fitted: what `fit_many` takes by default.

    Raises:
        DataError: there is none.
    """
    outputs = data.n_outputs
    if meaning.outputs_are == "classes":
        counts = sample_classes(data).clamp(min=-1).add(1)  # -1 is a class that nobody knows
        counts = counts.bincount(minlength=count_classes(outputs) + 1)[1:]
    else:
        counts = all_positives(data, meaning).sum(0)
    enough = (counts >= config.minimum_positives).nonzero().flatten().tolist()
    if not enough:
        raise DataError(
            f"no class has {config.minimum_positives} positives, the most is "
            f"{int(counts.max())}: add images"
        )
    if outputs == 1:
        return [(0,)]
    return [(target,) for target in enough if target < outputs]


def _block_size(work: _Work, classes: int, workers: int) -> int:
    """Classes per job if the user says nothing; see `ManyConfig.block`."""
    on_cpu = torch.device(work.compute.device).type == "cpu"
    if on_cpu or not work.needs.all_fit:
        return BLOCK
    return -(-classes // workers) if work.own_gpu else classes


def _blocks(targets: Sequence[tuple[int, ...]], most: int) -> list[_Block]:
    """Blocks of nearly equal sizes; classes with equal numbers of targets go together."""
    blocks = []
    for size in sorted({len(target) for target in targets}):
        members = [target for target in targets if len(target) == size]
        count = -(-len(members) // most)
        blocks += [tuple(members[number::count]) for number in range(count)]
    return blocks


# Workers

_Splits = tuple[Activations, Activations | None]

_State = tuple[_Work, _Splits | None, SharedStarts]
"""What a process was given, the activations that all its blocks read, if these fit, and what the
fits to them begin with."""


def _start(work: _Work) -> _State:
    needs = work.needs
    splits = load_splits(needs, None, work.validation) if needs.all_fit else None
    return work, splits, SharedStarts()


def _fit_block(state: _State, block: _Block) -> list[_Answer]:
    work, splits, starts = state
    try:
        train, validation = splits or load_splits(work.needs, block)
    except XNNError as error:
        return [(FittedClass(targets, error=_said(error)), None) for targets in block]
    every = [target for targets in block for target in targets]
    if len(block) > 1 and train.known(every) is not train:
        return _with_known_labels(work, block, (train, validation))
    train = train.known(every)
    validation = None if validation is None else validation.known(every)
    answers: list[_Answer] = []

    def done(position: int, result: FitResult) -> None:
        if isinstance(result, XNNError):
            answers.append((FittedClass(block[position], error=_said(result)), None))
        else:
            answers.append(_kept(work, *result))

    n = work.n_features or default_features(len(block[0]))
    held_out: Literal["given", "split"] = "split" if work.validation is None else "given"
    config, compute = work.needs.config, work.compute
    fit_group(train, validation, block, n, config, compute, done, held_out=held_out, starts=starts)
    return answers


def _with_known_labels(work: _Work, block: _Block, splits: _Splits) -> list[_Answer]:
    """Fit classes one by one to the samples whose label for the class is known."""
    answers: list[_Answer] = []
    for targets in block:
        train, validation = splits
        known = train.known(targets), None if validation is None else validation.known(targets)
        answers += _fit_block((work, known, SharedStarts()), (targets,))
    return answers


def _said(error: XNNError) -> str:
    return f"{type(error).__name__}: {error}"


def _kept(work: _Work, embedding: Embedding, report: FitReport) -> _Answer:
    """A finished class with its embedding, or with the place where that was saved."""
    place, data = work.place(report.targets), work.needs.data
    if place is None or not isinstance(data, ActivationCache):
        return FittedClass(report.targets, report), embedding
    about = describe_xnn(
        embedding,
        report,
        fingerprint=data.model_fingerprint,
        layer=work.needs.layer,
        targets=report.targets,
        outputs=data.n_outputs,
        class_names=data.class_names,
        preprocessing=data.preprocessing,
        source=data.source,
        examination=data.examined,
        meaning=work.needs.meaning,
    )
    write_saved(place, {**about, "fit_key": work.key}, embedding.state_dict())
    return FittedClass(report.targets, report, location=str(place)), None
