"""An atlas of labels that do not exclude each other; values are left out in one line."""

import shutil
import warnings
from dataclasses import replace

import pytest
import torch

from atlas_examples import CLASSES, LAYER, QUICK, make_parts, small_network
from page_examples import Page
from torchxnn import XNN
from torchxnn.apps.atlas import AtlasConfig, build_atlas
from torchxnn.apps.atlas.predictions import read_predictions
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.errors import DataError
from torchxnn.models.config import OutputsConfig
from torchxnn.models.meaning import Meaning
from torchxnn.training.many import fit_many

CONFIG = AtlasConfig(examples=1, top=2, spaced=1, against=1, similar=2, least_correlation=-1.0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    found = make_parts(tmp_path_factory.mktemp("labels"))
    with warnings.catch_warnings(action="ignore"):
        fit_many(
            found.cache, [0, 2], config=QUICK, n_features=3, out=found.images.parent / "labels",
            outputs=OutputsConfig("labels"),
        )  # fmt: skip
    return replace(found, runs=found.images.parent / "labels")


def test_labels_are_drawn_in_their_own_words(parts, tmp_path):
    made = build_atlas(
        small_network(), parts.runs, parts.dataset, tmp_path / "site", config=CONFIG,
        cache=parts.cache,
    )  # fmt: skip
    assert made.failures == ()
    assert [entry.output for entry in made.entries] == [0, 2]
    logits = parts.cache.logits()
    for entry in made.entries:
        own = parts.cache.labels == entry.output
        assert entry.images == int(own.sum())
        assert entry.recall == pytest.approx(float((logits[own, entry.output] > 0).float().mean()))
        assert not entry.sentence.startswith("This is")
        for name in ("index.html", "x-feature-1.html"):
            text = Page(made.folder / "classes" / entry.name / name).text
            assert "class" not in text.replace("classifier", "").lower()
        assert "Closest labels" in Page(made.folder / "classes" / entry.name / "index.html").text
    index = Page(made.folder / "index.html").text
    assert "2 labels" in index
    assert "class" not in index.lower()


def test_the_closest_labels_are_seen_on_the_same_images(parts):
    found = read_predictions(parts.cache, 1, Meaning("labels"))
    logits, labels = parts.cache.logits(), parts.cache.labels
    for each in found.closest(2, 3):
        assert each.taken_for == int((logits[labels == 2, each.output] > 0).sum())
        assert each.taken_from == int((logits[labels == each.output, 2] > 0).sum())
        margin = (logits[labels == 2, 2] - logits[labels == 2, each.output]).mean()
        assert each.margin == pytest.approx(float(margin), abs=1e-4)


def test_without_labels_what_the_network_sees_decides(parts, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for at, file in enumerate(sorted(parts.images.rglob("*.png"))):
        shutil.copy(file, flat / f"{at}.png")
    dataset = ImageFolder(flat, parts.dataset.preprocessing, labelled=False)
    made = build_atlas(small_network(), parts.runs, dataset, tmp_path / "site", config=CONFIG)
    logits = parts.cache.logits()
    for entry in made.entries:
        assert entry.images == int((logits[:, entry.output] > 0).sum())
        assert entry.recall is None


def test_values_are_left_out_with_the_reason(parts, tmp_path):
    xnn = XNN(small_network(), LAYER, 3, class_names=CLASSES, outputs_are="value")
    data = parts.cache.activations(LAYER)
    with warnings.catch_warnings(action="ignore"):
        xnn.fit_activations(replace(data, labels=torch.rand(len(data))), 1, config=QUICK)
    xnn.save_pretrained(tmp_path / "runs" / "age")
    with pytest.raises(DataError, match=r"its output is a value, .* `xnn report` makes a page"):
        build_atlas(small_network(), tmp_path / "runs", parts.dataset, tmp_path / "site")
    mixed = build_atlas(
        small_network(), [parts.runs, tmp_path / "runs"], parts.dataset, tmp_path / "both",
        config=CONFIG, cache=parts.cache,
    )  # fmt: skip
    assert [failure.name for failure in mixed.failures] == ["age"]
