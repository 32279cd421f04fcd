"""The device of a fit, refused in one line where it is not there."""

from __future__ import annotations

import torch

from torchxnn.errors import XNNError, first_line
from torchxnn.training.config import ComputeConfig

WAY_OUT = "leave out --device (in Python, ComputeConfig(device=...)) to fit on the CPU"


def fit_device(compute: ComputeConfig) -> torch.device:
    """The device that fits are to be computed on.

    Raises:
        XNNError: PyTorch knows no such device, or this machine does not have it, or `compile` is
            wanted on Apple's GPUs (MPS), where PyTorch's compiler is unfinished (its issue 150121).
    """
    device = _named(compute.device)
    missing = _why_missing(device)
    if missing:
        raise XNNError(f"there is no device {compute.device!r} here: {missing}; {WAY_OUT}")
    if compute.compile and device.type == "mps":
        raise XNNError(
            f"compile is not for device {compute.device!r}: PyTorch's compiler for Apple's GPUs is "
            "unfinished; leave out --compile (in Python, compile=True)"
        )
    return device


def check_worker_device(compute: ComputeConfig) -> None:
    """Refuse a device of fits on other machines that no worker there can have.

    Whether they have the others each worker finds out for itself; each sees one GPU, its own.

    Raises:
        XNNError: PyTorch knows no such device, it holds no values, or it is one GPU of several.
    """
    device = _named(compute.device)
    if device.type == "meta":
        fit_device(compute)
    if device.type == "cuda" and device.index is not None:
        raise XNNError(
            f"device {compute.device!r} is one GPU of this machine, and every worker of another "
            "engine has its own: say cuda"
        )


def _named(name: str) -> torch.device:
    """A device by its name, wherever it is."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise XNNError(
            f"{name!r} is no device that PyTorch knows (cpu, cuda, cuda:1, mps); {WAY_OUT}"
        ) from error


def _why_missing(device: torch.device) -> str:
    """Why this machine has no such device; empty if it has. No process holds the device for it."""
    if device.type == "cpu":
        return ""
    if device.type == "cuda":
        return _why_no_cuda(device)
    if device.type == "mps":
        return _why_no_mps(device)
    if device.type == "meta":
        return "it holds no values"
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # each kind of device has errors of its own
        return first_line(error) or type(error).__name__
    return ""


def _why_no_cuda(device: torch.device) -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > (device.index or 0):
        return ""
    if count:
        known = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        return f"PyTorch finds {count} GPU{'s' * (count > 1)}, {known}"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} was built without CUDA"
    return f"PyTorch {torch.__version__} finds no GPU (is its driver installed?)"


def _why_no_mps(device: torch.device) -> str:
    if not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        why = "finds no GPU of Apple" if built else "was built without MPS, which only Macs have"
        return f"PyTorch {torch.__version__} {why}"
    return "a Mac has one GPU, mps:0" if device.index else ""
