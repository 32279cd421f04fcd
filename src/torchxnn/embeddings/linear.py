"""Means, moments and linear maps in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.exact import back, exact, exact_device
from torchxnn.embeddings.wide import Rows, solve_wide
from torchxnn.errors import DataError, check_finite


def weighted_mean(
    values: Float[Tensor, "*fits samples dims"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits dims"]:
    r"""Mean over the samples, :math:`\sum_i w_i x_i / \sum_i w_i`.

    Weights are non-negative, of any scale; None weighs all samples alike.
    """
    if weights is None:
        return values.mean(-2)
    return (normalised(weights).unsqueeze(-2) @ values).squeeze(-2)


def normalised(weights: Float[Tensor, "*fits samples"]) -> Float[Tensor, "*fits samples"]:
    """Weights (..., M) divided by their sum."""
    return weights / weights.sum(-1, keepdim=True)


def deviation(activations: Float[Tensor, "samples dims *point"]) -> Float[Tensor, ""]:
    """Root of the mean variance of Z; 1 if nothing varies."""
    variance = activations.var(0, correction=0).mean()
    return variance.sqrt() if variance > 0 else torch.ones_like(variance)


def second_moments(
    features: Float[Tensor, "*fits samples features"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits features features"]:
    r"""Mean outer product :math:`\frac1M\sum_i E^{(i)}E^{(i)\top}`, (..., n, n)."""
    return group_moments(features, features, weights)


def group_moments(
    features: Float[Tensor, "*fits samples features"],
    groups: Float[Tensor, "*fits samples groups"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits groups features"]:
    r"""First moments by group (one-hot), :math:`\frac1M\sum_i g^{(i)}_c E^{(i)}`, (..., c, n)."""
    root = torch.full_like(features[..., 0], 1.0) if weights is None else weights
    return products(groups.mT, features * normalised(root).unsqueeze(-1))


SMALL = 2**20
"""Multiplications of one matrix product up to which `products` computes it by itself on a CPU."""

ALIGNED = 16
"""Numbers from one address to the next at which a tensor's memory may begin."""


def products(
    left: Float[Tensor, "*fits rows inner"],
    right: Float[Tensor, "*fits inner columns"],
    added: Float[Tensor, "fits 1 columns"] | None = None,
) -> Float[Tensor, "*fits rows columns"]:
    """`left @ right`, where a fit's product has the same bits whatever lies beside it.

    (G, M, d) times (G, d, n) gives (G, M, n) for G fits; without G it is one product. With `added`,
    (G, 1, n), this is added to every row. Of several small matrices MKL computes the products
    in another order than that of one, and training carries the last digit on to the third; so on a
    CPU every fit's small product is computed by itself. A large one is the same in either way.
    Compiled code has the order of its compiler, so nothing is taken apart for it.
    """
    many = left.ndim == 3 and len(left) > 1 and left.device.type == "cpu"
    many = many and not torch.compiler.is_compiling()
    if not many or left.shape[1] * left.shape[2] * right.shape[2] > SMALL:
        return left @ right if added is None else torch.baddbmm(added, left, right)
    parts = zip(_apart(left), _apart(right), strict=True)
    if added is None:
        found = [one @ other for one, other in parts]
    else:
        both = zip(_apart(added), parts, strict=True)
        found = [torch.baddbmm(more, *pair) for more, pair in both]
    if found[0].requires_grad and found[0].numel() % ALIGNED:
        for part in found:
            part.register_hook(torch.clone)  # as `_apart` does, for the gradients
    return torch.cat(found)


def _apart(stacked: Float[Tensor, "fits rows columns"]) -> list[Tensor]:
    """The matrix of each fit, (1, rows, columns), at an address where it would lie if alone."""
    parts = stacked.split(1)
    return list(parts) if stacked[0].numel() % ALIGNED == 0 else [part.clone() for part in parts]


CONSTANT = 1e-6
"""A feature whose deviation is a smaller share of its size than this is rounding noise."""

UNIQUE = 1e-10
"""Share of the mean variance of standardised features: makes the solution unique, no more."""

ROWS_AT_ONCE = 4096
"""Rows that a linear fit holds in float64 at once."""

WIDE = 2048
"""Most dimensions whose covariance is made whatever the number of samples."""

RIDGE = 1e-3
"""Share of the mean variance that is added to the diagonal when a linear map is fitted."""


STALE_PIVOTS = torch.torch_version.TorchVersion(torch.__version__) < "2.14"
"""Whether PyTorch hands LAPACK's gelsy, its default on a CPU, pivots that nobody has written: then
two calls differ in the last digits, and matrices without full rank may be solved wrongly (PyTorch's
issue 187411)."""


def lstsq(
    matrix: Float[Tensor, "rows columns"], wanted: Float[Tensor, "rows targets"]
) -> Float[Tensor, "columns targets"]:
    """The X (d, k) of least norm of :math:`A X - B`, for A (M, d) and B (M, k).

    It is the same in every call, also on a CPU where PyTorch's default driver is not; see
    `STALE_PIVOTS`. Values are not checked.
    """
    driver = "gelsd" if STALE_PIVOTS and matrix.device.type == "cpu" else None
    return torch.linalg.lstsq(matrix, wanted, driver=driver).solution


