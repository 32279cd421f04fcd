"""The plan of a study as one document, written before answers come in.

Its sentences on design, exclusions and analysis are those of the report, made by the same functions
from the same settings, so that the two cannot drift apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from torchxnn.apps.study.analysis.answers.power import AnswerSampleSize, answer_design_of
from torchxnn.apps.study.analysis.answers.wording import (
    describe_answers_analysis,
    describe_answers_design,
    describe_answers_hypotheses,
)
from torchxnn.apps.study.analysis.arm_power import ArmSampleSize, arm_design_of
from torchxnn.apps.study.analysis.exclusions import describe_rules
from torchxnn.apps.study.analysis.options import PARTICIPANT, PILOT, SYNTHETIC, AnalysisOptions
from torchxnn.apps.study.analysis.power import SampleSize, design_of
from torchxnn.apps.study.analysis.power_curve import describe_curve
from torchxnn.apps.study.analysis.report import TEMPLATES, Section, render_page
from torchxnn.apps.study.analysis.results import software
from torchxnn.apps.study.analysis.tables import Table, shown_table
from torchxnn.apps.study.analysis.wording import (
    describe_analysis,
    describe_design,
    describe_hypotheses,
    plural,
)
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.errors import DataError
from torchxnn.explanations.sentences import listed
from torchxnn.storage.files import replace_file

HTML_SUFFIXES = (".html", ".htm")

EXPLORATORY = (
    "Everything that is not named under hypotheses is exploratory and will be called so: answers "
    "to the questions about participants, behaviour (time, moves, heatmaps switched, zooms), "
    "comments, difficulty, single classes and pictures, the term for order, and any comparison "
    "thought of after seeing the data.",
    "Departures from this document will be named in the report with their reasons.",
)


@dataclass(frozen=True)
class Answers:
    """How many people had come when the plan was written.

    Attributes:
        finished: participants proper who had finished.
        begun: participants proper who had begun and not finished, withdrawn ones among them.
        pilots: of any status.
        synthetic: of any status.
    """

    finished: int = 0
    begun: int = 0
    pilots: int = 0
    synthetic: int = 0

    @classmethod
    def count(cls, people: pd.DataFrame) -> Answers:
        """Count the table of participants of an export."""
        proper = people.loc[people["kind"] == PARTICIPANT, "status"]
        finished = int((proper == "finished").sum())
        return cls(
            finished,
            len(proper) - finished,
            int((people["kind"] == PILOT).sum()),
            int((people["kind"] == SYNTHETIC).sum()),
        )

    @property
    def late(self) -> str:
        """What the document must say first if it is no preregistration; empty if it is one."""
        if not self.finished and not self.begun:
            return ""
        begun = f", and {self.begun} more had begun" if self.begun else ""
        return (
            f"Not a preregistration: {plural(self.finished, 'participant')} had already finished"
            f"{begun} when this was written."
        )

    def sentences(self) -> list[str]:
        """All counts, in sentences."""
        found = [self.late or "No participant had begun when this was written."]
        if self.pilots or self.synthetic:
            found.append(
                f"There were {plural(self.pilots, 'pilot')} and "
                f"{plural(self.synthetic, 'simulated participant')}; they are not analysed."
            )
        return found


def write_preregistration(
    plan: StudyPlan,
    options: AnalysisOptions,
    answers: Answers,
    out: Path,
    created: str,
    power: SampleSize | AnswerSampleSize | None = None,
    arms: ArmSampleSize | None = None,
) -> None:
    """Write the plan as HTML if `out` ends in .html, else as Markdown.

    Nothing but the date `created` (ISO 8601) changes from one writing to the next. `answers` tells
    who had come by then, and `power` and, for the comparison of arms, `arms` where the number of
    participants comes from, if it was computed.

    Raises:
        DataError: `out` exists, the power is of another design, or pilots or simulated participants
            are to be analysed.
    """
    if out.exists():
        raise DataError(
            f"{out} exists, and a preregistration is never overwritten; give another name"
        )
    if options.kinds != (PARTICIPANT,):
        raise DataError("a preregistration is about participants; leave pilots and synthetic out")
    for given in (power, arms):
        if given is not None:
            _check_power(given, plan, options)
    markdown = out.suffix.lower() not in HTML_SUFFIXES
    provenance = [
        ("Study, SHA-256", plan.fingerprint()),
        ("Seed of the study", str(plan.settings.seed)),
        (
            "Analysis",
            f"xnn study analyse --alpha {options.alpha:g} --level {options.level:g} "
            f"--resamples {options.resamples} --seed {options.seed}",
        ),
        *software().items(),
    ]
    text = (_render_markdown if markdown else render_page)(
        title=plan.settings.title,
        lead="Plan of a human study",
        files="",
        banner=answers.late,
        created=created,
        key=[("Written", created), ("Study", plan.fingerprint()[:16])],
        provenance=provenance,
        sections=plan_sections(plan, options, answers, power, arms),
    )
    replace_file(out, text.encode())


def plan_sections(
    plan: StudyPlan,
    options: AnalysisOptions,
    answers: Answers,
    power: SampleSize | AnswerSampleSize | None,
    arms: ArmSampleSize | None = None,
) -> list[Section]:
    """The document's parts, in order."""
    between = plan.settings.between
    steps = (describe_answers_analysis if between else describe_analysis)(plan, options)
    expected = describe_answers_hypotheses if between else describe_hypotheses
    design = describe_answers_design if between else describe_design
    measures = dict(steps)["Measures"]
    columns = ("Participants", "Power", "95% interval of the simulation")
    curves = tuple(
        Table(f"Power by number of participants{what}", columns, tuple(describe_curve(each.curve)))
        for each, what in ((power, ""), (arms, " in all arms together, between arms"))
        if each is not None
    )
    return [
        Section("status", "Status", tuple(answers.sentences())),
        Section(
            "hypotheses",
            "Hypotheses",
            ("All tests are two-sided.",),
            tuple(expected(plan, options)),
        ),
        Section("design", "Design", points=tuple(design(plan))),
        Section("shown", "What is shown", tables=(shown_table(plan),)),
        Section(
            "sample", "Sample size", tuple(describe_sample_size(plan, power, arms)), (), (), curves
        ),
        Section("exclusions", "Exclusions", points=describe_rules(options)),
        Section("measures", "Measures", (measures,)),
        Section(
            "analysis",
            "Analysis",
            points=tuple(f"{name}. {text}" for name, text in steps if name != "Measures"),
        ),
        Section("exploratory", "Exploratory", EXPLORATORY),
    ]


