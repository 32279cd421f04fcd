"""Which parts or objects an x-feature looks at, and how many (paper section 4.2, metric 3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.errors import DataError, NonFiniteError, XNNWarning
from torchxnn.metrics.intervals import (
    LEVEL,
    RESAMPLES,
    Interval,
    bootstrap_counts,
    percentile_interval,
)
from torchxnn.metrics.part_weights import PixelWeights

_RESAMPLED_VALUES = 4_000_000
"""Histogram values resampled at once, which bounds the memory of the bootstrap."""


@dataclass(frozen=True)
class Locality:
    r"""How many parts the x-features look at, as the entropy of their relevance over the parts.

    Attributes:
        value: mean of `per_feature` over the x-features that are used; natural log, lower is
            better: exp(value) is about the number of parts that one x-feature looks at. NaN if no
            x-feature is used.
        per_feature: :math:`H_n` of every x-feature; NaN if it is dead or its histogram is empty.
        histogram: (n, P), :math:`\bar S_p^n`, not normalised (the bars of paper figure 7).
        names: of the P parts or objects.
        chance: `value` of uniform maps on the same images. NaN if no part is ever measured. It is
            not an upper bound: with a context, most of a uniform map is context.
        chance_histogram: (P,), :math:`\bar S_p` of uniform maps.
        interval: percentile bootstrap over images of `value`. Entropy is concave, so resamples,
            which hold fewer different images, lie lower: with few images whose histograms differ
            much, `value` is near the upper end of the interval or even above it.
        images: number of images, M.
        measured: in how many images every part was measured (visible).
        void_share: mean share of relevance on pixels of no class, which is left out; None where
            there is no such thing, NaN if no map is used.
        empty_maps: for every x-feature, maps without positive relevance; they are left out.
        alive: number of x-features that `value` is the mean of.
    """

    value: float
    per_feature: tuple[float, ...]
    histogram: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    chance: float
    chance_histogram: tuple[float, ...]
    interval: Interval
    images: int
    measured: tuple[int, ...]
    void_share: float | None
    empty_maps: tuple[int, ...]
    alive: int


def entropy(histogram: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows"]:
    r""":math:`H=-\sum_p q_p\log q_p` with :math:`q=\bar S/\sum_p\bar S_p`; natural log.

    Source: paper section 4.2, metric 3. Lower is more local: 0 for a single part, log P for P parts
    alike. NaN for a histogram that is 0 everywhere, which has no entropy.
    """
    return torch.special.entr(histogram / histogram.sum(-1, keepdim=True)).sum(-1)


class RelevanceHistograms:
    r"""Relevance of every part for every x-feature, summed up over images, without the maps.

    Of every map C its positive part, normalised to sum 1, is
    :math:`S_{ij}=P(\mathrm{pixel}\,ij\mid\mathrm{feature})`; then
    :math:`S_p=\sum_{ij}P(\mathrm{part}\,p\mid\mathrm{pixel}\,ij)\,S_{ij}` (paper section 4.2), and
    :math:`\bar S_p` is its mean over the images in which part p is measured: parts that are not
    visible are left out. An object that is absent from a segmented image is measured, as 0.

    Args:
        n_features: n.
        names: of the parts, in the order of the pixel weights.

    Raises:
        DataError: there are no names.

    Example:
        >>> histograms = RelevanceHistograms(5, (*birds.part_names, CONTEXT))
        >>> weights = pixel_weights_voronoi(sample.parts, sample.box, (224, 224))
        >>> histograms.update(xnn.attribute(sample.image.unsqueeze(0)), [weights])
        >>> histograms.result().value
    """

    def __init__(self, n_features: int, names: Sequence[str]) -> None:
        if not names:
            raise DataError("locality needs the names of at least one part or object")
        self.names = tuple(names)
        self._n_features = n_features
        self._images: list[tuple[Tensor, ...]] = []
        self._has_void = False

    def update(
        self,
        heatmaps: Float[Tensor, "batch features height width"],
        weights: Sequence[PixelWeights],
    ) -> None:
        """Add the maps of a batch; negative relevance counts as 0.

        Args:
            heatmaps: (B, n, H, W), signed or not, of any scale.
            weights: of every image, from `pixel_weights_points`, `_voronoi` or `_masks`; all of
                one kind. They do not depend on the maps: keep them for the next method.

        Raises:
            DataError: other numbers of images, x-features, pixels or parts than expected.
            NonFiniteError: a map holds NaN or infinity.
        """
        self._check(heatmaps, weights)
        maps = heatmaps.detach().flatten(2)
        # a sum is 90 times faster, and finite only if all values are
        if not bool(maps.sum().isfinite()) and not bool(maps.isfinite().all()):
            raise NonFiniteError("a heatmap to measure locality on holds NaN or infinity")
        for image, weight in zip(maps, weights, strict=True):
            # float32 loses up to four digits in sums over so many pixels
            relevance, total = _relevance_of_parts(exact(image).clamp(min=0), weight)
            used = total > 0
            share, void = torch.where(used, relevance / total, 0.0).split([weight.n_parts, 1], 1)
            self._images.append((share, used[:, 0], weight.measured, void[:, 0], weight.uniform()))
            self._has_void |= weight.has_void

    def per_image(self) -> Float[Tensor, "images features parts"]:
        """S of every image, (M, n, P), float64: the bars of paper figure 7 for one image.

        Raises:
            DataError: no maps were added.
        """
        return self._all_images()[0]

    def _all_images(self) -> list[Tensor]:
        """S, maps used, parts measured, shares of void and S of a uniform map, of every image."""
        if not self._images:
            raise DataError("no heatmaps were given to measure locality on")
        return [torch.stack(each) for each in zip(*self._images, strict=True)]

    def result(
        self,
        dead: tuple[int, ...] = (),
        without: Sequence[str] = (),
        level: float = LEVEL,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> Locality:
        """Entropy per x-feature, their mean, its chance level and its interval.

        Args:
            dead: x-features that are 0 on every positive. A dead x-feature still has a map, so it
                is left out by the test on E, with a warning. So is one without any relevance on a
                part.
            without: names of parts to leave out of the entropies, such as `CONTEXT`: a map that
                lies outside the object, and so on the context alone, is very local, and a uniform
                map, which mostly does, is more local than most explanations. Without the context
                the entropy is over the parts of the object. The histogram keeps all.
            level: of the interval, in (0, 1).
            resamples: of the bootstrap over images.
            seed: of the bootstrap.

        Raises:
            DataError: no maps were added, or there is no x-feature of a number in `dead` or no part
                of a name in `without`.
        """
        relevance, used, measured, void, uniform = self._all_images()
        self._check_left_out(dead, without)
        parts = [p for p, name in enumerate(self.names) if name not in without]
        once = torch.ones(1, len(relevance), dtype=torch.float64)
        histogram = _weighted_histograms(relevance, used, measured, once)[0]
        per_feature = entropy(histogram[:, parts])
        per_feature[list(dead)] = math.nan
        alive = [i for i in range(self._n_features) if not per_feature[i].isnan()]
        _warn_left_out(self._n_features - len(set(dead)) - len(alive), len(set(dead)))
        counts = bootstrap_counts(len(relevance), resamples, seed)
        resampled = _resampled_locality(
            relevance[:, alive][:, :, parts], used[:, alive], measured[:, parts], counts
        )
        chance = _weighted_histograms(uniform.unsqueeze(1), once.bool().T, measured, once)[0]
        return Locality(
            value=float(per_feature[alive].mean()),
            per_feature=tuple(per_feature.tolist()),
            histogram=tuple(tuple(row) for row in histogram.tolist()),
            names=self.names,
            chance=float(entropy(chance[:, parts])[0]),
            chance_histogram=tuple(chance[0].tolist()),
            interval=percentile_interval(resampled, level, len(relevance)),
            images=len(relevance),
            measured=tuple(measured.sum(0).tolist()),
            void_share=float(void[:, alive][used[:, alive]].mean()) if self._has_void else None,
            empty_maps=tuple((~used).sum(0).tolist()),
            alive=len(alive),
        )

    def _check_left_out(self, dead: tuple[int, ...], without: Sequence[str]) -> None:
        for index in dead:
            if not 0 <= index < self._n_features:
                raise DataError(f"there is no x-feature {index} among {self._n_features}")
        for name in without:
            if name not in self.names:
                raise DataError(f"there is no part {name!r} to leave out of locality")

    def _check(self, heatmaps: Tensor, weights: Sequence[PixelWeights]) -> None:
        if len(heatmaps) != len(weights):
            raise DataError(
                f"there are heatmaps of {len(heatmaps)} images and pixel weights of {len(weights)}"
            )
        if heatmaps.shape[1] != self._n_features:
            raise DataError(
                f"expected maps of {self._n_features} x-features, got {heatmaps.shape[1]}"
            )
        for weight in weights:
            if weight.size != tuple(heatmaps.shape[2:]):
                raise DataError(
                    f"pixel weights are of {weight.size[0]} x {weight.size[1]} pixels and heatmaps "
                    f"of {heatmaps.shape[2]} x {heatmaps.shape[3]}; both must be in the input's "
                    "frame"
                )
            if weight.n_parts != len(self.names):
                raise DataError(
                    f"pixel weights are of {weight.n_parts} parts, but {len(self.names)} have a "
                    "name (with a Voronoi diagram, the last part is the context)"
                )


def _relevance_of_parts(
    maps: Float[Tensor, "features pixels"], weights: PixelWeights
) -> tuple[Float[Tensor, "features columns"], Float[Tensor, "features 1"]]:
    """Weighted sums over the pixels, the last column those of void, and the sums of the maps.

    One matrix product with the planes of the parts that the image has: an addition pixel by pixel
    takes as long and loses digits, and planes of all objects of a data set do not fit in memory.
    """
    parts, rows = weights.parts.unique(return_inverse=True)
    planes = maps.new_zeros(len(parts), maps.shape[1])
    index = rows.to(maps.device), weights.pixels.to(maps.device)
    planes.index_put_(index, weights.weights.to(maps), accumulate=True)
    relevance = torch.zeros(len(maps), weights.n_parts + 1, dtype=torch.float64)
    relevance[:, parts] = (maps @ planes.T).cpu()
    return relevance, maps.sum(1, keepdim=True).cpu()


def _weighted_histograms(
    relevance: Float[Tensor, "images features parts"],
    used: Bool[Tensor, "images features"],
    measured: Bool[Tensor, "images parts"],
    counts: Float[Tensor, "resamples images"],
) -> Float[Tensor, "resamples features parts"]:
    """Mean over the images with a map and the part, each as often as it was drawn; else 0."""
    both = used.unsqueeze(2) & measured.unsqueeze(1)
    total = counts @ relevance.flatten(1)
    number = counts @ both.flatten(1).double()
    mean = torch.where(number > 0, total / number, 0.0)
    return mean.reshape(len(counts), *relevance.shape[1:])


def _resampled_locality(
    relevance: Float[Tensor, "images features parts"],
    used: Bool[Tensor, "images features"],
    measured: Bool[Tensor, "images parts"],
    counts: Float[Tensor, "resamples images"],
) -> Float[Tensor, " resamples"]:
    """Locality of every resample; an x-feature without relevance in it is left out of its mean."""
    rows = max(1, _RESAMPLED_VALUES // max(1, relevance[0].numel()))
    return torch.cat(
        [
            entropy(_weighted_histograms(relevance, used, measured, some)).nanmean(1)
            for some in counts.split(rows)
        ]
    )


def _warn_left_out(empty: int, dead: int) -> None:
    if empty or dead:
        warnings.warn(
            f"{dead} dead x-feature(s) and {empty} without relevance on any part left out of "
            "locality",
            XNNWarning,
            stacklevel=3,
        )
