"""Look at a model before anything rests on it: one answer per image, and is that a logit?

`examine_model` runs three small passes, more if random numbers are drawn; what it finds is kept
with an XNN and shown with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from torchxnn.errors import ModelError, first_line
from torchxnn.models.config import Doubt, OutputScale
from torchxnn.models.hidden_state import attribute_texts, note_changing
from torchxnn.models.label_agreement import LabelAgreement
from torchxnn.models.layers import unwrap
from torchxnn.models.output_scale import output_scale
from torchxnn.models.plain_settings import plain_settings
from torchxnn.models.watched_pass import WatchedPass, watch_pass

_REPEATS = 8
"""Second passes of a model that draws random numbers."""

EXAMINED = 4
"""Images that a model is examined on: twice together, and the first one once more alone."""

_HALF = (torch.float16, torch.bfloat16)
_TWICE = 1e-4, 1e-2
_ALONE = 1e-2, 5e-2
"""Differences of outputs, as a share of their span, that are rounding, in float32 and in half
precision. Between batches other kernels run, some of them with TensorFloat-32; where statistics of
the batch are in use, every difference above that of two passes is theirs."""


@dataclass(frozen=True)
class Examination:
    """What was found out about a model.

    Attributes:
        images: how many it was examined on.
        twice: the largest difference between its outputs for the same images twice, as a share of
            their span.
        alone: the same between an image in its batch and alone; None if there was no batch, or if
            the model cannot take one image.
        outputs: what the outputs are.
        complaints: for every doubt a line that says what is wrong and the way out.
        note: what to know about outputs that raise no doubt; empty if there is nothing.
        changing: attributes beside parameters and buffers that a pass changes, such as stored
            activations; they are no weights.
        agreement: labels against predictions; None as long as nobody knows labels.
        settings: of the model's modules, see `models.plain_settings`; empty in earlier records.
    """

    images: int
    twice: float
    alone: float | None
    outputs: OutputScale
    complaints: dict[Doubt, str]
    note: str = ""
    changing: tuple[str, ...] = ()
    agreement: LabelAgreement | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def require(self, allow: Collection[Doubt] = ()) -> None:
        """Refuse a model whose explanations would be wrong, but for the doubts that are allowed.

        Raises:
            ModelError: the first doubt that is not allowed, with the way out.
        """
        for doubt, complaint in self.complaints.items():
            if doubt not in allow:
                raise ModelError(complaint)

    @property
    def text(self) -> str:
        """All of it in one line."""
        agreement = f"; {self.agreement.text}" if self.agreement else ""
        parts = [
            "other outputs the second time" if "randomness" in self.complaints else "repeatable",
            *self._text_of_batch(),
            f"outputs are {self.outputs}",
        ]
        return f"examined on {self.images} image(s): {', '.join(parts)}{agreement}"

    def _text_of_batch(self) -> list[str]:
        if "batch" in self.complaints:
            return ["outputs depend on the other images of a batch"]
        return [] if self.alone is None else ["an image alone as in a batch"]


def said_of(examination: Examination | None) -> str:
    """What was found out about a model in one line, also if it was not examined."""
    return "not examined" if examination is None else examination.text


def examine_model(model: nn.Module, inputs: Tensor) -> Examination:
    """Run a model on a few inputs, twice and alone, and see what it says; it is left as it was.

    Random numbers that the model draws are not missed by anybody else: the generators of PyTorch,
    on the CPU and on the inputs' device, of Python and of NumPy are put back.

    Args:
        model: in whatever mode; it runs in evaluation mode.
        inputs: (B, ...) on the model's device, which the model can take; the first `EXAMINED`.

    Raises:
        DataError: the model returns no logits.
    """
    inner, few = unwrap(model), inputs[:EXAMINED]
    half = any(p.dtype in _HALF for p in inner.parameters())
    kept = [attribute_texts(inner)]
    with _generators_put_back(few) as have_drawn:
        watched = watch_pass(inner, few)
        kept.append(attribute_texts(inner))
        twice = 0.0  # one draw of a few numbers may be like the other
        for _ in range(_REPEATS if watched.random or have_drawn() else 1):
            again = _apart(watched.logits, watch_pass(inner, few).logits, watched.logits)
            twice = max(twice, again)
        alone, refusal = _alone(inner, few, watched)
    kept.append(attribute_texts(inner))
    complaints: dict[Doubt, str] = {}
    if twice > _TWICE[half]:
        complaints["randomness"] = _about_randomness(inner, watched, twice)
    elif refusal or (alone or 0.0) > (_TWICE if _batch_norms(inner, watched) else _ALONE)[half]:
        complaints["batch"] = _about_batches(inner, watched, refusal or _share(alone or 0.0))
    outputs, line = output_scale(inner, watched)
    if outputs != "logits":
        complaints["probabilities"] = line
    changing = {name for each in kept[:2] for name in _changes(each, kept[2])}
    note_changing(inner, changing)
    note = "; ".join(filter(None, (_about_modes(inner), watched.shape)))
    return Examination(
        len(few), twice, alone, outputs, complaints, note, tuple(sorted(changing)),
        settings=plain_settings(inner),
    )  # fmt: skip


@contextmanager
def _generators_put_back(inputs: Tensor) -> Iterator[Callable[[], bool]]:
    """Put all generators back; yields whether that of Python or of NumPy has drawn meanwhile."""

    def places() -> tuple[Any, ...]:
        return random.getstate(), str(of_numpy.state)

    of_numpy: Any = np.random.mtrand.get_bit_generator()
    before, of_python, kept = places(), random.getstate(), of_numpy.state
    try:
        with torch.random.fork_rng([inputs.device] if inputs.device.type == "cuda" else []):
            yield lambda: places() != before
    finally:
        random.setstate(of_python)
        of_numpy.state = kept


def _about_modes(model: nn.Module) -> str:
    """What to know of a model in evaluation mode of which parts are in training mode."""
    kept = [
        name
        for name, module in model.named_modules()
        if module.training and isinstance(module, _BatchNorm | _DropoutNd)
    ]
    if model.training or not kept:
        return ""
    return (
        f"the model is in evaluation mode, but not{_named(model, kept)}: all of it is explained in "
        "evaluation mode, where its answers may be other ones than those that you see"
    )


def _alone(model: nn.Module, inputs: Tensor, watched: WatchedPass) -> tuple[float | None, str]:
    """How far outputs of the first image alone are from those in its batch, or why it has none."""
    if len(inputs) == 1:
        return None, ""
    try:
        alone = watch_pass(model, inputs[:1]).logits
    except (RuntimeError, ValueError) as error:  # batch norm of a single vector
        return None, f"alone it is refused: {first_line(error.__cause__ or error)}"
    return _apart(watched.logits[:1], alone, watched.logits), ""


def _share(difference: float) -> str:
    digits = 1 if difference >= 0.001 else 2
    return f"it differs by {difference:.{digits}%} of the outputs' span"


def _apart(one: Tensor, other: Tensor, all_outputs: Tensor) -> float:
    """The largest difference as a share of the span of the outputs, or of a tenth of their size."""
    if one.shape != other.shape or not bool(other.isfinite().all()):
        return 1.0
    size = max(float(all_outputs.max() - all_outputs.min()), float(all_outputs.abs().max()) / 10)
    return float((one - other).abs().max()) / size if size else 0.0


def _changes(one: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def _about_randomness(model: nn.Module, watched: WatchedPass, twice: float) -> str:
    where = _named(model, watched.random)
    return (
        "the model gives two answers to the same images in evaluation mode ("
        f"{_share(twice)}): dropout or noise is on{where}; make the forward pass "
        "deterministic, such as dropout with training=self.training, or allow 'randomness' if "
        "every number may differ from run to run"
    )


def _about_batches(model: nn.Module, watched: WatchedPass, what: str) -> str:
    where = _named(model, [*_batch_norms(model, watched), *watched.training])
    return (
        f"the model's answer for an image depends on the other images of its batch ({what}): "
        f"statistics of the batch are in use{where}; use running statistics "
        "(track_running_stats=True and evaluation mode), or allow 'batch' if explanations may "
        "depend on what is explained along with an image"
    )


def _batch_norms(model: nn.Module, watched: WatchedPass) -> list[str]:
    """Dotted names of the batch norms that take the statistics of the batch."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and (module.running_mean is None or name in watched.training)
    ]


def _named(model: nn.Module, places: Sequence[str]) -> str:
    """Where something happens, for messages: " in the Dropout 'drop'"."""
    modules = dict(model.named_modules())
    texts = [
        f"the {type(modules[place]).__name__} {place!r}" if place else type(model).__name__
        for place in dict.fromkeys(places)
    ]
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    return f" in {', '.join(texts[:2])}{more}" if texts else ""
