"""The interface: shapes, certificate, limits, errors, and that the module is left as it was."""

from __future__ import annotations

import gc
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn

from conftest import make_net
from torchxnn.attribution import Attributor, Certificate, ExcitationBackprop
from torchxnn.attribution.excitation_backprop.tape import Value
from torchxnn.attribution.methods import METHODS, OF_ANY_MODULE
from torchxnn.errors import (
    AttributionWarning,
    DataError,
    LayerError,
    NonFiniteError,
    UnsupportedOperationError,
    XNNError,
)


@pytest.fixture
def net() -> nn.Module:
    return lively()


def lively(**options: bool) -> nn.Module:
    """The small network with features that are alive on `batch()`."""
    net = make_net(**options)
    net.features[1].running_mean.zero_()
    net.features[1].weight.data[::3] *= -1
    return net


def batch(count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=dtype)


def state(module: nn.Module) -> dict[str, object]:
    """Everything that must not change, hooks of every kind included."""
    found: dict[str, object] = {}
    for name, value in module.state_dict().items():
        found[name] = value.clone().view(torch.uint8).tolist() if value.ndim else value.item()
    for name, inner in module.named_modules():
        hooks = [key for key in inner.__dict__ if key.endswith("hooks")]
        found[f"{name} state"] = (inner.training, {key: len(inner.__dict__[key]) for key in hooks})
    for name, parameter in module.named_parameters():
        found[f"{name} grad"] = (parameter.requires_grad, parameter.grad, parameter._version)
    return found


def test_shapes_and_sums(net):
    images = batch()
    for contrastive, total in ((False, 1.0), (True, 0.0)):
        method = ExcitationBackprop(net, contrastive=contrastive)
        one = method.attribute(images, 2)
        many = method.attribute_many(images, [0, 2, 3])
        assert one.shape == (3, 12, 12)
        assert many.shape == (3, 3, 12, 12)
        torch.testing.assert_close(many[:, 1], one)
        torch.testing.assert_close(many.sum((2, 3)), torch.full((3, 3), total), atol=1e-5, rtol=0)
        if not contrastive:
            assert float(many.min()) >= 0


def test_by_hand():
    """Two pixels, one unit each way: y = 2 a - b + 3 c with bias, all inputs positive."""
    linear = nn.Linear(3, 1, dtype=torch.float64)
    linear.weight.data = torch.tensor([[2.0, -1.0, 3.0]]).double()
    linear.bias.data.fill_(-100.0)  # plays no role, nor does the sign of the target itself
    module = nn.Sequential(nn.Flatten(), linear)
    images = torch.tensor([1.0, 5.0, 2.0]).double().reshape(1, 1, 1, 3)
    marginal = ExcitationBackprop(module, contrastive=False).attribute(images, 0)
    torch.testing.assert_close(marginal.flatten(), torch.tensor([0.25, 0.0, 0.75]).double())
    contrast = ExcitationBackprop(module).attribute(images, 0)
    torch.testing.assert_close(contrast.flatten(), torch.tensor([0.25, -1.0, 0.75]).double())


