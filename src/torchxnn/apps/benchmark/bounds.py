"""Ceilings and floors of the table of ground truth: what a layer could give, what nothing gives.

Ceilings see which parts are visible, floors see nothing of the class, or a logit that was shuffled.
The independent components are neither; they see no labels, and stand here because they need nothing
but activations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchxnn.apps.benchmark.contenders import Case, Contender, Found
from torchxnn.apps.benchmark.methods import FitData, fit_ridge, fit_variant, read_class
from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives, sample_weights
from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.concepts import import_sklearn
from torchxnn.embeddings.config import Pooling
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.directions import as_directions
from torchxnn.embeddings.ica import RIDGE, fit_ica
from torchxnn.embeddings.linear import deviation, fit_linear
from torchxnn.embeddings.srae import SRAE
from torchxnn.training.config import TrainConfig

HIDDEN = 256
"""Units of the small network that is fitted to the labels."""

MAP_HIDDEN = 64
"""Channels between the two convolutions, where Z has positions."""

EPOCHS = 40
BATCH = 128
LEARNING_RATE = 1e-3


def fit_label_directions(case: Case, rows: Bool[Tensor, " samples"] | None = None) -> Found:
    """One direction per part: ridge regression of whether the class's kind of it is visible.

    Args:
        case: with labels of the parts.
        rows: which rows of the training set are used; None takes all.
    """
    rows = torch.ones_like(case.positives) if rows is None else rows
    z, visible = case.data.train.z[rows], case.visible[rows].to(case.data.train.z)
    weight, bias = fit_linear(z, visible, torch.ones(len(z)), RIDGE)
    return Found(case.read(as_directions(weight, bias, case.data.train.z)))


def fit_label_network(case: Case) -> Found:
    """Z -> 256 -> parts, ReLU after both, fitted to the same labels by least squares."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.config.seed)
        parts = case.visible.shape[1]
        embedding = SRAE(case.data.train.z.shape[1], parts, 1, (HIDDEN,))
        return Found(case.read(_fit_to_labels(embedding, case)))


