"""What Apple's GPUs refuse under the oldest PyTorch that we allow, 2.8.

Operations: those of `native_functions.yaml` in the wheel of PyTorch 2.8.0 that have a kernel for
the CPU, none for MPS and none that is composed of others; on a Mac they raise
`NotImplementedError`. Left out are quantised, nested and sparse tensors, and what the CPU alone
chooses by itself (`..._for_cpu`, `mkldnn...`, `slow_conv...`). `_linalg_svd` is not among them: it
runs on the CPU by itself (`MPSFallback.mm`). PyTorch 2.14 has kernels for many of these.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NO_FLOAT64 = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)

UNKNOWN = (torch.float64, torch.complex128)
"""Precisions that no tensor there may have."""

_NAMES = """
_adaptive_avg_pool3d _adaptive_avg_pool3d_backward _add_relu _add_relu_ _aminmax _assert_async
_cdist_backward _cholesky_solve_helper _compute_linear_combination _ctc_loss _ctc_loss_backward
_dirichlet_grad _embedding_bag _embedding_bag_backward _embedding_bag_dense_backward
_embedding_bag_forward_only _embedding_bag_per_sample_weights_backward _linalg_eigh _linalg_eigvals
_logcumsumexp _masked_softmax _masked_softmax_backward _native_multi_head_attention _pdist_backward
_pdist_forward _sample_dirichlet _segment_reduce_backward _standard_gamma _standard_gamma_grad
_transform_bias_rescale_qkv _transformer_encoder_layer_fwd _unique _upsample_bicubic2d_aa_backward
_upsample_bilinear2d_aa_backward adaptive_avg_pool3d adaptive_avg_pool3d_backward
adaptive_max_pool3d adaptive_max_pool3d_backward avg_pool3d avg_pool3d_backward
batch_norm_update_stats binomial cauchy_ channel_shuffle cholesky_inverse embedding_renorm_
fractional_max_pool2d fractional_max_pool2d_backward fractional_max_pool3d
fractional_max_pool3d_backward frexp gcd gcd_ geometric_ geqrf glu_backward_jvp glu_jvp
grid_sampler_2d_backward grid_sampler_3d grid_sampler_3d_backward heaviside heaviside_ igamma
igamma_ igammac igammac_ index_reduce index_reduce_ kthvalue lcm lcm_ linalg_eig linalg_eigvals
linalg_householder_product linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu
linalg_lu_solve linalg_matrix_exp linalg_qr log_normal_ logit_ logspace max_pool3d_with_indices
max_pool3d_with_indices_backward max_unpool2d max_unpool3d mode multi_margin_loss
multi_margin_loss_backward multilabel_margin_loss_backward multilabel_margin_loss_forward mvlgamma
native_dropout native_dropout_backward native_group_norm_backward nonzero_static ormqr poisson put_
rrelu_with_noise rrelu_with_noise_ segment_reduce take unique_dim vdot
"""

MISSING = frozenset(_NAMES.split())

OTHERWISE_COMPOSED = {"quantile", "nanquantile"}
"""Functions that run on MPS, and are composed of float64 on the CPU alone."""

_AVERAGES = {"_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward"}
_MAXIMA = {"adaptive_max_pool2d"}


def refuse(name: str, args: Any, dtype: torch.dtype | None) -> None:
    """Raise what MPS raises for an operation by its name, or do nothing.

    Its arguments and the precision of its first tensor say whether it is one of the forms that MPS
    refuses; `AdaptivePooling.mm` and `Convolution.mm` of PyTorch 2.8.0 have the messages.
    """
    if name in MISSING:
        raise NotImplementedError(
            f"The operator 'aten::{name}' is not currently implemented for the MPS device."
        )
    if name in _AVERAGES | _MAXIMA and not _divisible(name, args):
        # of maxima MPS returns the wrong ones, up to 2.13 (PyTorch's issue 190064)
        raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes.")
    if name == "convolution" and dtype is not None and not dtype.is_floating_point:
        raise RuntimeError("convolution of integers is not supported on MPS")


def _divisible(name: str, args: Any) -> bool:
    if name.endswith("backward"):
        outputs, inputs = args[0].shape[-2:], args[1].shape[-2:]
    else:
        inputs, outputs = args[0].shape[-2:], args[1]
    return all(
        max(one, other) % min(one, other) == 0 for one, other in zip(inputs, outputs, strict=True)
    )


def check_precision(tensor: Tensor) -> None:
    """Raise what MPS raises of a tensor that it cannot hold."""
    if tensor.dtype in UNKNOWN:
        raise TypeError(NO_FLOAT64)
