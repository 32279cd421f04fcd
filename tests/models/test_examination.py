"""What is found out about a model before a fit, and what is no reason to complain."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from conftest import make_images, make_net
from model_state import assert_same_state, state_of
from torchxnn.errors import ModelError
from torchxnn.models.examination import EXAMINED, Examination, examine_model
from torchxnn.models.output_scale import within_unit_interval
from torchxnn.storage.artifact import plain, structure


class Body(nn.Module):
    """A small network and whatever a test does to its logits, with a module `act` for it."""

    def __init__(self, end, outputs=4, act=None):
        super().__init__()
        self.net, self.end, self.act = make_net(outputs), end, act or nn.Identity()

    def forward(self, images):
        return self.end(self, self.net(images))


def examine(end=lambda _, logits: logits, outputs=4, act=None, count=8):
    return examine_model(Body(end, outputs, act).eval(), make_images(count)[0])


def test_an_ordinary_network_raises_no_doubt_and_is_left_alone():
    net = make_net().train()
    before, random = state_of(net), torch.get_rng_state()
    found = examine_model(net, make_images(8)[0])
    assert_same_state(before, state_of(net))
    assert torch.equal(random, torch.get_rng_state())
    assert (found.complaints, found.note, found.changing) == ({}, "", ())
    assert (found.images, found.twice, found.outputs) == (EXAMINED, 0.0, "logits")
    assert found.alone < 1e-5
    found.require()
    assert found.text == (
        "examined on 4 image(s): repeatable, an image alone as in a batch, outputs are logits"
    )


RANDOM = {
    "functional dropout": lambda _, logits: F.dropout(logits, 0.5),
    "noise": lambda _, logits: logits + 0.05 * torch.randn_like(logits),
    "a random order": lambda _, logits: logits[:, torch.randperm(4)] + torch.arange(4),
    "a generator of NumPy": lambda _, logits: logits + float(np.random.default_rng().random()),
}


@pytest.mark.parametrize("end", RANDOM.values(), ids=RANDOM)
def test_two_answers_to_the_same_images_are_refused(end):
    random = torch.get_rng_state()
    found = examine(end)
    assert torch.equal(random, torch.get_rng_state())
    assert found.twice > 1e-3
    with pytest.raises(ModelError, match="two answers to the same images"):
        found.require()
    found.require(allow=("randomness",))
    assert "other outputs the second time" in found.text


@pytest.mark.parametrize("of", [random, np.random], ids=["Python", "NumPy"])
def test_a_rare_draw_of_other_generators_is_noticed_and_not_missed(of):
    for seed in range(5):
        of.seed(seed)
        first = of.random()
        of.seed(seed)
        found = examine(lambda _, logits: -logits if of.random() < 0.5 else logits)
        assert "randomness" in found.complaints
        if of is np.random:  # Python's serves the type checks of the tests, too
            assert of.random() == first


def test_the_module_that_draws_is_named():
    class Always(nn.Dropout):
        def forward(self, x):
            return F.dropout(x, self.p)

    complaint = examine(lambda body, logits: body.act(logits), act=Always()).complaints
    assert "noise is on in the Always 'act'" in complaint["randomness"]


def test_seeded_noise_and_dropout_that_is_off_are_fine():
    def seeded(_, logits):
        drawn = torch.rand(4, generator=torch.Generator().manual_seed(1))
        return F.dropout(logits + drawn, 0.5, training=False)

    assert examine(seeded).complaints == {}


def batch_norm(_, logits):
    return F.batch_norm(logits, None, None, training=True)


def centred(_, logits):
    return logits - logits.mean(0, keepdim=True)


def forced(body, logits):
    body.act.train()
    return body.act(logits)


@pytest.mark.parametrize(
    ("end", "act", "named"),
    [
        (batch_norm, None, "alone it is refused"),
        (centred, None, "of the outputs' span"),
        (lambda _, y: (y - y.mean(0)) / y.var(0, correction=0).sqrt(), None, "100.0%"),
        (lambda body, y: body.act(y), nn.BatchNorm1d(4, track_running_stats=False), "'act'"),
        (forced, nn.BatchNorm1d(4), "the BatchNorm1d 'act'"),
    ],
)
def test_answers_that_depend_on_the_batch_are_refused(end, act, named):
    found = examine(end, act=act)
    with pytest.raises(ModelError, match="depends on the other images of its batch") as error:
        found.require(allow=("randomness",))
    assert named in str(error.value)
    found.require(allow=("batch",))


def test_statistics_of_a_batch_are_noticed_though_images_are_alike():
    body = Body(lambda _, logits: logits).eval()
    body.net.features.insert(
        1,
        nn.BatchNorm2d(body.net.features[0].out_channels, affine=False, track_running_stats=False),
    )
    images = make_images(8)[0]
    images = images[:1] + 1e-2 * (images - images[:1])
    found = examine_model(body.eval(), images)
    assert 1e-4 < found.alone < 1e-2
    assert "in the BatchNorm2d 'net.features.1'" in found.complaints["batch"]


def test_one_image_has_no_batch_to_depend_on():
    found = examine(centred, count=1)
    assert (found.images, found.alone) == (1, None)
    assert "batch" not in found.text


ONE, MANY = 1, 4
PROBABILITIES = {
    "a sigmoid": (lambda _, y: torch.sigmoid(y), ONE, "a sigmoid in the forward of Body"),
    "in half precision": (lambda _, y: y.sigmoid().half(), ONE, "a sigmoid in the forward of"),
    "in place": (lambda _, y: y.sigmoid_(), MANY, "a sigmoid in the forward of Body"),
    "a softmax": (lambda _, y: y.softmax(1), MANY, "what goes into the softmax"),
    "of one class": (lambda _, y: y.softmax(1)[:, 2], MANY, "a softmax in the forward"),
    "of two classes": (lambda _, y: torch.cat([1 - y.sigmoid(), y.sigmoid()], 1), ONE, "sums to 1"),
    "by hand": (lambda _, y: y.exp() / y.exp().sum(1, keepdim=True), MANY, "every row sums to 1"),
    "a logarithm": (lambda _, y: F.logsigmoid(y), ONE, "logsigmoid"),
    "squeezed": (lambda _, y: y[:, 0].sigmoid(), ONE, "a sigmoid in the forward"),
}


@pytest.mark.parametrize(("end", "outputs", "named"), PROBABILITIES.values(), ids=PROBABILITIES)
def test_probabilities_are_refused_with_the_way_to_the_logits(end, outputs, named):
    found = examine(end, outputs)
    assert found.outputs == "probabilities"
    with pytest.raises(ModelError, match="are probabilities, not logits") as error:
        found.require(allow=("randomness", "batch"))
    assert named in str(error.value)


@pytest.mark.parametrize("act", [nn.Sigmoid(), nn.Softmax(1)])
def test_the_code_that_the_message_gives_leaves_the_last_layer_out(act):
    model = nn.Sequential(make_net(), act).eval()
    complaint = examine_model(model, make_images(8)[0]).complaints["probabilities"]
    code = complaint.partition("leave it out: ")[2].partition(", or allow")[0]
    exec(code, {"model": model, "torch": torch})
    assert examine_model(model, make_images(8)[0]).outputs == "logits"


def test_a_layer_that_others_use_too_is_not_to_be_replaced():
    act = nn.Sigmoid()
    twice = examine(lambda body, y: body.act(body.act(y)), act=act).complaints["probabilities"]
    assert "set_submodule" not in twice
    assert "return from its forward what goes into the Sigmoid" in twice


@pytest.mark.parametrize(
    "end", [lambda _, y: F.log_softmax(y, 1), lambda _, y: y - y.exp().sum(1, keepdim=True).log()]
)
def test_logarithms_of_probabilities_are_refused_as_probabilities_are(end):
    found = examine(end)
    assert (found.outputs, found.note) == ("log-probabilities", "")
    assert "logarithms of probabilities, not logits" in found.complaints["probabilities"]
    with pytest.raises(ModelError, match="return from it what goes into the"):
        found.require()
    found.require(["probabilities"])


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda _, y: y[:, :, None, None], "returns (B, 4, 1, 1), which counts as logits (B, 4)"),
        (lambda _, y: y[:, None], "returns (B, 1, 4), which counts as logits (B, 4)"),
    ],
)
def test_outputs_with_further_dimensions_are_taken_and_said(end, said):
    found = examine(end)
    assert (found.outputs, found.complaints) == ("logits", {})
    assert said in found.note


INNOCENT = {
    "attention": lambda _, y: (y @ y.T).softmax(1) @ y,
    "gated": lambda _, y: y * y.sigmoid(),
    "rectified": lambda _, y: y.relu() / 50,
    "scaled": lambda _, y: 8 * y.sigmoid() - 4,
    "scores of unit length": lambda _, y: F.normalize(y, dim=1).abs(),
}


@pytest.mark.parametrize("end", list(INNOCENT.values())[1:], ids=list(INNOCENT)[1:])
@pytest.mark.parametrize("outputs", [ONE, MANY])
def test_functions_of_logits_are_no_probabilities(end, outputs):
    assert examine(end, outputs).outputs == "logits"


@settings(max_examples=25)
@given(
    st.integers(2, 6).flatmap(
        lambda k: st.lists(
            st.lists(st.floats(0, 1, width=32), min_size=k, max_size=k), min_size=2, max_size=4
        )
    )
)
def test_logits_in_the_unit_interval_by_chance(rows):
    logits = torch.tensor(rows)
    found = examine_model(nn.Identity(), logits)
    sums = logits.sum(1)
    assert (found.outputs == "probabilities") == bool(((sums - 1).abs() < 1e-4).all())


def test_values_alone_are_a_reason_to_warn_only_where_they_differ_much():
    assert within_unit_interval(torch.tensor([[0.02], [0.97]]))
    assert not within_unit_interval(torch.tensor([[0.1], [0.3]]))
    assert not within_unit_interval(torch.tensor([[-0.1], [0.9]]))


def test_half_precision_is_no_randomness():
    net = make_net().to(torch.bfloat16)
    assert examine_model(net, make_images(8)[0].to(torch.bfloat16)).complaints == {}


def test_parts_that_stay_in_training_mode_are_said():
    net = make_net()
    net.features[1].train()
    found = examine_model(net, make_images(8)[0])
    assert found.complaints == {}
    assert "but not in the BatchNorm2d 'features.1': all of it is explained in eval" in found.note
    assert net.features[1].training
    assert examine_model(net.train(), make_images(8)[0]).note == ""


def test_constant_outputs_are_fine():
    found = examine(lambda _, y: 0 * y)
    assert (found.twice, found.alone, found.complaints) == (0.0, 0.0, {})


def test_texts_and_rows():
    texts = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(40, 3)).eval()
    assert examine_model(texts, torch.randint(0, 20, (8, 5))).complaints == {}
    assert examine_model(nn.Linear(5, 3).eval(), torch.rand(8, 5)).complaints == {}


def test_it_is_read_back_as_it_was():
    found = examine(lambda _, y: F.dropout(y.softmax(1)))
    values = json.loads(json.dumps(plain(found)))
    assert structure(values, Examination, "it") == found


def test_stored_activations_are_no_weights():
    class Storing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen, self.last = make_net(), [], None

        def forward(self, images):
            self.last = images.mean((1, 2, 3))
            self.seen.append(self.last)
            return self.net(images)

    model = Storing().eval()
    with torch.no_grad():
        model(make_images(8)[0])
    assert set(examine_model(model, make_images(8, 1)[0]).changing) == {"seen", "last"}
    assert examine_model(copy.deepcopy(make_net()), make_images(8)[0]).changing == ()
