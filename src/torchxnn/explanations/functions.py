"""How an image, a text or a row is explained, from the numbers of one forward pass and its maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from torchxnn.attribution.base import Certificate
from torchxnn.attribution.methods import attributor
from torchxnn.attribution.tokens_and_rows import (
    DEFAULT,
    attribute_rows,
    attribute_tokens,
    find_token_embedding,
)
from torchxnn.errors import DataError
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.maps import Units, default_method, run_with_maps
from torchxnn.explanations.text_table import TableExplanation, TextExplanation
from torchxnn.explanations.verdict import Label, truth, verdict
from torchxnn.explanations.volume import VolumeExplanation
from torchxnn.models.attached import FittedXNN, NamedXNN, XNNOutput
from torchxnn.models.inputs import kind_of
from torchxnn.models.preprocessing import Preprocessing


@overload
def attribute(
    xnn: FittedXNN,
    images: Tensor,
    method: str | None = None,
    return_certificate: Literal[False] = False,
) -> Float[Tensor, "batch features *map"]: ...


@overload
def attribute(
    xnn: FittedXNN, images: Tensor, method: str | None = None, *, return_certificate: Literal[True]
) -> tuple[Float[Tensor, "batch features *map"], Certificate]: ...


def attribute(
    xnn: FittedXNN, images: Tensor, method: str | None = None, return_certificate: bool = False
) -> Any:
    """One heatmap per x-feature on each image, summed over colour channels.

    Excitation backprop draws all n maps from one forward pass. On a convolutional layer the unit
    explained is the x-feature's map weighted by how much each position contributes
    (`ConvSRAE.salience`), so that the heatmap shows where the contribution comes from.

    Args:
        xnn: fitted.
        images: (B, C, H, W); or token ids (B, T), or rows (B, D).
        method: name in `attribution.METHODS`; None takes `default_method` for images, integrated
            gradients for ids and rows.
        return_certificate: also return the `Certificate`.

    Returns:
        (B, n, H, W), of ids (B, n, T), of rows (B, n, D); signed, and for images summing to 0 with
        (contrastive) excitation backprop.

    Raises:
        UnsupportedOperationError: an operation without a rule lies on the way.
    """
    features, units = range(xnn.fitted().n_features), Units(xnn.attached, xnn.fitted())
    if kind_of(images) != "image":
        found = attribute_entries(units, xnn.attached.model, images, features, method)
        return found if return_certificate else found[0]
    drawing: Any = attributor(method or default_method(xnn.fitted()), units)
    return drawing.attribute_many(images, features, return_certificate)


@torch.no_grad()
def explain_image(
    xnn: NamedXNN,
    image: Tensor,
    *,
    picture: np.ndarray | None = None,
    label: Label | None = None,
    path: str | None = None,
    method: str | None = None,
) -> Explanation | VolumeExplanation:
    """Explain one image: contributions, heatmaps, the original logit's map, certificate.

    Of a volume, such as a CT scan, slices are drawn; the maps are of every voxel.

    Args:
        xnn: fitted.
        image: (C, H, W), preprocessed; or a volume (C, D, H, W).
        picture: uint8 (H, W, 3), of a volume (D, H, W, 3), to draw on; None undoes the
            preprocessing.
        label: true class, if known, for the caption; or multi-hot labels, or the true value.
        path: where the image came from, for the caption.
        method: name of the attribution method in `METHODS`; None takes `default_method`.

    Raises:
        DataError: not one image, or not one that the model can take.

    Example:
        >>> xnn.explain(image, label=47).save("goldfinch")
    """
    if not isinstance(image, Tensor):
        raise DataError(
            f"explain takes one image as a tensor (C, H, W), prepared as for the model, got a "
            f"{type(image).__name__}"
        )
    if image.ndim not in (3, 4):
        raise DataError(
            f"explain takes one image (C, H, W) or volume (C, D, H, W), got shape "
            f"{tuple(image.shape)}"
        )
    batch = image.unsqueeze(0)
    try:
        found = run_with_maps(xnn, batch, method, logits=xnn.targets, certify=True)
    except DataError as error:
        if image.ndim == 3:
            raise
        raise DataError(
            f"explain takes one image (C, H, W), or a volume where the model does: {error}"
        ) from error
    drawn = draw_input(image.flatten(1, -2), xnn.preprocessing).reshape(*image.shape[1:], 3)
    shared: Any = {
        "heatmaps": found.heatmaps[0],
        "logit_heatmaps": found.logit_heatmaps[0],
        "certificate": cast(Certificate, found.certificate),
        **reasons(xnn, found.output, label, path),
    }
    if image.ndim == 4:
        return VolumeExplanation(volume=drawn if picture is None else picture, **shared)
    return Explanation(image=drawn if picture is None else picture, **shared)


@torch.no_grad()
def explain_text(
    xnn: NamedXNN,
    ids: Tensor,
    tokens: Sequence[str],
    *,
    label: Label | None = None,
    path: str | None = None,
    method: str = DEFAULT,
    baseline: int | None = None,
    token_layer: str | nn.Module | None = None,
) -> TextExplanation:
    """Explain one text: contributions, and what each token adds to each x-feature.

    Args:
        xnn: fitted, of a network of token ids (B, T).
        ids: (T,), int64 or int32, as the model takes them in a batch (B, T).
        tokens: T strings for people.
        label: as in `explain_image`.
        path: as in `explain_image`.
        method: integrated gradients certify that they add up. Excitation backprop has rules for
            attention and refuses recurrent layers.
        baseline: id of the token to compare with, such as the padding; None is a zero vector.
        token_layer: the layer that embeds the ids, if there is doubt.

    Raises:
        DataError: ids that are not integers (T,), or another number of tokens.
        LayerError: it is not clear which layer embeds the tokens.

    Example:
        >>> xnn.explain_text(ids, ["a", "normal", "distribution"]).to_html("why.html")
    """
    if ids.ndim != 1 or kind_of(ids.unsqueeze(0)) != "text":
        raise DataError(
            f"explain_text takes the integer ids (T,) of one text, got {ids.dtype} of shape "
            f"{tuple(ids.shape)}"
        )
    found = _explain_entries(xnn, ids, label, path, method, baseline, token_layer)
    return TextExplanation(entries=tuple(tokens), **found)


@torch.no_grad()
def explain_row(
    xnn: NamedXNN,
    row: Tensor,
    names: Sequence[str],
    *,
    values: Iterable[float] | None = None,
    label: Label | None = None,
    path: str | None = None,
    method: str = DEFAULT,
    baseline: float | Float[Tensor, " dims"] | None = None,
) -> TableExplanation:
    """Explain one row of a table: contributions, and what each column adds to each x-feature.

    Args:
        xnn: fitted, of a network of rows (B, D).
        row: (D,), floating point, in the scale of the model's input.
        names: of the D columns.
        values: the row's values as people know them, in their own units; None shows `row`.
        label: as in `explain_image`.
        path: as in `explain_image`.
        method: name in `METHODS`.
        baseline: what the row is compared with; None is zero, the mean of standardised columns.

    Raises:
        DataError: not one row of floating point numbers, or another number of names.

    Example:
        >>> xnn.explain_row(row, data.feature_names).plot()
    """
    if row.ndim != 1 or not row.is_floating_point():
        raise DataError(
            f"explain_row takes one floating point row (D,), got {row.dtype} of shape "
            f"{tuple(row.shape)}"
        )
    found = _explain_entries(xnn, row, label, path, method, baseline)
    shown = row.float() if values is None else torch.tensor([float(v) for v in values])
    return TableExplanation(entries=tuple(str(name) for name in names), values=shown, **found)


def _explain_entries(
    xnn: NamedXNN, entries: Tensor, label: Label | None, path: str | None, *options: Any
) -> dict[str, Any]:
    """What explanations of a text and of a row share; options as of `attribute_entries`."""
    batch = entries.unsqueeze(0)
    numbers = reasons(xnn, xnn.run(batch), label, path)
    features, model = range(xnn.fitted().n_features), xnn.attached.model
    units = Units(xnn.attached, xnn.fitted())
    own, certificate = attribute_entries(units, model, batch, features, *options)
    logits, _ = attribute_entries(model, model, batch, xnn.targets, *options)
    found = {"attributions": own[0], "logit_attributions": logits[0], "certificate": certificate}
    return numbers | found


def reasons(
    xnn: NamedXNN, output: XNNOutput, label: Label | None = None, path: str | None = None
) -> dict[str, Any]:
    """The fields of `Reasons`, but the certificate, that the output for a batch of one gives."""
    report = xnn.report
    return {
        "features": output.features[0],
        "contributions": output.contributions[0],
        "intercept": xnn.fitted().intercept,
        "anchored": bool(xnn.fitted().anchored),
        "targets": xnn.targets,
        "target_names": tuple(xnn.target_name(target) for target in xnn.targets),
        "logits": output.logits[0, list(xnn.targets)],
        "reproduced": output.reproduced[0],
        **verdict(xnn, output),
        "feature_names": xnn.names.shown(),
        "faithfulness": report.validation if report else None,
        "degenerate": report.degenerate if report else (),
        "found_again": report.found_again if report else (),
        "not_resampled": report.not_resampled if report else "",
        "among_positives": report.among_positives if report else (),
        "label": None if label is None else truth(xnn, label),
        "outputs_are": xnn.meaning.outputs_are,
        "scale": xnn.meaning.scale,
        "path": path,
    }


def attribute_entries(
    network: nn.Module,
    model: nn.Module,
    batch: Tensor,
    targets: Sequence[int],
    method: str | None = None,
    baseline: Any = None,
    token_layer: str | nn.Module | None = None,
) -> tuple[Float[Tensor, "batch targets entries"], Certificate]:
    """What each token of texts (B, T), or each column of rows (B, D), adds to each output.

    Args:
        network: whose outputs are explained: the XNN, or the model itself.
        model: the explained model, in which the tokens are embedded.
        batch: token ids or rows.
        targets: output indices of the network.
        method: name in `METHODS`; None takes integrated gradients.
        baseline: what the input is compared with, see `attribute_tokens` and `attribute_rows`.
        token_layer: the layer that embeds the ids, if there is doubt.
    """
    method = method or DEFAULT
    if kind_of(batch) == "row":
        return attribute_rows(network, batch, list(targets), method, baseline)
    embedding = find_token_embedding(model, batch, token_layer)
    return attribute_tokens(network, embedding, batch, list(targets), method, baseline)


def draw_input(
    image: Float[Tensor, "channels height width"], preprocessing: Preprocessing | None
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture that a network's input shows: without the normalisation, or else stretched."""
    if preprocessing is not None and image.shape[0] == preprocessing.channels:
        return preprocessing.picture(image)
    low, high = image.min(), image.max()
    grey = ((image - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu()
    grey = grey[:3] if image.shape[0] >= 3 else grey[:1].expand(3, -1, -1)
    return grey.permute(1, 2, 0).contiguous().numpy()
