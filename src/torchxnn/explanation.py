"""The explanation of one image: "A is B because of C, D and E".

An `Explanation` holds numbers and maps; `card()` puts them into words and order once, and the
figure, the saved folder and the HTML page all draw that card.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from torchxnn.attribution.base import Certificate
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.figure import draw_card
from torchxnn.files import replace_file, replace_folder
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.page import render_card
from torchxnn.viz import (
    PERCENTILE,
    Card,
    Panel,
    Row,
    Scale,
    cutout,
    intensities,
    number,
    overlay,
    signed,
)

FORMAT, FORMAT_VERSION = "torchxnn.explanation", 1
MARKER = "explanation.json"
NOTABLE_SHARE = 0.05  # of the sum of |v_i E_i|: below it an x-feature is not a reason
FAR_OFF = 0.25  # of the logit's scale: beyond it the reproduced logit is said to be wrong
FALLBACK_LIMIT, CONSERVATION_LIMIT = 0.05, 1e-3
_ARRAYS = ("features", "contributions", "intercept", "heatmaps", "logit_heatmaps", "logits",
           "reproduced")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Explanation:
    r"""Why the network gives one image its logits, as n x-features that add up to them.

    For each target k: :math:`\hat y_k \approx \sum_i v_{ki} E_i + b_k` (paper section 2.2, eq. 1).
    The contribution :math:`v_{ki} E_i` of x-feature i stands above its heatmap (paper figure 8).
    All tensors are kept on the CPU, without a gradient.

    Attributes:
        picture: (H, W, 3) uint8, the image as the network saw it, without the normalisation.
        features: (n,), the x-features E.
        contributions: (k, n), v_i E_i per target, in logits.
        intercept: (k,), b.
        heatmaps: (n, H, W), signed relevance of each x-feature (c-MWP unless another method is
            named in the certificate).
        logit_heatmaps: (k, H, W), signed relevance of each original logit.
        targets: 0-based class indices.
        target_names: one per target.
        logits: (k,), the network's own.
        reproduced: (k,), `contributions.sum(-1) + intercept`.
        predicted_class: arg max of the network over all its classes.
        predicted_name: its name.
        feature_names: one per x-feature, 1-based unless somebody named them.
        certificate: of the heatmaps.
        faithfulness: of the fit, on held-out data; None if never measured.
        degenerate: why the fit should not be trusted; empty when it is fine.
        label: name of the true class if known.
        path: where the image came from, for people.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    features: Float[Tensor, " features"]
    contributions: Float[Tensor, "targets features"]
    intercept: Float[Tensor, " targets"]
    heatmaps: Float[Tensor, "features height width"]
    logit_heatmaps: Float[Tensor, "targets height width"]
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

    def __post_init__(self) -> None:
        targets, features = len(self.targets), len(self.features)
        size = self.picture.shape[:2]
        expected: dict[str, tuple[int, ...]] = {
            "features": (features,),
            "contributions": (targets, features),
            "intercept": (targets,),
            "heatmaps": (features, *size),
            "logit_heatmaps": (targets, *size),
            "logits": (targets,),
            "reproduced": (targets,),
        }
        for name, shape in expected.items():
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape:
                raise DataError(
                    f"{name} of an explanation has shape {tuple(tensor.shape)}; {targets} "
                    f"target(s), {features} x-feature(s) and a picture of {size} need {shape}"
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

    def card(self, target: int | None = None, scale: Scale = "each") -> Card:
        """Put the explanation into words and order, ready to be drawn.

        Args:
            target: Class index of the one target to show; None shows all.
            scale: "each": every heatmap uses the whole colour scale; "shared": the x-features'
                heatmaps share one, so that they can be compared.

        Raises:
            DataError: `target` is not among the targets of this explanation.
        """
        rows = self._rows(target)
        panels = []
        for i in self.order(rows[0]):
            values = tuple(float(self.contributions[k, i]) for k in rows)
            idle = float(self.features[i]) == 0 or not any(values)
            note = "inactive here" if idle else ""
            panels.append(Panel(self.feature_names[i], _array(self.heatmaps[i]), values, note))
        return Card(
            picture=self.picture,
            sentence=self.sentence(rows[0]),
            facts=self._facts(),
            rows=tuple(self._row(k) for k in rows),
            panels=tuple(panels),
            logit_panels=tuple(
                Panel(self.target_names[k], _array(self.logit_heatmaps[k])) for k in rows
            ),
            certificate=self.certificate_lines(),
            warnings=self._warnings(rows),
            caption=_CAPTION[scale],
            scale=scale,
        )

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

    def plot(self, target: int | None = None, scale: Scale = "each") -> Figure:
        """Draw the figure: picture, heatmaps by contribution, the logit's heatmap, certificate.

        Takes the arguments of `card`. The figure belongs to no window: use its `savefig`, or let a
        notebook show the explanation itself.
        """
        return draw_card(self.card(target, scale))

    def to_html(self, file: Path | str) -> None:
        """Write one self-contained HTML page that opens offline; whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        replace_file(Path(file), render_card(self.card()))

    def save(self, directory: Path | str) -> None:
        """Write a folder: `explanation.json`, `arrays.npz` and PNGs; whole or not at all.

        The PNGs are `figure.png`, `picture.png`, `x_feature_<i>.png`, `x_feature_<i>_cutout.png`
        (i is 1-based) and `logit_<class index>.png`. An older explanation there is replaced.

        Raises:
            FileExistsError: The folder holds something that is not an explanation.
            OSError: It cannot be written.
        """
        with replace_folder(Path(directory), MARKER) as folder:
            arrays: dict[str, Any] = {name: _array(getattr(self, name)) for name in _ARRAYS}
            np.savez_compressed(folder / "arrays.npz", picture=self.picture, **arrays)
            for name, pixels in self._pictures().items():
                Image.fromarray(pixels).save(folder / name)
            self.plot().savefig(folder / "figure.png")
            text = json.dumps(self._record(), indent=2, ensure_ascii=False, allow_nan=False)
            (folder / MARKER).write_text(text + "\n", encoding="utf-8", errors="replace")

    @classmethod
    def load(cls, directory: Path | str) -> Explanation:
        """Read what `save` wrote.

        Raises:
            DataError: The folder holds no explanation, or one of a newer version.
        """
        folder = Path(directory)
        try:
            record = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} holds no readable {MARKER}: {error}") from error
        if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
            raise DataError(
                f"{folder / MARKER} is {record.get('format')!r} version {record.get('version')!r}; "
                f"this torchxnn reads {FORMAT!r} version {FORMAT_VERSION}"
            )
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            values: dict[str, Any] = {n: torch.from_numpy(arrays[n]) for n in _ARRAYS}
            values["picture"] = arrays["picture"]
        values |= {name: tuple(record[name]) for name in _TUPLES}
        values |= {name: record[name] for name in _SCALARS}
        values["certificate"] = Certificate(**record["certificate"])
        values["faithfulness"] = _faithfulness(record["faithfulness"])
        return cls(**values)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.plot().savefig(buffer, format="png")
        return buffer.getvalue()

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

    def _pictures(self) -> dict[str, np.ndarray]:
        maps = [_array(m) for m in self.heatmaps]
        pictures = {"picture.png": self.picture}
        for i, (heatmap, intensity) in enumerate(zip(maps, intensities(maps), strict=True), 1):
            pictures[f"x_feature_{i}.png"] = overlay(self.picture, intensity)
            pictures[f"x_feature_{i}_cutout.png"] = cutout(self.picture, heatmap)
        for k, heatmap in zip(self.targets, self.logit_heatmaps, strict=True):
            (intensity,) = intensities([_array(heatmap)])
            pictures[f"logit_{k}.png"] = overlay(self.picture, intensity)
        return pictures

    def _record(self) -> dict[str, Any]:
        numbers = {n: getattr(self, n).tolist() for n in _ARRAYS if "heatmaps" not in n}
        record = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "sentence": self.sentence(),
            "order": {str(t): self.order(k) for k, t in enumerate(self.targets)},
            **{name: getattr(self, name) for name in (*_TUPLES, *_SCALARS)},
            **numbers,
            "certificate": asdict(self.certificate),
            "faithfulness": None if self.faithfulness is None else asdict(self.faithfulness),
            "drawing": _CAPTION["each"],
            "arrays": "arrays.npz holds the raw signed heatmaps (n, H, W), not smoothed or scaled",
        }
        return _jsonable(record)


_TUPLES = ("targets", "target_names", "feature_names", "degenerate")
_SCALARS = ("predicted_class", "predicted_name", "label", "path")
_SMOOTHED = (
    "Upper row: where it looks, the positive part of the relevance, lightly smoothed for drawing "
    f"only; the colours end at the {PERCENTILE}th percentile. Lower row: what is there, the fewest "
    "pixels that hold half of the positive part after twice that smoothing."
)
_CAPTION: dict[str, str] = {
    "each": "Each heatmap has its own colour scale (normalised per x-feature and image). "
    + _SMOOTHED,
    "shared": "The heatmaps of the x-features share one colour scale; the logit's has its own. "
    + _SMOOTHED,
}


def _certified(certificate: Certificate) -> str:
    """What the certificate says, or that there is nothing to say."""
    figures = (
        ("conservation error", certificate.conservation_error, ".1e"),
        ("fallback share", certificate.fallback_share, ".1%"),
        ("completeness error", certificate.completeness_error, ".1%"),
    )
    known = [f"{name} {value:{form}}" for name, value, form in figures if value is not None]
    return ", ".join(known) or "a method that promises no sum, so nothing to certify"


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()


def _listed(names: Sequence[str]) -> str:
    """Join names as in: C; C and D; C, D and E."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _term(value: float, first: bool) -> str:
    sign = "\N{MINUS SIGN}" if value < 0 else "+"
    return number(value) if first else f"{sign} {number(abs(value))}"


def _jsonable(value: Any) -> Any:
    """JSON knows no NaN and no lone surrogates (which undecodable file names hold)."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _faithfulness(record: dict[str, Any] | None) -> Faithfulness | None:
    return None if record is None else Faithfulness.from_json(record)
