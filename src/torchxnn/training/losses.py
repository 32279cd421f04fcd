"""The three terms of the SRAE objective (paper eq. 5) as pure functions of tensors.

All three take the same sample weights and all are better when lower. The last two are functions of
*means over the training set* (reconstruction errors Q, second moments of E), so each comes as a
function of the mean, and the mean as a function of the samples: a mini-batch can then estimate the
mean while the concave log and the quotients are taken at the training set's value.

Every tensor may have further dimensions in front, one entry per fit: many fits are then computed at
once, each as if it were alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from torchxnn.embeddings.linear import products, weighted_mean

NORM_FLOOR = 1e-12
"""Mean square below which an x-feature counts as dead, and share of it that rounding may leave."""


def faithfulness(
    reproduced: Float[Tensor, "*fits samples targets"],
    logits: Float[Tensor, "*fits samples targets"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits"]:
    r"""Squared error of the logits, :math:`\frac1M\sum_i\|v^\top E^{(i)}-\hat y^{(i)}\|^2`.

    Source: paper eq. 1 and first term of eq. 5. Lower is better; unit: squared logits.
    """
    return weighted_mean((reproduced - logits).square(), weights).sum(-1)


def reconstruction_errors(
    reconstruction: Float[Tensor, "*fits samples dims"],
    activations: Float[Tensor, "*fits samples dims"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits dims"]:
    r"""Mean squared error per dimension, :math:`Q_k=\frac1M\sum_i(\tilde Z_k^{(i)}-Z_k^{(i)})^2`.

    Source: paper eq. 2. Lower is better; unit: squared activations.
    """
    # one pass forwards and one backwards; a difference, its square and their gradients take six
    squares = mse_loss(reconstruction, activations, reduction="none")
    if weights is None:
        return squares.sum(-2) / squares.shape[-2]  # the gradient of a mean would be a full tensor
    return weighted_mean(squares, weights)


def sparse_reconstruction(errors: Float[Tensor, "*fits dims"], q: float) -> Float[Tensor, "*fits"]:
    r"""Log penalty on the reconstruction errors, :math:`\frac1{S_z}\sum_k\log(1+q\,Q_k)`.

    Source: paper eq. 2 and second term of eq. 5. Lower is better. As q goes to 0 the penalty
    divided by q tends to the plain mean squared error of an autoencoder.

    Args:
        errors: Q, (..., S_z), means over the *training set*; log is concave, so the mean of the
            penalties of mini-batches lies below the penalty of the means.
        q: sparsity parameter, > 0.
    """
    return torch.log1p(q * errors).mean(-1)


def pull_away(
    moments: Float[Tensor, "*fits features features"],
    means: Float[Tensor, "*fits groups features"] | None = None,
    shares: Float[Tensor, "*fits groups"] | None = None,
) -> Float[Tensor, "*fits"]:
    r"""Mean squared cosine between different x-features.

    .. math:: \frac1{n(n-1)}\sum_l\sum_{l'\ne l}
              \left(\frac{E_l^\top E_{l'}}{\|E_l\|\|E_{l'}\|}\right)^2

    Source: paper eq. 3. Lower is better, in [0, 1]. A vector of norm 0 (a dead x-feature) counts
    as cosine 1 with every other one. With n = 1 the term is 0.

    X-features are >= 0, so plain cosines vanish only if no two of them are ever active on the same
    image, which fights explanations by several concepts. Centred by the overall mean, cosines are
    correlations; but whatever is active on the positives and not elsewhere is correlated, so one
    x-feature that carries the logit alone still has the lowest penalty. Centred within each group
    (the positives of each target, and all others), only what varies *among* the positives counts:
    several x-features may be active on all of them.

    Args:
        moments: (..., n, n), :func:`second_moments` of E.
        means: (..., c, n), :func:`group_moments` of E; None leaves the vectors as they are.
        shares: (..., c), total weight of each group, sum 1; 0 for a group that is not there; None
            for a single group.
    """
    n = moments.shape[-1]
    if n == 1:
        return moments.new_zeros(moments.shape[:-2])
    centred = moments
    if means is not None:
        counts = torch.ones_like(means[..., 0]) if shares is None else shares
        inverse = torch.where(counts > 0, 1 / counts.clamp(min=NORM_FLOOR), 0.0)
        centred = moments - products(means.mT, means * inverse.unsqueeze(-1))
    variances = centred.diagonal(dim1=-2, dim2=-1)
    of_moments = moments.diagonal(dim1=-2, dim2=-1)
    floor = NORM_FLOOR + (1e-6 * of_moments if means is not None else 0.0)
    alive = variances > floor
    both = alive.unsqueeze(-2) & alive.unsqueeze(-1)
    norms = torch.where(alive, variances, 1.0).sqrt()
    cosines = centred / norms.unsqueeze(-2) / norms.unsqueeze(-1)
    squared = torch.where(both, cosines.square(), torch.ones_like(cosines))
    different = 1 - torch.eye(n, dtype=moments.dtype, device=moments.device)
    return (squared * different).sum((-2, -1)) / (n * (n - 1))
