"""The page of the benchmark on FunnyBirds: what is lost, the tables, and birds to look at."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from torchxnn.apps.benchmark.bounds import BOUNDS
from torchxnn.apps.benchmark.class_by_class import OnClass, Opened
from torchxnn.apps.benchmark.funnybirds.figures import (
    ANSWERS,
    ClassFigure,
    choose_failures,
    draw_class,
)
from torchxnn.apps.benchmark.funnybirds.measure import CLASS_MEAN
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.apps.benchmark.funnybirds.summary import DEFAULT
from torchxnn.apps.benchmark.funnybirds.tables import (
    LABELS,
    LOWER,
    OFFICIAL,
    RULE_FIGURES,
    not_won,
    official_notes,
    power_text,
    refit_text,
    refusal_text,
    row_texts,
)
from torchxnn.apps.benchmark.peers import PEERS
from torchxnn.apps.benchmark.record import record_task
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tables import number
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.attribution.base import WEAK_MASS
from torchxnn.attribution.methods import PAPER
from torchxnn.data.datasets.funnybirds import PARTS
from torchxnn.errors import XNNWarning
from torchxnn.explanations.drawing.html import render
from torchxnn.metrics.funnybirds_scores import ANCHORS
from torchxnn.models.weights import fingerprint
from torchxnn.parallel.process import one_thread
from torchxnn.storage.files import replace_file

PAGE = "index.html"

MAIN = (
    *("r2", "intervention_r2", "specificity", "recovery", "coverage_own", "map_truth"),
    *("background", "told"),
)
MORE = (
    *("intervention_correlation", "coverage", "recovery_chance", "alike", "rises"),
    *("map_truth_others", "positive_mass", "told_anchored", "told_mixture"),
)
STRIPS = ("specificity", "recovery", "map_truth")
"""Figures that are drawn for every class."""

GROUPS = (
    "Today's default",
    "The logit's own map",
    "Methods of the paper",
    "Methods of others, and independent components",
    "They see the part labels: ceilings, not explanations",
    "Floors: they know nothing",
)
PUBLISHED = "Published, of other networks"
_OUTSIDE = GROUPS[4:]  # no explanation is measured by who leads among these
FOLLOWS = 0.5
"""Least R^2 of the change when a part goes for an explanation to be marked as the best."""
FEW = 4  # so many figures of classes are open from the start

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A figure of a table: its value, its interval, and whether it is the best explanation's."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Strip:
    """A figure of one method on every class, as positions in percent of a common scale."""

    method: str
    group: str
    mean: str
    at: float
    classes: list[float]


def write_page(
    source: TaskSource,
    summary: Mapping[str, Any],
    config: BenchmarkConfig,
    truth: TruthConfig,
    folder: Path,
    on_class: OnClass | None = None,
) -> Path:
    """Write `index.html`, which holds everything it shows, whole or not at all.

    Numbers are those of `summary`; only the figures of classes run the network again.

    Args:
        source: network and data of the run.
        summary: what `summarise` made of it.
        config: its settings.
        truth: its settings of what is measured.
        folder: of the run.
        on_class: progress.

    Returns:
        The path of the page.

    Raises:
        DataError: a saved XNN or an image is missing.
        ModelError: a saved XNN is damaged, or of another network.
    """
    task = TASKS[source.kind](source)
    opened = Opened(task, record_task(task, config.copies, folder), config, folder)
    figures: dict[int, ClassFigure] = {}
    with one_thread(), warnings.catch_warnings(action="ignore", category=XNNWarning):
        for target, record in summary["classes"].items():
            figures[int(target)] = draw_class(opened, int(target), record, truth)
            if on_class is not None:
                on_class(len(figures), len(summary["classes"]), record["name"])
    failures: dict[int, list[str]] = {}
    for failure in choose_failures(summary):
        failures.setdefault(failure.target, []).append(failure.says)
    content = render(
        _TEMPLATES / "truth.html.j2",
        (_TEMPLATES / "truth.css").read_text(encoding="utf-8"),
        **tables(summary),
        figures=figures,
        failures=failures,
        few=len(figures) <= FEW,
        provenance=_provenance(opened, truth),
        images=sum(record["images"] for record in summary["classes"].values()),
        drawn=sum(record["map_images"] for record in summary["classes"].values()),
        default=DEFAULT,
        weak=WEAK_MASS,
        answers=ANSWERS,
        no_preference=1 / len(PARTS),
    )
    replace_file(folder / PAGE, content)
    return folder / PAGE


def tables(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a summary."""
    official = any("official_completeness" in each for each in summary["methods"].values())
    return {
        "losses": losses(summary),
        "main": method_rows(summary, MAIN),
        "main_head": heads(MAIN),
        "more": method_rows(summary, MORE),
        "more_head": heads(MORE),
        "official": [_published(), *method_rows(summary, OFFICIAL)] if official else [],
        "official_head": heads(OFFICIAL),
        "official_notes": official_notes(summary) if official else [],
        "rules": [
            [maps, rule, *(number(_comparable(values, figure, rule)) for figure in RULE_FIGURES)]
            for maps, rules in summary["rules"].items()
            for rule, values in rules.items()
        ],
        "rules_head": heads(RULE_FIGURES),
        "paper_rule": PAPER,
        "strips": [(LABELS[figure], *strips(summary, figure)) for figure in STRIPS],
        "tests": summary["tests"],
        "labels": LABELS,
        "refits": refit_text(summary),
        "rows": row_texts(),
        "power": power_text(summary),
        "refusals": refusal_text(summary),
        "three": number,
    }


