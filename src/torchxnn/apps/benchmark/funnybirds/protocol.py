"""The protocol of the data set's authors on one class, for maps of the logit and for XNNs.

It asks about several classes of every image, so it follows when the XNNs of all classes are there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchxnn.apps.benchmark.funnybirds.causes import Answers, ask, find_removals, importances
from torchxnn.apps.benchmark.funnybirds.maps import draw, feature_maps, see
from torchxnn.apps.benchmark.funnybirds.measure import PAPER_RULE, Ready, fit_default, save_default
from torchxnn.apps.benchmark.funnybirds.official import (
    Explain,
    answer_interventions,
    explain_with_maps,
    tally_official,
)
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.data.datasets.funnybirds import PARTS, FunnyBirds
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, UnsupportedOperationError, XNNWarning
from torchxnn.metrics import ground_truth as truth
from torchxnn.metrics.funnybirds_protocol import PartImportances, map_importances, part_importances
from torchxnn.metrics.masking import combine_maps
from torchxnn.xnn import XNN


def count_class(ready: Ready, target: int) -> dict[str, Any]:
    """What the protocol counts on the test images of one class.

    Returns:
        `tallies` by method, in plain values: the logit's maps as "1-heatmap" (excitation backprop)
        and "1-heatmap, RULE", the parts of today's default as "XNN", and its combined maps as
        "XNN, maps"; `composition_error`, and `not_drawn`, the rules that this network has no maps
        by, with the reason.
    """
    birds = ready.opened.task.test
    if not isinstance(birds, FunnyBirds):
        raise DataError(f"{birds.name} is not FunnyBirds, so its protocol cannot be run on it")
    rows = ready.opened.task.positives(target)
    rows = evenly_spaced(rows, ready.config.official_images)
    answers = answer_interventions(ready.opened.task.model, birds, rows)
    defaults = Defaults(ready)
    explains: dict[str, Explain] = {
        "XNN": defaults.explain_parts,
        "XNN, maps": defaults.explain_maps,
    }
    found, not_drawn = {}, {}
    for rule in ready.config.official_rules:
        name = "1-heatmap" if rule == PAPER_RULE else f"1-heatmap, {rule}"
        method = draw(rule, ready.opened.task.model, ready.config)
        explains[name] = explain_with_maps(birds, method)
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        for name, explain in explains.items():
            try:
                found[name] = tally_official(answers, birds, explain)
            except UnsupportedOperationError as error:
                not_drawn[name] = str(error)
    composed = answers.composition_error
    return {"tallies": found, "composition_error": composed, "not_drawn": not_drawn}


@dataclass(eq=False)
class Defaults:
    """Today's default of every class, read or fitted when it is asked for."""

    ready: Ready
    _known: dict[int, tuple[Embedding, Answers, list[int]]] = field(default_factory=dict)

    def find(self, target: int) -> tuple[Embedding, Answers, list[int]]:
        """The embedding of a class, how it answers to removals, and on which images."""
        if target not in self._known:
            opened = self.ready.opened
            folder = saved_xnn(opened.folder, target, "XNN")
            if (
                not folder.exists()
            ):  # a class that was not asked for, but another is contrasted with
                save_default(self.ready, target, fit_default(self.ready, target))
            embedding = XNN.from_pretrained(folder, model=opened.task.model).fitted()
            rows = opened.task.positives(target)
            removals = find_removals(opened.recorded, rows, target, len(PARTS))
            self._known[target] = embedding, ask(embedding, removals), rows
        return self._known[target]

    def explain_parts(self, images: tuple[int, ...], target: int) -> PartImportances:
        """Contributions by what x-features are about, on other images of the class than these."""
        embedding, answers, rows = self.find(target)
        elsewhere, mean = truth.without_own(answers.changes), answers.profiles
        about = [elsewhere[rows.index(row)] if row in rows else mean for row in images]
        anchored = self._contributions(embedding, images) - answers.typical
        return part_importances(importances(anchored, torch.stack(about)))

    def explain_maps(self, images: tuple[int, ...], target: int) -> PartImportances:
        """Maps of the x-features, combined by contribution into one; nothing else is known."""
        embedding, answers, _ = self.find(target)
        anchored = self._contributions(embedding, images) - answers.typical
        parts = []
        for row, own in zip(images, anchored, strict=True):
            seen = see(self.ready.opened.task, [row])
            task, config = self.ready.opened.task, self.ready.config
            maps = feature_maps(task, embedding, seen, PAPER_RULE, config)
            combined = combine_maps(maps, own.unsqueeze(0))
            parts.append(map_importances(combined, seen.masks, len(PARTS)))
        return _join(parts)

    def _contributions(self, embedding: Embedding, images: tuple[int, ...]) -> Tensor:
        z = self.ready.opened.recorded.located.select(torch.tensor(images)).z
        return apply_embedding(embedding, z).contributions[:, 0]


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
