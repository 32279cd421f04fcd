"""The command line; `xnn --help` lists its commands."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union

import tyro
from tyro.conf import OmitArgPrefixes, subcommand

from torchxnn.cli.arguments import ARGUMENTS
from torchxnn.cli.atlas import AtlasCommand
from torchxnn.cli.attribute import Attribute
from torchxnn.cli.benchmark import Benchmark
from torchxnn.cli.cache import Cache
from torchxnn.cli.check import Check
from torchxnn.cli.demo import Demo
from torchxnn.cli.evaluate import Evaluate
from torchxnn.cli.explain import Explain
from torchxnn.cli.fit import Fit
from torchxnn.cli.layers import Layers
from torchxnn.cli.name import Name
from torchxnn.cli.report import WriteReport
from torchxnn.cli.study import Study
from torchxnn.cli.terminal import Terminal
from torchxnn.cli.what_if import WhatIfCommand
from torchxnn.errors import XNNError, XNNWarning

COMMANDS: Mapping[str, type] = {
    "layers": Layers,
    "cache": Cache,
    "fit": Fit,
    "explain": Explain,
    "evaluate": Evaluate,
    "report": WriteReport,
    "attribute": Attribute,
    "name": Name,
    "atlas": AtlasCommand,
    "whatif": WhatIfCommand,
    "check": Check,
    "benchmark": Benchmark,
    "study": Study,
    "demo": Demo,
}
"""What follows `xnn`: a frozen dataclass whose fields are the arguments and whose
`execute(terminal)` does the work. PyTorch is loaded by the types of the arguments; extras of the
package, which may be missing, and what loads Captum, pandas or scikit-learn are imported in
`execute`, so that `xnn --help` works without them and does not wait for them. Torchvision and
`scipy.stats`, which load for seconds, are imported where they are called."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can act on are one line and exit code 2."""
    terminal = Terminal()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, XNNWarning):
            terminal.warn(str(message))

    try:
        command = _parse(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("always", XNNWarning)
            warnings.showwarning = show
            command.execute(terminal)
    except BrokenPipeError:  # whoever read the output has seen enough, as in `xnn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (XNNError, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        terminal.complain(f"xnn: error: {text}", "red")
        return 2
    except KeyboardInterrupt:
        terminal.complain("xnn: interrupted; nothing half-written is left behind", "red")
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> Any:
    """The command that the arguments ask for.

    Raises:
        XNNError: settings that their own class refuses. The parser, which takes any ValueError for
            a fault of the command line, would put the message into a box of its own.
        SystemExit: help was asked for, or the arguments are wrong; it was said what about them is.
    """
    choice: Any = Union[  # noqa: UP007 - the members come from a table
        tuple(Annotated[kind, subcommand(name)] for name, kind in COMMANDS.items())
    ]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                choice,
                prog="xnn",
                description="Explain a trained network as 'A is B because of C, D and E'.",
                args=argv,
                config=(OmitArgPrefixes,),
                registry=ARGUMENTS,
            )
    except SystemExit as stop:
        refused: BaseException | None = stop
        while refused is not None and not isinstance(refused, XNNError):
            refused = refused.__context__
        if refused is not None:
            raise refused from None
        sys.stderr.write(said.getvalue())
        raise
