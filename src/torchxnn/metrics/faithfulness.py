"""How well the x-features reproduce the network's outputs, and whether the fit is degenerate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.exact import where_exact
from torchxnn.errors import DataError
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import class_margins, predicted_classes

ACTIVE_SHARE = 0.05
"""An x-feature is active if its mean |contribution| over the positives is at least this share."""

MINIMUM_R2 = 0.5
"""A fit with less R^2 on held-out data is degenerate."""

BOUND_LEVEL = Fraction(99, 100)
"""How surely a new image stays within `Faithfulness.error_bound`, where 99 images can say so."""


@dataclass(frozen=True)
class BoundLevel:
    """How surely a new image stays within an error bound.

    Attributes:
        probability: at least; the held-out images can carry no more.
        images: held-out images that it rests on.
        own: whether they are positives of the target; else they are all the others.
    """

    probability: Fraction
    images: int
    own: bool


@dataclass(frozen=True)
class Faithfulness:
    r"""Faithfulness of the reproduced logits (paper section 4.2) and the signs of degeneracy.

    All rates are fractions. With several targets, errors are averaged over them and F_cls replaces
    all of them at once.

    Attributes:
        f_reg: mean absolute error of the logit, in logits; lower is better.
        f_cls: share of images whose predicted class stays when the reproduced logits replace the
            network's; higher is better. Of labels that do not exclude each other, whose targets
            stay on their side of 0; None of values, which decide nothing.
        f_reg_positives: the same as `f_reg`, over the positives alone; lower is better.
        f_cls_positives: the same as `f_cls`, over the positives alone; higher is better.
        r2: coefficient of determination of the logits over all images, at most 1; higher is better;
            the lowest of the targets. NaN if the logit does not vary.
        images: number of images, M.
        positives: number of images that are positives of a target.
        n_features: number of x-features, n.
        active: x-features that are not dead and contribute at least 5% of the sum of mean
            :math:`|c_i|` over the positives, to any target; :math:`c_i` counts from what a typical
            other image gets, see `Embedding.contributions`.
        dead: number of x-features that are 0 on every positive; lower is better.
        share: (targets, features), mean :math:`|c_i|` over the target's positives, each row divided
            by its sum.
        margin: mean margin of the positives, in logits: how far the network's largest logit is
            ahead of the second one, or of 0 if there is only one; of labels how far the target's
            is from 0. None of values, and in records of earlier versions.
        margin_changed: the same over the images whose predicted class changes; None if none does.
            Far below `margin`, those are near-ties of the network.
        error_bound: (targets,), the error of the logit that a new image stays within with the
            probability of `bound_level`, in logits; lower is better. It is the larger of two
            quantiles, that of the target's positives and that of all other images, since positives
            are few and harder. Of m images it is the error number ceil(0.99 (m + 1)) by size, and
            the largest where there are fewer than 99. None in records of earlier versions.
        mean_contribution: (targets, features), mean :math:`c_i` over the target's positives, in
            logits; negative where an x-feature speaks against the class. None in records of earlier
            versions.
        bound_positives: (targets,), number of the target's positives. None in records of earlier
            versions.
    """

    f_reg: float
    f_cls: float | None
    f_reg_positives: float
    f_cls_positives: float | None
    r2: float
    images: int
    positives: int
    n_features: int
    active: int
    dead: int
    share: tuple[tuple[float, ...], ...]
    margin: float | None = None
    margin_changed: float | None = None
    error_bound: tuple[float, ...] | None = None
    mean_contribution: tuple[tuple[float, ...], ...] | None = None
    bound_positives: tuple[int, ...] | None = None

    def bound_level(self, target_index: int = 0) -> BoundLevel | None:
        """How surely a new image stays within `error_bound`, whether it is a positive or not.

        The error number r by size of m images is not exceeded by one more image with probability
        r / (m + 1) at least, if it is drawn like those: m / (m + 1) for the largest. The lower of
        the two levels, of positives and of others, counts. None if nobody knows the number of the
        target's positives, in records of earlier versions with several targets.
        """
        counts = self.bound_positives
        if counts is None and len(self.share) == 1:
            counts = (self.positives,)
        if counts is None:
            return None
        own = counts[target_index]
        groups = [(own, True), (self.images - own, False)]
        levels = [BoundLevel(Fraction(_rank(m), m + 1), m, kind) for m, kind in groups if m]
        return min(levels, key=lambda level: level.probability)

    @property
    def degenerate(self) -> tuple[str, ...]:
        """Why this is not an explanation by several concepts; empty if it is one."""
        reasons = []
        shares = enumerate(self.share)
        alone = [t for t, row in shares if sum(s >= ACTIVE_SHARE for s in row) < 2]
        if self.n_features > 1 and self.active < 2:
            reasons.append(
                f"{self.active} of {self.n_features} x-features carries the logit alone"
                if self.active
                else "no x-feature contributes to the logit"
            )
        elif self.n_features > 1 and alone:
            places = ", ".join(str(t + 1) for t in alone)
            reasons.append(f"fewer than 2 x-features carry the logit of target number {places}")
        if not self.r2 >= MINIMUM_R2:
            reasons.append(f"R^2 {self.r2:.2f} is below {MINIMUM_R2}")
        return tuple(reasons)


def measure_faithfulness(
    features: Float[Tensor, "samples features"],
    contributions: Float[Tensor, "samples targets features"],
    reproduced: Float[Tensor, "samples targets"],
    logits: Float[Tensor, "samples outputs"],
    targets: tuple[int, ...],
    positives: Bool[Tensor, "samples targets"],
    meaning: Meaning = CLASSES,
) -> Faithfulness:
    """Compare reproduced with original logits (paper section 4.2, metric 1).

    Args:
        features: E, (M, n).
        contributions: anchored, (M, k, n), see `Embedding.contributions`.
        reproduced: (M, k).
        logits: (M, K), all outputs of the explained model.
        targets: the k columns of `logits` that are reproduced.
        positives: (M, k), which images are positives of which target.
        meaning: of the outputs.

    Raises:
        DataError: there are no images or no positives.
    """
    if len(logits) == 0:
        raise DataError("there are no images to measure faithfulness on")
    missing = [t for t, found in zip(targets, positives.any(0), strict=True) if not found]
    if missing:
        raise DataError(
            f"no positives of target(s) {missing} among {len(logits)} images; "
            "add some, or explain another target"
        )
    measured = where_exact(features, contributions, reproduced, logits, positives)
    features, contributions, reproduced, logits, positives = measured
    original = logits[:, list(targets)]
    error = (reproduced - original).abs().double()
    share = _shares(contributions, positives)
    mean = _mean_over(contributions.double(), positives)
    any_positive = positives.any(1)
    dead = dead_features(features, any_positive)
    decided = _decisions(logits, reproduced, targets, any_positive, meaning)
    return Faithfulness(
        f_reg=float(error.mean()),
        f_reg_positives=float(error[positives].mean()),
        r2=_lowest_r2(reproduced.double(), original.double()),
        images=len(logits),
        positives=int(any_positive.sum()),
        n_features=features.shape[1],
        active=int(((share >= ACTIVE_SHARE).any(0) & ~dead).sum()),
        dead=int(dead.sum()),
        share=tuple(tuple(row) for row in share.tolist()),
        **decided,
        error_bound=tuple(
            max(_upper_quantile(column[mask]), _upper_quantile(column[~mask]))
            for column, mask in zip(error.T, positives.T, strict=True)
        ),
        mean_contribution=tuple(tuple(row) for row in mean.tolist()),
        bound_positives=tuple(int(count) for count in positives.sum(0)),
    )


def dead_features(
    features: Float[Tensor, "samples features"], positives: Bool[Tensor, " samples"]
) -> Bool[Tensor, " features"]:
    """X-features that are 0 on every positive: their ReLU is off, and there is nothing to see.

    They may still contribute, as what other images have and the positives lack.
    """
    return (features[positives] == 0).all(0)


def _upper_quantile(errors: Float[Tensor, " some"]) -> float:
    """The smallest error that a further image stays within with probability 99%, if it can be."""
    return float(errors.kthvalue(_rank(len(errors))).values) if len(errors) else 0.0


def _rank(images: int) -> int:
    """Which of the errors by size is the bound, from 1 for the smallest."""
    return min(math.ceil(BOUND_LEVEL * (images + 1)), images)


def _decisions(
    logits: Float[Tensor, "samples outputs"],
    reproduced: Float[Tensor, "samples targets"],
    targets: tuple[int, ...],
    positives: Bool[Tensor, " samples"],
    meaning: Meaning,
) -> dict[str, float | None]:
    """The figures of what the outputs decide; none of values, which decide nothing."""
    outputs_are, boundary = meaning.outputs_are, meaning.boundary
    if outputs_are == "value":
        return dict.fromkeys(("f_cls", "f_cls_positives", "margin", "margin_changed"))
    if outputs_are == "labels":
        own = logits[:, list(targets)]
        unchanged = ((reproduced > boundary) == (own > boundary)).all(1)
        margin = (own.double() - boundary).abs().amin(1)
    else:
        unchanged = _same_class(logits, reproduced, targets, boundary)
        margin = class_margins(logits, boundary)
    return {
        "f_cls": float(unchanged.double().mean()),
        "f_cls_positives": float(unchanged[positives].double().mean()),
        "margin": float(margin[positives].mean()),
        "margin_changed": None if bool(unchanged.all()) else float(margin[~unchanged].mean()),
    }


def _same_class(
    logits: Float[Tensor, "samples outputs"],
    reproduced: Float[Tensor, "samples targets"],
    targets: tuple[int, ...],
    boundary: float,
) -> Bool[Tensor, " samples"]:
    """Whether the predicted class stays if the targets get their reproduced logits."""
    replaced = logits.clone()
    replaced[:, list(targets)] = reproduced.to(logits.dtype)
    return predicted_classes(replaced, boundary) == predicted_classes(logits, boundary)


def _lowest_r2(
    reproduced: Float[Tensor, "samples targets"], logits: Float[Tensor, "samples targets"]
) -> float:
    residual = (reproduced - logits).square().sum(0)
    total = (logits - logits.mean(0)).square().sum(0)
    return float((1 - residual / total).min()) if bool((total > 0).all()) else float("nan")


def _shares(
    contributions: Float[Tensor, "samples targets features"],
    positives: Bool[Tensor, "samples targets"],
) -> Float[Tensor, "targets features"]:
    mean = _mean_over(contributions.abs().double(), positives)
    return mean / mean.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _mean_over(
    values: Float[Tensor, "samples targets features"], positives: Bool[Tensor, "samples targets"]
) -> Float[Tensor, "targets features"]:
    weights = positives.double().unsqueeze(2)
    return (values * weights).sum(0) / weights.sum(0)
