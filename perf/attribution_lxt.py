"""Maps of a ViT beside AttnLRP of LXT (Achtibat et al., 2024): time, launches and agreement.

    pip install lxt transformers
    python perf/attribution_lxt.py --batches 1 4

Both run in one process, in turns. What counts as a launch and as read back is said in
`attribution_launches.py`.
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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
import tyro
from attribution_launches import count
from torch import Tensor, nn

from torchxnn.attribution import ExcitationBackprop

PATCHED = (nn.GELU, nn.LayerNorm, nn.MultiheadAttention)


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    batches: tuple[int, ...] = (1,)
    """how many images at once"""
    rounds: int = 5
    threads: int = 2


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


@dataclass(frozen=True)
class Contender:
    """A row of the table."""

    name: str
    work: Callable[[], Any]
    within: Callable[[], AbstractContextManager[None]] = nullcontext


def compare(contenders: list[Contender], rounds: int) -> None:
    """Print seconds (median and range over rounds after one that warms up), ratios and launches."""
    seconds: dict[str, list[float]] = {each.name: [] for each in contenders}
    counted: dict[str, tuple[int, int]] = {}
    for number in range(rounds + 1):
        for each in contenders:
            with each.within():
                if number == 0:
                    counted[each.name] = count(each.work)
                start = time.perf_counter()
                each.work()
                if number:
                    seconds[each.name].append(time.perf_counter() - start)
    last = statistics.median(seconds[contenders[-1].name])
    print(f"| | s | / {contenders[-1].name} | launches | read back |\n|---|---|---|---|---|")
    for name, found in seconds.items():
        middle, (launches, waits) = statistics.median(found), counted[name]
        spread = f"{middle:.3f} ({min(found):.3f} to {max(found):.3f})"
        print(f"| {name} | {spread} | {middle / last:.2f} | {launches:,} | {waits:,} |")


def agreement(rules: dict[type[nn.Module], Callable[[type], bool]]) -> float:
    """Largest difference over the largest value where both rules are the same, in float64."""
    block, tokens = Positive().double().eval(), torch.rand(1, 8, 3, 4).double()
    mine = ExcitationBackprop(block, contrastive=False).attribute(tokens, 1)
    with patched(rules):
        theirs = gradient_times_input(block, tokens, 1)
    return float((mine - theirs / theirs.sum()).abs().max() / mine.max())


def main() -> None:
    """Print both parts."""
    settings = tyro.cli(Settings)
    try:
        from lxt.efficient.models.vit_torch import cp_LRP as rules
    except ImportError as error:
        sys.exit(f"skipped: LXT cannot be imported ({error}); pip install lxt transformers")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    model = torchvision.models.vit_b_16().eval().requires_grad_(False)
    nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision begins with 0
    marginal, ours = ExcitationBackprop(model, contrastive=False), ExcitationBackprop(model)
    for batch in settings.batches:
        images = torch.randn(batch, 3, 224, 224)
        print(f"\nViT-B/16, {batch} image(s), 1 map each\n")
        compare(
            [
                Contender("forward pass", torch.no_grad()(lambda x=images: model(x))),
                Contender("gradient", lambda x=images: gradient_times_input(model, x, 0)),
                Contender("ours, marginal", lambda x=images: marginal.attribute(x, 0)),
                Contender("ours, contrastive", lambda x=images: ours.attribute(x, 0)),
                Contender(
                    "LXT",
                    lambda x=images: gradient_times_input(model, x, 0),
                    lambda: patched(rules),
                ),
            ],
            settings.rounds,
        )
    print(f"\nall positive: largest difference over the largest value {agreement(rules):.1e}")


if __name__ == "__main__":
    main()
