"""The pages of one class: what they say, in the order in which they say it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torchxnn.apps.atlas.content import ClassView
from torchxnn.apps.atlas.images import feature_page, image_name, map_name
from torchxnn.apps.atlas.site import PLURALS, TEMPLATES
from torchxnn.data.class_names import spoken
from torchxnn.explanations.drawing.html import fill
from torchxnn.explanations.drawing.overlay import signed
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, Faithfulness
from torchxnn.metrics.table import faithfulness_rows

_HOME = "../../"
ON_CLASS_PAGE = 4  # maps of each x-feature on the page of its class


CARD_PAGE, CARD_VALUES = "card.md", "card.json"


def class_files(view: ClassView) -> dict[str, bytes]:
    """The HTML files of a class by name."""
    features = [_feature(view, i) for i in range(len(view.job.summary.feature_names))]
    order = sorted(range(len(features)), key=lambda i: -features[i]["share"])
    common = {
        "home": _HOME,
        "noun": view.noun,
        "nouns": PLURALS[view.noun],
        "title": spoken(view.job.summary.title),
        "degenerate": view.xnn.report.degenerate if view.xnn.report else (),
        "features": [features[i] for i in order],
    }
    files = {"index.html": fill(TEMPLATES / "class.html.j2", **common, **_class(view))}
    for place, i in enumerate(order):
        before = features[order[place - 1]] if place else None
        after = features[order[place + 1]] if place + 1 < len(order) else None
        files[feature_page(i)] = fill(
            TEMPLATES / "feature.html.j2",
            **common,
            feature=features[i],
            before=before,
            after=after,
            groups=_groups(view, i),
            similar=view.job.similar[i],
        )
    return files


def _class(view: ClassView) -> dict[str, Any]:
    positives = int(view.positives.sum())
    right = int((view.positives & view.decided).sum())
    facts = [("Network's output", ", ".join(map(str, view.xnn.targets)))]
    facts.append((f"Images of the {view.noun}", f"{positives:,} of {len(view.positives):,}"))
    if view.labelled:
        facts.append(("Recognised by the network", f"{right:,} ({right / positives:.0%})"))
    else:
        facts.append((f"An image is one of the {view.noun}", "if the network says so"))
    facts.append(("Layer", view.xnn.layer))
    if view.xnn.report is not None:
        facts += fit_facts(view.job.summary.feature_names, view.xnn.report)
    return {
        "before": view.job.before,
        "after": view.job.after,
        "facts": facts,
        "sentence": view.sentence,
        "typical": _image(view, view.chosen.typical),
        "examples": [_image(view, row) for row in view.chosen.examples],
        "close": view.job.close,
        "labelled": view.labelled,
        "columns": [name for name, _ in _measured(view)],
        "figures": faithfulness_rows(_measured(view)),
        "notes": view.notes,
        "equation": spoken(view.explanation.card().rows[0].equation),
        "card": (CARD_PAGE, CARD_VALUES),
        "certificate": " ".join(view.explanation.certificate_lines()[-2:]),
        "warnings": view.explanation.card().warnings,
    }


def _image(view: ClassView, row: int) -> dict[str, Any]:
    """An image with the maps of all x-features, by decreasing contribution."""
    values = view.contributions[row]
    order = values.abs().argsort(descending=True, stable=True).tolist()
    like = view.alike(row)
    return {
        "image": image_name(row),
        "file": view.dataset.paths[row],
        "class": view.class_name(row),
        "other": view.other(row),
        "logit": float(view.logits[row, 0]),
        "reproduced": float(view.numbers.reproduced[row, 0]),
        "maps": [
            {
                "name": view.job.summary.feature_names[i],
                "address": feature_page(i),
                "file": _map_file(view, row, i),
                "strength": view.strengths.get(map_name(row, i), ""),
                "value": float(values[i]),
                "like": like[i],
            }
            for i in order
        ],
    }


def _map_file(view: ClassView, row: int, feature: int) -> str | None:
    name = map_name(row, feature)
    return name if name in view.drawn else None


def _feature(view: ClassView, i: int) -> dict[str, Any]:
    """An x-feature as its own page and that of its class introduce it."""
    share = max(row[i] for row in view.measured.share)
    weights = view.xnn.readout_weight[:, i]
    active = view.numbers.features[view.positives, i] > 0
    return {
        "number": i + 1,
        "name": view.job.summary.feature_names[i],
        "address": feature_page(i),
        "share": share,
        "mean": float(view.contributions[view.positives, i].mean()),
        "weight": ", ".join(signed(float(weight)) for weight in weights),
        "active": f"{float(active.float().mean()):.0%}",
        "tag": _tag(active, share, view.noun),
        "like": view.alike()[i],
        "found_again": _found_again(view, i),
        "tops": [_shown(view, row, i) for row in view.chosen.features[i].top[:ON_CLASS_PAGE]],
        "similar": view.job.similar[i][:2],
    }


def _found_again(view: ClassView, i: int) -> str:
    """On how many resamplings the fit finds an x-feature again; empty where nobody knows."""
    report = view.xnn.report
    shares = () if report is None else report.found_again
    return f"{shares[i]:.0%} of resampled images" if shares else ""


def _tag(active: Tensor, share: float, noun: str) -> str:
    if not bool(active.any()):
        return f"dead: 0 on every image of the {noun}"
    return "" if share >= ACTIVE_SHARE else f"share below {ACTIVE_SHARE:.0%}"


def _shown(view: ClassView, row: int, feature: int) -> dict[str, Any]:
    """One image with one map."""
    return {
        "image": image_name(row),
        "map": _map_file(view, row, feature),
        "strength": view.strengths.get(map_name(row, feature), ""),
        "class": view.class_name(row),
        "own": bool(view.positives[row]),
        "other": view.other(row),
        "activation": float(view.numbers.features[row, feature]),
        "value": float(view.contributions[row, feature]),
        "file": view.dataset.paths[row],
    }


def _groups(view: ClassView, i: int) -> list[dict[str, Any]]:
    chosen = view.chosen.features[i]
    title = spoken(view.job.summary.title)
    groups = (
        (
            "Where it is largest",
            f"The images of any {view.noun} on which it is most active. What do they have in "
            "common?",
            chosen.top,
        ),
        (
            f"From high to low on images of {title}",
            f"Images of the {view.noun} on which it is active, evenly spaced by its value.",
            chosen.spaced,
        ),
        (
            "Strongest against the decision",
            f"Images on which it speaks most for {title} though the network decides otherwise, or "
            f"against {title} though the network decides for it.",
            chosen.against,
        ),
    )
    return [
        {"title": name, "text": text, "images": [_shown(view, row, i) for row in rows]}
        for name, text, rows in groups
    ]


def _measured(view: ClassView) -> list[tuple[str, Faithfulness]]:
    report = view.xnn.report
    fitted = [] if report is None else [("Held-out at the fit", report.validation)]
    return [*fitted, (view.dataset.name, view.measured)]
