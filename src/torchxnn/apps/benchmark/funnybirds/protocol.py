"""The protocol of the data set's authors on one class, for maps of the logit and for XNNs.

It asks about several classes of every image, so it follows when the XNNs of all classes are there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchxnn.apps.benchmark.funnybirds.causes import (
    Answers,
    ask,
    find_removals,
    importances,
    mean_of_others,
)
from torchxnn.apps.benchmark.funnybirds.maps import draw, feature_maps, see
from torchxnn.apps.benchmark.funnybirds.measure import CLASS_MEAN, Ready, fit_default
from torchxnn.apps.benchmark.funnybirds.official import (
    Explain,
    answer_interventions,
    explain_with_maps,
    tally_official,
)
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.attribution.methods import PAPER
from torchxnn.data.datasets.funnybirds import PARTS, FunnyBirds
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, UnsupportedOperationError, XNNWarning
from torchxnn.metrics import ground_truth as truth
from torchxnn.metrics.funnybirds_protocol import PartImportances, map_importances, part_importances
from torchxnn.metrics.masking import combine_maps
from torchxnn.xnn import XNN


def count_class(defaults: Defaults, target: int) -> dict[str, Any]:
    """What the protocol counts on the test images of one class.

    Returns:
        `tallies` by method, in plain values: maps of the logit as "1-heatmap" (excitation
        backprop), "1-heatmap, positive" (its positive part; the whole map sums to 0, so that its
        thresholds mean nothing) and "1-heatmap, RULE"; the parts of today's default as "XNN", and
        its combined maps as "XNN, maps"; `CLASS_MEAN`, which explains nothing;
        `composition_error`, and `not_drawn`, the rules that this network has no maps by, with the
        reason.
    """
    ready = defaults.ready
    task, config, birds = ready.opened.task, ready.config, ready.opened.task.test
    if not isinstance(birds, FunnyBirds):
        raise DataError(f"{birds.name} is not FunnyBirds, so its protocol cannot be run on it")
    rows = evenly_spaced(task.positives(target), config.official_images)
    answers = answer_interventions(task.model, birds, rows)
    explains: dict[str, Explain] = {
        "XNN": defaults.explain_parts,
        "XNN, maps": defaults.explain_maps,
        CLASS_MEAN: defaults.explain_nothing,
    }
    for rule in config.official_rules:
        name = "1-heatmap" if rule == PAPER else f"1-heatmap, {rule}"
        explains[name] = explain_with_maps(birds, draw(rule, task.model, config))
        if rule == PAPER:
            method = draw(rule, task.model, config)
            explains["1-heatmap, positive"] = explain_with_maps(birds, method, positive=True)
    found, not_drawn = {}, {}
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        for name, explain in explains.items():
            try:
                found[name] = tally_official(answers, birds, explain)
            except UnsupportedOperationError as error:
                not_drawn[name] = str(error)
    composed = answers.composition_error
    return {"tallies": found, "composition_error": composed, "not_drawn": not_drawn}


@dataclass(frozen=True, eq=False)
class Default:
    """Today's default of a class, and what is known of it.

    Attributes:
        embedding: fitted.
        answers: to the removals of the test images of its class.
        causes: what the network's logit loses there (M, P).
        rows: which images these are.
    """

    embedding: Embedding
    answers: Answers
    causes: Tensor
    rows: list[int]


@dataclass(eq=False)
class Defaults:
    """Today's default of every class, read or fitted when it is asked for.

    A class that is not measured, but contrasted with, is fitted and kept in memory alone.
    """

    ready: Ready
    _known: dict[int, Default] = field(default_factory=dict)

    def find(self, target: int) -> Default:
        """Today's default of a class."""
        if target not in self._known:
            opened = self.ready.opened
            folder = saved_xnn(opened.folder, target, "XNN")
            if folder.exists():
                embedding = XNN.from_pretrained(folder, model=opened.task.model).fitted()
            else:
                embedding = fit_default(self.ready, target)
            rows = opened.task.positives(target)
            removals = find_removals(opened.recorded, rows, target, len(PARTS))
            answers = ask(embedding, removals)
            self._known[target] = Default(embedding, answers, removals.causes, rows)
        return self._known[target]

    def explain_parts(self, images: tuple[int, ...], target: int) -> PartImportances:
        """Contributions by what x-features are about, on other images of the class than these."""
        default = self.find(target)
        elsewhere = truth.without_own(default.answers.changes)
        about = _of_others(images, default.rows, elsewhere, default.answers.profiles)
        return part_importances(importances(self._contributions(default, images), about))

    def explain_nothing(self, images: tuple[int, ...], target: int) -> PartImportances:
        """What other images of the class lose with each part, whatever is seen on this one."""
        default = self.find(target)
        mean = default.causes.double().mean(0)
        elsewhere = mean_of_others(default.causes)
        return part_importances(_of_others(images, default.rows, elsewhere, mean))

    def explain_maps(self, images: tuple[int, ...], target: int) -> PartImportances:
        """Maps of the x-features, combined by contribution into one; nothing else is known."""
        default, parts = self.find(target), []
        task, config = self.ready.opened.task, self.ready.config
        for row, own in zip(images, self._contributions(default, images), strict=True):
            seen = see(task, [row])
            maps = feature_maps(task, default.embedding, seen, PAPER, config)
            combined = combine_maps(maps, own.unsqueeze(0))
            parts.append(map_importances(combined, seen.masks, len(PARTS)))
        return _join(parts)

    def _contributions(self, default: Default, images: tuple[int, ...]) -> Tensor:
        z = self.ready.opened.recorded.located.select(torch.tensor(images)).z
        return apply_embedding(default.embedding, z).contributions[:, 0]


def _of_others(images: tuple[int, ...], rows: list[int], elsewhere: Tensor, mean: Tensor) -> Tensor:
    """What is known of each image without itself: of those at `rows`, from the others there."""
    return torch.stack([elsewhere[rows.index(row)] if row in rows else mean for row in images])


def _join(parts: list[PartImportances]) -> PartImportances:
    """Importances of several images, each with its own number of background objects."""
    most = max(each.objects.shape[1] for each in parts)
    objects = [
        torch.nn.functional.pad(each.objects, (0, most - each.objects.shape[1])) for each in parts
    ]
    return PartImportances(
        torch.cat([each.parts for each in parts]),
        torch.cat([each.total for each in parts]),
        torch.cat(objects),
    )