def heads(figures: Sequence[str]) -> list[tuple[str, str]]:
    """Names of figures, with the direction that is better."""
    return [(LABELS[figure], "lower" if figure in LOWER else "higher") for figure in figures]


def group_of(method: str) -> str:
    """Under which heading a method stands."""
    if method == CLASS_MEAN:
        return GROUPS[5]
    contender = BOUNDS.get(method) or PEERS.get(method)
    for group, name in zip(GROUPS, (DEFAULT, "1-heatmap"), strict=False):
        if method == name or method.startswith(f"{name}, "):  # or another way to draw its maps
            return group
    if contender is None:
        return GROUPS[2]
    return GROUPS[4] if contender.labels else GROUPS[5] if contender.floor else GROUPS[3]


def method_rows(
    summary: Mapping[str, Any], figures: Sequence[str]
) -> list[tuple[str, list[tuple[str, list[Cell]]]]]:
    """Rows of a table by group; the best explanation of each column is marked.

    One whose reproduced logit does not follow when parts go (R^2 below `FOLLOWS`) leads in nothing:
    what hardly moves, or moves otherwise than the network, can look apart.
    """
    methods = {
        name: values
        for name, values in summary["methods"].items()
        if any(values.get(figure) is not None for figure in figures)
    }

    def competes(name: str) -> bool:
        followed = methods[name].get("intervention_r2")
        return group_of(name) not in _OUTSIDE and (followed is None or followed >= FOLLOWS)

    best = {}
    for figure in figures:
        known = [
            values[figure]
            for name, values in methods.items()
            if values.get(figure) is not None and competes(name)
        ]
        if known:
            best[figure] = min(known) if figure in LOWER else max(known)

    def cell(name: str, figure: str) -> Cell:
        value = methods[name].get(figure)
        interval = summary["intervals"].get(name, {}).get(figure)
        text = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        leads = value is not None and value == best.get(figure) and competes(name)
        return Cell(number(value), text, leads)

    rows = {
        group: [
            (name, [cell(name, figure) for figure in figures])
            for name in methods
            if group_of(name) == group
        ]
        for group in GROUPS
    }
    return [(group, members) for group, members in rows.items() if members]


def _comparable(values: Mapping[str, Any], figure: str, rule: str) -> float | None:
    """A figure of maps; the positive mass only where it is a share of a relevance of 1."""
    known = figure != "positive_mass" or rule in (PAPER, "effective_weights")
    return values.get(figure) if known else None


def _published() -> tuple[str, list[tuple[str, list[Cell]]]]:
    rows = [
        (name, [Cell(number(scores[figure])) for figure in OFFICIAL])
        for name, scores in ANCHORS.items()
    ]
    return PUBLISHED, rows


def losses(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What today's default loses, and what no test decides, by figure; the worst first."""
    found: dict[str, dict[str, Any]] = {}
    for test, decided in not_won(summary):
        figure, other = test["figure"], test["other"]
        entry = found.setdefault(
            figure,
            {
                "figure": LABELS[figure],
                "ours": number(summary["methods"][DEFAULT][figure]),
                "lost": [],
                "undecided": [],
            },
        )
        entry["lost" if decided else "undecided"].append(
            {
                "name": other,
                "labels": group_of(other) == GROUPS[4],
                "value": number(summary["methods"][other][figure]),
                "p": f"{test['p_holm']:.2g}",
                "higher": test["higher"],
                "classes": test["classes"],
            }
        )
    return sorted(found.values(), key=lambda entry: -len(entry["lost"]))


def strips(summary: Mapping[str, Any], figure: str) -> tuple[float, float, list[Strip]]:
    """A figure on every class, of every method: the ends of the common scale, the best first."""
    values = {
        name: [
            record["methods"][name][figure]
            for record in summary["classes"].values()
            if record["methods"].get(name, {}).get(figure) is not None
        ]
        for name in summary["methods"]
    }
    known = [value for column in values.values() for value in column]
    low, high = min([0.0, *known]), max([1e-9, *known])

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    means = {name: summary["methods"][name].get(figure) for name in values}
    drawn = [
        Strip(name, group_of(name), number(mean), place(mean), [place(v) for v in values[name]])
        for name, mean in means.items()
        if mean is not None
    ]
    sign = 1 if figure in LOWER else -1
    return low, high, sorted(drawn, key=lambda strip: sign * strip.at)


def _provenance(opened: Opened, truth: TruthConfig) -> list[tuple[str, str]]:
    """How the page came about: versions, network, data and settings, without local paths."""
    task, train = opened.task, opened.config.train
    source = task.source
    settings = {
        **{key: value for key, value in asdict(train).items() if not isinstance(value, dict)},
        **asdict(truth),
        **{"x-features": opened.config.n_features, "images of maps": opened.config.map_images},
    }
    return [
        ("torch", torch.__version__),
        ("Network", source.model),
        ("Weights", f"{source.weights.name}, fingerprint {fingerprint(task.model)[:12]}"),
        ("Layer", source.layer),
        ("Training images", str(len(task.train))),
        ("Test images", str(len(task.test))),
        *((key.replace("_", " "), _plain(value)) for key, value in settings.items()),
    ]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
