"""Conservation and cost of excitation backprop over the networks of torchvision and timm.

    python perf/attribution_zoo.py --out DIR

Random weights, one image, one contrastive map, one process. "map" is the time of one map over the
time of one forward pass; a network that is refused is printed as such. Writes `zoo.json` and
`zoo.md`.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
import tyro
from rich.console import Console
from torch import nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.errors import XNNError
from torchxnn.storage.files import replace_file

NETWORKS = (
    "alexnet", "vgg11", "resnet18", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3",
    "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0",
    "efficientnet_v2_s", "convnext_tiny", "regnet_y_400mf", "shufflenet_v2_x1_0", "vit_b_16",
    "swin_t", "swin_v2_t", "maxvit_t",
    "timm:resnet18", "timm:resnetv2_50", "timm:densenet121", "timm:efficientnet_b0",
    "timm:mobilenetv3_small_050", "timm:regnety_002", "timm:repvgg_a0", "timm:hrnet_w18_small",
    "timm:convnextv2_atto", "timm:vit_tiny_patch16_224", "timm:deit_tiny_patch16_224",
    "timm:deit_tiny_distilled_patch16_224", "timm:swin_tiny_patch4_window7_224",
    "timm:levit_128s", "timm:xcit_nano_12_p16_224", "timm:poolformer_s12", "timm:mixer_s32_224",
    "timm:coatnet_pico_rw_224", "timm:mobilevit_xxs", "timm:pit_ti_224",
    "timm:edgenext_xx_small", "timm:eva02_tiny_patch14_224", "timm:gmlp_s16_224",
)  # fmt: skip
CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    out: Path
    """folder for JSON and table"""
    rounds: int = 3
    threads: int = 2


def build(name: str) -> tuple[nn.Module, int]:
    """The network with random weights, and its input size."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        model = timm.create_model(name.removeprefix("timm:"), pretrained=False)
        size = model.default_cfg["input_size"][-1]
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        size = 299 if name == "inception_v3" else 224
    for parameter in model.parameters():  # a head that starts at zero has nothing to explain
        if parameter.ndim > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return model.eval(), size


def median(run: Callable[[], Any], rounds: int) -> float:
    """Median seconds after one warm-up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One row."""
    model, size = build(name)
    images = torch.randn(1, 3, size, size)
    method = ExcitationBackprop(model)
    try:
        _, certificate = method.attribute(images, 1, return_certificate=True)
    except XNNError as error:
        return {"refused": str(error)}
    with torch.no_grad():
        forward = median(lambda: model(images), rounds)
    return {
        "conservation_error": certificate.conservation_error,
        "fallback_share": certificate.fallback_share,
        "forward_seconds": forward,
        "map_seconds": median(lambda: method.attribute(images, 1), rounds),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [
        "| network | conservation error | fallback share | forward, s | map, s | map / forward |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "refused" in row:
            lines.append(f"| {name} | refused: {row['refused']} | | | | |")
            continue
        ratio = row["map_seconds"] / row["forward_seconds"]
        lines.append(
            f"| {name} | {row['conservation_error']:.1e} | {row['fallback_share']:.2%} |"
            f" {row['forward_seconds']:.3f} | {row['map_seconds']:.2f} | {ratio:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all networks, writing after each."""
    settings = tyro.cli(Settings)
    warnings.simplefilter("ignore")
    torch.set_num_threads(settings.threads)
    rows: dict[str, dict[str, Any]] = {}
    for name in NETWORKS:
        CONSOLE.print(f"{name} ...")
        rows[name] = measure(name, settings.rounds)
        replace_file(settings.out / "zoo.json", json.dumps(rows, indent=1).encode())
        replace_file(settings.out / "zoo.md", table(rows).encode())
    print(table(rows))


if __name__ == "__main__":
    main()
