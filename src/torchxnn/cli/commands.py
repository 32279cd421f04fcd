"""The commands by name, each imported when it is asked for, and what the arguments ask for."""

from __future__ import annotations

import ast
import contextlib
import io
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Annotated, Any, Union

import tyro
from tyro.conf import OmitArgPrefixes, subcommand

from torchxnn.cli.arguments import ARGUMENTS
from torchxnn.cli.one_line import one_line
from torchxnn.errors import XNNError, near_ones

COMMANDS: Mapping[str, str] = {
    "layers": "torchxnn.cli.layers:Layers",
    "cache": "torchxnn.cli.cache:Cache",
    "fit": "torchxnn.cli.fit:Fit",
    "explain": "torchxnn.cli.explain:Explain",
    "evaluate": "torchxnn.cli.evaluate:Evaluate",
    "report": "torchxnn.cli.report:WriteReport",
    "card": "torchxnn.cli.card:CardCommand",
    "attribute": "torchxnn.cli.attribute:Attribute",
    "name": "torchxnn.cli.name:Name",
    "atlas": "torchxnn.cli.atlas:AtlasCommand",
    "whatif": "torchxnn.cli.what_if:WhatIfCommand",
    "check": "torchxnn.cli.check:Check",
    "benchmark": "torchxnn.cli.benchmark:Benchmark",
    "study": "torchxnn.cli.study:Study",
    "demo": "torchxnn.cli.demo:Demo",
}
"""What follows `xnn`: where a frozen dataclass lies whose fields are the arguments and whose
`execute(terminal)` does the work. Only the one that is asked for is imported."""


@dataclass(frozen=True)
class _NotAskedFor:
    """Stands for a command of which the parser shows nothing but the description."""


def parse(argv: Sequence[str] | None = None) -> Any:
    """The command that the arguments ask for.

    Raises:
        XNNError: no such command, wrong arguments, or settings that their own class refuses. The
            parser would put the message into a box of its own.
        SystemExit: help or the version was asked for.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(versions())  # noqa: T201 - as other programs do
        raise SystemExit(0)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        near = near_ones(words[0], COMMANDS, most=1)
        raise XNNError(f"there is no command {words[0]!r}{near}; `xnn --help` lists them")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                _choice(words),
                prog="xnn",
                description="Explain a trained network as 'A is B because of C, D and E'.",
                args=words,
                config=(OmitArgPrefixes,),
                registry=ARGUMENTS,
            )
    except SystemExit as stop:
        refused: BaseException | None = stop
        while refused is not None and not isinstance(refused, XNNError):
            refused = refused.__context__
        if refused is not None:
            raise refused from None
        command = " ".join(["xnn", *(word for word in words[:1] if word in COMMANDS)])
        if line := one_line(said.getvalue(), command):
            raise XNNError(line) from None
        sys.stderr.write(said.getvalue())
        raise


def _choice(words: Sequence[str]) -> Any:
    """All commands for the parser: the one that is asked for, and the descriptions of the others.

    A script that completes what one types in a shell, which the parser writes, needs them all.
    """
    every = any(word.startswith("--tyro-") for word in words[:1])
    members = (
        Annotated[pkgutil.resolve_name(place), subcommand(name)]
        if every or words[:1] == [name]
        else Annotated[_NotAskedFor, subcommand(name, description=_described(place))]
        for name, place in COMMANDS.items()
    )
    return Union[tuple(members)]  # noqa: UP007 - the members come from a table


def _described(place: str) -> str:
    """The docstring of a class, read from the source: importing its module may take seconds."""
    module, _, name = place.partition(":")
    source = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py")  # all lie beside this one
    tree = ast.parse(source.read_text("utf-8"))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return ast.get_docstring(next(classes)) or ""


def versions() -> str:
    """One line with the versions of this package, of PyTorch and of Python; imports neither."""
    return f"torchxnn {version('torchxnn')}, torch {version('torch')}, Python {python_version()}"
