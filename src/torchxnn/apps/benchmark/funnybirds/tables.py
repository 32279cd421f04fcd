"""Markdown tables of the benchmark on FunnyBirds, from what `summarise` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchxnn.apps.benchmark.bounds import BOUNDS
from torchxnn.apps.benchmark.funnybirds.measure import CLASS_MEAN
from torchxnn.apps.benchmark.funnybirds.settings import SUBSPACE
from torchxnn.apps.benchmark.funnybirds.summary import DEFAULT
from torchxnn.apps.benchmark.over_classes import SIGNIFICANT
from torchxnn.apps.benchmark.peers import MISSING, PEERS
from torchxnn.apps.benchmark.tables import number, table
from torchxnn.metrics.funnybirds_scores import ANCHORS

LOWER = ("background", "background_objects", "alike", "rises", "map_truth_others")
"""Figures of which less is better."""

LABELS = {
    "r2": "R²",
    "intervention_r2": "R² of the change when a part goes",
    "intervention_correlation": "correlation of that change",
    "specificity": "specificity",
    "coverage": "coverage",
    "coverage_own": "coverage, own part",
    "recovery": "recovery",
    "recovery_chance": "by chance",
    "maps_missing": "maps missing",
    "alike": "alike pairs",
    "rises": "rises",
    "map_truth": "map truth",
    "map_truth_others": "of others",
    "background": "on the background",
    "background_objects": "on its objects",
    "positive_mass": "positive mass",
    "told": "told against caused",
    "told_anchored": "anchored",
    "told_mixture": "as a mixture",
    "official_completeness": "completeness",
    "official_correctness": "correctness",
    "official_contrastivity": "contrastivity",
    "official_mean": "mean",
}

CAUSES = (
    *("r2", "intervention_r2", "intervention_correlation", "specificity", "coverage"),
    *("coverage_own", "recovery", "recovery_chance", "alike", "rises"),
)
TOLD = (
    *("map_truth", "map_truth_others", "background", "positive_mass", "told", "told_anchored"),
    "told_mixture",
)
OFFICIAL = (
    *("official_completeness", "official_correctness", "official_contrastivity", "official_mean"),
)
RULE_FIGURES = (
    *("map_truth", "map_truth_others", "background", "background_objects", "positive_mass"),
)


def markdown(summary: Mapping[str, Any]) -> str:
    """All tables as one Markdown text; what today's default loses comes first."""
    classes = summary["classes"].values()
    images = sum(record["images"] for record in classes)
    drawn = sum(record["map_images"] for record in classes)
    parts = [
        "# FunnyBirds: is what an explanation says true?",
        f"Means over {len(classes)} classes, {images} test images, each also without each of its "
        f"five parts; maps of {drawn} images. `{DEFAULT}` is what `xnn fit` does today, with "
        f"`subspace={SUBSPACE}`. What an x-feature is about, which `told against caused` rests on, "
        f"is taken from other images of the class; `{CLASS_MEAN}` is what that alone is worth. It "
        "counts the paper's v E, and `anchored` from what a typical other image gets, as sentences "
        "do. "
        "Maps of NMF are marginal: none of its weights is negative, so there is no contrast.",
        "## What today's default loses, and what is not decided",
        losses(summary),
        "## Causes: what x-features are about",
        _methods(summary, CAUSES),
        refit_text(summary),
        "## Maps and sentences",
        _methods(summary, TOLD),
        "## Maps of today's default and of the logit, by the way in which they are drawn",
        rule_table(summary),
    ]
    if any("official_completeness" in each for each in summary["methods"].values()):
        parts += ["## The protocol of the data set's authors", official_text(summary)]
    parts += [
        "## Today's default against each other method",
        power_text(summary),
        test_table(summary),
        "## What the rows are",
        "\n".join(f"- {name}: {text}" for name, text in row_texts()),
        refusal_text(summary),
        "## Classes (today's default)",
        class_table(summary),
    ]
    return "\n\n".join(parts) + "\n"


def better(test: Mapping[str, Any]) -> bool:
    """Whether more classes are better with today's default than are worse."""
    sign = -1 if test["figure"] in LOWER else 1
    return bool(sign * (test["higher"] - test["lower"]) > 0)


def not_won(summary: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], bool]]:
    """The tests that are not decided for today's default, and whether they are decided at all."""
    tests = [(test, test["p_holm"] < SIGNIFICANT) for test in summary["tests"]]
    return [(test, decided) for test, decided in tests if not (decided and better(test))]


def losses(summary: Mapping[str, Any]) -> str:
    """What other methods do better, then what no test decides, as a list."""
    lines = []
    for test, decided in not_won(summary):
        pair = [summary["methods"][name][test["figure"]] for name in (DEFAULT, test["other"])]
        verdict = "lost to" if decided else "not decided against"
        lines.append(
            f"- {LABELS.get(test['figure'], test['figure'])}: {verdict} {test['other']}, "
            f"{number(pair[0])} against {number(pair[1])} (p = {test['p_holm']:.2g}, "
            f"{test['classes']} classes)"
        )
    lines.sort(key=lambda line: "lost to" not in line)
    if not summary["tests"]:
        return "Nothing can be tested with so few classes."
    return "\n".join(lines) if lines else "Nothing: every test is decided for it."


def _methods(summary: Mapping[str, Any], figures: Sequence[str]) -> str:
    rows = []
    for name, values in summary["methods"].items():
        if all(values.get(figure) is None for figure in figures):
            continue
        cells = []
        for figure in figures:
            interval = summary["intervals"][name].get(figure)
            text = number(values.get(figure))
            cells.append(text if interval is None else f"{text} ({_range(interval)})")
        rows.append([name, *cells])
    return table(["Method", *(LABELS[figure] for figure in figures)], rows)


