"""One class of an atlas: measure, choose images, draw, write its folder whole or not at all."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.atlas.content import ClassJob, ClassView, Entry
from torchxnn.apps.atlas.images import (
    ClassImages,
    Picture,
    choose_images,
    draw_images,
    encode_images,
    image_name,
    map_name,
)
from torchxnn.apps.atlas.numbers import Summary, read_numbers
from torchxnn.apps.atlas.pages import CARD_PAGE, CARD_VALUES, class_files
from torchxnn.apps.atlas.predictions import Predictions
from torchxnn.apps.atlas.runs import Failure
from torchxnn.apps.run_card import read_card
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.class_names import spoken
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.errors import DataError, XNNError, XNNWarning
from torchxnn.explanations.image import Explanation
from torchxnn.metrics.faithfulness import measure_faithfulness
from torchxnn.storage.artifact import structure, to_json
from torchxnn.storage.files import replace_folder
from torchxnn.xnn import XNN

MARKER = "class.json"
CLASSES = "classes"
_MARKER_BYTES = 8192
_MOST_NOTES = 3


@dataclass(frozen=True, eq=False)
class Given:
    """What every worker is given.

    Attributes:
        model: the explained model.
        dataset: images that the pages show.
        cache: of the model on these images.
        predictions: of the network on them.
        work: folder of the numbers.
        out: folder of the site.
        config: what pages show.
    """

    model: nn.Module
    dataset: ImageDataset
    cache: ActivationCache
    predictions: Predictions
    work: Path
    out: Path
    config: AtlasConfig


def make_class(given: Given, job: ClassJob) -> Entry | Failure:
    """Write a class's folder, or say why that is not possible."""
    there = finished(given.out, job.saved.name)
    if there is not None and there.key == job.key:
        return there
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", XNNWarning)
            return _make(job, given, caught)
    except (XNNError, OSError, ValueError, RuntimeError) as error:
        return Failure(job.saved.name, " ".join(f"{type(error).__name__}: {error}".split()))


def finished(out: Path, name: str) -> Entry | None:
    """The entry of a class that is there; None also if an earlier version wrote it."""
    try:
        file = out / CLASSES / name / MARKER
        return structure(json.loads(file.read_text("utf-8")), Entry, str(file))
    except (OSError, ValueError):
        return None


def _make(job: ClassJob, given: Given, caught: list[warnings.WarningMessage]) -> Entry:
    view, drawn = _gather(job, given, caught)
    card = read_card(job.saved.place)
    pages = class_files(view)
    pages |= {CARD_PAGE: card.markdown().encode(), CARD_VALUES: to_json(card)}
    room = int(given.config.limit * 1e6) - sum(map(len, pages.values())) - _MARKER_BYTES
    files = encode_images(drawn, room)
    entry = _entry(view, sum(map(len, (*pages.values(), *files.values()))))
    with replace_folder(given.out / CLASSES / job.saved.name, MARKER) as folder:
        for name, content in (files | pages).items():
            (folder / name).write_bytes(content)
        (folder / MARKER).write_bytes(to_json(entry))
    return entry


def _gather(
    job: ClassJob, given: Given, caught: list[warnings.WarningMessage]
) -> tuple[ClassView, dict[str, Picture]]:
    """Measure, choose images and draw their maps."""
    xnn = XNN.from_pretrained(job.saved.place, given.model)
    numbers = read_numbers(given.work, job.saved.name)
    logits = given.cache.columns(xnn.targets)
    by_target = given.predictions.positives(logits, xnn)
    positives, decided = by_target.any(1), given.predictions.decided(logits, xnn).any(1)
    if not bool(positives.any()):
        raise DataError(f"the data have no images of {job.summary.title}")
    measured = measure_faithfulness(
        numbers.features,
        numbers.contributions,
        numbers.reproduced,
        given.predictions.logits_around(logits, xnn.targets),
        tuple(range(len(xnn.targets))),
        by_target,
        xnn.meaning,
    )
    # of each x-feature to the target that it matters most for
    best = torch.tensor(measured.share).argmax(0).expand(len(logits), 1, -1)
    contributions = numbers.contributions.gather(1, best).squeeze(1)
    chosen = choose_images(
        logits[:, 0], positives, decided, numbers.features, contributions, given.config
    )
    rows = _wanted(chosen, numbers.features, job.summary)
    drawn, agreement, strengths = draw_images(xnn, given.dataset, rows, given.config.side)
    sample = given.dataset[chosen.typical]
    explanation = xnn.explain(sample.image.to(xnn.device), label=sample.label, path=sample.path)
    view = ClassView(
        job=job,
        xnn=xnn,
        dataset=given.dataset,
        predictions=given.predictions,
        numbers=numbers,
        contributions=contributions,
        logits=logits,
        positives=positives,
        decided=decided,
        measured=measured,
        chosen=chosen,
        explanation=cast(Explanation, explanation),  # `build_atlas` refuses volumes
        drawn=frozenset(drawn),
        agreement=agreement,
        strengths=strengths,
        notes=_notes(caught),
    )
    return view, drawn


def _notes(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """Warnings that pages show; the same one with many figures would fill a page."""
    texts = [str(each.message) for each in caught if issubclass(each.category, XNNWarning)]
    texts = sorted(set(texts))
    more = (f"{len(texts) - _MOST_NOTES} more warnings of these kinds",)
    return tuple(texts[:_MOST_NOTES]) + (more if len(texts) > _MOST_NOTES else ())


def _wanted(chosen: ClassImages, features: Tensor, summary: Summary) -> dict[int, list[int]]:
    """Per image the x-features whose maps some page shows; none for those that are inactive."""
    pairs = {(row, i) for row in (chosen.typical, *chosen.examples)
             for i in range(features.shape[1])}  # fmt: skip
    for i, each in enumerate(chosen.features):
        pairs |= {(row, i) for row in (*each.top, *each.spaced, *each.against)}
        pairs |= {(row, i) for row in summary.tops[i]}
    wanted: dict[int, list[int]] = {row: [] for row, _ in pairs}
    for row, i in sorted(pairs):
        if float(features[row, i]) > 0:
            wanted[row].append(i)
    return wanted


def _entry(view: ClassView, nbytes: int) -> Entry:
    measured, report = view.measured, view.xnn.report
    right = (view.positives & view.decided).sum() / view.positives.sum()
    row = view.chosen.typical
    leading = int(view.contributions[row].argmax())
    drawn = map_name(row, leading)
    drawn = drawn if drawn in view.drawn else ""
    return Entry(
        name=view.job.saved.name,
        title=spoken(view.job.summary.title),
        output=view.xnn.targets[0],
        sentence=spoken(view.explanation.brief()),
        image=image_name(row),
        map=drawn,
        leading=view.job.summary.feature_names[leading] if drawn else "",
        feature_names=view.job.summary.feature_names,
        r2=measured.r2,
        f_cls_positives=measured.f_cls_positives or 0.0,  # values, which have none, are left out
        f_reg_positives=measured.f_reg_positives,
        active=measured.active,
        recall=float(right) if view.labelled else None,
        images=int(view.positives.sum()),
        degenerate=tuple(report.degenerate if report else ()),
        notes=view.notes,
        nbytes=nbytes,
        key=view.job.key,
    )