def describe_sample_size(
    plan: StudyPlan, power: SampleSize | AnswerSampleSize | None, arms: ArmSampleSize | None = None
) -> list[str]:
    """How many people, why, and when the study ends."""
    computed = [each for each in (power, arms) if each is not None]
    found = [each.sentence() for each in computed] or [
        "No power analysis was given: the number of participants has no computed reason."
    ]
    for arm in plan.arms:
        wanted = _wanted(arm.name, plan, power, arms)
        if arm.participants is not None:
            found.append(
                f"The arm {arm.name} ends when {plural(arm.participants, 'participant')} have "
                "finished, before exclusions."
            )
        elif wanted is not None:
            found.append(f"Recruiting for the arm {arm.name} ends at {wanted} participants.")
        else:
            found.append(f"No number of participants was fixed for the arm {arm.name}.")
        if wanted is not None and arm.participants is not None and arm.participants < wanted:
            found.append(
                f"{arm.participants} in {arm.name} are fewer than the {wanted} that the power "
                "analysis asks for."
            )
    return [*found, "Nobody looks at results to decide when to stop."]


def _wanted(
    arm: str,
    plan: StudyPlan,
    power: SampleSize | AnswerSampleSize | None,
    arms: ArmSampleSize | None,
) -> int | None:
    """How many the power analyses ask for in an arm, before exclusions; None if none speaks of it.

    The first is about the main arm; the other divides its people among the arms.
    """
    asked = []
    if power is not None and power.recruit is not None and arm == plan.main.name:
        asked.append(power.recruit)
    if arms is not None and arms.recruit is not None and arm in arms.options.arms:
        asked.append(ceil(arms.recruit / len(arms.options.arms)))
    return max(asked, default=None)


def _check_power(
    power: SampleSize | AnswerSampleSize | ArmSampleSize, plan: StudyPlan, options: AnalysisOptions
) -> None:
    """The simulated study must be the one that is planned."""
    design: dict[str, Any]
    if isinstance(power, ArmSampleSize):
        design, command = arm_design_of(plan), "power-arms"
    elif plan.settings.between:
        design, command = answer_design_of(plan), "power-answers"
    else:
        design, command = design_of(plan), "power"
    expected = {**design, "alpha": options.alpha}
    assumed = {name: getattr(power.options, name) for name in expected}
    wrong = {name: value for name, value in expected.items() if assumed[name] != value}
    if wrong:
        said = listed([f"{name} {_shown(assumed[name])}" for name in wrong])
        flags = " ".join(
            f"--{name.replace('_', '-')} {_shown(value)}" for name, value in wrong.items()
        )
        raise DataError(
            f"the power was computed for another design ({said}); run `xnn study {command}` with "
            f"{flags}"
        )


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else f"{value:g}"


def _render_markdown(**context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    return environment.get_template("plan.md").render(context)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names of studies and pictures may hold anything."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
