"""XNN: ties an explained model, one of its layers and an embedding together (paper section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.attribution.base import Attributor
from torchxnn.attribution.methods import attributor
from torchxnn.data.activations import Activations
from torchxnn.data.examined import agreement_with_labels, record_examined, warn_of_order
from torchxnn.data.positives import as_targets, default_features
from torchxnn.data.record import record_activations
from torchxnn.embeddings.apply import Embedded, apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.kinds import saved_state
from torchxnn.errors import DataError, ModelError, XNNError
from torchxnn.explanations import functions, maps
from torchxnn.explanations.drawing.html import xnn_fragment
from torchxnn.explanations.names import adopt
from torchxnn.explanations.names.file import read_names, save_with_names
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.metrics import evaluation
from torchxnn.models.attached import AttachedLayer, XNNOutput, fit_to
from torchxnn.models.config import Doubt, OutputKind, OutputsConfig
from torchxnn.models.declared_outputs import declared_outputs, say_declared
from torchxnn.models.examination import Examination
from torchxnn.models.meaning import Meaning, read_meaning
from torchxnn.models.outputs import (
    both_class_names,
    check_class_names,
    check_targets,
    class_of_target,
)
from torchxnn.models.plain_settings import differing_setting
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.tokens import Token
from torchxnn.models.weights import fingerprint
from torchxnn.storage.artifact import structure
from torchxnn.storage.paths import Location
from torchxnn.storage.saved_folder import read_saved
from torchxnn.training.config import ComputeConfig, Losses, TrainConfig
from torchxnn.training.device import fit_device
from torchxnn.training.fit import fit_embedding
from torchxnn.training.report import (
    FitReport,
    describe_xnn,
    examination_and_fingerprint,
    rebuild_embedding,
)

__all__ = ["XNN", "XNNOutput"]


class XNN(nn.Module):
    """An Explanation Neural Network, attached to one layer of a trained model.

    Calling it gives the x-features E of images, so any tool that takes an `nn.Module` can explain
    an x-feature. On a convolutional layer an x-feature is a map: calling gives its spatial mean,
    `feature_maps` the map itself, and `contributions` weighs every position (see `ConvSRAE`), so
    they are a multiple of the mean only where all positions have the same weight. The explained
    model is held outside the module registry: `parameters()`,
    `state_dict()`, `train()` and `to()` concern the embedding alone. The model is never changed.

    Args:
        model: the trained model; takes images, returns logits (B, K).
        layer: dotted name of the layer, or the submodule itself; it gives one vector per image,
            maps (C, h, w), or tokens.
        n_features: number of x-features; None takes 5 for one target and 7 for several.
        token: of a layer that gives tokens (B, T, D): "cls" (the first one), an index, or "mean",
            over all of them. It then stands behind the layer's name, `blocks.3[cls]`.
        class_names: names of the model's outputs, for people; of a single logit, both classes or
            the one that it speaks for.
        outputs_are: "classes" exclude each other, "labels" do not, a "value" is a number; None asks
            the labels of the fit; see `OutputsConfig`.
        positives: of values, which ones are high and explained: from a number on ("2.5"), or an
            upper share ("10%"); None takes the upper quarter.
        preprocessing: how image files become the model's input, to draw images and for the
            command line.
        source: where model and data came from, as plain values that are saved along.

    Attributes:
        attached: the model and the layer.
        embedding: Z -> E -> logits; None before a fit.
        targets: the explained classes, 0-based; none before a fit.
        outputs: number of the model's outputs; None before a fit.
        report: how the fit went; None if nobody knows.
        examination: what was found out about the model; None if it was not examined.
        meaning: of the model's outputs, as the fit found it.
        weights_sha256: of the saved XNN that it was loaded from or saved as; empty before.

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
        token: Token | None = None,
        class_names: Sequence[str] | None = None,
        outputs_are: OutputKind | None = None,
        positives: str | float | None = None,
        preprocessing: Preprocessing | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.attached = AttachedLayer(model, layer, token)
        self.n_features = n_features
        self.class_names = None if class_names is None else tuple(class_names)
        self.preprocessing = preprocessing
        self.source = source
        self.embedding = None
        self.targets: tuple[int, ...] = ()
        self.outputs: int | None = None
        self.report: FitReport | None = None
        self.examination: Examination | None = None
        said = None if positives is None else str(positives)
        self.outputs_config = OutputsConfig(outputs_are, said)
        self.meaning = Meaning(self.outputs_config.kind or "classes")
        self._names: FeatureNames | None = None
        self.weights_sha256 = ""

    @property
    def model(self) -> nn.Module:
        """The explained model."""
        return self.attached.model

    @property
    def layer(self) -> str:
        """Dotted name of the layer that the XNN is attached to, with its token."""
        return self.attached.name

    @property
    def device(self) -> torch.device:
        """Where the explained model lies; images must be there too."""
        return self.attached.device

    # --- fitting

    def fit(
        self,
        loader: Iterable[Any],
        target: SupportsIndex | Sequence[SupportsIndex],
        validation: Iterable[Any] | None = None,
        config: TrainConfig | None = None,
        on_batch: Callable[[int], None] | None = None,
        on_epoch: Callable[[int, int, Losses], None] | None = None,
        compute: ComputeConfig | None = None,
        allow: Collection[Doubt] = (),
    ) -> FitReport:
        """Record the layer's activations and fit the embedding to them (paper eq. 5).

        Args:
            loader: yields image batches, pairs (images, labels) or mappings of them by their usual
                names (`torchxnn.data.loading`). Labels only decide which images are positives;
                without them the model's own predictions do. They are class indices (B,), multi-hot
                (B, K), or numbers if the output is one; -1 and NaN are not known.
            target: 0-based class index or several of them.
            validation: held-out data for early stopping and the reported figures; None holds out a
                share of the loader's images.
            config: settings of the fit.
            on_batch: called after each recorded batch with the number of images.
            on_epoch: called after each epoch with (trial, epoch, held-out losses).
            compute: device and precision of the fit; None takes the defaults.
            allow: what to accept though numbers are doubtful then: "randomness", "batch",
                "probabilities"; see `examine_model`.

        Returns:
            How the fit went; a degenerate fit also warns.

        Raises:
            DataError: empty loader, target out of range, too few positives.
            ModelError: the model gives no logits, or several answers to one image.
            NonFiniteError: NaN or infinity in images or activations.
            XNNError: a setting out of range, or a device of `compute` that is not here, before
                anything is recorded.
        """
        config = config or TrainConfig()
        config.check()
        fit_device(compute or ComputeConfig())  # before anything is recorded
        keep: dict[str, Any] = {
            "on_batch": on_batch,
            "map_dtype": config.conv.map_dtype,
            "map_memory": config.conv.map_memory,
        }
        said = declared_outputs(self.outputs_config, self.model)
        say_declared(self.outputs_config, self.model)
        train, examination = record_examined(
            self.model, self.layer, loader, said.allowed(allow), **keep, outputs=said
        )
        held_out = None
        if validation is not None:
            said = OutputsConfig(train.meaning.outputs_are)
            held_out = record_activations(self.model, self.layer, validation, **keep, outputs=said)
            held_out = held_out.meant(train.meaning)
            warn_of_order(agreement_with_labels(held_out), "of the validation, ")
        self.examination = examination
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
        check_class_names(self.class_names, train.n_outputs)
        train = train.settled(self.outputs_config)
        if validation is not None and validation.meaning != train.meaning:
            validation = validation.meant(train.meaning)
        n = default_features(len(targets)) if self.n_features is None else self.n_features
        embedding, report = fit_embedding(train, validation, targets, n, config, on_epoch, compute)
        names, old = self._names, self.embedding if targets == self.targets else None
        self.attach_embedding(embedding, targets, train.n_outputs, report, train.meaning)
        if names is not None and names.judgements:
            self._names = adopt.names_of_refit(names, old, embedding, train, targets)
        return report

    def attach_embedding(
        self,
        embedding: Embedding,
        targets: Sequence[int],
        outputs: int | None = None,
        report: FitReport | None = None,
        meaning: Meaning | None = None,
    ) -> None:
        """Explain with an embedding that was fitted elsewhere; names of an earlier one are gone.

        Args:
            embedding: fitted to this layer; it is moved to the model's device. If it is not
                anchored (`torchxnn.embeddings.anchor`), its explanations say so.
            targets: 0-based classes whose logits it reproduces.
            outputs: number of the model's outputs, if known.
            report: how its fit went, if known.
            meaning: of the model's outputs; None leaves it as it is.

        Raises:
            DataError: not one target per reproduced logit, or a target that the model has not.
        """
        if len(targets) != embedding.n_targets:
            raise DataError(
                f"the embedding reproduces {embedding.n_targets} logit(s) and is attached with "
                f"{len(targets)} target(s); give one for each"
            )
        if outputs is not None:
            check_targets(targets, outputs)
        self.embedding = embedding.to(self.device)
        self.targets, self.outputs, self.report = tuple(targets), outputs, report
        self.meaning = meaning or self.meaning
        self._names, self.weights_sha256 = None, ""

    # --- the forward pass

    @torch.no_grad()
    def run(self, images: Tensor) -> XNNOutput:
        """Everything that the model and the embedding say of images, from one forward pass.

        Args:
            images: (B, C, H, W), preprocessed, on the model's device; or token ids, or rows.

        Raises:
            XNNError: the XNN is not fitted.
            DataError: images that the model cannot take, of another size than those of the fit, or
                on another device.
            NonFiniteError: NaN or infinity in the images, the activations or the logits.
            LayerError: the layer did not run exactly once.
        """
        found = self.attached.run(images)
        return XNNOutput.of(self.fitted(), *found, self.layer, self.meaning)

    run_with_maps = maps.run_with_maps

    def forward(self, images: Tensor) -> Float[Tensor, "batch features"]:
        """X-features E of images, (B, n). Gradients flow if they are enabled."""
        return self.fitted().summarise(self._features(images))

    def feature_maps(self, images: Tensor) -> Float[Tensor, "batch features height width"]:
        """The x-features' maps (B, n, h, w) of an XNN on a convolutional layer.

        Raises:
            XNNError: the layer gives one vector per image, so that x-features are numbers.
        """
        if not self.fitted().has_maps:
            raise XNNError(
                f"layer {self.layer!r} gives one vector per image, so x-features have no maps; "
                "`attribute` draws them as heatmaps on the image"
            )
        return self._features(images)

    def contributions(
        self, images: Tensor, anchored: bool = True
    ) -> Float[Tensor, "batch targets features"]:
        """v_i (E_i - that of a typical other image) per target, (B, k, n).

        Their sum plus `intercept`, what a typical other image gets, is `predict`. Not anchored, the
        paper's v_i E_i: how large they are hangs on an offset that is arbitrary. Of maps, the mean
        over the positions.
        """
        return self.fitted().contributions(self._features(images), anchored)

    @property
    def intercept(self) -> Float[Tensor, " targets"]:
        """The reproduced logits of a typical other image, (k,), on the CPU; `contributions`."""
        return self.fitted().intercept.detach().cpu()

    def predict(self, images: Tensor) -> Float[Tensor, "batch targets"]:
        """Reproduced logits, (B, k)."""
        return self.fitted().reproduce(self._features(images))

    def _features(self, images: Tensor) -> Float[Tensor, "batch features *map"]:
        """X-features as the embedding gives them, numbers or maps; gradients flow."""
        embedding = self.fitted()
        return embedding.encode(fit_to(embedding, self.attached.run_to(images), self.layer))

    def encode(self, z: Float[Tensor, "samples ..."]) -> Float[Tensor, "samples features"]:
        """X-features of recorded activations Z, (M, ...) -> (M, n), on the CPU."""
        return self.embed(z).features

    def embed(self, z: Float[Tensor, "samples ..."]) -> Embedded:
        """X-features, contributions and reproduced logits of recorded activations."""
        return apply_embedding(self.fitted(), z)

    @property
    def readout_weight(self) -> Float[Tensor, "targets features"]:
        """v, (k, n), on the CPU; of maps the mean over the positions."""
        return self.fitted().readout_weight.detach().cpu()

    def fitted(self) -> Embedding:
        """The embedding.

        Raises:
            XNNError: there is none yet.
        """
        if self.embedding is None:
            raise XNNError("this XNN is not fitted yet: call fit() or XNN.from_pretrained()")
        return self.embedding

    # --- heatmaps and explanations

    attribute = functions.attribute

    def attributor(self, method: str | None = None) -> Attributor:
        """The method of a name on the n x-features as its outputs; see `attribute`."""
        method = method or maps.default_method(self.fitted())
        return attributor(method, maps.Units(self.attached, self.fitted()))

    explain = functions.explain_image
    explain_text = functions.explain_text
    explain_row = functions.explain_row
    evaluate = evaluation.evaluate
    measure = evaluation.measure

    # --- names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of every x-feature, as `FeatureNames.shown` has it, or "x-feature 3"."""
        return self.names.shown()

    @property
    def names(self) -> FeatureNames:
        """What people said about the x-features, and the names that follow from it."""
        n_features = self.fitted().n_features
        return FeatureNames(n_features) if self._names is None else self._names

    @names.setter
    def names(self, names: FeatureNames) -> None:
        n_features = self.fitted().n_features
        if names.n_features != n_features:
            raise DataError(
                f"names of {names.n_features} x-features do not fit an XNN with {n_features}"
            )
        self._names = names

    name_feature = adopt.name_feature
    adopt_names = adopt.adopt_names

    def target_name(self, target: int) -> str:
        """Name of what an output speaks for; a single logit speaks for class 1 of two."""
        if self.meaning.outputs_are == "classes":
            return self.class_name(class_of_target(target, self.outputs))
        if self.meaning.outputs_are == "value" and self.outputs == 1 and not self.class_names:
            return "value"
        return self.class_name(target)

    def class_name(self, index: int) -> str:
        """Name of a class or a label, "class 3" or "label 3" if it has none."""
        names = self.class_names or ()
        if self.meaning.outputs_are == "classes":
            names = both_class_names(names, self.outputs)
        if 0 <= index < len(names):
            return names[index]
        return f"{self.meaning.noun} {index}"

    # --- saving

    def save_pretrained(self, path: Location) -> None:
        """Write the embedding (safetensors) and everything about it (JSON) to a folder.

        The folder appears whole or not at all; an older XNN at the same place is replaced. Names
        of x-features are kept in `names.json` beside it.

        Raises:
            FileExistsError: something else is at `path`, or names that people gave to another fit.
        """
        embedding = self.fitted()
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
            examination=self.examination,
            meaning=self.meaning,
        )
        self.weights_sha256 = save_with_names(path, about, saved_state(embedding), self.names)

    @classmethod
    def from_pretrained(
        cls, path: Location, model: nn.Module, preprocessing: Preprocessing | None = None
    ) -> XNN:
        """Load what `save_pretrained` wrote and attach it to the same model.

        Args:
            path: the folder.
            model: the explained model, with the same weights as when the XNN was fitted.
            preprocessing: what to take if none was saved.

        Raises:
            ModelError: not such a folder, a newer format, or another model (by fingerprint).
        """
        about, state = read_saved(path)
        examination, found = examination_and_fingerprint(about, model)
        expected = str(about.get("model_fingerprint"))
        if found != expected:
            raise ModelError(
                f"the XNN in {path} explains another model: its fingerprint is {expected[:12]}, "
                f"the given model's is {found[:12]}; load the weights that it was fitted on"
            )
        differing = examination and differing_setting(examination.settings, model)
        if differing:
            raise ModelError(
                f"the XNN in {path} explains another model: the weights are the same, but of its "
                f"settings {differing}; make the model as it was, or fit again"
            )
        try:
            if about["preprocessing"]:
                preprocessing = structure(
                    about["preprocessing"], Preprocessing, "its preprocessing"
                )
            xnn = cls(
                model,
                about["layer"],
                about["embedding"]["n_features"],
                class_names=about["class_names"],
                preprocessing=preprocessing,
                source=about["source"],
            )
            report = about["report"] and structure(about["report"], FitReport, "its report")
            embedding = rebuild_embedding(about, state)
            meaning = read_meaning(about)
            xnn.attach_embedding(embedding, about["targets"], about["outputs"], report, meaning)
            xnn.examination = examination
        except (DataError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(f"the saved XNN in {path} is damaged: {error!r}") from error
        xnn.weights_sha256 = about["weights_sha256"]
        xnn.names = read_names(path, xnn.weights_sha256, embedding.n_features)
        return xnn

    def _repr_html_(self) -> str:
        return xnn_fragment(self, () if self.embedding is None else self.feature_names)
