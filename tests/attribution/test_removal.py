"""Removal: segments, what lies behind them, and how a fall is shared out."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from conftest import make_images, make_net
from torchxnn.attribution import Removal
from torchxnn.attribution.segments import SMOOTHING, fill_from_around, neighbours, segment
from torchxnn.errors import XNNError

SCALE, SMALLEST = Removal.scale, Removal.smallest


def things():
    """A wide grey image (3, 40, 50) with a red square, a green bar and one blue pixel."""
    image = torch.full((3, 40, 50), 0.2)
    image[:, 5:15, 5:15] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    image[:, 25:30, 20:45] = torch.tensor([0.1, 0.8, 0.2])[:, None, None]
    image[:, 35, 3] = torch.tensor([0.1, 0.1, 0.9])
    return image


class Weighted(nn.Module):
    """Weighted sums of the pixels."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, images):
        return torch.einsum("bchw,kchw->bk", images, self.weights)


# --- segments


def literal_segments(image, scale, smallest):
    """The algorithm of the source over all edges, with a set of pixels for each segment."""
    values = image.double().numpy()
    smooth = np.stack([gaussian_filter(c / values.std(), SMOOTHING) for c in values])
    edges = sorted(zip(*(array.tolist() for array in neighbours(smooth)), strict=True), key=last)
    pixels = smooth[0].size
    home = {pixel: {pixel} for pixel in range(pixels)}
    inner = dict.fromkeys(range(pixels), 0.0)  # by the smallest pixel of a segment

    def merge(a, b, length):
        both = home[a] | home[b]
        for pixel in both:
            home[pixel] = both
        inner[min(both)] = max(length, inner[min(both)])

    for a, b, length in edges:
        one, other = home[a], home[b]
        if one is not other:
            bounds = [inner[min(s)] + scale * pixels / len(s) for s in (one, other)]
            if length <= min(bounds):
                merge(a, b, length)
    for a, b, length in edges:
        if home[a] is not home[b] and min(len(home[a]), len(home[b])) < smallest * pixels:
            merge(a, b, length)
    return torch.tensor([min(home[pixel]) for pixel in range(pixels)]).reshape(image.shape[1:])


def last(edge):
    return edge[2]


def same_partition(first, second):
    pairs = torch.stack([first.flatten(), second.flatten()], 1).unique(dim=0)
    return len(pairs) == len(first.unique()) == len(second.unique())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("scale", "smallest"), [(2e-3, 0.0), (2e-2, 0.0), (2e-3, 0.05)])
def test_segments_equal_the_literal_version(seed, scale, smallest):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 14, 17, generator=generator)
    image[:, 3:9, 4:12] += 3
    found = segment(image, scale, smallest)
    assert same_partition(found, literal_segments(image, scale, smallest))
    assert 1 < len(found.unique()) < image[0].numel()
    assert found.unique().tolist() == list(range(int(found.max()) + 1))


def test_things_are_segments_and_a_dot_belongs_to_its_neighbour():
    image = things()
    found = segment(image, 2e-3, 0.02)
    assert len(found.unique()) <= 6  # three things and their blurred outlines
    for rows, columns in ((slice(6, 14), slice(6, 14)), (slice(26, 29), slice(21, 44))):
        inside = found[rows, columns].unique()
        assert len(inside) == 1
        assert inside != found[0, 0]
    assert found[35, 3] == found[39, 49] == found[0, 0]
    assert segment(image, 2e-3, 0.0)[35, 3] != found[0, 0]


def test_segments_do_not_depend_on_scale_or_offset_and_a_flat_image_is_one():
    image = things() + 0.01 * torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0))
    assert same_partition(segment(image, SCALE, SMALLEST), segment(8 * image - 2, SCALE, SMALLEST))
    assert segment(torch.full((3, 5, 6), 0.4), SCALE, SMALLEST).unique().tolist() == [0]
    assert segment(torch.zeros(3, 1, 1), SCALE, SMALLEST).tolist() == [[0]]


# --- filling


