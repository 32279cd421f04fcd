"""How often maps start work on a GPU and wait for it, counted on a CPU: no GPU is needed.

    python perf/attribution_launches.py --networks vit_b_16 resnet50

*Launches* are operations that PyTorch dispatches and that start work on a GPU: no views, no bare
allocations. *Read back* is what Python waits for: numbers, lists, copies to the main memory, and
results whose size depends on values. Both are the same in every run; what a GPU makes of them is
not measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
import tyro
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from torchxnn.attribution import ExcitationBackprop

READ_BACK = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2")

COPIED = ("tolist", "cpu")

NO_LAUNCH = ("_local_scalar_dense", "empty", "empty_like", "empty_strided", "new_empty", "detach",
             "alias", "_unsafe_view", "lift_fresh")  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings of the count."""

    networks: tuple[str, ...] = ("vit_b_16", "convnext_tiny", "resnet50", "vgg16")
    """names in torchvision; random weights"""
    images: int = 1
    maps: int = 1
    """how many targets: outputs 0, 1, ..."""
    size: int = 224


class Launches(TorchDispatchMode):
    """Counts what is dispatched: launches, and results read back."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.read_back = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count one operation, and run it."""
        name = func._schema.name.split("::")[-1]
        self.read_back += name in READ_BACK or (name == "index" and _has_mask(args[1]))
        self.launches += name not in NO_LAUNCH and not func.is_view
        return func(*args, **(kwargs or {}))


def _has_mask(indices: list[Tensor | None]) -> bool:
    return any(each is not None and each.dtype == torch.bool for each in indices)


class Copies(TorchFunctionMode):
    """Counts what is copied to the main memory, which is not dispatched where it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count one call, and do it."""
        name = getattr(func, "__name__", "")
        places = [*args[1:], (kwargs or {}).get("device")]
        moved = name == "to" and any(str(place) == "cpu" for place in places)
        self.copies += moved or name in COPIED
        return func(*args, **(kwargs or {}))


def count(work: Callable[[], Any]) -> tuple[int, int]:
    """Launches and what is read back, each in a run of its own.

    Only the second has a function mode, in which PyTorch leaves the fused kernels of attention.
    """
    launches, waits, copies = Launches(), Launches(), Copies()
    with launches:
        work()
    with copies, waits:
        work()
    return launches.launches, waits.read_back + copies.copies


def main() -> None:
    """Print one table."""
    settings = tyro.cli(Settings)
    print(f"{settings.images} image(s), {settings.maps} contrastive map(s) each\n")
    print(
        "| network | launches | read back | certified: launches | read back |\n" + "|---" * 5 + "|"
    )
    targets = list(range(settings.maps))
    for name in settings.networks:
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
        last = [each for each in network.modules() if isinstance(each, nn.Linear)]
        nn.init.normal_(last[-1].weight, std=0.02)  # torchvision's ViT begins with 0
        images = torch.randn(settings.images, 3, settings.size, settings.size)
        method = ExcitationBackprop(network)
        plain = count(lambda: method.attribute_many(images, targets))  # noqa: B023
        certified = count(lambda: method.attribute_many(images, targets, True))  # noqa: B023
        figures = " | ".join(f"{each:,}" for each in (*plain, *certified))
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
