"""How far an explanation can be trusted, in words: the fit, its error bound, the maps.

Pure functions of figures that a fit and an attribution measured. What is explained is called by its
unit, such as "image", and what is drawn of it by a plural, such as "Heatmaps".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from torchxnn.attribution.base import CONSERVATION_LIMIT, FALLBACK_LIMIT, WEAK_MASS, Certificate
from torchxnn.attribution.methods import OF_PROBABILITIES
from torchxnn.explanations.alike import overlap
from torchxnn.explanations.drawing.overlay import number
from torchxnn.metrics.faithfulness import BOUND_LEVEL, Faithfulness
from torchxnn.models.config import OutputKind, OutputScale

BETTER_WITNESS = "on such networks the method removal tells more of the truth, and takes longer"
"""What is said of images where units are decided by their bias, as by depthwise convolutions: there
maps by removal follow their x-feature better than those of any other method (FunnyBirds, docs)."""

READING_OF_MASS = (
    "Mass: how much of the relevance the drawn map holds, the rest went the same way as that of "
    f"what speaks against it; below {WEAK_MASS:.2%} it is called weak."
)
"""How a caption says what the contrast mass beside a map means."""

READING_OF_OVERLAP = (
    "Overlap: mean squared correlation of the x-features' {drawn} on one {unit}, as drawn (0: each "
    "shows a place of its own; 1: all show the same)."
)
"""How a page with several inputs says what their overlaps mean."""

READING_OF_USE = (
    "Use is shown where painting over the x-feature's region moves the network's own {quantity} as "
    "claimed, and further than such regions at nearly all other places (corrected p at most 0.05); "
    "not shown does not mean not used."
)
"""How a caption says what was tested of an x-feature; the rule is that of `WhatIf.used`."""

_GROUPS = {
    "classes": ("of the class", "of other classes"),
    "labels": ("with the label", "without it"),
    "value": ("with high values", "with lower ones"),
}
"""Who the inputs are that an error bound rests on: the positives, or all others."""


def faithfulness_line(found: Faithfulness | None, unit: str) -> str:
    """What was measured of a fit on held-out data; None says that nothing was."""
    if found is None:
        return "Faithfulness on held-out data: not measured."
    return (
        f"Faithfulness on {found.images} held-out {unit}s: F_reg {found.f_reg:.3g} "
        f"({found.f_reg_positives:.3g} on the {found.positives} positives), {_kept(found)}"
        f"R² {found.r2:.3f}. x-features: {found.active} of {found.n_features} active, "
        f"{found.dead} dead."
    )


def bound_origin(
    found: Faithfulness | None, positions: Sequence[int], unit: str, outputs_are: OutputKind
) -> str:
    """How surely a new input stays within the measured bounds of some targets.

    The clause follows "the bound", and is about the target of which the data say least.

    Args:
        found: of the fit; None if it was never measured.
        positions: of the targets in `Faithfulness`.
        unit: what is explained.
        outputs_are: see `Meaning`.
    """
    levels = [found.bound_level(k) for k in positions] if found is not None else []
    known = [level for level in levels if level is not None]
    if not known:
        return f"that nearly all held-out {unit}s stay within"
    least = min(known, key=lambda level: level.probability)
    chance, kind = least.probability, _GROUPS[outputs_are][not least.own]
    chances = f"{float(chance):.0%}" if chance >= BOUND_LEVEL else f"{chance} ({float(chance):.0%})"
    return (
        f"that a new {unit} stays within with probability at least {chances}, as "
        f"{least.images} held-out {unit}{'s' * (least.images != 1)} {kind} can say"
    )


def above_bound(value: float, bound: float) -> str:
    """A number and the bound that it is above, with as many digits as tell them apart."""
    for form in (number, "{:.3f}".format, "{:.6f}".format):
        if form(value) != form(bound):
            break
    return f"{form(value)}, more than the bound of {form(bound)}"


def overlap_line(maps: Float[np.ndarray, "features features"], drawn: str, unit: str) -> str:
    """How far several maps show the same, from their correlations as drawn."""
    return (
        f"Overlap of the x-features' {drawn.lower()}: mean squared correlation {overlap(maps):.2f} "
        f"on this {unit}, as drawn (0: each shows a place of its own; 1: all show the same)."
    )


def drawing_line(certificate: Certificate, drawn: str, scale: OutputScale = "logits") -> str:
    """How the maps were drawn: method, what it certifies, precision and versions.

    `scale` is that of the outputs; of others than logits the whole is drawn in another way.
    """
    method, made = _method(certificate, scale), _made(certificate)
    return f"{drawn}: {method}, {certified(certificate)}, {made}."


def method_line(certificate: Certificate, drawn: str, scale: OutputScale = "logits") -> str:
    """The same without what is of one input."""
    return f"{drawn}: {_method(certificate, scale)}, {_made(certificate)}."


def _method(certificate: Certificate, scale: OutputScale) -> str:
    method = certificate.method.replace("_", " ")
    if scale != "logits" and certificate.fallback_share is not None:
        of_whole = OF_PROBABILITIES.replace("_", " ")
        method = f"{method} (that of the whole output: {of_whole}, since it is no logit)"
    return method


def drawing_warnings(certificate: Certificate, unit: str) -> list[str]:
    """Why the maps should not be trusted; empty if nothing speaks against them."""
    fallback, error, found = certificate.fallback_share, certificate.conservation_error, []
    if fallback is not None and fallback > FALLBACK_LIMIT:
        way_out = f"; {BETTER_WITNESS}" if unit == "image" else ""
        worst = worst_map(certificate)
        whose = f" of {worst}, the most of all," if worst else ""
        found.append(
            f"{fallback:.0%} of the relevance{whose} met units that their biases decided{way_out}"
        )
    if error is not None and not error <= CONSERVATION_LIMIT:
        found.append(f"relevance is not conserved (error {error:.1e})")
    return found


def worst_certificate(certificates: Sequence[Certificate]) -> Certificate:
    """One certificate for images that have one each, by one method: the worst of every figure.

    Figures that none has stay None, and so does the contrast mass of a target that is off on all.
    """

    def worst(values: Iterable[Any], choose: Callable[..., Any] = max) -> Any:
        return choose((value for value in values if value is not None), default=None)

    def of_targets(name: str, choose: Callable[..., Any]) -> Any:
        rows = [row for each in certificates if (row := getattr(each, name)) is not None]
        return tuple(worst(column, choose) for column in zip(*rows, strict=True)) if rows else None

    return replace(
        certificates[0],
        conservation_error=worst(each.conservation_error for each in certificates),
        fallback_share=worst(each.fallback_share for each in certificates),
        completeness_error=worst(each.completeness_error for each in certificates),
        contrast_mass=of_targets("contrast_mass", min),
        fallback_shares=of_targets("fallback_shares", max),
    )


def worst_map(certificate: Certificate) -> str:
    """Whose fallback share the largest is; empty where there is none, or no other map."""
    shares = certificate.fallback_shares or ()
    worst = max(shares, default=0.0)
    return f"x-feature {shares.index(worst) + 1}" if len(shares) > 1 and worst > 0 else ""


def _made(certificate: Certificate) -> str:
    """In which precision, and by which programs."""
    versions = ", ".join(f"{name} {version}" for name, version in certificate.versions.items())
    return f"{certificate.dtype}; {versions}"


def _kept(found: Faithfulness) -> str:
    """The share of inputs that keep their class, and a comma; empty where nothing is decided."""
    if found.f_cls is None or found.f_cls_positives is None:
        return ""
    return f"F_cls {found.f_cls:.1%} ({found.f_cls_positives:.1%}), "


def certified(certificate: Certificate) -> str:
    """What the certificate says, or that there is nothing to say."""
    figures = (
        ("conservation error", certificate.conservation_error, ".1e"),
        ("fallback share", certificate.fallback_share, ".1%"),
        ("completeness error", certificate.completeness_error, ".1%"),
    )
    known = [f"{name} {value:{form}}" for name, value, form in figures if value is not None]
    if worst := worst_map(certificate):
        known[1] += f" ({worst})"
    if certificate.conservation_error is not None:
        known.append(_masses(certificate.contrast_mass))
    return ", ".join(known) or "a method that promises no sum, so nothing to certify"


def _masses(masses: tuple[float | None, ...] | None) -> str:
    """The contrast mass of the maps of x-features that are on, from the least to the largest."""
    if masses is None:
        return "contrast mass not measured"
    known = [mass for mass in masses if mass is not None]
    if not known:
        return "no x-feature on"
    ends = dict.fromkeys(f"{100 * each(known):.2g}%" for each in (min, max))
    return f"contrast mass {' to '.join(ends)}"
