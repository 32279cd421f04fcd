import threading

import pytest
import torch
from torch import nn

from conftest import SmallNet, make_images, make_net
from model_state import assert_same_state, state_of
from torchxnn.errors import DataError, LayerError, ModelError, NonFiniteError, XNNError
from torchxnn.models.hooks import preserve_state
from torchxnn.models.layer_list import list_layers
from torchxnn.models.layers import (
    as_activations,
    check_images,
    flat_shape,
    record_layers,
    resolve_layer,
    run_above_layer,
    run_to_layer,
)


def test_resolve_by_name_and_by_module(net):
    assert resolve_layer(net, "classifier.1") == ("classifier.1", net.classifier[1])
    assert resolve_layer(net, net.avgpool) == ("avgpool", net.avgpool)


@pytest.mark.parametrize("wrong", ["classifier.11", "clasifier.1", "pool", "", "features.conv"])
def test_wrong_name_lists_the_nearest(net, wrong):
    with pytest.raises(LayerError, match="nearest: '") as error:
        resolve_layer(net, wrong)
    if wrong.startswith("cl"):
        assert "'classifier.1'" in str(error.value)


def test_foreign_module_is_refused(net):
    with pytest.raises(LayerError, match="not part of"):
        resolve_layer(net, nn.Linear(2, 2))


def test_names_resolve_through_data_parallel(net):
    wrapped = nn.DataParallel(net)
    assert resolve_layer(wrapped, "classifier.1")[1] is net.classifier[1]
    assert resolve_layer(wrapped, "module.classifier.1")[0] == "classifier.1"


def test_recorded_activations_are_copies_before_an_in_place_relu(images):
    plain, inplace = make_net(), make_net(inplace=True)
    (expected,), _ = record_layers(plain, ["classifier.0"], images[:4])
    (recorded,), logits = record_layers(inplace, ["classifier.0"], images[:4])
    assert bool((recorded < 0).any())
    assert torch.equal(recorded, expected)
    assert torch.equal(run_to_layer(inplace, "classifier.0", images[:4]), expected)
    assert torch.allclose(logits, plain(images[:4]))


def test_gradients_flow_through_run_to_layer(net, images):
    x = images[:2].clone().requires_grad_()
    run_to_layer(net, "classifier.1", x).sum().backward()
    assert bool((x.grad != 0).any())


class Twice(SmallNet):
    def forward(self, images):
        x = self.features[2](self.features[0](images))
        return self.classifier(torch.flatten(self.avgpool(self.features[2](x)), 1))


def test_a_layer_that_runs_twice_is_refused(images):
    with pytest.raises(LayerError, match="runs 2 times"):
        record_layers(Twice(), ["features.2"], images[:2])


def test_a_layer_that_never_runs_is_refused(images):
    with pytest.raises(LayerError, match="runs 0 times"):
        record_layers(Twice(), ["features.1"], images[:2])
    with pytest.raises(LayerError, match="did not run"):
        run_to_layer(Twice(), "features.1", images[:2])


def test_layer_with_several_outputs_is_refused():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0][:, -1]

    with pytest.raises(LayerError, match="tuple"):
        record_layers(Pair(), ["lstm"], torch.zeros(2, 5, 4))


@pytest.mark.parametrize(
    ("shape", "flat"),
    [((512, 1, 1), (512,)), ((1, 1), (1,)), ((5,), (5,)), ((5, 2, 1), (5, 2)), ((1, 7), (1, 7))],
)
def test_trailing_ones_are_dropped(shape, flat):
    assert flat_shape(shape) == flat


def test_vectors_and_maps_are_told_apart():
    images = torch.zeros(2, 3, 12, 12)
    assert as_activations(torch.zeros(2, 8, 1, 1), "pool", images).shape == (2, 8)
    assert as_activations(torch.zeros(2, 8, 3, 3), "features.2", images).shape == (2, 8, 3, 3)
    with pytest.raises(LayerError, match="16 tokens of 8 dimensions"):
        as_activations(torch.zeros(2, 16, 8), "tokens", images)


@pytest.mark.parametrize(
    ("shape", "size", "refused"),
    [
        ((7, 7, 96), (224, 224), True),
        ((96, 7, 7), (224, 224), False),
        ((8, 8, 8), (32, 32), False),  # both readings fit; maps are the usual one
        ((7, 14, 96), (112, 224), True),
        ((64, 7, 14), (112, 224), False),
        ((5, 5, 4), (12, 10), False),
    ],
)
def test_channels_last_want_a_token(shape, size, refused):
    output, images = torch.zeros(2, *shape), torch.zeros(2, 3, *size)
    if not refused:
        assert as_activations(output, "block", images).shape == (2, *shape)
        return
    with pytest.raises(LayerError, match="channels last; choose --token mean"):
        as_activations(output, "block", images)


def test_list_layers_shows_shapes_calls_and_what_can_be_attached(net):
    layers = {layer.name: layer for layer in list_layers(net, torch.zeros(1, 3, 12, 12))}
    assert layers["classifier.1"].shape == (24,)
    assert layers["classifier.1"].attachable
    assert layers["features.0"].shape == (8, 10, 10)
    assert layers["features.0"].attachable
    assert layers["classifier.1"].kind == "ReLU"
    twice = {layer.name: layer for layer in list_layers(Twice(), torch.zeros(1, 3, 12, 12))}
    assert (twice["features.2"].calls, twice["features.1"].calls) == (2, 0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training, images):
    model = make_net().train(training)
    model.features[1].train(not training)
    model.classifier[0].weight.requires_grad_(False)
    before = state_of(model)
    record_layers(model, ["classifier.1"], images[:4])
    run_to_layer(model, "classifier.1", images[:4])
    list_layers(model, images[:1])
    with pytest.raises(DataError, match="to have 3 channels, but got 5"):
        record_layers(model, ["classifier.1"], torch.zeros(2, 5, 12, 12))
    assert_same_state(before, state_of(model))