def literal_fill(image, hidden):
    """One mask, level by level, with loops in place of pooling."""
    known = (~hidden).float()
    colours = image * known
    levels = [(colours, known)]
    while max(known.shape) > 1:
        height, width = (-(-side // 2) for side in known.shape)
        smaller, less = torch.zeros(len(image), height, width), torch.zeros(height, width)
        for row in range(height):
            for column in range(width):
                block = (slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
                smaller[:, row, column] = colours[:, block[0], block[1]].mean((1, 2))
                less[row, column] = known[block].mean()
        colours, known = smaller, less
        levels.append((colours, known))
    filled = colours / known
    for colours, known in reversed(levels[:-1]):
        filled = colours + (1 - known) * enlarge(filled, known.shape)
    return filled


def enlarge(maps, size):
    """Bilinear, pixel by pixel, the corners of the pixels aligned."""
    height, width = maps.shape[1:]
    result = torch.zeros(len(maps), *size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = max(0.0, (row + 0.5) * height / size[0] - 0.5)
            x = max(0.0, (column + 0.5) * width / size[1] - 0.5)
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            result[:, row, column] = (
                (1 - dy) * (1 - dx) * maps[:, top, left]
                + (1 - dy) * dx * maps[:, top, right]
                + dy * (1 - dx) * maps[:, below, left]
                + dy * dx * maps[:, below, right]
            )
    return result


def test_filling_equals_the_literal_version():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 13, 18, generator=generator)
    hidden = torch.rand(5, 13, 18, generator=generator) < 0.6
    hidden[4] = True
    hidden[4, 12, 17] = False
    found = fill_from_around(image, hidden)
    for mask, filled in zip(hidden, found, strict=True):
        assert torch.allclose(filled, literal_fill(image, mask), atol=1e-5)
    assert torch.allclose(found[4], image[:, 12:, 17:].expand(-1, 13, 18), atol=1e-5)


def test_what_is_hidden_has_no_say_and_what_is_known_stays():
    image, hidden = things(), torch.zeros(1, 40, 50, dtype=torch.bool)
    hidden[:, 2:18, 2:20] = True
    filled = fill_from_around(image, hidden)[0]
    other = image.clone()
    other[:, hidden[0]] = 7.0
    assert torch.equal(fill_from_around(other, hidden)[0], filled)
    assert torch.equal(filled[:, ~hidden[0]], image[:, ~hidden[0]])
    known = image[:, ~hidden[0]]
    low, high = known.amin(1)[:, None, None], known.amax(1)[:, None, None]
    assert bool((filled >= low - 1e-6).all())
    assert bool((filled <= high + 1e-6).all())


# --- maps


def test_a_thing_gets_what_a_linear_network_loses_without_it():
    image = torch.full((3, 40, 50), 0.2)
    image[:, 5:15, 5:15] = 0.9
    weights = torch.randn(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    # The square and its blurred outline, 40 pixels outside; either with its margin hides both.
    method = Removal(Weighted(weights), scale=2e-3, smallest=0.02, margin=5)
    assert len(method.hide(image)) == 2
    (maps,) = method.attribute_many(image.unsqueeze(0), [0, 1])
    expected = torch.zeros(2, 40, 50)
    falls = 0.7 * weights[:, :, 5:15, 5:15].sum((1, 2, 3))
    expected[:, 5:15, 5:15] = (2 * falls / 100)[:, None, None]
    assert torch.allclose(maps, expected, atol=1e-4)


@pytest.mark.parametrize("margin", [0, 2, None])
def test_maps_equal_the_literal_version(margin):
    images = torch.stack([things(), things().flip(1) ** 2])
    network = nn.Sequential(nn.Flatten(), nn.Linear(6000, 4), nn.Tanh(), nn.Linear(4, 3))
    method = Removal(network, margin=margin)
    maps = method.attribute_many(images, [2, 0])
    reach = round(50 / 100) if margin is None else margin
    for image, found in zip(images, maps, strict=True):
        expected = torch.zeros(2, 40, 50)
        numbers = segment(image, SCALE, SMALLEST)
        for number in numbers.unique():
            inside = numbers == number
            if float(inside.float().mean()) > 0.25:
                continue
            hidden = inside.clone()
            for row, column in inside.nonzero().tolist():
                top, left = max(0, row - reach), max(0, column - reach)
                hidden[top : row + reach + 1, left : column + reach + 1] = True
            without = fill_from_around(image, hidden.unsqueeze(0))[0]
            with torch.no_grad():
                fall = (network(image[None]) - network(without[None]))[0, [2, 0]]
            change = (image - without).square().sum(0)
            if float(change.sum()) > 0:
                expected += fall[:, None, None] * change / change.sum()
        assert torch.allclose(found, expected, atol=1e-5)


def test_chunks_do_not_matter():
    images = torch.stack([things(), things().flip(2)])
    network = nn.Sequential(nn.Flatten(), nn.Linear(6000, 3))
    expected = Removal(network).attribute_many(images, [0, 2])
    for size in (1, 2, 1000):
        found = Removal(network, chunk_size=size).attribute_many(images, [0, 2])
        assert torch.allclose(found, expected, atol=1e-6)


def test_what_fills_the_image_is_not_removed():
    method = Removal(Weighted(torch.ones(1, 3, 40, 50)))
    hidden = method.hide(things())
    assert len(hidden) > 0
    assert not bool(hidden[:, 20, 3].any())
    flat = torch.full((1, 3, 40, 50), 0.3)
    assert method.hide(flat[0]).shape == (0, 40, 50)
    assert not bool(method.attribute(flat, 0).any())
    # Nothing would be left to fill the image from.
    for margin in (0, 2):
        assert len(Removal(method.module, largest=1.0, margin=margin).hide(flat[0])) == 0


def test_settings_out_of_range_are_named():
    network = make_net()
    with pytest.raises(XNNError, match="scale must be above 0"):
        Removal(network, scale=0.0)
    with pytest.raises(XNNError, match="shares must be in order"):
        Removal(network, smallest=0.5, largest=0.1)
    with pytest.raises(XNNError, match="shares must be in order"):
        Removal(network, smallest=0.0, largest=0.0)
    with pytest.raises(XNNError, match="margin must be at least 0"):
        Removal(network, margin=-1)
    assert Removal(network, margin=0).attribute(make_images(2)[0], 1).shape == (2, 12, 12)
