"""What if an x-feature were not there? In the sum of x-features, and in the network itself.

Three interventions stand side by side, each as a change of the target's logit (after minus before):

- the x-feature is set to that of a typical other image, or to a given value, and the *reproduced*
  logit is computed anew;
- the x-feature's region, the highest pixels of its map, is painted over, and the whole network runs
  on that picture: change of its *own* logit and of the reproduced one, beside those for regions of
  the same size and shape elsewhere (controls), many of them on the object as the region is;
- the layer's output is replaced by the embedding's reconstruction with the x-feature, and with it
  set so, and the rest of the network runs on it.

The first says what the explanation claims, the others what the network does.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.what_if.change import Change
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.painting import paint_over, preprocessing_of, regions_of
from torchxnn.apps.what_if.result import WhatIf
from torchxnn.data.positives import target_position
from torchxnn.errors import DataError
from torchxnn.metrics.insertion_deletion import control_regions
from torchxnn.models.attached import XNNOutput
from torchxnn.models.layers import run_with_output
from torchxnn.xnn import XNN

_AT_ONCE = 64  # painted images per pass of the network
_PROBE = 8  # painted images that a run is timed on


def what_if(
    xnn: XNN,
    image: Float[Tensor, "channels *pixels"],
    features: list[int] | None = None,
    *,
    target: int | None = None,
    config: WhatIfConfig | None = None,
    path: str | None = None,
) -> WhatIf:
    """Take x-features away, one at a time, and see what changes.

    Where nobody knows what a typical other image gets (an XNN of an earlier version), they are set
    to 0. The painted images of an x-feature go through the network in batches of 64.

    Args:
        xnn: fitted.
        image: (3, H, W), preprocessed.
        features: 0-based x-features; None takes all.
        target: class whose logit counts; None takes the first that the XNN explains.
        config: the settings.
        path: where the image came from, for people.

    Raises:
        DataError: no such x-feature or target, an image of other channels, or a value other
            than 0 where x-features are maps.
        XNNError: the XNN is not fitted, or does not say how pictures are preprocessed.

    Example:
        >>> result = what_if(xnn, image)
        >>> result.sentence(2)
        >>> result.save("goldfinch")
    """
    config = config or WhatIfConfig()
    if config.value is None and not xnn.fitted().anchored:
        config = replace(config, value=0.0)
    preprocessing = preprocessing_of(xnn)
    index, wanted = _check(xnn, image, features, target, config)
    batch = image.unsqueeze(0)
    explained = xnn.targets[index]
    drawn = xnn.run_with_maps(batch, logits=[explained])
    said, maps = drawn.output, drawn.heatmaps[0].cpu().float()
    before = _both(said, explained, index)
    regions = regions_of(maps, said.features[0] > 0, config)[wanted]
    mass = _object_mass(torch.cat([maps, drawn.logit_heatmaps[0].cpu().float()]))
    counts = config.control_counts(len(wanted))
    decoded, without = _decoded(xnn, batch, said.features[0], wanted, index, config.value)
    typical = xnn.fitted().typical_contributions[index].detach()
    found = []
    for at, feature in enumerate(wanted):
        activation = float(said.features[0, feature])
        contribution = float(said.contributions[0, index, feature])
        moved = 0.0 - contribution
        region = regions[at]
        missing = _versions(region, mass, counts, config.seed)
        painted = paint_over(batch, ~missing, preprocessing, config.inpainting)
        after = [_both(xnn.run(part), explained, index) for part in painted.split(_AT_ONCE)]
        changes = torch.cat(after) - before
        if config.value is not None:
            weight = float(xnn.readout_weight[index, feature])
            moved += weight * config.value - float(typical[feature])
        found.append(
            Change(
                feature=feature,
                name=xnn.feature_names[feature],
                activation=activation,
                contribution=contribution,
                pixels=int(region.sum()),
                set_reproduced=moved,
                masked_real=float(changes[0, 0]),
                masked_reproduced=float(changes[0, 1]),
                control_real=tuple(changes[1:, 0].tolist()),
                control_reproduced=tuple(changes[1:, 1].tolist()),
                decoded_real=None if without is None else float(without[at]),
                heatmap=maps[feature].numpy(),
                region=region.numpy(),
                masked=preprocessing.picture(painted[0]),
                control=preprocessing.picture(painted[-1]),
                control_region=missing[-1].numpy(),
            )
        )
    return WhatIf(
        image=preprocessing.picture(image),
        target=explained,
        target_name=xnn.target_name(explained),
        logit=float(before[0, 0]),
        reproduced=float(before[0, 1]),
        decoded=decoded,
        changes=tuple(sorted(found, key=lambda each: -abs(each.contribution))),
        config=config,
        path=path,
    )


def expected_cost(
    xnn: XNN, image: Float[Tensor, "channels *pixels"], config: WhatIfConfig | None = None
) -> tuple[int, float]:
    """How often `what_if` runs the network on painted images of this size, and about how long.

    It paints over `_PROBE` images and runs the network on them, after one that warms up; the time
    is scaled to all. Maps, of one image, are not in it.

    Args:
        xnn: fitted.
        image: (3, H, W), preprocessed.
        config: the settings.

    Returns:
        Runs, and seconds.
    """
    config, count = config or WhatIfConfig(), len(xnn.feature_names)
    runs = count * (1 + sum(config.control_counts(count)))
    preprocessing, batch = preprocessing_of(xnn), image.unsqueeze(0)
    keep = torch.ones(_PROBE, *image.shape[1:], dtype=torch.bool)
    keep.flatten(1)[:, : config.size(*image.shape[1:])] = False
    start = 0.0
    for masks in (keep[:1], keep):
        start = time.perf_counter()
        xnn.run(paint_over(batch, masks, preprocessing, config.inpainting))
    return runs, runs * (time.perf_counter() - start) / _PROBE


def _check(
    xnn: XNN, image: Tensor, features: list[int] | None, target: int | None, config: WhatIfConfig
) -> tuple[int, list[int]]:
    embedding, count = xnn.fitted(), len(xnn.feature_names)
    wanted = list(range(count)) if features is None else list(features)
    wrong = [each for each in wanted if not 0 <= each < count]
    if wrong or not wanted or len(set(wanted)) < len(wanted):
        raise DataError(f"x-features must be different numbers 0 to {count - 1}, got {wanted}")
    if image.ndim != 3:
        raise DataError(f"an image must be (C, height, width), got {tuple(image.shape)}")
    if config.value and embedding.has_maps:
        raise DataError("x-features that are maps can be set to 0 only")
    return target_position(xnn.targets, target), wanted


def _object_mass(maps: Float[Tensor, "maps height width"]) -> Float[Tensor, "height width"]:
    """Where the object is: the mean of the maps' positive parts, each of sum 1 or 0."""
    positive = maps.double().clamp(min=0)
    return (positive / positive.sum((1, 2), keepdim=True).clamp(min=1e-30)).mean(0)


