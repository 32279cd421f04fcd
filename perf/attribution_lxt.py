"""Maps of a ViT beside AttnLRP of LXT (Achtibat et al., 2024), in one process: time and agreement.

    pip install lxt transformers
    python perf/attribution_lxt.py

LXT (BSD) is not a dependency; without it the script says so and ends. It takes attribution as
gradient x input of a network whose GELU, LayerNorm and attention are patched (its map for
torchvision's ViT, without gamma in the linear layers), so it costs about one backward pass. Its
linear layers share signed contributions, ours share those that agree with a unit's sign: maps of a
ViT differ by design. Where all weights and activations are positive both rules are the same, which
the second part checks in float64.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from torchxnn.attribution import ExcitationBackprop

ROUNDS, THREADS = 5, 2
PATCHED = (nn.GELU, nn.LayerNorm, nn.MultiheadAttention)


@contextmanager
def patched(rules: dict[type[nn.Module], Callable[[type], bool]]) -> Iterator[None]:
    """LXT's forward passes in place of PyTorch's, whose classes are as before afterwards."""
    before = [(kind, kind.forward) for kind in PATCHED]
    try:
        for kind, patch in rules.items():
            patch(kind)
        yield
    finally:
        for kind, forward in before:
            kind.forward = forward  # type: ignore[method-assign]
            if "original_forward" in vars(kind):
                del kind.original_forward


def gradient_times_input(model: nn.Module, images: Tensor, target: int) -> Tensor:
    """LXT's attribution, summed over colour channels."""
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
    return (gradient * leaf).detach().sum(1)


class Positive(nn.Module):
    """Tokens, attention and two layers without biases, all weights positive."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(8, 16, bias=False), nn.GELU())
        self.head = nn.Linear(16, 3, bias=False)
        for parameter in self.parameters():
            parameter.data.abs_()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 8, H, W) as H x W tokens to 3 outputs."""
        tokens = images.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(self.layers(mixed).mean(1))


def timed(work: Callable[[], Any]) -> str:
    """Seconds of some runs after one that warms up: median and range."""
    found = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    last = found[1:]
    return f"{statistics.median(last):.3f} ({min(last):.3f} to {max(last):.3f})"


def main() -> None:
    """Print both parts."""
    try:
        from lxt.efficient.models.vit_torch import cp_LRP as rules
    except ImportError as error:
        sys.exit(f"skipped: LXT cannot be imported ({error}); pip install lxt transformers")
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = torchvision.models.vit_b_16().eval().requires_grad_(False)
    nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision begins with 0
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        print("| ViT-B/16, 1 image, 1 map | s |\n|---|---|")
        print(f"| forward pass | {timed(lambda: model(images))} |")
    print(f"| gradient | {timed(lambda: gradient_times_input(model, images, 0))} |")
    ours = ExcitationBackprop(model)
    print(f"| ours, contrastive | {timed(lambda: ours.attribute(images, 0))} |")
    with patched(rules):
        print(f"| LXT | {timed(lambda: gradient_times_input(model, images, 0))} |")

    block, tokens = Positive().double().eval(), torch.rand(1, 8, 3, 4).double()
    mine = ExcitationBackprop(block, contrastive=False).attribute(tokens, 1)
    with patched(rules):
        theirs = gradient_times_input(block, tokens, 1)
    theirs = theirs / theirs.sum()
    gap = float((mine - theirs).abs().max() / mine.max())
    print(f"\nall positive: largest difference over the largest value {gap:.1e}")


if __name__ == "__main__":
    main()
