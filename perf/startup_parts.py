"""Runs one command of `xnn` and says where its seconds went; `startup.py` calls it.

A second thread looks where the main thread is, some hundred times a second, and gives the time
since it looked last to the package that is being imported there, or else to the step of the
command. So the parts add up to the clock, whatever version of the package it is.
`python startup_parts.py FILE WORD ...` writes {part: seconds} as JSON to FILE.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from types import FrameType

START = time.perf_counter()
STEPS = {  # a function of the package, and what is going on in it; of several the innermost counts
    "parse": "arguments",
    "open_run": "XNN and network from disk, checks",
    "read_input": "image from disk",
    "explain_image": "numbers, maps, certificate",
    "_write": "PNGs and arrays",
    "_page": "page",
    "render_card": "page",
    "plot": "figure",
    "draw_card": "figure",
    "figure_bytes": "figure",
    "summary": "what is said",
}


def watch(thread: int, seconds: dict[str, float], done: threading.Event) -> None:
    """Add up seconds by part, until `done`."""
    last = START
    while not done.is_set():
        time.sleep(0.002)
        frame, now = sys._current_frames()[thread], time.perf_counter()
        seconds[part_of(frame)] += now - last
        last = now


def part_of(frame: FrameType | None) -> str:
    """The part to which a stack belongs, from its innermost frame outwards."""
    step, imported = "", ""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and "importlib" in code.co_filename:
            package = frame.f_locals["name"].partition(".")[0]
            imported = imported if package == "torchxnn" and imported else package
        elif code.co_name in STEPS and "torchxnn" in code.co_filename:
            step = step or STEPS[code.co_name]
        frame = frame.f_back
    return f"import {imported}" if imported else step or "other"


def main() -> None:
    """Run the command and write the parts."""
    import json  # what `xnn` itself imports anyway

    file, words = sys.argv[1], sys.argv[2:]
    seconds: dict[str, float] = defaultdict(float)
    done = threading.Event()
    sys.setswitchinterval(0.001)
    watcher = threading.Thread(
        target=watch, args=(threading.get_ident(), seconds, done), daemon=True
    )
    watcher.start()
    from torchxnn.cli.main import main as run

    code = run(words)
    done.set()
    watcher.join()
    with open(file, "w", encoding="utf-8") as stream:  # noqa: PTH123 - pathlib is a part, too
        json.dump({"parts": seconds, "start": START, "end": time.perf_counter()}, stream)
    sys.exit(code)


if __name__ == "__main__":
    main()
