"""The kinds of models that people bring, each as a tiny network with a layer, inputs and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import tiny_networks as tiny
import torch
from tiny_networks import CLASSES, IMAGES, SIZE
from torch import Tensor, nn

QUESTIONS = ("What is the network?", "What does it return?", "What does it take?")
NOTHING: Mapping[str, Any] = {}
CLS, MEAN, VALUE = {"token": "cls"}, {"token": "mean"}, {"outputs_are": "value"}
HUGGING = tiny.HUGGING
SWIN = {"image_size": SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [2]}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
TIMM_SWIN = "swin_tiny_patch4_window7_224"
WINDOWS = {"img_size": SIZE, "patch_size": 4, "window_size": 4} | {
    "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2),
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What an XNN is attached to and fitted on.

    Attributes:
        network: whatever a person calls a model.
        layer: dotted name.
        inputs: (B, ...), as a loader yields them.
        labels: what a loader yields beside them.
        batch: one batch of a loader, made of inputs and labels.
        own: the network's answer to inputs in its own words; None calls it.
    """

    network: Any
    layer: str
    inputs: Tensor = field(default_factory=tiny.images)
    labels: Tensor = field(default_factory=lambda: torch.arange(IMAGES) % CLASSES)
    batch: Callable[[Tensor, Tensor], Any] = lambda inputs, labels: (inputs, labels)
    own: Callable[[Tensor], Any] | None = None


def _of(make: Callable[..., Any], *args: Any, layer: str = "6", **settings: Any) -> Any:
    return lambda: Subject(make(*args, **settings), layer)


def _torchvision(name: str, layer: str) -> Any:
    return _of(tiny.of_torchvision, name, layer=layer)


def _timm(name: str, layer: str, **settings: Any) -> Any:
    return _of(tiny.of_timm, name, layer=layer, **settings)


def _hugging(name: str, layer: str, **settings: Any) -> Any:
    make = partial(tiny.of_transformers, name, **settings)
    return lambda: Subject(make(), layer, batch=tiny.hugging_batch)


def _after(function: Callable[[Tensor], Any]) -> Any:
    return lambda: Subject(tiny.Around(tiny.small(), function).eval(), "network.6")


def _labelled(labels: Callable[[], Tensor], outputs: int = CLASSES, flat: bool = False) -> Any:
    def make() -> Subject:
        network = tiny.small(3, outputs)
        whole = tiny.Around(network, tiny.flat).eval() if flat else network
        return Subject(whole, "network.6" if flat else "6", labels=labels())

    return make


def _given(make: Callable[[], Any], inputs: Callable[[], Tensor], layer: str = "6") -> Any:
    return lambda: Subject(make(), layer, inputs())


def _cast(dtype: torch.dtype) -> Subject:
    network = tiny.small().to(dtype)
    return Subject(network, "6", own=lambda inputs: network(inputs.to(dtype)))


def _from_loader(batch: Callable[[Tensor, Tensor], Any]) -> Any:
    return lambda: Subject(tiny.small(), "6", batch=batch)


def _multi_hot() -> Tensor:
    return (torch.rand(IMAGES, CLASSES) < 0.5).float()


def _values() -> Tensor:
    return 1 + torch.rand(IMAGES)


def _of_volumes() -> nn.Module:
    return tiny.small(1, conv=nn.Conv3d)


def _ids() -> Tensor:
    return torch.randint(9, (IMAGES, 6))


def _two() -> Tensor:
    return torch.arange(IMAGES) % 2


@dataclass(frozen=True)
class Kind:
    """A row of the page.

    Attributes:
        make: the network and its data.
        since: the version from which on this happens.
        options: further arguments of `XNN`.
        target: the output that is explained.
        question: that it answers.
        name: of the kind, in words of those who have it.
    """

    make: Callable[[], Subject]
    since: str
    options: Mapping[str, Any] = field(default_factory=dict)
    target: int = 1
    question: str = ""
    name: str = ""


def _old(make: Callable[[], Subject], options: Any = NOTHING, target: int = 1) -> Kind:
    return Kind(make, "0.1.0", options, target)


def _new(make: Callable[[], Subject], options: Any = NOTHING, target: int = 1) -> Kind:
    return Kind(make, "0.2.0", options, target)


