"""Settings among a module's attributes tell networks of the same weights apart, by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conftest import make_images, make_net
from torchxnn.data.record import cache_activations
from torchxnn.errors import ModelError
from torchxnn.models.examination import examine_model
from torchxnn.models.hidden_state import note_changing
from torchxnn.models.plain_settings import differing_setting, plain_settings
from torchxnn.models.weights import fingerprint
from torchxnn.training.config import TrainConfig
from torchxnn.xnn import XNN


class Tempered(nn.Module):
    """A network whose logits are divided by a number that it merely keeps."""

    def __init__(self, **settings):
        super().__init__()
        self.net = make_net()
        self.temperature, self.act = 0.5, functional.relu
        vars(self).update(settings)

    def forward(self, images):
        return self.net(images) / self.temperature


def with_layer(layer):
    return lambda: nn.Sequential(make_net(), layer())


DIFFER = {
    "a number": (Tempered, lambda: Tempered(temperature=2.0), "'temperature' is 2.0 and was 0.5"),
    "in a tuple": (
        lambda: Tempered(mean=(0.5, 0.5)),
        lambda: Tempered(mean=(0.5, 0.4)),
        "'mean.1' is 0.4 and was 0.5",
    ),
    "in a dictionary": (
        lambda: Tempered(kept={"scale": 1}),
        lambda: Tempered(kept={"scale": 2}),
        "\"kept.'scale'\" is 2 and was 1",
    ),
    "a word": (lambda: Tempered(pool="max"), lambda: Tempered(pool="mean"), "'pool' is 'mean'"),
    "a flag": (lambda: Tempered(flip=True), lambda: Tempered(flip=False), "'flip' is False"),
    "a function": (Tempered, lambda: Tempered(act=functional.gelu), "'act' is 'gelu'"),
    "another activation": (with_layer(nn.ReLU), with_layer(nn.GELU), "GELU() and was ReLU()"),
    "a slope": (
        with_layer(nn.LeakyReLU),
        with_layer(lambda: nn.LeakyReLU(0.3)),
        "LeakyReLU(negative_slope=0.3)",
    ),
}


@pytest.mark.parametrize(("make", "other", "said"), DIFFER.values(), ids=DIFFER)
def test_a_setting_tells_models_of_the_same_weights_apart(make, other, said):
    kept = plain_settings(make())
    assert differing_setting(kept, make()) is None
    assert fingerprint(make()) == fingerprint(other())
    assert said in differing_setting(kept, other())


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.1},
        {"global_step": 7},
        {"best_accuracy": 0.9},
        {"checkpoint_path": "best.pt"},
        {"source": "/home/somebody/weights"},
        {"where": "cuda:0"},
        {"hook_calls": 3},
        {"dropout_rate": 0.3},
        {"set_at_the_first_pass": (7, 7)},
        {"training": True},
    ],
    ids=str,
)
def test_what_only_training_needs_is_no_setting(settings):
    other = {key: "other" if isinstance(value, str) else 0 for key, value in settings.items()}
    if "where" in settings:
        other = {"where": "cpu"}
    if "source" in settings:
        other = {"source": "/mnt/weights"}
    if "set_at_the_first_pass" in settings:
        other = {}
    kept = plain_settings(Tempered(**settings))
    assert differing_setting(kept, Tempered(**other)) is None


def test_modules_that_compute_the_same_in_evaluation_mode_agree():
    kept = plain_settings(nn.Sequential(nn.Dropout(0.1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)))
    same = nn.Sequential(nn.Identity(), nn.SyncBatchNorm(3), nn.ReLU())
    assert differing_setting(kept, same) is None
    eps = nn.Sequential(nn.Identity(), nn.BatchNorm2d(3, eps=0.1), nn.ReLU())
    assert "eps=0.1" in differing_setting(kept, eps)


def test_what_a_pass_changes_is_no_setting():
    class Counts(Tempered):
        def forward(self, images):
            self.seen = getattr(self, "seen", 0) + len(images)
            return super().forward(images)

    model = Counts(seen=4).eval()
    found = examine_model(model, make_images(4)[0])
    assert "seen" in found.changing
    assert "seen" not in found.settings
    assert found.settings["temperature"] == "0.5"
    note_changing(model, ())


@pytest.mark.slow
def test_the_texts_are_the_same_in_another_process():
    here = Path(__file__).parents[1]
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:];"
        "from models.test_plain_settings import Tempered;"
        "from torchxnn.models.plain_settings import plain_settings;"
        "print(json.dumps(plain_settings(Tempered(words={'b', 'a'}, mean=(0.1, 0.2)))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(here)], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == plain_settings(Tempered(mean=(0.1, 0.2)))


def test_a_saved_xnn_and_a_cache_refuse_another_setting(tmp_path):
    images, labels = make_images(48)
    model = Tempered().eval()
    xnn = XNN(model, "net.classifier.1")
    loader = list(zip(images.split(16), labels.split(16), strict=True))
    xnn.fit(loader, target=1, config=TrainConfig(hidden=(8,), epochs=2, trials=1))
    xnn.save_pretrained(tmp_path / "xnn")
    XNN.from_pretrained(tmp_path / "xnn", Tempered().eval())
    with pytest.raises(ModelError, match=r"weights are the same.*'temperature' is 2.0 and was 0.5"):
        XNN.from_pretrained(tmp_path / "xnn", Tempered(temperature=2.0).eval())
    samples = torch.utils.data.TensorDataset(images, labels)
    cache = cache_activations(model, "net.classifier.1", samples, tmp_path / "cache")
    cache.check(Tempered().eval())
    with pytest.raises(ModelError, match="recorded from another model: the weights are the same"):
        cache.check(Tempered(temperature=2.0).eval())


def test_an_xnn_saved_before_opens_as_it_did(tmp_path):
    model = Tempered().eval()
    xnn = XNN(model, "net.classifier.1")
    loader = [make_images(48)]
    xnn.fit(loader, target=1, config=TrainConfig(hidden=(8,), epochs=2, trials=1))
    xnn.save_pretrained(tmp_path / "xnn")
    file = tmp_path / "xnn" / "xnn.json"
    about = json.loads(file.read_text())
    assert about["examination"].pop("settings")
    file.write_text(json.dumps(about))
    assert XNN.from_pretrained(tmp_path / "xnn", model).examination.settings == {}


class Usual(nn.Module):
    """A module of a library whose arguments have lists, arrays and tensors as usual values."""

    def __init__(self, sizes=[0, 0], sides=(2, 2), mean=np.zeros(3), std=torch.ones(3)):  # noqa: B006, B008
        super().__init__()
        self.sizes, self.sides, self.mean, self.std = sizes, sides, mean, std


Usual.__module__ = "timm.usual"


def test_usual_values_of_any_kind_are_no_settings():
    assert plain_settings(Usual()) == plain_settings(Usual([0, 0], [2, 2])) == {}
    found = plain_settings(Usual((1, 2), (2, 3), 0.5, (1.0, 1.0, 1.0)))
    assert set(found) == {"sizes", "sides", "mean", "std"}
