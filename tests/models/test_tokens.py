"""One vector per image from a layer of tokens: which it is, what is refused, and the way back."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from model_state import assert_same_state, state_of
from token_examples import DIMS, PATCHES, grid_net, some_images, token_net
from torchxnn.errors import DataError, LayerError
from torchxnn.models.attached import AttachedLayer
from torchxnn.models.layer_list import list_layers
from torchxnn.models.layers import (
    as_activations,
    record_layers,
    resolve_layer,
    run_above_layer,
    run_to_layer,
    run_with_output,
)
from torchxnn.models.token_checks import check_token
from torchxnn.models.tokens import (
    layer_with_token,
    put_token,
    read_token,
    split_token,
    with_main_tensor,
)


@pytest.fixture(scope="module")
def net():
    return token_net()


@pytest.fixture(scope="module")
def images():
    return some_images()


def tokens_of(net, images, layer="blocks.0"):
    return record_layers(net, [layer], images)[0][0]


# --- names


@pytest.mark.parametrize("token", ["cls", "mean", 0, 12])
def test_the_token_stands_behind_the_name(token):
    named = layer_with_token("blocks.3", token)
    assert named == f"blocks.3[{token}]"
    assert split_token(named) == ("blocks.3", token)
    assert layer_with_token("blocks.3", str(token)) == named
    assert layer_with_token(named, None) == named


@pytest.mark.parametrize("token", ["first", "", -1, "1.5", True])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(LayerError, match="token must be cls, mean or an index from 0"):
        layer_with_token("blocks.3", token)


def test_two_tokens_are_refused():
    with pytest.raises(LayerError, match="names its token already"):
        layer_with_token("blocks.3[cls]", 1)


def test_a_layer_is_found_with_its_token(net):
    assert resolve_layer(net, "blocks.1[mean]") == ("blocks.1[mean]", net.blocks[1])
    with pytest.raises(LayerError, match=r"no layer 'blocks.7\[cls\]'; nearest: 'blocks.1'"):
        resolve_layer(net, "blocks.7[cls]")


def test_brackets_may_belong_to_the_name():
    odd = nn.Sequential()
    odd.add_module("a[0]", nn.Linear(2, 2))
    assert resolve_layer(odd, "a[0]") == ("a[0]", odd[0])


# --- reading


def test_each_token_is_what_its_name_says(net, images):
    tokens = tokens_of(net, images)
    assert tokens.shape == (4, 1 + PATCHES, DIMS)
    for token, expected in {"cls": tokens[:, 0], 3: tokens[:, 3], "mean": tokens.mean(1)}.items():
        attached = AttachedLayer(net, "blocks.0", token)
        assert (attached.name, attached.token) == (f"blocks.0[{token}]", token)
        assert torch.allclose(attached.run(images)[0], expected, atol=1e-5)
        assert torch.allclose(attached.run_to(images), expected, atol=1e-5)


def test_a_module_may_be_given_with_a_token(net, images):
    attached = AttachedLayer(net, net.blocks[1], token="cls")
    assert attached.name == "blocks.1[cls]"
    assert torch.equal(attached.run(images)[0], tokens_of(net, images, "blocks.1")[:, 0])


def test_blocks_that_return_a_tuple_give_its_first_entry(images):
    plain, tuples = token_net(), token_net(as_tuple=True)
    expected = AttachedLayer(plain, "blocks.1", "cls").run(images)
    found = AttachedLayer(tuples, "blocks.1", "cls").run(images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(LayerError, match=r"returns a tuple.* or give --token"):
        AttachedLayer(tuples, "blocks.1").run(images)


def test_a_grid_with_the_channels_last_is_read_along_its_rows(images):
    net = grid_net()
    grid = tokens_of(net, images, "grid")
    assert grid.shape == (4, 3, 3, DIMS)
    assert torch.allclose(AttachedLayer(net, "grid", "mean").run(images)[0], grid.mean((1, 2)))
    assert torch.equal(AttachedLayer(net, "grid", 5).run(images)[0], grid[:, 1, 2])


def test_a_missing_token_is_an_error_that_names_the_choices(net, images):
    with pytest.raises(LayerError) as error:
        AttachedLayer(net, "blocks.1").run(images)
    assert str(error.value) == (
        "layer 'blocks.1' gives 10 tokens of 8 dimensions; choose --token cls, mean or an index "
        "(token= of XNN in Python)"
    )
    with pytest.raises(LayerError, match="a grid of 3 x 3 tokens of 8 dimensions, channels last"):
        AttachedLayer(grid_net(), "grid").run(images)


@pytest.mark.parametrize(
    ("layer", "token", "message"),
    [
        ("head", "mean", "no tokens"),
        ("patches", "mean", "no tokens"),
        ("blocks.0", 10, "gives 10 tokens, 0 to 9; there is no token 10"),
    ],
)
def test_a_token_that_is_not_there_is_refused(net, images, layer, token, message):
    with pytest.raises(LayerError, match=message):
        AttachedLayer(net, layer, token).run(images)


@pytest.mark.parametrize(
    ("shape", "size", "refused"),
    [
        ((768, 196), 224, True),  # channels of a mixer, its positions last
        ((384, 197), 224, True),
        ((196, 768), 224, False),
        ((197, 384), 224, False),
        ((201, 1024), 224, False),  # four registers beside the class token
        ((16, 64), 32, False),  # both readings fit
    ],
)
def test_tokens_that_come_last_are_refused(shape, size, refused):
    output, images = torch.zeros(1, *shape), torch.zeros(1, 3, size, size)
    if not refused:
        assert as_activations(output, "layer[mean]", images).shape == (1, shape[1])
        return
    with pytest.raises(LayerError, match="tokens seem to come last"):
        as_activations(output, "layer[mean]", images)


def test_a_token_decides_where_maps_have_as_many_channels_as_rows():
    cube, images = torch.randn(2, 4, 4, 4), torch.zeros(2, 3, 12, 12)
    assert torch.equal(as_activations(cube, "layer[6]", images), cube[:, 1, 2])
    assert as_activations(cube, "layer", images) is cube
    with pytest.raises(LayerError, match="no tokens"):
        as_activations(cube[:, :3], "layer[mean]", images)


def test_a_grid_of_a_volume_is_read_along_its_rows():
    grid, volume = torch.randn(2, 2, 4, 4, 6), torch.zeros(2, 1, 8, 16, 16)
    assert torch.equal(as_activations(grid, "layer[21]", volume), grid[:, 1, 1, 1])
    with pytest.raises(LayerError, match="a grid of 2 x 4 x 4 tokens of 6 dimensions"):
        as_activations(grid, "layer", volume)


def test_texts_have_a_token_for_each_id():
    ids = torch.ones(2, 7, dtype=torch.int64)
    assert as_activations(torch.zeros(2, 7, 5), "layer[mean]", ids).shape == (2, 5)
    with pytest.raises(LayerError, match="tokens seem to come last"):
        as_activations(torch.zeros(2, 5, 7), "layer[mean]", ids)


def test_list_layers_says_where_a_token_is_taken(images):
    for habits, shape in (({}, (10, 8)), ({"as_tuple": True}, (10, 8))):
        layers = {layer.name: layer for layer in list_layers(token_net(**habits), images[:1])}
        assert layers["blocks.0"].takes_token
        assert not layers["blocks.0"].attachable
        assert layers["blocks.0"].shape == shape
        assert layers["head"].attachable
        assert not layers["head"].takes_token
    grid = {layer.name: layer for layer in list_layers(grid_net(), images[:1])}["grid"]
    assert (grid.takes_token, grid.attachable) == (True, False)


# --- what is checked before anything is recorded


def test_tokens_that_come_first_are_refused(images):
    net = token_net(tokens_first=True)
    for count in (1, 2, 1 + PATCHES):  # the last: as many images as tokens
        batch = some_images(count)
        with pytest.raises(LayerError, match="not a row per image"):
            check_token(net, "blocks.0[1]", batch)
    assert all(not layer.takes_token for layer in list_layers(net, images[:2]))


def test_a_layer_that_mixes_its_images_is_refused(images):
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.tokens = token_net(), nn.Identity()

        def forward(self, images):
            tokens = self.inner.patches(images).flatten(2).mT
            tokens = self.tokens(tokens + tokens.mean(0))
            return self.inner.head(tokens.mean(1))

    with pytest.raises(LayerError, match="when another image is in its batch"):
        check_token(Mixing(), "tokens[mean]", images)


def test_the_class_token_must_be_one(images):
    without, late = token_net(joins_at=None), token_net(joins_at=1)
    with pytest.raises(LayerError, match="has no class token"):
        check_token(without, "blocks.0[cls]", images)
    check_token(without, "blocks.0[0]", images)
    with pytest.raises(LayerError, match=r"not among the tokens of layer 'blocks\.0' yet"):
        check_token(late, "blocks.0[cls]", images)
    before = state_of(late)
    check_token(late, "blocks.1[cls]", images)
    check_token(late, "blocks.0", images)  # no token, no check
    assert_same_state(before, state_of(late))


def test_a_token_that_has_not_seen_the_image_is_refused(net, images):
    with pytest.raises(LayerError, match="gives the same vector for every image"):
        check_token(net, "blocks.0.norm[cls]", images)


# --- the way back


@pytest.mark.parametrize("token", ["cls", "mean", 4])
@pytest.mark.parametrize("habits", [{}, {"as_tuple": True}])
def test_a_vector_is_put_back_into_its_token(images, token, habits):
    net = token_net(**habits)
    attached = AttachedLayer(net, "blocks.0", token)
    z, logits = attached.run(images)
    assert torch.allclose(run_with_output(net, attached.name, images, z), logits, atol=1e-5)
    other = z.flip(1) * 2
    own = run_to_layer(net, attached.name, images)
    changed = put_token(own, token, other)
    assert torch.allclose(read_token(changed, "layer", token, images), other, atol=1e-5)
    others = [i for i in range(own.shape[1]) if i != (0 if token == "cls" else token)]
    moved = (changed - own)[:, others]
    if token == "mean":
        assert torch.allclose(moved, (other - z).unsqueeze(1).expand_as(moved), atol=1e-5)
    else:
        assert not bool(moved.any())
    logits_of_other = run_with_output(net, attached.name, images, other)
    assert not torch.allclose(logits_of_other, logits, atol=1e-2)
    with pytest.raises(DataError, match="cannot replace"):
        run_with_output(net, attached.name, images, z[:, 1:])
    with pytest.raises(DataError, match="cannot replace"):
        run_with_output(net, attached.name, images, z[1:])


def test_above_a_layer_the_other_tokens_are_those_of_the_image(net, images):
    z, logits = AttachedLayer(net, "blocks.1", "cls").run(images)
    found = run_above_layer(net, "blocks.1[cls]", images[:1], z)  # the head reads that token alone
    assert torch.allclose(found, logits, atol=1e-5)
    z, logits = AttachedLayer(net, "blocks.0", "cls").run(images)
    found = run_above_layer(net, "blocks.0[cls]", images[:1], z)
    assert torch.allclose(found[0], logits[0], atol=1e-5)
    assert not torch.allclose(found[1:], logits[1:], atol=1e-2)


def test_gradients_flow_into_the_token_alone(net, images):
    z = AttachedLayer(net, "blocks.1", 4).run(images)[0].requires_grad_()
    run_above_layer(net, "blocks.1[4]", images[:1], z).sum().backward()
    assert not bool(z.grad.any())  # the head does not read it
    z = AttachedLayer(net, "blocks.0", 4).run(images)[0].requires_grad_()
    run_above_layer(net, "blocks.0[4]", images[:1], z)[:, 1].sum().backward()
    assert bool(z.grad.any())


def test_tuples_keep_their_kind():
    pair = namedtuple("pair", "tokens rest")
    assert with_main_tensor(pair(torch.zeros(1), 2), torch.ones(1)) == pair(torch.ones(1), 2)
    assert isinstance(with_main_tensor(pair(torch.zeros(1), 2), torch.ones(1)), pair)
    assert with_main_tensor((torch.zeros(1), 2), torch.ones(1)) == (torch.ones(1), 2)
