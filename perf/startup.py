"""How long the first answers take: help, a typo, imports, and one image from the shell.

Each line is the median of several new processes: seconds of the clock, and of processors (user and
system), which others who compute on the machine hardly change. PyTorch alone is the bound for
everything that needs it. `python perf/startup.py` needs no data; `--run RUN --image IMAGE` adds
`xnn explain` of one image, `--only explain` prints the lines with that word alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

XNN = "from torchxnn.cli.main import main; raise SystemExit(main())"


def main() -> None:
    """Run every command several times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="processes per line")
    parser.add_argument("--run", type=Path, help="folder written by `xnn fit`")
    parser.add_argument("--image", type=Path, help="image to explain with it")
    parser.add_argument("--only", default="", help="part of the names of the lines to print")
    arguments = parser.parse_args()
    print(f"{'median of ' + str(arguments.repeats):44} {'wall s':>8} {'CPU s':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, code, words in lines(arguments.run, arguments.image, folder):
            if arguments.only not in name:
                continue
            walls, processors = zip(
                *(seconds(code, words) for _ in range(arguments.repeats)), strict=True
            )
            wall, processor = statistics.median(walls), statistics.median(processors)
            print(f"{name:44} {wall:8.2f} {processor:8.2f}", flush=True)


def lines(run: Path | None, image: Path | None, out: str) -> list[tuple[str, str, list[str]]]:
    """Name, code and arguments of what is timed."""
    found: list[tuple[str, str, list[str]]] = [
        ("python", "pass", []),
        ("import torch", "import torch", []),
        ("import torchvision", "import torchvision", []),
        ("import torchxnn", "import torchxnn", []),
        ("from torchxnn import XNN", "from torchxnn import XNN", []),
        ("xnn --version", XNN, ["--version"]),
        ("xnn --help", XNN, ["--help"]),
        ("xnn fti (a typo)", XNN, ["fti"]),
        ("xnn fit --help", XNN, ["fit", "--help"]),
        ("xnn explain --help", XNN, ["explain", "--help"]),
        ("xnn benchmark --help", XNN, ["benchmark", "--help"]),
    ]
    if run is not None and image is not None:
        words = ["explain", str(run), str(image), "--out", out]
        found.append((f"xnn explain {run.name} {image.name}"[:44], XNN, words))
    return found


def seconds(code: str, words: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of processors that a new Python takes, which may say no."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, env=os.environ, text=True
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(words) or code} failed:\n{done.stderr}")
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