def fit_label_maps(case: Case, channels: tuple[int, ...], pooling: Pooling) -> Found:
    """The same by position: 1x1 convolutions to one map per part, pooled over the whole map.

    Args:
        case: at a layer with positions.
        channels: of hidden convolutions; none make the maps linear in Z but for their ReLU.
        pooling: "max" asks whether a part is anywhere, "average" how much of it there is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.config.seed)
        embedding = _pooled(case, case.visible.shape[1], channels, pooling)
        return Found(case.read(_fit_to_labels(embedding, case)))


def _pooled(case: Case, n_features: int, channels: tuple[int, ...], pooling: Pooling) -> ConvSRAE:
    """With one weight per x-feature instead of one per position."""
    _, dims, *size = case.data.train.z.shape
    return ConvSRAE(dims, size, n_features, 1, channels, pooling=pooling, pool_size=None)


def _fit_to_labels(embedding: Autoencoder, case: Case) -> Autoencoder:
    """Train the encoder towards the labels; the decoder reconstructs nothing, and says 0."""
    z, visible = case.data.train.z, case.visible.float()
    with torch.no_grad():
        embedding.scale.copy_(deviation(z.float()))
        last: Any = embedding.encoder[-1]
        last.bias.copy_(visible.mean(0))  # no part starts dead
        _forget_decoder(embedding)
    optimizer = torch.optim.AdamW(embedding.encoder.parameters(), lr=LEARNING_RATE)
    steps = EPOCHS * -(-len(z) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for index in torch.randperm(len(z)).split(BATCH):
                found = embedding.readout_inputs(embedding.encode(z[index].float()))
                loss = nn.functional.mse_loss(found, visible[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return embedding.eval()


def _forget_decoder(embedding: Autoencoder) -> None:
    """What was not fitted reconstructs nothing, rather than something random."""
    for parameter in embedding.decoder.parameters():
        nn.init.zeros_(parameter)


def fit_random_directions(case: Case) -> Found:
    """Directions drawn from a normal distribution, the same for all classes.

    The readout, fitted by least squares, is all that knows the class.
    """
    z = case.data.train.z
    weight = _normal(case, case.n_features, z.shape[1])
    return Found(case.read(as_directions(weight, torch.zeros(len(weight)), z)))


def fit_random_maps(case: Case) -> Found:
    """The same by position: random 1x1 convolutions with a ReLU, averaged over the map."""
    with torch.random.fork_rng(devices=[]):
        embedding = _pooled(case, case.n_features, (), "average")
    layer: Any = embedding.encoder[0]
    with torch.no_grad():
        layer.weight.copy_(_normal(case, case.n_features, embedding.dims)[:, :, None, None])
        layer.bias.zero_()
        _forget_decoder(embedding)
    return Found(case.read(embedding.eval()))


def _normal(case: Case, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    generator = torch.Generator().manual_seed(case.config.seed)
    return torch.randn(rows, columns, generator=generator) / columns**0.5


def fit_shuffled(case: Case) -> Found:
    """An XNN fitted to logits that were shuffled among the positives, and among all others.

    So it knows which images are of the class, and nothing of why one has more of it than another.
    """
    generator = torch.Generator().manual_seed(case.config.seed)
    train = _shuffled(case.data.train, case.target, generator)
    data = FitData(train, _shuffled(case.data.validation, case.target, generator))
    return Found(fit_variant("SRAE", data, (case.target,), case.n_features, case.config)[0])


def _shuffled(data: Activations, target: int, generator: torch.Generator) -> Activations:
    positives = find_positives(data, (target,))[0][:, 0]
    logits = data.logits.clone()
    for rows in (positives.nonzero().flatten(), (~positives).nonzero().flatten()):
        order = torch.randperm(len(rows), generator=generator)
        logits[rows, target] = data.logits[rows[order], target]
    return replace(data, logits=logits)


def fit_components(data: FitData, target: int, n_features: int, config: TrainConfig) -> Embedding:
    """Independent components of the contributions among the positives; see `fit_ica`.

    Read by least squares as all others are: the readout of `fit_ica` is that of the positives, and
    far off for images of other classes.
    """
    train = data.train
    positives = find_positives(train, (target,))[0][:, 0]
    weights = sample_weights(train, (target,), config.positive_share)
    logits = train.logits[:, target]
    embedding = fit_ica(train.z, logits, positives, n_features, weights, config.seed)
    return read_class(embedding, data, target, config)


BOUNDS: dict[str, Contender] = {
    "labels, linear": Contender(
        fit_label_directions,
        "Ceiling: a ridge regression of whether the class's kind of a part is visible, one "
        "direction per part, on all training images.",
        labels=True,
    ),
    "labels, linear, own": Contender(
        lambda case: fit_label_directions(case, case.positives),
        "Ceiling: the same on the images of the class alone.",
        labels=True,
    ),
    "labels, network": Contender(
        fit_label_network,
        f"Ceiling: a network Z -> {HIDDEN} -> parts with ReLU, fitted to the same labels.",
        labels=True,
    ),
    "ICA": Contender(
        lambda case: Found(fit_components(case.data, case.target, case.n_features, case.config)),
        "Independent components, among the images of the class, of what the dimensions of Z "
        "contribute to the logit by a ridge regression (FastICA of scikit-learn).",
        needs=lambda: import_sklearn("decomposition"),
    ),
    "ridge on Z": Contender(
        lambda case: Found(fit_ridge(case.data, case.target, case.config)),
        "One x-feature, a ridge regression of the logit on Z: what reproducing it takes, and what "
        "a mixture of everything scores.",
    ),
    "random directions": Contender(
        fit_random_directions,
        "Floor: normally distributed directions, read by least squares.",
        floor=True,
    ),
    "shuffled logits": Contender(
        fit_shuffled,
        "Floor: the XNN fitted to logits shuffled among the images of the class and among all "
        "others.",
        floor=True,
    ),
    "labels, linear by position": Contender(
        lambda case: fit_label_maps(case, (), "average"),
        "Ceiling: a 1x1 convolution with ReLU to one map per part, averaged over the map, fitted "
        "to whether the class's kind of it is visible.",
        labels=True,
        maps=True,
    ),
    "labels, network by position": Contender(
        lambda case: fit_label_maps(case, (MAP_HIDDEN,), "max"),
        f"Ceiling: two 1x1 convolutions ({MAP_HIDDEN} channels between them) with ReLU, the "
        "largest value of each map.",
        labels=True,
        maps=True,
    ),
    "random maps": Contender(
        fit_random_maps,
        "Floor: normally distributed 1x1 convolutions with ReLU, averaged over the map.",
        floor=True,
        maps=True,
    ),
}
"""Ceilings, floors, and what needs no more than they do: name -> contender."""
