"""Conservation on random networks and on the zoos of torchvision and timm."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from torchxnn.attribution import Certificate, ExcitationBackprop
from torchxnn.errors import AttributionWarning

STAGES = (
    "conv", "depthwise", "bn", "ln", "relu", "relu_", "gelu", "silu", "leaky", "hardswish",
    "max", "avg", "residual", "residual_", "dense", "gate", "scale", "split", "slice_add_",
    "attention", "token", "pad", "shuffle", "roll",
)  # fmt: skip
ACTIVATIONS = {
    "relu": F.relu,
    "relu_": lambda x: F.relu(x, inplace=True),
    "gelu": F.gelu,
    "silu": lambda x: F.silu(x, inplace=True),
    "leaky": F.leaky_relu,
    "hardswish": F.hardswish,
}


class RandomNet(nn.Module):
    """A chain of stages on 4 channels; every stage keeps the number of channels."""

    def __init__(self, stages: list[str], seed: int) -> None:
        super().__init__()
        self.stages = stages
        self.layers = nn.ModuleList()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)
        for stage in stages:
            self.layers.append(self._layer(stage))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        for name, buffer in self.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
                if name.endswith("var"):
                    buffer.abs_().add_(0.1)

    @staticmethod
    def _layer(stage: str) -> nn.Module:
        if stage in ("conv", "residual", "residual_", "dense", "slice_add_"):
            return nn.Conv2d(4, 4, 3, padding=1)
        if stage == "depthwise":
            return nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        if stage == "bn":
            return nn.BatchNorm2d(4)
        if stage == "ln":
            return nn.LayerNorm(4)
        if stage in ("gate", "scale"):
            return nn.Conv2d(4, 4, 1)
        if stage in ("attention", "token"):
            return nn.MultiheadAttention(4, 2, batch_first=True)
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage, layer in zip(self.stages, self.layers, strict=True):
            x = ACTIVATIONS[stage](x) if stage in ACTIVATIONS else self._run(stage, layer, x)
        return self.head(x.mean((2, 3)))

    @staticmethod
    def _run(stage: str, layer: nn.Module, x: Tensor) -> Tensor:
        size = x.shape[-1]
        if stage in ("max", "avg"):
            pool = F.max_pool2d if stage == "max" else F.avg_pool2d
            return pool(x, 2, 1, 1) if size < 9 else pool(x, 3, 2)
        if stage == "residual":
            return x + layer(x)
        if stage == "residual_":
            y = layer(x)
            y += x
            return y
        if stage == "slice_add_":
            y = layer(x)
            y[:, 1:3] += x[:, 1:3]
            return y
        if stage == "dense":
            return torch.cat([x, layer(x)], 1)[:, ::2]
        if stage == "gate":
            return x * torch.sigmoid(layer(x.mean((2, 3), keepdim=True)))
        if stage == "scale":
            return 0.5 - x * layer.bias[:, None, None] / 2
        if stage == "split":
            a, b = x.chunk(2, 1)
            return torch.cat([b.tanh(), a], 1)
        if stage == "ln":
            return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if stage in ("attention", "token"):
            tokens = x.flatten(2).transpose(1, 2)
            if stage == "token":
                tokens = torch.cat([layer.in_proj_bias[:4].expand(len(x), 1, 4), tokens], 1)
            tokens = tokens + layer(tokens, tokens, tokens, need_weights=False)[0]
            return tokens[:, -size * size :].transpose(1, 2).unflatten(2, (size, size))
        if stage == "pad":
            return F.pad(x, (1, 0, 0, 1), value=1.0)[:, :, 1:, :-1]
        if stage == "shuffle":
            return F.channel_shuffle(x, 2)
        if stage == "roll":
            return x.roll((1, 2), (2, 3))
        return layer(x)


def certified(
    method: ExcitationBackprop, images: Tensor, targets: list[int]
) -> tuple[Tensor, Certificate]:
    """Maps and certificate; random weights may well have a large fallback share."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*their biases decided", AttributionWarning)
        return method.attribute_many(images, targets, return_certificate=True)


