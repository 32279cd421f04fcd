"""`xnn fit`: fit an XNN to one class, or one to each of many."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.progress import Progress
from tyro.conf import Positional, arg

from torchxnn.cli.imports import computing
from torchxnn.cli.saved_run import NamedModel
from torchxnn.cli.terminal import Terminal, count_epochs, count_images
from torchxnn.errors import DataError
from torchxnn.training.config import ComputeConfig, ManyConfig, TrainConfig

if TYPE_CHECKING:
    from torchxnn.data.activation_cache import ActivationCache
    from torchxnn.models.load import LoadedModel
    from torchxnn.models.meaning import Meaning
    from torchxnn.training.class_results import FittedClass, ManyFits
    from torchxnn.xnn import XNN


ALL = "all"
ACTIVATIONS = "activations"
"""Folder beside the classes that their activations are recorded in, without --cache."""


@dataclass(frozen=True)
class Fit(NamedModel):
    """Fit an XNN: embed a layer into a few x-features that reproduce the target's logit."""

    data: Annotated[Positional[str | None], arg(metavar="[DIR]")] = None
    """folder of images in class folders, or a CUB-200-2011 folder; class folders may also lie in
    object storage (s3://bucket/folder); not with --cache"""
    layer: str = field(kw_only=True)
    """dotted name; `xnn layers MODEL` lists them"""
    token: str | None = None
    """of a layer that gives tokens: cls, an index from 0, or mean (over all of them)"""
    out: str = field(kw_only=True)
    """folder to save the XNN in; with --targets for a folder per class, or a URL"""
    target: tuple[str, ...] = ()
    """class index (from 0) or class name; several give one XNN for all of them"""
    targets: tuple[str, ...] = ()
    """fit an XNN to each of these classes, many at once; "all" takes every class with enough
    positives; run it again to go on after a kill"""
    cache: str | None = None
    """activations that `xnn cache` recorded, instead of images"""
    n_features: int | None = None
    """number of x-features; 5 for one target, 7 for several"""
    copies: int = 0
    """altered copies of every image to fit along; they need no labels and make fits more faithful
    on new images, above all when the images are those the model was trained on (4 is good)"""
    train: TrainConfig = field(default_factory=TrainConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    many: ManyConfig = field(default_factory=ManyConfig)

    def execute(self, terminal: Terminal) -> None:
        """Record or read activations, fit, save, print the figures."""
        with computing():
            from torchxnn.training.device import check_worker_device, fit_device

        self._check()
        if self.targets and self.engine.engine != "local":  # other machines have their own
            check_worker_device(self.compute)
        else:
            fit_device(self.compute)
        loaded = self.load()
        if self.targets:
            self._fit_many(loaded, terminal)
        else:
            self._fit_one(loaded, terminal)

    @property
    def place(self) -> str:
        """The layer with its token, as functions of the library take it."""
        from torchxnn.models.tokens import layer_with_token

        return layer_with_token(self.layer, self.token)

    def _check(self) -> None:
        self.train.check()
        if bool(self.target) == bool(self.targets):
            raise DataError(
                "give either --target, for one XNN, or --targets, for one per class (--targets all)"
            )
        if (self.data is None) == (self.cache is None):
            raise DataError("give either DIR, a folder of images, or --cache")
        if self.cache is not None and self.copies:
            raise DataError("--copies are recorded with the cache: xnn cache --copies")

    # One XNN

    def _fit_one(self, loaded: LoadedModel, terminal: Terminal) -> None:
        from torchxnn.cli.tables import fit_table
        from torchxnn.explanations.names.file import check_names
        from torchxnn.models.examination import said_of
        from torchxnn.storage.files import check_replaceable, claimed
        from torchxnn.storage.paths import as_place
        from torchxnn.storage.saved_folder import MARKER

        out = as_place(self.out)
        if isinstance(out, Path):
            check_replaceable(out, MARKER)
        check_names(out)
        with claimed(out) if isinstance(out, Path) else nullcontext():
            with terminal.progress() as progress:
                fit = self._fit_images if self.cache is None else self._fit_cached
                xnn = fit(loaded, progress)
            xnn.save_pretrained(out)
        if xnn.report is not None:
            terminal.show(fit_table(xnn.report))
        terminal.say(f"Model: {said_of(xnn.examination)}")
        terminal.say(f"Saved in {self.out}. Next: xnn report {self.out} {self.data or 'DIR'}")

    def _fit_images(self, loaded: LoadedModel, progress: Progress) -> XNN:
        from torchxnn.data.datasets.augment import HeldOutCopies
        from torchxnn.models.load import count_outputs

        opened = self.open(loaded, str(self.data), progress)
        names, dataset = opened.class_names, opened.dataset
        source, preprocessing = self.origin(loaded, dataset.name), self.preprocessing(loaded)
        xnn = self._xnn(loaded, class_names=names, preprocessing=preprocessing, source=source)
        validation: Any = None
        images = len(dataset)
        if self.copies:
            rule = self.copies, self.train.validation_share, self.train.seed
            dataset, held_out = HeldOutCopies(dataset, *rule).parts
            validation = self.source.loader(held_out)
            images = len(dataset) + len(held_out)
        targets = self._targets(self.target, count_outputs(loaded.model, preprocessing), names)
        self._keep_other_classes(targets, names)
        xnn.fit(
            self.source.loader(dataset),
            targets,
            validation,
            config=self.train,
            on_batch=count_images(progress, "Recording activations", images),
            on_epoch=count_epochs(progress, "Fitting", self.train.epochs),
            compute=self.compute,
            allow=self.allow,
        )
        return xnn

    def _fit_cached(self, loaded: LoadedModel, progress: Progress) -> XNN:
        from torchxnn.training.memory import Needs, load_splits

        cache = self._cache(loaded, progress)
        preprocessing, names = cache.preprocessing or self.preprocessing(loaded), cache.class_names
        xnn = self._xnn(loaded, class_names=names, preprocessing=preprocessing, source=cache.source)
        targets = self._targets(self.target, cache.n_outputs, names)
        self._keep_other_classes(targets, names)
        xnn.examination = cache.examined
        meaning = cache.settled_labels(self.outputs_of(loaded))[1]
        needs = Needs(cache, self.place, self.train, self.many.memory, meaning)
        train, held_out = load_splits(needs, [targets])
        xnn.fit_activations(
            train,
            targets,
            held_out,
            self.train,
            count_epochs(progress, "Fitting", self.train.epochs),
            self.compute,
        )
        return xnn

    def _keep_other_classes(self, targets: Sequence[int], names: Sequence[str] | None) -> None:
        """Refuse to put the XNN of one class in the place of another's.

        Raises:
            DataError: an XNN of other targets lies there.
        """
        from torchxnn.storage.paths import as_place
        from torchxnn.storage.saved_folder import MARKER, read_about

        out = as_place(self.out)
        if not (out / MARKER).is_file():
            return
        there = tuple(read_about(out)["targets"])
        if there != tuple(targets):
            known = names or ()
            shown = ", ".join(known[i] if i < len(known) else str(i) for i in there)
            raise DataError(
                f"{self.out} explains {shown}; choose another --out, or remove that one first"
            )

    def _xnn(self, loaded: LoadedModel, **about: Any) -> XNN:
        from torchxnn.xnn import XNN

        said: Any = {"outputs_are": self.outputs.outputs_are, "positives": self.outputs.positives}
        return XNN(loaded.model, self.place, self.n_features, **said, **about)

    # One XNN per class

    def _fit_many(self, loaded: LoadedModel, terminal: Terminal) -> None:
        from torchxnn.cli.tables import many_table
        from torchxnn.models.examination import said_of
        from torchxnn.storage.paths import as_place
        from torchxnn.training.class_results import write_class_index
        from torchxnn.training.many import targets_with_positives

        with terminal.progress() as progress:
            cache = self._cache(loaded, progress)
            meaning = cache.settled_labels(self.outputs_of(loaded))[1]
            if self.targets == (ALL,):
                wanted = targets_with_positives(cache, self.train, meaning)
            else:
                found = self._targets(self.targets, cache.n_outputs, cache.class_names)
                wanted = [(target,) for target in found]
            fits = self._run(cache, wanted, progress, terminal, meaning)
        write_class_index(fits, cache, self.place, as_place(self.out))
        terminal.show(many_table(fits, cache.class_names, meaning.noun))
        terminal.say(f"Model: {said_of(cache.examined)}")
        if len(fits.failed) == len(fits.classes):
            raise DataError(f"no {meaning.noun} could be fitted; {self.out}/index.json says why")
        terminal.say(
            f"Saved in {self.out}, a folder per class and index.json.",
            f"Next: xnn atlas {self.out} --data {self.data or 'DIR'} --out atlas",
        )

    def _run(
        self,
        cache: ActivationCache,
        wanted: list[tuple[int, ...]],
        progress: Progress,
        terminal: Terminal,
        meaning: Meaning,
    ) -> ManyFits:
        from torchxnn.training.many import fit_many

        advance = count_images(progress, "Fitting classes", len(wanted))

        def note(fitted: FittedClass) -> None:
            advance(1)
            if fitted.error is not None:
                name = ", ".join(str(target) for target in fitted.targets)
                terminal.warn(f"{meaning.noun} {name}: {fitted.error}")

        return fit_many(
            cache,
            wanted,
            layer=self.place,
            n_features=self.n_features,
            config=self.train,
            compute=self.compute,
            many=self.many,
            outputs=replace(self.outputs, outputs_are=meaning.outputs_are),
            engine=self.engine.make(),
            out=self.out,
            on_class=note,
        )

    def _cache(self, loaded: LoadedModel, progress: Progress) -> ActivationCache:
        """The activations that were given, or recorded now, beside the classes."""
        from torchxnn.data.activation_cache import ActivationCache
        from torchxnn.data.examined import warn_of_doubts
        from torchxnn.models.declared_outputs import say_declared
        from torchxnn.storage.paths import as_place

        if self.cache is not None:
            cache = ActivationCache.open(self.cache)
            cache.check(model=loaded.model, layer=self.place)
        else:
            copies = self.copies, self.train.validation_share, self.train.seed
            place = as_place(self.out) / ACTIVATIONS
            cache = self.record(loaded, self.place, str(self.data), place, copies, progress)
        if cache.examined is not None:
            cache.examined.require(self.allowed(loaded))
            warn_of_doubts(cache.examined, outputs_are=self.outputs_of(loaded).kind)
        say_declared(self.outputs, loaded.model)
        return cache

    @staticmethod
    def _targets(
        texts: Sequence[str], outputs: int, names: Sequence[str] | None
    ) -> tuple[int, ...]:
        from torchxnn.data.datasets.open import find_target

        return tuple(find_target(text, outputs, names) for text in texts)
