"""XNN: ties an explained model, one of its layers and an embedding together (paper section 2.1)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.activations import Activations, record_activations, split_batch
from torchxnn.attribution import METHODS
from torchxnn.attribution.base import Certificate
from torchxnn.datasets.base import Preprocessing
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import DataError, ModelError, XNNError
from torchxnn.explanation import Explanation
from torchxnn.layers import (
    check_images,
    flatten_activations,
    record_layer,
    resolve_layer,
    run_to_layer,
)
from torchxnn.metrics import Faithfulness, MapCovariance, Orthogonality, measure_faithfulness
from torchxnn.models import fingerprint
from torchxnn.storage import read_saved, write_saved
from torchxnn.training import FitReport, Losses, TrainConfig, find_positives, fit_embedding

CERTIFIED_IMAGES = 8
FEATURES_ONE_TARGET, FEATURES_SEVERAL_TARGETS = 5, 7


@dataclass(frozen=True)
class Evaluation:
    """What `XNN.evaluate` measures on a data set.

    Attributes:
        faithfulness: see `Faithfulness`.
        orthogonality: of the heatmaps of the positives; None if no maps were asked for.
        certificate: of the heatmaps of the first positives (a certificate costs several times what
            the maps do); None without maps.
        positives_by: what made an image a positive.
    """

    faithfulness: Faithfulness
    orthogonality: Orthogonality | None
    certificate: Certificate | None
    positives_by: Literal["label", "prediction"]


class XNN(nn.Module):
    """An Explanation Neural Network, attached to one layer of a trained model.

    Calling it gives the x-features E of images, so any tool that takes an `nn.Module` can explain
    an x-feature. The explained model is held outside the module registry: `parameters()`,
    `state_dict()`, `train()` and `to()` concern the embedding alone. The model is never changed.

    Args:
        model: the trained model; takes images, returns logits (B, K).
        layer: dotted name of the layer, or the submodule itself.
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

    embedding: SRAE | None

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
        """v, (k, n), on the CPU."""
        return self._fitted().readout.weight.detach().cpu()

    def fit(
        self,
        loader: Iterable[Any],
        target: SupportsIndex | Sequence[SupportsIndex],
        validation: Iterable[Any] | None = None,
        config: TrainConfig | None = None,
        on_batch: Callable[[int], None] | None = None,
        on_epoch: Callable[[int, int, Losses], None] | None = None,
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

        Returns:
            How the fit went; a degenerate fit also warns.

        Raises:
            DataError: empty loader, target out of range, too few positives.
            NonFiniteError: NaN or infinity in images or activations.
        """
        module = self._explained[1]
        train = record_activations(self.model, module, loader, on_batch)
        held_out = (
            None
            if validation is None
            else record_activations(self.model, module, validation, on_batch)
        )
        return self.fit_activations(train, target, held_out, config, on_epoch)

    def fit_activations(
        self,
        train: Activations,
        target: SupportsIndex | Sequence[SupportsIndex],
        validation: Activations | None = None,
        config: TrainConfig | None = None,
        on_epoch: Callable[[int, int, Losses], None] | None = None,
    ) -> FitReport:
        """The same as `fit`, for activations that are already recorded."""
        targets = as_targets(target)
        n = default_features(len(targets)) if self.n_features is None else self.n_features
        embedding, report = fit_embedding(train, validation, targets, n, config, on_epoch)
        self.embedding = embedding.to(self.device)
        self.targets, self.report = targets, report
        self.outputs = train.logits.shape[1]
        return report

    def forward(self, images: Tensor) -> Float[Tensor, "batch features"]:
        """X-features E of images, (B, n). Gradients flow if they are enabled."""
        check_images(self.model, images)
        z = self._activations(images)
        return self._fitted().encode(z)

    def contributions(self, images: Tensor) -> Float[Tensor, "batch targets features"]:
        """v_i E_i per target, (B, k, n); their sum plus the intercept is `predict`."""
        return self._fitted().contributions(self(images))

    def predict(self, images: Tensor) -> Float[Tensor, "batch targets"]:
        """Reproduced logits, (B, k)."""
        return self._fitted().readout(self(images))

    @overload
    def attribute(
        self, images: Tensor, method: str = ..., return_certificate: Literal[False] = ...
    ) -> Float[Tensor, "batch features height width"]: ...

    @overload
    def attribute(
        self, images: Tensor, method: str = ..., *, return_certificate: Literal[True]
    ) -> tuple[Float[Tensor, "batch features height width"], Certificate]: ...

    def attribute(
        self,
        images: Tensor,
        method: str = "excitation_backprop",
        return_certificate: bool = False,
    ) -> Any:
        """One heatmap per x-feature on each image, summed over colour channels.

        Excitation backprop draws all n maps from one forward pass.

        Args:
            images: (B, C, H, W).
            method: name in `torchxnn.attribution.METHODS`.
            return_certificate: also return the `Certificate`.

        Returns:
            (B, n, H, W); signed, and summing to 0 for (contrastive) excitation backprop.

        Raises:
            UnsupportedOperationError: an operation without a rule lies on the way.
        """
        targets = range(self._fitted().n_features)
        return _attributor(method, self).attribute_many(
            images, targets, return_certificate=return_certificate
        )

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
        embedding, batch = self._fitted(), image.unsqueeze(0)
        check_images(self.model, batch)
        output, logits = record_layer(self.model, self._explained[1], batch)
        features = embedding.encode(flatten_activations(output, self.layer).float())
        maps, certificate = self.attribute(batch, method, return_certificate=True)
        logit_maps = _attributor(method, self.model).attribute_many(batch, list(self.targets))
        single = logits.shape[1] == 1
        predicted = int(logits[0, 0] > 0) if single else int(logits[0].argmax())
        return Explanation(
            picture=self._picture(image) if picture is None else picture,
            features=features[0].cpu(),
            contributions=embedding.contributions(features)[0].cpu(),
            intercept=embedding.readout.bias.detach().cpu(),
            heatmaps=maps[0].cpu(),
            logit_heatmaps=logit_maps[0].cpu(),
            targets=self.targets,
            target_names=tuple(self.target_name(target) for target in self.targets),
            logits=logits[0, list(self.targets)].cpu(),
            reproduced=embedding.readout(features)[0].cpu(),
            predicted_class=predicted,
            predicted_name=self.class_name(predicted),
            feature_names=self.feature_names,
            certificate=certificate,
            faithfulness=self.report.validation if self.report else None,
            degenerate=self.report.degenerate if self.report else (),
            label=None if label is None else self.class_name(label),
            path=path,
        )

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
        embedding = self._fitted()
        recorded: list[Activations] = []
        covariance = MapCovariance(embedding.n_features)
        certificate: Certificate | None = None
        for batch in loader:
            images, _ = split_batch(batch)
            part = record_activations(self.model, self._explained[1], [batch])
            recorded.append(part)
            positives = find_positives(part, self.targets)[0].any(1)
            if maps and bool(positives.any()):
                chosen = images[positives.to(images.device)].to(self.device)
                covariance.update(self.attribute(chosen))
                if certificate is None:
                    few = chosen[:CERTIFIED_IMAGES]
                    _, certificate = self.attribute(few, return_certificate=True)
            if on_batch is not None:
                on_batch(len(images))
        data = _concatenate(recorded)
        faithful, dead, positives_by = self.measure(data)
        return Evaluation(
            faithful,
            covariance.result(dead) if maps else None,
            certificate,
            positives_by,
        )

    @torch.no_grad()
    def encode(self, z: Float[Tensor, "samples dims"]) -> Float[Tensor, "samples features"]:
        """X-features of recorded activations Z, (M, S_z) -> (M, n), on the CPU."""
        return self._fitted().encode(z.to(self.device)).cpu()

    @torch.no_grad()
    def measure(
        self, data: Activations
    ) -> tuple[Faithfulness, tuple[int, ...], Literal["label", "prediction"]]:
        """Faithfulness on recorded activations, the dead x-features, and what made a positive."""
        embedding = self._fitted()
        features = embedding.encode(data.z.to(self.device))
        positives, positives_by = find_positives(data, self.targets)
        faithful = measure_faithfulness(
            features.cpu(),
            embedding.contributions(features).cpu(),
            embedding.readout(features).cpu(),
            data.logits,
            self.targets,
            positives,
        )
        dead = (features.cpu()[positives.any(1)] == 0).all(0).nonzero().flatten().tolist()
        return faithful, tuple(dead), positives_by

    def target_name(self, target: int) -> str:
        """Name of what an output speaks for; a single logit speaks for class 1 of two."""
        return self.class_name(1 if self.outputs == 1 else target)

    def class_name(self, index: int) -> str:
        """Name of a class, "class 3" if it has none."""
        if self.class_names is not None and 0 <= index < len(self.class_names):
            return self.class_names[index]
        return f"class {index}"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the x-features for people, 1-based."""
        return tuple(f"x-feature {i + 1}" for i in range(self._fitted().n_features))

    def save_pretrained(self, path: str | Path) -> None:
        """Write the embedding (safetensors) and everything about it (JSON) to a folder.

        The folder appears whole or not at all; an older XNN at the same place is replaced.

        Raises:
            FileExistsError: something else is at `path`.
        """
        embedding = self._fitted()
        about = {
            "model_fingerprint": fingerprint(self.model),
            "layer": self.layer,
            "targets": list(self.targets),
            "outputs": self.outputs,
            "class_names": None if self.class_names is None else list(self.class_names),
            "preprocessing": None if self.preprocessing is None else asdict(self.preprocessing),
            "source": self.source,
            "embedding": embedding.settings(),
            "report": None if self.report is None else self.report.to_json(),
        }
        write_saved(Path(path), about, embedding.state_dict())

    @classmethod
    def from_pretrained(cls, path: str | Path, model: nn.Module) -> XNN:
        """Load what `save_pretrained` wrote and attach it to the same model.

        Args:
            path: the folder.
            model: the explained model, with the same weights as when the XNN was fitted.

        Raises:
            ModelError: not such a folder, a newer format, or another model (by fingerprint).
        """
        path = Path(path)
        about, state = read_saved(path)
        found, expected = fingerprint(model), about["model_fingerprint"]
        if found != expected:
            raise ModelError(
                f"the XNN in {path} explains another model: its fingerprint is {expected[:12]}, "
                f"the given model's is {found[:12]}; load the weights that it was fitted on"
            )
        try:
            return cls._restore(model, about, state)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ModelError(f"the saved XNN in {path} is damaged: {error!r}") from error

    @classmethod
    def _restore(cls, model: nn.Module, about: dict[str, Any], state: dict[str, Tensor]) -> XNN:
        preprocessing = about["preprocessing"]
        xnn = cls(
            model,
            about["layer"],
            about["embedding"]["n_features"],
            class_names=about["class_names"],
            preprocessing=preprocessing and Preprocessing.from_dict(preprocessing),
        )
        with torch.random.fork_rng(devices=[]):
            embedding = SRAE(**about["embedding"])
        embedding.load_state_dict(state)
        xnn.embedding = embedding.to(xnn.device).eval()
        xnn.targets, xnn.source = tuple(about["targets"]), about["source"]
        xnn.outputs = about["outputs"]
        xnn.report = about["report"] and FitReport.from_json(about["report"])
        return xnn

    def _fitted(self) -> SRAE:
        if self.embedding is None:
            raise XNNError("this XNN is not fitted yet: call fit() or XNN.from_pretrained()")
        return self.embedding

    def _activations(self, images: Tensor) -> Float[Tensor, "batch dims"]:
        if not self._layer_checked:  # a layer that runs twice has no single output
            record_layer(self.model, self._explained[1], images[:1])
            self._layer_checked = True
        output = run_to_layer(self.model, self._explained[1], images)
        z = flatten_activations(output, self.layer)
        scale = self._fitted().scale
        if scale.device != z.device:
            raise DataError(
                f"the embedding is on {scale.device} and the model on {z.device}; "
                f"move it: xnn.to('{z.device}')"
            )
        return z.to(scale.dtype)

    def _picture(self, image: Float[Tensor, "channels height width"]) -> np.ndarray:
        if self.preprocessing is not None and image.shape[0] == 3:
            return self.preprocessing.picture(image)
        low, high = image.min(), image.max()
        grey = ((image - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu()
        grey = grey if image.shape[0] == 3 else grey[:1].expand(3, -1, -1)
        return grey.permute(1, 2, 0).contiguous().numpy()


def default_features(n_targets: int) -> int:
    """X-features if none are asked for: 5 for one target, 7 for several (paper section 4)."""
    return FEATURES_ONE_TARGET if n_targets == 1 else max(FEATURES_SEVERAL_TARGETS, n_targets)


def as_targets(target: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    """One class index or several, of whatever integer type.

    Raises:
        DataError: not integers.
    """
    try:
        return (operator.index(target),)  # type: ignore[arg-type]
    except TypeError:
        pass
    try:
        return tuple(operator.index(t) for t in target)  # type: ignore[union-attr]
    except TypeError as error:
        raise DataError(f"a target is a class index or several, got {target!r}") from error


def _attributor(method: str, module: nn.Module) -> Any:
    if method not in METHODS:
        raise XNNError(f"unknown attribution method {method!r}; known: {', '.join(METHODS)}")
    return METHODS[method](module)


def _concatenate(parts: list[Activations]) -> Activations:
    if not parts:
        raise DataError("the loader is empty: there are no images to evaluate on")
    labels = [part.labels for part in parts if part.labels is not None]
    if labels and len(labels) != len(parts):
        raise DataError("the loader gives labels for some batches only")
    return Activations(
        torch.cat([part.z for part in parts]),
        torch.cat([part.logits for part in parts]),
        torch.cat(labels) if labels else None,
    )
