"""Draw one chunk of heatmaps, or look for positives among a few images, in whatever process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.heatmaps.config import HeatmapConfig
from torchxnn.apps.heatmaps.store import CONSERVATION, FALLBACK, PROBLEM_BYTES, as_problem
from torchxnn.attribution.methods import CERTIFIED
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.ordered_images import stack_samples
from torchxnn.data.positives import positives_of
from torchxnn.embeddings.exact import exact_sum
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.xnn import XNN


def shrink_maps(
    maps: Float[Tensor, "*batch height width"], size: int
) -> Float[Tensor, "*batch size size"]:
    r"""Maps of size x size cells with the same sum, :math:`M' = A_h M A_w^T`.

    A[i, j] is the share of pixel j that lies in cell i, so a pixel on a border is shared out and
    columns of A sum to 1. Divided by the pixels per cell it is the mean over the cell.

    Raises:
        DataError: `size` is larger than the maps.
    """
    height, width = maps.shape[-2:]
    if size > min(height, width):
        raise DataError(f"maps of {height} x {width} pixels cannot be shrunk to size {size}")
    rows, columns = (_shares(length, size).to(maps) for length in (height, width))
    return rows @ maps @ columns.T


def _shares(pixels: int, cells: int) -> Tensor:
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    left = torch.arange(pixels, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], left)
    high = torch.minimum(edges[1:, None], left + 1)
    return (high - low).clamp(min=0)


# --- reading


def image_names(dataset: Any, rows: Sequence[int] | None) -> list[str]:
    """Names of images for people; of all if no rows are given."""
    chosen = range(len(dataset)) if rows is None else rows
    if isinstance(dataset, ImageDataset):
        return [dataset.paths[row] for row in chosen]
    return [f"image {row}" for row in chosen]


def image_size(dataset: Any) -> tuple[int, int]:
    """Height and width of the first image that can be read."""
    first = ""
    for row in range(len(dataset)):
        image, problem = _read(dataset, row)
        if image is not None:
            if image.ndim != 3:
                raise DataError(f"images must be (C, H, W), image {row} is {tuple(image.shape)}")
            return image.shape[1], image.shape[2]
        first = first or problem
    raise DataError(f"none of the {len(dataset)} images can be read; the first: {first}")


def _read(dataset: Any, row: int) -> tuple[Tensor | None, str]:
    """An image (C, H, W), or why it cannot be read."""
    try:
        batch = stack_samples([dataset[row]])
    except (DataError, OSError) as error:
        return None, " ".join(str(error).split()) or type(error).__name__
    image = (batch if isinstance(batch, Tensor) else batch[0])[0]
    if not bool(torch.isfinite(image).all()):
        name = image_names(dataset, [row])[0]
        raise NonFiniteError(f"NaN or infinity in {name}; check the image and the preprocessing")
    return image, ""


def _read_all(dataset: Any, rows: Sequence[int]) -> tuple[Tensor, dict[int, str]]:
    """Those of the images that can be read, (B, C, H, W), and why the others cannot."""
    images, problems = [], {}
    for row in rows:
        image, problem = _read(dataset, row)
        if image is None:
            problems[row] = problem
        else:
            images.append(image)
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise DataError(f"images of different sizes, {min(sizes)} and {max(sizes)}")
    return torch.stack(images) if images else torch.empty(0), problems


# --- jobs


def draw_chunk(store: ChunkStore, xnn: XNN, dataset: Any, config: HeatmapConfig, chunk: int) -> int:
    """Draw the heatmaps of a chunk and write its file; the file is what makes a chunk done.

    Returns:
        The number of its images.
    """
    span, chosen = store.span(chunk), store.notes["rows"]
    rows = list(span) if chosen is None else chosen[span.start : span.stop]
    tensors = _empty(xnn, store.about, rows)
    for first in range(0, len(rows), config.images_at_once):
        part = rows[first : first + config.images_at_once]
        images, problems = _read_all(dataset, part)
        for row, text in problems.items():
            reason = torch.frombuffer(bytearray(as_problem(text)), dtype=torch.uint8)
            tensors["problem"][first + part.index(row)] = reason
        there = torch.tensor([first + at for at, row in enumerate(part) if row not in problems])
        if len(there):
            for name, values in _draw(xnn, images.to(xnn.device), config).items():
                tensors[name][there] = values.cpu().to(tensors[name].dtype)
    store.write(chunk, tensors)
    return len(rows)


def _empty(xnn: XNN, about: Any, rows: Sequence[int]) -> dict[str, Tensor]:
    """All tensors of a chunk, as they stay for images that cannot be read."""
    count, n, k = len(rows), about["features"], len(xnn.targets)
    nan, dtype = float("nan"), getattr(torch, about["dtype"])
    tensors = {
        "heatmaps": torch.full((count, n, *about["maps"]), nan, dtype=dtype),
        "scale": torch.ones(count, n),
        "features": torch.full((count, n), nan),
        "contributions": torch.full((count, k, n), nan),
        "reproduced": torch.full((count, k), nan),
        "logits": torch.full((count, k), nan),
        "predicted": torch.full((count,), -1, dtype=torch.int64),
        "row": torch.tensor(rows, dtype=torch.int64),
        "problem": torch.zeros(count, PROBLEM_BYTES, dtype=torch.uint8),
    }
    if about["method"] in CERTIFIED:
        tensors |= {name: torch.full((count,), nan) for name in (CONSERVATION, FALLBACK)}
    return tensors


def _draw(xnn: XNN, images: Tensor, config: HeatmapConfig) -> dict[str, Tensor]:
    """Heatmaps and numbers of a batch of images."""
    drawn = xnn.run_with_maps(images, config.method, warn=False)
    said, maps, found = drawn.output, drawn.heatmaps, dict[str, Tensor]()
    if drawn.fallback_share is not None:
        found[FALLBACK] = drawn.fallback_share.float()
        found[CONSERVATION] = exact_sum(maps.flatten(2), 2).abs().amax(1)
    maps = maps.float() if config.map_size is None else shrink_maps(maps.float(), config.map_size)
    if config.dtype == "float16":
        largest = maps.abs().amax((2, 3))
        found["scale"] = torch.where(largest > 0, largest, 1.0)
        maps = maps / found["scale"][:, :, None, None]
    return found | {
        "heatmaps": maps,
        "features": said.features,
        "contributions": said.contributions,
        "reproduced": said.reproduced,
        "logits": said.logits[:, list(xnn.targets)],
        "predicted": said.predicted,
    }


def find_part(
    xnn: XNN, dataset: Any, config: HeatmapConfig, rows: range
) -> tuple[list[int], list[tuple[str, str]]]:
    """Which of these images the network takes for one of the targets.

    Returns:
        Their rows; and the images that could not be read, with the reason.
    """
    positives: list[int] = []
    unread: list[tuple[str, str]] = []
    for first in range(0, len(rows), config.images_at_once):
        part = rows[first : first + config.images_at_once]
        images, problems = _read_all(dataset, part)
        unread += [(image_names(dataset, [row])[0], text) for row, text in problems.items()]
        there = [row for row in part if row not in problems]
        if there:
            logits = xnn.run(images.to(xnn.device)).logits
            mask, _ = positives_of(None, logits, xnn.targets, xnn.outputs, xnn.meaning)
            positives += [there[at] for at in mask.any(1).nonzero().flatten().tolist()]
    return positives, unread
