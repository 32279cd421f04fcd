"""Record activations of a model that is examined on the way, and say what looks doubtful."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from torchxnn.data.activations import Activations
from torchxnn.data.labels import UNKNOWN
from torchxnn.data.record import record_activations
from torchxnn.errors import XNNWarning
from torchxnn.models.config import Doubt, OutputKind
from torchxnn.models.examination import Examination, examine_model
from torchxnn.models.label_agreement import LabelAgreement, label_agreement
from torchxnn.models.meaning import boundary_of
from torchxnn.models.output_scale import within_unit_interval


def record_examined(
    model: nn.Module,
    layer: str | nn.Module,
    loader: Iterable[Any],
    allow: Collection[Doubt] = (),
    **settings: Any,
) -> tuple[Activations, Examination]:
    """Examine a model on the first batch of a loader and, if nothing is wrong, record all of it.

    Args:
        model: the explained model; left as it was.
        layer: dotted name or submodule.
        loader: see `record_activations`.
        allow: doubts that the caller accepts.
        settings: further arguments of `record_activations`.

    Raises:
        ModelError: a doubt that is not allowed, before the second batch; see `examine_model`.
        XNNError: see `record_activations`.
    """
    found: list[Examination] = []

    def examine(images: Tensor) -> None:
        found.append(examine_model(model, images))
        found[0].require(allow)

    data = record_activations(model, layer, loader, on_first=examine, **settings)
    examination = found[0]
    data = data.of_scale(examination.outputs)
    examination = replace(examination, agreement=agreement_with_labels(data))
    bounded = "probabilities" not in allow and within_unit_interval(data.logits)
    kind = data.meaning.outputs_are
    warn_of_doubts(examination, bounded and kind != "value", kind)
    return data, examination


def agreement_with_labels(data: Activations) -> LabelAgreement | None:
    """How often the model predicts the labels; None without any, and where no class is decided."""
    if data.labels is None or data.meaning.outputs_are != "classes":
        return None
    known = data.labels != UNKNOWN
    if not bool(known.any()):
        return None
    return label_agreement(data.predicted[known], data.labels[known], data.n_outputs)


def warn_of_order(agreement: LabelAgreement | None, where: str = "") -> None:
    """Warn if the classes of some data may lie in another order than the model's outputs.

    `where` says in front of the message which data they are.
    """
    if agreement is not None and agreement.doubt:
        warnings.warn(f"{where}{agreement.doubt}", XNNWarning, stacklevel=3)


def warn_of_doubts(
    examination: Examination, bounded: bool = False, outputs_are: OutputKind | None = None
) -> None:
    """Warn of what may be wrong though nothing proves it; `bounded`: all outputs are in [0, 1]."""
    for line in _doubts(examination, bounded, outputs_are):
        warnings.warn(line, XNNWarning, stacklevel=4)


def _doubts(
    examination: Examination, bounded: bool, outputs_are: OutputKind | None
) -> Iterator[str]:
    if examination.note:
        yield examination.note
    if examination.outputs != "logits" and outputs_are != "value":
        yield (
            f"the outputs of the model are {examination.outputs}, which is allowed: they are "
            f"explained as they are, a single one or a label is seen above "
            f"{boundary_of(examination.outputs):.2g}, and the heatmap of a whole output is drawn "
            "by integrated gradients"
        )
    if bounded:
        yield (
            "the outputs of the model are all between 0 and 1: if they are probabilities, give the "
            "model without its last sigmoid or softmax, so that the logits are explained"
        )
    if examination.agreement is not None and examination.agreement.doubt:
        yield examination.agreement.doubt
