"""Settings of fits, and the losses that they report; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torchxnn.embeddings.config import Pooling
from torchxnn.errors import XNNError

Reconstruction = Literal["sparse", "squared", "none"]
"""Which penalty on the reconstruction of Z takes part in the loss."""

PullAway = Literal["within", "correlation", "cosine"]
"""How the x-features' vectors are centred before their cosines are taken; see `pull_away`."""


@dataclass(frozen=True)
class ConvConfig:
    """Settings of an XNN on a convolutional layer, beside those of `TrainConfig`.

    `TrainConfig.hidden` and `TrainConfig.subspace` are not used there, and `TrainConfig.batch_size`
    only by the pretraining, on positions: every unit and every image costs as much as a whole fully
    connected layer, once per position.

    Attributes:
        channels: sizes of the encoder's hidden 1x1 convolutions; the decoder mirrors them. Two of
            them make three encoders and three decoders (paper table 3), none make one of each
            (paper's MNIST variant).
        pooling: of the x-features' maps before the readout; "max" is the paper's MNIST variant.
        pool_size: side of the pooling windows, which do not overlap; None takes the whole map, so
            that an x-feature has one weight instead of one per position.
        map_batch_size: images per step.
        map_positions: random positions per step at which the reconstruction is trained; None takes
            all. The reported losses take all positions in any case.
        map_dtype: precision in which recorded activations are kept; computing is in float32.
        map_memory: gigabytes of recorded activations kept in memory per set; more go to a temporary
            file.
    """

    channels: tuple[int, ...] = (64, 32)
    pooling: Pooling = "none"
    pool_size: int | None = 2
    map_batch_size: int = 32
    map_positions: int | None = 128
    map_dtype: Literal["float16", "float32"] = "float16"
    map_memory: float = 2.0

    def __post_init__(self) -> None:
        sizes = (*self.channels, self.map_batch_size, self.map_positions, self.pool_size)
        if any(size is not None and size < 1 for size in sizes):
            raise XNNError(
                "channels, map_batch_size, map_positions and pool_size must be positive, got "
                f"{self}"
            )
        if self.map_memory < 0:
            raise XNNError(f"map_memory must not be negative, got {self.map_memory}")
        if self.pooling not in ("none", "max", "average"):
            raise XNNError(f"pooling is none, max or average, got {self.pooling!r}")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a fit; the same fields are API, command line and saved JSON.

    Attributes:
        hidden: sizes of the encoder's hidden layers; the decoder mirrors them.
        faithful: whether the logits are part of the loss. Without them the embedding is a classic
            autoencoder (CAE) and its readout is fitted to the finished x-features.
        reconstruction: "sparse" is the paper's log penalty; "squared" the mean squared error of a
            stacked autoencoder (SAE), in units of the mean variance of Z; "none" leaves the decoder
            out, which makes the embedding a plain network (NN).
        beta: weight of the reconstruction (paper eq. 5).
        eta: weight of the pull-away term (paper eq. 5).
        q: sparsity parameter of the log penalty.
        pull_away: "within" centres the x-features within the positives of each target and within
            all others, "correlation" over all images; "cosine" is the paper's form, which vanishes
            only if no two x-features are active on the same image. See `losses.pull_away`.
        relevance: weight of another pull-away term, on the relevance that x-features send to Z
            on the positives: their heatmaps, not their activations, are to differ. Ours, not the
            paper's; 0 leaves it out. Not for layers that give maps.
        positive_share: weight of the positives of all targets together, as a share of the total
            weight; None leaves all images alike. Enters all three terms.
        learning_rate: of Adam.
        weight_decay: of Adam.
        batch_size: images per step, drawn with probability proportional to their weight.
        epochs: most epochs per trial; one epoch draws as many images as there are.
        patience: epochs without a lower held-out loss before a trial stops.
        decay_every: "cosine" lets the learning rate fall to 0 along half a cosine over `epochs`; a
            number is epochs after which it drops to a tenth; None never drops it.
        pretrain_epochs: epochs of greedy autoencoder pretraining per hidden layer; 0 for none.
        split_logit: start the x-layer as parts of a linear readout, so that each one is alive.
        components: start x-features as the independent components of the class instead (see
            `embeddings.components`), where one target is explained and Z are vectors, and hold
            them near these with this weight: the squared distance of their contributions, in
            units of the logit's variance. Ours, not the paper's; 0 leaves it out.
        revive: epochs after which x-features that are dead, or carry less than 5% of the positives'
            contributions, are restarted, during the first half of `epochs`; None never restarts.
        trials: most trials with new seeds; more than one is run only while a fit is degenerate or
            has fewer than `enough_active` active x-features.
        enough_active: active x-features that end the trials.
        minimum_positives: least positives per target that a fit is attempted with.
        validation_share: share of the images held out if no validation data are given.
        seed: of everything random.
        subspace: dimensions of a subspace of Z that the outer layers are confined to while they are
            fitted, half of them where the logits are read and half where Z varies most; None for
            all of Z. The loss is that of all of Z in either case. Not for layers that give maps.
        conv: further settings, for a layer that gives maps.
    """

    hidden: tuple[int, ...] = (800, 100)
    faithful: bool = True
    reconstruction: Reconstruction = "sparse"
    beta: float = 0.5
    eta: float = 0.1
    q: float = 100.0
    pull_away: PullAway = "within"
    relevance: float = 0.0
    positive_share: float | None = 0.15
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 128
    epochs: int = 50
    patience: int = 20
    decay_every: Literal["cosine"] | int | None = "cosine"
    pretrain_epochs: int = 5
    split_logit: bool = True
    components: float = 0.3
    revive: int | None = 5
    trials: int = 3
    enough_active: int = 3
    minimum_positives: int = 8
    validation_share: float = 0.2
    seed: int = 0
    subspace: int | None = 64
    conv: ConvConfig = field(default_factory=ConvConfig)

    def check(self) -> None:
        """Refuse settings that no fit could begin with.

        `XNN.fit`, `xnn fit` and every fit call it before anything is recorded.

        Raises:
            XNNError: the first setting out of range, by name.
        """
        for name in ("q", "learning_rate", "batch_size", "epochs", "patience", "trials"):
            if not getattr(self, name) > 0:
                raise XNNError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("beta", "eta", "components", "weight_decay", "pretrain_epochs"):
            if not getattr(self, name) >= 0:
                raise XNNError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.positive_share is not None and not 0 < self.positive_share < 1:
            raise XNNError(f"positive_share must lie between 0 and 1, got {self.positive_share}")
        if not 0 < self.validation_share < 1:
            raise XNNError(
                f"validation_share must lie between 0 and 1, got {self.validation_share}"
            )
        every = self.decay_every
        if every not in ("cosine", None) and not (isinstance(every, int) and every > 0):
            raise XNNError(
                f"decay_every must be 'cosine', a number of epochs or None, got {every!r}"
            )
        if self.subspace is not None and self.subspace < 1:
            raise XNNError(f"subspace must be at least 1 dimension, got {self.subspace}")


@dataclass(frozen=True)
class ComputeConfig:
    """How fits are computed; it changes speed and memory, and results by rounding alone.

    Attributes:
        slots: fits that are computed at once; None takes 4 on the CPU, and on a GPU as many as its
            free memory holds.
        device: of the fit, as PyTorch names it.
        autocast: compute matrix products in bfloat16, for devices that are fast at it; results then
            differ by more than rounding.
        compile: compile the losses of a batch with `torch.compile`; it needs a C++ compiler.
    """

    slots: int | None = None
    device: str = "cpu"
    autocast: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise XNNError(f"slots must be at least 1, got {self.slots}; None lets the device say")


@dataclass(frozen=True)
class Losses:
    """The terms of eq. 5, exact over a whole set, weighted as in the fit; 0 if left out.

    The second term is the reconstruction's, of whatever kind, and `total` is their weighted sum.
    Logits are divided by the standard deviation of the target over the training set and Z by
    `SRAE.scale`, so that beta, eta and q mean the same for every network.
    """

    faithfulness: float
    sparse_reconstruction: float
    pull_away: float
    total: float
    relevance: float = 0.0
    components: float = 0.0


@dataclass(frozen=True)
class ManyConfig:
    """How the fits of many classes are divided into jobs.

    Attributes:
        block: most classes per job; on a CPU a class gives the same bits whatever else is in its
            block, on a GPU it may differ by rounding. None takes 16; on GPUs, if the memory holds
            all samples, as many as give every GPU one job.
        memory: gigabytes that a job may use for activations and what is computed from them.
    """

    block: int | None = None
    memory: float = 4.0

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise XNNError(f"block must be at least 1 class, got {self.block}")
        if not self.memory > 0:
            raise XNNError(f"memory must be above 0 gigabytes, got {self.memory}")
