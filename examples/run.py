"""Run the notebooks again, and keep what they print and draw in them.

    python examples/run.py                 # all of them; writes them
    python examples/run.py --check NAME    # writes nothing, and fails if one says something else

A notebook runs from top to bottom in an empty folder, in a kernel of this Python, on one thread.
What changes from run to run without a reason is left out, pictures are made small, and a notebook
that names a place of this machine, fails or grows too large is refused.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent / "notebooks"
LARGEST = 400_000  # bytes of a notebook
WIDTH, QUALITY = 900, 80  # pixels and JPEG quality of a picture
TOLERANCE = (
    0.25,
    0.06,
)  # of a number, relative and absolute: other processors fit a little otherwise

_NUMBER = re.compile(r"(?<!x-feature )(?<![\w.])[+\N{MINUS SIGN}-]?\d[\d,]*\.?\d*")
_BOLD = re.compile(r"\x1b\[[0-9;]*m")  # colours and weights of a terminal
_CATEGORY = r"(?:Attribution|DegenerateFit|XNN)Warning"
_OUR_WARNING = re.compile(rf"^.*:\d+: ({_CATEGORY}: .*)\n.*\n?", re.M)  # with place and source line
_WARNED = re.compile(rf"({_CATEGORY}: .*\n)+")
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebooks(names: list[str] | None = None) -> list[Path]:
    """All notebooks, or those whose file names begin with one of the names, in order."""
    found = sorted(FOLDER.glob("*.ipynb"))
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def execute(path: Path) -> Any:
    """The notebook with fresh outputs, cleaned; the file is left alone."""
    book = nbformat.read(path, as_version=4)
    own = os.environ.copy()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", "")]),
            "IPYTHONDIR": f"{folder}/.ipython",
            "JUPYTER_CONFIG_DIR": f"{folder}/.jupyter",
            "JUPYTER_RUNTIME_DIR": f"{folder}/.runtime",
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm, without ipywidgets
        }
        work = Path(folder) / "work"
        work.mkdir()
        try:
            client = NotebookClient(book, timeout=None, startup_timeout=600, kernel_name="python3")
            client.execute(cwd=str(work))
        finally:
            os.environ.clear()
            os.environ.update(own)
        return clean(book, (folder, str(Path.home()), sys.prefix, str(FOLDER.parent.parent)))


def clean(book: Any, places: tuple[str, ...]) -> Any:
    """Leave out what changes without a reason, and make pictures small.

    Args:
        book: executed.
        places: paths of this machine, which no output may name.

    Raises:
        ValueError: an output names a place, is an error or a warning that is not of this package
            (of ours the words stay), or all is too large.
    """
    book.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(book.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
            for output in cell.outputs:
                clean_output(output, number)
    text = nbformat.writes(book)
    named = [place for place in places if len(place) > 1 and place in text]
    if named or len(text) > LARGEST:
        raise ValueError(f"a notebook of {len(text)} bytes that names {named}")
    return book


def merged(outputs: list[Any]) -> list[Any]:
    """Outputs with what is printed in one piece, however it arrived."""
    kept: list[Any] = []
    for output in outputs:
        goes_on = kept and output.output_type == kept[-1].output_type == "stream"
        if goes_on and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def clean_output(output: Any, cell: int) -> None:
    """The same for one output, in place."""
    if output.output_type == "stream":
        output.text = _BOLD.sub("", output.text)
    if output.get("name") == "stderr":
        output.text = _OUR_WARNING.sub(r"\1\n", output.text)
    foreign = output.get("name") == "stderr" and not _WARNED.fullmatch(output.text)
    if output.output_type == "error" or foreign:
        raise ValueError(f"cell {cell} complains: {output.get('text', output)}")
    if "metadata" in output:
        output.metadata = nbformat.from_dict({})
    if "image/png" in output.get("data", {}):
        output.data["image/jpeg"] = small(output.data.pop("image/png"))


def small(encoded: str) -> str:
    """A PNG in base64 as a JPEG of at most so many pixels across."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "jpeg", quality=QUALITY, subsampling=0, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def said(book: Any) -> list[str]:
    """What a notebook prints, one text for each output, with single spaces for line breaks."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    return [" ".join(o.text.split()) for o in outputs if o.output_type == "stream"]


def kinds(book: Any) -> list[list[str]]:
    """What each cell shows beside lines: kinds of data, as in [["text/html", "image/png"]]."""
    cells = [cell.get("outputs", ()) for cell in book.cells]
    return [[kind for o in outputs for kind in sorted(o.get("data", {}))] for outputs in cells]


def differences(old: Any, new: Any) -> list[str]:
    """What two runs of a notebook say differently; numbers may differ a little."""
    found = [
        f"cell {number} is other source"
        for number, (one, two) in enumerate(zip(old.cells, new.cells, strict=True), 1)
        if one.source != two.source
    ]
    if kinds(old) != kinds(new):
        found.append("other kinds of pictures are shown")
    before, after = said(old), said(new)
    if len(before) != len(after):
        found.append(f"{len(before)} texts were printed, now {len(after)}")
    pairs = zip(before, after, strict=False)
    return found + [f"{one!r} is now {two!r}" for one, two in pairs if not alike(one, two)]


def alike(one: str, two: str) -> bool:
    """Whether two texts have the same words and nearly the same numbers."""
    if _NUMBER.sub("0", one) != _NUMBER.sub("0", two):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(two), strict=True)
    relative, absolute = TOLERANCE
    return all(
        abs(_value(a) - _value(b)) <= max(relative * abs(_value(a)), absolute) for a, b in pairs
    )


def _value(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", "").rstrip("."))


def main() -> None:
    """Run some or all notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="begin of the file names; all without any")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one differs")
    given = parser.parse_args()
    problems = []
    for path in notebooks(given.names):
        book = execute(path)
        if given.check:
            found = differences(nbformat.read(path, as_version=4), book)
            problems += [f"{path.name}: {text}" for text in found]
        else:
            nbformat.write(book, path)
        print(f"{path.name}: {len(nbformat.writes(book)) / 1000:.0f} kB")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
