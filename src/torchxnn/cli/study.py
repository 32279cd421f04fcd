"""The command `xnn study`: a thin dataclass for each of its jobs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg, subcommand

from torchxnn.apps.study.analysis.answers.power_options import AnswerPowerOptions
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.cli.study_backup import Backup, Restore
from torchxnn.cli.study_secrets import ADMIN_TOKEN, DATABASE, admin_token, database_url
from torchxnn.cli.terminal import (
    NUMBERS,
    Terminal,
    check_port,
    count_images,
    count_steps,
    needs_extra,
    serve,
)
from torchxnn.errors import DataError, XNNError

Folder = Annotated[Positional[Path], arg(metavar="STUDY", help="folder of the study")]
Database = Annotated[
    str | None,
    arg(help=f"URL of the database, if not the SQLite file in the folder; also as {DATABASE}"),
]


LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that this machine alone can open."""


@dataclass(frozen=True)
class Init:
    """Build a study folder from fitted XNNs."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG.yaml")]
    """settings; docs/study.md lists them"""
    out: Path
    """folder of the study; must not exist"""

    def execute(self, terminal: Terminal) -> None:
        """Build the folder, and say what to do next."""
        from torchxnn.apps.study.build import build_study
        from torchxnn.apps.study.config import StudyConfig

        config = StudyConfig.read(self.config)
        with terminal.progress() as progress:
            plan = build_study(config, self.out, count_steps(progress, "Drawing"))
        _say_next(plan, self.out, terminal)


@dataclass(frozen=True)
class StudyDemo:
    """Build a small complete study: drawn beetles and leaves, or solar cells."""

    out: Path = Path("study")
    """folder of the study; must not exist"""
    data: Literal["both", "beetles", "leaves", "cells"] = "both"
    """data sets of a clustering; both: beetles and leaves"""
    task: Literal["clustering", "forward_simulation", "odd_cue"] = "clustering"
    """what participants do; other tasks than clustering show drawn beetles"""
    seed: int = 0
    """of everything random"""

    def execute(self, terminal: Terminal) -> None:
        """Train the networks, fit the XNNs and build the study."""
        from torchxnn.apps.study.demo import NOTES, build_demo

        if self.task != "clustering":
            self._build_cue_demo(terminal)
            return
        with terminal.progress() as progress:
            plan = build_demo(
                self.out, self.data, self.seed, progress, count_steps(progress, "Drawing")
            )
        if self.data == "cells":
            terminal.say(*NOTES, style="dim")
        _say_next(plan, self.out, terminal)

    def _build_cue_demo(self, terminal: Terminal) -> None:
        """Train networks that look at odd cues, and build the study."""
        from torchxnn.apps.study.shortcut import build_cue_demo

        with terminal.progress() as progress:
            drawn = count_steps(progress, "Drawing")
            plan = build_cue_demo(self.out, self.task, self.seed, drawn)
        _say_next(plan, self.out, terminal)


@dataclass(frozen=True)
class Serve:
    """Serve a study to participants."""

    study: Folder
    port: int = 8000
    """TCP port"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 for all"""
    admin_token: str | None = None
    """opens the dashboard at /admin, also as XNN_STUDY_ADMIN_TOKEN in the environment; made up and
    printed if it is not given"""
    database: str | None = None
    """URL of another database than the SQLite file in the folder, such as
    postgresql+pg8000://user:password@host/name, also as XNN_STUDY_DATABASE in the environment"""
    pilot: bool = False
    """mark everybody who comes as a pilot"""
    base_path: str = ""
    """path below which the study lies on its host, such as /study, if it is not the root"""

    def execute(self, terminal: Terminal) -> None:
        """Serve the study until interrupted."""
        from torchxnn.apps.address import check_base_path
        from torchxnn.apps.study.server.app import create_app

        check_port(self.host, self.port)
        given = admin_token(self.admin_token)
        if given is not None and len(given) < 8:
            raise XNNError(
                f"admin_token (or {ADMIN_TOKEN} in the environment) must have at least 8 "
                "characters: it opens all answers"
            )
        token = given or secrets.token_urlsafe(12)
        self._warn_of_minutes(terminal)
        self._warn_of_recording(terminal)
        pilot = self.pilot or self._is_unfinished(terminal)
        app = create_app(self.study, database_url(self.database), token, pilot, self.base_path)
        address = f"http://{self.host}:{self.port}{check_base_path(self.base_path)}"
        terminal.say(f"Participants: {address}/", f"Dashboard:    {address}/admin")
        if given is None:
            terminal.say(f"Admin token:  {token}")
        if pilot:
            terminal.say("Everybody who comes now is marked as a pilot.")
        serve(app, self.host, self.port)

    def _warn_of_minutes(self, terminal: Terminal) -> None:
        """Warn if the consent text and the instructions promise different durations."""
        from torchxnn.apps.study.plan import CONSENT, StudyPlan
        from torchxnn.apps.study.steps import minutes_of
        from torchxnn.apps.study.texts import read_consent, says_minutes

        plan, consent = StudyPlan.read(self.study), read_consent(self.study)
        for minutes in {minutes_of(plan, arm.name) for arm in plan.settings.arms}:
            if not says_minutes(consent, minutes):
                terminal.warn(
                    f"{self.study / CONSENT} does not say {minutes} minutes, as the instructions "
                    "do: write {minutes} there, or set `minutes` when you build the study"
                )

    def _warn_of_recording(self, terminal: Terminal) -> None:
        """Warn if the consent text does not list all that is kept: then less is."""
        from torchxnn.apps.study.plan import CONSENT
        from torchxnn.apps.study.recorded import RECORDED, says_what_is_recorded
        from torchxnn.apps.study.texts import read_consent

        if not says_what_is_recorded(read_consent(self.study)):
            terminal.warn(
                f"{self.study / CONSENT} has no {RECORDED}, the list of what is kept: travel of "
                "the pointer, focus and pasting are not recorded; write it there to record them"
            )

    def _is_unfinished(self, terminal: Terminal) -> bool:
        """Whether the consent text has blanks, with which the study can only be tried out.

        Raises:
            DataError: it has, and the address is open to other machines.
        """
        from torchxnn.apps.study.plan import CONSENT
        from torchxnn.apps.study.texts import find_blanks, read_consent

        file, blanks = self.study / CONSENT, find_blanks(read_consent(self.study))
        if not blanks:
            return False
        more = f" and {len(blanks) - 1} more" if blanks[1:] else ""
        problem = f"{file} has blanks that nobody has filled in: [{blanks[0]}]{more}"
        if self.host not in LOOPBACK:
            raise DataError(
                f"{problem}; fill them in, or serve the study with --pilot (a bracket that is to "
                "stay is written \\[)"
            )
        terminal.warn(f"{problem}. Until then this is a pilot; fill them in before you recruit.")
        return True


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

        _, tables = _read(self.study, self.database)
        files = write_tables(tables, self.out)
        rows = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
        terminal.say(f"{rows}; {len(files)} files in {self.out}")


