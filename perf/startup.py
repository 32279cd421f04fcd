"""How long the first answers take: help, a typo, imports, and one image from the shell.

Each figure is the median of several new processes, with the smallest and the largest: seconds of
the clock, and of processors (user and system), which others who compute on the machine change less.
PyTorch alone is the bound for everything that needs it. `python perf/startup.py` needs no data;
`--run RUN --image IMAGE` adds `xnn explain` of one image; with `--parts` it is measured alone, and
the table says where its seconds go (`startup_parts.py`). `--data DIR` adds commands for a folder of
images, which should be few. `--against SRC` measures another version
too, whose package lies in the folder SRC, taking turns. `--only explain` prints the lines with that
word alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
XNN = ["-c", "from torchxnn.cli.main import main; raise SystemExit(main())"]
OUT = "{new folder}"
"""Stands in the arguments for a folder that is new for every process."""
SHOWN = 0.01  # seconds; parts that are shorter are "the rest"


def main() -> None:
    """Run every command several times, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="processes per line")
    parser.add_argument("--run", type=Path, help="folder written by `xnn fit`")
    parser.add_argument("--image", type=Path, help="image to explain with it")
    parser.add_argument("--data", type=Path, help="folder of a few images, in class folders")
    parser.add_argument("--against", type=Path, help="src of another version")
    parser.add_argument("--parts", action="store_true", help="where the seconds of explain go")
    parser.add_argument("--only", default="", help="part of the names of the lines to print")
    arguments = parser.parse_args()
    sources = [HERE.parent / "src", *([arguments.against] if arguments.against else [])]
    for number, source in enumerate(sources, 1):
        print(f"version {number}: {source}")
    timed = lines(arguments.run, arguments.image, arguments.data)
    if arguments.parts:
        print_parts(timed[-1][1], sources, arguments.repeats)
        return
    head = f"median of {arguments.repeats} (smallest to largest)"
    print(f"{head:42}" + " wall s                CPU s   " * len(sources))
    for name, words in timed:
        if arguments.only in name:
            print(f"{name[:40]:42}{times(words, sources, arguments.repeats)}", flush=True)


def lines(run: Path | None, image: Path | None, data: Path | None) -> list[tuple[str, list[str]]]:
    """Names of what is timed, and the arguments of Python."""
    found: list[tuple[str, list[str]]] = [
        ("python", ["-c", "pass"]),
        ("import torch", ["-c", "import torch"]),
        ("import torchvision", ["-c", "import torchvision"]),
        ("import torchxnn", ["-c", "import torchxnn"]),
        ("from torchxnn import XNN", ["-c", "from torchxnn import XNN"]),
        ("xnn --version", [*XNN, "--version"]),
        ("xnn --help", [*XNN, "--help"]),
        ("xnn fti (a typo)", [*XNN, "fti"]),
        ("xnn fit --help", [*XNN, "fit", "--help"]),
        ("xnn explain --help", [*XNN, "explain", "--help"]),
        ("xnn benchmark --help", [*XNN, "benchmark", "--help"]),
    ]
    if run is not None and data is not None:
        place = [str(run), str(data), "--out"]
        found += [
            ("xnn check", [*XNN, "check", str(run)]),
            ("xnn attribute", [*XNN, "attribute", *place, f"{OUT}/maps"]),
            ("xnn report", [*XNN, "report", *place, f"{OUT}/report.html"]),
        ]
    if run is not None and image is not None:
        words = [*XNN, "explain", str(run), str(image), "--out", OUT]
        found.append((f"xnn explain {run.name} {image.name}", words))
    return found


def times(words: list[str], sources: Sequence[Path], repeats: int) -> str:
    """Seconds of the clock and of processors, for each version."""
    found = [[seconds(words, source) for source in sources] for _ in range(repeats)]
    return "   ".join(
        f"{spread([wall for wall, _ in each])}  {statistics.median(cpu for _, cpu in each):5.2f}"
        for each in zip(*found, strict=True)
    )


def spread(values: Sequence[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):5.2f} ({min(values):.2f} to {max(values):.2f})"


def print_parts(words: list[str], sources: Sequence[Path], repeats: int) -> None:
    """Where the seconds of a command go, the longest parts first."""
    with tempfile.TemporaryDirectory() as folder:
        table = parts(words, sources, repeats, Path(folder) / "parts.json")
    print(f"{f'median of {repeats}':42}" + "    s    " * len(sources))
    rest = [0.0] * len(sources)
    for name, values in sorted(table.items(), key=lambda item: -max(item[1])):
        if max(values) < SHOWN:
            rest = [a + b for a, b in zip(rest, values, strict=True)]
        else:
            print(f"{name:42}" + "".join(f"{value:6.2f}   " for value in values))
    print(f"{'the rest':42}" + "".join(f"{value:6.2f}   " for value in rest))


def parts(
    words: list[str], sources: Sequence[Path], repeats: int, file: Path
) -> dict[str, list[float]]:
    """Median seconds of every part for each version; the runs leave them in a file."""
    runs: list[list[dict[str, float]]] = [[] for _ in sources]
    for _ in range(repeats):
        for each, source in zip(runs, sources, strict=True):
            start = time.perf_counter()
            seconds([str(HERE / "startup_parts.py"), str(file), *words[len(XNN) :]], source)
            end, said = time.perf_counter(), json.loads(file.read_text("utf-8"))
            beyond = {"Python begins": said["start"] - start, "Python ends": end - said["end"]}
            each.append({**said["parts"], **beyond})
    names = {name for each in runs for one in each for name in one}
    return {
        name: [statistics.median(one.get(name, 0.0) for one in each) for each in runs]
        for name in names
    }


def seconds(words: list[str], source: Path) -> tuple[float, float]:
    """Seconds of the clock and of processors that a new Python takes, which may say no."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds_in(folder, words, source)


def seconds_in(folder: str, words: list[str], source: Path) -> tuple[float, float]:
    """The same; what the process writes goes into a folder."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *(word.replace(OUT, folder) for word in words)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(source)},
        text=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
