"""XNN: ties an explained model, one of its layers and an embedding together (paper section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.attribution.base import Certificate
from torchxnn.attribution.methods import METHODS
from torchxnn.attribution.tokens_and_rows import DEFAULT
from torchxnn.data.activations import Activations, record_activations
from torchxnn.data.positives import as_targets, default_features
from torchxnn.embeddings.apply import Embedded, apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, ModelError, XNNError
from torchxnn.explanations.drawing.notebook import xnn_fragment
from torchxnn.explanations.functions import ExplainsParts
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.names.file import read_names, save_with_names
from torchxnn.explanations.names.named import Named
from torchxnn.metrics import Faithfulness
from torchxnn.metrics.evaluation import Evaluation, evaluate_images, measure_activations
from torchxnn.models.inputs import check_inputs, kind_of
from torchxnn.models.layers import as_activations, record_layer, resolve_layer, run_to_layer, unwrap
from torchxnn.models.load import fingerprint
from torchxnn.models.outputs import class_of_target, predicted_classes
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import structure
from torchxnn.storage.paths import Location
from torchxnn.storage.saved_folder import read_saved
from torchxnn.training.config import ComputeConfig, Losses, TrainConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.report import FitReport
from torchxnn.training.saved import describe_xnn, rebuild_embedding

__all__ = ["XNN", "Evaluation"]


class XNN(Named, ExplainsParts, nn.Module):
    """An Explanation Neural Network, attached to one layer of a trained model.

    Calling it gives the x-features E of images, so any tool that takes an `nn.Module` can explain
    an x-feature. On a convolutional layer an x-feature is a map: calling gives its spatial mean,
    `feature_maps` the map itself, and `contributions` weighs every position (see `ConvSRAE`), so
    they are a multiple of the mean only where all positions have the same weight. The explained
    model is held outside the module registry: `parameters()`,
    `state_dict()`, `train()` and `to()` concern the embedding alone. The model is never changed.

    Args:
        model: the trained model; takes images, returns logits (B, K).
        layer: dotted name of the layer, or the submodule itself; it gives one vector per image, or
            maps (C, h, w).
        n_features: number of x-features; None takes 5 for one target and 7 for several.
        class_names: names of the model's outputs, for people.
        preprocessing: how pictures become the model's input, to draw them and for the command line.

    Raises:
        LayerError: no such layer; the message lists the nearest names.

    Example:
        >>> xnn = XNN(model, layer="classifier.1")
        >>> report = xnn.fit(loader, target=47)
        >>> xnn.explain(image).save("goldfinch")
    """

    embedding: Embedding | None

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module,
        n_features: int | None = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.layer, module = resolve_layer(model, layer)
        self._explained = (model, module)  # a tuple: not registered as submodules
        self.n_features = n_features
        self.outputs: int | None = None
        self.class_names = None if class_names is None else tuple(class_names)
        self.preprocessing = preprocessing
        self.targets: tuple[int, ...] = ()
        self.report: FitReport | None = None
        self.embedding = None
        self.source: dict[str, Any] | None = None
        self._layer_checked = False

    @property
    def model(self) -> nn.Module:
        """The explained model."""
        return self._explained[0]

    @property
    def device(self) -> torch.device:
        """Where the explained model lies; images must be there too."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def readout_weight(self) -> Float[Tensor, "targets features"]:
        """v, (k, n), on the CPU; of maps the mean over the positions."""
        return self._fitted().readout_weight.detach().cpu()

    def fit(
        self,
        loader: Iterable[Any],
        target: SupportsIndex | Sequence[SupportsIndex],
        validation: Iterable[Any] | None = None,
        config: TrainConfig | None = None,
        on_batch: Callable[[int], None] | None = None,
        on_epoch: Callable[[int, int, Losses], None] | None = None,
        compute: ComputeConfig | None = None,
    ) -> FitReport:
        """Record the layer's activations and fit the embedding to them (paper eq. 5).

        Args:
            loader: yields image batches or pairs (images, labels). Labels only decide which images
                are positives; without them the model's own predictions do.
            target: 0-based class index or several of them.
            validation: held-out data for early stopping and the reported figures; None holds out a
                share of the loader's images.
            config: settings of the fit.
            on_batch: called after each recorded batch with the number of images.
            on_epoch: called after each epoch with (trial, epoch, held-out losses).
            compute: device and precision of the fit; None takes the defaults.

        Returns:
            How the fit went; a degenerate fit also warns.

        Raises:
            DataError: empty loader, target out of range, too few positives.
            NonFiniteError: NaN or infinity in images or activations.
        """
        conv = (config or TrainConfig()).conv
        kept = {"map_dtype": conv.map_dtype, "map_memory": conv.map_memory}
        train, held_out = (
            None if part is None else self._record(part, on_batch, **kept)
            for part in (loader, validation)
        )
        if train is None:
            raise DataError("no images to fit")
        return self.fit_activations(train, target, held_out, config, on_epoch, compute)

    def fit_activations(
        self,
        train: Activations,
        target: SupportsIndex | Sequence[SupportsIndex],
        validation: Activations | None = None,
        config: TrainConfig | None = None,
        on_epoch: Callable[[int, int, Losses], None] | None = None,
        compute: ComputeConfig | None = None,
    ) -> FitReport:
        """The same as `fit`, for activations that are already recorded."""
        targets = as_targets(target)
        n = default_features(len(targets)) if self.n_features is None else self.n_features
        embedding, report = fit_embedding(train, validation, targets, n, config, on_epoch, compute)
        earlier = self._before_refit(train, targets)
        self.embedding = embedding.to(self.device)
        self.targets, self.report = targets, report
        self.outputs = train.logits.shape[1]
        self._after_refit(earlier, train)
        return report

    def forward(self, images: Tensor) -> Float[Tensor, "batch features"]:
        """X-features E of images, (B, n). Gradients flow if they are enabled."""
        return self._fitted().summarise(self._features(images))

    def feature_maps(self, images: Tensor) -> Float[Tensor, "batch features height width"]:
        """The x-features' maps (B, n, h, w) of an XNN on a convolutional layer.

        Raises:
            XNNError: the layer gives one vector per image, so that x-features are numbers.
        """
        if not self._fitted().has_maps:
            raise XNNError(
                f"layer {self.layer!r} gives one vector per image, so x-features have no maps; "
                "`attribute` draws them as heatmaps on the image"
            )
        return self._features(images)

    def contributions(self, images: Tensor) -> Float[Tensor, "batch targets features"]:
        """v_i E_i per target, (B, k, n); their sum plus the intercept is `predict`.

        Of maps, the mean over the positions of v_ip E_ip.
        """
        return self._fitted().contributions(self._features(images))

    def predict(self, images: Tensor) -> Float[Tensor, "batch targets"]:
        """Reproduced logits, (B, k)."""
        return self._fitted().reproduce(self._features(images))

    @overload
    def attribute(
        self, images: Tensor, method: str | None = ..., return_certificate: Literal[False] = ...
    ) -> Float[Tensor, "batch features *map"]: ...

    @overload
    def attribute(
        self, images: Tensor, method: str | None = ..., *, return_certificate: Literal[True]
    ) -> tuple[Float[Tensor, "batch features *map"], Certificate]: ...

    def attribute(
        self,
        images: Tensor,
        method: str | None = None,
        return_certificate: bool = False,
    ) -> Any:
        """One heatmap per x-feature on each image, summed over colour channels.

        Excitation backprop draws all n maps from one forward pass. On a convolutional layer the
        unit explained is the x-feature's map weighted by how much each position contributes
        (`ConvSRAE.salience`), so that the heatmap shows where the contribution comes from.

        Args:
            images: (B, C, H, W); or token ids (B, T), or rows (B, D).
            method: name in `attribution.METHODS`; None takes excitation backprop for
                images, integrated gradients for ids and rows.
            return_certificate: also return the `Certificate`.

        Returns:
            (B, n, H, W), of ids (B, n, T), of rows (B, n, D); signed, and for images summing to 0
            with (contrastive) excitation backprop.

        Raises:
            UnsupportedOperationError: an operation without a rule lies on the way.
        """
        targets = range(self._fitted().n_features)
        if kind_of(images) != "image":
            chosen = DEFAULT if method is None else method
            maps, certificate = self._attribute_parts(self, images, targets, chosen)
            return (maps, certificate) if return_certificate else maps
        return self.attributor(method or "excitation_backprop").attribute_many(
            images, targets, return_certificate=return_certificate
        )

    def attributor(self, method: str = "excitation_backprop") -> Any:
        """The method of a name on the n x-features as its outputs; see `attribute`."""
        self._fitted()
        return _attributor(method, _Salience(self))

    @torch.no_grad()
    def explain(
        self,
        image: Tensor,
        *,
        picture: np.ndarray | None = None,
        label: int | None = None,
        path: str | None = None,
        method: str = "excitation_backprop",
    ) -> Explanation:
        """Explain one image: contributions, heatmaps, the original logit's map, certificate.

        Args:
            image: (C, H, W), preprocessed.
            picture: (H, W, 3) uint8 to draw on; None undoes the preprocessing.
            label: true class, if known, for the caption.
            path: where the image came from, for the caption.
            method: attribution method.
        """
        if image.ndim != 3:
            raise DataError(f"explain takes one image (C, H, W), got shape {tuple(image.shape)}")
        batch = image.unsqueeze(0)
        numbers = self._numbers(batch, label, path)
        maps, certificate = self.attribute(batch, method, return_certificate=True)
        logit_maps = _attributor(method, self.model).attribute_many(batch, list(self.targets))
        return Explanation(
            picture=_draw_input(image, self.preprocessing) if picture is None else picture,
            heatmaps=maps[0].cpu(),
            logit_heatmaps=logit_maps[0].cpu(),
            certificate=certificate,
            **numbers,
        )

    @torch.no_grad()
    def _numbers(self, batch: Tensor, label: int | None, path: str | None) -> dict[str, Any]:
        """What every explanation holds, for a batch of one."""
        embedding = self._fitted()
        check_inputs(self.model, batch)
        output, logits = record_layer(self.model, self._explained[1], batch)
        found = apply_embedding(embedding, self._checked(output, batch))
        predicted = int(predicted_classes(logits)[0])
        return {
            "features": found.features[0],
            "contributions": found.contributions[0],
            "intercept": embedding.readout.bias.detach().cpu(),
            "targets": self.targets,
            "target_names": tuple(self.target_name(target) for target in self.targets),
            "logits": logits[0, list(self.targets)].cpu(),
            "reproduced": found.reproduced[0],
            "predicted_class": predicted,
            "predicted_name": self.class_name(predicted),
            "feature_names": self.feature_names,
            "faithfulness": self.report.validation if self.report else None,
            "degenerate": self.report.degenerate if self.report else (),
            "label": None if label is None else self.class_name(label),
            "path": path,
        }

    def evaluate(
        self,
        loader: Iterable[Any],
        maps: bool = True,
        on_batch: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Measure faithfulness on all images and orthogonality of the positives' heatmaps.

        Args:
            loader: yields image batches or pairs (images, labels).
            maps: whether to draw heatmaps; without them `orthogonality` is None and it is fast.
            on_batch: called after each batch with the number of images.

        Raises:
            DataError: the loader is empty or holds no positives.
        """
        return evaluate_images(
            loader,
            lambda batch: self._record([batch]),
            self._fitted(),
            self.targets,
            self.attribute if maps else None,
            on_batch,
        )

    def encode(self, z: Float[Tensor, "samples ..."]) -> Float[Tensor, "samples features"]:
        """X-features of recorded activations Z, (M, ...) -> (M, n), on the CPU."""
        return self.embed(z).features

    def embed(self, z: Float[Tensor, "samples ..."]) -> Embedded:
        """X-features, contributions and reproduced logits of recorded activations."""
        return apply_embedding(self._fitted(), z)

    def measure(
        self, data: Activations
    ) -> tuple[Faithfulness, tuple[int, ...], Literal["label", "prediction"]]:
        """Faithfulness on recorded activations, the dead x-features, and what made a positive."""
        found = measure_activations(self._fitted(), data, self.targets)
        return found.faithfulness, found.dead, found.positives_by

    def target_name(self, target: int) -> str:
        """Name of what an output speaks for; a single logit speaks for class 1 of two."""
        return self.class_name(class_of_target(target, self.outputs))

    def class_name(self, index: int) -> str:
        """Name of a class, "class 3" if it has none."""
        if self.class_names is not None and 0 <= index < len(self.class_names):
            return self.class_names[index]
        return f"class {index}"

    def save_pretrained(self, path: Location) -> None:
        """Write the embedding (safetensors) and everything about it (JSON) to a folder.

        The folder appears whole or not at all; an older XNN at the same place is replaced. Names
        of x-features are kept in `names.json` beside it.

        Raises:
            FileExistsError: something else is at `path`, or names that people gave to another fit.
        """
        embedding = self._fitted()
        about = describe_xnn(
            embedding,
            self.report,
            fingerprint=fingerprint(self.model),
            layer=self.layer,
            targets=self.targets,
            outputs=self.outputs,
            class_names=self.class_names,
            preprocessing=self.preprocessing,
            source=self.source,
        )
        save_with_names(path, about, embedding.state_dict(), self.names)

    @classmethod
    def from_pretrained(cls, path: Location, model: nn.Module) -> XNN:
        """Load what `save_pretrained` wrote and attach it to the same model.

        Args:
            path: the folder.
            model: the explained model, with the same weights as when the XNN was fitted.

        Raises:
            ModelError: not such a folder, a newer format, or another model (by fingerprint).
        """
        about, state = read_saved(path)
        found, expected = fingerprint(model), about["model_fingerprint"]
        if found != expected:
            raise ModelError(
                f"the XNN in {path} explains another model: its fingerprint is {expected[:12]}, "
                f"the given model's is {found[:12]}; load the weights that it was fitted on"
            )
        try:
            xnn = cls._restore(model, about, state)
        except (DataError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(f"the saved XNN in {path} is damaged: {error!r}") from error
        xnn.names = read_names(path, about["weights_sha256"], xnn._fitted().n_features)
        return xnn

    @classmethod
    def _restore(cls, model: nn.Module, about: dict[str, Any], state: dict[str, Tensor]) -> XNN:
        preprocessing = about["preprocessing"]
        xnn = cls(
            model,
            about["layer"],
            about["embedding"]["n_features"],
            class_names=about["class_names"],
            preprocessing=preprocessing
            and structure(preprocessing, Preprocessing, "its preprocessing"),
        )
        xnn.embedding = rebuild_embedding(about, state).to(xnn.device)
        xnn.targets, xnn.source = tuple(about["targets"]), about["source"]
        xnn.outputs = about["outputs"]
        report = about["report"]
        xnn.report = report and structure(report, FitReport, "its report")
        return xnn

    def _repr_html_(self) -> str:
        fitted = self.embedding is not None
        targets = [self.target_name(target) for target in self.targets]
        facts = [
            ("Model", type(unwrap(self.model)).__name__),
            ("Layer", self.layer),
            ("Targets", ", ".join(targets) or "none yet"),
        ]
        names = self.feature_names if fitted else ()
        return xnn_fragment(facts, self.report if fitted else None, names, targets)

    def _fitted(self) -> Embedding:
        if self.embedding is None:
            raise XNNError("this XNN is not fitted yet: call fit() or XNN.from_pretrained()")
        return self.embedding

    def _record(
        self, loader: Iterable[Any], on_batch: Callable[[int], None] | None = None, **kept: Any
    ) -> Activations:
        return record_activations(self.model, self._explained[1], loader, on_batch, **kept)

    def _features(self, images: Tensor) -> Float[Tensor, "batch features *map"]:
        """X-features as the embedding gives them, numbers or maps."""
        embedding = self._fitted()
        check_inputs(self.model, images)
        if not self._layer_checked:  # a layer that runs twice has no single output
            record_layer(self.model, self._explained[1], images[:1])
            self._layer_checked = True
        output = run_to_layer(self.model, self._explained[1], images)
        return embedding.encode(self._checked(output, images))

    def _checked(self, output: Tensor, images: Tensor) -> Float[Tensor, "batch dims *map"]:
        """The layer's output as the embedding takes it."""
        embedding = self._fitted()
        z = as_activations(output, self.layer, images)
        reference = embedding.readout.weight
        if reference.device != z.device:
            raise DataError(
                f"the embedding is on {reference.device} and the model on {z.device}; "
                f"move it: xnn.to('{z.device}')"
            )
        if tuple(z.shape[1:]) != embedding.activation_shape:
            raise DataError(
                f"layer {self.layer!r} gives {tuple(z.shape[1:])} for images "
                f"{tuple(images.shape[1:])}, and the XNN was fitted on "
                f"{embedding.activation_shape}; give images of the size that it was fitted on"
            )
        return z.to(reference.dtype)


class _Salience(nn.Module):
    """What `attribute` explains; see `Embedding.salience`."""

    def __init__(self, xnn: XNN) -> None:
        super().__init__()
        self.xnn = xnn

    def forward(self, images: Tensor) -> Float[Tensor, "batch features"]:
        return self.xnn._fitted().salience(self.xnn._features(images))


def _draw_input(
    image: Float[Tensor, "channels height width"], preprocessing: Preprocessing | None
) -> np.ndarray:
    """The picture that a network's input shows: without the normalisation, or else stretched."""
    if preprocessing is not None and image.shape[0] == 3:
        return preprocessing.picture(image)
    low, high = image.min(), image.max()
    grey = ((image - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu()
    grey = grey if image.shape[0] == 3 else grey[:1].expand(3, -1, -1)
    return grey.permute(1, 2, 0).contiguous().numpy()


def _attributor(method: str, module: nn.Module) -> Any:
    if method not in METHODS:
        raise XNNError(f"unknown attribution method {method!r}; known: {', '.join(METHODS)}")
    return METHODS[method](module)
