"""What an analysis has to know of a study, read from the study's plan."""

from __future__ import annotations

from torchxnn.apps.study.analysis.options import (
    XNN_STAGE,
    AnalysisOptions,
    DataSetFacts,
    ExclusionRules,
    PlanFacts,
)
from torchxnn.apps.study.plan import StudyDataSet, StudyPlan
from torchxnn.apps.study.settings import StudySettings

_ABOUT = {
    "network": "Network",
    "layer": "Layer",
    "n_features": "x-features",
    "r2_validation": "R2 of the XNN on validation pictures",
    "data": "Pictures from",
    "pictures_drawn_from": "Pictures drawn from",
}


def facts_of(plan: StudyPlan) -> PlanFacts:
    """The facts of a study; the main arm is the first one that shows XNN, else the first."""
    settings = plan.settings
    arms = sorted(settings.arms, key=lambda arm: XNN_STAGE not in arm.stages)
    return PlanFacts(
        title=settings.title,
        arms=tuple(arms),
        data_sets=tuple(_data_set(data, plan) for data in plan.data_sets),
        randomisation=describe_randomisation(settings),
        seed=settings.seed,
        study_hash=plan.fingerprint(),
    )


def options_of(plan: StudyPlan) -> AnalysisOptions:
    """The analysis as planned: the study's exclusion rules, all else by default."""
    rules = plan.settings.exclusions
    return AnalysisOptions(ExclusionRules(rules.attention, rules.minimum_seconds))


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
    return (
        "NoVis comes first, and the data sets alternate. "
        f"{orders}. No participant sees a set twice. Batches {batches}. Every draw follows from "
        f"the study's seed ({settings.seed}) and the participant's place in the design."
    )


def _data_set(data: StudyDataSet, plan: StudyPlan) -> DataSetFacts:
    about = [("Classes", ", ".join(data.classes))]
    for key, name in _ABOUT.items():
        value = data.about.get(key)
        if value not in (None, ""):
            about.append((name, f"{value:.3f}" if isinstance(value, float) else str(value)))
    return DataSetFacts(
        key=data.key,
        name=data.name,
        images=len(data.images),
        sets=plan.settings.sets,
        images_per_set=plan.settings.images_per_set,
        groups=plan.groups,
        agreement=data.agreement,
        about=tuple(about),
    )
