"""Words of reports and preregistrations of studies of answers: one description for both."""

from __future__ import annotations

from torchxnn.apps.study.analysis.answers.compare import FEWEST
from torchxnn.apps.study.analysis.options import (
    ONE_HEATMAP,
    PRIMARY_PAIR,
    SECONDARY_PAIRS,
    XNN_STAGE,
    AnalysisOptions,
    stage_name,
)
from torchxnn.apps.study.analysis.paired import EXACT_SPLITS
from torchxnn.apps.study.analysis.wording import plural
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.explanations.sentences import listed

SOURCES = {
    "forward_simulation": "After Colin et al., What I cannot predict, I do not understand, 2022.",
    "odd_cue": "",
}


def _forward(plan: StudyPlan) -> bool:
    return plan.settings.task == "forward_simulation"


def measure_of(plan: StudyPlan) -> str:
    """What is compared, in a few words."""
    if _forward(plan):
        return "the share of pictures whose answer by the network was predicted"
    return "the share of data sets whose planted cue was chosen"


def describe_answers_design(plan: StudyPlan) -> list[str]:
    """Task, stages, batches and randomisation, in sentences."""
    settings, names = plan.settings, []
    for stage in plan.main.all_stages:
        names.append(stage_name(stage, plan.main.method))
    sentences = [
        f"Every participant sees one of {plural(len(names), 'stage')}: {listed(names)}.",
        _describe_task(plan),
    ]
    for data in plan.data_sets:
        cue = f" The planted cue: {data.cue.right}." if data.cue else ""
        sentences.append(
            f"The data set {data.name} has {plural(len(data.images), 'picture')} in "
            f"{plural(settings.sets, 'set')} of {settings.images_per_set}; the network is right "
            f"about {data.agreement:.0%} of them.{cue}"
        )
    drawn = (
        "Stages and orders of the data sets are drawn in blocks that hold each combination once, "
        "whose participants see the same sets in the same rounds"
        if settings.randomisation == "blocks"
        else "Stage, order of the data sets and sets are drawn for each participant independently"
    )
    sentences.append(
        f"{drawn}. No participant sees a picture twice. Sets spread pairs of label and prediction "
        "as evenly as there are pictures, so that the label tells as little as possible of what "
        f"the network says. Every draw follows from the study's seed ({settings.seed}) and the "
        "participant's place in the design."
    )
    return sentences


def _describe_task(plan: StudyPlan) -> str:
    settings = plan.settings
    if _forward(plan):
        return (
            f"Forward simulation. In each of {plural(settings.rounds, 'round')} per data set "
            f"participants see {settings.images_per_set} pictures with the network's answers and "
            f"what the stage shows, then predict its answers to {settings.images_per_set} new "
            "pictures, which are shown without any explanation; answers are called by letters. "
            f"{SOURCES['forward_simulation']}"
        )
    return (
        f"Find the odd cue. Participants see up to {settings.images_per_set} pictures per data "
        "set, one after the other as they ask for them, with the network's answers and what the "
        "stage shows, and stop when they think that they know what the network looks at. They say "
        "it in their own words, then choose it among plausible cues, then say how confident they "
        "are."
    )


def describe_answers_hypotheses(plan: StudyPlan, options: AnalysisOptions) -> list[str]:
    """What is expected and what counts as support, for each family of tests."""
    stages, found, measure = set(plan.main.all_stages), [], measure_of(plan)
    judged = f"p after Holm below {options.alpha:g}, and the larger ranks on the side of XNN"
    if set(PRIMARY_PAIR) <= stages:
        found.append(
            f"Primary: {measure} is higher with {XNN_STAGE} than with {ONE_HEATMAP}; support is "
            f"{judged}."
        )
    for first, second in SECONDARY_PAIRS:
        if {first, second} <= stages:
            found.append(f"Secondary: {measure} is higher with {first} than with {second}.")
    if not _forward(plan) and set(PRIMARY_PAIR) <= stages:
        found.append(
            f"Sooner: fewer pictures are seen until the right cue with {XNN_STAGE} than with "
            f"{ONE_HEATMAP}."
        )
    return found


def describe_answers_analysis(plan: StudyPlan, options: AnalysisOptions) -> list[tuple[str, str]]:
    """What the analysis does, as (heading, text)."""
    level, alpha = f"{options.level:.0%}", f"{options.alpha:g}"
    steps = [
        ("Measures", _describe_measures(plan)),
        (
            "Stages compared",
            "Each participant counts with one figure, the mean over all of their answers. Stages "
            "are compared by Mann and Whitney's test, two-sided (exact over all splits where there "
            f"are at most {EXACT_SPLITS:,}, else a normal approximation with corrections for ties "
            f"and continuity), corrected after Holm at alpha = {alpha} in a primary family, "
            f"{' against '.join(PRIMARY_PAIR)}, and a secondary one, the others. Effect sizes are "
            f"mean differences and Cliff's delta with {level} bootstrap intervals over "
            f"participants ({options.resamples:,} resamples, seed {options.seed}).",
        ),
        (
            "Other pictures",
            f"A second {level} interval of each mean difference resamples participants and "
            f"{'pictures' if _forward(plan) else 'batches of pictures'} both (Owen 2007); only it "
            "speaks of other people who see other pictures. It is rather too wide than too "
            "narrow.",
        ),
        (
            "Odds",
            "A logistic model, right ~ stage + data set, gives odds ratios of the stages; its "
            "errors allow for clusters of participants (generalised estimating equations, "
            "exchangeable, bias-reduced covariance). It is not corrected, and is fitted from "
            f"{FEWEST} participants on, if no stage has only right or only wrong answers.",
        ),
        (
            "Confidence",
            "Confidence (1 to 7) is compared like the share of right answers, with a Holm family "
            "of its own.",
        ),
    ]
    if set(PRIMARY_PAIR) <= set(plan.main.all_stages):
        steps.append(
            (
                "Sensitivity",
                f"{' against '.join(PRIMARY_PAIR)} stands side by side with nobody left out for "
                "acting like a program, as planned, and with one signal of a program being enough.",
            )
        )
    if _forward(plan):
        steps.append(
            (
                "Where the network errs",
                "The comparison is repeated with the pictures alone whose label is not what the "
                "network says; it has no correction.",
            )
        )
    return steps


def _describe_measures(plan: StudyPlan) -> str:
    if _forward(plan):
        return (
            "A prediction is right if it is what the network says, be that true or not. The share "
            "of right predictions stands beside chance and beside the share that somebody reaches "
            "who always answers the truth. Utility is the mean share with a stage divided by that "
            "with NoVis; above 1 the explanation helps."
        )
    return (
        "An answer is right if it is the planted cue; 'I cannot tell' is wrong. Pictures seen "
        "until the right answer count one more than there are if the answer was wrong, so that "
        "who stops early with a wrong answer gains nothing. Words of their own are exported to be "
        "coded by people who do not know the stage; the program does not read them."
    )


def describe_answers_limits(plan: StudyPlan) -> list[str]:
    """What readers must keep in mind, in sentences."""
    sets = plural(len(plan.data_sets), "data set")
    found = [
        "Stages are seen by different people: differences between people add to the error, and "
        "more participants are needed than if each saw all.",
        f"Pictures are of {sets} with a network each: results speak of no other networks.",
    ]
    if _forward(plan):
        found.append(
            "To predict a network is not to understand it: a rule that happens to agree on these "
            "pictures counts as much as the right one."
        )
    else:
        found.append(
            "Cues are planted and options are given: finding one's own question in a network of "
            "the wild is harder than choosing among a few."
        )
    return found
