"""The card of a saved XNN: what it explains, how well, what it cannot say, who named what.

In the manner of model cards (Mitchell et al., Model Cards for Model Reporting, FAT* 2019), from
what lies in the folder alone: neither the network nor any images are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchxnn.data.class_names import spoken
from torchxnn.errors import DataError, ModelError
from torchxnn.explanations.certificate import worst_map
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.explanations.names.file import read_names
from torchxnn.explanations.names.judgements import FeatureNames, Status
from torchxnn.explanations.names.texts import NAMES
from torchxnn.metrics.evaluation import Evaluation
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.metrics.table import METRICS
from torchxnn.models.examination import Examination
from torchxnn.models.meaning import read_meaning
from torchxnn.models.outputs import both_class_names, check_targets
from torchxnn.storage.artifact import plain, structure, to_json
from torchxnn.storage.files import replace_file
from torchxnn.storage.paths import Location
from torchxnn.storage.saved_folder import read_saved
from torchxnn.training.report import FitReport

LIMITS = (
    "It says how the network's logit comes about, not whether the network is right.",
    "An x-feature need not be a part of the object; a name is what people read into its maps.",
    "The figures hold for images like those they were measured on.",
    "Another sample of the images can find other x-features, where they are not found again.",
)
"""What holds of every XNN."""


@dataclass(frozen=True)
class NamedFeature:
    """One x-feature of a card.

    Attributes:
        name: the name that it is shown by, in quotation marks if one person alone gave it, in
            single angle ones if a rule did; or
            "x-feature 3".
        status: "by rule", "one person", "agreed" by at least two, or empty without a name.
        said_by: the same in words, as in "2 of 3 people".
        agreeing: how many people gave it; 0 without a name.
        people: how many judged.
        share: of the sum of the mean absolute contributions to the first target, between 0 and 1.
        contribution: mean anchored contribution over the positives of the first target, in logits;
            None in records of earlier versions. It and the share are over the positives that
            `RunCard.shares_on` says.
        found_again: share of resampled fits; None where nobody measured it.
    """

    name: str
    status: Status
    said_by: str
    agreeing: int
    people: int
    share: float
    contribution: float | None
    found_again: float | None


@dataclass(frozen=True)
class RunCard:
    """A saved XNN in words and figures.

    Attributes:
        title: the explained classes.
        network: (term, text): the model, its weights' file and fingerprint, the layer, accuracy.
        data: (term, text): where the images come from and how many there were.
        faithfulness: (term, text) on held-out images and, if it was measured, on others.
        features: the x-features, in their order.
        shares_on: what shares and contributions were measured on: the positives of the first
            target among the images evaluated, or without any among the held-out ones.
        stability: (term, text): found again, and pairs that are alike.
        maps: (term, text): contrast mass and orthogonality; a single line where nobody measured.
        warnings: why not to rely on it; empty when fine.
        limits: what no XNN can say.
        versions: (program, version) at the fit.
        noun: what a target is: "class", "label" or "value".
    """

    title: str
    network: tuple[tuple[str, str], ...]
    data: tuple[tuple[str, str], ...]
    faithfulness: tuple[tuple[str, str], ...]
    features: tuple[NamedFeature, ...]
    shares_on: str
    stability: tuple[tuple[str, str], ...]
    maps: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    limits: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    noun: str = "class"

    def markdown(self) -> str:
        """The card as a page of Markdown."""
        parts = [f"# {_safe(self.title)}"]
        if self.warnings:
            parts.append("\n".join(f"**Do not rely on it: {text}.**" for text in self.warnings))
        rows = "\n".join(_row(number, one) for number, one in enumerate(self.features, 1))
        columns = f"| | name | said by | share | {self.noun} | found again |"
        head = f"{columns}\n|---|---|---|---|---|---|\n"
        for name in ("network", "data", "faithfulness"):
            parts.append(f"## {name.capitalize()}\n\n{_list(getattr(self, name))}")
        on = f"Shares, and mean contributions to the {self.noun}: on {self.shares_on}."
        parts.append(f"## X-features\n\n{on}\n\n{head}{rows}")
        for name in ("stability", "maps"):
            parts.append(f"## {name.capitalize()}\n\n{_list(getattr(self, name))}")
        parts.append("## Limits\n\n" + "\n".join(f"- {text}" for text in self.limits))
        parts.append(f"## Versions\n\n{_list(self.versions)}")
        return "\n\n".join(parts) + "\n"


def read_card(
    run: Location, evaluation: Evaluation | None = None, names: FeatureNames | None = None
) -> RunCard:
    """The card of an XNN that was saved.

    Args:
        run: folder that `xnn fit` or `XNN.save_pretrained` wrote.
        evaluation: what `XNN.evaluate` measured of it on further images.
        names: of its x-features; None takes those that lie beside it.

    Raises:
        ModelError: no saved XNN there, one that was attached and not fitted, or an evaluation of
            another XNN.
        DataError: names of more or fewer x-features than it has.
    """
    about, _ = read_saved(run)  # the weights, too: a card of what cannot be opened is none
    maps = _maps(evaluation)  # outside: an error in it is no damage of the folder
    if names is not None:
        _check_names(names, about, run)
    try:
        card = _card(run, about, evaluation, names, maps)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"the saved XNN in {run} is damaged: {error!r}") from error
    return structure(plain(card), RunCard, f"the saved XNN in {run}")  # every text is one


def write_card(card: RunCard, page: Path) -> tuple[tuple[str, str], ...]:
    """Write a card beside a page, as Markdown and JSON.

    Returns:
        (kind, name) of each file, for links of that page.

    Raises:
        OSError: a file cannot be written.
    """
    files = {"Markdown": page.with_suffix(".card.md"), "JSON": page.with_suffix(".card.json")}
    replace_file(files["Markdown"], card.markdown().encode())
    replace_file(files["JSON"], to_json(card))
    return tuple((kind, file.name) for kind, file in files.items())


def _card(
    run: Location,
    about: Mapping[str, Any],
    evaluation: Evaluation | None,
    names: FeatureNames | None,
    maps: tuple[tuple[str, str], ...],
) -> RunCard:
    if not about.get("report"):
        raise ModelError(f"{run} keeps no record of a fit, which a card is about; fit with xnn fit")
    check_targets(about["targets"], about["outputs"])
    fit = structure(about["report"], FitReport, f"the report in {run}")
    if names is None:
        names = read_names(run, about["weights_sha256"], fit.validation.n_features)
    if evaluation is not None:
        _check_of_this_run(evaluation, about, names.n_features, run)
    measured, where = fit.validation, "held out"
    if evaluation is not None:
        measured, where = evaluation.faithfulness, "evaluated"
    return RunCard(
        title="Why " + ", ".join(_targets(about)) + "?",
        network=_network(about, evaluation),
        data=_data(about, fit),
        faithfulness=_faithfulness(fit, evaluation),
        features=_features(fit, names, measured),
        shares_on=_shares_on(measured, read_meaning(about).noun, where),
        stability=tuple(fact for fact in fit_facts(names.shown(), fit) if fact[0] != NAMES),
        maps=maps,
        warnings=fit.degenerate,
        limits=LIMITS,
        versions=tuple(about["versions"].items()),
        noun=read_meaning(about).noun,
    )


def _shares_on(measured: Faithfulness, noun: str, where: str) -> str:
    """Over which images shares and mean contributions were taken, in words."""
    several, known = len(measured.share) > 1, measured.bound_positives
    count = known[0] if known else measured.positives
    number = "" if several and not known else f"{count} "  # `positives` are those of all targets
    positives = "positive" if number and count == 1 else "positives"
    whose = f" of the first {noun}" if several else ""
    return f"the {number}{positives}{whose} among {measured.images} images {where}"


def _check_names(names: FeatureNames, about: Mapping[str, Any], run: Location) -> None:
    try:
        own = about["report"]["validation"]["n_features"]
    except (LookupError, TypeError):
        return  # no record of a fit, or a damaged one: `_card` says so
    if names.n_features != own:
        raise DataError(
            f"the names are of {names.n_features} x-features, but the XNN in {run} has {own}; "
            "give those of this XNN, or none"
        )


def _check_of_this_run(
    found: Evaluation, about: Mapping[str, Any], n_features: int, run: Location
) -> None:
    other = found.weights_sha256 not in ("", about["weights_sha256"])
    if other or found.faithfulness.n_features != n_features:
        raise ModelError(
            f"the evaluation is of another XNN than the one in {run}; write that of this run with "
            f"xnn evaluate {run} DIR --json FILE"
        )


def _targets(about: Mapping[str, Any]) -> list[str]:
    meaning, names = read_meaning(about), about["class_names"] or ()
    if meaning.outputs_are == "classes":
        names = both_class_names(tuple(names), about["outputs"])
    known = (names[t] if t < len(names) else f"{meaning.noun} {t}" for t in about["targets"])
    return [spoken(name, names) for name in known]


def _network(about: Mapping[str, Any], further: Evaluation | None) -> tuple[tuple[str, str], ...]:
    source = about["source"] or {}
    rows = [("model", source.get("description") or source.get("model") or "not recorded")]
    if source.get("weights"):
        rows.append(("weights", Path(source["weights"]).name))
    rows.append(("fingerprint", about["model_fingerprint"]))
    rows.append(("layer", about["layer"]))
    rows.append(("explains", ", ".join(_targets(about)) + f" of {about['outputs']} outputs"))
    if about.get("examination"):
        found = structure(about["examination"], Examination, "its examination")
        if found.agreement is not None:
            rows.append(("labels of the images of the fit", found.agreement.text))
        rows += [("doubt", text) for text in found.complaints.values()]
    if further is not None and further.agreement is not None:
        rows.append(("labels of the images evaluated", further.agreement.text))
    return tuple(rows)


def _data(about: Mapping[str, Any], fit: FitReport) -> tuple[tuple[str, str], ...]:
    source = about["source"] or {}
    kept = {"given": "held out by the user", "split": "held out of the training images"}
    return (
        ("images", source.get("data") or "not recorded"),
        ("fitted on", f"{fit.train.images} images, {fit.train.positives} of them positives"),
        (kept[fit.held_out], f"{fit.validation.images}, {fit.validation.positives} positives"),
        ("positives", f"by {fit.positives_by}"),
    )


def _faithfulness(fit: FitReport, further: Evaluation | None) -> tuple[tuple[str, str], ...]:
    rows = [
        ("on held-out images", _figures(fit.validation)),
        ("mind", "these images also stopped the fit and chose among its trials"),
    ]
    if further is not None:
        unknown = "" if further.weights_sha256 else "; of which XNN is not recorded"
        rows.append(("on the images evaluated", _figures(further.faithfulness) + unknown))
    return tuple(rows)


def _figures(found: Faithfulness) -> str:
    text = {name: METRICS[name].text(found) for name in ("r2", "f_reg", "f_reg_positives", "f_cls")}
    decided = "" if found.f_cls is None else f", F_cls {text['f_cls']}"
    return (
        f"R² {text['r2']}, F_reg {text['f_reg']} ({text['f_reg_positives']} on the "
        f"positives){decided}, {found.active} of {found.n_features} x-features active, "
        f"{found.dead} dead; {found.images} images"
    )


def _features(
    fit: FitReport, names: FeatureNames, measured: Faithfulness
) -> tuple[NamedFeature, ...]:
    means = measured.mean_contribution
    return tuple(
        NamedFeature(
            name=name,
            status=names.settled(i).status,
            said_by=names.settled(i).said_by,
            agreeing=names.settled(i).agreeing,
            people=names.settled(i).people,
            share=measured.share[0][i],
            contribution=means[0][i] if means else None,
            found_again=fit.found_again[i] if fit.found_again else None,
        )
        for i, name in enumerate(names.shown())
    )


def _maps(found: Evaluation | None) -> tuple[tuple[str, str], ...]:
    if found is None or found.certificate is None:
        return (("measured", "no; xnn evaluate RUN DIR --json FILE, then xnn card with the file"),)
    certificate, rows = found.certificate, [("drawn by", found.certificate.method)]
    masses = [mass for mass in certificate.contrast_mass or () if mass is not None]
    if masses:
        rows.append(("contrast mass", f"{min(masses):.2%} to {max(masses):.2%} of the relevance"))
    if certificate.conservation_error is not None:
        rows.append(("conservation error", f"{certificate.conservation_error:.1e}"))
    if certificate.completeness_error is not None:
        rows.append(("completeness error", f"{certificate.completeness_error:.1%}"))
    if certificate.fallback_share is not None:
        whose = worst_map(certificate) or "the worst map"
        rows.append(("fallback share", f"{certificate.fallback_share:.1%} of {whose}"))
    if found.orthogonality is not None:
        overlap = found.orthogonality.mean_squared_correlation
        of_maps = f"mean squared correlation {overlap:.2f} on {found.orthogonality.maps} images"
        rows.append(("overlap", f"{of_maps}, O1 {found.orthogonality.o1:.2f}"))
    return tuple(rows)


def _list(rows: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"- **{_safe(term)}**: {_safe(text)}" for term, text in rows) or "- nothing"


def _row(number: int, one: NamedFeature) -> str:
    mean = "" if one.contribution is None else f"{one.contribution:+.2f}"
    again = "" if one.found_again is None else f"{one.found_again:.0%}"
    return f"| {number} | {_safe(one.name)} | {one.said_by} | {one.share:.0%} | {mean} | {again} |"


def _safe(text: str) -> str:
    """Text from data as Markdown shows it, on one line and not as markup."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in plain)