@settings(max_examples=40)
@given(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=7), seed=st.integers(0, 2**16))
def test_random_networks_conserve_relevance(stages, seed):
    module = RandomNet(stages, seed).double().eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    method = ExcitationBackprop(module, contrastive=False)
    marginal, certificate = certified(method, images, [0, 1])
    assert certificate.conservation_error < 1e-10
    assert float(marginal.min()) >= 0
    torch.testing.assert_close(marginal.sum((2, 3)), torch.ones(2, 2).double())
    contrast, certificate = certified(ExcitationBackprop(module), images, [0, 1])
    assert certificate.conservation_error < 1e-10
    torch.testing.assert_close(contrast.sum((2, 3)), torch.zeros(2, 2).double(), rtol=0, atol=1e-9)
    assert 0 <= certificate.fallback_share <= 1


@settings(max_examples=15)
@given(stages=st.lists(st.sampled_from(STAGES), min_size=1, max_size=5), seed=st.integers(0, 2**16))
def test_one_signed_map_equals_the_difference_of_two(stages, seed):
    module = RandomNet(stages, seed).double().eval()
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    method = ExcitationBackprop(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*their biases decided", AttributionWarning)
        signed = method.attribute(images, 0)
        difference, _ = method.attribute(images, 0, return_certificate=True)
    torch.testing.assert_close(signed, difference, rtol=1e-8, atol=1e-12)


def build(name: str) -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm")
        module = timm.create_model(name[5:], pretrained=False)
        size = module.default_cfg["input_size"][-1]
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        module = torchvision.models.get_model(name, weights=None, **options)
        size = 299 if name == "inception_v3" else 224
    for parameter in module.parameters():  # heads that start at zero would explain nothing
        if parameter.ndim > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return module, size


@pytest.mark.parametrize("name", ["squeezenet1_1", "vgg11", "resnet18"])
def test_torchvision_sums(name):
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None, num_classes=5)
    images = torch.randn(2, 3, 64, 64)
    maps = ExcitationBackprop(module, contrastive=False).attribute_many(images, [1, 3])
    assert float((maps.sum((2, 3)) - 1).abs().max()) < 1e-4
    assert float(maps.min()) >= 0
    maps = ExcitationBackprop(module).attribute(images, 1)
    assert float(maps.sum((1, 2)).abs().max()) < 1e-4


ZOO = (
    "vgg11", "resnet18", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3",
    "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
    "regnet_y_400mf", "shufflenet_v2_x1_0", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t",
    "efficientnet_v2_s", "mnasnet0_5", "alexnet",
    "timm:deit_tiny_patch16_224", "timm:deit_tiny_distilled_patch16_224", "timm:resnet18",
    "timm:vit_tiny_patch16_224", "timm:efficientnet_b0", "timm:convnextv2_atto",
    "timm:mobilenetv3_small_050", "timm:regnety_002", "timm:resnetv2_50", "timm:densenet121",
    "timm:swin_tiny_patch4_window7_224", "timm:levit_128s", "timm:xcit_nano_12_p16_224",
    "timm:poolformer_s12", "timm:mixer_s32_224", "timm:hrnet_w18_small", "timm:coatnet_pico_rw_224",
    "timm:mobilevit_xxs", "timm:pit_ti_224", "timm:edgenext_xx_small", "timm:repvgg_a0",
    "timm:eva02_tiny_patch14_224",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ZOO)
def test_zoo_conserves_relevance(name):
    module, size = build(name)
    images = torch.randn(1, 3, size, size)
    method = ExcitationBackprop(module)
    maps, certificate = certified(method, images, [1])
    assert certificate.conservation_error < 1e-3
    assert bool(torch.isfinite(maps).all())
    assert bool(maps.any())
