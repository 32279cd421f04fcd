"""Planted images: drawn as they say, the same from a seed, and the same without one thing."""

import pickle

import pytest
import torch

from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.planted import DISTRACTORS, PlantedShapes
from torchxnn.data.removals import record_removals
from torchxnn.errors import DataError
from torchxnn.models.planted import (
    ALWAYS,
    CLASSES,
    COLOURS,
    LAYER,
    SIZE,
    THING_NAMES,
    THINGS,
    TOGETHER,
    WEIGHTS,
    planted_network,
)


@pytest.fixture(scope="module")
def shapes():
    return PlantedShapes(90, seed=4)


@pytest.fixture(scope="module")
def network():
    return planted_network().requires_grad_(False)


def test_samples(shapes):
    assert len(shapes) == len(set(shapes.paths)) == 90
    assert [shapes.labels.count(label) for label in range(len(CLASSES))] == [30, 30, 30]
    for index in (0, 5, -1):
        sample = shapes[index]
        assert sample.image.shape == (3, SIZE, SIZE)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        assert sample.label == shapes.labels[index]
        assert sample.path == shapes.paths[index]
        assert sample.parts.shape == (len(THINGS), 3)
        assert shapes.file(index % 90) is None
    with pytest.raises(IndexError, match="there is no image"):
        shapes[90]


def test_a_seed_gives_the_same_images_however_they_are_asked_for(shapes):
    (batch, labels), *_ = make_loader(PlantedShapes(90, seed=4), 7)
    assert torch.equal(batch, shapes.render(range(7)))
    assert labels.tolist() == list(shapes.labels[:7])
    copy = pickle.loads(pickle.dumps(shapes))
    assert torch.equal(copy[3].image, shapes[3].image)
    for other in (PlantedShapes(90, seed=5), PlantedShapes(90, seed=4, split="test")):
        assert not torch.equal(other[3].image, shapes[3].image)


def test_detectors_answer_to_what_is_present_and_to_nothing_else(shapes, network):
    answers = network.answers(shapes.render(range(len(shapes))))
    assert torch.equal(answers > 0, shapes.present)
    assert shapes.present[:, THING_NAMES.index(ALWAYS)].all()
    floor = answers[:, THING_NAMES.index(ALWAYS)]
    torch.testing.assert_close(floor, torch.ones_like(floor), atol=1e-4, rtol=0)


def test_masks_show_the_colours_of_things(shapes):
    for index in range(0, 90, 9):
        sample = shapes[index]
        numbers = set(sample.masks.unique().tolist())
        shown = {place + 1 for place in shapes.present[index].nonzero().flatten().tolist()}
        assert numbers - {0, len(THINGS) + 1} == shown
        assert len(shapes.object_names) == len(THINGS) + 2
        for number in shown:
            inside = sample.image[:, sample.masks == number].mean(1)
            colour = torch.tensor(COLOURS[THINGS[number - 1].colour])
            assert (inside - colour).abs().max() < 0.3


def test_boxes_and_middles_hold_their_things(shapes):
    for index in range(0, 90, 9):
        sample, boxes = shapes[index], shapes.boxes[index]
        for place in range(len(THINGS)):
            rows, columns = (sample.masks == place + 1).nonzero(as_tuple=True)
            if not len(rows):
                assert boxes[place].eq(0).all()
                assert sample.parts[place].eq(0).all()
                continue
            left, top, width, height = boxes[place].tolist()
            assert left <= columns.min() <= columns.max() < left + width
            assert top <= rows.min() <= rows.max() < top + height
            x, y, visible = sample.parts[place].tolist()
            assert visible == 1
            assert abs(x - float(columns.double().mean())) < 1.5
            assert abs(y - float(rows.double().mean())) < 2.5


def test_without_a_thing_only_its_pixels_and_its_answer_change(shapes, network):
    image, thing = shapes.present[:20].nonzero(as_tuple=True)
    whole = shapes.render(range(20))
    less = shapes.render(image.tolist(), thing.tolist())
    before, after = network.answers(whole)[image], network.answers(less)
    own = torch.nn.functional.one_hot(thing, len(THINGS)).bool()
    assert after[own].eq(0).all()
    assert torch.equal(before[~own], after[~own])
    for row in range(0, len(image), 7):
        left, top, width, height = shapes.boxes[image[row], thing[row]].int().tolist()
        changed = (whole[image[row]] != less[row]).any(0)
        assert changed.any()
        changed[top : top + height, left : left + width] = False
        assert not changed.any()
    absent = (~shapes.present[0]).nonzero()[0].tolist()
    assert torch.equal(shapes.render([0], absent), whole[:1])


def test_a_pixel_by_hand(shapes):
    """On the middle of a thing: opacity of its colour, and the rest of the grey below."""
    index, thing = shapes.present[:, :-1].nonzero()[0].tolist()
    x, y, _ = shapes[index].parts[thing].int().tolist()
    below = shapes.render([index], [thing])[0, :, y, x]
    opacity = float(shapes._opacity[index, thing])
    colour = torch.tensor(COLOURS[THINGS[thing].colour])
    expected = opacity * colour + (1 - opacity) * below
    torch.testing.assert_close(shapes[index].image[:, y, x], expected, atol=1.5 / 255, rtol=0)
    assert 0.85 <= opacity <= 1


def test_the_law_of_the_images():
    """Reasons and the spurious thing are often there; pairs go together; no image is too full."""
    shapes = PlantedShapes(6000, seed=0)
    labels, present = torch.tensor(shapes.labels), shapes.present.double()
    assert present[:, :-1].sum(1).max() <= 9
    for place, each in enumerate(CLASSES):
        rate = present[labels == place].mean(0)
        for name, weight in each.weights.items():
            assert (rate[THING_NAMES.index(name)] > 0.7) == (weight > 0)
        assert rate[THING_NAMES.index(each.spurious)] > 0.7
    for first, second in TOGETHER:
        (label,) = [k for k, each in enumerate(CLASSES) if {first, second} <= set(each.weights)]
        pair = present[labels == label][:, [THING_NAMES.index(n) for n in (first, second)]]
        assert torch.corrcoef(pair.T)[0, 1] > 0.6
    assert not {thing.name for thing in DISTRACTORS} & set(THING_NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "at least 1 planted image, got 0"), ((5, 0, "dev"), "train or test, got 'dev'")],
)
def test_settings_that_draw_nothing_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        PlantedShapes(*arguments)


def test_removals(shapes, network):
    removals = record_removals(network, LAYER, shapes, 1, most=4)
    chosen = [index for index, label in enumerate(shapes.labels) if label == 1][:4]
    assert torch.equal(removals.images, shapes.render(chosen))
    assert torch.equal(removals.masks[2], shapes[chosen[2]].masks)
    drop = removals.logits.unsqueeze(1) - removals.logits_without
    answers = network.answers(removals.images).double()
    expected = answers.unsqueeze(2) * WEIGHTS.T  # a thing is worth its weight times its answer
    torch.testing.assert_close(drop.double(), expected, atol=1e-4, rtol=0)
    still = ~removals.present
    unchanged = removals.z.unsqueeze(1).expand_as(removals.z_without)
    assert torch.equal(removals.z_without[still], unchanged[still])
    with pytest.raises(DataError, match="no image of class 7; draw more"):
        record_removals(network, LAYER, shapes, 7)
