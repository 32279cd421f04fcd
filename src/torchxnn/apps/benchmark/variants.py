"""Methods that see the logit, as settings: ours and variants of eq. 5. Loads no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchxnn.training.config import TrainConfig

RELEVANCE = 1.0
"""Weight of the pull-away term on relevance in SRAE-R."""


def srae_config(base: TrainConfig) -> TrainConfig:
    """SRAE: the paper's objective, eq. 5, with its three terms and no other."""
    return replace(base, components=0.0, relevance=0.0)


def nn_config(base: TrainConfig) -> TrainConfig:
    """NN: a network with an x-layer, without reconstruction and without pull-away."""
    return replace(base, reconstruction="none", eta=0.0, relevance=0.0, components=0.0)


def sae_config(base: TrainConfig) -> TrainConfig:
    """SAE: a stacked autoencoder with faithfulness, the plain squared reconstruction error."""
    return replace(base, reconstruction="squared", eta=0.0, relevance=0.0, components=0.0)


def cae_config(base: TrainConfig) -> TrainConfig:
    """CAE: an autoencoder that does not see the logit; its readout is fitted afterwards."""
    return replace(
        base,
        faithful=False,
        reconstruction="squared",
        beta=1.0,
        eta=0.0,
        relevance=0.0,
        split_logit=False,
        components=0.0,
        revive=None,
        positive_share=None,
        trials=1,
    )


XNN = "XNN"
"""The row of what the settings say, which by default is what `xnn fit` does."""

SEEN: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    XNN: lambda base: base,  # by default eq. 5, held near components
    "SRAE": srae_config,
    # ours: eq. 5 and a pull-away term on the relevance that x-features send to Z
    "SRAE-R": lambda base: replace(srae_config(base), relevance=base.relevance or RELEVANCE),
    "NN": nn_config,
    "SAE": sae_config,
}
"""Methods that see the logit, ours and variants of eq. 5: name -> settings."""
