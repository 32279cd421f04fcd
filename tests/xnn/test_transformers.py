"""Vision transformers of three libraries, tiny and random: an XNN on any of their blocks."""

import pytest
import torch
from torch import nn

from torchxnn import XNN
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import LayerError
from torchxnn.models.attached import AttachedLayer
from torchxnn.models.layer_list import list_layers
from torchxnn.models.layers import run_with_output
from torchxnn.models.token_checks import check_token

pytestmark = [
    pytest.mark.filterwarnings("ignore")  # of the libraries, and of units that only a bias excites
]

SIZE, OUTPUTS = 16, 4
VIT = {"patch_size": 4, "num_classes": OUTPUTS}
SWIN = {"patch_size": 2, "embed_dim": 12, "num_heads": [2, 2], "depths": [2, 1]}
BASE = {"image_size": SIZE, "num_labels": OUTPUTS}
HUGGING = BASE | {
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def of_torchvision(name):
    models = pytest.importorskip("torchvision").models
    if name == "swin":
        settings = SWIN | {"patch_size": [2, 2], "window_size": [4, 4], "num_classes": OUTPUTS}
        return models.SwinTransformer(**settings)
    return models.VisionTransformer(
        SIZE, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, **VIT
    )


def of_timm(name):
    timm = pytest.importorskip("timm")
    settings = VIT | {"img_size": SIZE, "embed_dim": 16, "depth": 2, "num_heads": 2}
    if name.startswith("swin"):
        settings = SWIN | {"img_size": SIZE, "window_size": 4, "num_classes": OUTPUTS}
    return timm.create_model(name, **settings)


def of_transformers(name):
    library = pytest.importorskip("transformers")
    settings = HUGGING
    if name == "Swin":
        settings = SWIN | BASE | {"window_size": 4}
    if name == "Dinov2WithRegisters":
        settings = HUGGING | {"num_register_tokens": 4}
    config = getattr(library, f"{name}Config")(**settings)
    return getattr(library, f"{name}ForImageClassification")(config)


CASES = {
    # network: (maker, name, its blocks from the first to the last, tokens of the last one)
    "torchvision vit": (of_torchvision, "vit", "encoder.layers.encoder_layer_{}", 17),
    "torchvision swin": (of_torchvision, "swin", "features.{}.0", 16),
    "timm vit": (of_timm, "vit_tiny_patch16_224", "blocks.{}", 17),
    "timm deit": (of_timm, "deit_tiny_distilled_patch16_224", "blocks.{}", 18),
    "timm dino": (of_timm, "vit_small_patch14_reg4_dinov2", "blocks.{}", 21),
    "timm swin": (of_timm, "swin_tiny_patch4_window7_224", "layers.{}.blocks.0", 16),
    "transformers vit": (of_transformers, "ViT", "vit.layers.{}", 17),
    "transformers deit": (of_transformers, "DeiT", "deit.layers.{}", 18),
    "transformers dino": (of_transformers, "Dinov2", "dinov2.encoder.layer.{}", 17),
    "transformers dino with registers": (
        of_transformers,
        "Dinov2WithRegisters",
        "dinov2_with_registers.encoder.layer.{}",
        21,
    ),
    "transformers swin": (of_transformers, "Swin", "swin.encoder.layers.{}.blocks.0", 16),
}


QUICK = ("torchvision vit", "timm deit", "transformers dino with registers", "transformers swin")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in QUICK]


@pytest.fixture(scope="module", params=[*QUICK, *SLOW])
def case(request):
    """A network, two images, its first and its last block, and how many tokens that one gives."""
    maker, name, blocks, count = CASES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = maker(name).eval()
        images = torch.randn(2, 3, SIZE, SIZE)
    numbers = (1, 3) if request.param == "torchvision swin" else (0, 1)
    return network, images, [blocks.format(number) for number in numbers], count


def attached(network, images, layer, token):
    """An XNN with random weights on a token, after the checks of a recording."""
    xnn = XNN(network, layer, 3, token=token)
    check_token(network, xnn.layer, images)
    dims = xnn.attached.run(images)[0].shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        xnn.attach_embedding(SRAE(dims, 3, 1, (8,), nonnegative=False).eval(), [1], OUTPUTS)
    return xnn


def test_maps_from_any_block_reach_the_pixels_and_nothing_is_lost(case):
    network, images, blocks, count = case
    one = 5 if count == 16 else "cls"
    for layer, token in zip(blocks, (one, "mean"), strict=True):
        xnn = attached(network, images, layer, token)
        maps, certificate = xnn.attribute(images, return_certificate=True)
        assert maps.shape == (2, 3, SIZE, SIZE)
        assert certificate.conservation_error < 1e-5, (layer, token)
        z, logits = xnn.attached.run(images)
        back = run_with_output(network, xnn.layer, images, z)
        assert torch.allclose(back, logits, atol=1e-5)


def test_a_class_token_is_taken_only_where_there_is_one(case):
    network, images, blocks, count = case
    if count != 16:
        check_token(network, f"{blocks[0]}[cls]", images)
        return
    with pytest.raises(LayerError, match="has no class token"):
        check_token(network, f"{blocks[0]}[cls]", images)


def test_the_maps_of_the_logits_reach_the_pixels_too(case):
    network, images, _, _ = case
    _, certificate = ExcitationBackprop(network).attribute_many(
        images, [0, 3], return_certificate=True
    )
    assert certificate.conservation_error < 1e-5


def test_every_block_is_listed_with_its_tokens(case):
    network, images, blocks, count = case
    layers = {layer.name: layer for layer in list_layers(network, images)}
    assert all(layers[block].takes_token for block in blocks)
    shape = layers[blocks[-1]].shape
    assert (shape[0] if len(shape) == 2 else shape[0] * shape[1]) == count


class ZeroShot(nn.Module):
    """An image tower and the vectors of three texts, compared by their cosines."""

    def __init__(self, tower):
        super().__init__()
        self.tower, self.unit = tower, nn.Identity()
        self.register_buffer("texts", nn.functional.normalize(torch.randn(3, 12), dim=-1))

    def forward(self, images):
        vectors = self.tower(pixel_values=images).image_embeds
        return 100 * self.unit(nn.functional.normalize(vectors, dim=-1)) @ self.texts.T


@pytest.fixture(scope="module")
def zero_shot():
    library = pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = {name: value for name, value in HUGGING.items() if name != "num_labels"}
        config = library.CLIPVisionConfig(projection_dim=12, **settings)
        network = ZeroShot(library.CLIPVisionModelWithProjection(config)).eval()
        return network, torch.randn(2, 3, SIZE, SIZE)


def test_the_logits_of_texts_are_linear_in_the_unit_vector(zero_shot):
    network, images = zero_shot
    z, logits = AttachedLayer(network, "unit").run(images)
    assert torch.allclose(z.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(100 * z @ network.texts.T, logits, atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "token"),
    [
        ("unit", None),
        ("tower.vision_model.post_layernorm", None),
        ("tower.vision_model.encoder.layers.0", "cls"),
    ],
)
def test_maps_through_the_cosine_are_conserved(zero_shot, layer, token):
    network, images = zero_shot
    xnn = attached(network, images, layer, token)
    _, certificate = xnn.attribute(images, return_certificate=True)
    assert certificate.conservation_error < 1e-5
    _, certificate = ExcitationBackprop(network).attribute_many(
        images, [0, 2], return_certificate=True
    )
    assert certificate.conservation_error < 1e-5