@dataclass(frozen=True)
class Simulate:
    """Let synthetic participants, always marked as such, pass through a study over HTTP."""

    url: Annotated[Positional[str], arg(metavar="URL")]
    """where the study is served"""
    participants: int = 10
    """how many"""
    arm: str | None = None
    """arm that they join; the first one by default"""
    at_once: int = 5
    """how many at the same time"""
    pause: float = 0.0
    """mean seconds between two actions; people take about 3"""
    seed: int = 0
    """of their decisions"""

    def execute(self, terminal: Terminal) -> None:
        """Let the participants pass through, and count who finished and who failed."""
        from torchxnn.apps.study.simulate import SimulationConfig, simulate

        config = SimulationConfig(self.participants, self.arm, self.at_once, self.pause, self.seed)
        with terminal.progress() as progress:
            advance = count_images(progress, "Participants", self.participants)
            found = simulate(self.url, config, lambda: advance(1))
        terminal.say(found.summary())
        if found.failed:
            raise XNNError(f"{len(found.failed)} did not finish; the first: {found.failed[0]}")


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
        plan, tables = _read(self.study, self.database)
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
    """result of `xnn study power --out FILE`: where the number of participants comes from"""

    def execute(self, terminal: Terminal) -> None:
        """Write the plan, and warn if somebody has taken part already."""
        from datetime import UTC, datetime

        from torchxnn.apps.study.analysis.answers.power import AnswerSampleSize
        from torchxnn.apps.study.analysis.power import SampleSize
        from torchxnn.apps.study.analysis.preregistration import Answers, write_preregistration

        plan, tables = _read(self.study, self.database, may_be_new=True)
        answers = Answers() if tables is None else Answers.count(tables["participants"])
        kind = AnswerSampleSize if plan.settings.between else SampleSize
        power = None if self.power is None else kind.read(self.power)
        created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        write_preregistration(plan, self.options(plan), answers, self.out, created, power)
        if answers.late:
            terminal.warn(answers.late)
        terminal.say(f"Wrote {self.out}. Deposit it where its date can be proved.")


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

        options, source = self._made()
        with terminal.err.status("Simulating studies"):
            answer = find_sample_size(options, source)
        _tell_power(answer, self.out, terminal)

    def _made(self) -> tuple[PowerOptions, str]:
        """What is simulated: the options, with what a study tells in place of defaults."""
        if self.study is None:
            return self.assumptions, "given"
        from torchxnn.apps.study.analysis.options import options_of
        from torchxnn.apps.study.analysis.power import assumptions_from_pilots, design_of

        plan, tables = _read(self.study, self.database)
        if plan.settings.between:
            raise DataError(f"{self.study} is no clustering; use `xnn study power-answers`")
        pilots = assumptions_from_pilots(tables, plan, options_of(plan))
        default = {f.name: f.default for f in fields(PowerOptions)}
        # what somebody has typed stands; a flag typed with its default cannot be told from none
        taken: dict[str, Any] = {
            name: value
            for name, value in (design_of(plan) | pilots).items()
            if getattr(self.assumptions, name) == default[name]
        }
        source = f"from the study and its pilots: {', '.join(taken)}"
        return replace(self.assumptions, **taken), source


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
        with terminal.err.status("Simulating studies"):
            answer = find_answer_sample_size(options, source)
        _tell_power(answer, self.out, terminal)


