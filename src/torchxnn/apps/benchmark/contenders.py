"""What enters the table of ground truth beside the methods of the paper: the common shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.benchmark.methods import FitData
from torchxnn.data.positives import find_positives, sample_weights
from torchxnn.embeddings.apply import batches
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.concepts import Fitted, with_readout
from torchxnn.errors import DataError, XNNError
from torchxnn.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Case:
    """One class of one network, as every contender is given it.

    Attributes:
        data: recorded activations.
        target: class index.
        n_features: number of concepts n. What is fitted to labels has one per part instead.
        config: settings of the learned methods; its seed is everybody's, and its share of the
            positives weighs the samples of every readout.
        visible: (M, P) for the rows of `data.train`: whether the kind of part that the class has
            is visible in the image, whatever class the image is of; `FunnyBirds.shows(target)`.
        head: Z (B, ...) to logits (B, K), what the network does above the layer; see
            `run_above_layer`.
    """

    data: FitData
    target: int
    n_features: int
    config: TrainConfig
    visible: Bool[Tensor, "samples parts"]
    head: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if len(self.visible) != len(self.data.train):
            raise DataError(
                f"{len(self.visible)} rows say what is visible in {len(self.data.train)} images"
            )
        if not bool(self.positives.any()):
            raise DataError(f"no training image is of class {self.target}")

    @property
    def positives(self) -> Bool[Tensor, " samples"]:
        """Rows of `data.train` that are of the class, (M,)."""
        return find_positives(self.data.train, (self.target,))[0][:, 0]

    @property
    def weights(self) -> Float[Tensor, " samples"]:
        """How the rows of `data.train` weigh, (M,), sum 1."""
        return sample_weights(self.data.train, (self.target,), self.config.positive_share)

    @property
    def own(self) -> Float[Tensor, "positives ..."]:
        """Z of the positives."""
        return self.data.train.select(self.positives).z.float()

    def read(self, embedding: Fitted) -> Fitted:
        """The embedding with a readout fitted to the logit of the class by least squares."""
        train = self.data.train
        with torch.no_grad():
            features = torch.cat(
                [embedding.readout_inputs(embedding.encode(z.float())) for z in batches(train.z)]
            )
        logits, positives = train.logits[:, [self.target]], self.positives.unsqueeze(1)
        return with_readout(embedding, features, logits, self.weights, positives)


@dataclass(frozen=True, eq=False)
class Found:
    """What a contender makes of a class.

    Attributes:
        embedding: with a readout of the logit, so that it is measured as all others are.
        importance: (n,) of each concept by the contender's own account, on the positives; None if
            it has none but the contributions.
    """

    embedding: Embedding
    importance: Float[Tensor, " features"] | None = None


@dataclass(frozen=True)
class Contender:
    """A row of the table.

    Attributes:
        fit: to one class.
        about: what it is, in a sentence for the foot of the table.
        labels: whether it sees which parts are visible, which no explanation may count on.
        floor: whether it knows nothing that an explanation should know.
        maps: whether it is for layers with positions, (C, h, w), instead of vectors.
        needs: imports the packages that it needs; an XNNError says how to get a missing one.
    """

    fit: Callable[[Case], Found]
    about: str
    labels: bool = False
    floor: bool = False
    maps: bool = False
    needs: Callable[[], Any] = lambda: None

    def unavailable(self) -> str | None:
        """Why it cannot be fitted here, for people to read; None if it can."""
        try:
            self.needs()
        except XNNError as error:
            return str(error)
        except (ImportError, OSError, RuntimeError) as error:  # as a broken library is met
            return f"a package that it needs is broken ({error}); install it again"
        return None


def order_agreement(
    importance: Float[Tensor, " features"], change: Float[Tensor, " features"]
) -> float | None:
    """Rank correlation (Spearman) of a contender's own importances with what was measured.

    Higher is better; 1 is the same order. None if either does not vary.

    Args:
        importance: (n,), `Found.importance`.
        change: (n,), such as how much each contribution changes when parts are removed.
    """
    from scipy.stats import spearmanr

    if min(len(importance.unique()), len(change.unique())) < 2:
        return None
    return float(spearmanr(importance.cpu().numpy(), change.cpu().numpy()).statistic)
