"""Networks of which parts are compiled: names, hooks, numbers, and nothing left changed."""

import copy
import threading

import pytest
import torch
from torch import nn

from conftest import make_images, make_net
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.models.compiled import named_modules, plain_name, run_eagerly
from torchxnn.models.layer_list import list_layers
from torchxnn.models.layers import record_layers, resolve_layer, run_to_layer
from torchxnn.models.weights import fingerprint

IMAGES = make_images(3)[0]


def compiled(model):
    """Compiled by a backend that builds nothing, so that it is quick."""
    return torch.compile(model, backend="eager")


@pytest.fixture(params=["a part", "the whole", "in place"])
def pair(request):
    """A network as it was written and the same one compiled, which has run already."""
    plain, model = make_net(), make_net()
    if request.param == "a part":
        model.classifier = compiled(model.classifier)
    elif request.param == "the whole":
        model = compiled(model)
    else:
        model.classifier.compile(backend="eager")
    with torch.no_grad():
        model(IMAGES)
    return plain, model


def test_plain_names():
    assert plain_name("body._orig_mod.5") == "body.5"
    assert plain_name("_orig_mod.body._fsdp_wrapped_module.head") == "body.head"
    assert plain_name("body.5") == "body.5"


def test_layers_have_their_plain_names(pair):
    plain, model = pair
    names = [layer.name for layer in list_layers(plain, IMAGES)]
    found = list_layers(model, IMAGES)
    assert [layer.name for layer in found] == names
    assert {layer.calls for layer in found} == {1}
    for name in ("classifier.1", "classifier._orig_mod.1", "_orig_mod.classifier.1"):
        assert resolve_layer(model, name)[0] == "classifier.1"
    assert resolve_layer(model, model.classifier)[0] == "classifier"


def test_layers_and_logits_are_those_of_the_network_as_written(pair):
    recorded = [record_layers(model, ["classifier.1", "features"], IMAGES) for model in pair]
    for one, other in zip(recorded[0][0], recorded[1][0], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(recorded[0][1], recorded[1][1])
    assert torch.equal(*[run_to_layer(model, "classifier.1", IMAGES) for model in pair])


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_heatmaps_and_certificates_are_those_of_the_network_as_written(pair):
    methods = [ExcitationBackprop(model) for model in pair]
    assert torch.equal(*[method.attribute_many(IMAGES, [1, 2]) for method in methods])
    layers = [method.certify_layers(IMAGES, [1]) for method in methods]
    assert layers[0] == layers[1]


def test_the_fingerprint_does_not_depend_on_it(pair):
    plain, model = pair
    assert fingerprint(model) == fingerprint(plain)


def test_compiled_code_runs_again_afterwards():
    runs = []

    def backend(graph, _):
        return lambda *inputs: runs.append(1) or graph(*inputs)

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    torch._dynamo.reset()
    fast = torch.compile(model, backend=backend)
    rows = torch.rand(1, 2)
    with torch.no_grad():
        fast(rows)
        with run_eagerly(), run_eagerly():
            fast(rows)
        with pytest.raises(RuntimeError, match="shape"), run_eagerly():
            fast(torch.rand(1, 3))
        assert len(runs) == 1
        fast(rows)
    assert len(runs) == 2


def test_threads_that_overlap_leave_nothing_behind():
    before = torch._dynamo.eval_frame._stance.stance
    first, second = run_eagerly(), run_eagerly()
    first.__enter__()
    thread = threading.Thread(target=second.__enter__)
    thread.start()
    thread.join()
    first.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == before


def test_modules_stand_for_their_wrappers():
    body = nn.Sequential(nn.Linear(2, 2))
    model = nn.Sequential(copy.deepcopy(body), compiled(body))
    assert list(named_modules(model)) == ["", "0", "0.0", "1", "1.0"]
    assert named_modules(model)["1"] is body