def _versions(
    region: Bool[Tensor, "height width"],
    mass: Float[Tensor, "height width"],
    counts: tuple[int, int],
    seed: int,
) -> Bool[Tensor, "versions height width"]:
    """What each picture lacks: a region, then regions like it elsewhere, if it has any pixels."""
    if not bool(region.any()):
        return region.unsqueeze(0)
    return torch.cat([region.unsqueeze(0), control_regions(region, mass, *counts, seed)])


def _both(said: XNNOutput, target: int, index: int) -> Float[Tensor, "batch 2"]:
    """The network's own and the reproduced logit of a target."""
    return torch.stack([said.logits[:, target].float(), said.reproduced[:, index].float()], 1).cpu()


@torch.no_grad()
def _decoded(
    xnn: XNN, batch: Tensor, features: Tensor, wanted: list[int], index: int, value: float | None
) -> tuple[float | None, Tensor | None]:
    """The logit on the reconstruction of the layer, and its change without each x-feature."""
    embedding = xnn.fitted()
    if embedding.has_maps:
        return None, None
    versions = features.expand(1 + len(wanted), -1).clone()
    for row, feature in enumerate(wanted, 1):
        versions[row, feature] = embedding.typical[index, feature] if value is None else value
    reference = embedding.readout.weight
    z = embedding.decode(versions.to(reference))
    many = batch.expand(len(versions), -1, -1, -1)
    logits = run_with_output(xnn.model, xnn.layer, many, z)[:, xnn.targets[index]].float().cpu()
    return float(logits[0]), logits[1:] - logits[0]
