"""The planted network: its logits are the sums that it says, its detectors find their things."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torchxnn.errors import ModelError
from torchxnn.models.layers import run_to_layer
from torchxnn.models.load import load_model
from torchxnn.models.planted import (
    ALWAYS,
    CLASSES,
    COLOURS,
    CONSTANT,
    FACTORY,
    LAYER,
    SHAPES,
    SIZE,
    THING_NAMES,
    THINGS,
    THRESHOLD,
    WEIGHTS,
    WINDOW,
    planted_network,
    shape_filters,
    shape_mask,
)
from torchxnn.models.weights import fingerprint


def grey_with(*things):
    """A grey image in float64 with things of full opacity around (row, column)."""
    image = torch.full((3, SIZE, SIZE), 0.5, dtype=torch.float64)
    for name, row, column in things:
        thing = THINGS[THING_NAMES.index(name)]
        colour = torch.tensor(COLOURS[thing.colour], dtype=torch.float64)[:, None, None]
        half = WINDOW // 2
        place = image[:, row - half : row + half + 1, column - half : column + half + 1]
        place += shape_mask(thing.shape) * (colour - place)
    return image


@pytest.fixture(scope="module")
def network():
    return planted_network(seed=1).requires_grad_(False).double()


def test_by_hand(network):
    """Each thing on grey answers 1 and no other does; so logits are constants and weights."""
    image = grey_with(("red disc", 20, 20), ("blue square", 20, 50), ("red plus", 50, 20))
    answers = network.answers(image[None])[0]
    expected = torch.zeros(len(THINGS), dtype=torch.float64)
    expected[[THING_NAMES.index(n) for n in ("red disc", "blue square", "red plus")]] = 1.0
    torch.testing.assert_close(answers, expected, atol=1e-6, rtol=0)
    logits = network(image[None])[0]
    by_hand = CONSTANT + torch.tensor([3.0 + 2.0, 2.0 - 2.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(logits, by_hand, atol=1e-5, rtol=0)


@pytest.mark.parametrize("thing", [name for name in THING_NAMES if name != ALWAYS])
def test_every_detector_answers_to_its_own_thing_alone(network, thing):
    answers = network.answers(grey_with((thing, 33, 41))[None])[0]
    assert answers.nonzero().flatten().tolist() == [THING_NAMES.index(thing)]


def test_logits_are_the_known_sums(network):
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    shapes = [grey_with((name, 20, 20), ("cyan disc", 50, 50)) for name in THING_NAMES[:4]]
    images = torch.cat([noise, torch.stack(shapes)])
    answers = network.answers(images)
    assert (answers > 0).any()
    expected = CONSTANT + answers @ WEIGHTS.T
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=0)


def literal_answer(image, thing):
    """Colour plane, correlation with the filter at every place, threshold, maximum; in loops."""
    red, green, blue = image.numpy()
    r, g, b = COLOURS[thing.colour]
    plane = (2 * r - 1) * red + (2 * g - 1) * green + (2 * b - 1) * blue + 1 - (r + g + b)
    plane = np.pad(np.maximum(plane, 0), WINDOW // 2)
    kernel, best = shape_filters()[thing.shape].numpy(), 0.0
    for row in range(SIZE):
        for column in range(SIZE):
            response = (plane[row : row + WINDOW, column : column + WINDOW] * kernel).sum()
            best = max(best, (response - THRESHOLD) / (1 - THRESHOLD))
    return best


def test_answers_against_a_literal_version(network):
    image = grey_with(("green square", 20, 20), ("magenta disc", 50, 45))
    answers = network.answers(image[None])[0].tolist()
    for name in ("green square", "green plus", "magenta disc"):
        thing = THINGS[THING_NAMES.index(name)]
        found = answers[THING_NAMES.index(name)]
        assert found == pytest.approx(literal_answer(image, thing), abs=1e-6)


def test_filters_respond_with_1_to_their_own_shape_and_below_the_threshold_to_others():
    for shape, kernel in shape_filters().items():
        seen = (1.5 * shape_mask(shape) - 0.5).clamp(min=0)
        assert float((kernel * seen).sum()) == pytest.approx(1.0)
        for other in SHAPES:
            if other != shape:
                shown = (1.5 * shape_mask(other) - 0.5).clamp(min=0)
                response = nn.functional.conv2d(
                    nn.functional.pad(shown, [WINDOW] * 4)[None, None], kernel[None, None]
                )
                assert float(response.max()) < THRESHOLD


def test_no_thing_has_a_direction_of_its_own_in_z(network):
    """Every unit of Z mixes all things; the linear map back gives the answers again."""
    weight = network.classifier[0].weight
    assert int((weight.abs() > 0.01).all(1).sum()) > 0.8 * len(weight)
    images = torch.stack([grey_with((name, 30, 30)) for name in THING_NAMES[:5]])
    z = run_to_layer(network, LAYER, images)
    assert (z >= 0).all()
    unmixed, constant = network.unmix()
    torch.testing.assert_close(z @ unmixed.T + constant, network.answers(images), atol=1e-5, rtol=0)


def test_the_classes_hold_every_kind_of_evidence():
    for place, each in enumerate(CLASSES):
        weights = WEIGHTS[place]
        assert min(each.weights.values()) < 0 < max(each.weights.values())
        assert weights[THING_NAMES.index(each.spurious)] == 0
        assert weights[THING_NAMES.index(ALWAYS)] > 0
        assert [THING_NAMES[reason] for reason in each.reasons] == list(each.weights)


def test_by_name_and_with_saved_weights(tmp_path):
    made = planted_network(seed=3)
    assert fingerprint(made) == fingerprint(planted_network(seed=3))
    assert fingerprint(made) != fingerprint(planted_network())
    save_file(made.state_dict(), tmp_path / "network.safetensors")
    loaded = load_model(FACTORY, tmp_path / "network.safetensors")
    assert fingerprint(loaded.model) == fingerprint(made)
    assert loaded.preprocessing.size == SIZE
    assert fingerprint(load_model(FACTORY).model) == fingerprint(planted_network())


def test_an_unknown_shape_is_refused():
    with pytest.raises(ModelError, match="no planted shape 'star'; known: disc, square"):
        shape_mask("star")
