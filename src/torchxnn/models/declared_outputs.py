"""What a network says of its own outputs, as those of transformers do in `config.problem_type`."""

from __future__ import annotations

import warnings
from dataclasses import replace

from torch import nn

from torchxnn.errors import XNNWarning
from torchxnn.models.config import OutputKind, OutputsConfig
from torchxnn.models.layers import unwrap

_KINDS: dict[str, OutputKind] = {"multi_label_classification": "labels", "regression": "value"}


def declared_outputs(said: OutputsConfig, model: nn.Module) -> OutputsConfig:
    """What the user says of the outputs, or else what the network says; both may say nothing."""
    found = _problem_type(model)
    if said.kind is not None or found not in _KINDS:
        return said
    return replace(said, outputs_are=_KINDS[found])


def say_declared(said: OutputsConfig, model: nn.Module) -> None:
    """Warn if what the network says of its outputs is taken, since the user says nothing."""
    taken = declared_outputs(said, model)
    if taken != said:
        warnings.warn(
            f"the network's config.problem_type is {_problem_type(model)!r}, so its outputs count "
            f"as outputs_are={taken.outputs_are!r}; say something else (outputs_are=, "
            "--outputs-are) if they are not",
            XNNWarning,
            stacklevel=3,
        )


def _problem_type(model: nn.Module) -> str:
    return str(getattr(getattr(unwrap(model), "config", None), "problem_type", None))
