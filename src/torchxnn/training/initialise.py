"""The starting point of a fit: scaled, pretrained, its x-layer and readout set from data.

So every x-feature starts alive. X-features that turn out weak are set again in the same way. What
is the same for vectors and for maps stands here; `cells` has what maps need.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.data.activations import Activations
from torchxnn.embeddings.apply import Embedded, apply_embedding, batches
from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.components import Readout, read_logits
from torchxnn.embeddings.linear import deviation, fit_linear
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.subspace import Subspace, directions_of_logits, principal_subspace
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, dead_features
from torchxnn.training.config import TrainConfig
from torchxnn.training.split import Split

Made = TypeVar("Made")

SUBSPACE_SAMPLES = 8192
"""Most samples that the principal subspace is computed from."""

EVIDENCE_RIDGE = 0.1
"""Penalty of the linear readouts from hidden units, as a share of their mean variance."""


class SharedStarts:
    """What is computed once for all fits to the same activations, as it sees no target.

    Whoever runs several fits gives the same one to all of them; what it holds ends with it. Fits to
    other activations may use it too: they share nothing.
    """

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[Activations, dict[Hashable, Any]] = WeakKeyDictionary()

    def once(self, data: Activations, key: Hashable, compute: Callable[[], Made]) -> Made:
        """What `compute` gave for these activations when it was first asked for by this key."""
        known = self._found.setdefault(data, {})
        if key not in known:
            known[key] = compute()
        return known[key]


class Starter(ABC):
    """An embedding at its starting point, and how weak x-features of it are started again.

    Args:
        split: data to fit.
        n_features: n.
        config: settings.
        generator: of everything random.
        starts: shared with other fits; None for a fit on its own.

    Attributes:
        embedding: scaled and pretrained; x-layer and readout set if `config.split_logit` says so or
            if it is held near components.
    """

    embedding: Autoencoder

    def __init__(
        self,
        split: Split,
        n_features: int,
        config: TrainConfig,
        generator: torch.Generator,
        starts: SharedStarts | None = None,
    ) -> None:
        self.split, self.n_features = split, n_features
        self.config, self.generator = config, generator
        self.starts = starts or SharedStarts()
        self.embedding = self._pretrained()
        if config.split_logit or split.components is not None:
            self.start_features(range(n_features))
        elif not config.faithful:
            self.fit_readout()

    def find_weak(self, found: Embedded | None = None) -> list[int]:
        """Weak x-features, of what the embedding makes of the training data if that is known."""
        found = found or apply_embedding(self.embedding, self.split.data.z)
        positives = self.split.positives.to(found.features.device)
        others = (~positives).to(found.contributions)
        sums = torch.einsum("mk,mkn->kn", others, found.contributions)
        anchored = found.contributions - sums / others.sum(0).clamp(min=1).unsqueeze(1)
        # a component may be small; only one that is off everywhere is started again
        least = ACTIVE_SHARE if self.split.components is None else 0.0
        return weak_features(found.features, anchored, positives, least)

    @abstractmethod
    def start_features(self, features: Sequence[int]) -> None:
        """Start x-features as parts of a linear readout of the logits, then fit the readout."""

    @abstractmethod
    def fit_readout(self) -> None:
        """Set the readout to the least squares solution for the present x-features."""

    @abstractmethod
    def points(self) -> Float[Tensor, "points dims *point"]:
        """Values of Z that pretraining sees."""

    @abstractmethod
    def new_embedding(self, nonnegative: bool) -> Autoencoder:
        """An embedding with random weights."""

    def _pretrained(self) -> Any:
        """Scaled and pretrained on Z; the generator is left as if it had just been done."""
        config, generator = self.config, self.generator
        sizes = (self.n_features, self.split.logits.shape[1], config.hidden, config.conv)
        training = (config.pretrain_epochs, config.batch_size, config.subspace)
        key = (*sizes, *training, generator.get_state().numpy().tobytes())
        embedding, state = self.starts.once(self.split.data, key, self._pretrain)
        generator.set_state(state)
        return copy.deepcopy(embedding)

    def _pretrain(self) -> tuple[Autoencoder, Tensor]:
        """A new embedding, scaled and pretrained, and the state of the generator after that."""
        config, generator, z = self.config, self.generator, self.split.data.z
        points = self.points()
        nonnegative = all(bool((part >= 0).all()) for part in batches(z))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            embedding = self.new_embedding(nonnegative)
        embedding.to(z.device, torch.promote_types(z.dtype, torch.float32))
        with torch.no_grad():
            embedding.scale.copy_(deviation(points))  # so that scaled Z has unit variance
        if config.pretrain_epochs:
            epochs, size = config.pretrain_epochs, config.batch_size
            pretrain_greedily(embedding, points, generator, epochs, size)
            embedding.zero_grad()
        return embedding, generator.get_state()


class VectorStarter(Starter):
    """The starting point of an SRAE."""

    embedding: SRAE

    @torch.no_grad()
    def start_features(self, features: Sequence[int]) -> None:
        """At the components or as `split_logit`; then the readout of all is fitted anew."""
        embedding = self.embedding
        hidden = embedding.below_x_layer(embedding.inputs(self.split.data.z))
        components, weights = self.split.components, self.split.weights
        if components is None:
            split_logit(embedding, read_units(hidden, self.split), self.generator, features)
        else:
            start_at_components(embedding, hidden, components, weights, features)
        self._fit_readout(embedding.x_layer(hidden))

    @torch.no_grad()
    def fit_readout(self) -> None:
        """Set the readout to the least squares solution for the present x-features."""
        self._fit_readout(self.embedding.encode(self.split.data.z))

    def points(self) -> Float[Tensor, "points dims"]:
        """All of Z."""
        return self.split.data.z

    def new_embedding(self, nonnegative: bool) -> SRAE:
        """An SRAE with random weights, in the subspace that the settings ask for."""
        data, config = self.split.data, self.config
        dims, targets, rank = data.z.shape[1], self.split.logits.shape[1], config.subspace
        subspace = None
        if rank is not None and rank < dims:
            seed = config.seed
            key = ("subspace", rank, seed)
            subspace = self.starts.once(
                data, key, lambda: find_subspace(data, self.starts, rank, seed)
            )
        sizes = (dims, self.n_features, targets, config.hidden, nonnegative)
        return SRAE(*sizes, subspace=subspace)

    def _fit_readout(self, features: Float[Tensor, "samples features"]) -> None:
        split, readout = self.split, self.embedding.readout
        weight, bias = fit_linear(features, split.logits, split.weights, ridge=1e-6)
        readout.weight.copy_(weight)
        readout.bias.copy_(bias)


def logit_readout(data: Activations, starts: SharedStarts) -> Readout:
    """A linear model of all logits, the same for all fits to these activations."""
    return starts.once(data, "logits", lambda: read_logits(data.z, data.logits))


def find_subspace(data: Activations, starts: SharedStarts, rank: int, seed: int) -> Subspace:
    """Where Z of the training data, or of a sample of them, varies, and where the logits are read.

    Half of its dimensions are for the logits: what a network reads from Z need not be where Z
    varies most.
    """
    weight, z = logit_readout(data, starts)[0], data.z
    if len(z) > SUBSPACE_SAMPLES:
        generator = torch.Generator().manual_seed(seed)
        z = z[torch.randperm(len(z), generator=generator)[:SUBSPACE_SAMPLES]]
    scale = deviation(z)
    read = directions_of_logits(z, weight, rank // 2, seed, scale) if rank > 1 else None
    return principal_subspace(z, rank, seed, read, scale)


def pretrain_greedily(
    embedding: Autoencoder,
    activations: Float[Tensor, "samples dims *point"],
    generator: torch.Generator,
    epochs: int = 10,
    batch_size: int = 128,
) -> None:
    """Train each hidden layer as an autoencoder of the one below, from the input up.

    The x-layer itself is left alone: `split_logit` starts it.

    Args:
        embedding: its encoder layers but the last and its decoder layers but the first are set.
        activations: Z, (M, S_z), or (M, C, 1, 1) at points of maps.
        generator: draws the batches.
        epochs: passes over the data per layer.
        batch_size: samples per step.
    """
    with torch.no_grad():
        hidden = embedding.inputs(activations)
    depth = len(embedding.encoder) - 1
    for level in range(depth):
        encode: Any = embedding.encoder[level]
        decode: Any = embedding.decoder[depth - level]
        parameters = [*encode.parameters(), *decode.parameters()]
        if level == 0 and embedding.offset is not None:
            parameters.append(embedding.offset)
        optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        for _ in range(epochs):
            order = torch.randperm(len(hidden), generator=generator)
            for index in order.split(batch_size):
                batch = hidden[index]
                code = torch.relu(encode(batch))
                if level:
                    error = torch.relu(decode(code)) - batch
                else:
                    error = embedding.output(code) - activations[index] / embedding.scale
                optimizer.zero_grad()
                error.square().mean().backward()
                optimizer.step()
        with torch.no_grad():
            hidden = torch.relu(encode(hidden))


@dataclass(frozen=True, eq=False)
class Evidence:
    """A linear readout of the logits from the hidden units below the x-layer.

    Attributes:
        contributions: of each unit to each target on its positives, k times (P, h).
        weights: of each unit in an x-feature of each target, (k, h).
        points: outputs of the units where thresholds are taken from, (N, h).
        off: share of these points at which an x-feature starts at 0.
    """

    contributions: Sequence[Float[Tensor, "_ units"]]
    weights: Float[Tensor, "targets units"]
    points: Float[Tensor, "points units"]
    off: float


def read_units(hidden: Float[Tensor, "samples units"], split: Split) -> Evidence:
    r"""A ridge regression of the logit on the hidden units, :math:`\hat y\approx\sum_ju_jh_j+c`."""
    readout, _ = fit_linear(hidden, split.logits, split.weights, EVIDENCE_RIDGE)
    positives = zip(split.positives.unbind(1), readout, strict=True)
    return Evidence([hidden[on] * weight for on, weight in positives], readout, hidden, off=0.1)


def split_logit(
    embedding: Autoencoder, evidence: Evidence, generator: torch.Generator, features: Sequence[int]
) -> None:
    r"""Start x-features as parts of a linear readout of the logits, each alive on the positives.

    The hidden units are divided into n groups that vary together on the positives (k-means on what
    they contribute to the logit there, :math:`u_jh_j`), and x-feature l starts as the part of its
    group, :math:`E_l=\mathrm{ReLU}(\sum_{j\in G_l}u_jh_j-t_l)`, with the threshold :math:`t_l`
    at a low quantile over all samples. So all x-features are active on the positives, and their
    sum is close to the logit. With several targets, x-features take turns.

    Args:
        embedding: its last encoder layer is set.
        evidence: a linear readout of the hidden units.
        generator: starts the k-means.
        features: x-features to set.
    """
    layer: Any = embedding.encoder[-1]
    k = len(evidence.weights)
    for target, parts in enumerate(evidence.contributions):
        members = list(range(target, embedding.n_features, k))
        if not members:
            continue
        groups = group_units(parts, len(members), generator)
        for position, feature in enumerate(members):
            if feature not in features:
                continue
            weight = torch.where(groups == position, evidence.weights[target], 0.0)
            response = evidence.points @ weight
            spread = response.std().clamp(min=1e-6)
            layer.weight[feature] = (weight / spread).view_as(layer.weight[feature])
            layer.bias[feature] = -torch.quantile(response / spread, evidence.off)


@torch.no_grad()
def start_at_components(
    embedding: Autoencoder,
    hidden: Float[Tensor, "samples units"],
    components: Float[Tensor, "samples features"],
    weights: Float[Tensor, " samples"],
    features: Sequence[int],
) -> None:
    """Start x-features as ridge regressions of their components on the hidden units.

    Args:
        embedding: its last encoder layer is set; x-features have deviation 1.
        hidden: units below the x-layer, (M, h).
        components: what x-features are to contribute, (M, n).
        weights: of the samples, (M,).
        features: x-features to set.
    """
    layer: Any = embedding.encoder[-1]
    chosen = list(features)
    wanted = components[:, chosen]
    weight, bias = fit_linear(hidden, wanted, weights, EVIDENCE_RIDGE)
    spread = wanted.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    layer.weight[chosen] = weight / spread.unsqueeze(1)
    layer.bias[chosen] = bias / spread


def group_units(
    parts: Float[Tensor, "samples units"],
    n_groups: int,
    generator: torch.Generator,
    steps: int = 20,
) -> Tensor:
    """Divide units into groups that vary together: k-means on their centred, normalised columns.

    Parts are what each unit contributes on each sample. No group is left empty if there are that
    many units. The generator draws the first centres; `steps` are Lloyd iterations.

    Returns:
        (h,) group of each unit.
    """
    columns = (parts - parts.mean(0)).mT
    columns = columns / columns.norm(dim=1, keepdim=True).clamp(min=1e-12)
    centres = columns[torch.randperm(len(columns), generator=generator)[:n_groups]]
    groups = torch.arange(len(columns), device=parts.device) % n_groups
    if len(centres) < n_groups:
        return groups
    for _ in range(steps):
        groups = (columns @ centres.mT).argmax(1)
        for group in range(n_groups):
            if not bool((groups == group).any()):
                largest = int(groups.bincount(minlength=n_groups).argmax())
                inside = (groups == largest).nonzero().flatten()
                groups[inside[: max(1, len(inside) // 2)]] = group
        centres = torch.stack([columns[groups == group].mean(0) for group in range(n_groups)])
        centres = centres / centres.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return groups


def weak_features(
    features: Float[Tensor, "samples features"],
    contributions: Float[Tensor, "samples targets features"],
    positives: Bool[Tensor, "samples targets"],
    least: float = ACTIVE_SHARE,
) -> list[int]:
    r"""X-features that are dead, or carry less than a share of every target.

    `least` is a share of the sum of mean absolute contributions over the target's positives.
    """
    mask = positives.unsqueeze(2).to(contributions)
    size = (contributions.abs() * mask).sum(0)
    share = size / size.sum(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
    dead = dead_features(features, positives.any(1))
    return (dead | (share < least).all(0)).nonzero().flatten().tolist()
