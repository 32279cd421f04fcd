"""A tiny network of volumes that knows a bright ball, and class folders of such volumes."""

import numpy as np
import torch
from torch import nn

from torchxnn.models.preprocessing import Preprocessing

SIZE = (8, 16, 20)
CENTRES = {"empty": None, "front": (1, 5, 5), "back": (6, 10, 14)}
"""Where the ball lies in the volumes of a class: slice, row and column; the latter a voxel off."""
RADIUS = 2


def ball(centre):
    """Voxels inside the ball, (8, 16, 20)."""
    axes = np.meshgrid(*(np.arange(side) for side in SIZE), indexing="ij")
    return sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) <= RADIUS**2


def make_volumes(per_class=16, seed=0):
    """Volumes (M, 8, 16, 20) uint8 with their labels and the ball's mask of each."""
    rng = np.random.default_rng(seed)
    volumes, masks, labels = [], [], []
    for label, centre in enumerate(CENTRES.values()):
        for _ in range(per_class):
            volume, mask = rng.integers(0, 60, SIZE), np.zeros(SIZE, bool)
            if centre is not None:
                mask = ball((centre[0], *(np.array(centre[1:]) + rng.integers(-1, 2, 2))))
                volume[mask] += rng.integers(100, 190)
            volumes.append(volume.astype(np.uint8))
            masks.append(mask)
            labels.append(label)
    return np.stack(volumes), np.array(labels), np.stack(masks)


def write_volumes(root, per_class=16, seed=0):
    """Class folders empty, front and back of `.npy` volumes; the labels are in that order."""
    volumes, labels, _ = make_volumes(per_class, seed)
    for i, (volume, label) in enumerate(zip(volumes, labels, strict=True)):
        place = root / str(label)
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i:02}.npy", volume)
    return root


def network_of_volumes():
    """Means over blocks of voxels above a threshold: the ball's brightness, front and back."""
    body = nn.Conv3d(1, 1, 3, padding=1)
    nn.init.constant_(body.weight, 1 / 27)
    nn.init.constant_(body.bias, -0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden, out = nn.Linear(2 * 4 * 5, 12), nn.Linear(12, 3)
    pool = nn.AdaptiveAvgPool3d((2, 4, 5))
    net = nn.Sequential(body, nn.ReLU(), pool, nn.Flatten(), hidden, nn.ReLU(), out)
    front = torch.zeros(2, 4, 5)
    front[0] = 1
    hidden.weight.data.abs_().mul_(60)
    hidden.bias.data.zero_()
    hidden.weight.data[:6] *= front.flatten()
    hidden.weight.data[6:] *= 1 - front.flatten()
    out.weight.data[0] = -1
    out.weight.data[1] = torch.linspace(0.5, 1.5, 12) * torch.tensor([1.0] * 6 + [-0.5] * 6)
    out.weight.data[2] = torch.linspace(1.5, 0.5, 12) * torch.tensor([-0.5] * 6 + [1.0] * 6)
    out.bias.data = torch.tensor([0.5, -1.0, -1.2])
    return net.eval()


def described_network():
    """Factory for `xnn fit volume_examples:described_network`."""
    net = network_of_volumes()
    net.preprocessing = Preprocessing(size=SIZE, resize="squash", mean=(0.0,), std=(1.0,))
    return net
