"""Does a heatmap depend on the weights? Destroy them layer by layer and see (sanity check).

Source: Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018. A method whose maps survive
the destruction draws the picture, not the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import ModelError
from torchxnn.models.compiled import named_modules
from torchxnn.models.hooks import run_watched, watch_output
from torchxnn.models.layers import unwrap

Draw = Callable[[nn.Module], Tensor]
"""Draws maps (B, n, H, W) of a module; the images and targets are its own affair."""


@dataclass(frozen=True, eq=False)
class RandomizedStep:
    """The maps after one more layer was destroyed.

    Attributes:
        layer: the layer that was destroyed last; all above it were before. "" for the trained
            model.
        correlation: mean Spearman correlation of the maps with those of the trained model, 1 for
            the trained model, about 0 for maps that depend on the weights.
        maps: (B, n, H, W).
    """

    layer: str
    correlation: float
    maps: Float[Tensor, "batch targets *map"]


def layers_from_the_top(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules that hold parameters themselves, the last to run first.

    Modules that do not run, or run through functional calls only, come last, in reverse order of
    registration.
    """
    inner = unwrap(model)
    named = {
        name: module
        for name, module in named_modules(inner).items()
        if any(True for _ in module.parameters(recurse=False))
    }
    ran: list[str] = []

    def note(name: str, _: object) -> None:
        ran.append(name)

    with torch.no_grad():
        watches = [watch_output(module, partial(note, name)) for name, module in named.items()]
        run_watched(inner, images, watches)
    last_run = list(dict.fromkeys(reversed(ran)))
    return last_run + [name for name in reversed(named) if name not in set(last_run)]


def randomize(module: nn.Module, generator: torch.Generator) -> None:
    """Replace a module's own parameters by normal numbers of the same mean and spread."""
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            values = parameter.float()
            spread = values.std(correction=0) if values.numel() > 1 else values.abs().mean()
            noise = torch.randn(values.shape, generator=generator).to(values.device)
            parameter.copy_(noise * spread + values.mean())


def randomize_from_the_top(
    model: nn.Module,
    images: Float[Tensor, "batch *image"],
    draw: Draw,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> Iterator[RandomizedStep]:
    """Draw the maps of a model whose layers are destroyed one after the other, from the top.

    Works on a copy; the model is untouched.

    Args:
        model: trained.
        images: used to find the order in which layers run.
        draw: draws the maps of the (copied) model.
        layers: layers to destroy, in this order; None takes all, the last to run first.
        seed: of the random weights.

    Yields:
        First the trained model's maps, then one step per layer.

    Raises:
        ModelError: no layer has parameters.
    """
    broken = copy.deepcopy(unwrap(model))
    order = list(layers) if layers is not None else layers_from_the_top(broken, images)
    if not order:
        raise ModelError(f"{type(broken).__name__} has no parameters to destroy")
    generator = torch.Generator().manual_seed(seed)
    trained = draw(broken)
    yield RandomizedStep("", 1.0, trained)
    modules = named_modules(broken)
    for name in order:
        randomize(modules[name], generator)
        maps = draw(broken)
        yield RandomizedStep(name, mean_rank_correlation(trained, maps), maps)


def mean_rank_correlation(
    first: Float[Tensor, "batch targets *map"], second: Float[Tensor, "batch targets *map"]
) -> float:
    """Mean over images and targets of Spearman's rank correlation of two maps, ties averaged.

    A map that is constant has no ranks and counts as 0.
    """
    from scipy.stats import spearmanr

    pairs = zip(first.flatten(0, 1), second.flatten(0, 1), strict=True)
    values = []
    for a, b in pairs:
        constant = bool((a == a.flatten()[0]).all()) or bool((b == b.flatten()[0]).all())
        rho = 0.0 if constant else spearmanr(a.flatten().cpu(), b.flatten().cpu()).statistic
        values.append(float(rho))
    return sum(values) / len(values)
