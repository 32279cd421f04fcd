"""What the naming page shows of every x-feature, drawn once before it opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.gallery import choose_for_feature, heatmaps, largest
from torchxnn.apps.naming.config import NameConfig
from torchxnn.apps.naming.suggest import Suggestion, place_names, suggest
from torchxnn.data.activations import Activations
from torchxnn.data.class_names import spoken
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.positives import find_positives, positives_of
from torchxnn.data.record import record_activations
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.encode import encode
from torchxnn.explanations.drawing.overlay import heatmap_over, number, signed
from torchxnn.metrics.part_weights import CONTEXT

SIDE, QUALITY = 224, 82  # pixels and WebP quality of an image
MEASURED = 20  # images that a suggestion is made from
Group = Literal["top", "spaced", "against"]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class Shown:
    """One image of an x-feature.

    Attributes:
        image: name of the file in `Gallery.files`.
        heatmap: name of the same with the heatmap.
        caption: class, prediction and numbers, which would steer who has not answered yet.
        note: what is odd about the heatmap and tells nothing; mostly empty.
    """

    image: str
    heatmap: str
    caption: str
    note: str


@dataclass(frozen=True)
class ShownFeature:
    """All that is shown of one x-feature.

    Attributes:
        groups: images that activate it most, evenly spaced ones, and those on which it is strongest
            against the prediction.
        suggestions: names that parts or objects suggest.
    """

    groups: dict[Group, tuple[Shown, ...]]
    suggestions: tuple[Suggestion, ...]


@dataclass(frozen=True)
class Gallery:
    """The x-features' images, and the files that they are in (WebP, kept in memory).

    Attributes:
        features: in their order.
        files: name -> content.
        places: what the data set's parts or objects are called, to choose words from.
    """

    features: tuple[ShownFeature, ...]
    files: dict[str, bytes]
    places: tuple[str, ...] = ()


def gather(
    xnn: Any,
    dataset: ImageDataset,
    config: NameConfig,
    source: DataConfig,
    on_batch: Callable[[int], None] | None = None,
    on_drawing: Callable[[int, int], None] | None = None,
) -> Gallery:
    """Run the model over a data set once, choose images, and draw their heatmaps.

    Args:
        xnn: fitted.
        dataset: images, best those that were not fitted.
        config: how many.
        source: images per forward pass, and processes that read ahead.
        on_batch: called after each batch of the pass with the number of images.
        on_drawing: called with (images drawn, images to draw).

    Raises:
        DataError: the data set has no positives, or holds volumes.
    """
    dataset.preprocessing.check_takes_images("the page that names x-features shows images")
    data = record_activations(xnn.model, xnn.layer, source.loader(dataset), on_batch)
    data = data.meant(xnn.meaning)
    found = xnn.embed(data.z)
    positives = find_positives(data, xnn.targets)[0]
    if not bool(positives.any()):
        raise DataError(f"{dataset.name} has no images of {xnn.target_name(xnn.targets[0])}")
    decided, _ = positives_of(None, data.logits, xnn.targets, data.n_outputs, data.meaning)
    best = found.contributions.abs()[positives.any(1)].mean(0).argmax(0)  # target per x-feature
    chosen = [
        choose_for_feature(
            found.features[:, i],
            found.contributions[:, best[i], i],
            positives[:, best[i]],
            decided[:, best[i]],
            (config.top, config.spaced, config.against),
            repeat=False,
        )
        for i in range(found.features.shape[1])
    ]
    own = positives.any(1)
    for_suggestions = [largest(column, MEASURED, own) for column in found.features.T]
    places = place_names(dataset)
    wanted = {row for each in chosen for row in (*each.top, *each.spaced, *each.against)}
    if places:
        wanted |= {row for rows in for_suggestions for row in rows}
    drawer = _Drawer(xnn, dataset, data, found, sorted(wanted), on_drawing)
    features = tuple(
        ShownFeature(
            {
                group: tuple(drawer.show(i, row, int(best[i])) for row in getattr(each, group))
                for group in GROUPS
            },
            suggest(*drawer.measured(i, for_suggestions[i]), places) if places else (),
        )
        for i, each in enumerate(chosen)
    )
    return Gallery(features, drawer.files, tuple(name for name in places if name != CONTEXT))


class _Drawer:
    """The wanted images and their heatmaps, as WebP files in memory."""

    def __init__(
        self,
        xnn: Any,
        dataset: ImageDataset,
        data: Activations,
        found: Any,
        wanted: list[int],
        on_drawing: Callable[[int, int], None] | None,
    ) -> None:
        self.xnn, self.data, self.found = xnn, data, found
        self.dataset, self.files = dataset, dict[str, bytes]()
        self.classes = data.predicted.tolist()
        self.samples: dict[int, Sample] = {}
        self.maps: dict[int, Tensor] = {}
        for index, sample, maps in heatmaps(xnn, dataset, wanted):
            self.samples[index], self.maps[index] = sample, maps
            if on_drawing is not None:
                on_drawing(len(self.maps), len(wanted))

    def show(self, feature: int, index: int, target: int) -> Shown:
        """Draw an image with and without the heatmap of an x-feature, each once."""
        image, heatmap = f"{index}.webp", f"{index}-{feature}.webp"
        pixels = self.dataset.preprocessing.picture(self.samples[index].image)
        if image not in self.files:
            self.files[image] = encode(pixels, QUALITY, SIDE)
        if heatmap not in self.files:
            over = heatmap_over(pixels, self.maps[index][feature].numpy())
            self.files[heatmap] = encode(over, QUALITY, SIDE)
        value = float(self.found.contributions[index, target, feature])
        caption = (
            f"{self._who(index)}; E {number(float(self.found.features[index, feature]))}, "
            f"contribution {signed(value)}"
        )
        caption = f"{caption}; {self.dataset.paths[index]}"
        empty = not bool((self.maps[index][feature] > 0).any())
        note = "no relevance anywhere, so the heatmap is empty" if empty else ""
        return Shown(image, heatmap, caption, note)

    def measured(
        self, feature: int, indices: Sequence[int]
    ) -> tuple[list[Float[Tensor, "height width"]], list[Sample]]:
        """Maps and samples that suggestions are made from."""
        return [self.maps[i][feature] for i in indices], [self.samples[i] for i in indices]

    def _who(self, index: int) -> str:
        predicted = spoken(self.xnn.class_name(self.classes[index]), self.xnn.class_names)
        if self.data.labels is None:
            return f"predicted {predicted}"
        label = spoken(self.xnn.class_name(int(self.data.labels[index])), self.xnn.class_names)
        return label if label == predicted else f"{label}, predicted {predicted}"
