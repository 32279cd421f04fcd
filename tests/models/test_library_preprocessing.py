"""Our tensors of a picture are those of the libraries' own transforms."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torchvision import models as vision

from torchxnn.errors import ModelError, XNNWarning
from torchxnn.models.from_timm import find_timm, own_preprocessing
from torchxnn.models.from_torchvision import find_torchvision
from torchxnn.models.load import load_model

TIMM = {
    "resnet10t": (176, "crop"),
    "resnet18": (224, "crop"),
    "inception_v3": (299, "crop"),
    "vit_tiny_patch16_384": (384, "crop"),  # crop_pct 1.0
    "dm_nfnet_f0": (192, "squash"),  # crop_pct 0.9
    "vit_base_patch16_siglip_224": (224, "crop"),
}
VISION = ["resnet18", "inception_v3", "efficientnet_b1", "vit_b_16", "swin_t"]


@pytest.fixture(params=[(501, 333), (300, 425), (400, 400)], ids=str)
def picture(request):
    width, height = request.param
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, picture):
    ours = find_timm(f"timm:{name}").preprocessing
    assert (ours.size, ours.resize) == TIMM[name]
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    assert torch.allclose(ours(picture), create_transform(**config)(picture), atol=1e-5)


@pytest.mark.parametrize("name", VISION)
def test_torchvision(name, picture):
    weights = next(iter(vision.get_model_weights(name)))
    ours = find_torchvision(f"torchvision:{name}", None).preprocessing
    assert torch.allclose(ours(picture), weights.transforms()(picture), atol=1e-5)


def test_a_weights_file_says_which_transforms_are_its_own(tmp_path):
    second = vision.ResNet50_Weights.IMAGENET1K_V2
    file = tmp_path / second.url.rpartition("/")[2]
    sides = [
        find_torchvision("torchvision:resnet50", given).preprocessing.shorter_side
        for given in (None, file)
    ]
    assert sides == [256, second.transforms().resize_size[0]]


def own_network():
    """Factory of a network that timm makes."""
    return timm.create_model("test_vit.r160_in1k", num_classes=3)


def test_a_factory_of_timms_networks_needs_no_preprocessing(monkeypatch):
    monkeypatch.setattr("network_examples.constant", own_network)
    with pytest.warns(XNNWarning, match="random weights"):
        loaded = load_model("network_examples:constant", allow_random=True)
    config = resolve_model_data_config(loaded.model)
    assert loaded.preprocessing.size == config["input_size"][1] == 160
    assert loaded.preprocessing.mean == tuple(config["mean"])
    assert own_preprocessing(torch.nn.Linear(1, 1)) is None


def test_modes_of_timm_that_are_not_ours_are_named():
    with pytest.raises(ModelError, match=r"timm's mode 'center' with crop_pct 1.15.*; give"):
        find_timm("timm:volo_d4_448")


def test_a_factory_of_timm_says_its_own_size():
    oblong = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), num_classes=3)
    assert own_preprocessing(oblong).size == (32, 64)
    assert own_preprocessing(oblong).shorter_side == int(32 / 0.9)
    about = {"input_size": (3, 24, 48), "crop_mode": "squash", "crop_pct": 1.0}
    squashed = timm.create_model("resnet10t", pretrained_cfg_overlay=about)
    assert own_preprocessing(squashed).frame(100, 100).height == 24
    assert own_preprocessing(squashed).resize == "squash"
