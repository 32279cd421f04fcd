"""`xnn benchmark`: photographed and rendered birds, rooms, digits and planted shapes.

Prints and writes tables and figures; `tune` and `stability` fit birds many times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, final

from tyro.conf import subcommand

from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig, default_config
from torchxnn.apps.benchmark.job_settings import (
    PlantedConfig,
    RulesConfig,
    StabilityConfig,
    TuneGrid,
)
from torchxnn.apps.benchmark.settings import BenchmarkConfig, MnistConfig
from torchxnn.cli.benchmark_command import BenchmarkCommand, count_classes, find_classes, write
from torchxnn.cli.terminal import Terminal, count_epochs

TITLES = {
    "cub": "Birds (CUB-200-2011)",
    "nyu": "Rooms (Places365), measured on the masks of NYU Depth v2",
    "places": "Rooms (Places365), measured on the masks of ADE20K",
}


@dataclass(frozen=True)
class Evaluation(BenchmarkCommand):
    """Evaluate all methods on all classes: the paper's tables and figures.

    Attributes:
        figures: draw the figures and the gallery.
    """

    figures: bool = True

    @final
    def execute(self, terminal: Terminal) -> None:
        """Measure all classes; print and write the tables, and draw the figures."""
        from torchxnn.apps.benchmark.run import run_benchmark
        from torchxnn.apps.benchmark.summary import summarise
        from torchxnn.apps.benchmark.tables import markdown

        source = self.source()
        targets = self.targets()
        with terminal.progress() as progress:
            records = run_benchmark(self.plan(targets, progress, "Measuring"))
        summary = summarise(records)
        write(self.out / "results.json", summary)
        text = markdown(summary, TITLES[source.kind])
        write(self.out / "tables.md", text)
        terminal.say(text.split("## Lasso")[0])
        if self.figures:
            from torchxnn.apps.benchmark.figures.all_figures import draw_figures

            with terminal.progress() as progress:
                on_class = count_classes(progress, "Drawing")
                draw_figures(source, summary, self.config, self.out, on_class)
        terminal.say(f"results.json, tables.md and figures are in {self.out}")


@dataclass(frozen=True)
class Cub(Evaluation):
    """Evaluate on birds with part locations: paper tables 1, .4 and .5."""


@dataclass(frozen=True, kw_only=True)
class Nyu(Evaluation):
    """Evaluate on rooms of Places365, with the masks of NYU Depth v2.

    Attributes:
        masks: the folder of NYU Depth v2.
    """

    kind = "nyu"
    masks: Path


@dataclass(frozen=True, kw_only=True)
class Places(Evaluation):
    """Evaluate on the paper's ten rooms of Places365, with the masks of ADE20K: tables 2 and .6.

    Attributes:
        masks: folder of ADE20K, the full release or ADEChallengeData2016.
    """

    kind = "places"
    masks: Path


@dataclass(frozen=True)
class FunnyBirdsTruth(BenchmarkCommand):
    """Ask whether what explanations say is true, on birds whose parts are removed one by one.

    Attributes:
        truth: what is measured beside the changes.
        figures: draw what the x-features of every class are about, and write the page.
    """

    kind = "funnybirds"
    model: str = "torchxnn.models.bundled:efficientnet_lite2_with_head"
    config: BenchmarkConfig = field(default_factory=default_config)
    truth: TruthConfig = field(default_factory=TruthConfig)
    figures: bool = True

    def execute(self, terminal: Terminal) -> None:
        """Measure all methods on all classes; print and write the tables and the page."""
        from torchxnn.apps.benchmark.funnybirds.run import run_funnybirds
        from torchxnn.apps.benchmark.funnybirds.summary import summarise
        from torchxnn.apps.benchmark.funnybirds.tables import markdown

        source = self.source()
        targets = self.targets()
        with terminal.progress() as progress:
            found = run_funnybirds(self.plan(targets, progress, "Measuring"), self.truth)
        summary = summarise(*found)
        write(self.out / "results.json", summary)
        text = markdown(summary)
        write(self.out / "tables.md", text)
        terminal.say(text.split("## Today's default against")[0])
        terminal.say(f"results.json and tables.md are in {self.out}")
        if self.figures:
            from torchxnn.apps.benchmark.funnybirds.page import write_page

            with terminal.progress() as progress:
                on_class = count_classes(progress, "Drawing")
                page = write_page(source, summary, self.config, self.truth, self.out, on_class)
            terminal.say(f"the page is {page}")


TUNE_CLASSES = 10


@dataclass(frozen=True)
class Tune(BenchmarkCommand):
    """Choose beta, eta and q on CUB's training split: R^2 near NN's, then least overlap of maps.

    Attributes:
        grid: settings to try.
    """

    grid: TuneGrid = field(default_factory=TuneGrid)

    def execute(self, terminal: Terminal) -> None:
        """Try every setting on every few classes if none are named; write and draw the figures."""
        from torchxnn.apps.benchmark.figures.pareto_front import front_figure
        from torchxnn.apps.benchmark.tables import tuning_text
        from torchxnn.apps.benchmark.tasks import TASKS
        from torchxnn.apps.benchmark.tune import run_tuning
        from torchxnn.explanations.drawing.canvas import figure_bytes
        from torchxnn.storage.files import replace_file

        source = self.source()
        names = TASKS[source.kind](source).classes
        targets = find_classes(names, self.classes) or every_few(len(names))
        with terminal.progress() as progress:
            found = run_tuning(self.plan(targets, progress, "Fitting"), self.grid)
        text = tuning_text(found, targets)
        write(self.out / "tuning.json", found | {"classes": targets})
        replace_file(self.out / "tuning.png", figure_bytes(front_figure(found), "png", 150))
        write(self.out / "tuning.md", text)
        terminal.say(text)


@dataclass(frozen=True)
class Stability(BenchmarkCommand):
    """Refit classes with other seeds, splits and samples, and ask what is found again.

    Attributes:
        data: birds that are photographed or rendered.
        refits: what is refitted.
    """

    data: Literal["cub", "funnybirds"] = "cub"
    config: BenchmarkConfig = field(default_factory=default_config)
    refits: StabilityConfig = field(default_factory=StabilityConfig)

    def execute(self, terminal: Terminal) -> None:
        """Refit all classes, and print and write what was found."""
        from torchxnn.apps.benchmark.stability import run_stability
        from torchxnn.apps.benchmark.stability_tables import stability_text

        targets = self.targets()
        with terminal.progress() as progress:
            found = run_stability(self.plan(targets, progress, "Fitting"), self.refits)
        text = stability_text(found)
        write(self.out / "stability.json", found)
        write(self.out / "stability.md", text)
        terminal.say(text)


@dataclass(frozen=True)
class CompareRules(BenchmarkCommand):
    """Compare the rules that draw the maps of x-features, judged by hiding squares of birds.

    Attributes:
        data: birds that are photographed or rendered.
        rules: what is compared, on how many images.
    """

    data: Literal["cub", "funnybirds"] = "cub"
    config: BenchmarkConfig = field(default_factory=default_config)
    rules: RulesConfig = field(default_factory=RulesConfig)

    def execute(self, terminal: Terminal) -> None:
        """Measure all classes; print and write the tables."""
        from torchxnn.apps.benchmark.rules import run_rules
        from torchxnn.apps.benchmark.rules_tables import rules_text, summarise_rules

        targets = self.targets()
        with terminal.progress() as progress:
            records = run_rules(self.plan(targets, progress, "Measuring"), self.rules)
        summary = summarise_rules(records)
        text = rules_text(summary)
        write(self.out / "rules.json", summary)
        write(self.out / "rules.md", text)
        terminal.say(text, f"rules.json and rules.md are in {self.out}")


@dataclass(frozen=True)
class Mnist(MnistConfig):
    """Fit a convolutional XNN to handwritten digits on a small network (paper section 4.4)."""

    def execute(self, terminal: Terminal) -> None:
        """Train the network, fit and measure the XNN, draw it, and print the figures."""
        from torchxnn.apps.benchmark.mnist import describe, run_mnist

        with terminal.progress() as progress:
            task = progress.add_task("Training the network", total=self.network_epochs)
            results = run_mnist(
                self,
                lambda epoch: progress.update(task, completed=epoch),
                count_epochs(progress, "Fitting", self.train.epochs),
            )
        terminal.say(*describe(results))


@dataclass(frozen=True)
class Planted:
    """Fit all methods to a network whose logits are known sums of known detectors; needs no data.

    Attributes:
        out: folder for the results; a killed run goes on where it stopped.
        jobs: processes.
        config: settings.
    """

    out: Path
    jobs: int = 1
    config: PlantedConfig = field(default_factory=PlantedConfig)

    def execute(self, terminal: Terminal) -> None:
        """Draw images, fit and measure all methods, and print the table."""
        from torchxnn.apps.benchmark.planted import run_planted

        with terminal.progress() as progress:
            task = progress.add_task("Measuring seeds", total=self.config.seeds)
            run_planted(
                self.config,
                self.out,
                self.jobs,
                lambda done, _: progress.update(task, completed=done),
            )
        terminal.say((self.out / "tables.md").read_text("utf-8"))
        terminal.say(f"results.json and tables.md are in {self.out}")


def every_few(classes: int) -> list[int]:
    """About ten classes, evenly spaced, for a command that fits each class many times."""
    step = max(1, classes // TUNE_CLASSES)
    return list(range(step - 1, classes, step))[:TUNE_CLASSES]


@dataclass(frozen=True)
class Benchmark:
    """Rebuild the paper's evaluation: methods, metrics, tables and figures on a data set."""

    job: (
        Annotated[Cub, subcommand("cub")]
        | Annotated[Nyu, subcommand("nyu")]
        | Annotated[Places, subcommand("places")]
        | Annotated[FunnyBirdsTruth, subcommand("funnybirds")]
        | Annotated[Mnist, subcommand("mnist")]
        | Annotated[Planted, subcommand("planted")]
        | Annotated[CompareRules, subcommand("rules")]
        | Annotated[Tune, subcommand("tune")]
        | Annotated[Stability, subcommand("stability")]
    )

    def execute(self, terminal: Terminal) -> None:
        """Run the benchmark that was chosen."""
        self.job.execute(terminal)
