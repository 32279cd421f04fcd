"""What is known of a forward pass from shapes and structure is what its tensors say."""

import math
from dataclasses import replace

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from torchxnn.attribution.excitation_backprop.along import Along
from torchxnn.attribution.excitation_backprop.facts import never_negative
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.excitation_backprop.owners import Owner
from torchxnn.attribution.excitation_backprop.prepared import prepare
from torchxnn.attribution.excitation_backprop.rules.table import RULES, rule_of
from torchxnn.attribution.excitation_backprop.tracing import record


def literal(shape, along):
    """The image of every element, one by one."""
    found = torch.zeros(shape, dtype=torch.int32)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in shape)).reshape(
        -1, len(shape)
    ):
        index = int(place[along.dim])
        found[tuple(place)] = index // along.run % along.images + 1
    return found


def owner(shape, along):
    return Owner(shape, None, along.images, along).tensor


assert ExcitationBackprop  # whose module fills the table of rules

FACTORS = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@given(FACTORS, FACTORS, st.integers(2, 3), st.randoms(use_true_random=False))
def test_images_are_followed_through_reshapes_and_permutations(before, after, images, random):
    shape = [*before, images, *after]
    along = Along(images, len(before))
    tensor = owner(shape, along)
    assert torch.equal(tensor, literal(shape, along))
    for _ in range(4):
        if random.random() < 0.5:
            order = random.sample(range(len(shape)), len(shape))
            along, tensor = along.at(order.index(along.dim)), tensor.permute(order)
            shape = [shape[dim] for dim in order]
        else:
            target = joined(shape, random)
            found, tensor = along.reshaped(shape, target), tensor.reshape(target)
            if found is None:
                return
            along, shape = found, target
        assert torch.equal(owner(shape, along), tensor)


def joined(shape, random):
    """Some neighbouring dimensions as one, and a dimension of 1 somewhere."""
    first = random.randrange(len(shape))
    last = random.randrange(first, len(shape)) + 1
    found = [*shape[:first], math.prod(shape[first:last]), *shape[last:]]
    found.insert(random.randrange(len(found) + 1), 1)
    return found


def test_images_that_are_taken_apart_are_not_followed():
    """Of 2 x 6 elements of image 1 and as many of image 2, a row of 4 x 6 has parts of one."""
    along = Along(2)
    assert along.reshaped([2, 12], [4, 6]) == Along(2, 0, 2)
    assert along.reshaped([2, 6], [3, 4]) is None  # the second row has elements of both
    assert along.without([0], 2) is None
    assert along.without([-1], 2) == along
    assert Along(2, 1).without([0], 3) == along
    assert along.at(1).reshaped([0, 2, 4], [2, 0, 3]) is None  # of nothing


class ManyMoves(nn.Module):
    """Most operations that move elements, in (batch, ...) and in (tokens, batch, ...) order."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(8, 8, 1, padding=1)  # outputs that see padding alone
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2)
        self.norm = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.randn(8))
        self.head = nn.Linear(24, 3)

    def forward(self, images):
        x = F.relu6(self.stem(images))
        x = F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)
        x = torch.cat([x[:, ::2], x[:, 1::2].flip(3)], 1).roll((1, 1), (2, 3))
        y = F.avg_pool2d(self.wide(F.max_pool2d(x, 2)).sigmoid() * 2, 2, ceil_mode=True)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        tokens = torch.stack(tokens.unbind(1))  # (tokens, batch, channels)
        mixed = self.norm(tokens + self.attention(tokens, tokens, tokens)[0]) * self.scale
        first, *_ = mixed.split(1)
        rest = mixed[1:].mean(0)
        last = F.hardtanh(y, 0, 1).mean((2, 3))
        return self.head(torch.cat([first.squeeze(0), rest, last], 1))


def networks():
    swin = torchvision.models.SwinTransformer([4, 4], 16, [2], [2], [2, 2], num_classes=3)
    dense = torchvision.models.DenseNet(4, (2, 2), 8, num_classes=3)
    vit = torchvision.models.VisionTransformer(16, 8, 1, 2, 16, 16, num_classes=3)
    return {"many": ManyMoves(), "swin": swin, "dense": dense, "vit": vit}


@pytest.mark.parametrize("name", ["many", "swin", "dense", "vit"])
@pytest.mark.parametrize("images", [1, 3])
def test_shapes_tell_what_owners_of_each_operation_say(monkeypatch, name, images):
    network = networks()[name].eval()
    (tape,) = record(network, torch.randn(images, 3, 16, 16))
    told = prepare(tape, certify=False).owners
    for key, rule in RULES.items():
        monkeypatch.setitem(RULES, key, replace(rule, along=lambda operation, known: None))
    asked = prepare(tape, certify=False).owners
    assert told.keys() == asked.keys()
    assert len(told) > 20
    for value, owner in told.items():
        assert torch.equal(owner.tensor.float(), asked[value].tensor.float())
        assert owner.complete == asked[value].complete
    most = 0.5 if name in ("swin", "dense") else 0.2  # a token that is no part of an image is asked
    assert sum(owner.along is not None for owner in told.values()) > most * len(told)


@pytest.mark.parametrize("name", ["many", "swin", "dense", "vit"])
def test_facts_are_those_of_the_numbers(name):
    network = networks()[name].eval()
    (tape,) = record(network, torch.randn(2, 3, 16, 16))
    prepare(tape, certify=False)
    safe, seen = set(), set()
    for operation in tape.operations:
        if never_negative(operation, safe):
            safe.add(operation.output)
            assert not bool((operation.output.tensor < 0).any())
        rule = rule_of(operation)
        for fact, holds in operation.known.items():
            seen.add(fact)
            if fact == "flips":
                assert holds == bool((rule.scale(operation).tensor < 0).any())
            else:
                source, weight = rule.factors(operation)
                signed = bool((source.tensor < 0).any())
                assert holds == (signed if fact == "signed" else bool((weight.tensor > 0).any()))
    assert "signed" in seen
    assert len(safe) > 1 or name not in ("many", "dense")


def test_what_numbers_can_make_negative_is_not_called_safe():
    class Shifted(nn.Module):
        def forward(self, x):
            return (
                (x.relu() - 1 + (x.relu() * -1) + torch.add(x.relu(), x.relu(), alpha=-2))
                .clamp(0, -1)
                .flatten(1)
            )

    (tape,) = record(Shifted(), torch.randn(1, 1, 2, 2))
    safe = set()
    for operation in tape.operations:
        if never_negative(operation, safe):
            safe.add(operation.output)
    assert {value.producer.name for value in safe} == {"relu"}


class OfWholeNumbers(nn.Module):
    """Features that are not negative, multiplied by, added to and joined with whole numbers."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(16, 2)
        self.register_buffer("numbers", torch.tensor([1, -1, 2, -3]).to(dtype))

    def forward(self, images):
        x = self.stem(images.flatten(1)).relu()
        written = x * 1.0
        written[:] = self.numbers - (x > 0.5).to(self.numbers.dtype)
        joined = torch.cat([x, (self.numbers * (x > 0)).to(self.numbers.dtype)], 1)
        return (
            self.head(torch.cat([x * self.numbers, x + self.numbers, joined], 1)) + written[:, :2]
        )


