r"""Attributions to the tokens of a text or to the features of a row, by the methods for images.

A method in `METHODS` gives a map of (B, C, H, W) and sums over C. A row of D features is an image
(1, 1, D), one pixel high and without colour. A text of T tokens, each embedded in d dimensions, is
an image (d, 1, T): the network is entered behind the embedding of its tokens, and the sum over C
is the usual sum over the embedding's dimensions, for integrated gradients

.. math:: A_t = \sum_j (x_{tj} - b_j) \int_0^1 \partial_{tj} f(b + s (x - b))\,ds .

So signs, certificates and refusals are those of the methods, and no method is written twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchxnn.attribution.base import Attributor, Certificate
from torchxnn.attribution.methods import attributor
from torchxnn.errors import LayerError, XNNError
from torchxnn.models.hooks import preserve_state, replace_output, run_watched, watch_inputs
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import resolve_layer, unwrap

DEFAULT = "integrated_gradients"
UNSUITED = {
    "grad_cam": "it enlarges the feature maps of a convolutional layer",
    "rise": "its masks are smooth in two dimensions",
    "removal": "it cuts pictures into segments",
}


class TokensAsImages(nn.Module):
    """A network entered behind the embedding of its tokens, to be called with (B, d, 1, T).

    It still gets the ids, from which it may compute positions and masks; what its embedding returns
    is replaced while this runs, in this thread.

    Args:
        network: takes token ids.
        embedding: the layer that embeds them, somewhere inside the network.
        ids: (1, T), of the text that is explained.
    """

    def __init__(
        self, network: nn.Module, embedding: nn.Module, ids: Int[Tensor, "1 tokens"]
    ) -> None:
        super().__init__()
        self.network = network
        self._fixed = (embedding, ids)  # a tuple: not registered a second time

    def forward(self, images: Float[Tensor, "batch dims 1 tokens"]) -> Tensor:
        """The network's outputs."""
        embedding, ids = self._fixed
        vectors = images.squeeze(2).transpose(1, 2)
        # cuDNN has no backward pass of recurrent layers in evaluation mode.
        with (
            replace_output(embedding, lambda _: vectors),
            torch.backends.cudnn.flags(enabled=False),
        ):
            return self.network(ids.expand(len(images), -1))


def attribute_rows(
    network: nn.Module,
    rows: Float[Tensor, "batch features"],
    targets: Sequence[int],
    method: str = DEFAULT,
    baseline: float | Float[Tensor, " features"] | None = None,
) -> tuple[Float[Tensor, "batch targets features"], Certificate]:
    """What each feature of a row adds to each output, signed.

    Args:
        network: takes rows, returns (B, k).
        rows: in the scale of the network's input.
        targets: n output indices.
        method: name in `METHODS`.
        baseline: what the row is compared with, by methods that compare; None takes zeros, the
            mean of standardised features.

    Returns:
        (B, n, D), and the certificate.

    Raises:
        XNNError: an unknown method, or one that needs pictures.
        UnsupportedOperationError: the method has no rule for an operation of the network.
    """
    if isinstance(baseline, Tensor):
        baseline = baseline.reshape(1, 1, -1)
    of_images = nn.Sequential(OrderedDict(flatten=nn.Flatten(), network=network))
    found, images = _method(method, of_images, baseline), rows[:, None, None, :]
    maps, certificate = found.attribute_many(images, targets, return_certificate=True)
    return maps.squeeze(2), certificate


def attribute_tokens(
    network: nn.Module,
    embedding: nn.Module,
    ids: Int[Tensor, "batch tokens"],
    targets: Sequence[int],
    method: str = DEFAULT,
    baseline: int | None = None,
) -> tuple[Float[Tensor, "batch targets tokens"], Certificate]:
    """What each token of a text adds to each output, signed; texts are taken one by one.

    Args:
        network: takes token ids, returns (B, k).
        embedding: the layer that embeds the tokens, see `find_token_embedding`.
        ids: texts of one length.
        targets: n output indices.
        method: name in `METHODS`.
        baseline: id of the token that methods compare with, such as the padding; None takes a zero
            vector.

    Returns:
        (B, n, T), and the certificate, of the worst text.

    Raises:
        XNNError: an unknown method, or one that needs pictures.
        UnsupportedOperationError: the method has no rule for an operation of the network.
    """
    maps, certificates = [], []
    for one in ids.split(1):
        vectors = _embed(embedding, one)
        start = None
        if baseline is not None:
            start = _embed(embedding, one.new_tensor([[baseline]])).reshape(-1, 1, 1)
        found = _method(method, TokensAsImages(network, embedding, one), start)
        images = vectors.transpose(1, 2).unsqueeze(2)
        part, certificate = found.attribute_many(images, targets, return_certificate=True)
        maps.append(part.squeeze(2))
        certificates.append(certificate)
    return torch.cat(maps), _worst(certificates)


@torch.no_grad()
def _embed(embedding: nn.Module, ids: Tensor) -> Tensor:
    with preserve_state(embedding):
        return embedding(ids).clone()


def find_token_embedding(
    model: nn.Module, ids: Int[Tensor, "batch tokens"], layer: str | nn.Module | None = None
) -> nn.Module:
    """The layer of a model that embeds token ids.

    Args:
        model: takes token ids.
        ids: an example.
        layer: its dotted name or the submodule itself; None takes the `nn.Embedding` that is given
            the ids as they are (that of the positions is not).

    Raises:
        LayerError: no layer or several embed the ids.
        DataError: ids that the model has no embedding for.
    """
    if layer is not None:
        return resolve_layer(model, layer)[1]
    check_inputs(model, ids)
    inner = unwrap(model)
    seen: list[str] = []
    tables = {n: m for n, m in inner.named_modules() if isinstance(m, nn.Embedding)}

    def note(name: str, given: tuple[Any, ...]) -> None:
        first = given[0] if given else None
        if isinstance(first, Tensor) and first.shape == ids.shape and torch.equal(first, ids):
            seen.append(name)

    with torch.no_grad():
        run_watched(inner, ids, [watch_inputs(m, partial(note, n)) for n, m in tables.items()])
    if len(seen) != 1:
        found = ", ".join(repr(name) for name in seen) or "none"
        raise LayerError(
            f"the tokens must be embedded by one nn.Embedding that runs once on the ids (B, T); "
            f"found: {found}; name it with token_layer="
        )
    return tables[seen[0]]


def _method(name: str, network: nn.Module, baseline: float | Tensor | None) -> Attributor:
    if name in UNSUITED:
        raise XNNError(f"{name} needs pictures: {UNSUITED[name]}; use {DEFAULT}")
    if baseline is None:
        return attributor(name, network)
    try:
        return attributor(name, network, baseline=baseline)
    except TypeError as error:
        raise XNNError(f"{name} compares with no baseline; leave it out") from error


def _worst(certificates: Sequence[Certificate]) -> Certificate:
    worst: dict[str, Any] = {}
    for name in ("conservation_error", "fallback_share", "completeness_error"):
        known = [value for c in certificates if (value := getattr(c, name)) is not None]
        worst[name] = max(known, default=None)
    shares = [c.fallback_shares for c in certificates if c.fallback_shares is not None]
    worst["fallback_shares"] = tuple(map(max, zip(*shares, strict=True))) if shares else None
    masses = [c.contrast_mass for c in certificates if c.contrast_mass is not None]
    if masses:
        worst["contrast_mass"] = tuple(map(_least, zip(*masses, strict=True)))
    return replace(certificates[0], **worst)


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
