"""Agreement of excitation backprop with TorchRay and zennit on networks where those are right.

    python perf/attribution_agreement.py --json agreement.json

Random weights, float64, one process. TorchRay (CC-BY-NC) and zennit (LGPL) are not dependencies:
install them yourself; what is missing is null. The figure is the largest absolute difference of two
maps divided by the largest value of ours.

Batch normalisations are folded for the others in the rows that say so (ours folds by itself, and is
given the unfolded network). A residual sum is a unit with two inputs: where one summand disagrees
with the sign of the sum, ours gives it nothing, the others a negative share. "positive summands"
shifts the residual branches so that this does not happen. In a DenseNet the batch normalisations
that read a concatenation cannot be folded and relevance passes them (zennit's `Pass`; TorchRay has
no such rule). A layer's new channels may be negative there and become positive only by the shift of
that normalisation: ours then shares the unit's relevance among the inputs that made it negative,
zennit among those that spoke against. "positive features" takes the weights of these layers by
magnitude, and those of the first layer with images >= 0, so that there are no negative channels.
"""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchvision
import tyro
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from torchxnn.attribution import ExcitationBackprop
from torchxnn.storage.files import replace_file


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    json: Path | None = None
    """file for the figures"""
    size: int = 96
    batch: int = 2


def with_statistics(model: nn.Module) -> nn.Module:
    """Give batch normalisations statistics and scales as a trained network has them."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.1, 0.1),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return model


def folded(model: nn.Module) -> nn.Module:
    """A copy whose batch normalisations are folded into the convolutions before them."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        children = list(module.named_children())
        for (name, first), (other, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(first, second))
                setattr(module, other, nn.Identity())
    return copied


def with_positive_summands(model: nn.Module) -> nn.Module:
    """Shift the ends of the residual branches, so that both summands are positive."""
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.BasicBlock):
            ends = [block.bn2] + ([] if block.downsample is None else [block.downsample[1]])
            for norm in ends:
                norm.weight.data.mul_(1e-3)
                norm.bias.data.fill_(1)
    return model


def with_positive_features(model: nn.Module) -> nn.Module:
    """Let the layers that add channels to a DenseNet have weights >= 0, hence channels >= 0."""
    for name, module in model.named_modules():
        added = name.endswith(("conv0", "conv2")) or "transition" in name
        if isinstance(module, nn.Conv2d) and added:
            module.weight.data.abs_().mul_(0.3)
        if name.endswith("norm0"):
            module.running_mean.zero_()
            module.bias.data.abs_()
    return model


class AsModules(nn.Module):
    """A torchvision DenseNet whose functional steps are modules, which zennit's rules need."""

    def __init__(self, model: torchvision.models.DenseNet) -> None:
        super().__init__()
        self.features, self.classifier = model.features, model.classifier
        self.end = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.end(self.features(images)))


def ours(model: nn.Module, images: Tensor, target: int, **settings: Any) -> Tensor:
    """The map of one target."""
    return ExcitationBackprop(model, **settings).attribute(images, target)


def by_zennit(model: nn.Module, images: Tensor, target: int, outputs: int) -> Tensor | None:
    """Marginal map down to the pixels, with the canonizer of the architecture."""
    try:
        from zennit.attribution import Gradient
        from zennit.canonizers import SequentialMergeBatchNorm
        from zennit.composites import ExcitationBackprop as Composite
        from zennit.composites import LayerMapComposite
        from zennit.rules import Norm, Pass, ZPlus
        from zennit.torchvision import ResNetCanonizer
    except ImportError:
        return None
    resnet = isinstance(model, torchvision.models.ResNet)
    canonizer = ResNetCanonizer() if resnet else SequentialMergeBatchNorm()
    composite = Composite(stabilizer=1e-30, zero_params=["bias"], canonizers=[canonizer])
    if isinstance(model, torchvision.models.DenseNet):
        model = AsModules(model)
        plus = ZPlus(stabilizer=1e-30, zero_params=["bias"])
        rules = [
            ((nn.BatchNorm2d, nn.ReLU), Pass()),
            ((nn.AvgPool2d, nn.AdaptiveAvgPool2d), Norm(stabilizer=1e-30)),
            ((nn.Conv2d, nn.Linear), plus),
        ]
        composite = LayerMapComposite(layer_map=rules)
    seed = torch.eye(outputs, dtype=images.dtype)[[target] * len(images)]
    with Gradient(model=model, composite=composite) as attributor:
        _, relevance = attributor(images.clone(), seed)
    return relevance.sum(1).detach()


