"""Activations and logits that fits are tested on."""

import torch

from torchxnn.data.activations import Activations
from torchxnn.training.config import TrainConfig


def make_data(count=400, dims=20, seed=0, outputs=3):
    """Z >= 0 with three parts; the logit of class 1 is a sum of ReLUs of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    z = torch.rand(count, dims, generator=generator) * 0.3
    parts = torch.rand(count, 3, generator=generator) + 0.3
    positive = labels == 1
    for part in range(3):
        z[positive, 4 * part : 4 * part + 4] += 2 * parts[positive, part : part + 1]
    signal = torch.stack([z[:, 4 * p : 4 * p + 4].mean(1) for p in range(3)], 1)
    logits = torch.randn(count, outputs, generator=generator) * 0.1
    logits[:, 1] = 2 * signal.sum(1) - 2
    return Activations(z, logits, labels)


QUICK = TrainConfig(
    hidden=(16, 8),
    epochs=8,
    patience=1,
    batch_size=60,
    learning_rate=0.02,
    pretrain_epochs=2,
    trials=1,
    decay_every=None,
)


def many_classes(count=240, outputs=6, dims=20, seed=0, dtype=torch.float32):
    """Z >= 0; every class has dimensions of its own, and a logit that is a sum over them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % outputs
    z = torch.rand(count, dims, generator=generator) * 0.3
    logits = torch.randn(count, outputs, generator=generator) * 0.1
    for target in range(outputs):
        own = [(3 * target + i) % dims for i in range(4)]
        on = labels == target
        strength = torch.rand(int(on.sum()), 4, generator=generator) + 0.3
        z[on.nonzero(), torch.tensor(own)] += 2 * strength
        logits[:, target] += z[:, own].sum(1) - 2
    return Activations(z.to(dtype), logits.to(dtype), labels)


def distance(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
