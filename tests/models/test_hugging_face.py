"""Networks of transformers from a folder: weights, names, image processors; and no network."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cli_examples import FAST, text_of, write_letters
from torchxnn import XNN
from torchxnn.cli.main import main
from torchxnn.errors import ModelError, XNNWarning
from torchxnn.models.config import OutputsConfig
from torchxnn.models.declared_outputs import declared_outputs
from torchxnn.models.from_hugging_face import lasting_name
from torchxnn.models.image_processor import preprocessing_of
from torchxnn.models.load import load_model
from torchxnn.models.preprocessing import Preprocessing
from xnn_examples import QUICK

transformers = pytest.importorskip("transformers")
transformers.logging.disable_progress_bar()

NAMES = {0: "crow", 1: "finch", 2: "owl"}
SMALL = {"image_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
SQUARE = {"height": 32, "width": 32}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)


def save(folder, kind="ViT", processor=None, **settings):
    """A tiny network with random weights as `save_pretrained` leaves it."""
    named = settings if "num_labels" in settings else {"id2label": NAMES, **settings}
    config = getattr(transformers, f"{kind}Config")(**named)
    torch.manual_seed(3)
    network = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    network.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return network


def block_of(network):
    """Name of the first block, which versions of transformers call otherwise."""
    return next(n for n, each in network.named_modules() if type(each).__name__ == "ViTLayer")


@pytest.fixture
def vit(tmp_path):
    processor = transformers.ViTImageProcessor(size=SQUARE)
    return save(tmp_path / "vit", processor=processor, patch_size=8, **SMALL), tmp_path / "vit"


NETWORKS = {
    "ViT": ({"patch_size": 8, **SMALL}, transformers.ViTImageProcessor(size=SQUARE)),
    "ConvNext": (STAGES, transformers.ConvNextImageProcessor(size={"shortest_edge": 32})),
    "Swin": (
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [2]},
        transformers.BeitImageProcessor(size=SQUARE, do_center_crop=False),
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_folder_gives_weights_names_and_preprocessing(kind, tmp_path):
    settings, processor = NETWORKS[kind]
    network = save(tmp_path, kind, processor, **settings)
    loaded = load_model(f"hf:{tmp_path}")
    assert loaded.classes == ("crow", "finch", "owl")
    assert loaded.description == f"hf:{tmp_path}, its own weights"
    assert loaded.preprocessing.size == 32
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.model(images).logits, network(images).logits)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_weights_beside_a_config_alone(vit, tmp_path):
    network, folder = vit
    (folder / "model.safetensors").rename(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"not on this machine; give a checkpoint .*fetch them"):
        load_model(f"hf:{folder}")
    loaded = load_model(f"hf:{folder}", tmp_path / "w.safetensors")
    assert torch.equal(loaded.model.classifier.weight, network.classifier.weight)
    assert loaded.classes == ("crow", "finch", "owl")
    with pytest.warns(XNNWarning, match="random weights"):
        first = load_model(f"hf:{folder}", allow_random=True)
    with pytest.warns(XNNWarning, match="random weights"):
        second = load_model(f"hf:{folder}", allow_random=True)
    assert torch.equal(first.model.classifier.weight, second.model.classifier.weight)


def test_weights_with_another_head_bring_no_names(vit, tmp_path):
    network, folder = vit
    state = network.state_dict()
    head = {"classifier.weight": torch.zeros(5, 16), "classifier.bias": torch.zeros(5)}
    save_file({**state, **head}, tmp_path / "five.safetensors")
    loaded = load_model(f"hf:{folder}", tmp_path / "five.safetensors")
    assert loaded.model(torch.rand(1, 3, 32, 32)).logits.shape == (1, 5)
    assert loaded.classes is None


def test_names_that_nobody_gave_are_none(tmp_path):
    processor = transformers.ViTImageProcessor(size=SQUARE)
    save(tmp_path / "a", processor=processor, num_labels=4, patch_size=8, **SMALL)
    save(tmp_path / "b", processor=processor, num_labels=1, patch_size=8, **SMALL)
    assert load_model(f"hf:{tmp_path / 'a'}").classes is None
    assert load_model(f"hf:{tmp_path / 'b'}").classes is None


def test_a_head_that_was_never_trained_is_refused(vit):
    _, folder = vit
    state = load_file(folder / "model.safetensors")
    state = {name: value for name, value in state.items() if "classifier" not in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = r"lack 2 of the classifier's, .* random: classifier\.bias, classifier\.weight"
    with pytest.raises(ModelError, match=message):
        load_model(f"hf:{folder}")


def test_what_cannot_be_had_is_named(vit, tmp_path):
    _, folder = vit
    with pytest.raises(ModelError, match=r"hf:nobody/net is no folder, and no repository in the"):
        load_model("hf:nobody/net")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty holds no config\.json; save_pretrained writes"):
        load_model(f"hf:{tmp_path / 'empty'}")
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"empty holds no usable config\.json"):
        load_model(f"hf:{tmp_path / 'empty'}")
    transformers.BertConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path / "text")
    with pytest.raises(ModelError, match=r"text is a Bert, of which .* no image classifier"):
        load_model(f"hf:{tmp_path / 'text'}")
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ModelError, match=r"the weights of hf:.* cannot be loaded"):
        load_model(f"hf:{folder}")


def test_without_an_image_processor_the_guess_is_said(vit):
    _, folder = vit
    (folder / "preprocessor_config.json").unlink()
    with pytest.warns(XNNWarning, match="without a usable image processor.*taking 32 x 32"):
        assert load_model(f"hf:{folder}").preprocessing == Preprocessing(size=32)
    own = Preprocessing(size=32, resize="squash")
    assert load_model(f"hf:{folder}", preprocessing=own).preprocessing == own


def test_a_saved_xnn_finds_the_folder_from_anywhere(vit, monkeypatch):
    _, folder = vit
    monkeypatch.chdir(folder.parent)
    assert lasting_name("hf:vit") == f"hf:{folder.resolve()}"
    assert lasting_name("hf:nobody/net") == "hf:nobody/net"
    assert lasting_name("timm:vit") == "timm:vit"


PROCESSORS = {
    "ViT": {"size": SQUARE},
    "Beit": {"size": {"height": 40, "width": 40}, "do_center_crop": False},
    "ConvNext": {"size": {"shortest_edge": 32}, "crop_pct": 0.8},
    "ConvNext at 384": {"size": {"shortest_edge": 384}},
    "CLIP": {"size": {"shortest_edge": 40}, "crop_size": SQUARE},
    "PoolFormer": {"size": {"shortest_edge": 32}, "crop_size": SQUARE, "crop_pct": 0.9},
    "DeiT": {"size": {"height": 40, "width": 40}, "crop_size": SQUARE, "resample": 1},
    "ViT of oblong images": {"size": {"height": 32, "width": 48}},
    "EfficientNet": {"size": SQUARE},
    "Levit": {"size": {"shortest_edge": 28}, "crop_size": SQUARE},
    "ViT not normalised": {"size": SQUARE, "do_normalize": False},
    "ViT of 255": {"size": SQUARE, "do_rescale": False, "image_std": [9, 80, 99], "resample": 3},
}


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("size", [(91, 64), (64, 64), (48, 120)])
def test_our_tensor_is_the_processors(kind, size):
    processor = getattr(transformers, f"{kind.split()[0]}ImageProcessor")(**PROCESSORS[kind])
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((3 * size[0], 3 * size[1]), Image.Resampling.BICUBIC)
    theirs = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    ours = preprocessing_of(processor, "net")(picture)
    assert float((theirs - ours).abs().mean() / theirs.std()) < 1e-2


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("ViT", {"do_resize": False}, "do_resize is off"),
        ("MobileViT", {"do_flip_channel_order": True}, "do_flip_channel_order is set"),
        ("CLIP", {"do_center_crop": False}, "it crops nothing"),
        ("CLIP", {"crop_size": {"shortest_edge": 32}}, "its size is"),
        ("ViT", {"resample": 4}, "filter 4"),
        ("EfficientNet", {"rescale_offset": True}, "its tensors differ from what it says"),
    ],
)
def test_processors_that_cannot_be_followed_are_named(kind, settings, why):
    processor = getattr(transformers, f"{kind}ImageProcessor")(**settings)
    with pytest.raises(ModelError, match=rf"of net \({kind}ImageProcessor\) .*{why}.*; give"):
        preprocessing_of(processor, "net")


@pytest.mark.slow
def test_the_commands_take_a_folder(vit, tmp_path, capsys, monkeypatch):
    _, folder = vit
    data = write_letters(tmp_path / "letters")
    for old, new in zip("abc", NAMES.values(), strict=True):
        (data / old).rename(data / new)
    shutil.rmtree(data / "d")
    monkeypatch.chdir(tmp_path)
    assert main(["layers", "hf:vit"]) == 0
    assert "classifier" in text_of(capsys)[0]
    layer = ["--layer", "vit.layernorm", "--token", "cls"]
    assert main(["fit", "hf:vit", "letters", *layer, "--target", "owl", "--out", "run", *FAST]) == 0
    monkeypatch.chdir(folder)
    picture = str(next((data / "owl").iterdir()))
    assert main(["explain", str(tmp_path / "run"), picture, "--out", str(tmp_path / "e")]) == 0
    about = json.loads((tmp_path / "run" / "xnn.json").read_text())
    assert about["class_names"] == list(NAMES.values())
    assert about["source"]["model"] == f"hf:{folder.resolve()}"


@pytest.mark.parametrize(
    ("problem", "outputs", "kind"),
    [("multi_label_classification", 3, "labels"), ("regression", 1, "value")],
)
def test_the_problem_type_says_what_outputs_mean_unless_the_user_does(
    problem, outputs, kind, tmp_path
):
    processor = transformers.ViTImageProcessor(size=SQUARE)
    about = {"id2label": NAMES} if outputs > 1 else {"num_labels": 1}
    network = save(
        tmp_path / "vit", processor=processor, patch_size=8, problem_type=problem, **SMALL, **about
    )
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target = int(network(images).logits.mean(0).argmax())
    layer = block_of(network)
    xnn = XNN(network, layer, token="cls")
    with pytest.warns(XNNWarning, match=f"is '{problem}', so .* outputs_are='{kind}'"):
        xnn.fit([images], target, config=QUICK)
    assert xnn.meaning.outputs_are == kind
    assert declared_outputs(OutputsConfig("classes"), network) == OutputsConfig("classes")
    write_letters(tmp_path / "pictures")
    command = ["fit", f"hf:{tmp_path / 'vit'}", str(tmp_path / "pictures"), *FAST]
    place = ["--layer", layer, "--token", "cls", "--out", str(tmp_path / "x")]
    assert main([*command, *place, "--target", str(target)]) == 0
    meaning = json.loads((tmp_path / "x" / "xnn.json").read_text())["meaning"]
    assert meaning["outputs_are"] == kind
