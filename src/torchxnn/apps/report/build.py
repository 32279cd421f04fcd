"""Gather a report: one pass over the data, then heatmaps of the few images that it shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from torchxnn.apps.gallery import choose_examples, heatmaps, largest
from torchxnn.apps.report.config import ReportConfig
from torchxnn.apps.report.content import FeatureSheet, Report, SheetItem
from torchxnn.attribution.base import contrast_mass
from torchxnn.attribution.methods import CERTIFIED, check_method
from torchxnn.data.activations import Activations
from torchxnn.data.class_names import spoken
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.examined import agreement_with_labels, warn_of_order
from torchxnn.data.positives import find_positives
from torchxnn.data.record import record_activations
from torchxnn.errors import XNNError, XNNWarning
from torchxnn.explanations.card import strength
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.maps import default_method
from torchxnn.explanations.sentences import NOT_ANCHORED
from torchxnn.explanations.volume import VolumeExplanation, in_slices
from torchxnn.metrics.evaluation import Measured
from torchxnn.metrics.orthogonality import MapCovariance, Orthogonality
from torchxnn.models.examination import Examination, said_of
from torchxnn.models.label_agreement import LabelAgreement
from torchxnn.xnn import XNN

Uses = Callable[[XNN, Tensor], tuple[bool | None, ...]]
Knows = Callable[[XNN, int], tuple[tuple[str, float], ...]]


def build_report(
    xnn: XNN,
    dataset: ImageDataset,
    *,
    title: str,
    model_name: str,
    known: Sequence[str] = (),
    notes: Sequence[str] = (),
    provenance: Sequence[tuple[str, str]] = (),
    config: ReportConfig | None = None,
    source: DataConfig | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_drawing: Callable[[int, int], None] | None = None,
    used: Uses | None = None,
    data: Activations | None = None,
    in_image: Knows | None = None,
) -> Report:
    """Explain some images of a data set and gather what activates each x-feature.

    Explained are positives of the first target, evenly spaced from the highest logit to the lowest,
    and the image of another class that comes closest to it. The first card is a typical one: of
    those that the network recognises and whose reasons can be given, the one in the middle. Each
    sheet shows the images, of whatever class, on which the x-feature is largest.

    Args:
        xnn: fitted.
        dataset: images, best those that were not fitted.
        title: of the page.
        model_name: for people.
        known: the truth about the logit, where it is known, and what the x-features found of it.
        notes: licences and the like.
        provenance: further pairs of term and text.
        config: what to show.
        source: images per forward pass, and processes that read ahead.
        on_batch: called after each batch of the pass with the number of images.
        on_drawing: called with (images drawn, images to draw).
        used: says of an explained image of which x-features it is shown that the network uses them
            (see `Reasons.used`), such as `lambda xnn, image: what_if(xnn, image).uses()`.
        in_image: says of an explained image, by its place in `dataset`, what is known to add to the
            logit.
        data: of `dataset`, recorded at the XNN's layer before; None records it now.

    Raises:
        XNNError: the XNN is not fitted, or there is no such method.
        DataError: the data set has no positives.
    """
    config = config or ReportConfig()
    if xnn.report is None:
        raise XNNError("this XNN has no record of its fit; call fit() or load one that has")
    method = config.method or default_method(xnn.fitted())
    check_method(method)
    if data is None:
        loader = (source or DataConfig()).loader(dataset)
        data = record_activations(xnn.model, xnn.layer, loader, on_batch)
    data = data.meant(xnn.meaning)
    agreement = agreement_with_labels(data)
    warn_of_order(agreement)
    measured = xnn.measure(data)
    positives = find_positives(data, xnn.targets)[0]
    chosen = choose_examples(data.logits[:, xnn.targets[0]], positives[:, 0], config.images)
    tops = [largest(column, config.sheet) for column in measured.embedded.features.T]
    total = len(chosen) + len({index for top in tops for index in top})
    done = count(1)

    def drawn() -> None:
        if on_drawing is not None:
            on_drawing(next(done), total)

    explained = [_explain(xnn, dataset, index, method, used, drawn) for index in chosen]
    order = _typical_first(explained, positives[list(chosen), 0].tolist(), xnn.targets[0])
    chosen, explanations = (tuple(chosen[at] for at in order), tuple(explained[at] for at in order))
    maps = _maps(xnn, dataset, tops, method, drawn)
    every = maps | {index: each.heatmaps for index, each in zip(chosen, explanations, strict=True)}
    of_class = [each for index, each in every.items() if bool(positives[index].any())]
    return Report(
        title=title,
        subtitle="",
        model_name=model_name,
        layer=xnn.layer,
        targets=tuple(spoken(xnn.target_name(target), xnn.class_names) for target in xnn.targets),
        fit=xnn.report,
        evaluation=measured.faithfulness,
        explanations=explanations,
        sheets=_sheets(xnn, dataset, measured, tops, maps, method in CERTIFIED),
        known=tuple(known),
        in_images=tuple(in_image(xnn, index) for index in chosen) if in_image else (),
        notes=(*notes, *(() if xnn.fitted().anchored else (f"{NOT_ANCHORED}.",))),
        provenance=(*provenance, *_about_model(xnn.examination, agreement)),
        orthogonality=_orthogonality(of_class, measured.dead),
        noun=xnn.meaning.noun,
        unit=dataset.preprocessing.unit,
        on_maps=xnn.fitted().has_maps,
        positives_by=measured.positives_by,
        agreement=agreement,
    )


def _about_model(
    examination: Examination | None, agreement: LabelAgreement | None
) -> tuple[tuple[str, str], ...]:
    """What is known of the model, and how often it is right on these images and on the fit's."""
    fitted = None if examination is None else examination.agreement
    plain = examination and replace(examination, agreement=None)
    lines = {"labels of these images": agreement, "labels of the images of the fit": fitted}
    known = [(term, found.text) for term, found in lines.items() if found is not None]
    return ("model", said_of(plain)), *known


