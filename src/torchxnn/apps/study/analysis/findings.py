"""This module says the results in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from torchxnn.apps.study.analysis.models import LinearModel, Unavailable
from torchxnn.apps.study.analysis.options import ONE_HEATMAP, XNN_STAGE
from torchxnn.apps.study.analysis.paired import PairedComparison, UnpairedComparison
from torchxnn.apps.study.analysis.results import PRIMARY, Results
from torchxnn.apps.study.analysis.wording import DASH, between, decimal, p_text, percent, points
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.explanations.sentences import listed

NO_FINDING = (
    "Some or all of the analysed are no participants of the study proper (see above). What follows "
    "shows what a report looks like; it tells nothing about people or about the explanations."
)


def summarise_findings(results: Results, plan: StudyPlan) -> list[str]:
    """Answer each hypothesis in one sentence or two."""
    if not results.selection.kept:
        return ["There is nobody to analyse, so there are no results."]
    found = [NO_FINDING] if results.banner else []
    primary = [c for c in results.paired if c.family == PRIMARY]
    found += answer_sentence(primary, results, plan)
    found += [purity_sentence(c, results, plan) for c in primary]
    if not primary:
        found.append("The study does not compare XNN with 1-Heatmap within participants.")
    found += [
        f"Confidence: {shift_sentence(c, results, plan)}"
        for c in results.confidence
        if (c.first, c.second) == (XNN_STAGE, ONE_HEATMAP)
    ]
    ratings = results.ratings
    if ratings.xnn is not None and ratings.one_heatmap is not None:
        c = ratings.comparison
        found.append(
            f"The agent with x-features was rated {decimal(ratings.xnn.mean)} of 7 on average, the "
            f"agent with one heatmap {decimal(ratings.one_heatmap.mean)} (n = {c.n}; "
            f"{test_text(c)}). {verdict(c, results.options.alpha)}"
        )
    return found


def answer_sentence(
    primary: Sequence[PairedComparison], results: Results, plan: StudyPlan
) -> list[str]:
    """Answer the study's question in one sentence, before any number; nothing without pairs."""
    said: dict[str, list[str]] = {}
    for c in primary:
        p = c.p if c.p_holm is None else c.p_holm
        shown = c.test is not None and p is not None and p < results.options.alpha
        better = XNN_STAGE if c.test is not None and c.test.favours_first else ONE_HEATMAP
        answer = f"better with {better}"
        if not shown:
            answer = f"with no difference shown between {XNN_STAGE} and {ONE_HEATMAP}"
        said.setdefault(answer, []).append(plan.data_set_name(c.data_set))
    parts = [f"{answer} on {listed(names)}" for answer, names in said.items()]
    if not parts:
        return []
    return [f"Participants grouped the pictures as the network does {'; '.join(parts)}."]


def purity_sentence(c: PairedComparison, results: Results, plan: StudyPlan) -> str:
    """Say how purity differs between two stages on one data set."""
    where = plan.data_set_name(c.data_set)
    if c.mean_difference is None:
        return f"{where}: no participant has both {c.first} and {c.second}."
    means = {
        cell.stage: cell.purity.mean
        for cell in results.cells
        if cell.arm == plan.main.name and cell.data_set == c.data_set
    }
    interval = between(c.mean_interval, 100.0, 1)
    known = "" if interval == DASH else f", {results.options.level:.0%} interval {interval}"
    return (
        f"{where}: mean purity {percent(means[c.first])} with {c.first} and "
        f"{percent(means[c.second])} with {c.second}; mean difference of {c.n} "
        f"participant{'s' * (c.n != 1)} {points(c.mean_difference)} percentage points{known}; "
        f"{test_text(c)}. {verdict(c, results.options.alpha)} {_carries_over(c, results)}"
    ).strip()