def test_non_negative_network_is_input_times_gradient():
    """Known limit: without biases, signs and ReLU, R is x times gradient over the output."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(400, 2, False))
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator).double()
    images = batch(2, torch.float64).requires_grad_()
    output = module(images)[:, 1]
    (gradient,) = torch.autograd.grad(output.sum(), images)
    wanted = (images * gradient).sum(1) / output[:, None, None]
    found = ExcitationBackprop(module, contrastive=False).attribute(images, 1)
    torch.testing.assert_close(found, wanted.detach())


def test_targets_per_image(net):
    images = batch(4)
    method = ExcitationBackprop(net)
    many = method.attribute_many(images, [0, 1, 2, 3])
    each = method.attribute(images, torch.tensor([3, 0, 2, 1]))
    torch.testing.assert_close(each, many[torch.arange(4), torch.tensor([3, 0, 2, 1])])


def test_batch_equals_single(net):
    images = batch(3)
    method = ExcitationBackprop(net)
    singles = [method.attribute(image[None], 1) for image in images]
    torch.testing.assert_close(method.attribute(images, 1), torch.cat(singles))


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 7, 100])
@pytest.mark.parametrize("certify", [False, True])
def test_chunks_change_nothing(net, chunk_size, certify):
    images = batch(3)
    whole = ExcitationBackprop(net).attribute_many(images, [0, 1, 2, 3, 0])
    method = ExcitationBackprop(net, chunk_size=chunk_size)
    found = method.attribute_many(images, [0, 1, 2, 3, 0], return_certificate=certify)
    torch.testing.assert_close(found[0] if certify else found, whole, atol=1e-7, rtol=1e-4)


def test_certificate(net):
    maps, certificate = ExcitationBackprop(net).attribute(batch(), 1, return_certificate=True)
    torch.testing.assert_close(maps, ExcitationBackprop(net).attribute(batch(), 1))
    assert isinstance(certificate, Certificate)
    assert 0 < certificate.conservation_error < 1e-5
    assert certificate.fallback_share == 0
    assert (certificate.dtype, certificate.method) == ("float32", "excitation_backprop")
    assert set(certificate.versions) == {"torchxnn", "torch"}
    with pytest.raises(AttributeError):
        certificate.dtype = "float64"


def test_fallback_is_counted_and_warned_about():
    """The bias alone made the hidden unit positive: all relevance is shared by size."""
    hidden = nn.Linear(3, 2)
    hidden.weight.data = -torch.ones(2, 3)
    hidden.bias.data.fill_(10.0)
    module = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(2, 1))
    module[-1].weight.data.fill_(1.0)
    images = torch.tensor([1.0, 2.0, 1.0]).reshape(1, 1, 1, 3)
    method = ExcitationBackprop(module, contrastive=False)
    with pytest.warns(AttributionWarning, match="100% of the relevance"):
        maps, certificate = method.attribute(images, 0, return_certificate=True)
    assert certificate.fallback_share == pytest.approx(1.0)
    torch.testing.assert_close(maps.flatten(), torch.tensor([0.25, 0.5, 0.25]))


def test_stop_at_a_layer(net):
    images = batch()
    for layer in ("features.3", net.features[3]):
        maps = ExcitationBackprop(net, contrastive=False, stop_at=layer).attribute_many(images, [1])
        assert maps.shape == (3, 1, 5, 5)
        torch.testing.assert_close(maps.sum((1, 2, 3)), torch.ones(3))
    with pytest.raises(LayerError, match="one number per image"):
        ExcitationBackprop(net, stop_at="classifier.1").attribute(images, 1)
    with pytest.raises(LayerError, match=r"no layer 'features.9'"):
        ExcitationBackprop(net, stop_at="features.9")
    with pytest.raises(LayerError, match="ran 0 times"):
        ExcitationBackprop(net, stop_at=nn.ReLU()).attribute(images, 1)
    with pytest.raises(XNNError, match="contrastive=False"):
        ExcitationBackprop(net, stop_at="classifier.3", channel_dim=0).attribute(images, 1)


def test_channels_elsewhere():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).relu().mean((1, 2)))

    torch.manual_seed(0)
    method = ExcitationBackprop(Last(), contrastive=False, stop_at="norm", channel_dim=-1)
    maps = method.attribute(batch(), 0)
    assert maps.shape == (3, 10, 10)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))


def test_one_output_per_image():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 1))
    squeezed = nn.Sequential(module, nn.Flatten(0))
    images = batch()
    torch.testing.assert_close(
        ExcitationBackprop(squeezed).attribute(images, 0),
        ExcitationBackprop(module).attribute(images, 0),
    )


def test_reused_modules_add_up():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.act = nn.ReLU(inplace=True)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            x = self.act(self.conv(x))
            x = self.act(self.conv(x) + x)
            return self.head(x.mean((2, 3)))

    torch.manual_seed(1)
    module = Twice()
    maps, certificate = ExcitationBackprop(module, contrastive=False).attribute(
        batch(), 0, return_certificate=True
    )
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))
    assert certificate.conservation_error < 1e-5
    with pytest.raises(LayerError, match="ran 2 times"):
        ExcitationBackprop(module, stop_at="conv").attribute(batch(), 0)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_the_module_is_left_as_it_was(train, inplace):
    net = lively(inplace=inplace)
    net.train(train)
    net.features[1].eval()
    net.features[0].weight.requires_grad_(False)
    before = state(net)
    images = batch()
    copy = images.clone()
    first = ExcitationBackprop(net).attribute(images, 1)
    again = ExcitationBackprop(net, stop_at="features.2").attribute(images, 1)
    assert state(net) == before
    assert torch.equal(images, copy)
    assert first.requires_grad is False
    assert again.shape == (3, 10, 10)


def test_the_module_is_left_as_it_was_after_an_exception(net):
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            self.net(x)
            raise RuntimeError("broken model")

    module = Breaks().train()
    before = state(module)
    with pytest.raises(RuntimeError, match="broken model"):
        ExcitationBackprop(module, stop_at="net.features").attribute(batch(), 0)
    assert state(module) == before


def test_an_exception_the_module_catches_itself_is_its_own_affair(net):
    class Reached(BaseException):
        pass

    class Partial(nn.Module):
        def forward(self, x):
            seen = []

            def hook(module, args, output):
                seen.append(output.clone())
                raise Reached

            handle = net.classifier[1].register_forward_hook(hook)
            try:
                net(x)
            except Reached:
                return seen[0]
            finally:
                handle.remove()

    maps = ExcitationBackprop(Partial(), contrastive=False).attribute(batch(), 0)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))


def test_two_threads_at_once(net):
    net.train()
    before = state(net)
    images = batch()
    wanted = [ExcitationBackprop(net, stop_at="features.2").attribute(images, t) for t in (0, 1)]
    found: list[list[Tensor]] = [[], []]

    def work(target: int) -> None:
        for _ in range(10):
            method = ExcitationBackprop(net, stop_at="features.2")
            found[target].append(method.attribute(images, target))

    threads = [threading.Thread(target=work, args=(target,)) for target in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target in (0, 1):
        assert len(found[target]) == 10
        for maps in found[target]:
            torch.testing.assert_close(maps, wanted[target])
    assert state(net) == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes(net, mode):
    images = batch()
    wanted = ExcitationBackprop(net).attribute(images, 1)
    with mode():
        torch.testing.assert_close(ExcitationBackprop(net).attribute(images * 1.0, 1), wanted)


def test_data_parallel(net):
    images = batch()
    wrapped = nn.DataParallel(net)
    found = ExcitationBackprop(wrapped, stop_at="module.features.2").attribute(images, 1)
    wanted = ExcitationBackprop(net, stop_at="features.2").attribute(images, 1)
    torch.testing.assert_close(found, wanted)


def test_autocast_computes_relevance_in_float32(net):
    images = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)
        method = ExcitationBackprop(net, contrastive=False)
        maps, certificate = method.attribute(images, 1, return_certificate=True)
    assert maps.dtype == torch.float32
    assert certificate.conservation_error < 1e-5
    wanted = ExcitationBackprop(net, contrastive=False).attribute(images, 1)
    assert float((maps - wanted).abs().sum((1, 2)).max()) < 0.1


def test_half_and_double_precision(net):
    for dtype, relevance in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        module = lively().to(dtype)
        maps, certificate = ExcitationBackprop(module).attribute(
            batch().to(dtype), 0, return_certificate=True
        )
        assert maps.dtype == relevance
        assert certificate.dtype == str(relevance).removeprefix("torch.")
        assert certificate.conservation_error < (1e-5 if dtype == torch.bfloat16 else 1e-13)


@pytest.mark.parametrize(
    ("target", "match"),
    [(4, "target 4 is out of range: the module has outputs 0 to 3"), (-1, "target -1 is out")],
)
def test_target_out_of_range(net, target, match):
    with pytest.raises(XNNError, match=match):
        ExcitationBackprop(net).attribute(batch(), target)
    with pytest.raises(XNNError, match=match):
        ExcitationBackprop(net).attribute_many(batch(), [0, target])


def test_bad_arguments(net):
    method = ExcitationBackprop(net)
    with pytest.raises(XNNError, match="no targets"):
        method.attribute_many(batch(), [])
    with pytest.raises(XNNError, match="chunk_size is 0"):
        ExcitationBackprop(net, chunk_size=0)
    with pytest.raises(DataError, match="floating point"):
        method.attribute(batch()[:0], 0)
    with pytest.raises(DataError, match="must return"):
        ExcitationBackprop(net.features).attribute(batch(), 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_images(net, value):
    images = batch()
    images[1, 0, 3, 3] = value
    with pytest.raises(NonFiniteError, match=r"image\(s\) \[1\]"):
        ExcitationBackprop(net).attribute(images, 0)


def test_bad_weights_are_named(net):
    net.features[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"aten\.convolution.* in features\.0"):
        ExcitationBackprop(net).attribute(batch(), 0)


def test_overflow_that_the_outputs_hide_is_named():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.head = nn.Linear(2, 2)
            for weight in (self.conv.weight, self.head.weight):
                weight.data.fill_(1e20)

        def forward(self, x):
            return self.head(torch.tanh(self.conv(x * 1e20)).mean((2, 3)))

    with pytest.raises(NonFiniteError, match=r"aten\.convolution.* in conv .*infinity"):
        ExcitationBackprop(Hidden(), contrastive=False).attribute(batch() + 1, 0)


def test_output_without_images():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3)

    with pytest.raises(LayerError, match="not a tensor computed from the images"):
        ExcitationBackprop(Constant()).attribute(batch(), 0)


def test_constant_target():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1)

        def forward(self, x):
            score = self.head(x.mean((2, 3)))
            return torch.cat([score, torch.ones_like(score)], 1)

    with pytest.raises(XNNError, match="target 1 does not depend on the images"):
        ExcitationBackprop(Half(), contrastive=False).attribute(batch(), 1)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10])
def test_scale_of_the_activations_does_not_matter(scale):
    """Denominators near the smallest numbers must neither overflow nor lose relevance."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    for parameter in module[0].parameters():
        parameter.data *= scale
    method = ExcitationBackprop(module, contrastive=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)
        maps, certificate = method.attribute(batch(), 0, return_certificate=True)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))
    assert certificate.conservation_error < 1e-5


