"""Errors that a user can act on: each message names the offending thing and the way out.

The command line turns every `XNNError` into one line and exit code 2.
"""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def near_ones(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.6) -> str:
    """The end of a message about a name that is not known: those most like it, if there are any."""
    near = difflib.get_close_matches(name, list(known), most, cutoff)
    return f"; near ones: {', '.join(near)}" if near else ""


def where_and_why(error: Exception) -> str:
    """An exception of somebody else's code in one line, with the place where it was raised.

    The place is the last one outside PyTorch and this package, if there is any.
    """
    places = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("torch", "torchxnn")
    ]
    first = first_line(error)
    kind, place = type(error).__name__, places[-1] if places else ""
    return f"{kind}: {first}{place}" if first else f"{kind}{place}"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, which may be empty."""
    return (str(error).splitlines() or [""])[0]


def check_finite(complaint: str, *tensors: Any) -> None:
    """Raise `NonFiniteError` with a complaint if one of the tensors holds NaN or infinity."""
    for tensor in tensors:
        # the extremes show NaN and infinity, too, and need no copy of activations
        if tensor.numel() and not (tensor.amin().isfinite() & tensor.amax().isfinite()):
            raise NonFiniteError(complaint)


class XNNError(ValueError):
    """Base of all errors that torchxnn raises about its input."""


class LayerError(XNNError):
    """A layer that does not exist, does not run, runs more than once, or has no usable output."""


class ModelError(XNNError):
    """A model that cannot be built, loaded, or does not fit what was saved."""


class DataError(XNNError):
    """Images, labels or activations that cannot be used."""


class UnsupportedOperationError(XNNError):
    """An operation for which an attribution method has no rule."""


class NonFiniteError(XNNError):
    """NaN or infinity where a finite number is needed."""


class WorkerError(XNNError):
    """A job that could not be done because its workers were lost, or no worker could be started."""


class XNNWarning(UserWarning):
    """Base of all warnings that torchxnn gives."""


class DegenerateFitWarning(XNNWarning):
    """A fit that explains little: fewer than two active x-features, or unfaithful."""


class AttributionWarning(XNNWarning):
    """A heatmap whose certificate is worse than it should be."""


class WorkerWarning(XNNWarning):
    """A worker was lost, and its job is done again."""


class SkippedImagesWarning(XNNWarning):
    """Images that could not be read and were left out."""
