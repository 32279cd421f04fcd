"""The maps of a walk with what was measured on the way: their certificate, and when to warn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.attribution.base import (
    CONSERVATION_LIMIT,
    FALLBACK_LIMIT,
    Certificate,
    LayerCertificate,
    versions,
)
from torchxnn.embeddings.exact import knows_float64
from torchxnn.errors import AttributionWarning


@dataclass(frozen=True, eq=False)
class DrawnMaps:
    """Maps of a batch of images or a part of it, and what was measured on the way.

    Attributes:
        maps: (B, n, H, W).
        conservation_error: see `Certificate`; without a certified walk that of the final sums.
        fallback_shares: (B, n), see `Certificate`, of each map by itself, whatever the others are;
            float64 on the CPU. The same with a certified walk and without.
        layers: figures by the dotted name of the innermost module, of a certified walk; what met a
            fallback there is known to `ExcitationBackprop.certify_layers` alone.
        contrast_mass: (B, n), float64 on the CPU, see `contrast_mass`; NaN of targets that are off,
            None of marginal maps.
        method: name in `METHODS`.
    """

    maps: Float[Tensor, "batch targets *map"]
    conservation_error: float
    fallback_shares: Float[Tensor, "batch targets"]
    layers: dict[str, LayerCertificate]
    contrast_mass: Float[Tensor, "batch targets"] | None = None
    method: str = "excitation_backprop"

    @property
    def fallback_share(self) -> Float[Tensor, " batch"]:
        """The largest share of each image."""
        return self.fallback_shares.amax(1)

    @classmethod
    def cat(cls, parts: Sequence[DrawnMaps]) -> DrawnMaps:
        """Those of several parts of a batch; the worst conservation error counts."""
        masses = [part.contrast_mass for part in parts if part.contrast_mass is not None]
        return cls(
            torch.cat([part.maps for part in parts]),
            max(part.conservation_error for part in parts),
            torch.cat([part.fallback_shares for part in parts]),
            parts[0].layers,
            torch.cat(masses) if masses else None,
            parts[0].method,
        )

    def certificate(self) -> Certificate:
        """What the walk measured, for people."""
        dtype = str(self.maps.dtype).removeprefix("torch.")
        shares = tuple(self.fallback_shares.amax(0).tolist())
        figures = self.conservation_error, max(shares)
        mass = None
        if self.contrast_mass is not None:
            least = self.contrast_mass.nan_to_num(math.inf).amin(0).tolist()
            mass = tuple(value if math.isfinite(value) else None for value in least)
        return Certificate(
            *figures, dtype, self.method, versions(), contrast_mass=mass, fallback_shares=shares
        )

    def warn(self, stacklevel: int = 2) -> None:
        """Warn of figures beyond their limits."""
        messages = []
        if self.conservation_error > CONSERVATION_LIMIT:
            known = knows_float64(self.maps.device)
            way = "use float64 or no TF32" if known else "use float64 on the CPU"
            messages.append(f"relevance is conserved only to {self.conservation_error:.1e}; {way}")
        fallback = float(self.fallback_share.max())
        if fallback > FALLBACK_LIMIT:
            messages.append(
                f"{fallback:.0%} of the relevance met units that their biases decided, without a "
                "contribution that agrees with their sign; read the heatmap with care"
            )
        for message in messages:
            warnings.warn(message, AttributionWarning, stacklevel=stacklevel + 1)
