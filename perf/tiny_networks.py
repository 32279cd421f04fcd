"""Tiny random networks of every kind that people bring, for `kinds_networks.py`.

Nothing is trained, since the question is what happens and not how good an explanation is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from torchxnn.data import ImageFolder
from torchxnn.models import Preprocessing, load_model

CLASSES, IMAGES, SIZE = 4, 48, 32


def images(channels: int = 3, height: int = SIZE, width: int = SIZE, *depth: int) -> Tensor:
    """Random images (B, C, H, W), or volumes (B, C, D, H, W)."""
    return torch.randn(IMAGES, channels, *depth, height, width)


def _folder(write: Callable[[Path], None], suffix: str, preprocessing: Preprocessing) -> Tensor:
    """What is read of a folder of class folders, (B, C, H, W), the classes in turns."""
    with TemporaryDirectory() as root:
        for number in range(IMAGES):
            file = Path(root) / f"class {number % CLASSES}" / f"{number:02}{suffix}"
            file.parent.mkdir(exist_ok=True)
            write(file)
        found = ImageFolder(root, preprocessing)
        order = sorted(range(IMAGES), key=lambda at: Path(found.paths[at]).name)
        return torch.stack([found[at].image for at in order])


def grey_folder() -> Tensor:
    """Pictures of 16 bits and one channel."""

    def write(file: Path) -> None:
        pixels = torch.randint(2**16, (SIZE, SIZE)).numpy().astype("uint16")
        Image.fromarray(pixels).save(file)

    return _folder(write, ".png", Preprocessing(size=SIZE, mean=(0.5,), std=(0.25,)))


def array_folder() -> Tensor:
    """Arrays (6, H, W)."""

    def write(file: Path) -> None:
        np.save(file, torch.rand(6, SIZE, SIZE).numpy())

    return _folder(write, ".npy", Preprocessing(size=SIZE, mean=(0.5,) * 6, std=(0.25,) * 6))


def volume_folder(suffix: str = ".npy") -> Tensor:
    """Volumes (D, H, W) of 8 bits, as arrays or as pages of a TIFF."""

    def write(file: Path) -> None:
        slices = torch.randint(256, (10, SIZE, SIZE)).numpy().astype("uint8")
        if suffix == ".npy":
            np.save(file, slices)
            return
        first, *others = map(Image.fromarray, slices)
        first.save(file, save_all=True, append_images=others)

    return _folder(write, suffix, Preprocessing(size=(6, 8, 8), mean=(0.5,), std=(0.25,)))


def oblong_folder() -> Tensor:
    """Photographs for a network of oblong inputs."""

    def write(file: Path) -> None:
        Image.fromarray(torch.randint(256, (20, 50, 3)).numpy().astype("uint8")).save(file)

    return _folder(write, ".jpg", Preprocessing(size=(16, 40)))


# --- networks of ours


def small(channels: int = 3, outputs: int = CLASSES, conv: type[nn.Module] = nn.Conv2d) -> Any:
    """Two convolutions, a hidden layer and a head; the hidden layer is "6"."""
    volume = conv is nn.Conv3d
    norm, pool = (
        (nn.BatchNorm3d, nn.AdaptiveAvgPool3d) if volume else (nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
    )
    return nn.Sequential(
        conv(channels, 8, 3, padding=1),
        norm(8),
        nn.ReLU(),
        pool(2),
        nn.Flatten(),
        nn.Linear(8 * 2 ** (3 if volume else 2), 16),
        nn.ReLU(),
        nn.Linear(16, outputs),
    ).eval()


def factory() -> nn.Module:
    """The same network at every call, as a function that loads its weights returns it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return small()


def forgetful_factory() -> nn.Module:
    """A network with new weights at every call."""
    return small()