def test_buffers_that_a_model_changes_in_evaluation_are_put_back(images):
    class Counting(SmallNet):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return super().forward(x)

    model = Counting()
    record_layers(model, ["classifier.1"], images[:1])
    assert float(model.count) == 0
    model.register_buffer("repeated", torch.zeros(1).expand(4))  # nothing can be written to it
    record_layers(model, ["classifier.1"], images[:1])
    assert float(model.count) == 0


def test_buffers_that_a_model_resizes_have_their_old_size_again(images):
    class Observing(SmallNet):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.empty(0))

        def forward(self, x):
            self.seen.resize_(len(x)).copy_(x.mean((1, 2, 3)))
            return super().forward(x)

    model = Observing()
    record_layers(model, ["classifier.1"], images[:3])
    assert model.seen.shape == (0,)


FORWARDS = {
    "a batch": (lambda net, batch: net(batch[0], *batch[1:]), "TypeError"),
    "a pair": (lambda net, batch: [net(images) for images, _ in [batch]], "ValueError: too many"),
    "a mapping": (lambda net, batch: net(batch["image"]), r"IndexError.*test_layers\.py, line"),
    "another size": (lambda net, images: net(images.view(-1, 5)), "RuntimeError: shape"),
    "nothing yet": (None, "NotImplementedError.*missing the required"),
}


@pytest.mark.parametrize(("forward", "raised"), FORWARDS.values(), ids=FORWARDS)
def test_what_a_forward_raises_is_one_line_with_its_cause(forward, raised, images):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_net()

    if forward:
        Other.forward = lambda self, images: forward(self.net, images)
    with pytest.raises(ModelError, match=rf"images \(3, 3, 12, 12\): {raised}.*wrap") as error:
        record_layers(Other(), ["net.classifier.1"], images[:3])
    assert "\n" not in str(error.value)
    assert not isinstance(error.value.__cause__, XNNError)


@pytest.mark.parametrize("full", [MemoryError(), RuntimeError("CUDA out of memory. Tried 1 GiB")])
def test_memory_that_is_full_and_our_own_errors_pass_through(full, images):
    for raised in (full, DataError("ours")):

        class Raises(SmallNet):
            def forward(self, x, raised=raised):
                raise raised

        with pytest.raises(type(raised)) as error:
            record_layers(Raises(), [], images[:3])
        assert error.value is raised


def test_images_made_in_inference_mode_carry_gradients():
    with torch.inference_mode():
        images, _ = make_images(3)
    assert run_to_layer(make_net(), "classifier.1", images).requires_grad


def test_two_threads_share_a_model(images):
    model = make_net().train()
    before = state_of(model)
    (expected,), _ = record_layers(make_net(), ["classifier.1"], images)
    failures = []

    def work():
        for i in range(20):
            (z,), _ = record_layers(model, ["classifier.1"], images[i : i + 5])
            if not torch.allclose(z, expected[i : i + 5], atol=1e-6):
                failures.append(i)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert_same_state(before, state_of(model))


def test_preserve_state_restores_after_an_exception(net):
    net.train()

    def fail():
        with preserve_state(net):
            assert not net.features[1].training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(m.training for m in net.modules())


def test_bad_images_are_named(net):
    images, _ = make_images(3)
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"\[1\]"):
        check_images(net, images)
    with pytest.raises(DataError, match="floating point"):
        check_images(net, torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match="non-empty"):
        check_images(net, torch.zeros(0, 3, 4, 4))
    with pytest.raises(DataError, match="meta"):
        check_images(net, torch.zeros(1, 3, 4, 4, device="meta"))


@pytest.mark.parametrize("layer", ["classifier.1", "features", "avgpool"])
def test_the_part_above_a_layer_gives_the_logits_of_its_activations(net, layer):
    images, _ = make_images(5)
    before = state_of(net)
    (z,), logits = record_layers(net, [layer], images)
    assert torch.allclose(run_above_layer(net, layer, images[:1], z), logits, atol=1e-5)
    assert torch.allclose(run_above_layer(net, layer, images[:1], z[3:]), logits[3:], atol=1e-5)
    flat = z.flatten(1)
    assert torch.allclose(run_above_layer(net, layer, images[:1], flat), logits, atol=1e-5)
    assert_same_state(before, state_of(net))


def test_gradients_flow_from_the_logits_to_the_activations(net):
    images, _ = make_images(3)
    z = run_to_layer(net, "classifier.1", images).detach().requires_grad_()
    logits = run_above_layer(net, "classifier.1", images[:1], z)
    (slope,) = torch.autograd.grad(logits[:, 2].sum(), z)
    assert torch.allclose(slope, net.classifier[3].weight[2].expand_as(slope))


def test_activations_that_do_not_fit_above_a_layer_are_refused(net):
    images, _ = make_images(2)
    with pytest.raises(DataError, match=r"gives \(24,\) per image.*\(23,\)"):
        run_above_layer(net, "classifier.1", images[:1], torch.ones(2, 23))


def test_a_model_that_mixes_rows_or_repeats_a_layer_has_no_part_above_it():
    class Mixing(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.layer, self.times = nn.Linear(4, 4), times

        def forward(self, rows):
            for _ in range(self.times):
                rows = self.layer(rows)
            return rows if self.times > 1 else rows.mean(0, keepdim=True)

    for times in (1, 2):
        with pytest.raises(LayerError, match="keeps its rows apart"):
            run_above_layer(Mixing(times), "layer", torch.ones(1, 4), torch.ones(3, 4))
