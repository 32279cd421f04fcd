"""Made-up activations in which it is known which part of an image does what."""

import torch

from torchxnn.apps.benchmark.contenders import Case
from torchxnn.apps.benchmark.methods import FitData
from torchxnn.data.activations import Activations
from torchxnn.metrics.ground_truth import change_profiles, removal_changes
from torchxnn.training.config import TrainConfig

PARTS, OUTPUTS, DIMS, TARGET = 3, 4, 24, 1
QUICK = TrainConfig(hidden=(16, 8), epochs=4, patience=4, pretrain_epochs=1, trials=1)


class Planted:
    """Each part adds its own direction to Z; the logit of the target is a linear function of Z.

    Every third image has all parts and is of the target's class; others have each with
    probability 1/2. Some of the class's images lack a part too, or nothing would vary.
    """

    def __init__(self, seed=0, maps=False):
        self.generator = torch.Generator().manual_seed(seed)
        self.maps = maps
        self.directions = torch.rand(PARTS, DIMS, generator=self.generator)
        self.weight = torch.linalg.pinv(self.directions).sum(1) * 2
        self.others = torch.randn(DIMS, OUTPUTS, generator=self.generator) * 0.1

    def activations(self, visible, noise=0.02):
        """Z of images with these parts, of random strength each."""
        strength = visible * (0.7 + 0.6 * self.random(len(visible), PARTS))
        return self.of(strength, noise)

    def of(self, strength, noise=0.02):
        if not self.maps:
            z = strength @ self.directions
            return z + noise * self.random(*z.shape)
        z = noise * self.random(len(strength), DIMS, 2, 2)
        for part in range(PARTS):
            at = torch.randint(4, (len(strength),), generator=self.generator)
            added = strength[:, part, None] * self.directions[part]
            z.flatten(2)[torch.arange(len(z)), :, at] += added
        return z

    def random(self, *shape):
        return torch.rand(*shape, generator=self.generator)

    def head(self, z):
        pooled = z.sum((2, 3)) if self.maps else z
        logits = pooled @ self.others
        return torch.cat([logits[:, :1], (pooled @ self.weight)[:, None], logits[:, 2:]], 1)

    def recorded(self, count):
        labels = torch.arange(count) % 3
        visible = self.random(count, PARTS) < torch.where(labels == TARGET, 0.8, 0.5)[:, None]
        z = self.activations(visible.float())
        return Activations(z, self.head(z), labels), visible

    def case(self, n_features=PARTS, seed=0, count=240):
        train, visible = self.recorded(count)
        data = FitData(train, self.recorded(60)[0])
        config = TrainConfig(**{**vars(QUICK), "seed": seed})
        return Case(data, TARGET, n_features, config, visible, self.head)

    def removals(self, count=20):
        """Z of images with all parts, and of the same images without each of them (B, P, ...)."""
        strength = 0.7 + 0.6 * self.random(count, PARTS)
        keep = 1 - torch.eye(PARTS)
        before = self.of(strength, noise=0.0)
        after = [self.of(strength * kept, noise=0.0) for kept in keep]
        return before, torch.stack(after, 1)


@torch.no_grad()
def profiles(embedding, before, after):
    """How much each x-feature's contribution falls when each part goes, (n, P)."""

    def read(z):
        return embedding.contributions(embedding.encode(z))[:, 0]

    removed = torch.stack([read(after[:, part]) for part in range(after.shape[1])], 1)
    return change_profiles(removal_changes(read(before), removed))
