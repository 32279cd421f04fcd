"""What the argument parser says in a box, as one line like all other errors."""

from __future__ import annotations

import ast
import re

from torchxnn.errors import near_ones

_PLAINER = (
    (r"invalid literal for int\(\) with base 10: ('.*?')", r"\1 is no whole number"),
    (r"could not convert string to float: ('.*?')", r"\1 is no number"),
    (r"^Error parsing ", ""),
    (r"^invalid choice", "no choice"),
    (r"Expected 1 values\.", "Expected a value."),
)
"""What the parser says, and the same without Python's own words."""


def one_line(said: str, command: str) -> str | None:
    """The message of a box that the parser drew; None if there is none.

    Names that are most like a wrong one are said, and where all arguments of the command are.

    Args:
        said: everything that the parser wrote.
        command: that was asked for, such as "xnn fit".
    """
    sections = _sections(said)
    if not sections:
        return None
    first = sections[0]
    # of arguments that are missing the names are needed, and not the help, which stands further in
    shallow = [line for line in first if len(line) - len(line.lstrip()) <= _INDENT]
    if shallow[0].startswith("Missing from"):
        names = ", ".join(" ".join(line.split()) for line in shallow[1:])
        text = f"{shallow[0]} {names}"
        command = shallow[0].removeprefix("Missing from ").rstrip(":")  # below that asked for, too
    else:
        text = " ".join(" ".join(first).split())
    for pattern, plain in _PLAINER:
        text = re.sub(pattern, plain, text)
    return f"{text.rstrip('.')}{_near(text, sections)} (`{command} --help`)"


_INDENT = 4


def _sections(said: str) -> list[list[str]]:
    """The lines of each section of the box, without its frame of lines, dashes or nothing."""
    frame = "│ " if "│" in said else "  "
    inside = [line[2:].rstrip(" │") for line in said.splitlines() if line.startswith(frame)]
    sections: list[list[str]] = [[]]
    for line in inside:
        if set(line.strip()) in ({"─"}, {"-"}):
            sections.append([])
        elif line.strip():
            sections[-1].append(line)
    return [section for section in sections if section]


def _near(text: str, sections: list[list[str]]) -> str:
    """What may have been meant instead: a choice, or an option."""
    choice = re.match(r"no choice '(.*?)' for .* one of (\(.*\))", text)
    if choice:
        return near_ones(choice[1], [each for each in ast.literal_eval(choice[2]) if each], 1, 0.5)
    for section in sections[1:]:
        if section[0].startswith("Perhaps you meant"):
            options = [line.split()[0] for line in section if line.lstrip().startswith("--")]
            return f"; near ones: {', '.join(list(dict.fromkeys(options))[:3])}"
    return ""