@pytest.mark.parametrize("name", OF_ANY_MODULE)
def test_contract_of_every_method(net, name):
    method = METHODS[name](net)
    assert isinstance(method, Attributor)
    images = batch(2)
    before = state(net)
    one = method.attribute(images, 1)
    many = method.attribute_many(images, [1, 2])
    assert one.shape == (2, 12, 12)
    assert many.shape == (2, 2, 12, 12)
    assert one.device == images.device
    torch.testing.assert_close(many[:, 0], one, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(method.attribute(images[:1], 1), one[:1], atol=1e-7, rtol=1e-4)
    assert not torch.allclose(many[:, 0], many[:, 1])
    assert state(net) == before


def test_memory_is_freed_without_waiting_for_the_garbage_collector(net):
    gc.collect()
    gc.disable()
    try:
        ExcitationBackprop(net, stop_at="features.0").attribute_many(batch(), [0, 1])
        with pytest.raises(XNNError, match="out of range"):
            ExcitationBackprop(net).attribute(batch(), 9)
        alive = [item for item in gc.get_objects() if type(item) is Value]
    finally:
        gc.enable()
    assert alive == []


def test_the_sign_of_the_target_passes_averages_sums_and_activations():
    """All scores are negative; asked is what speaks for the target, not what speaks against it."""

    class Heads(nn.Module):
        def __init__(self, kind: str):
            super().__init__()
            self.kind = kind
            self.one, self.two = nn.Conv2d(2, 1, 1), nn.Conv2d(2, 1, 1)
            for conv in (self.one, self.two):
                conv.weight.data = torch.tensor([1.0, -3.0]).reshape(1, 2, 1, 1)

        def forward(self, x):
            one = self.one(x)
            if self.kind == "sum":
                one = (one + self.two(x)) / 2
            elif self.kind == "dead":
                one = one.relu()
            return one.mean((2, 3))

    images = torch.ones(1, 2, 2, 2)
    for kind in ("average", "sum", "dead"):
        method = ExcitationBackprop(Heads(kind), contrastive=False, channel_dim=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)
            by_channel = method.attribute(images, 0).sum(2)
        torch.testing.assert_close(by_channel, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("certify", [True, False])
def test_a_target_that_is_off_does_not_count_as_fallback(certify):
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.zero_()
        module[3].weight[0].fill_(-1.0)  # off: nothing excites it
        module[3].weight[1].copy_(torch.tensor([1.0, -0.1] * 4))
        module[3].bias.zero_()
    images = torch.rand(2, 1, 2, 2) + 0.1
    method = ExcitationBackprop(module)
    _, certificate = method.attribute_many(images, [0, 1], return_certificate=True)
    assert certificate.fallback_share == 0.0
    if not certify:
        method.attribute_many(images, [0, 1])  # and no warning, which would be an error here


def decided_by_biases():
    """Nearly all relevance of the first target meets hidden units that their bias switches on."""
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in (module[1], module[3], module[5]):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
            layer.bias.zero_()
        module[1].weight[0] = -module[1].weight[0].abs()
        module[1].bias[0] = 20.0
        module[5].weight.abs_()
        module[5].bias[0] = 0.5
    return module


def test_the_fallback_share_is_one_figure_per_image():
    """It was halved in contrastive maps without a certificate, and there of their difference."""
    module, images = decided_by_biases(), batch(4)[:, :1, :3, :3]
    plain = ExcitationBackprop(module, contrastive=False)
    (expected,) = plain._run(images, [torch.tensor([[0, 1]] * 4)], [True])
    assert float(expected.fallback_share.min()) > 0.05
    assert len(set(expected.fallback_share.tolist())) == 4
    for contrastive in (False, True):
        for certify in (False, True):
            for chunk_size in (None, 1, 3):
                method = ExcitationBackprop(module, contrastive=contrastive, chunk_size=chunk_size)
                (found,) = method._run(images, [torch.tensor([[0, 1]] * 4)], [certify])
                torch.testing.assert_close(found.fallback_share, expected.fallback_share)
                worst = found.certificate().fallback_share
                assert worst == pytest.approx(float(expected.fallback_share.max()))


def test_a_neighbour_whose_target_is_off_changes_nothing():
    """The share was 1 for an image alone, and 0 beside one whose target is off."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 1), nn.ReLU())
    with torch.no_grad():
        module[1].weight.fill_(-1.0)
        module[1].bias.fill_(10.0)
    on, off = torch.full((1, 1, 1, 3), 1.0), torch.full((1, 1, 1, 3), 9.0)
    for contrastive in (False, True):
        method = ExcitationBackprop(module, contrastive=contrastive)
        for images, shares in ((on, [1.0]), (torch.cat([on, off]), [1.0, 0.0])):
            for certify in (False, True):
                (found,) = method._run(images, [torch.zeros(len(images), 1).long()], [certify])
                assert found.fallback_share.tolist() == pytest.approx(shares)
        with pytest.warns(AttributionWarning, match="100% of the relevance"):
            method.attribute(torch.cat([on, off]), 0)


def test_maps_do_not_depend_on_what_is_carried_beside_them():
    """Where a fallback is met a contrastive walk carries the unit's own relevance too."""
    module, images = decided_by_biases(), batch(4)[:, :1, :3, :3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)
        found = ExcitationBackprop(module).attribute_many(images, [0, 1])
        certified, _ = ExcitationBackprop(module).attribute_many(images, [0, 1], True)
        marginal = ExcitationBackprop(module, contrastive=False).attribute_many(images, [0, 1])
    torch.testing.assert_close(found, certified)
    assert float((found - marginal).abs().max()) > 0.01
    torch.testing.assert_close(found.sum((2, 3)), torch.zeros(4, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("certify", [True, False])
def test_a_product_of_features_is_refused_by_name_with_and_without_certificate(certify):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            if not bool(torch.isfinite(x).all()):  # operations without a rule, beside the path
                raise ValueError
            return self.head((self.first(x) * self.second(x)).flatten(1))

    with pytest.raises(UnsupportedOperationError, match=r"aten\.mul"):
        ExcitationBackprop(Product()).attribute(
            torch.rand(1, 1, 2, 2), 0, return_certificate=certify
        )
