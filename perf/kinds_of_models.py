"""What happens to every kind of model: the tables of the page "Does it work with my model?".

    python perf/kinds_of_models.py            # prints the tables
    python perf/kinds_of_models.py --write    # puts them into docs/does_it_work.md

The kinds of `kinds_networks.py`, tiny and random, are attached, fitted, explained, saved and
loaded; maps are drawn by excitation backprop and by integrated gradients, and numbers that ought
to agree are compared. A minute on one core; needs timm, transformers and lightning.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from kinds_networks import KINDS, QUESTIONS, Kind, Subject
from torch import Tensor

from torchxnn import XNN, TrainConfig
from torchxnn.errors import XNNError
from torchxnn.storage.files import replace_file

PAGE = Path(__file__).parent.parent / "docs" / "does_it_work.md"
BEGIN, END = "<!-- made by perf/kinds_of_models.py -->", "<!-- end of what is made -->"
QUICK = TrainConfig(hidden=(16,), epochs=5, pretrain_epochs=1, trials=1)
EXACT, HALF = 1e-4, 2e-2
"""Differences of numbers that ought to agree, as a share of the largest; the second in half
precision."""
NOTED = 0.05
"""Relevance through the fallback rule, and errors of sums, from which on they are said."""
BATCH, GRADIENTS = 12, "integrated_gradients"
Grade = Literal["works", "refused", "fails", "wrong"]


@dataclass(frozen=True)
class Outcome:
    """What happened to a kind.

    Attributes:
        grade: explained, refused in one line, ended in an error of another package, or explained
            with numbers that do not agree.
        stage: attach, fit or explain: how far it came.
        what: what happened, or what was said.
        way_out: of what is refused.
    """

    grade: Grade
    stage: str
    what: str
    way_out: str = ""


def try_kind(kind: Kind) -> Outcome:
    """Attach, fit, explain, draw, save and load, and what came of it."""
    torch.manual_seed(0)
    stage = "attach"
    with warnings.catch_warnings(action="ignore"):
        try:
            subject = kind.make()
            xnn = XNN(subject.network, subject.layer, 3, **kind.options)
            stage = "fit"
            xnn.fit(list(_batches(subject)), kind.target, config=QUICK)
            stage = "explain"
            wrong = list(_disagreements(xnn, subject))
            if wrong:
                return Outcome("wrong", stage, "; ".join(wrong))
            notes = list(_about_maps(xnn, subject.inputs[:2]))
            return Outcome("works", stage, "; ".join(["works", *notes]))
        except XNNError as error:
            return Outcome("refused", stage, *_halves(str(error)))
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            return Outcome("fails", stage, f"{type(error).__name__}: {first}")


def _halves(message: str) -> tuple[str, str]:
    """What is wrong, and the way out, of a message that says both."""
    mark = "; " if "; " in message else ": "
    what, _, way_out = message.partition(mark) if mark == "; " else message.rpartition(mark)
    return (what, way_out) if what else (message, "")


def _batches(subject: Subject) -> Iterator[Any]:
    pairs = zip(subject.inputs.split(BATCH), subject.labels.split(BATCH), strict=True)
    return (subject.batch(*pair) for pair in pairs)


def _disagreements(xnn: XNN, subject: Subject) -> Iterator[str]:
    """Numbers of an XNN that differ from what they ought to be."""
    few, answer = subject.inputs[:3], subject.own or subject.network
    with torch.no_grad():
        own, alone = own_logits(answer(few)), xnn(few[:1])
    found, explained = xnn.run(few), _explain(xnn, few[0])
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in subject.network.parameters())
    with TemporaryDirectory() as folder:
        xnn.save_pretrained(Path(folder) / "xnn")
        again = XNN.from_pretrained(Path(folder) / "xnn", subject.network)
        loaded = again.run(few).features
    sums = found.contributions.sum(2) + xnn.intercept
    for what, one, other, close in (
        ("logits are not the network's own", found.logits, own, HALF if half else EXACT),
        ("an input alone is another", alone, found.features[:1], HALF if half else EXACT),
        ("contributions do not add up", sums, found.reproduced, EXACT),
        ("another XNN after loading", loaded, found.features, EXACT),
        ("another logit on the card", explained.logits, found.logits[0, list(xnn.targets)], HALF),
    ):
        if float((one - other).abs().max()) > close * max(1.0, float(other.abs().max())):
            yield what


def own_logits(output: Any) -> Tensor:
    """The logits (B, K) in what a network returns, read without the package."""
    if isinstance(output, dict):
        output = output["logits"]
    output = getattr(output, "logits", output)
    output = output[0] if isinstance(output, tuple) else output
    return output.reshape(len(output), -1).float()


def _explain(xnn: XNN, one: Tensor) -> Any:
    """The explanation of an image, of a text or of a row."""
    if one.ndim > 1:
        return xnn.explain(one)
    names = [f"entry {number}" for number in range(len(one))]
    return xnn.explain_row(one, names) if one.is_floating_point() else xnn.explain_text(one, names)


def _about_maps(xnn: XNN, few: Tensor) -> Iterator[str]:
    """What is to know about maps by two methods; nothing where nothing is lost."""
    own = None if few.ndim > 2 else "excitation_backprop"  # images have it by default
    methods = {"excitation backprop": own, "integrated gradients": GRADIENTS}
    for words, method in methods.items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                maps, about = xnn.attribute(few, method, return_certificate=True)
            except XNNError:
                yield f"no maps by {words}, and a line says so"
                continue
        if not bool(maps.isfinite().all()):
            yield f"**maps by {words} are not finite**"
        warn = "and warn" if said else "**in silence**"
        for lost, limit, what in (
            (about.conservation_error, EXACT, "of the relevance"),
            (about.fallback_share, NOTED, "of the directions (fallback rule)"),
            (about.completeness_error, NOTED, "of the difference"),
        ):
            if (lost or 0.0) > limit:
                yield f"maps by {words} miss {lost:.0%} {what}, {warn}"


# --- the tables


def tables(outcomes: Sequence[tuple[Kind, Outcome]]) -> str:
    """The tables in Markdown: by question what works, then what does not."""
    parts = []
    for question in QUESTIONS:
        rows = [
            f"| {kind.name} | {_options(kind)} | {found.what} | {kind.since} |"
            for kind, found in outcomes
            if kind.question == question and found.grade == "works"
        ]
        head = "| kind | arguments of `XNN` | what happens | since |\n|---|---|---|---|"
        parts.append("\n".join([f"## {question}\n", head, *rows]))
    refused = [
        f"| {kind.name} | {found.stage} | *{found.what}* | {found.way_out} | {kind.since} |"
        for kind, found in outcomes
        if found.grade == "refused"
    ]
    head = "| kind | at | what is said | way out | since |\n|---|---|---|---|---|"
    parts.append("\n".join(["## What is refused, and why?\n", head, *refused]))
    bad = [
        f"| {kind.name} | **{found.grade}** | {found.what} |"
        for kind, found in outcomes
        if found.grade in ("fails", "wrong")
    ]
    if bad:
        head = "| kind | | what happens |\n|---|---|---|"
        parts.append("\n".join(["## What is still wrong\n", head, *bad]))
    return "\n\n".join(parts).replace("tiny_networks", "my_project")


def _options(kind: Kind) -> str:
    written = ", ".join(f"{name}={value!r}" for name, value in kind.options.items())
    return f"`{written}`".replace("'", '"') if written else ""


def put_into(page: str, made: str) -> str:
    """A page with other tables between its two markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"


def made_part(page: str) -> str:
    """What stands between the two markers of a page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main(write: bool) -> None:
    """Try every kind and print the tables."""
    torch.set_num_threads(1)
    made = tables([(kind, try_kind(kind)) for kind in KINDS])
    print(made)
    if write:
        replace_file(PAGE, put_into(PAGE.read_text("utf-8"), made).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    main(parser.parse_args().write)