class Around(nn.Module):
    """A network with something done to its inputs or to its outputs."""

    def __init__(
        self,
        network: nn.Module,
        after: Callable[..., Any],
        before: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.after, self.before = network, after, before or (lambda x: x)

    def forward(self, inputs: Tensor) -> Any:
        """What `after` makes of the network's logits."""
        return self.after(self.network(self.before(inputs)))


class Twice(nn.Module):
    """A layer that runs twice in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = small()[:5], nn.Linear(32, CLASSES)
        self.step = nn.Sequential(nn.Linear(32, 32), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.step(self.step(self.body(inputs))))


class Packed(nn.Module):
    """A head whose weights are whole numbers, unpacked in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()[:7]
        self.packed = torch.randint(-127, 128, (CLASSES, 16), dtype=torch.int8)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return F.linear(self.body(inputs), self.packed.float() / 127)


class WithMetadata(nn.Module):
    """Images and a row of metadata, which is held fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = small()[:5], nn.Sequential(nn.Linear(35, 16), nn.ReLU())
        self.out, self.row = nn.Linear(16, CLASSES), nn.Buffer(torch.randn(1, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        both = [self.body(inputs), self.row.expand(len(inputs), -1)]
        return self.out(self.head(torch.cat(both, 1)))


class Text(nn.Module):
    """Token ids (B, T) to logits, through an LSTM or through attention."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(9, 16), recurrent
        encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.mixer = nn.LSTM(16, 16, batch_first=True) if recurrent else encoder
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        found = self.mixer(self.embedding(ids))
        return self.head((found[0] if self.recurrent else found).mean(1))


class ZeroShot(nn.Module):
    """CLIP: the cosine between an image and the vectors of a few texts."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        sizes = HUGGING | {"projection_dim": 12}
        self.tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes))
        self.register_buffer("texts", F.normalize(torch.randn(CLASSES, 12), dim=-1))
        self.direction = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        vectors = self.tower(pixel_values=inputs).image_embeds
        return 100 * self.direction(F.normalize(vectors, dim=-1)) @ self.texts.T


def of_rows() -> nn.Module:
    """A network of feature vectors (B, 7); a hidden layer is "3"."""
    layers = [nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*layers).eval()


def lightning_module() -> nn.Module:
    """A module that logs in its forward pass and was never given to a trainer."""
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = small()

        def forward(self, inputs: Tensor) -> Tensor:
            logits = self.model(inputs)
            self.log("mean", logits.mean())
            return logits

    return Lit().eval()


# --- networks of libraries


SWIN = {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2]}
HUGGING = {
    "image_size": SIZE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


def of_torchvision(name: str) -> nn.Module:
    """A network of torchvision, as small as its settings allow."""
    from torchvision import models

    if name == "resnet":
        return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES).eval()
    if name == "mobilenet":
        return models.mobilenet_v2(num_classes=CLASSES, width_mult=0.25).eval()
    if name == "swin":
        windows = {"patch_size": [4, 4], "window_size": [4, 4]}
        return models.SwinTransformer(**SWIN, **windows, num_classes=CLASSES).eval()
    network = models.VisionTransformer(SIZE, 8, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(network.heads.head.weight)
    return network.eval()


def of_timm(name: str, **settings: Any) -> nn.Module:
    """A network of timm."""
    import timm

    return timm.create_model(name, num_classes=CLASSES, **settings).eval()


def of_transformers(name: str, **settings: Any) -> nn.Module:
    """A classifier of transformers, which takes `pixel_values` and returns an object."""
    import transformers

    config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **settings)
    return getattr(transformers, f"{name}ForImageClassification")(config).eval()


def hugging_batch(inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """A batch as the collators of transformers make them."""
    return {"pixel_values": inputs, "labels": labels}


def from_folder() -> nn.Module:
    """What `hf:FOLDER` loads."""
    with TemporaryDirectory() as folder:
        of_transformers("ViT", **HUGGING).save_pretrained(folder)
        return load_model(f"hf:{folder}").model


def from_factory(name: str) -> nn.Module:
    """What `tiny_networks:NAME` loads."""
    return load_model(f"tiny_networks:{name}").model


def from_checkpoint() -> nn.Module:
    """A factory's network with the checkpoint of a trainer, in which all names have a prefix."""
    state = {f"model.{name}": value for name, value in small().state_dict().items()}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "last.ckpt"
        torch.save({"epoch": 3, "state_dict": state}, file)
        return load_model("tiny_networks:forgetful_factory", file).model


# --- kinds that are compiled, rounded or cast


def compiled(what: str) -> nn.Module:
    """A network that was compiled, whole or in part."""
    network = small()
    if what == "whole":
        return torch.compile(network, backend="eager")
    return nn.Sequential(nn.Identity(), torch.compile(network, backend="eager")).eval()


def rounded() -> nn.Module:
    """A network whose linear layers are quantised."""
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)


def scripted() -> nn.Module:
    """TorchScript."""
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(small())


def exported() -> Any:
    """What `torch.export` makes of a network."""
    return torch.export.export(small(), (images()[:2],))


def channels_last() -> nn.Module:
    """A network whose weights lie in the memory format channels last."""
    return small().to(memory_format=torch.channels_last)


def weight_normed() -> nn.Module:
    """A network with a weight that is computed from two others."""
    network = small()
    nn.utils.parametrizations.weight_norm(network[5])
    return network


def noisy(logits: Tensor) -> Tensor:
    """Dropout that forgets that a network is being evaluated."""
    return F.dropout(logits, 0.5)


def of_batch() -> nn.Module:
    """Batch norm that keeps no running statistics."""
    network = small()
    network[1] = nn.BatchNorm2d(8, track_running_stats=False)
    return network.eval()


def flat(logits: Tensor) -> Tensor:
    """One logit as (B,)."""
    return logits[:, 0]


def segmentation(logits: Tensor) -> dict[str, Tensor]:
    """A class at every position, as networks of torchvision return it."""
    return {"out": logits[..., None, None]}


def wrapped(logits: Tensor) -> SimpleNamespace:
    """An object as models of transformers return it."""
    return SimpleNamespace(loss=None, logits=logits)
