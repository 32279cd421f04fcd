"""Build an atlas: record, embed, compare, draw class by class, and last the index.

Every step is jobs of an engine and leaves files, so that a build that was interrupted goes on. What
is in memory at once is a block of XNNs with their x-features, or the images of one class.
"""

from __future__ import annotations

import math
import operator
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from torchxnn.apps.atlas.class_job import CLASSES, Given, make_class
from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.atlas.content import ClassJob, CloseLink, Entry, Link, SimilarLink
from torchxnn.apps.atlas.numbers import Similar, Summary, compare_block, embed_block
from torchxnn.apps.atlas.predictions import Predictions, read_predictions
from torchxnn.apps.atlas.runs import Failure, SavedClass, find_runs
from torchxnn.apps.atlas.site import MARKER, templates_key, write_assets, write_index
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.class_names import spoken
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.ordered_images import data_fingerprint, image_rows
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError
from torchxnn.models.weights import fingerprint
from torchxnn.parallel.engine import Engine, LocalEngine
from torchxnn.storage.artifact import __version__, differences, digest, plain, to_json
from torchxnn.storage.files import check_replaceable, replace_file

WORK = ".work"

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Atlas:
    """What was written.

    Attributes:
        folder: of the site; open its index.html.
        entries: the classes, in the order of the index.
        failures: classes that are missing, with the reason.
        nbytes: of the whole site.
    """

    folder: Path
    entries: tuple[Entry, ...]
    failures: tuple[Failure, ...]
    nbytes: int

    @property
    def largest(self) -> int:
        """Bytes of the largest class."""
        return max(entry.nbytes for entry in self.entries)


def build_atlas(
    model: nn.Module,
    runs: Path | Sequence[Path],
    dataset: ImageDataset,
    out: Path,
    *,
    cache: ActivationCache | None = None,
    config: AtlasConfig | None = None,
    engine: Engine | None = None,
    title: str = "Atlas of x-features",
    model_name: str = "",
    images_per_pass: int = 32,
    on_step: OnStep | None = None,
) -> Atlas:
    """Write a static site about the XNNs of many classes of one model.

    A class that fails is named in the index and the rest is written. Interrupted at any moment, the
    same call goes on where it stopped; classes whose XNN, data and neighbours did not change are
    not drawn again.

    Args:
        model: the explained model.
        runs: folders with a saved XNN each, or folders of such folders, as `fit_many` writes.
        dataset: images to show and to measure on, best those that were not fitted.
        out: folder of the site.
        cache: of this model's layers on these images; None records one for the time of the build.
        config: what the pages show.
        engine: where jobs run; its workers must see all folders. None is this process.
        title: of the index.
        model_name: for people.
        images_per_pass: when activations are recorded.
        on_step: called with the name of a step, jobs done and jobs in all.

    Raises:
        DataError: no XNN that can be shown, a cache of other images, or a network of volumes.
        FileExistsError: something else is at `out`.

    Example:
        >>> atlas = build_atlas(model, Path("runs"), dataset, Path("atlas"), engine=LocalEngine(2))
        >>> [failure.reason for failure in atlas.failures]
    """
    dataset.preprocessing.check_takes_images("an atlas shows images")
    out = Path(out).absolute()
    check_replaceable(out, MARKER)
    places = [runs] if isinstance(runs, Path) else list(runs)
    found, failed = find_runs(places, fingerprint(model))
    builder = _Builder(
        model, dataset, out, config or AtlasConfig(), engine or LocalEngine(), on_step
    )
    replace_file(out / MARKER, to_json({"version": __version__, "complete": False}))
    cache = builder.record(sorted({saved.layer for saved in found}), cache, images_per_pass)
    meaning = found[0].meaning
    most = max(len(saved.targets) for saved in found)
    predictions = read_predictions(cache, most, meaning)
    summaries, more = builder.embed(found, cache)
    entries: tuple[Entry, ...] = ()
    failures = [*failed, *more]
    given = Given(model, dataset, cache, predictions, builder.work, out, builder.config)
    by_name = {saved.name: saved for saved in found}
    while summaries:
        similar = builder.compare(summaries)
        jobs = make_jobs(by_name, summaries, similar, predictions, cache, builder.config)
        entries, missing = builder.draw(jobs, given)
        failures += missing
        if not missing or not entries:
            break
        # without links to those that failed; only pages that had some are drawn again
        lost = {failure.name for failure in missing}
        summaries = [each for each in summaries if each.name not in lost]
    if not entries:
        raise DataError(f"no class can be shown; {failures[0].name}: {failures[0].reason}")
    facts = _facts(dataset, cache, entries)
    write_assets(out)
    labelled = predictions.positives_by == "label"
    write_index(out, entries, failures, title, model_name, facts, labelled, meaning.noun)
    return builder.finish(entries, failures)


