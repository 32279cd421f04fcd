"""What all commands of `xnn benchmark` have in common: arguments, classes, progress, files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

from rich.progress import Progress

from torchxnn.apps.benchmark.settings import BUNDLED, BenchmarkConfig
from torchxnn.cli.terminal import Terminal, count_steps
from torchxnn.data.class_names import comparable
from torchxnn.errors import DataError
from torchxnn.models.config import BUNDLED_LAYER

if TYPE_CHECKING:
    from torchxnn.apps.benchmark.class_by_class import OnClass, Plan
    from torchxnn.apps.benchmark.tasks import TaskSource


@dataclass(frozen=True)
class BenchmarkCommand(ABC):
    """The arguments and the data that all benchmarks share.

    Attributes:
        root: folder of the images to fit on, in the official layout.
        weights: state dict of the explained network.
        out: folder for results, tables and figures; a killed run goes on where it stopped.
        classes: class names or indices (from 0); all by default.
        model: the explained network.
        layer: dotted name of the layer to attach to.
        jobs: processes.
        config: settings.
    """

    kind: ClassVar[str] = "cub"
    root: Path
    weights: Path
    out: Path
    classes: tuple[str, ...] = ()
    model: str = BUNDLED
    layer: str = BUNDLED_LAYER
    jobs: int = 1
    config: BenchmarkConfig = field(default_factory=BenchmarkConfig)

    @abstractmethod
    def execute(self, terminal: Terminal) -> None:
        """Run the benchmark, print its main figures and write its files."""

    @final
    def source(self) -> TaskSource:
        """The benchmark and the data that the arguments name."""
        from torchxnn.apps.benchmark.tasks import TaskSource

        masks = vars(self).get("masks")  # birds are measured on the images that they are fitted on
        task = vars(self).get("data", self.kind)
        return TaskSource(task, self.root, self.weights, self.model, self.layer, masks)

    @final
    def targets(self) -> list[int] | None:
        """Indices of the classes that the arguments name; None for no choice.

        Raises:
            DataError: the data have no such class.
        """
        from torchxnn.apps.benchmark.tasks import TASKS

        if not self.classes:
            return None
        source = self.source()
        return find_classes(TASKS[source.kind](source).classes, self.classes)

    @final
    def plan(self, targets: list[int] | None, progress: Progress, verb: str) -> Plan:
        """What to run on these classes; progress of recording and of what `verb` says is shown."""
        from torchxnn.apps.benchmark.class_by_class import Plan

        on_class = count_classes(progress, verb)
        on_images = count_steps(progress, "Recording")
        return Plan(self.source(), self.config, self.out, targets, self.jobs, on_images, on_class)


def count_classes(progress: Progress, verb: str) -> OnClass:
    """Show progress over classes, with the name of the one that was done."""
    task = progress.add_task(f"{verb} classes", total=None)

    def show(done: int, total: int, name: str) -> None:
        progress.update(task, completed=done, total=total, description=f"{verb} {name}"[:32])

    return show


def write(path: Path, content: Any) -> None:
    """A text as it is, and anything else as JSON; the file appears whole or not at all."""
    from torchxnn.storage.artifact import to_json
    from torchxnn.storage.files import replace_file

    replace_file(path, content.encode() if isinstance(content, str) else to_json(content))


def find_classes(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Class indices of names or numbers; None for no choice.

    Raises:
        DataError: no such class.
    """
    if not wanted:
        return None
    plain = {comparable(name): index for index, name in enumerate(names)}
    found = []
    for choice in wanted:
        if choice.isdecimal() and int(choice) < len(names):
            found.append(int(choice))
        elif comparable(choice) in plain:
            found.append(plain[comparable(choice)])
        else:
            raise DataError(
                f"there is no class {choice!r}; give an index from 0 to {len(names) - 1} or a "
                f"name such as {names[0]!r}"
            )
    return found
