"""The commands `xnn study export`, `xnn study analyse` and `xnn study preregister`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from torchxnn.cli.study_answers import Database, Folder, read_answers
from torchxnn.cli.terminal import Terminal


@dataclass(frozen=True)
class Export:
    """Write all answers as CSV, Parquet and JSON, with a data dictionary."""

    study: Folder
    out: Path
    """folder for the files"""
    database: Database = None

    def execute(self, terminal: Terminal) -> None:
        """Read the answers and write the tables."""
        from torchxnn.apps.study.export import write_tables

        _, tables = read_answers(self.study, self.database)
        files = write_tables(tables, self.out)
        rows = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
        terminal.say(f"{rows}; {len(files)} files in {self.out}")


@dataclass(frozen=True)
class _Analysis:
    """What `analyse` obeys and `preregister` writes down."""

    study: Annotated[Folder, arg(help="folder of the study; its exclusion rules count")]
    out: Path
    """what to write"""
    database: Database = field(default=None, kw_only=True)
    alpha: float = field(default=0.05, kw_only=True)
    """significance level of a family of tests, two-sided"""
    level: float = field(default=0.95, kw_only=True)
    """of all intervals"""
    resamples: int = field(default=2000, kw_only=True)
    """of the bootstrap"""
    seed: int = field(default=0, kw_only=True)
    """of the bootstrap and of the jitter in figures"""

    def options(self, plan: Any) -> Any:
        """What the analysis of a study is to do, with what these arguments set."""
        from torchxnn.apps.study.analysis.options import options_of

        options = options_of(plan)
        given = {name: value for name, value in vars(self).items() if hasattr(options, name)}
        return replace(options, **given)


@dataclass(frozen=True)
class Analyse(_Analysis):
    """Analyse the answers: report.html, results.json, scores.csv and figures in the folder OUT."""

    include_pilots: bool = False
    """analyse pilots too; every page and figure then says so"""
    include_synthetic: bool = False
    """analyse simulated participants too; every page and figure then says so"""

    def execute(self, terminal: Terminal) -> None:
        """Analyse the answers, write the files, and say what was found."""
        from torchxnn.apps.study.analysis.exclusions import check_anybody, select_participants
        from torchxnn.apps.study.analysis.report import REPORT
        from torchxnn.storage.files import check_replaceable

        check_replaceable(self.out, REPORT)
        plan, tables = read_answers(self.study, self.database)
        options = self.options(plan)
        check_anybody(select_participants(tables, options))
        with terminal.err.status("Analysing"):
            banner, findings = _analyse(tables, plan, options, self.out)
        if banner:
            terminal.say(banner, style="bold red")
        terminal.say(*findings)
        terminal.say(f"Wrote {self.out / REPORT}")


def _analyse(tables: Any, plan: Any, options: Any, out: Path) -> tuple[str, list[str]]:
    """Write the report of a study of any task; its banner and its findings."""
    if plan.settings.between:
        from torchxnn.apps.study.analysis.answers.report import (
            summarise_answers,
            write_answers_report,
        )

        answers = write_answers_report(tables, plan, options, out)
        return answers.banner, summarise_answers(answers, plan)
    from torchxnn.apps.study.analysis.findings import summarise_findings
    from torchxnn.apps.study.analysis.report import write_report

    results = write_report(tables, plan, options, out)
    return results.banner, summarise_findings(results, plan)


@dataclass(frozen=True)
class Preregister(_Analysis):
    """Write design, exclusions, hypotheses and analysis to one file before answers come in.

    OUT becomes HTML if it ends in .html, else Markdown. It must not exist.
    """

    power: Path | None = None
    """result of `xnn study power --out FILE`, of the other tasks `xnn study power-answers`: where
    the number of participants comes from"""
    power_arms: Path | None = None
    """result of `xnn study power-arms --out FILE`: the same for the comparison of arms"""

    def execute(self, terminal: Terminal) -> None:
        """Write the plan, and warn if somebody has taken part already."""
        from datetime import UTC, datetime

        from torchxnn.apps.study.analysis.answers.power import AnswerSampleSize
        from torchxnn.apps.study.analysis.arm_power import ArmSampleSize
        from torchxnn.apps.study.analysis.power import SampleSize
        from torchxnn.apps.study.analysis.preregistration import Answers, write_preregistration

        plan, tables = read_answers(self.study, self.database, may_be_new=True)
        answers = Answers() if tables is None else Answers.count(tables["participants"])
        kind = AnswerSampleSize if plan.settings.between else SampleSize
        power = None if self.power is None else kind.read(self.power)
        arms = None if self.power_arms is None else ArmSampleSize.read(self.power_arms)
        created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        write_preregistration(plan, self.options(plan), answers, self.out, created, power, arms)
        if answers.late:
            terminal.warn(answers.late)
        terminal.say(f"Wrote {self.out}. Deposit it where its date can be proved.")