def _orthogonality(maps: Sequence[Tensor], dead: tuple[int, ...]) -> Orthogonality | None:
    """Of the maps (n, [D,] H, W) of some images; the page says how many x-features are dead."""
    if not maps:
        return None
    covariance = MapCovariance(len(maps[0]))
    for each in maps:
        covariance.update(each.unsqueeze(0))
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        return covariance.result(dead)


def _explain(
    xnn: XNN,
    dataset: ImageDataset,
    index: int,
    method: str,
    used: Uses | None,
    drawn: Callable[[], None],
) -> Explanation | VolumeExplanation:
    sample = dataset[index]
    image = sample.image.to(xnn.device)
    explanation = xnn.explain(image, label=sample.label, path=sample.path, method=method)
    if used is not None:
        explanation = replace(explanation, used=used(xnn, image))
    drawn()
    return explanation


def _typical_first(
    explained: Sequence[Explanation | VolumeExplanation], of_class: Sequence[bool], target: int
) -> list[int]:
    """Positions of the explained images, the typical one before the others, which keep their order.

    Args:
        explained: by decreasing logit, then others.
        of_class: which of them are of the class.
        target: the class.
    """
    order = list(range(len(explained)))
    own = [at for at in order if of_class[at]]
    told = [at for at in own if not explained[at].declined()]
    right = [at for at in told if explained[at].predicted_class == target]
    if among := right or told:
        middle = (len(own) - 1) / 2
        typical = min(among, key=lambda at: (abs(own.index(at) - middle), at))
        order.insert(0, order.pop(typical))
    return order


def _maps(
    xnn: XNN,
    dataset: ImageDataset,
    tops: Sequence[tuple[int, ...]],
    method: str,
    drawn: Callable[[], None],
) -> dict[int, Tensor]:
    """The heatmaps (n, [D,] H, W) of the images on the sheets."""
    maps: dict[int, Tensor] = {}
    wanted = sorted({index for top in tops for index in top})
    for index, _, found in heatmaps(xnn, dataset, wanted, method=method):
        maps[index] = found
        drawn()
    return maps


def _sheets(
    xnn: XNN,
    dataset: ImageDataset,
    measured: Measured,
    tops: Sequence[tuple[int, ...]],
    maps: Mapping[int, Tensor],
    has_mass: bool,
) -> tuple[FeatureSheet, ...]:
    embedded, shares = measured.embedded, measured.faithfulness.share
    # Each x-feature is shown with the target that it matters most for.
    best = torch.tensor(shares).argmax(0)
    several = len(xnn.targets) > 1
    names = [
        f"{name} (for {spoken(xnn.target_name(xnn.targets[t]), xnn.class_names)})"
        if several
        else name
        for name, t in zip(xnn.feature_names, best.tolist(), strict=True)
    ]
    return tuple(
        FeatureSheet(
            index=feature,
            name=names[feature],
            share=shares[int(best[feature])][feature],
            items=tuple(
                SheetItem(
                    **_shown(dataset, index, maps[index][feature]),
                    activation=float(embedded.features[index, feature]),
                    contribution=float(embedded.contributions[index, best[feature], feature]),
                    caption=dataset.paths[index]
                    if dataset.labels is None
                    else spoken(xnn.class_name(dataset.labels[index]), xnn.class_names),
                    strength=strength(
                        float(contrast_mass(maps[index][None])[0, feature]) if has_mass else None
                    ),
                )
                for index in top
            ),
        )
        for feature, top in enumerate(tops)
    )


def _shown(dataset: ImageDataset, index: int, heatmap: Tensor) -> dict[str, Any]:
    """An image and a map on it, as a sheet shows them; of a volume slices side by side."""
    picture = dataset.preprocessing.picture(dataset[index].image)
    if heatmap.ndim == 2:
        return {"image": picture, "heatmap": heatmap.numpy()}
    row = in_slices(picture, heatmap)
    return {"image": row.image, "heatmap": row.relevance, "slices": row.text}
