"""The official protocol of FunnyBirds on test pictures: what the network answers, and the scores.

`answer_interventions` runs the network once for all methods; `tally_official` then counts for one
explanation, which it asks for the importances of parts. Tallies of classes are added, and
`official_scores` reads the scores: the threshold is one for all images, so scores of classes are
not averaged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from torchxnn.apps.benchmark.funnybirds.composed import Picture, Scene
from torchxnn.attribution.base import Attributor
from torchxnn.data.datasets.funnybirds import PARTS, FunnyBirds
from torchxnn.errors import DataError
from torchxnn.metrics.funnybirds_protocol import (
    ContrastClasses,
    PartImportances,
    background_independence,
    contrast_classes,
    contrast_holds,
    controlled_synthetic_data_check,
    deletion_check,
    distractibility,
    important_things,
    irrelevant_things,
    map_importances,
    minimal_sufficient_sets,
    preservation_check,
    single_deletion,
    target_sensitivity,
)
from torchxnn.metrics.funnybirds_scores import OfficialTally, Sums
from torchxnn.models.hooks import preserve_state
from torchxnn.models.outputs import as_logits

SUBSETS = 2 ** len(PARTS)

Explain = Callable[[tuple[int, ...], int], PartImportances | None]
"""Importances of the parts of some pictures (indices into the birds) for one class (index), in the
order of the pictures; None if the method has no explanation of this class."""


@dataclass(frozen=True, eq=False)
class InterventionAnswers:
    """What the network says of pictures with all subsets of their parts, and without objects.

    Attributes:
        images: indices into the birds.
        labels: (M,) their classes.
        kept: (M, 32, K) logits by subset; bit p of its number says whether part p is kept, so 0 is
            the picture without parts and 31 the whole one.
        without_object: (M, O) the logit of the label without each background object; NaN beyond the
            objects of a picture.
        shown: how many interventions were shown to the network.
        composed: how many of them were composed and not rendered.
        composition_error: where the picture without parts is rendered: mean absolute error of the
            label's logit if it is composed from the renderings without one part, as a share of the
            mean absolute change of the logit; NaN if it is nowhere rendered. Lower is better.
    """

    images: tuple[int, ...]
    labels: Int64[Tensor, " images"]
    kept: Float[Tensor, "images subsets classes"]
    without_object: Float[Tensor, "images objects"]
    shown: int
    composed: int
    composition_error: float

    @property
    def predicted(self) -> Int64[Tensor, "images subsets"]:
        """The class that is predicted of every subset."""
        return self.kept.argmax(dim=2)

    @property
    def logits(self) -> Float[Tensor, " images"]:
        """The logit of the label of every whole picture."""
        return self.kept[torch.arange(len(self.labels)), -1, self.labels]

    @property
    def without_part(self) -> Float[Tensor, "images 5"]:
        """The logit of the label without each part."""
        alone = [SUBSETS - 1 - (1 << part) for part in range(len(PARTS))]
        return self.kept[torch.arange(len(self.labels)), :, self.labels][:, alone]


def answer_interventions(
    model: nn.Module, birds: FunnyBirds, images: Sequence[int], batch_size: int = 8
) -> InterventionAnswers:
    """Show the network every intervention: the subsets of parts, and each object that is seen.

    Args:
        model: images (B, 3, H, W) to logits (B, K); it is left as it was.
        birds: the test pictures; their preprocessing is that of the model.
        images: which of them.
        batch_size: pictures per forward pass; few are fastest on a processor, as they stay in its
            cache.

    Raises:
        DataError: there is no picture, or a file is missing; the message names it.
    """
    if len(images) == 0:
        raise DataError("the official protocol needs at least one test picture")
    labels = torch.tensor([birds.labels[index] for index in images])
    rows, objects, counts = [], [], [0, 0]
    errors, changes = [], []
    for index, label in zip(images, labels.tolist(), strict=True):
        scene = Scene(birds, index)
        pictures = [
            scene.with_parts([part for p, part in enumerate(PARTS) if subset >> p & 1])
            for subset in range(SUBSETS)
        ]
        known = not pictures[0][1]
        others = [scene.without_object(n) for n in range(birds.background_objects[index])]
        seen = [n for n, (picture, _) in enumerate(others) if picture is not scene.whole]
        shown = [*pictures, *(others[n] for n in seen)]
        counts[0] += len(shown)
        counts[1] += sum(composed for _, composed in shown)
        check = [scene.compose((), bare=False)] if known else []
        logits = _logits(model, birds, [*(p for p, _ in shown), *check], batch_size)
        rows.append(logits[:SUBSETS])
        own = logits[:, label]
        objects.append(own[SUBSETS - 1].repeat(len(others)))
        objects[-1][seen] = own[SUBSETS : len(shown)]
        if known:
            errors.append(float((own[-1] - own[0]).abs()))
            changes.append(float((own[SUBSETS - 1] - own[0]).abs()))
    return InterventionAnswers(
        images=tuple(images),
        labels=labels,
        kept=torch.stack(rows),
        without_object=pad_sequence(objects, batch_first=True, padding_value=float("nan")),
        shown=counts[0],
        composed=counts[1],
        composition_error=sum(errors) / max(sum(changes), 1e-12) if errors else float("nan"),
    )


def _logits(
    model: nn.Module, birds: FunnyBirds, pictures: Sequence[Picture], batch_size: int
) -> Float[Tensor, "pictures classes"]:
    images = torch.stack([birds.preprocessing(Image.fromarray(picture)) for picture in pictures])
    device = next(model.parameters()).device
    with preserve_state(model), torch.no_grad():
        batches = [as_logits(model(part.to(device))).cpu() for part in images.split(batch_size)]
    return torch.cat(batches)


def tally_official(
    answers: InterventionAnswers, birds: FunnyBirds, explain: Explain
) -> OfficialTally:
    """Count what the protocol counts of one method on some test pictures.

    The controlled synthetic data check, distractibility and single deletion look at explanations of
    the label, preservation and deletion check at those of the predicted class, and target
    sensitivity at those of two other classes (`contrast_classes`). Where a method has no
    explanation of a class, its pictures are left out of what needs it.

    Args:
        answers: what the network said.
        birds: the test pictures that the answers are of.
        explain: gives the importances of parts; called once for every class that is needed.
    """
    parts, predicted = len(PARTS), answers.predicted
    contrasts = [contrast_classes(birds.class_kinds, label) for label in answers.labels.tolist()]
    holding, others = _contrasted(answers, contrasts)
    asked = [answers.labels, predicted[:, -1], *others]
    (own, there), (said, spoken), (first, one), (second, two) = _ask(answers, explain, asked)

    important = important_things(own)
    sure = (there & (predicted[:, -1] == answers.labels)).nonzero().flatten()
    sets = minimal_sufficient_sets(birds.class_kinds)
    csdc = controlled_synthetic_data_check(
        important[:, sure, :parts], [sets[label] for label in answers.labels[sure].tolist()]
    )
    without = torch.cat([answers.without_part, answers.without_object], dim=1)
    irrelevant = irrelevant_things(answers.logits, without)
    irrelevant[:, parts:] &= ~own.objects.isnan()  # only what the explanation speaks of
    distracted = distractibility(important, irrelevant)
    deleted = single_deletion(own.parts, answers.logits[:, None] - answers.without_part)
    checked = important_things(said)[:, spoken, :parts]
    sensitive = [
        target_sensitivity(first.parts[i, None], second.parts[i, None], contrast).flatten()
        for i, contrast in enumerate(contrasts)
        if contrast is not None and holding[i] and one[i] and two[i]
    ]
    return OfficialTally(
        accuracy=Sums.of((predicted[:, -1] == answers.labels).float()),
        csdc=Sums.of(csdc),
        pc=Sums.of(preservation_check(checked, predicted[spoken])),
        dc=Sums.of(deletion_check(checked, predicted[spoken])),
        d=Sums.of(distracted[:, there]),
        bi=Sums.of(background_independence(answers.logits, answers.without_object).flatten()),
        sd=Sums.of(deleted[there]),
        ts=Sums.of(torch.cat([torch.empty(0), *sensitive])),
        composed=Sums((float(answers.composed),), answers.shown),
    )


def explain_with_maps(
    birds: FunnyBirds, method: Attributor, batch_size: int = 8, *, positive: bool = False
) -> Explain:
    """The importances of heatmaps of a network's logits, for `tally_official`.

    Args:
        birds: the test pictures, with their part maps.
        method: makes the heatmaps.
        batch_size: pictures per call of the method.
        positive: whether only what is positive counts.

    Raises:
        DataError: when it is asked for a picture without a part map.
    """

    def explain(images: tuple[int, ...], target: int) -> PartImportances:
        samples = [birds[index] for index in images]
        masks = [sample.masks for sample in samples if sample.masks is not None]
        if len(masks) < len(samples):
            raise DataError(f"{birds.root} has no part maps of {birds.name}: test_part_map")
        batches = torch.stack([sample.image for sample in samples]).split(batch_size)
        maps = [method.attribute(batch, target).cpu() for batch in batches]
        joined = torch.cat(maps)
        return map_importances(joined.clamp(min=0) if positive else joined, torch.stack(masks))

    return explain


def _contrasted(
    answers: InterventionAnswers, contrasts: Sequence[ContrastClasses | None]
) -> tuple[Bool[Tensor, " images"], Int64[Tensor, "2 images"]]:
    """Which pictures target sensitivity may look at, and the two classes; -1 for the others."""
    classes = torch.full((2, len(contrasts)), -1)
    for image, contrast in enumerate(contrasts):
        if contrast is None:
            continue
        pair = list(contrast.classes)
        bits = 2 ** torch.arange(len(PARTS))
        subsets = [SUBSETS - 1, *(SUBSETS - 1 - int(bits[mask].sum()) for mask in contrast.shared)]
        whole, first, second = (answers.kept[image, subset, pair][None] for subset in subsets)
        if contrast_holds(whole, first, second).item():
            classes[:, image] = torch.tensor(pair)
    return classes[0] >= 0, classes


def _ask(
    answers: InterventionAnswers, explain: Explain, targets: Sequence[Int64[Tensor, " images"]]
) -> list[tuple[PartImportances, Bool[Tensor, " images"]]]:
    """Importances for several classes of every picture, and of which pictures there are some.

    Every class is asked for once; -1 stands for none. Where an explanation speaks of no background
    object at all, the importance of each is NaN; beyond those of a picture it is 0.
    """
    wanted = torch.stack(list(targets))
    objects = answers.without_object.shape[1]
    values = torch.zeros(*wanted.shape, len(PARTS) + 1 + objects, dtype=torch.float64)
    there = torch.zeros_like(wanted, dtype=torch.bool)
    for target in wanted.unique().tolist():
        places = (wanted == target).any(dim=0).nonzero().flatten()
        if (
            target < 0
            or (found := explain(tuple(answers.images[i] for i in places.tolist()), target)) is None
        ):
            continue
        of_objects = found.objects[:, :objects]
        if found.objects.shape[1] == 0:
            of_objects = torch.full((len(places), objects), torch.nan)
        columns = [found.parts, found.total[:, None], of_objects]
        table = torch.zeros(wanted.shape[1], values.shape[2], dtype=torch.float64)
        filled = torch.cat([column.double().cpu() for column in columns], dim=1)
        table[places, : filled.shape[1]] = filled
        chosen = wanted == target
        values = torch.where(chosen[:, :, None], table, values)
        there |= chosen
    return [
        (PartImportances(rows[:, : len(PARTS)], rows[:, len(PARTS)], rows[:, len(PARTS) + 1 :]), ok)
        for rows, ok in zip(values, there, strict=True)
    ]