NETWORKS = {
    "ResNet of torchvision": _old(_torchvision("resnet", "avgpool")),
    "MobileNet of torchvision": _old(_torchvision("mobilenet", "features.18")),
    "ViT of torchvision": _new(_torchvision("vit", "encoder.layers.encoder_layer_1"), CLS),
    "Swin of torchvision": _new(_torchvision("swin", "features.3.0"), MEAN),
    "ResNet of timm": _old(_timm("test_resnet", "global_pool")),
    "EfficientNet of timm": _old(_timm("test_efficientnet", "global_pool")),
    "ConvNeXt of timm": _old(_timm("test_convnext", "head.global_pool")),
    "ViT of timm": _new(_timm("test_vit", "blocks.2", img_size=SIZE), CLS),
    "Swin of timm": _new(_timm(TIMM_SWIN, "layers.1.blocks.0", **WINDOWS), MEAN),
    "ViT of transformers": _new(_hugging("ViT", "vit.layers.1", **HUGGING), CLS),
    "Swin of transformers": _new(_hugging("Swin", "swin.encoder.layers.0.blocks.0", **SWIN), MEAN),
    "DINOv2 of transformers": _new(_hugging("Dinov2", "dinov2.encoder.layer.1", **HUGGING), CLS),
    "ConvNeXT of transformers": _new(_hugging("ConvNext", "convnext.layernorm", **STAGES)),
    "a folder of transformers, `hf:FOLDER`": _new(
        lambda: Subject(tiny.from_folder(), "vit.layers.1", batch=tiny.hugging_batch), CLS
    ),
    "CLIP with a few texts ([page](clip.md))": _old(_of(tiny.ZeroShot, layer="direction")),
    "a Lightning module": _old(_of(tiny.lightning_module, layer="model.6")),
    "your own factory that loads its weights": _old(_of(tiny.from_factory, "factory")),
    "a trainer's checkpoint, a prefix before all names": _new(_of(tiny.from_checkpoint)),
    "weights that are computed (weight norm)": _old(_of(tiny.weight_normed)),
    "home-made weights packed in whole numbers": _new(_of(tiny.Packed, layer="body.6")),
    "memory format channels last": _old(_of(tiny.channels_last)),
    "bfloat16": _new(partial(_cast, torch.bfloat16)),
    "float16": _new(partial(_cast, torch.float16)),
    "float64": _old(lambda: Subject(tiny.small().double(), "6", tiny.images().double())),
    "`DataParallel`": _old(_of(lambda: nn.DataParallel(tiny.small()))),
    "compiled as a whole (`torch.compile`)": _old(_of(tiny.compiled, "whole")),
    "compiled in part": _new(_of(tiny.compiled, "part", layer="1.6")),
    "TorchScript": _new(_of(tiny.scripted)),
    "exported (`torch.export`)": _new(_of(tiny.exported)),
    "quantised by PyTorch": _new(_of(tiny.rounded)),
    "no PyTorch network (scikit-learn, ONNX, a function)": _new(_of(lambda: tiny.noisy)),
    "dropout that is never switched off": _new(_after(tiny.noisy)),
    "batch norm without running statistics": _new(_of(tiny.of_batch)),
    "a factory with new weights at every call": _new(_of(tiny.from_factory, "forgetful_factory")),
    "a layer that runs twice in each pass": _old(_of(tiny.Twice, layer="step")),
    "a block of a transformer, no token chosen": _old(_timm("test_vit", "blocks.2", img_size=SIZE)),
}
OUTPUTS = {
    "logits (B, K)": _old(_of(tiny.small)),
    "an object with `logits`": _new(_after(tiny.wrapped)),
    "a mapping with `logits`": _new(_after(lambda logits: {"loss": None, "logits": logits})),
    "a tuple that begins with the logits": _new(_after(lambda logits: (logits, None))),
    "one logit for two classes": _old(_labelled(_two, 1), target=0),
    "one logit as (B,)": _old(_labelled(_two, 1, flat=True), target=0),
    "5,000 classes": _old(_of(tiny.small, 3, 5000)),
    "labels that do not exclude each other": _new(_labelled(_multi_hot)),
    "a value (regression)": _new(_labelled(_values, 1), VALUE, target=0),
    "log-probabilities": _new(_after(partial(torch.log_softmax, dim=1))),
    "probabilities: softmax at the end": _new(_after(partial(torch.softmax, dim=1))),
    "probabilities: sigmoid at the end": _new(_after(torch.sigmoid)),
    "NaN": _old(_after(lambda logits: logits * float("nan"))),
    "a map of classes (segmentation)": _old(_after(tiny.segmentation)),
    "classes, and labels that are no whole numbers": _new(_labelled(_values)),
    "fewer classes than there are labels": _new(_labelled(lambda: torch.arange(IMAGES) % 7)),
}
INPUTS = {
    "tensors of one channel": _old(_given(partial(tiny.small, 1), partial(tiny.images, 1))),
    "tensors of six channels": _old(_given(partial(tiny.small, 6), partial(tiny.images, 6))),
    "oblong tensors": _old(_given(tiny.small, partial(tiny.images, 3, 16, 40))),
    "a folder of grey pictures, 16 bits": _new(_given(partial(tiny.small, 1), tiny.grey_folder)),
    "a folder of arrays of six channels": _new(_given(partial(tiny.small, 6), tiny.array_folder)),
    "a folder for an oblong network": _new(_given(tiny.small, tiny.oblong_folder)),
    "volumes (B, C, D, H, W)": _new(_given(_of_volumes, partial(tiny.images, 1, 8, 8, 6))),
    "a folder of volumes, arrays (D, H, W)": _new(_given(_of_volumes, tiny.volume_folder)),
    "a folder of volumes, pages of TIFF files": _new(
        _given(_of_volumes, partial(tiny.volume_folder, ".tif"))
    ),
    "batches as mappings, `pixel_values` and `labels`": _new(_from_loader(tiny.hugging_batch)),
    "batches with further entries": _old(_from_loader(lambda x, y: (x, y, ["a.png"] * len(x)))),
    "batches without labels": _old(_from_loader(lambda inputs, labels: inputs)),
    "an image and a row of metadata, by a wrapper": _old(_of(tiny.WithMetadata, layer="head")),
    "token ids, LSTM ([page](texts_and_tables.md))": _old(
        _given(partial(tiny.Text, True), _ids, "head.1")
    ),
    "token ids, attention": _old(_given(lambda: tiny.Text(False).eval(), _ids, "head.1")),
    "rows of a table": _old(_given(tiny.of_rows, partial(torch.randn, IMAGES, 7), "3")),
    "images with NaN": _old(_given(tiny.small, lambda: tiny.images() * float("nan"))),
    "another number of channels than the network's": _new(
        _given(tiny.small, partial(tiny.images, 4))
    ),
}
KINDS = tuple(
    replace(kind, question=question, name=name)
    for question, kinds in zip(QUESTIONS, (NETWORKS, OUTPUTS, INPUTS), strict=True)
    for name, kind in kinds.items()
)
