"""Words of reports and preregistrations: one description of the analysis for both."""

from __future__ import annotations

from torchxnn.apps.study.analysis.crossed import CROSSED
from torchxnn.apps.study.analysis.models import LinearModel, Unavailable
from torchxnn.apps.study.analysis.options import (
    NO_VISUALISATION,
    ONE_HEATMAP,
    PRIMARY_PAIR,
    SECONDARY_PAIRS,
    XNN_STAGE,
    AnalysisOptions,
    stage_in,
)
from torchxnn.apps.study.analysis.ordinal import FEWEST_PARTICIPANTS
from torchxnn.apps.study.analysis.paired import EXACT_PAIRS, EXACT_SPLITS
from torchxnn.apps.study.analysis.resampling import BootstrapInterval
from torchxnn.apps.study.analysis.results import Results
from torchxnn.apps.study.analysis.sampled import Sampled
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import StudySettings
from torchxnn.explanations.sentences import listed

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """A share as "72.0%"."""
    return DASH if share is None else f"{100 * share:.1f}%"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign; a dash if there is none."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


def points(share: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    if share is None:
        return DASH
    text = decimal(100 * share, 1)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def p_value(p: float | None) -> str:
    """A p for a table: ".012" or "< .001"."""
    if p is None:
        return DASH
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def p_text(p: float | None, name: str = "p") -> str:
    """A p for a sentence: "p = .012"."""
    text = p_value(p)
    return f"{name} {text}" if text.startswith("<") else f"{name} = {text}"


def between(interval: BootstrapInterval | None, scale: float = 1.0, digits: int = 2) -> str:
    """An interval as "0.12 to 0.40"; a dash if there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return DASH
    return f"{decimal(scale * interval.low, digits)} to {decimal(scale * interval.high, digits)}"


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def describe_design(plan: StudyPlan) -> list[str]:
    """Arms, data sets, batches and randomisation, in sentences."""
    sentences = []
    for index, arm in enumerate(plan.arms):
        names = listed([stage_in(arm, stage) for stage in arm.all_stages])
        kind = "within participants" if index == 0 else "with other participants"
        sentences.append(
            f"The arm {arm.name} has {plural(len(arm.all_stages), 'stage')}, {kind}: {names}."
        )
    for data in plan.data_sets:
        sentences.append(
            f"The data set {data.name} has {plural(len(data.images), 'picture')} in "
            f"{plural(plan.settings.sets, 'set')} of {plan.settings.images_per_set}, to be sorted "
            f"into {plan.groups} unnamed groups."
        )
    return [*sentences, describe_randomisation(plan.settings)]


def describe_randomisation(settings: StudySettings) -> str:
    """How batches, orders and sets are drawn, in sentences."""
    batches = (
        "spread the predicted classes evenly"
        if settings.draw == "balanced"
        else "are drawn at random"
    )
    orders = (
        "Orders of the assisted stages and of the data sets are counterbalanced in blocks that "
        "hold every order once, and sets in blocks that hold every set once in every stage"
        if settings.randomisation == "blocks"
        else "Orders of the assisted stages and of the data sets, and the sets, are drawn for each "
        "participant independently"
    )
    arms = (
        " Whose link names no arm is put into one by lot, of those with places, all alike likely: "
        "a keyed hash, under the server's secret, of the person's identifier or the browser's "
        "cookie draws it, the same one when they come again."
        if settings.allocation == "lot"
        else ""
    )
    return (
        "NoVis comes first, and the data sets alternate. "
        f"{orders}. No participant sees a set twice. Batches {batches}. Every draw of these "
        f"follows from the study's seed ({settings.seed}) and the participant's place in the "
        f"design.{arms}"
    )


def describe_hypotheses(plan: StudyPlan, options: AnalysisOptions) -> list[str]:
    """What is expected and what counts as support, for each family of tests."""
    stages, found = plan.main.all_stages, []
    judged = f"p after Holm below {options.alpha:g}, and the larger ranks on the side of XNN"
    if set(PRIMARY_PAIR) <= set(stages):
        found.append(
            f"Primary: purity is higher with {XNN_STAGE} than with {ONE_HEATMAP}. Each data set is "
            f"judged on its own; support is {judged}."
        )
    if XNN_STAGE in stages:
        found.append(
            f"Secondary: purity is higher with {XNN_STAGE} than with {NO_VISUALISATION}; support "
            f"is {judged}."
        )
    if ONE_HEATMAP in stages:
        found.append(
            f"Secondary: purity differs between {ONE_HEATMAP} and {NO_VISUALISATION}, in either "
            "direction."
        )
    for arm in plan.arms[1:]:
        if XNN_STAGE in stages and XNN_STAGE not in arm.all_stages:
            found.append(
                f"Between arms: purity is higher with {XNN_STAGE} in {plan.main.name} than with "
                f"{stage_in(arm, ONE_HEATMAP)} in {arm.name}."
            )
        elif XNN_STAGE in stages and arm.shows != plan.main.shows:
            found.append(
                f"Between arms: purity is higher with {stage_in(plan.main, XNN_STAGE)} in "
                f"{plan.main.name} than with {stage_in(arm, XNN_STAGE)} in {arm.name}. If it is "
                f"not, {arm.shows} may be all that the stage needs."
            )
    if set(PRIMARY_PAIR) <= set(stages):
        found.append(
            f"Confidence is higher with {XNN_STAGE} than with {ONE_HEATMAP}, and the agent with "
            "x-features is rated higher than the agent with one heatmap."
        )
    return found


def describe_analysis(plan: StudyPlan, options: AnalysisOptions) -> list[tuple[str, str]]:
    """What the analysis does, as (heading, text): read by preregistration and report alike."""
    level, primary = f"{options.level:.0%}", " against ".join(PRIMARY_PAIR)
    steps = [
        (
            "Measures",
            "Purity is the share of pictures that are of the most common class in their group, "
            "where the class is what the network predicts. Beside it stand the adjusted Rand index "
            "and the chance level: the exact expectation of purity when groups of the same sizes "
            "are filled with the same pictures at random. The practice round is never analysed.",
        ),
        (
            "Stages compared",
            f"Within the arm {plan.main.name} every pair of stages is compared on each data set "
            "by Wilcoxon's signed-rank test, two-sided; differences of 0 are left out, and p is "
            f"exact given the midranks of ties for at most {EXACT_PAIRS} pairs (normal "
            "approximation above). Participants who lack one of two trials are left out of that "
            "pair alone.",
        ),
        (
            "Effect sizes",
            "Mean differences, matched rank-biserial correlations (sum of positive minus sum of "
            "negative ranks, over their sum) and paired Cohen's d_z have "
            f"{level} bootstrap intervals over participants ({options.resamples:,} resamples, seed "
            f"{options.seed}; BCa, or percentile where BCa does not exist, or none where "
            "resampling shows no spread).",
        ),
        (
            "Other pictures",
            "The tests above are over participants and take the batches of pictures as given, so "
            "their p-values carry over to other people who see these pictures. Whether a "
            f"difference of {primary} carries over to other people who see other pictures is "
            "answered by the mixed model, where both are random. Every pair is also tested over "
            "batches (F2, beside F1 over participants) and with both as random factors (min F', "
            f"Clark 1973), with a {level} interval of the mean difference; min F' is a lower bound "
            "and finds less than the model.",
        ),
        (
            "Mixed model",
            "Purity ~ stage x data set + order, of the assisted stages, with random intercepts of "
            "participants, of batches of pictures and of batches in each stage, fitted by REML. "
            "Order is the position of the trial in the session, centred. NoVis is left out: it "
            "always comes first, so that its differences at equal order would be extrapolations. "
            "Factors have sum-to-zero coding; terms are tested by Wald F tests (type III) with the "
            "degrees of freedom of the stratum that they vary in: batches in each stage for "
            "stages, batches for data sets, trials for order. A variance that is estimated as 0 is "
            "left at 0 and named. If the batches are too few, or the fit does not converge, the "
            "model has participants as its only random factor; if their variance is 0 then, it is "
            "ordinary least squares; if that fit does not converge, intercepts of participants are "
            "fixed instead. The report says which.",
        ),
    ]
    if len(plan.arms) > 1:
        steps.append(
            (
                "Arms compared",
                f"The stages of {plan.main.name} are compared with the same stages of "
                f"{listed([arm.name for arm in plan.arms[1:]])}, its {XNN_STAGE} with the "
                f"{ONE_HEATMAP} of arms without {XNN_STAGE}, and {XNN_STAGE} of any two arms that "
                "show different things in it, by Mann and Whitney's test, two-sided (exact over "
                f"all splits where there are at most {EXACT_SPLITS:,}, else a normal approximation "
                "with corrections for ties and continuity). Stages that show the same in both "
                "arms, such as NoVis, are a check of the groups. Effect size: Cliff's delta with a "
                "bootstrap interval.",
            )
        )
    return [
        *steps,
        (
            "Confidence, ratings and difficulty",
            "Confidence (1 to 7) is compared between stages like purity. A proportional-odds "
            "model, confidence ~ stage x data set + order, of the assisted stages, has no random "
            "participant; its errors are robust to clusters of participants, and it is fitted from "
            f"{FEWEST_PARTICIPANTS} participants on. Ratings of the two "
            "agents (1 to 7) are compared by Wilcoxon's signed-rank test and by a sign test. "
            "Difficulty (0 to 7) is described by its mean.",
        ),
        (
            "Sensitivity",
            "The primary comparisons are repeated with the adjusted Rand index, with purity with "
            "respect to the labels, with purity minus its chance level, and with nobody excluded "
            "but those who withdrew. They stand side by side with nobody left out for acting like "
            "a program, as planned, and with one signal of a program being enough.",
        ),
        ("Families of tests", describe_families(plan, options)),
    ]


def describe_families(plan: StudyPlan, options: AnalysisOptions) -> str:
    """Which tests are corrected together: said here, and nowhere else."""
    sets = f"on {plural(len(plan.data_sets), 'data set')}"
    primary = f"{' against '.join(PRIMARY_PAIR)} {sets}"
    secondary = listed([" against ".join(pair) for pair in SECONDARY_PAIRS])
    families = [
        f"the primary family, {primary}, by signed-rank tests",
        f"the secondary family, {secondary} {sets}",
        "the same two families for min F'",
        f"the mixed model's differences, {primary}, and those of the model of confidence, each",
        f"confidence, all pairs {sets}",
        *["the arms, all pairs of stages that show different things"][: len(plan.arms) - 1],
        "the primary comparisons of each analysis of sensitivity",
    ]
    return (
        f"Each of these is corrected after Holm by itself at alpha = {options.alpha:g}: "
        f"{'; '.join(families)}. Not corrected: terms of models, F1 and F2, ratings, and stages "
        "that show the same in two arms."
    )


def describe_sample(results: Sampled) -> list[str]:
    """Who is analysed and who is not, in sentences."""
    selection = results.selection
    total = len(selection.kept) + len(selection.excluded)
    arms = listed([f"{count} in the arm {name}" for name, count in selection.kept_arms.items()])
    sentences = [
        f"Of {plural(total, 'participant')}, {_are(len(selection.kept))} analysed ({arms})."
        if selection.kept
        else f"Of {plural(total, 'participant')}, none is analysed."
    ]
    if selection.excluded:
        reasons = listed([f"{reason} ({count})" for reason, count in selection.reasons.items()])
        several = any(len(row.reasons) > 1 for row in selection.excluded)
        sentences.append(
            f"{_are(len(selection.excluded), 'was', 'were')} excluded before any statistic: "
            f"{reasons}{', some for several reasons' * several}."
        )
    else:
        sentences.append("No one was excluded.")
    for kind, count in selection.left_out_kinds.items():
        sentences.append(f"{_are(count)} of the kind {kind} and not looked at.")
    if selection.attention_unknown:
        sentences.append(
            f"{selection.attention_unknown} of the analysed saw or answered no attention check."
        )
    if selection.time_unknown:
        sentences.append(
            f"Active time is not known for some trial of {selection.time_unknown} of the analysed."
        )
    if results.incomplete:
        sentences.append(f"{_are(results.incomplete)} analysed although some trial is missing.")
    return sentences


def describe_deviations(results: Results) -> list[str]:
    """Where the data made the analysis differ from the plan, in sentences."""
    found = [
        f"There is no trial of {stage} on {data_set} in the arm {arm}."
        for arm, data_set, stage in results.missing
    ]
    for name, model in (("mixed", results.model), ("proportional-odds", results.confidence_model)):
        if isinstance(model, Unavailable):
            found.append(f"The {name} model was not fitted: {model.reason}.")
            continue
        if isinstance(model, LinearModel) and model.reason:
            kept = model.estimator == CROSSED
            what = "as planned" if kept else f"replaced by {model.estimator}"
            found.append(f"The {name} model was {what}: {model.reason}.")
        found += [f"The {name} model is without the term {term}." for term in model.dropped]
    return found


def describe_limits(results: Results, plan: StudyPlan) -> list[str]:
    """What readers must keep in mind, in sentences."""
    people = results.selection.kept_arms.get(plan.main.name, 0)
    found = [
        "NoVis always comes first, so its difference from the other stages holds whatever practice "
        "or tiredness does, and no model can take that out. "
        f"{' against '.join(PRIMARY_PAIR)} is free of this where their order is balanced."
    ]
    if people < 20:
        found.insert(
            0,
            f"With {plural(people, 'participant')} in the arm {plan.main.name}, intervals are "
            "rough and only large differences can be found; a p above alpha says little.",
        )
    found += [
        f"Pictures are those of {plural(plan.settings.sets, 'set')} per data set and one network: "
        "only the mixed model and min F' speak of further pictures, of the same classes, and "
        "nothing speaks of further classes or networks.",
        "Purity is bounded, takes few values, and rises with the number of groups used and with "
        "uneven classes, so the mixed model's normal errors are an approximation; read purity "
        "beside its chance level and the adjusted Rand index.",
        "Purity is measured against what the network predicts, not against the truth.",
    ]
    if len(plan.arms) > 1:
        found.append(
            f"The arms {listed([arm.name for arm in plan.arms])} are of different people"
            + (
                ", drawn by lot where a link named none."
                if plan.settings.allocation == "lot"
                else "; if nobody drew by lot who joins which, they may differ in more than what "
                "they saw."
            )
        )
    found.append(
        "The proportional-odds model assumes that a stage shifts all levels of confidence alike, "
        "and its tests are for large samples."
    )
    return found


def _are(count: int, one: str = "is", more: str = "are") -> str:
    return f"{count} {one if count == 1 else more}"
