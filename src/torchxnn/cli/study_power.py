"""The commands `xnn study power`, `power-arms` and `power-answers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torchxnn.apps.study.analysis.answers.power_options import AnswerPowerOptions
from torchxnn.apps.study.analysis.arm_power_options import ArmPowerOptions
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.cli.study_answers import Database, read_answers
from torchxnn.cli.terminal import NUMBERS, Terminal
from torchxnn.errors import DataError

if TYPE_CHECKING:
    from torchxnn.apps.study.analysis.power_curve import Answer
    from torchxnn.apps.study.plan import StudyPlan

Options = TypeVar("Options", PowerOptions, ArmPowerOptions)


@dataclass(frozen=True)
class PowerCommand:
    """Find the number of participants by simulation."""

    assumptions: PowerOptions = field(default_factory=PowerOptions)
    study: Path | None = None
    """take the design from this study, and baseline and standard deviations from its pilots"""
    database: Database = None
    out: Path | None = None
    """JSON file for `xnn study preregister --power`"""

    def execute(self, terminal: Terminal) -> None:
        """Simulate studies of several sizes, and print the curve of power and the answer."""
        from torchxnn.apps.study.analysis.power import find_sample_size

        _find(find_sample_size, *self._made(), self.out, terminal)

    def _made(self) -> tuple[PowerOptions, str]:
        """What is simulated: the options, with what a study tells in place of defaults."""
        if self.study is None:
            return self.assumptions, "given"
        from torchxnn.apps.study.analysis.options import options_of
        from torchxnn.apps.study.analysis.power import assumptions_from_pilots, design_of

        plan, tables = _read_clustering(self.study, self.database)
        told = design_of(plan) | assumptions_from_pilots(tables, plan, options_of(plan))
        options, taken = _fill_in(self.assumptions, told)
        return options, f"from the study and its pilots: {', '.join(taken)}"


@dataclass(frozen=True)
class PowerArms:
    """Find the number of participants of arms that show numbers, maps or both by simulation."""

    assumptions: ArmPowerOptions = field(default_factory=ArmPowerOptions)
    study: Path | None = None
    """take the design from this study, and standard deviations from its pilots, if it has any"""
    database: Database = None
    out: Path | None = None
    """JSON file for `xnn study preregister --power-arms`"""

    def execute(self, terminal: Terminal) -> None:
        """Simulate studies of several sizes, and print the curve of power and the answer."""
        from torchxnn.apps.study.analysis.arm_power import find_arm_sample_size

        _find(find_arm_sample_size, *self._made(), self.out, terminal)

    def _made(self) -> tuple[ArmPowerOptions, str]:
        """What is simulated; with fewer arms than by default their means must be given."""
        if self.study is None:
            return self.assumptions, "given"
        from torchxnn.apps.study.analysis.arm_power import arm_design_of
        from torchxnn.apps.study.analysis.exclusions import has_pilots
        from torchxnn.apps.study.analysis.options import options_of
        from torchxnn.apps.study.analysis.power import assumptions_from_pilots

        plan, tables = _read_clustering(self.study, self.database, may_be_new=True)
        told, where = arm_design_of(plan), "the study"
        if len(told["arms"]) != len(self.assumptions.purity):
            raise DataError(
                f"{self.study} has {len(told['arms'])} arms with XNN ({', '.join(told['arms'])}): "
                f"give as many means, in that order, as in --purity "
                f"{' '.join(f'{60 + 8 * i}' for i in range(len(told['arms'])))}"
            )
        if tables is not None and has_pilots(tables):
            pilots = assumptions_from_pilots(tables, plan, options_of(plan))
            told |= {name: pilots[name] for name in ("sd_between", "sd_within")}
            where = "the study and its pilots"
        options, taken = _fill_in(self.assumptions, told)
        return options, f"from {where}: {', '.join(taken)}"


@dataclass(frozen=True)
class PowerAnswers:
    """Find the number of participants of forward simulation or of the odd cue by simulation."""

    assumptions: AnswerPowerOptions = field(default_factory=AnswerPowerOptions)
    study: Path | None = None
    """take answers per participant and stages from this study"""
    out: Path | None = None
    """JSON file for `xnn study preregister --power`"""

    def execute(self, terminal: Terminal) -> None:
        """Simulate studies of several sizes, and print the curve of power and the answer."""
        from torchxnn.apps.study.analysis.answers.power import find_answer_sample_size, with_design
        from torchxnn.apps.study.plan import StudyPlan

        options, source = self.assumptions, "given"
        if self.study is not None:
            plan = StudyPlan.read(self.study)
            if not plan.settings.between:
                raise DataError(
                    f"{self.study} has the task {plan.settings.task}; use `xnn study power`"
                )
            options = with_design(options, plan)
            source = "answers and stages from the study"
        _find(find_answer_sample_size, options, source, self.out, terminal)


def _read_clustering(
    study: Path, database: str | None, may_be_new: bool = False
) -> tuple[StudyPlan, Any]:
    """The plan and the tables of a study in which batches are sorted; see `read_answers`.

    Raises:
        DataError: it has another task.
    """
    plan, tables = read_answers(study, database, may_be_new)
    if plan.settings.between:
        raise DataError(f"{study} is no clustering; use `xnn study power-answers`")
    return plan, tables


def _fill_in(options: Options, told: Mapping[str, Any]) -> tuple[Options, list[str]]:
    """Options with what a study tells in place of defaults, and what was taken.

    What somebody has typed stands; a flag typed with its default cannot be told from none.
    """
    default = {f.name: f.default for f in fields(options)}
    taken = {name: v for name, v in told.items() if getattr(options, name) == default[name]}
    return replace(options, **taken), list(taken)


def _find(
    find: Callable[[Any, str], Answer],
    options: Any,
    source: str,
    out: Path | None,
    terminal: Terminal,
) -> None:
    """Find the answer, print the curve of power and the answer, and write it."""
    from rich.table import Table

    from torchxnn.apps.study.analysis.power_curve import describe_curve
    from torchxnn.storage.artifact import to_json
    from torchxnn.storage.files import replace_file

    with terminal.err.status("Simulating studies"):
        answer = find(options, source)
    columns = "participants", "power", "95% interval of the simulation"
    table = Table(*map(NUMBERS, columns), title="Power by number of analysed participants")
    for row in describe_curve(answer.curve):
        table.add_row(*row)
    terminal.show(table)
    terminal.say(answer.sentence())
    if out is not None:
        replace_file(out, to_json(answer))
        terminal.say(f"Wrote {out}")