def by_torchray(
    model: nn.Module, images: Tensor, target: int, layer: str, contrast: str, classifier: str
) -> tuple[Tensor, Tensor] | None:
    """Marginal and contrastive map at a layer."""
    try:
        from torchray.attribution.excitation_backprop import (
            contrastive_excitation_backprop,
            excitation_backprop,
            update_resnet,
        )
    except ImportError:
        return None
    if isinstance(model, torchvision.models.ResNet):
        model = update_resnet(model)
    marginal = excitation_backprop(model, images, target, saliency_layer=layer)[:, 0]
    dual = contrastive_excitation_backprop(
        model,
        images,
        target,
        saliency_layer=layer,
        contrast_layer=contrast,
        classifier_layer=classifier,
    )[:, 0]
    return marginal.detach(), dual.detach()


def difference(mine: Tensor, other: Tensor | None) -> float | None:
    """Largest difference relative to our largest value."""
    return None if other is None else float((mine - other).abs().max() / mine.abs().max())


def main() -> None:
    """Compare and print."""
    settings = tyro.cli(Settings)
    warnings.simplefilter("ignore")
    rows: dict[str, dict[str, Any]] = {}
    vgg, resnet = ("features.10", "classifier.4", "classifier.6"), ("layer3", "avgpool", "fc")
    cases = {
        "vgg11": ("vgg11", vgg),
        "vgg11_bn, folded": ("vgg11_bn", None),
        "resnet18, folded": ("resnet18", resnet),
        "resnet18, folded, positive summands": ("resnet18", resnet),
        "densenet121, folded": ("densenet121", None),
        "densenet121, folded, positive features": ("densenet121", None),
    }
    for name, (builder, layers) in cases.items():
        torch.manual_seed(0)
        model = getattr(torchvision.models, builder)(weights=None, num_classes=10)
        model = with_statistics(model).eval().double()
        if "positive summands" in name:
            model = with_positive_summands(model)
        if "positive features" in name:
            model = with_positive_features(model)
        theirs = folded(model) if "folded" in name else model
        shape = (settings.batch, 3, settings.size, settings.size)
        images = torch.randn(shape, dtype=torch.float64)
        images = images.abs() if "positive features" in name else images
        row: dict[str, Any] = {}
        marginal = ours(model, images, 3, contrastive=False)
        other = by_zennit(copy.deepcopy(theirs), images, 3, 10)
        row["zennit_pixels"] = difference(marginal, other)
        row["zennit_sum"] = None if other is None else float(other.sum((1, 2)).mean())
        row["our_sum"] = float(marginal.sum((1, 2)).mean())
        if layers is not None:
            found = by_torchray(copy.deepcopy(theirs), images, 3, *layers)
            stop = layers[0]
            if found is not None:
                at_layer = ours(model, images, 3, contrastive=False, stop_at=stop)
                contrast = ours(model, images, 3, stop_at=stop).clamp(min=0)
                row["torchray_layer"] = difference(at_layer, found[0])
                row["torchray_contrastive"] = difference(contrast, found[1].clamp(min=0))
                row["torchray_sum"] = float(found[0].sum((1, 2)).mean())
        rows[name] = row
        print(name, {key: f"{value:.2e}" for key, value in row.items() if value is not None})
    if settings.json is not None:
        replace_file(settings.json, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
