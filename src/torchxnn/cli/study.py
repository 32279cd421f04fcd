"""The command `xnn study`: its jobs, which lie in modules by subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import subcommand

from torchxnn.cli.study_analyse import Analyse, Export, Preregister
from torchxnn.cli.study_backup import Backup, Restore
from torchxnn.cli.study_build import Init, StudyDemo
from torchxnn.cli.study_power import PowerAnswers, PowerArms, PowerCommand
from torchxnn.cli.study_serve import Serve, Simulate
from torchxnn.cli.terminal import Terminal, needs_extra


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
        | Annotated[PowerArms, subcommand("power-arms")]
        | Annotated[PowerAnswers, subcommand("power-answers")]
        | Annotated[Preregister, subcommand("preregister")]
    )

    def execute(self, terminal: Terminal) -> None:
        """Run the job that was chosen."""
        with needs_extra("study"):
            self.job.execute(terminal)