def _tell_power(answer: Any, out: Path | None, terminal: Terminal) -> None:
    """Print the curve of power and the answer, and write it."""
    from rich.table import Table

    from torchxnn.apps.study.analysis.power import describe_curve
    from torchxnn.storage.artifact import to_json
    from torchxnn.storage.files import replace_file

    columns = "participants", "power", "95% interval of the simulation"
    table = Table(*map(NUMBERS, columns), title="Power by number of analysed participants")
    for row in describe_curve(answer.curve):
        table.add_row(*row)
    terminal.show(table)
    terminal.say(answer.sentence())
    if out is not None:
        replace_file(out, to_json(answer))
        terminal.say(f"Wrote {out}")


def _read(folder: Path, url: str | None, may_be_new: bool = False) -> tuple[Any, Any]:
    """Read the plan and the tables of a study; tables are None if it is new and may be."""
    from torchxnn.apps.study.export import read_tables
    from torchxnn.apps.study.plan import StudyPlan
    from torchxnn.apps.study.store.database import FILE, open_database

    plan, url = StudyPlan.read(folder), database_url(url)
    if url is None and not (folder / FILE).is_file():
        if may_be_new:
            return plan, None
        raise DataError(f"{folder} has no answers yet: serve it with `xnn study serve {folder}`")
    database = open_database(folder, plan, url)
    try:
        return plan, read_tables(database, plan)
    finally:
        database.close()


def _say_next(plan: Any, folder: Path, terminal: Terminal) -> None:
    terminal.say(
        *(
            f"{data.name}: {len(data.images)} images in {plan.settings.sets} sets; the network "
            f"agrees with {data.agreement:.0%} of the labels"
            for data in plan.data_sets
        ),
        f"Wrote {folder}. Fill in the [blanks] of {folder / 'consent.md'}, then: "
        f"xnn study serve {folder}",
    )


@dataclass(frozen=True)
class Study:
    """Run a human study (paper section 4.1): build it, serve it, analyse it."""

    job: (
        Annotated[Init, subcommand("init")]
        | Annotated[StudyDemo, subcommand("demo")]
        | Annotated[Serve, subcommand("serve")]
        | Annotated[Simulate, subcommand("simulate")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Backup, subcommand("backup")]
        | Annotated[Restore, subcommand("restore")]
        | Annotated[Analyse, subcommand("analyse")]
        | Annotated[PowerCommand, subcommand("power")]
        | Annotated[PowerAnswers, subcommand("power-answers")]
        | Annotated[Preregister, subcommand("preregister")]
    )

    def execute(self, terminal: Terminal) -> None:
        """Run the job that was chosen."""
        with needs_extra("study"):
            self.job.execute(terminal)
