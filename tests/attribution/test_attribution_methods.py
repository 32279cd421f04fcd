"""Every attribution method: one contract over all of `METHODS`, closed forms, refusals."""

import importlib.util
import re
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import make_images, make_net
from model_state import assert_same_state, state_of
from torchxnn import XNN, DegenerateFitWarning, TrainConfig
from torchxnn.attribution import (
    RISE,
    Certificate,
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    MapMethod,
    Occlusion,
)
from torchxnn.attribution.methods import METHODS, OF_ANY_MODULE
from torchxnn.errors import (
    AttributionWarning,
    DataError,
    LayerError,
    NonFiniteError,
    UnsupportedOperationError,
    XNNError,
)
from torchxnn.explanations.image import Explanation

# Random networks: units that only their bias excites, and few steps of integrated gradients.
pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")

QUICK = TrainConfig(hidden=(16,), epochs=15, batch_size=32, pretrain_epochs=2, trials=1)
COMPLETE = ("integrated_gradients", "deep_lift")
HOOKED = ("deep_lift", "guided_backprop", "grad_cam")


@pytest.fixture(scope="module")
def fitted():
    xnn = XNN(make_net(inplace=True), "classifier.1", 3)
    images, labels = make_images(96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        loader = list(zip(images.split(16), labels.split(16), strict=True))
        xnn.fit(loader, 1, config=QUICK)
    return xnn


@pytest.fixture(params=["network", "xnn"])
def module(request, fitted):
    return make_net() if request.param == "network" else fitted


every_method = pytest.mark.parametrize("name", OF_ANY_MODULE)


def model_of(module):
    return module.model if isinstance(module, XNN) else module


def build(name, module, **settings):
    """A method at settings that make the tests fast."""
    fast = {
        "rise": {"masks": 100},
        "integrated_gradients": {"steps": 20},
        "occlusion": {"window": 3, "stride": 3},
    }
    return METHODS[name](module, **fast.get(name, {}), **settings)


# --- contract


@every_method
def test_shapes_dtype_and_determinism(name, module):
    images, _ = make_images(3)
    maps = build(name, module).attribute_many(images, [0, 2, 1, 0])
    assert maps.shape == (3, 4, 12, 12)
    assert maps.dtype == images.dtype
    assert maps.device == images.device
    assert not maps.requires_grad
    assert bool(torch.isfinite(maps).all())
    assert torch.equal(maps[:, 0], maps[:, 3])
    assert torch.equal(maps, build(name, module).attribute_many(images, [0, 2, 1, 0]))


@every_method
def test_batch_equals_single_and_many_equals_one(name, module):
    images, _ = make_images(3)
    method = build(name, module)
    maps = method.attribute_many(images, [0, 1, 2])
    size = float(maps.abs().max())
    for row in range(3):
        single = method.attribute_many(images[row : row + 1], [0, 1, 2])
        assert torch.allclose(maps[row], single[0], atol=1e-5 * size)
    for column in range(3):
        assert torch.allclose(maps[:, column], method.attribute(images, column), atol=1e-5 * size)
    each = method.attribute(images, torch.tensor([2, 0, 1]))
    expected = torch.stack([maps[0, 2], maps[1, 0], maps[2, 1]])
    assert torch.allclose(each, expected, atol=1e-5 * size)


@every_method
def test_targets_are_respected(name, module):
    maps = build(name, module).attribute_many(make_images(4)[0], [0, 1])
    assert float((maps[:, 0] - maps[:, 1]).abs().max()) > 0.05 * float(maps.abs().max()) > 0


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_context_of_the_caller_does_not_matter(name, mode, fitted):
    images, _ = make_images(2)
    expected = build(name, fitted).attribute(images, 1)
    with mode():
        assert torch.equal(build(name, fitted).attribute(images.clone(), 1), expected)
    wants = images.clone().requires_grad_()
    assert torch.equal(build(name, fitted).attribute(wants, 1), expected)
    assert wants.grad is None
    assert torch.equal(wants, images)


@every_method
def test_the_model_is_left_as_it_was(name, module):
    model = model_of(module)
    model.train()
    model.classifier[0].weight.requires_grad_(False)
    module.zero_grad()
    before = state_of(model), state_of(module)
    build(name, module).attribute_many(make_images(2)[0], [0, 1], return_certificate=True)
    assert_same_state(before[0], state_of(model))
    assert_same_state(before[1], state_of(module))
    assert all(p.grad is None for p in [*model.parameters(), *module.parameters()])
    model.classifier[0].weight.requires_grad_(True)
    model.eval()


class Breaks(nn.Module):
    """Raises in the n-th forward pass."""

    def __init__(self, passes):
        super().__init__()
        self.net, self.left = make_net(), passes

    def forward(self, images):
        features = self.net.features(images)
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken")
        return self.net.classifier(torch.flatten(self.net.avgpool(features), 1))


def explain_often(name, module):
    for _ in range(3):
        build(name, module).attribute(make_images(2)[0], 0)


@every_method
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_the_model_is_left_as_it_was_after_an_exception(name, passes):
    module = Breaks(passes).train()
    before = state_of(module)
    with pytest.raises(RuntimeError, match="broken"):
        explain_often(name, module)
    assert_same_state(before, state_of(module))
    assert all(p.grad is None for p in module.parameters())
    assert torch.is_grad_enabled()


@every_method
def test_certificate(name, module):
    images, _ = make_images(2)
    method = build(name, module)
    maps, certificate = method.attribute_many(images, [0, 1], return_certificate=True)
    assert torch.allclose(maps, method.attribute_many(images, [0, 1]), atol=1e-6)
    assert isinstance(certificate, Certificate)
    assert (certificate.method, certificate.dtype) == (name, "float32")
    conserves = name == "excitation_backprop"
    assert (certificate.conservation_error is not None) == conserves
    assert (certificate.fallback_share is not None) == conserves
    complete = name in (*COMPLETE, "input_x_gradient")
    assert (certificate.completeness_error is not None) == complete
    assert method.attribute(images, 0, return_certificate=True)[1].method == name


@every_method
def test_wrong_input_is_named(name, fitted):
    method, (images, _) = build(name, fitted), make_images(2)
    with pytest.raises(XNNError, match="target 3 is out of range"):
        method.attribute(images, 3)
    with pytest.raises(XNNError, match="target -1 is out of range"):
        method.attribute_many(images, [0, -1])
    with pytest.raises(XNNError, match="no targets"):
        method.attribute_many(images, [])
    with pytest.raises(NonFiniteError, match="image"):
        method.attribute(images * float("nan"), 0)
    with pytest.raises(DataError, match="non-empty"):
        method.attribute(images[:0], 0)


@every_method
def test_in_place_modules_do_not_matter(name):
    images, _ = make_images(2)
    plain = build(name, make_net()).attribute(images, 1)
    assert torch.allclose(build(name, make_net(inplace=True)).attribute(images, 1), plain)


@every_method
def test_two_threads_explain_the_same_model(name, fitted):
    images, _ = make_images(4)
    expected, found = build(name, fitted).attribute(images, 1), {}

    def work(row):
        found[row] = build(name, fitted).attribute(images[row : row + 1], 1)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = float(expected.abs().max())
    for row in range(4):
        assert torch.allclose(found[row][0], expected[row], atol=1e-5 * size)


@pytest.mark.parametrize("name", [name for name in OF_ANY_MODULE if name != "excitation_backprop"])
def test_chunks_do_not_matter(name, module):
    images, _ = make_images(3)
    expected = build(name, module).attribute_many(images, [0, 1])
    found = build(name, module, chunk_size=2).attribute_many(images, [0, 1])
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    with pytest.raises(XNNError, match="chunk_size is 0"):
        build(name, module, chunk_size=0)


@every_method
def test_xnn_attribute_and_explain(name, fitted):
    images, _ = make_images(2)
    maps, certificate = fitted.attribute(images, name, return_certificate=True)
    expected = METHODS[name](fitted).attribute_many(images, range(3))
    assert torch.allclose(maps, expected, atol=1e-7)
    assert certificate.method == name
    explanation = fitted.explain(images[0], method=name)
    one_heatmap = METHODS[name](fitted.model).attribute_many(images[:1], fitted.targets)
    assert torch.allclose(explanation.logit_heatmaps, one_heatmap[0])
    line = explanation.certificate_lines()[-1]
    promises = certificate.completeness_error is not None or name == "excitation_backprop"
    assert ("nothing to certify" in line) == (not promises)
    assert ("completeness error" in line) == (certificate.completeness_error is not None)
    assert line in explanation.summary()


@pytest.mark.parametrize("name", ["deep_lift", "gradient"])
def test_explanations_of_other_methods_are_saved(name, fitted, tmp_path):
    explanation = fitted.explain(make_images(1)[0][0], method=name)
    explanation.save(tmp_path / "x")
    assert Explanation.load(tmp_path / "x").certificate == explanation.certificate


# --- closed forms


class Linear(nn.Module):
    """f(x) = W x + b on images of 2 x 5 x 6."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 2, 5, 6, generator=generator).double())
        self.bias = nn.Parameter(torch.randn(3, generator=generator).double())

    def forward(self, images):
        return torch.einsum("bchw,kchw->bk", images, self.weight) + self.bias


def linear_images(count=2):
    return torch.randn(count, 2, 5, 6, generator=torch.Generator().manual_seed(1)).double()


BASELINE = torch.tensor([0.3, -1.2]).double().reshape(2, 1, 1)


def test_gradient_of_a_linear_model_is_its_weight():
    module, images = Linear(), linear_images()
    expected = module.weight.detach().sum(1).expand(2, -1, -1, -1)
    assert torch.allclose(Gradient(module).attribute_many(images, [0, 1, 2]), expected)
    absolute = Gradient(module, absolute=True).attribute(images, 1)
    assert torch.allclose(absolute[0], module.weight[1].detach().abs().sum(0))


def test_input_x_gradient_of_a_linear_model():
    module, images = Linear(), linear_images()
    expected = (module.weight[2] * images).detach().sum(1)
    maps, certificate = InputXGradient(module).attribute(images, 2, return_certificate=True)
    assert torch.allclose(maps, expected)
    assert certificate.completeness_error < 1e-12
    assert certificate.dtype == "float64"


@pytest.mark.parametrize("method", [IntegratedGradients, DeepLift])
@pytest.mark.parametrize("baseline", [0.0, -0.7, BASELINE])
def test_complete_methods_on_a_linear_model(method, baseline):
    module, images = Linear(), linear_images()
    expected = (module.weight[1] * (images - baseline)).detach().sum(1)
    attributor = method(module, baseline=baseline)
    maps, certificate = attributor.attribute(images, 1, return_certificate=True)
    assert torch.allclose(maps, expected, atol=1e-7)
    assert certificate.completeness_error < 1e-8


def test_occlusion_of_a_linear_model_by_hand():
    module, images = Linear(), linear_images()
    drops = (module.weight[0] * (images - 0.5)).detach().sum(1)
    # squares of 3 x 3 every 2 pixels: rows 0-2 and 2-4, columns 0-2, 2-4 and 4-5 (cut)
    expected = torch.zeros(2, 5, 6)
    count = torch.zeros(5, 6)
    for rows in (slice(0, 3), slice(2, 5)):
        for columns in (slice(0, 3), slice(2, 5), slice(4, 6)):
            inside = drops[:, rows, columns].sum((1, 2))
            expected[:, rows, columns] += inside[:, None, None]
            count[rows, columns] += 1
    maps = Occlusion(module, baseline=0.5, window=3, stride=2).attribute(images, 0)
    assert torch.allclose(maps.float(), expected / count, atol=1e-4)


def test_grad_cam_by_hand():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(4, 2))  # fmt: skip
    net[4].weight.data *= 100
    images = torch.randn(2, 3, 8, 8)
    maps = net[:2](images)
    # d f / d A_c,ij = w_c / 36 for the mean of 6 x 6
    small = torch.einsum("bchw,c->bhw", maps, net[4].weight[1]) / 36
    expected = F.interpolate(small[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    for layer in (None, "1", net[1]):
        found = GradCAM(net, layer=layer).attribute(images, 1)
        assert torch.allclose(found, expected.detach(), atol=1e-6)
    assert not torch.allclose(GradCAM(net, layer="0").attribute(images, 1), expected, atol=1e-3)


def test_guided_backprop_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, False), nn.ReLU(), nn.Linear(2, 1, False))
    net[1].weight.data = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    net[3].weight.data = torch.tensor([[-1.0, 1.0]])
    images = torch.tensor([2.0, 1.0]).reshape(1, 1, 1, 2)
    # both units are on; the first one's gradient is negative and cut
    assert GuidedBackprop(net).attribute(images, 0).tolist() == [[[3.0, -1.0]]]
    assert Gradient(net).attribute(images, 0).tolist() == [[[2.0, -3.0]]]


def test_deep_lift_of_a_relu_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU())
    net[1].weight.data = torch.tensor([[2.0, 1.0]])
    net[1].bias.data = torch.tensor([-3.0])
    images = torch.tensor([2.0, 1.0]).reshape(1, 1, 1, 2)
    # pre-activation -3 -> 2, output 0 -> 2: multiplier 2 / 5
    maps = DeepLift(net).attribute(images, 0)
    assert torch.allclose(maps, torch.tensor([[[1.6, 0.4]]]))


class Region(nn.Module):
    """Sum of the pixels of one region, and of the whole image."""

    def forward(self, images):
        return torch.stack([images[:, :, 2:6, 3:8].sum((1, 2, 3)), images.sum((1, 2, 3))], 1)


def test_rise_equals_its_literal_version_and_finds_the_region():
    images = torch.ones(1, 1, 12, 14)
    method = RISE(Region(), masks=400, seed=3)
    maps = method.attribute_many(images, [0, 1])
    masks = torch.cat(list(method.draw_masks((12, 14)))).double()
    values = masks[:, 2:6, 3:8].sum((1, 2))
    literal = (masks * (values - values.mean())[:, None, None]).sum(0) / masks.sum(0)
    assert torch.allclose(maps[0, 0].double(), literal, atol=1e-5)
    best = divmod(int(maps[0, 0].argmax()), 14)
    assert 2 <= best[0] < 6
    assert 3 <= best[1] < 8


def test_masks_of_rise():
    method = RISE(Region(), masks=3000, visible=0.3)
    masks = torch.cat(list(method.draw_masks((12, 14))))
    assert masks.shape == (3000, 12, 14)
    assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
    # standard error below .3 * .7 ** .5 / 3000 ** .5 = .009
    assert torch.allclose(masks.mean(0), torch.tensor(0.3), atol=0.04)
    again = torch.cat(
        list(RISE(Region(), masks=3000, visible=0.3, chunk_size=7).draw_masks((12, 14)))
    )
    assert torch.equal(masks, again)
    other = torch.cat(list(RISE(Region(), masks=3000, visible=0.3, seed=1).draw_masks((12, 14))))
    assert not torch.equal(masks, other)


def test_rise_of_a_constant_offset():
    class Shifted(Region):
        def forward(self, images):
            return super().forward(images) - 1000

    images = torch.rand(1, 1, 12, 14)
    expected = RISE(Region(), masks=100).attribute(images, 0)
    assert torch.allclose(RISE(Shifted(), masks=100).attribute(images, 0), expected, atol=1e-3)


@pytest.mark.parametrize("name", COMPLETE)
def test_completeness_on_a_network(name, module):
    images, _ = make_images(3)
    maps, certificate = METHODS[name](module).attribute_many(
        images, [0, 1, 2], return_certificate=True
    )
    with torch.no_grad():
        delta = (module(images) - module(torch.zeros_like(images)))[:, :3]
    error = (maps.sum((2, 3)) - delta).abs().max() / delta.abs().max()
    assert certificate.completeness_error == pytest.approx(float(error), abs=1e-5)
    assert error < (1e-4 if name == "deep_lift" else 0.1)


def test_completeness_without_a_difference_is_absolute():
    images = torch.zeros(1, 2, 5, 6).double()
    _, certificate = IntegratedGradients(Linear()).attribute(images, 0, return_certificate=True)
    assert certificate.completeness_error == 0


def test_few_steps_of_integrated_gradients_warn(fitted):
    with pytest.warns(AttributionWarning, match="more than 1 steps"):
        IntegratedGradients(fitted, steps=1).attribute_many(make_images(4)[0], [0, 1, 2])


# --- networks that trip hooks


class Functional(nn.Module):
    """The same network four times over: modules, functions, one shared ReLU, in place."""

    def __init__(self, style):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.second = nn.Conv2d(6, 6, 3, padding=1)
            self.head = nn.Linear(6, 3)
        self.style = style
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(2))
        self.shared = nn.ReLU(inplace=True)

    def relu(self, x, number):
        if self.style == "modules":
            return self.relus[number](x)
        if self.style == "functions":
            return x.clamp(min=0) if number else F.relu(x)
        if self.style == "shared":
            return self.shared(x)
        torch.relu_(x)  # the result is not used: the change in place is
        return x

    def forward(self, images):
        x = self.relu(self.first(images), 0)
        pooled = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        y = self.second(pooled)
        y = y + pooled if self.style != "in place" else y.add_(pooled)
        return self.head(self.relu(y, 1).mean((2, 3)))


@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("style", ["functions", "shared", "in place"])
def test_the_way_a_network_is_written_does_not_matter(name, style):
    images, _ = make_images(3)
    expected = METHODS[name](Functional("modules")).attribute_many(images, [0, 1])
    found = METHODS[name](Functional(style)).attribute_many(images, [0, 1])
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(found.abs().max()) > 0


@pytest.mark.parametrize("style", ["modules", "functions", "shared", "in place"])
def test_deep_lift_through_relu_and_pooling_is_complete(style):
    # Captum alone is not: overlapping windows, and two hooks on the tensor between ReLU and pooling
    generator = torch.Generator().manual_seed(5)
    baseline = torch.rand(3, 12, 12, generator=generator).double()
    method = DeepLift(Functional(style).double(), baseline=baseline)
    _, certificate = method.attribute(make_images(2)[0].double(), 0, return_certificate=True)
    assert certificate.completeness_error < 1e-10


def test_deep_lift_equals_captum_where_captum_is_right():
    from captum.attr import DeepLift as CaptumMethod

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Tanh(),
                        nn.Flatten(), nn.Linear(36, 2))  # fmt: skip
    images = make_images(2)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = CaptumMethod(net).attribute(images.clone().requires_grad_(), 0.0, 1).sum(1)
    assert torch.allclose(DeepLift(net).attribute(images, 1), expected, atol=1e-6)


def test_guided_backprop_sees_the_relus_of_embedding_and_model(fitted):
    images, _ = make_images(2)
    model, embedding = fitted.model, fitted.embedding
    linears = [model.classifier[0], *embedding.encoder]
    modules = [*model.features[:2], nn.ReLU(), model.features[3], model.avgpool, nn.Flatten()]
    for position, linear in enumerate(linears):
        modules += [linear, nn.ReLU(), *([Divide(embedding.scale)] if position == 0 else [])]
    from captum.attr import GuidedBackprop as CaptumMethod

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = images.clone().requires_grad_()
        expected = CaptumMethod(nn.Sequential(*modules).eval()).attribute(inputs, 1).sum(1)
    found = GuidedBackprop(fitted).attribute(images, 1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, Gradient(fitted).attribute(images, 1), atol=1e-3)


class Divide(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x / self.scale


@pytest.mark.parametrize("settings", [(3, 2, 0, 1, True), (3, 2, 1, 1, False), (2, 2, 0, 1, False),
                                      (3, 1, 1, 2, False), ((2, 3), (1, 2), (1, 0), 1, True),
                                      (3, 3, 1, 1, True), (2, 3, 0, 1, False)])  # fmt: skip
@pytest.mark.parametrize("size", [7, 8, 9])
def test_deep_lift_through_pooling_is_complete(settings, size):
    class Pooled(nn.Module):
        def forward(self, images):
            kernel, stride, padding, dilation, ceil = settings
            pooled = F.max_pool2d(images, kernel, stride, padding, dilation, ceil)
            weights = torch.linspace(-1, 2, pooled[0].numel(), dtype=images.dtype)
            return (pooled.flatten(1) * weights).sum(1)

    images = torch.randn(2, 2, size, size, generator=torch.Generator().manual_seed(0)).double()
    method = DeepLift(Pooled(), baseline=0.1)
    _, certificate = method.attribute(images, 0, return_certificate=True)
    assert certificate.completeness_error < 1e-10


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.2), nn.ELU(0.7),
                                        nn.Softplus(2.0)])  # fmt: skip
def test_deep_lift_through_other_activations_is_complete(activation):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Flatten(), nn.Linear(400, 2)).double()
    images = make_images(2)[0].double()
    _, certificate = DeepLift(net).attribute_many(images, [0, 1], return_certificate=True)
    assert certificate.completeness_error < 1e-10


def net_with(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Flatten(), nn.Linear(400, 2))


class Gate(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def test_what_deep_lift_cannot_do_is_refused():
    images = make_images(2)[0]
    with pytest.raises(UnsupportedOperationError, match="gelu"):
        DeepLift(net_with(nn.GELU())).attribute(images, 0)
    with pytest.raises(UnsupportedOperationError, match="with_indices"):
        DeepLift(Indices()).attribute(images, 0)
    with pytest.raises(UnsupportedOperationError, match="product of activations"):
        DeepLift(net_with(Gate())).attribute(images, 0)


class Indices(nn.Module):
    def forward(self, images):
        return F.max_pool2d(images, 2, return_indices=True)[0].flatten(1)


def test_what_guided_backprop_cannot_do_is_refused():
    images = make_images(2)[0]
    with pytest.raises(UnsupportedOperationError, match="gelu"):
        GuidedBackprop(net_with(nn.GELU())).attribute(images, 0)
    with pytest.raises(UnsupportedOperationError, match="this network has none"):
        GuidedBackprop(net_with(nn.Identity())).attribute(images, 0)


class Tokens(nn.Module):
    """A patch embedding and attention, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_grad_cam_without_a_layer_says_so():
    images = make_images(2)[0]
    with pytest.raises(LayerError, match="no convolution"):
        GradCAM(nn.Sequential(nn.Flatten(), nn.Linear(432, 2))).attribute(images, 0)
    net = Tokens().eval()
    with pytest.raises(LayerError, match="attention follows"):
        GradCAM(net).attribute(images, 0)
    assert GradCAM(net, layer="patches").attribute(images, 0).shape == (2, 12, 12)


def test_grad_cam_at_a_given_layer(fitted):
    images = make_images(2)[0]
    net = make_net()
    assert torch.allclose(
        GradCAM(net, layer="features.2").attribute(images, 0), GradCAM(net).attribute(images, 0)
    )
    inner = fitted.model.features[2]
    found = GradCAM(fitted, layer=inner).attribute(images, 1)
    assert torch.allclose(found, GradCAM(fitted).attribute(images, 1), atol=1e-6)
    assert len(inner._forward_hooks) == 0
    with pytest.raises(LayerError, match="nearest"):
        GradCAM(net, layer="features.9")
    with pytest.raises(LayerError, match="feature maps"):
        GradCAM(net, layer="classifier.0").attribute(images, 0)
    with pytest.raises(LayerError, match="ran 2 times"):
        GradCAM(Functional("shared"), layer="shared").attribute(images, 0)
    with pytest.raises(LayerError, match="ran 0 times"):
        GradCAM(net, layer=nn.Identity()).attribute(images, 0)


class Moody(nn.Module):
    """Runs another path on darker images."""

    def forward(self, images):
        x = torch.relu(images)
        return (torch.relu(x - 1) if images.mean() > 0.5 else x).flatten(1)


def test_paths_that_depend_on_the_image_are_refused():
    images = torch.stack([torch.ones(3, 4, 4), torch.full((3, 4, 4), 0.2)])
    with pytest.raises(UnsupportedOperationError, match="other operations"):
        DeepLift(Moody()).attribute(images, 0)


# --- errors of settings and modules


@pytest.mark.parametrize("name", ["gradient", "deep_lift", "guided_backprop", "grad_cam"])
def test_networks_without_gradients_are_named(name):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_net()

        def forward(self, images):
            with torch.no_grad():
                return self.net(images)

    with pytest.raises(XNNError, match="outputs carry none"):
        METHODS[name](Detached()).attribute(make_images(2)[0], 0)
    assert METHODS["occlusion"](Detached()).attribute(make_images(2)[0], 0).shape == (2, 12, 12)


def test_settings_out_of_range_are_named():
    net = make_net()
    with pytest.raises(XNNError, match="steps is 0"):
        IntegratedGradients(net, steps=0)
    with pytest.raises(XNNError, match="window is 0"):
        Occlusion(net, window=0)
    with pytest.raises(XNNError, match="stride is 0"):
        Occlusion(net, stride=0)
    with pytest.raises(XNNError, match="uncovered"):
        Occlusion(net, window=2, stride=3)
    with pytest.raises(XNNError, match="masks and cells"):
        RISE(net, masks=0)
    with pytest.raises(XNNError, match="visible"):
        RISE(net, visible=1.0)
    with pytest.raises(DataError, match="baseline of shape"):
        DeepLift(net, baseline=torch.zeros(5)).attribute(make_images(1)[0], 0)


def test_outputs_of_other_shapes():
    class One(nn.Module):
        def forward(self, images):
            return images.mean((1, 2, 3))

    images = make_images(2)[0]
    assert torch.allclose(Gradient(One()).attribute(images, 0), torch.tensor(1 / 144))
    with pytest.raises(DataError, match=r"returns \(2, 3, 12, 12\)|returns \(1, 3, 12, 12\)"):
        Gradient(nn.Identity()).attribute(images, 0)
    with pytest.raises(DataError, match=r"images \(B, C, H, W\)"):
        Gradient(nn.Identity()).attribute(torch.rand(2, 3), 0)


def test_maps_that_are_not_finite_are_named():
    class Root(nn.Module):
        def forward(self, images):
            return images.flatten(1).sqrt()

    images = torch.rand(2, 3, 4, 4)
    images[1, 0, 0, 0] = 0
    with pytest.raises(NonFiniteError, match=r"map of image\(s\) \[1\]"):
        Gradient(Root()).attribute(images, 0)


def test_xnn_explains_through_effective_weights(fitted):
    """The x-features through their encoder, the logits through the model above the layer."""
    name, images = "excitation_backprop_effective", make_images(2)[0]
    maps, certificate = fitted.attribute(images, name, return_certificate=True)
    assert certificate.method == name
    explanation = fitted.explain(images[0], method=name)
    assert torch.allclose(explanation.heatmaps, maps[0], atol=1e-7)
    above = METHODS[name](fitted.model, layer=fitted.layer)
    one_heatmap = above.attribute_many(images[:1], fitted.targets)
    assert torch.allclose(explanation.logit_heatmaps, one_heatmap[0], atol=1e-7)
    assert "excitation backprop effective, conservation" in explanation.certificate_lines()[-1]
    drawn = fitted.run_with_maps(images, name, certify=True)
    assert drawn.certificate == certificate
    assert drawn.fallback_share.shape == (2,)


@every_method
def test_data_parallel_and_autocast(name, fitted):
    images = make_images(2)[0]
    expected = METHODS[name](fitted.model).attribute(images, 1)
    wrapped = METHODS[name](nn.DataParallel(fitted.model)).attribute(images, 1)
    assert torch.equal(wrapped, expected)
    if name != "excitation_backprop":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(METHODS[name](fitted.model).attribute(images, 1), expected)


def test_every_method_is_registered_under_its_name():
    assert list(METHODS) == [
        "excitation_backprop", "excitation_backprop_effective", "gradient", "input_x_gradient",
        "integrated_gradients", "deep_lift", "grad_cam", "guided_backprop", "occlusion", "rise",
        "removal",
    ]  # fmt: skip
    for name, method in METHODS.items():
        if issubclass(method, MapMethod):
            assert method.name == name


def test_the_limits_of_a_certificate_have_one_home():
    """Warnings of the method, of an explanation and of `xnn check` must not drift apart."""
    package = Path(importlib.util.find_spec("torchxnn").origin).parent
    for limit in ("CONSERVATION_LIMIT", "FALLBACK_LIMIT"):
        homes = [
            file.relative_to(package).as_posix()
            for file in package.rglob("*.py")
            if re.search(rf"^[\w, ]*\b{limit}\b[\w, ]*=", file.read_text("utf-8"), re.MULTILINE)
        ]
        assert homes == ["attribution/base.py"]


def test_another_baseline_mends_what_a_layer_norm_breaks_beside_zero():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4, bias=False),
        nn.GroupNorm(1, 8, 1e-12),
        nn.Flatten(),
        nn.Linear(32, 2),
    ).eval()
    image = torch.rand(1, 3, 8, 8) + 0.1
    with pytest.warns(AttributionWarning, match=r"or another baseline, such as baseline=0\.5"):
        IntegratedGradients(net).attribute(image, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IntegratedGradients(net, baseline=0.5, steps=200).attribute(image, 1)
