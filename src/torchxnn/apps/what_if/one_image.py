"""What if an x-feature were not there? In the sum of x-features, and in the network itself.

Three interventions stand side by side, each as a change of the target's logit (after minus before):

- the x-feature is set to that of a typical other image, or to a given value, and the *reproduced*
  logit is computed anew;
- the x-feature's region, the highest pixels of its map, is painted over, and the whole network runs
  on that picture: change of its *own* logit and of the reproduced one, beside those for regions of
  the same size and shape elsewhere (controls);
- the layer's output is replaced by the embedding's reconstruction with the x-feature, and with it
  set so, and the rest of the network runs on it.

The first says what the explanation claims, the others what the network does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.what_if.painting import WhatIfConfig, paint_over, preprocessing_of, regions_of
from torchxnn.apps.what_if.result import Change, WhatIf
from torchxnn.data.positives import target_position
from torchxnn.errors import DataError
from torchxnn.metrics.insertion_deletion import shifted_regions
from torchxnn.models.attached import XNNOutput
from torchxnn.models.layers import run_with_output
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.xnn import XNN


def what_if(
    xnn: XNN,
    image: Float[Tensor, "channels height width"],
    features: list[int] | None = None,
    *,
    target: int | None = None,
    config: WhatIfConfig | None = None,
    path: str | None = None,
) -> WhatIf:
    """Take x-features away, one at a time, and see what changes.

    Where nobody knows what a typical other image gets (an XNN of an earlier version), they are set
    to 0. All painted images go through the network in one batch.

    Args:
        xnn: fitted.
        image: (3, H, W), preprocessed.
        features: 0-based x-features; None takes all.
        target: class whose logit counts; None takes the first that the XNN explains.
        config: the settings.
        path: where the image came from, for people.

    Raises:
        DataError: no such x-feature or target, an image without three channels, or a value other
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
    index, wanted = _check(xnn, image, features, target, config)
    preprocessing = preprocessing_of(xnn)
    batch = image.unsqueeze(0)
    drawn, explained = xnn.run_with_maps(batch), xnn.targets[index]
    said, maps = drawn.output, drawn.heatmaps[0].cpu().float()
    before = _both(said, explained, index)
    regions = regions_of(maps, said.features[0] > 0, config)[wanted]
    painted = _paint(batch, regions, preprocessing, config)
    after = _both(xnn.run(painted.flatten(0, 1)), explained, index)
    changes = after.unflatten(0, painted.shape[:2]) - before
    decoded, without = _decoded(xnn, batch, said.features[0], wanted, index, config.value)
    typical = xnn.fitted().typical_contributions[index].detach()
    found = []
    for at, feature in enumerate(wanted):
        activation = float(said.features[0, feature])
        contribution = float(said.contributions[0, index, feature])
        moved = 0.0 - contribution
        if config.value is not None:
            weight = float(xnn.readout_weight[index, feature])
            moved += weight * config.value - float(typical[feature])
        found.append(
            Change(
                feature=feature,
                name=xnn.feature_names[feature],
                activation=activation,
                contribution=contribution,
                pixels=int(regions[at].sum()),
                set_reproduced=moved,
                masked_real=float(changes[at, 0, 0]),
                masked_reproduced=float(changes[at, 0, 1]),
                control_real=tuple(changes[at, 1:, 0].tolist()),
                control_reproduced=tuple(changes[at, 1:, 1].tolist()),
                decoded_real=None if without is None else float(without[at]),
                heatmap=maps[feature].numpy(),
                region=regions[at].numpy(),
                masked=preprocessing.picture(painted[at, 0]),
                control=preprocessing.picture(painted[at, 1]),
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


def _check(
    xnn: XNN, image: Tensor, features: list[int] | None, target: int | None, config: WhatIfConfig
) -> tuple[int, list[int]]:
    embedding, count = xnn.fitted(), len(xnn.feature_names)
    wanted = list(range(count)) if features is None else list(features)
    wrong = [each for each in wanted if not 0 <= each < count]
    if wrong or not wanted or len(set(wanted)) < len(wanted):
        raise DataError(f"x-features must be different numbers 0 to {count - 1}, got {wanted}")
    if image.ndim != 3 or image.shape[0] != 3:
        raise DataError(f"an image must be (3, height, width), got {tuple(image.shape)}")
    if config.value and embedding.has_maps:
        raise DataError("x-features that are maps can be set to 0 only")
    return target_position(xnn.targets, target), wanted


def _paint(
    batch: Float[Tensor, "1 3 height width"],
    regions: Bool[Tensor, "regions height width"],
    preprocessing: Preprocessing,
    config: WhatIfConfig,
) -> Float[Tensor, "regions versions 3 height width"]:
    """Per region the image without it, and without such regions elsewhere."""
    seeds = [config.seed + step for step in range(config.controls)]
    versions = torch.stack([regions, *(shifted_regions(regions, seed) for seed in seeds)], 1)
    painted = paint_over(batch, ~versions.flatten(0, 1), preprocessing, config.inpainting)
    return painted.unflatten(0, versions.shape[:2])


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
