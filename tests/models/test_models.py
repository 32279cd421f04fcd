"""Networks by name: what is found, what fits, and errors that say what to do."""

import copy
import hashlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as vision

from network_examples import SQUASH, small
from torchxnn.errors import DataError, ModelError, XNNWarning
from torchxnn.models import weights
from torchxnn.models.bundled import efficientnet_lite2_with_head
from torchxnn.models.checkpoints import load_state, read_checkpoint
from torchxnn.models.hooks import preserve_state
from torchxnn.models.layers import check_images
from torchxnn.models.load import count_outputs, load_model
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import fingerprint

FACTORY = "network_examples:small"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    """No pretrained weights on this machine, and no way to fetch them."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None, raising=False)

    def refuse(*_args, **_options):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)


def save(model: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in model.state_dict().items()}, path)
    else:
        torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "did you mean torchvision:resnet18"),
        ("torchvision:", "a network is torchvision:NAME"),
        (":resnet18", "a network is torchvision:NAME"),
        ("nonsense", "got 'nonsense'$"),
        ("torchvision:resnet81", "no classification network 'resnet81'; near ones: .*resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classification network"),
        ("timm:resnet18x", "timm has no network 'resnet18x'; near ones: .*resnet18"),
        ("no_such_module:net", "cannot import 'no_such_module'"),
        ("network_examples:smal", "has no function 'smal'; near ones: small"),
        ("network_examples:constant", "has no function 'constant'"),
        ("network_examples:no_network", "returned is a str, not an nn.Module"),
        (
            "network_examples:needs_an_argument",
            r"cannot be called: missing a required argument.*`def network\(\): return needs_an",
        ),
        ("torchxnn.models.bundled:squeezenet_with_head", "name weights, whose last layer tells"),
    ],
)
def test_wrong_names(spec, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec, allow_random=True)


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:resnet18"])
def test_random_weights_only_on_request(spec):
    with pytest.raises(ModelError, match="not on this machine"):
        load_model(spec)
    with pytest.warns(XNNWarning, match="random weights: its explanations mean nothing"):
        loaded = load_model(spec, num_classes=7, allow_random=True)
    assert loaded.description == f"{spec}, random weights"
    assert not loaded.model.training
    with torch.no_grad():
        assert loaded.model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_preprocessing_comes_from_the_library():
    with pytest.warns(XNNWarning):
        loaded = load_model("torchvision:efficientnet_b1", allow_random=True)
    assert loaded.preprocessing == Preprocessing(
        size=240, shorter_side=256, interpolation="bicubic"
    )
    with pytest.warns(XNNWarning):
        loaded = load_model("timm:resnet10t", allow_random=True)
    assert loaded.preprocessing.size == 176
    with pytest.warns(XNNWarning):
        loaded = load_model("timm:resnet10t", allow_random=True, preprocessing=SQUASH)
    assert loaded.preprocessing == SQUASH


@pytest.mark.parametrize(
    "spec",
    [
        "torchvision:resnet18",
        "torchvision:squeezenet1_1",
        "torchvision:mobilenet_v3_small",
        "torchvision:regnet_y_400mf",
        "timm:mobilenetv3_small_050",
    ],
)
def test_number_of_classes_is_read_from_the_weights(spec, tmp_path):
    with pytest.warns(XNNWarning):
        original = load_model(spec, num_classes=37, allow_random=True).model
    loaded = load_model(spec, save(original, tmp_path / "w.safetensors"))
    assert fingerprint(loaded.model) == fingerprint(original)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), original(images))
    assert loaded.description == f"{spec}, weights w.safetensors"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_kinds_of_files(tmp_path, suffix):
    original = small(6)
    loaded = load_model(FACTORY, save(original, tmp_path / f"w{suffix}"))
    assert fingerprint(loaded.model) == fingerprint(original.eval())


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_checkpoints_of_trainers_are_unwrapped(tmp_path, wrapper):
    original = small(6)
    state = {f"module.{name}": value for name, value in original.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "w.pt")
    assert fingerprint(load_model(FACTORY, tmp_path / "w.pt").model) == fingerprint(original)


def test_float16_weights_become_float32(tmp_path):
    original = small(4).half()
    loaded = load_model(FACTORY, save(original, tmp_path / "w.safetensors"))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert fingerprint(loaded.model) == fingerprint(original.float())


def test_mismatch_names_the_first_keys(tmp_path):
    state = small(4).state_dict()
    del state["1.bias"]
    state["1.weight"] = torch.zeros(5, 13)
    state |= {f"extra.{number}": torch.zeros(1) for number in range(6)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit the network") as caught:
        load_model(FACTORY, tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "1 missing: 1.bias" in message
    assert "6 unexpected: extra.0, extra.1, extra.2, extra.3, ...;" in message
    assert "1 of another shape: 1.weight (5, 13) instead of (5, 12)" in message


def test_the_wrong_network_is_refused(tmp_path):
    save(small(4), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"122 missing: conv1\.weight, .* 9 unexpected"):
        load_model("torchvision:resnet18", tmp_path / "w.safetensors")


def test_given_number_of_classes_must_fit(tmp_path):
    path = save(small(4), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"3\.weight \(4, 5\) instead of \(9, 5\)"):
        load_model(FACTORY, path, num_classes=9)
    with pytest.raises(ModelError, match="num_classes must be at least 1, got 0"):
        load_model(FACTORY, num_classes=0)
    with pytest.raises(ModelError, match="takes no num_classes, so 9 cannot be asked for"):
        load_model("network_examples:fixed", num_classes=9)


def test_broken_weights_files(tmp_path):
    with pytest.raises(ModelError, match="there is no weights file"):
        read_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "w.h5").write_bytes(b"keras")
    with pytest.raises(ModelError, match=r"are \.safetensors, \.pt, \.pth or \.ckpt, not '\.h5'"):
        read_checkpoint(tmp_path / "w.h5")
    for suffix in (".safetensors", ".pt"):
        whole = save(small(4), tmp_path / f"whole{suffix}").read_bytes()
        for size in (0, 5, len(whole) // 2):
            (tmp_path / f"w{suffix}").write_bytes(whole[:size])
            with pytest.raises(ModelError, match=f"w{suffix}"):
                read_checkpoint(tmp_path / f"w{suffix}")
    (tmp_path / "w.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"cannot read the weights .*w\.pt"):
        read_checkpoint(tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_checkpoint(tmp_path / "list.pt")


def test_a_file_with_code_is_refused(tmp_path):
    torch.save(small(4), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"holds more than tensors .* save model\.state_dict"):
        read_checkpoint(tmp_path / "model.pt")


def test_weights_with_nan_are_refused(tmp_path):
    model = small(4)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"1\.weight holds NaN or infinity"):
        load_model(FACTORY, save(model, tmp_path / "w.safetensors"))


def test_factories():
    assert load_model("network_examples:always").classes is None
    assert load_model("network_examples:always", num_classes=9).model[-1].out_features == 9
    assert load_model("network_examples:fixed").preprocessing == SQUASH
    complete = load_model("network_examples:complete")
    assert (complete.classes, complete.preprocessing) == (("no", "yes"), SQUASH)
    assert complete.description == "network_examples:complete, weights as the factory made them"
    assert not complete.random_weights


@pytest.mark.parametrize(
    ("factory", "weight"), [("small", "1.weight"), ("partly", "3.bias"), ("lazy", "1.weight")]
)
def test_a_factory_that_draws_weights_is_refused(factory, weight):
    spec = f"network_examples:{factory}"
    message = f"makes other weights at every call \\({weight} differs\\).*--weights FILE.*--random"
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_a_factory_that_draws_weights_gives_the_same_ones_on_request(tmp_path):
    with pytest.warns(XNNWarning, match="random weights: its explanations mean nothing"):
        one, other = (load_model(FACTORY, allow_random=True) for _ in range(2))
    assert fingerprint(one.model) == fingerprint(other.model)
    assert (one.random_weights, one.description) == (True, f"{FACTORY}, random weights")
    drawn = save(one.model, tmp_path / "w.safetensors")
    assert not load_model(FACTORY, drawn, allow_random=True).random_weights
    assert not load_model("network_examples:always", allow_random=True).random_weights


def test_a_module_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_network.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_model("my_own_network:net").model, nn.Sequential)


def test_what_fails_in_somebody_elses_code_is_one_line_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "failing_network.py").write_text("def net():\n    raise KeyError('depth')\n")
    (tmp_path / "failing_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    message = r"failing_network:net fails: KeyError: 'depth' \(failing_network\.py, line 2\)"
    with pytest.raises(ModelError, match=message):
        load_model("failing_network:net")
    with pytest.raises(ModelError, match=r"ZeroDivisionError: .* \(failing_module\.py, line 1\)"):
        load_model("failing_module:net")


def test_a_network_that_takes_more_than_images_says_so():
    class Two(nn.Module):
        def forward(self, images, row):
            return images.mean((2, 3)) + row

    with pytest.raises(DataError, match=r"more than images .*'row'.*; wrap it in a module"):
        count_outputs(Two(), SQUASH)


def test_whatever_a_forward_raises_on_the_first_image_is_one_line():
    class OfMapping(nn.Module):
        def forward(self, batch):
            return batch["image"].mean((2, 3))

    class OfKeyword(nn.Module):
        def forward(self, *, images):
            return images.mean((2, 3))

    for model, what in ((OfMapping(), "IndexError"), (OfKeyword(), "TypeError")):
        with pytest.raises(ModelError, match=rf"{what}: .*; its forward must take one tensor"):
            count_outputs(model, SQUASH)


def test_a_network_without_values_is_refused():
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(ModelError, match="meta device"):
        check_images(net, torch.zeros(2, 3, 2, 2))


def cache_squeezenet(folder: Path) -> nn.Module:
    """Put weights into torch's cache under the name that torchvision looks for."""
    original = vision.squeezenet1_1()
    file = folder / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.save(original.state_dict(), file)
    return original


