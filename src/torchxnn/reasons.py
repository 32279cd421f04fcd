"""What every explanation holds and says, whatever its input is: numbers, order and words.

`Reasons` is the part of an explanation that knows no picture, text or table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.attribution.base import Certificate
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.viz import Row, number, signed

NOTABLE_SHARE = 0.05  # of the sum of |v_i E_i|: below it an x-feature is not a reason
FAR_OFF = 0.25  # of the logit's scale: beyond it the reproduced logit is said to be wrong
FALLBACK_LIMIT, CONSERVATION_LIMIT = 0.05, 1e-3


@dataclass(frozen=True, eq=False, kw_only=True)
class Reasons(ABC):
    r"""Why the network gives one input its logits, as n x-features that add up to them.

    For each target k: :math:`\hat y_k \approx \sum_i v_{ki} E_i + b_k` (paper section 2.2, eq. 1).
    All tensors are kept on the CPU, without a gradient.

    Attributes:
        features: (n,), the x-features E.
        contributions: (k, n), v_i E_i per target, in logits.
        intercept: (k,), b.
        targets: 0-based class indices.
        target_names: one per target.
        logits: (k,), the network's own.
        reproduced: (k,), `contributions.sum(-1) + intercept`.
        predicted_class: arg max of the network over all its classes.
        predicted_name: its name.
        feature_names: one per x-feature, 1-based unless somebody named them.
        certificate: of the attributions.
        faithfulness: of the fit, on held-out data; None if never measured.
        degenerate: why the fit should not be trusted; empty when it is fine.
        label: name of the true class if known.
        path: where the input came from, for people.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    features: Float[Tensor, " features"]
    contributions: Float[Tensor, "targets features"]
    intercept: Float[Tensor, " targets"]
    targets: tuple[int, ...]
    target_names: tuple[str, ...]
    logits: Float[Tensor, " targets"]
    reproduced: Float[Tensor, " targets"]
    predicted_class: int
    predicted_name: str
    feature_names: tuple[str, ...]
    certificate: Certificate
    faithfulness: Faithfulness | None
    degenerate: tuple[str, ...]
    label: str | None = None
    path: str | None = None

    @abstractmethod
    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        """Shapes of the tensors that depend on the input, and what to call the input."""

    @final
    def __post_init__(self) -> None:
        targets, features = len(self.targets), len(self.features)
        own, size = self._shapes()
        expected: dict[str, tuple[int, ...]] = {
            "features": (features,),
            "contributions": (targets, features),
            "intercept": (targets,),
            "logits": (targets,),
            "reproduced": (targets,),
            **own,
        }
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape:
                raise DataError(
                    f"{name} of an explanation has shape {tuple(tensor.shape)}; {targets} "
                    f"target(s), {features} x-feature(s) and {size} need {shape}"
                )
            object.__setattr__(self, name, tensor.detach().cpu())
            if not bool(torch.isfinite(tensor).all()):
                raise NonFiniteError(f"{name} of an explanation holds NaN or infinity")
        if len(self.target_names) != targets or len(self.feature_names) != features:
            raise DataError(
                f"{len(self.target_names)} target names for {targets} target(s) and "
                f"{len(self.feature_names)} names for {features} x-feature(s); give one each"
            )

    def order(self, target_index: int = 0) -> tuple[int, ...]:
        """0-based x-features by decreasing |v_i E_i| for one target; ties keep their order."""
        sizes = self.contributions[target_index].abs()
        return tuple(torch.argsort(sizes, descending=True, stable=True).tolist())

    def sentence(self, target_index: int = 0) -> str:
        """Say in one sentence why: "European Goldfinch because of x-feature 2 and x-feature 1".

        Reasons are x-features with at least 5% of the sum of |v_i E_i|, largest first.
        """
        values = self.contributions[target_index].tolist()
        least = NOTABLE_SHARE * sum(abs(v) for v in values)
        notable = [i for i in self.order(target_index) if values[i] and abs(values[i]) >= least]
        reasons = _listed([self.feature_names[i] for i in notable if values[i] > 0])
        objections = _listed([self.feature_names[i] for i in notable if values[i] < 0])
        name = self.target_names[target_index]
        if self.targets[target_index] == self.predicted_class:
            start = f"{name} because of {reasons}" if reasons else f"{name}, for no x-feature found"
            return f"{start}, despite {objections}" if objections else start
        speaks = f"for {name}: {reasons}" if reasons else f"no x-feature speaks for {name}"
        against = f"; against it: {objections}" if objections else ""
        return f"{self.predicted_name}, not {name}; {speaks}{against}"

    def certificate_lines(self) -> tuple[str, ...]:
        """How far the explanation can be trusted: faithfulness, x-features, heatmaps."""
        lines = []
        if self.faithfulness is None:
            lines.append("Faithfulness on held-out data: not measured.")
        else:
            f = self.faithfulness
            lines.append(
                f"Faithfulness on {f.images} held-out images: F_reg {f.f_reg:.3g} "
                f"({f.f_reg_positives:.3g} on the {f.positives} positives), F_cls {f.f_cls:.1%} "
                f"({f.f_cls_positives:.1%}), R² {f.r2:.3f}. "
                f"x-features: {f.active} of {f.n_features} active, {f.dead} dead."
            )
        c = self.certificate
        versions = ", ".join(f"{name} {version}" for name, version in c.versions.items())
        lines.append(
            f"Heatmaps: {c.method.replace('_', ' ')}, {_certified(c)}, {c.dtype}; {versions}."
        )
        return tuple(lines)

    def summary(self) -> str:
        """Plain text for a terminal."""
        lines = [self.sentence(), *(f"  {term}: {text}" for term, text in self._facts())]
        for k, name in enumerate(self.target_names):
            lines.append(f"  {self._row(k).equation}")
            for i in self.order(k):
                idle = "  (inactive here)" if float(self.features[i]) == 0 else ""
                value = signed(float(self.contributions[k, i]))
                lines.append(f"    {value:>9}  {self.feature_names[i]} for {name}{idle}")
        lines += [f"  Warning: {warning}" for warning in self._warnings(range(len(self.targets)))]
        return "\n".join([*lines, *(f"  {line}" for line in self.certificate_lines())])

    def _rows(self, target: int | None) -> tuple[int, ...]:
        """Positions of the targets to show; the predicted class first."""
        if target is not None:
            if target not in self.targets:
                raise DataError(
                    f"class {target} is not explained here; the targets are {list(self.targets)}"
                )
            return (self.targets.index(target),)
        every = range(len(self.targets))
        return tuple(sorted(every, key=lambda k: self.targets[k] != self.predicted_class))

    def _row(self, k: int) -> Row:
        logit, reproduced = float(self.logits[k]), float(self.reproduced[k])
        terms = [float(self.contributions[k, i]) for i in self.order(k)]
        total = " ".join(_term(v, first=j == 0) for j, v in enumerate(t for t in terms if t))
        intercept = float(self.intercept[k])
        total = f"{total} {_term(intercept, first=not total)}".strip()
        equation = (
            f"Logit of {self.target_names[k]}: the network gives {number(logit)}; the x-features "
            f"reproduce {number(reproduced)} = {total} (intercept)"
        )
        return Row(self.target_names[k], logit, reproduced, intercept, equation)

    def _facts(self) -> tuple[tuple[str, str], ...]:
        facts = [("Predicted", self.predicted_name)]
        if self.label is not None:
            facts.append(("True class", self.label))
        if self.path is not None:
            facts.append(("File", self.path))
        return tuple(facts)

    def _warnings(self, rows: Sequence[int]) -> tuple[str, ...]:
        found = [f"the fit is degenerate: {reason}" for reason in self.degenerate]
        for k in rows:
            logit, reproduced = float(self.logits[k]), float(self.reproduced[k])
            size = max(abs(logit), float(self.contributions[k].abs().sum()))
            if abs(logit - reproduced) > FAR_OFF * size:
                found.append(
                    f"on this image the x-features reproduce {number(reproduced)} instead of "
                    f"{number(logit)} for {self.target_names[k]}"
                )
        c = self.certificate
        if c.fallback_share is not None and c.fallback_share > FALLBACK_LIMIT:
            found.append(f"{c.fallback_share:.0%} of the relevance went through the fallback rule")
        if c.conservation_error is not None and not c.conservation_error <= CONSERVATION_LIMIT:
            found.append(f"relevance is not conserved (error {c.conservation_error:.1e})")
        return tuple(found)


def _certified(certificate: Certificate) -> str:
    """What the certificate says, or that there is nothing to say."""
    figures = (
        ("conservation error", certificate.conservation_error, ".1e"),
        ("fallback share", certificate.fallback_share, ".1%"),
        ("completeness error", certificate.completeness_error, ".1%"),
    )
    known = [f"{name} {value:{form}}" for name, value, form in figures if value is not None]
    return ", ".join(known) or "a method that promises no sum, so nothing to certify"


def _listed(names: Sequence[str]) -> str:
    """Join names as in: C; C and D; C, D and E."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _term(value: float, first: bool) -> str:
    sign = "\N{MINUS SIGN}" if value < 0 else "+"
    return number(value) if first else f"{sign} {number(abs(value))}"
