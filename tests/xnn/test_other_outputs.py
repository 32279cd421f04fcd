"""Networks that return more than a tensor of logits are explained as those that return that."""

from types import SimpleNamespace

import pytest
import torch

from conftest import SmallNet, make_images, make_net
from torchxnn import XNN
from torchxnn.attribution.effective_weights import EFFECTIVE
from torchxnn.attribution.methods import METHODS, attributor
from torchxnn.models.layers import run_above_layer, run_with_output
from xnn_examples import make_loader, quick_fit

LAYER = "classifier.1"


class Wrapped(SmallNet):
    """The network of `make_net` with its logits in something else."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap
        self.load_state_dict(make_net().state_dict())

    def forward(self, images):
        return self.wrap(super().forward(images))


WRAPS = {
    "object": lambda logits: SimpleNamespace(logits=logits, loss=None),
    "mapping": lambda logits: {"hidden_states": (logits,), "logits": logits},
    "tuple": lambda logits: (logits, None),
}


EBP = "excitation_backprop"
PAIRS = [("object", method) for method in METHODS] + [("mapping", EBP), ("tuple", EBP)]
"""Every method on one wrapper, and one method on every wrapper."""


@pytest.fixture(scope="module", params=WRAPS)
def pair(request):
    """A network, the same one that wraps its logits, and XNNs on both."""
    xnns = []
    for net in (make_net(), Wrapped(WRAPS[request.param]).eval()):
        xnn = XNN(net, LAYER)
        quick_fit(xnn, make_loader(), 1)
        xnns.append(xnn)
    return xnns


FEW = {"rise": {"masks": 5}, "integrated_gradients": {"steps": 5}}


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
@pytest.mark.parametrize(("pair", "method"), PAIRS, indirect=["pair"], scope="module")
def test_every_method_draws_the_same_maps(pair, method):
    images, _ = make_images(1)
    options = FEW.get(method, {})
    maps = [METHODS[method](xnn.attributor().module, **options) for xnn in pair]
    features = [found.attribute_many(images, range(2)) for found in maps]
    assert torch.allclose(*features, atol=1e-6)
    if method == EFFECTIVE:
        options = {"layer": LAYER}
    logits = [attributor(method, xnn.model, **options) for xnn in pair]
    assert torch.allclose(*[found.attribute_many(images, [1, 3]) for found in logits], atol=1e-6)
    both = [xnn.run_with_maps(images, method, logits=[1], warn=False) for xnn in pair]
    assert torch.allclose(both[0].logit_heatmaps, both[1].logit_heatmaps, atol=1e-5)
    assert torch.equal(both[0].output.logits, both[1].output.logits)


def test_the_layer_can_be_replaced(pair):
    images, _ = make_images(3)
    z = torch.rand(3, 24)
    replaced = [run_with_output(xnn.model, LAYER, images, z) for xnn in pair]
    above = [run_above_layer(xnn.model, LAYER, images[:1], z) for xnn in pair]
    assert torch.equal(replaced[0], replaced[1])
    assert torch.equal(above[0], above[1])


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_explanations_carry_the_models_own_logits(pair):
    plain, wrapped = pair
    image = make_images(2)[0][1]
    found = wrapped.explain(image)
    with torch.no_grad():
        assert torch.allclose(found.logits[0], plain.model(image[None])[0, 1], atol=1e-6)
    assert torch.allclose(found.heatmaps, plain.explain(image).heatmaps, atol=1e-6)