def _range(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def official_text(summary: Mapping[str, Any]) -> str:
    """The scores of Hesse et al. beside published ones of other networks, and what they rest on."""
    published = [
        [f"*{name}* (published)", *(number(scores[figure]) for figure in OFFICIAL)]
        for name, scores in ANCHORS.items()
    ]
    own = [
        [name, *(number(values.get(figure)) for figure in OFFICIAL)]
        for name, values in summary["methods"].items()
        if values.get("official_completeness") is not None
    ]
    head = ["Method", *(LABELS[figure] for figure in OFFICIAL)]
    return table(head, published + own) + "\n\n" + "\n\n".join(official_notes(summary))


def official_notes(summary: Mapping[str, Any]) -> list[str]:
    """What the scores of the authors' protocol rest on, and which maps are not there and why."""
    share = summary["methods"].get(DEFAULT, {}).get("composed_share")
    notes = [
        f"{number(share)} of the images that the protocol shows are not rendered here and were "
        f"composed; the logit of composed images is off by {number(summary['composition_error'])} "
        "of its change where the truth is known.",
        "XNN gives each part the contributions of x-features by what they are about, which is "
        "taken from the removals of other images of the class; no map is given these. The row "
        f"'{CLASS_MEAN}' is what they are worth without any explanation. 'XNN, maps' combines "
        "the maps and knows nothing else: compare that with maps of the logit. Where an "
        "explanation speaks of parts alone, distractibility counts parts alone. The threshold has "
        "no meaning for maps that sum to 0, as those of 1-heatmap do.",
    ]
    return notes + [f"{rule} draws no map: {why}" for rule, why in summary["not_drawn"].items()]


def refit_text(summary: Mapping[str, Any]) -> str:
    """What other seeds and bootstrap samples do to today's default."""
    found = summary["refits"]
    if not found["recovery"]["fits"]:
        return "No refits were made."
    return (
        f"{found['recovery']['fits']} refits of today's default with other seeds on bootstrap "
        f"samples: recovery {number(found['recovery']['mean'])} with a standard deviation of "
        f"{number(found['recovery']['deviation'])} within a class, specificity "
        f"{number(found['specificity']['mean'])} with {number(found['specificity']['deviation'])}."
    )


def rule_table(summary: Mapping[str, Any]) -> str:
    """Figures of maps by rule, of x-features and of the logit."""
    rows = [
        [name, rule, *(number(values.get(figure)) for figure in RULE_FIGURES)]
        for name, rules in summary["rules"].items()
        for rule, values in rules.items()
    ]
    return table(["Maps of", "Rule", *(LABELS[figure] for figure in RULE_FIGURES)], rows)


def power_text(summary: Mapping[str, Any]) -> str:
    """What the tests are, and the smallest p that so many classes allow."""
    classes, tests = len(summary["classes"]), max(1, len(summary["tests"]))
    least = min(1.0, 2 * 0.5**classes * tests)
    return (
        "Two-sided Wilcoxon signed-rank tests over classes; p after Holm over all of them, "
        f"ceilings and floors included. The smallest p that {classes} classes and {tests} tests "
        f"allow is {least:.2g}."
    )


def test_table(summary: Mapping[str, Any]) -> str:
    """All tests."""
    rows = [
        [
            LABELS.get(test["figure"], test["figure"]),
            test["other"],
            number(test["median_difference"]),
            f"{test['higher']} of {test['classes']}",
            f"{test['p']:.2g}",
            f"{test['p_holm']:.2g}",
        ]
        for test in summary["tests"]
    ]
    head = ["Figure", "Against", "Median difference", "Higher in", "p", "p (Holm)"]
    return table(head, rows)


def row_texts() -> list[tuple[str, str]]:
    """What ceilings, floors and methods of others are, and which are not here and why."""
    texts = []
    for name, each in {**BOUNDS, **PEERS}.items():
        labels = " It sees the part labels." if each.labels else ""
        why = each.unavailable()
        texts.append((name, each.about + labels + (f" Not here: {why}" if why else "")))
    floor = "Floor: the mean drop per part on all other images of the class."
    return [
        *texts,
        (CLASS_MEAN, floor),
        *((name, f"not used: {why}.") for name, why in MISSING.items()),
    ]


def refusal_text(summary: Mapping[str, Any]) -> str:
    """How many concepts the rows have, and which methods refused classes."""
    wanted = summary["concepts"].get(DEFAULT)
    other = [f"{name} {count:g}" for name, count in summary["concepts"].items() if count != wanted]
    lines = [f"Concepts: {wanted:g}, but {', '.join(other)}."] if wanted and other else []
    total = len(summary["classes"])
    lines += [
        f"{name} was measured on {summary['counted'].get(name, 0)} of {total} classes; {why}"
        for name, why in summary["not_fitted"].items()
    ]
    return "\n\n".join(lines)


def class_table(summary: Mapping[str, Any]) -> str:
    """The main figures of today's default per class."""
    figures = ("r2", "intervention_r2", "specificity", "recovery", "map_truth", "background")
    rows = [
        [
            f"{target} {record['name']}",
            *(number(record["methods"][DEFAULT].get(figure)) for figure in figures),
            f"{record['seconds']:.0f}",
        ]
        for target, record in summary["classes"].items()
    ]
    return table(["Class", *(LABELS[figure] for figure in figures), "seconds"], rows)