@dataclass(frozen=True, eq=False)
class _Builder:
    """The steps of a build, all with the same folder and engine."""

    model: nn.Module
    dataset: ImageDataset
    out: Path
    config: AtlasConfig
    engine: Engine
    on_step: OnStep | None

    @property
    def work(self) -> Path:
        """Folder of what is not part of the site."""
        return self.out / WORK

    def record(
        self, layers: Sequence[str], cache: ActivationCache | None, images_per_pass: int
    ) -> ActivationCache:
        """The cache that was given, checked, or one recorded for this build."""
        if cache is not None:
            cache.check(self.model, preprocessing=self.dataset.preprocessing)
            expected = data_fingerprint(image_rows(self.dataset, 1, 0))
            found = dict(cache.store.about["data"])
            if changed := differences(found, plain(expected), "data"):
                raise DataError(
                    f"the cache {cache.store.location} was recorded from other images than "
                    f"{self.dataset.name} ({'; '.join(changed)}); record it from the same folder "
                    "and split"
                )
            return cache
        done = 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            self._say("Recording activations", done, len(self.dataset))

        return cache_activations(
            self.model,
            layers,
            self.dataset,
            self.work / "cache",
            batch_size=images_per_pass,
            engine=self.engine,
            on_images=count,
        )

    def embed(
        self, found: Sequence[SavedClass], cache: ActivationCache
    ) -> tuple[list[Summary], list[Failure]]:
        """The x-features of every class, on disk."""
        size = self.config.block
        blocks = [tuple(found[at : at + size]) for at in range(0, len(found), size)]
        work = embed_block, self.model, cache, self.work
        parts = self._run("Computing x-features", work, blocks)
        order = {saved.name: at for at, saved in enumerate(found)}
        summaries = sorted(chain(*(good for good, _ in parts)), key=lambda each: order[each.name])
        return summaries, list(chain(*(bad for _, bad in parts)))

    def compare(self, summaries: Sequence[Summary]) -> dict[str, tuple[tuple[Similar, ...], ...]]:
        """Per class and x-feature the similar ones of other classes."""
        config = self.config
        if config.similar == 0:
            return {each.name: ((),) * len(each.feature_names) for each in summaries}
        names = tuple(each.name for each in summaries)
        work = compare_block, self.work, names, config
        parts = self._run("Comparing x-features", work, range(0, len(names), config.block))
        return {name: similar for part in parts for name, similar in part.items()}

    def draw(
        self, jobs: Sequence[ClassJob], given: Given
    ) -> tuple[tuple[Entry, ...], list[Failure]]:
        """The folders of all classes."""
        found = self._run("Drawing classes", (make_class, given), jobs)
        entries = tuple(each for each in found if isinstance(each, Entry))
        return entries, [each for each in found if isinstance(each, Failure)]

    def finish(self, entries: tuple[Entry, ...], failures: Sequence[Failure]) -> Atlas:
        """Remove what belongs to no page, and mark the site as complete."""
        kept = {entry.name for entry in entries}
        for folder in (self.out / CLASSES).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)
        shutil.rmtree(self.work, ignore_errors=True)
        about = {
            "version": __version__,
            "complete": True,
            "classes": [entry.name for entry in entries],
            "failures": failures,
        }
        replace_file(self.out / MARKER, to_json(about))
        total = sum(file.stat().st_size for file in self.out.rglob("*") if file.is_file())
        return Atlas(self.out, entries, tuple(failures), total)

    def _run(self, step: str, work: tuple[Any, ...], jobs: Sequence[Any]) -> list[Any]:
        """Results of a function, given with its first arguments, for each job, in their order."""
        found = {}
        for at, result in self.engine.run(partial, work, operator.call, jobs):
            found[at] = result
            self._say(step, len(found), len(jobs))
        return [found[at] for at in range(len(jobs))]

    def _say(self, step: str, done: int, total: int) -> None:
        if self.on_step is not None:
            self.on_step(step, done, total)


def make_jobs(
    saved: Mapping[str, SavedClass],
    summaries: Sequence[Summary],
    similar: Mapping[str, tuple[tuple[Similar, ...], ...]],
    predictions: Predictions,
    cache: ActivationCache,
    config: AtlasConfig,
) -> list[ClassJob]:
    """A job per class, with everything that its pages say about other classes."""
    by_name = {each.name: each for each in summaries}
    pages = {saved[each.name].targets[0]: each for each in reversed(summaries)}
    links = [Link(each.name, spoken(each.title)) for each in summaries]
    jobs = []
    for at, each in enumerate(summaries):
        content: dict[str, Any] = {
            "similar": tuple(
                tuple(_similar_link(one, by_name[one.name]) for one in feature)
                for feature in similar[each.name]
            ),
            "close": tuple(
                CloseLink(
                    title=_output_name(close.output, cache, saved[each.name].meaning.noun),
                    name=page.name if (page := pages.get(close.output)) else None,
                    close=close,
                )
                for close in predictions.closest(saved[each.name].targets[0], config.close)
            ),
            "before": links[at - 1] if at else None,
            "after": links[at + 1] if at + 1 < len(links) else None,
        }
        key = digest([__version__, templates_key(), each, config, repr(content)])
        jobs.append(ClassJob(saved=saved[each.name], summary=each, key=key, **content))
    return jobs


def _similar_link(one: Similar, other: Summary) -> SimilarLink:
    return SimilarLink(
        name=one.name,
        title=spoken(other.title),
        feature=one.feature,
        feature_name=other.feature_names[one.feature],
        correlation=round(one.correlation, 4),
        rows=other.tops[one.feature],
    )


def _output_name(output: int, cache: ActivationCache, noun: str) -> str:
    names = cache.class_names
    return spoken(names[output], names) if names and output < len(names) else f"{noun} {output}"


def _facts(
    dataset: ImageDataset, cache: ActivationCache, entries: Sequence[Entry]
) -> list[tuple[str, str]]:
    values = [entry.r2 for entry in entries if entry.r2 is not None and math.isfinite(entry.r2)]
    facts = [("Images", f"{len(dataset):,}"), ("Data", dataset.name)]
    if values:
        facts.append(("Median R²", f"{sorted(values)[len(values) // 2]:.3f}"))
    degenerate = sum(bool(entry.degenerate) for entry in entries)
    facts.append(("Degenerate fits", f"{degenerate} of {len(entries)}"))
    facts.append(("Network's outputs", f"{cache.n_outputs:,}"))
    return facts
