"""What the demonstration says of drawn shapes: what was planted, and what the XNN found of it.

The network is a known sum of detectors (`models.planted`), so every sentence here compares what an
XNN says with what is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchxnn.data.activations import Activations
from torchxnn.data.datasets.planted import PlantedShapes, picture_of_thing
from torchxnn.data.removals import record_removals
from torchxnn.explanations.known import KnownReason, Verdict
from torchxnn.metrics.faithfulness import ACTIVE_SHARE
from torchxnn.metrics.planted import PlantedScores, largest_things, score_planted
from torchxnn.models.planted import ALWAYS, CLASSES, THING_NAMES
from torchxnn.xnn import XNN

TOLD_APART = 0.5
"""Things are told apart if recovery is more than this share of the way from chance to 1."""


OWN = 0.5
"""A thing is found if more than this share of what changes its x-feature is its."""

_FOUND: Verdict = "found"
_MIXED: Verdict = "mixed"
_MISSED: Verdict = "missed"


@dataclass(frozen=True, eq=False)
class PlantedComparison:
    """What was planted, and what an XNN of the planted network found of it.

    Attributes:
        headline: for somebody who has just opened the page.
        reasons: the things that the logit is made of by decreasing share, then those that are no
            reason and that an active x-feature answers to most.
        sentences: the comparison in figures.
    """

    headline: str
    reasons: tuple[KnownReason, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PlantedTruth:
    """The test images of the planted network, of which the truth is known.

    Attributes:
        shapes: the images.
    """

    shapes: PlantedShapes

    def compare(self, xnn: XNN, data: Activations) -> PlantedComparison:
        """What an XNN found.

        Args:
            xnn: fitted to one class.
            data: activations of the images.
        """
        target = xnn.targets[0]
        removals = record_removals(xnn.model, xnn.layer, self.shapes, target)
        shares = xnn.measure(data).faithfulness.share[0]
        scores = score_planted(xnn.fitted(), removals, target, torch.tensor(shares))
        largest = largest_things(xnn.fitted(), removals)
        names = xnn.feature_names
        reasons = known_reasons(scores, largest, shares, names)
        images = len(removals.images)
        return PlantedComparison(
            headline(target, reasons),
            reasons,
            (planted_sentence(target), *sentences(scores, shares, images, names)),
        )

    def in_image(self, xnn: XNN, index: int) -> tuple[tuple[str, float], ...]:
        """What each thing in an image adds to the network's logit, by decreasing size.

        The image is drawn again without it, and the network runs on both.
        """
        things = self.shapes.present[index].nonzero().flatten().tolist()
        pictures = self.shapes.render([index] * (len(things) + 1), [-1, *things])
        logits = xnn.run(pictures.to(xnn.device)).logits[:, xnn.targets[0]].cpu()
        named = [f"{ALWAYS} (on every image)" if n == ALWAYS else n for n in THING_NAMES]
        effects = [
            (named[thing], float(value))
            for thing, value in zip(things, logits[0] - logits[1:], strict=True)
        ]
        return tuple(sorted(effects, key=lambda each: -abs(each[1])))


def known_reasons(
    scores: PlantedScores,
    largest: Sequence[tuple[int | None, float]],
    shares: Sequence[float],
    names: Sequence[str],
) -> tuple[KnownReason, ...]:
    """Every thing that the logit is made of beside what was found of it.

    Args:
        scores: of the XNN.
        largest: of each x-feature the thing that it answers to most, and how purely;
            None where it answers to nothing.
        shares: of the x-features in the logit, as the page reports them.
        names: of the x-features.
    """
    truth, matched = scores.truth, {thing: feature for feature, thing in scores.pairs}
    found = []
    for thing in sorted(truth.reasons, key=lambda thing: -truth.share[thing]):
        feature = matched.get(thing)
        said, verdict = "by no x-feature", _MISSED
        if feature is not None:
            its, purity = largest[feature]
            said = f"{names[feature]}, {shares[feature]:.0%}; "
            if its is None:
                said += "answers to nothing"
            elif its == thing:
                verdict = _FOUND if purity > OWN else _MIXED
                said += f"{purity:.0%} of what changes it is this"
            else:
                verdict = _MIXED
                said += f"answers more to the {THING_NAMES[its]}"
        sign = "+" if truth.drop[thing] > 0 else "\N{MINUS SIGN}"
        planted = f"{sign} {truth.share[thing]:.0%}"
        picture = picture_of_thing(thing)
        found.append(KnownReason(THING_NAMES[thing], picture, planted, said, verdict))
    for thing in sorted({its for its, _ in largest if its is not None} - set(truth.reasons)):
        answering = [i for i, (its, _) in enumerate(largest) if its == thing]
        told_by = [i for i in answering if shares[i] >= ACTIVE_SHARE]
        if told_by:
            said = ", ".join(f"{names[i]}, {shares[i]:.0%}" for i in told_by)
            picture = picture_of_thing(thing)
            found.append(KnownReason(THING_NAMES[thing], picture, "no reason", said, "false"))
    return tuple(found)


def headline(target: int, reasons: Sequence[KnownReason]) -> str:
    """What the page is about, for somebody who has never heard of any of this.

    Args:
        target: the class.
        reasons: what was planted, and what was found.
    """
    found, mixed, missed = (
        sum(each.verdict == verdict for each in reasons) for verdict in (_FOUND, _MIXED, _MISSED)
    )
    planted = found + mixed + missed
    return (
        f"A test with a known answer. We built a network that calls an image a "
        f"{CLASSES[target].name} for {planted} reason{'s' * (planted != 1)}, the coloured shapes "
        "in the table, and gave the XNN the network and images, not the reasons. "
        f"{_count(found, mixed, missed)}; the table says what became of each."
    )


def _count(found: int, mixed: int, missed: int) -> str:
    planted = found + mixed + missed
    if found:
        return f"It has found {found} of the {planted} as an x-feature that is mostly that"
    if not mixed:
        return f"It has found none of the {planted}"
    whom = f"{mixed} of them" if missed else "them"
    return f"It has found none of the {planted} as an x-feature of its own, but mixes {whom}"


def planted_sentence(target: int) -> str:
    """What the logit of a class is the sum of, and what its images show besides."""
    planted = CLASSES[target]
    terms = " + ".join(f"{weight:g} x {name}" for name, weight in planted.weights.items())
    return (
        f"What was planted: the logit of {planted.name} is {terms.replace('+ -', '- ')} + a "
        "constant, where each name stands for the answer of a detector, 0 where the thing is "
        f"not. Most images of the class also show a {planted.spurious}, which the logit ignores; "
        f"the {ALWAYS} is on every image and is no reason."
    )


def sentences(
    scores: PlantedScores, shares: Sequence[float], images: int, names: Sequence[str]
) -> list[str]:
    """Scores in words: what was found, with which shares, in which direction, and what is false.

    Args:
        scores: of an XNN.
        shares: of its x-features, as its report has them.
        images: that things were taken out of.
        names: of the x-features.
    """
    truth = scores.truth
    recovery, specificity = scores.recovery, scores.specificity or 0.0
    apart = recovery.value - recovery.chance > TOLD_APART * (1 - recovery.chance)
    said = [
        f"What was found, by drawing {images} test images again without each of their things: the "
        f"things {'were' if apart else 'were not'} told apart. {recovery.value:.0%} of what the "
        "x-features change, up to what each thing causes, lies on pairs of an x-feature and the "
        "one thing that it is matched with (100% if every thing had an x-feature of its own, "
        f"{recovery.chance:.0%} with shuffled things). An x-feature's own largest thing has "
        f"{specificity:.0%} of its change.",
        "Shares of the logit, as the matched x-feature reports them and as they were planted: "
        + "; ".join(
            f"{THING_NAMES[thing]}: {names[feature]} says {shares[feature]:.0%}, planted "
            f"{truth.share[thing]:.0%}"
            for feature, thing in scores.pairs
        )
        + f". The mean error is {100 * scores.share.value:.0f} points (chance "
        f"{100 * scores.share.chance:.0f}).",
        f"Direction: {scores.sign.value * len(truth.reasons):.0f} of {len(truth.reasons)} things "
        "have an x-feature that pushes the logit their way.",
    ]
    if scores.against is not None:
        against = [THING_NAMES[thing] for thing in truth.reasons if truth.drop[thing] < 0]
        verdict = "is" if scores.against == 1 else "is not"
        said.append(
            f"What speaks against the class ({', '.join(against)}) {verdict} reported with a "
            "negative contribution."
        )
    wrong = [names[feature] for feature in scores.false_features]
    said.append(
        f"False concepts: {len(wrong)} of {scores.active} active x-features"
        + (f" ({', '.join(wrong)})" if wrong else "")
        + f" {'answers' if len(wrong) == 1 else 'answer'} most to something that is no reason, "
        "or to nothing."
    )
    change = scores.intervention
    if change.r2 is not None:
        said.append(
            f"The reproduced logit follows the network's when things go: R² {change.r2:.3f}."
        )
    return said