def test_cached_weights_of_torchvision(tmp_path, monkeypatch):
    original = cache_squeezenet(tmp_path)
    with pytest.raises(ModelError, match=r"wrong checksum.*; delete the file"):
        load_model("torchvision:squeezenet1_1")
    monkeypatch.setattr("torchxnn.models.from_torchvision._check_name", lambda _: None)
    loaded = load_model("torchvision:squeezenet1_1")
    assert fingerprint(loaded.model) == fingerprint(original)
    assert loaded.classes[11] == "goldfinch"
    assert loaded.preprocessing == Preprocessing(size=224, shorter_side=256)
    with pytest.raises(ModelError, match="have 1000 classes, not 5"):
        load_model("torchvision:squeezenet1_1", num_classes=5)
    assert load_model("torchvision:squeezenet1_1", allow_random=True).classes is not None
    with pytest.warns(XNNWarning, match="random weights"):
        load_model("torchvision:squeezenet1_1", num_classes=5, allow_random=True)


def test_cached_weights_of_timm(tmp_path, monkeypatch):
    with pytest.warns(XNNWarning):
        original = load_model("timm:resnet10t.c3_in1k", allow_random=True).model
    file = save(original, tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(file))
    loaded = load_model("timm:resnet10t.c3_in1k")
    assert fingerprint(loaded.model) == fingerprint(original)
    assert loaded.classes[11].startswith("goldfinch")
    assert len(loaded.classes) == 1000


