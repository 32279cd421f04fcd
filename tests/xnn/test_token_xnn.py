"""An XNN on a token of a transformer: fit, explain, cache, save, and the command line."""

import json
import warnings

import pytest
import torch
from torch import nn

from cli_examples import FAST, fails, text_of, write_letters
from token_examples import Block, TokenNet, some_images, token_net
from torchxnn import XNN, TrainConfig
from torchxnn.apps.what_if import what_if
from torchxnn.attribution.effective_weights import EFFECTIVE, EffectiveExcitationBackprop
from torchxnn.attribution.methods import METHODS
from torchxnn.cli.main import main
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.record import cache_activations
from torchxnn.errors import DegenerateFitWarning, LayerError, XNNError
from torchxnn.models.layers import run_to_layer, run_with_output

QUICK = TrainConfig(epochs=5, pretrain_epochs=1, trials=1, hidden=(8,))
pytestmark = [
    pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning"),
    pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning"),
    pytest.mark.filterwarnings("ignore:.*empty maps:torchxnn.errors.XNNWarning"),
]


@pytest.fixture(scope="module")
def images():
    return some_images(64)


def fit(net, images, token="cls", layer="blocks.0"):
    xnn = XNN(net, layer, 3, token=token)
    labels = torch.arange(len(images)) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        xnn.fit(list(zip(images.split(16), labels.split(16), strict=True)), 1, config=QUICK)
    return xnn


@pytest.fixture(scope="module")
def xnn(images):
    return fit(token_net(), images)


def test_the_x_features_are_those_of_the_token(xnn, images):
    assert xnn.layer == "blocks.0[cls]"
    z = run_to_layer(xnn.model, "blocks.0", images[:2])[:, 0]
    assert torch.allclose(xnn.run(images[:2]).z, z, atol=1e-5)
    assert torch.allclose(xnn(images[:2]), xnn.fitted().encode(z), atol=1e-5)


@pytest.mark.parametrize("token", ["cls", "mean", 4])
@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.filterwarnings("ignore:layer .* does not reach")  # one patch after the last block
def test_maps_reach_the_pixels_and_are_conserved(images, token, as_tuple):
    xnn = fit(token_net(as_tuple=as_tuple), images[:48], token, "blocks.1")
    explanation = xnn.explain(images[0])
    assert explanation.heatmaps.shape == (3, 12, 12)
    assert explanation.certificate.conservation_error < 1e-5
    assert explanation.certificate.fallback_share < 0.2


REFUSED = {"deep_lift": "no rule", "guided_backprop": "ReLU alone", "grad_cam": "attention follows"}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_draws_maps_of_a_token_or_says_why_not(xnn, images, method):
    if method in REFUSED:
        with pytest.raises(XNNError, match=REFUSED[method]):
            xnn.attribute(images[:2], method)
        return
    maps = xnn.attribute(images[:2], method)
    assert maps.shape == (2, 3, 12, 12)
    assert bool(torch.isfinite(maps).all())


def test_effective_weights_of_a_logit_are_refused_where_attention_lies_above(xnn, images):
    method = EffectiveExcitationBackprop(xnn.model, layer=xnn.layer)
    with pytest.raises(XNNError, match="read the image past layer"):
        method.attribute(images[:1], 0)
    assert xnn.explain(images[0]).certificate.method == EFFECTIVE  # of x-features


def test_the_token_is_saved_and_loaded(xnn, images, tmp_path):
    xnn.save_pretrained(tmp_path / "x")
    assert json.loads((tmp_path / "x" / "xnn.json").read_text())["layer"] == "blocks.0[cls]"
    loaded = XNN.from_pretrained(tmp_path / "x", xnn.model)
    assert loaded.attached.token == "cls"
    assert torch.equal(loaded(images[:3]), xnn(images[:3]))


def test_what_if_puts_the_decoded_vector_back_into_the_token(xnn, images):
    xnn.preprocessing = TokenNet.preprocessing
    found = what_if(xnn, images[0], [0])
    z = xnn.fitted().decode(xnn(images[:1]))
    decoded = run_with_output(xnn.model, "blocks.0[cls]", images[:1], z)[0, 1]
    assert found.decoded == pytest.approx(float(decoded), abs=1e-4)


class OfWords(nn.Module):
    """Token ids (B, T) to logits, by attention."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 8)
        self.block = Block(as_tuple=True, tokens_first=False)
        self.head = nn.Linear(8, 2)

    def forward(self, ids):
        return self.head(self.block(self.words(ids))[0][:, 0])


def test_texts_have_tokens_too():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ids, net = torch.randint(0, 9, (48, 5)), OfWords().eval()
    xnn = XNN(net, "block", 3, token=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        xnn.fit([(ids, torch.arange(48) % 2)], 1, config=QUICK)
    explanation = xnn.explain_text(ids[0], list("abcde"))
    assert explanation.attributions.shape == (3, 5)
    assert explanation.certificate.completeness_error < 0.1
    with pytest.raises(LayerError, match="has no class token"):
        fit(net, ids, layer="block")


def test_two_tokens_of_one_layer_are_two_layers_of_a_cache(images, tmp_path):
    net = token_net()
    layers = ["blocks.0[cls]", "blocks.0[mean]"]
    cache = cache_activations(net, layers, list(images[:8]), tmp_path / "cache")
    tokens = run_to_layer(net, "blocks.0", images[:8])
    assert torch.allclose(cache.read(layers[0]), tokens[:, 0], atol=1e-5)
    assert torch.allclose(cache.read(layers[1]), tokens.mean(1), atol=1e-5)
    with pytest.raises(LayerError, match=r"no layer 'blocks.0', only 'blocks.0\[cls\]', 'bl"):
        ActivationCache.open(tmp_path / "cache").check(net, "blocks.0")


def test_tokens_that_come_first_are_refused_before_a_fit(images):
    with pytest.raises(LayerError, match="not a row per image"):
        fit(token_net(tokens_first=True), images, 1)


def test_commands_take_a_token(tmp_path, capsys):
    folder = write_letters(tmp_path / "images")
    run, model = str(tmp_path / "run"), "token_examples:token_net"
    assert main(["layers", model]) == 0
    assert "blocks.0 Block 10 x 8 1 --token" in " ".join(
        text_of(capsys)[0].replace("│", "").split()
    )
    fitting = ["fit", model, folder, "--layer", "blocks.1", "--target", "1", "--out", run, *FAST]
    line = fails(capsys, *fitting)
    assert "gives 10 tokens of 8 dimensions; choose --token cls, mean or an index" in line
    assert main([*map(str, fitting), "--token", "cls"]) == 0
    assert XNN.from_pretrained(run, token_net()).layer == "blocks.1[cls]"
    assert main(["evaluate", run, str(folder)]) == 0
    cached = ["cache", model, str(folder), "--layer", "blocks.1", "--out", str(tmp_path / "c")]
    assert main([*cached, "--token", "mean"]) == 0
    assert ActivationCache.open(tmp_path / "c").layers == ("blocks.1[mean]",)
    assert "token must be cls" in fails(capsys, *cached, "--token", "second")