def _carries_over(c: PairedComparison, results: Results) -> str:
    """Say to what a difference of purity carries over: to other people, or other pictures too."""
    if c.test is None:
        return ""
    said = "This test speaks of other people who see these pictures;"
    model, name = results.model, f"{c.first} - {c.second}"
    if isinstance(model, Unavailable) or model.suits_sd is None:
        return f"{said} what other pictures would give cannot be tested."
    for one in model.contrasts:
        if (one.data_set, one.name) == (c.data_set, name) and one.p_holm is not None:
            shown = "is shown too" if one.p_holm < results.options.alpha else "is not shown"
            return (
                f"{said} a difference with other pictures {shown} (mixed model with participants "
                f"and batches as drawn: {points(one.value)} points, {decimal(100 * one.low, 1)} to "
                f"{decimal(100 * one.high, 1)}, {p_text(one.p_holm, 'Holm p')})."
            )
    return ""


def shift_sentence(c: PairedComparison, results: Results, plan: StudyPlan) -> str:
    """Say by how many steps confidence differs between two stages on one data set."""
    where = plan.data_set_name(c.data_set)
    if c.mean_difference is None:
        return f"no participant has both {c.first} and {c.second} on {where}."
    interval = between(c.mean_interval)
    known = "" if interval == DASH else f", {results.options.level:.0%} interval {interval}"
    return (
        f"{c.first} minus {c.second} on {where} is {decimal(c.mean_difference)} steps of the "
        f"scale on average{known} (n = {c.n}; {test_text(c)}). {verdict(c, results.options.alpha)}"
    )


def test_text(c: PairedComparison) -> str:
    """Name the test of a comparison, its p and the effect size, to be put in parentheses."""
    if c.test is None:
        return "not tested"
    if c.test.nonzero == 0:
        return "no pair differs, so there is nothing to test"
    holm = f", {p_text(c.p_holm, 'Holm p')}" if c.p_holm is not None else ""
    return (
        f"signed-rank test {p_text(c.test.p)} ({c.test.method}){holm}, rank-biserial "
        f"{decimal(c.rank_biserial)}"
    )


def verdict(c: PairedComparison, alpha: float) -> str:
    """Say whether a difference is significant; if it is not, say what that does not show."""
    p = c.p if c.p_holm is None else c.p_holm
    if c.test is None or p is None or c.test.nonzero == 0:
        return ""
    if p < alpha:
        higher = c.first if c.test.favours_first else c.second
        return f"Significant at {alpha:g}: higher with {higher}."
    if 2.0 ** (1 - c.test.nonzero) >= alpha:  # p if all differences have one sign
        return f"Too few pairs differ for this test to be significant at {alpha:g}."
    return f"Not significant at {alpha:g}, which does not show that they are equal."


def model_sentences(model: LinearModel | Unavailable) -> list[str]:
    """Say how the mixed model was estimated, or why there is none, and how participants vary."""
    if isinstance(model, Unavailable):
        return [f"No mixed model: {model.reason}."]
    found = [
        f"Estimator: {model.estimator}; {model.trials} trials of {model.participants} participants."
    ]
    if model.reason:
        found.append(f"Why: {model.reason}.")
    if model.participant_sd is not None:
        variance = model.participant_sd**2
        share = variance / (variance + model.residual_sd**2)
        found.append(
            f"Standard deviation between participants {100 * model.participant_sd:.1f}, within "
            f"{100 * model.residual_sd:.1f} percentage points (intraclass correlation "
            f"{share:.2f})."
        )
    if model.batch_sd is not None and model.suits_sd is not None:
        found.append(
            f"Standard deviation between batches of pictures {100 * model.batch_sd:.1f}, between "
            f"stages within batches {100 * model.suits_sd:.1f} percentage points."
        )
    found += [f"Left out: {term}." for term in model.dropped]
    if model.messages:
        found.append(f"The optimiser said: {'; '.join(model.messages)}.")
    return found


def arm_sentence(c: UnpairedComparison, plan: StudyPlan) -> str:
    """Say how purity differs between two arms on one data set."""
    where = plan.data_set_name(c.data_set)
    if c.p is None:
        return f"{where}: {c.first} ({c.n_first}) and {c.second} ({c.n_second}): not compared."
    holm = f", {p_text(c.p_holm, 'Holm p')}" if c.p_holm is not None else ", no correction"
    return (
        f"{where}: {c.first} (n = {c.n_first}) against {c.second} (n = {c.n_second}): "
        f"{points(c.mean_difference)} percentage points; Mann and Whitney's test {p_text(c.p)} "
        f"({c.method}){holm}; Cliff's delta {decimal(c.cliffs_delta)}."
    )