def test_checksum_in_the_name(tmp_path):
    from torchxnn.models.from_torchvision import _check_name

    digest = hashlib.sha256(b"weights").hexdigest()
    file = tmp_path / f"net-{digest[:8]}.pth"
    file.write_bytes(b"weights")
    _check_name(file)
    file.write_bytes(b"weigh")
    with pytest.raises(ModelError, match="wrong checksum"):
        _check_name(file)


def test_fingerprint_by_hand():
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(0.0)
    expected = hashlib.sha256(
        b"bias (1,) torch.float32\n\x00\x00\x00\x00weight (1, 1) torch.float32\n\x00\x00\x80\x3f"
    ).hexdigest()
    assert fingerprint(model) == expected


def test_fingerprint_sees_what_matters_and_nothing_else():
    model = small(3)
    reference = fingerprint(model)
    other = copy.deepcopy(model).train().requires_grad_(False)
    assert fingerprint(other) == reference
    other[2].running_mean[0] += 1e-6
    assert fingerprint(other) != reference
    assert fingerprint(copy.deepcopy(model).double()) != reference
    assert fingerprint(copy.deepcopy(model).bfloat16()) != reference
    convolution = nn.Conv2d(3, 4, 3)
    before = fingerprint(convolution)
    assert fingerprint(convolution.to(memory_format=torch.channels_last)) == before


def test_fingerprint_does_not_depend_on_the_order():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    one, two = nn.Module(), nn.Module()
    one.a, one.b = first, second
    two.b, two.a = second, first
    assert fingerprint(one) == fingerprint(two)
    two.a, two.b = second, first
    assert fingerprint(one) != fingerprint(two)


