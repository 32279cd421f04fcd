"""The commands `xnn study init` and `xnn study demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from torchxnn.cli.terminal import Terminal, count_steps


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