def test_whole_numbers_can_be_negative_too():
    images = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    (tape,) = record(OfWholeNumbers(torch.int64).eval(), images)
    safe, negative = set(), 0
    for operation in tape.operations:
        if never_negative(operation, safe):
            safe.update(operation.outputs)
        for output in operation.outputs:
            low = bool((output.tensor < 0).any())
            negative += low
            assert not (low and output in safe)
    assert negative > 5
    of_integers, of_floats = (
        ExcitationBackprop(Scaled(dtype)).attribute(images, 0)
        for dtype in (torch.int64, torch.float32)
    )
    assert torch.equal(of_integers, of_floats)


class Scaled(OfWholeNumbers):
    def forward(self, images):
        x = self.stem(images.flatten(1)).relu() * self.numbers
        return self.head(torch.cat([x, x, x, x], 1))


class OddMoves(nn.Module):
    """Images as channels of a shuffle, parts of one, and averages beside the images."""

    def forward(self, images):
        shuffled = F.pixel_unshuffle(images[:, 0] * 1.0, 2)
        (whole,) = (images[:, :1] * 2).unbind(1)
        last = images.permute(1, 2, 3, 0) * 3
        mean = F.pad(last, (0, 0, 1, 0)).mean(2, keepdim=True)
        rows = mean.permute(3, 0, 1, 2).flatten(1)
        back = F.pixel_shuffle(shuffled, 2)
        return torch.cat([back.flatten(1), whole.flatten(1), rows], 1)


def test_odd_moves_keep_images_apart():
    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    network = nn.Sequential(OddMoves(), nn.Linear(36, 2)).eval()
    (tape,) = record(network, images)
    owners = prepare(tape, certify=False).owners
    image = torch.arange(1, 5)
    for value, owner in owners.items():
        name = value.producer.name if value.producer else ""
        if name == "pixel_unshuffle":  # 16 channels, 4 of each image after one another
            expected = image.repeat_interleave(4).reshape(16, 1, 1)
        elif name == "mean":
            expected = image.reshape(1, 1, 1, 4)
        elif value.shape[0] == 4:
            expected = image.reshape(4, *(1 for _ in value.shape[1:]))
        else:
            continue
        assert torch.equal(owner.tensor.long(), expected.expand(value.shape)), name
    layers = ExcitationBackprop(network).certify_layers(images, [0, 1])
    assert max(layer.conservation_error for layer in layers) < 1e-5


def test_a_number_that_is_none_hides_no_other():
    """A channel that nobody reads is NaN, and the scale of another is negative."""

    class Dead(nn.Module):
        def __init__(self, dead):
            super().__init__()
            torch.manual_seed(2)
            self.stem, self.head = nn.Conv2d(1, 3, 1), nn.Linear(2, 2)
            self.scale = nn.Parameter(torch.tensor([dead, -1.0, -2.0]))
            self.norm = nn.BatchNorm2d(3)
            self.norm.weight = self.scale

        def forward(self, images):
            return self.head(self.norm(self.stem(images))[:, 1:].mean((2, 3)))

    images = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    found, expected = (
        ExcitationBackprop(Dead(dead).eval()).attribute(images, 0) for dead in (math.nan, 1.0)
    )
    assert torch.equal(found, expected)