def test_fingerprint_of_tied_and_empty_parameters():
    model = nn.Module()
    model.a = nn.Parameter(torch.ones(2))
    model.b = model.a
    untied = nn.Module()
    untied.a, untied.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    assert fingerprint(model) == fingerprint(untied)
    model.c = nn.Parameter(torch.zeros(0, 3))
    assert fingerprint(model) != fingerprint(untied)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("make", [lambda: nn.LazyLinear(3), lambda: nn.Linear(2, 2, device="meta")])
def test_fingerprint_needs_values(make):
    with pytest.raises(ModelError, match="has no values yet"):
        fingerprint(make())


def double_in_place(model):
    with torch.no_grad():
        model[1].weight.mul_(2)


def write_behind_autograd(model):
    model[1].weight.data[4, 11] += 1e-6


def swap_rows_behind_autograd(model):
    model[1].weight.data.copy_(model[1].weight.data.flip(0))


def replace_a_parameter(model):
    model[3].bias = nn.Parameter(model[3].bias + 1)


def replace_the_values(model):
    model[3].bias.data = model[3].bias.data + 1


def change_a_buffer(model):
    model[2].running_var.add_(1)


def add_a_buffer(model):
    model.register_buffer("more", torch.zeros(1))


CHANGES = [double_in_place, write_behind_autograd, swap_rows_behind_autograd, replace_a_parameter,
           replace_the_values, change_a_buffer, add_a_buffer]  # fmt: skip


@pytest.fixture
def hashed(monkeypatch):
    """How often weights were hashed."""
    counted = []
    original = weights._hash
    monkeypatch.setattr(weights, "_hash", lambda *given: counted.append(1) or original(*given))
    return counted


def test_the_fingerprint_of_an_unchanged_model_is_remembered(hashed):
    model = small(3)
    first = fingerprint(model)
    with torch.no_grad(), preserve_state(model):
        model(torch.rand(2, 3, 2, 2))
    assert [fingerprint(model.train()) for _ in range(5)] == [first] * 5
    assert len(hashed) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_of_a_changed_model_is_never_remembered(change, hashed):
    model = small(3)
    before = fingerprint(model)
    change(model)
    assert before != fingerprint(model) == fingerprint(copy.deepcopy(model))
    assert len(hashed) == 3


def swap_columns(weight):
    weight[:, [0, 2]] = weight[:, [2, 0]]


def swap_within_a_row(weight):
    weight[3, [0, 1, 300, 301]] = weight[3, [300, 301, 0, 1]]


def swap_rows(weight):
    weight[[1, 6]] = weight[[6, 1]]


def negate(weight):
    weight.neg_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", [swap_columns, swap_within_a_row, swap_rows, negate])
def test_the_fingerprint_sees_changes_that_leave_sums_alone(change, dtype):
    """Sums of words see no order; rows 1 and 6 of float32 differ, and their words do not."""
    model = nn.Linear(512, 8, dtype=dtype)
    weight = model.weight.data
    weight[6] = weight[1].flip(0).unflatten(0, (-1, 2)).flip(1).flatten()
    before = fingerprint(model)
    change(weight)
    assert before != fingerprint(model) == fingerprint(copy.deepcopy(model))


def test_load_state_leaves_a_network_alone_when_it_does_not_fit():
    model = small(3)
    before = fingerprint(model)
    with pytest.raises(ModelError, match="do not fit"):
        load_state(model, small(4).state_dict(), "w.safetensors")
    assert fingerprint(model) == before


def test_efficientnet_lite2_with_a_head_takes_float16(tmp_path):
    made = efficientnet_lite2_with_head(7)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in made.state_dict().items()
    }
    save_file(state, tmp_path / "net.safetensors")
    loaded = load_model(
        "torchxnn.models.bundled:efficientnet_lite2_with_head", tmp_path / "net.safetensors"
    )
    assert loaded.preprocessing == Preprocessing(size=224, resize="squash")
    assert loaded.model.num_classes == 7
    assert next(loaded.model.parameters()).dtype == torch.float32
    with torch.no_grad():
        images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        assert loaded.model.features(images).shape == (2, 352, 7, 7)
        assert loaded.model(images).shape == (2, 7)


def test_efficientnet_lite2_says_which_extra_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"needs timm: pip install 'torchxnn\[benchmark\]'"):
        efficientnet_lite2_with_head(7)
