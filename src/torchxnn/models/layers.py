"""Find a layer of a model, record what it gives, and run a model with another output of a layer.

Everything here works on somebody else's model and leaves it as it was; see `torchxnn.models.hooks`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import DataError, LayerError, ModelError, NonFiniteError
from torchxnn.models.compiled import named_modules, plain_name
from torchxnn.models.hooks import (
    in_precision_of,
    preserve_state,
    replace_output,
    run_watched,
    takes_shape,
    watch_output,
)
from torchxnn.models.outputs import as_logits, logits_of
from torchxnn.models.tokens import (
    gives_tokens,
    main_tensor,
    missing_token,
    put_token,
    read_token,
    split_token,
    with_main_tensor,
)


def flat_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop trailing dimensions of size 1, keeping the first: (512, 1, 1) becomes (512,)."""
    end = len(shape)
    while end > 1 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `DataParallel`, `DistributedDataParallel` and `torch.compile` wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner: Any = model.module
        else:
            inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def resolve_layer(model: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """Find a layer of a model, possibly wrapped, by dotted name or by the module itself.

    Returns:
        The dotted name (within the unwrapped model), with its token if it was given with one, and
        the module.

    Raises:
        LayerError: no such layer; the message lists the nearest names.
    """
    inner = unwrap(model)
    modules = named_modules(inner)
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is unwrap(layer):
                return name, module
        raise LayerError(
            f"the given {type(layer).__name__} is not part of the {type(inner).__name__}; "
            "pass one of its own submodules or a dotted name"
        )
    plain = plain_name(layer)
    for name in (plain, plain.removeprefix("module.")):
        dotted = name if name in modules else split_token(name)[0]
        if dotted and dotted in modules:
            return name, modules[dotted]
    raise LayerError(
        f"{type(inner).__name__} has no layer {layer!r}; nearest: "
        f"{_nearest(split_token(layer)[0], modules)} "
        "(`xnn layers MODEL` lists all)"
    )


def _nearest(layer: str, modules: dict[str, nn.Module]) -> str:
    names = [name for name in modules if name]
    close = difflib.get_close_matches(layer, names, n=5, cutoff=0.4)
    same_tail = [name for name in names if layer and name.rsplit(".", 1)[-1] == layer][:5]
    nearest = list(dict.fromkeys([*same_tail, *close]))[:5] or names[-5:]
    return ", ".join(repr(name) for name in nearest) or "none, the model has no submodules"


class _LayerReached(BaseException):
    """Stops a forward pass at the layer; not an `Exception`, so that no model swallows it."""


def _one_tensor(output: Any, name: str) -> Tensor:
    with_token = split_token(name)[1] is not None
    found = main_tensor(output) if with_token else output
    if not isinstance(found, Tensor):
        raise LayerError(
            f"layer {name!r} returns a {type(output).__name__}, not one tensor; choose a layer "
            "whose output is a tensor (`xnn layers MODEL` shows the shapes), or give --token if "
            "the first entry holds tokens"
        )
    return found


def as_activations(output: Tensor, name: str, images: Tensor) -> Float[Tensor, "batch dims *map"]:
    """One vector or one stack of maps per image: the two shapes that an XNN embeds.

    Args:
        output: what the layer returned: (B, d) and (B, d, 1, 1) give vectors (B, d), and
            (B, C, h, w) with several positions stays as it is; of tokens see `read_token`.
        name: the layer's name, with its token.
        images: what the model was given.

    Raises:
        LayerError: the layer has not a row per image, or it gives tokens (also as maps with the
            channels last) and the name does not say which, or says one that is not there.
    """
    if output.ndim < 2 or output.shape[0] != images.shape[0]:
        raise LayerError(
            f"layer {name!r} gives {tuple(output.shape)} for {len(images)} image(s), not a row per "
            "image (tokens or windows come first); choose a layer that keeps the images apart"
        )
    token = split_token(name)[1]
    if token is not None:
        return read_token(output, name, token, images)
    own = tuple(output.shape[1:])
    shape = flat_shape(own)
    if len(shape) == 1:
        return output.reshape(output.shape[0], shape[0])
    if gives_tokens(own, images):
        raise missing_token(name, own)
    if output.ndim != 4:
        raise LayerError(
            f"layer {name!r} gives {own} per image; an XNN needs one vector, tokens (T, D) or maps "
            "(C, h, w): choose a convolutional layer, a block of a transformer, a fully connected "
            "layer or the one before the classifier (`xnn layers MODEL` marks them)"
        )
    return output


def check_images(model: nn.Module, images: Tensor) -> None:
    """Refuse images that the model cannot be run on in a meaningful way.

    Raises:
        DataError: not a floating point batch, empty, or on another device than the model.
        ModelError: a model without values.
        NonFiniteError: NaN or infinity among the pixels.
    """
    if not images.is_floating_point() or images.ndim < 2 or images.shape[0] == 0:
        raise DataError(
            f"expected a non-empty batch of preprocessed floating point images (B, C, H, W), got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    reference = next(iter(model.parameters()), None)
    if reference is not None and reference.is_meta:
        raise ModelError("the model lies on the meta device, without values; load its weights")
    if reference is not None and reference.device != images.device:
        raise DataError(
            f"the images are on {images.device} and the model on {reference.device}; "
            f"move one: images.to('{reference.device}')"
        )
    finite = torch.isfinite(images)
    if not bool(finite.all()):
        bad = (~finite).flatten(1).any(1).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"NaN or infinity in image(s) {bad[:5]} of the batch; check the preprocessing"
        )


def check_one_device(network: nn.Module) -> None:
    """Refuse a network whose parameters lie on several devices, where no map can be drawn of it.

    Raises:
        ModelError: with the way out; `device_map` of Hugging Face spreads models.
    """
    parameters = (each for each in network.parameters() if not each.is_meta)
    places = {str(each.device): None for each in parameters}
    if len(places) > 1:
        first, *others = places
        raise ModelError(
            f"the model is spread over {first} and {', '.join(others)}, and maps are drawn on one "
            f"device: move it there with model.to('{first}'), or load it without device_map"
        )


def run_to_layer(model: nn.Module, layer: str | nn.Module, images: Tensor) -> Tensor:
    """The output of a layer, all its tokens; the forward pass stops there.

    The result is a copy, so that a later in-place operation cannot change it. Gradients flow if
    they are enabled.

    Args:
        model: the explained model; put into evaluation mode by `preserve_state` meanwhile.
        layer: dotted name or submodule.
        images: (B, C, H, W) or whatever the model takes.

    Returns:
        The layer's output, any shape.

    Raises:
        LayerError: the layer does not exist, did not run, or does not return one tensor.
    """
    name, module = resolve_layer(model, layer)
    inner = unwrap(model)
    seen: list[Tensor] = []

    def stop(output: Any) -> None:
        seen.append(_one_tensor(output, name).clone())
        raise _LayerReached

    with preserve_state(inner), watch_output(module, stop), takes_shape(images):
        try:
            inner(in_precision_of(inner, images))
        except _LayerReached:
            return seen[0]
    raise LayerError(f"layer {name!r} did not run in the forward pass; choose one that does")


def record_layers(
    model: nn.Module, layers: Sequence[str | nn.Module], images: Tensor
) -> tuple[list[Tensor], Float[Tensor, "batch outputs"]]:
    """One full forward pass: copies of the outputs of some layers, and the logits.

    The arguments are those of `run_to_layer`, with several layers.

    Returns:
        The layers' outputs (any shape, copies) and the model's output (B, k); a model that returns
        (B,) counts as one with a single logit.

    Raises:
        LayerError: a layer does not exist, did not run, or ran more than once.
        DataError: the model does not return a tensor of logits.
    """
    with torch.no_grad():
        outputs, output = run_past_layers(model, layers, images)
    return outputs, as_logits(output)


def run_model(model: nn.Module, images: Tensor) -> Float[Tensor, "batch outputs"]:
    """The logits (B, K) alone, without gradients, in float32 or float64.

    The model runs in evaluation mode and is left as it was.

    Raises:
        DataError: the model does not take such images, or returns no logits.
    """
    return record_layers(model, (), images)[1]


def run_past_layers(
    model: nn.Module, layers: Sequence[str | nn.Module], images: Tensor
) -> tuple[list[Tensor], Any]:
    """The same as `record_layers`, with what the model returns as it is; gradients flow.

    Raises:
        LayerError: a layer does not exist, did not run, or ran more than once.
    """
    inner = unwrap(model)
    found = [resolve_layer(model, layer) for layer in layers]
    seen: list[list[Tensor]] = [[] for _ in found]
    pairs = zip(found, seen, strict=True)
    watches = [
        watch_output(module, partial(_keep, name, outputs)) for (name, module), outputs in pairs
    ]
    with takes_shape(images):
        output = run_watched(inner, images, watches)
    for (name, _), outputs in zip(found, seen, strict=True):
        if len(outputs) != 1:
            raise LayerError(
                f"layer {name!r} runs {len(outputs)} times in one forward pass, so it has no "
                "single output; choose a layer that runs once (`xnn layers MODEL` shows the calls)"
            )
    return [outputs[0] for outputs in seen], output


def _keep(name: str, outputs: list[Tensor], output: Any) -> None:
    outputs.append(_one_tensor(output, name).clone())


def run_with_output(
    model: nn.Module, layer: str | nn.Module, images: Tensor, output: Float[Tensor, "batch *dims"]
) -> Float[Tensor, "batch outputs"]:
    """The logits if a layer gave something else for these images.

    The part below the layer runs as well, since a model may use its other results; the layer's own
    output is replaced by a copy, in its shape and precision. The model is left as it was. `output`
    has as many numbers as the layer gives, which must run once; with a token (`blocks.3[cls]`) as
    many as the token has, which alone is replaced (`put_token`). The other arguments are those of
    `run_to_layer`.

    Raises:
        LayerError: the layer does not exist, or runs another number of times than once.
        DataError: a wrong number of values, or a model that returns no logits.

    Example:
        >>> logits = run_with_output(model, "classifier.1", images, embedding.decode(features))
    """
    name, module = resolve_layer(model, layer)
    check_images(model, images)
    inner, runs = unwrap(model), 0

    def replaced(own: Any) -> Any:
        nonlocal runs
        runs += 1
        if len(output) != len(images):
            raise DataError(f"{len(output)} rows cannot replace those of {len(images)} image(s)")
        return _replaced(own, name, output.detach(), images)

    with torch.no_grad(), preserve_state(inner), replace_output(module, replaced):
        logits = inner(in_precision_of(inner, images))
    if runs != 1:
        raise LayerError(
            f"layer {name!r} runs {runs} times in one forward pass, so its output cannot be "
            "replaced; choose a layer that runs once (`xnn layers MODEL` shows the calls)"
        )
    return as_logits(logits)


def _replaced(own: Any, name: str, values: Tensor, images: Tensor) -> Any:
    """What a layer returned with other activations in it; it has a row for each of `values`."""
    tensor, token = _one_tensor(own, name), split_token(name)[1]
    read = tensor if token is None else read_token(tensor, name, token, images)
    if values[0].numel() != read[0].numel():
        raise DataError(
            f"layer {name!r} gives {tuple(read.shape[1:])} per image, which activations of "
            f"{tuple(values.shape[1:])} cannot replace"
        )
    values = values.reshape(len(values), *read.shape[1:]).to(read)
    changed = values.clone() if token is None else put_token(tensor, token, values)
    return with_main_tensor(own, changed)


def run_above_layer(
    model: nn.Module,
    layer: str | nn.Module,
    image: Float[Tensor, "one *pixels"],
    activations: Float[Tensor, "batch *dims"],
) -> Float[Tensor, "batch outputs"]:
    """The logits of given activations, by what the model does above the layer; gradients flow.

    The part below the layer, which must run once, runs on one example `image` (1, C, H, W), whose
    contents do not matter and whose activations are replaced by all those that are given: Z, (B,
    S_z) or (B, C, h, w), whatever B is. Above it, a model must treat every row of a batch by
    itself. The model is left as it was.

    Raises:
        LayerError: the layer does not exist, or runs another number of times than once.
        DataError: Z of another shape than the layer's, or a model that returns no logits.
    """
    name, module = resolve_layer(model, layer)
    check_images(model, image)
    inner, runs = unwrap(model), 0

    def replaced(own: Any) -> Any:
        nonlocal runs
        runs += 1
        return _replaced(own, name, activations, image)

    with preserve_state(inner), replace_output(module, replaced):
        returned = inner(in_precision_of(inner, image))
    logits = logits_of(returned)
    if runs != 1 or len(logits) != len(activations):
        raise LayerError(
            f"layer {name!r} runs {runs} times, and the model gives {len(logits)} rows of logits "
            f"for {len(activations)} of activations; choose a layer that runs once, above which "
            "the model keeps its rows apart"
        )
    return logits if logits.dtype == torch.float64 else logits.float()