def fit_linear(
    inputs: Float[Tensor, "samples dims"],
    outputs: Float[Tensor, "samples targets"],
    weights: Float[Tensor, " samples"],
    ridge: float = RIDGE,
) -> tuple[Float[Tensor, "targets dims"], Float[Tensor, " targets"]]:
    """Weighted ridge regression, solved in float64 (see `exact`).

    Up to `WIDE` dimensions from their covariance, beyond it by `solve_wide`, which is the same
    solution in far less memory. The penalty `ridge` is a share of the mean variance of the inputs,
    (M, d).

    Returns:
        Weight (k, d) and intercept (k,), in the precision and on the device of the inputs.
    """
    weight, bias = exact_ridge(inputs, outputs, weights, ridge)
    return back(weight, inputs), back(bias, inputs)


def exact_ridge(
    inputs: Float[Tensor, "samples dims"],
    outputs: Float[Tensor, "samples targets"],
    weights: Float[Tensor, " samples"],
    ridge: float,
) -> tuple[Float[Tensor, "targets dims"], Float[Tensor, " targets"]]:
    """`fit_linear` before its result is rounded: in float64, on `exact_device` of the inputs.

    Raises:
        NonFiniteError: beyond `WIDE` dimensions, NaN or infinity.
    """
    outputs64, weights64 = exact(outputs), exact(weights)
    share = (weights64 / weights64.sum()).unsqueeze(1)
    mean_out = (share * outputs64).sum(0)
    if inputs.shape[1] > WIDE:
        rows = Rows.of(inputs, share)
        mean_in = rows.mean
        check_finite("Z or the outputs of a linear fit hold NaN or infinity", mean_in, mean_out)
        weight = solve_wide(rows, (outputs64 - mean_out) * rows.roots, ridge).mT
    else:
        mean_in, weight = _solve_narrow(inputs, outputs64 - mean_out, share, ridge)
    return weight, mean_out - weight @ mean_in


def _solve_narrow(
    inputs: Float[Tensor, "samples dims"],
    outputs: Float[Tensor, "samples targets"],
    share: Float[Tensor, "samples 1"],
    ridge: float,
) -> tuple[Float[Tensor, " dims"], Float[Tensor, "targets dims"]]:
    """The inputs' mean (d,), and a weight (k, d) for centred outputs by the covariance."""
    dims = inputs.shape[1]
    mean_in, covariance = share.new_zeros(dims), share.new_zeros(dims, dims)
    wanted = outputs * share
    cross = wanted.new_zeros(dims, outputs.shape[1])
    rows = [slice(at, at + ROWS_AT_ONCE) for at in range(0, len(inputs), ROWS_AT_ONCE)]
    for part in rows:  # inputs may be as large as memory allows, so a few rows in float64 at once
        mean_in += (share[part].mT @ exact(inputs[part]))[0]
    for part in rows:
        centred = exact(inputs[part]) - mean_in
        covariance += centred.mT @ (centred * share[part])
        cross += centred.mT @ wanted[part]
    damping = ridge * covariance.diagonal().mean() + torch.finfo(torch.float64).tiny
    covariance.diagonal().add_(damping)
    return mean_in, lstsq(covariance, cross).mT


def least_squares(
    features: Float[Tensor, "samples features"],
    outputs: Float[Tensor, "rows outputs"],
    weights: Float[Tensor, " samples"],
) -> tuple[Float[Tensor, "outputs features"], Float[Tensor, " outputs"]]:
    """Weighted least squares with an intercept, on standardised features, solved in float64.

    Features (M, n) may be in any units: concepts of small variance count as much as others.
    Weights are non-negative.

    Returns:
        Weight (k, n) and intercept (k,), in float64 (see `exact`). A feature that does not vary
        has weight 0.

    Raises:
        DataError: numbers of samples that do not match.
        NonFiniteError: NaN or infinity.
    """
    if len(features) != len(outputs):
        raise DataError(f"{len(features)} samples of features, but {len(outputs)} of outputs")
    for values, what in ((features, "features"), (outputs, "outputs")):
        check_finite(f"the {what} of a linear fit contain NaN or infinite values", values)
    features64, outputs64, weights64 = exact(features), exact(outputs), exact(weights)
    mean = weighted_mean(features64, weights64)
    centred = features64 - mean
    deviation = weighted_mean(centred.square(), weights64).sqrt()
    size = weighted_mean(features64.square(), weights64).sqrt()
    varies = deviation > CONSTANT * size
    weight = features64.new_zeros(outputs.shape[1], features.shape[1])
    if bool(varies.any()):
        scaled = centred[:, varies] / deviation[varies]
        weight[:, varies] = fit_linear(scaled, outputs64, weights64, UNIQUE)[0] / deviation[varies]
    return weight, weighted_mean(outputs64, weights64) - weight @ mean


def check_weights(
    weights: Float[Tensor, " entries"] | None, samples: Float[Tensor, "samples *rest"]
) -> Float[Tensor, " samples"]:
    """Sample weights in float64 (see `exact`), all 1 if there are none.

    Raises:
        DataError: not one per sample, negative, not finite, or all 0.
    """
    if weights is None:
        return torch.ones(len(samples), dtype=torch.float64, device=exact_device(samples.device))
    good = weights.shape == (len(samples),) and bool(
        (weights >= 0).all() & torch.isfinite(weights).all() & (weights.sum() > 0)
    )
    if not good:
        raise DataError(
            f"weights must be {len(samples)} finite numbers >= 0 with a positive sum, one per "
            f"sample; got shape {tuple(weights.shape)}, sum {float(weights.sum()):.3g}"
        )
    return exact(weights)
