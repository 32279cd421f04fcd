"""Contributions count from what a typical other image gets, whatever offset a fit has chosen."""

import copy
import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file

from conftest import make_images, make_net
from torchxnn import XNN
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.one_image import what_if
from torchxnn.data.record import record_activations
from torchxnn.embeddings import ConvSRAE, as_directions, fit_ica, fit_lasso, fit_pca, with_readout
from torchxnn.embeddings.apply import anchor, apply_embedding
from torchxnn.explanations import Explanation, contrast
from torchxnn.explanations.sentences import NOT_ANCHORED
from torchxnn.metrics.evaluation import measure_activations
from torchxnn.metrics.masking import combine_maps
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.saved_folder import MARKER, WEIGHTS
from torchxnn.training.initialise import weak_features
from xnn_examples import make_loader, quick_fit

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")

TARGETS = (1, 2)
NET = make_net()
IMAGES, LABELS = make_images(48)
DATA = record_activations(NET, "classifier.1", [(IMAGES, LABELS)])
POSITIVES = torch.stack([target == LABELS for target in TARGETS], 1)
PREPROCESSING = Preprocessing(size=12, resize="squash", mean=(0.0,) * 3, std=(1.0,) * 3)


def directions(n=4, positives=POSITIVES):
    """Random directions of Z, read by least squares, in float64."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n, DATA.z.shape[1], generator=generator)
    embedding = as_directions(weight, torch.zeros(n), DATA.z).double()
    features, logits = embedding.encode(DATA.z.double()), DATA.logits[:, list(TARGETS)]
    return with_readout(embedding, features, logits.double(), positives=positives)


def shifted(embedding, amounts):
    """Other x-features, each with a constant added, that reproduce the same logit and Z."""
    other = copy.deepcopy(embedding)
    amounts = torch.tensor(amounts, dtype=torch.float64)
    with torch.no_grad():
        other.encoder.bias += amounts
        other.decoder.bias -= other.decoder.weight @ amounts
        other.readout.bias -= other.readout.weight @ amounts
    anchor(other, DATA.z, POSITIVES)
    return other


def test_a_typical_other_image_by_hand():
    """E is 1, 2, 6, 9 for images of which the last is a positive of the one, the first of two."""
    embedding = as_directions(torch.eye(1), torch.zeros(1), torch.tensor([[1.0], [2], [6], [9]]))
    features = torch.tensor([[1.0], [2], [6], [9]])
    logits = features @ torch.tensor([[2.0, -1.0]]) + torch.tensor([5.0, 0.0])
    positives = torch.tensor([[False, True], [False, False], [False, False], [True, False]])
    embedding = with_readout(embedding, features, logits, positives=positives)
    assert bool(embedding.anchored)
    expected = torch.tensor([[3.0], [17 / 3]])  # (1 + 2 + 6) / 3 and (2 + 6 + 9) / 3
    assert torch.allclose(embedding.typical, expected)
    assert torch.allclose(embedding.intercept, torch.tensor([2 * 3 + 5.0, -17 / 3]), atol=1e-4)
    found = embedding.contributions(features)
    assert torch.allclose(found[3, :, 0], torch.tensor([2 * (9 - 3.0), -(9 - 17 / 3)]), atol=1e-4)
    assert torch.allclose(found.sum(2) + embedding.intercept, logits, atol=1e-4)
    paper = embedding.contributions(features, anchored=False)
    assert torch.allclose(paper[3, :, 0], torch.tensor([18.0, -9.0]), atol=1e-4)
    assert torch.allclose(paper.sum(2) + embedding.readout.bias, logits, atol=1e-4)


def test_other_images_contribute_nothing_on_average():
    embedding = directions()
    found = apply_embedding(embedding, DATA.z)
    for target in range(len(TARGETS)):
        others = found.contributions[~POSITIVES[:, target], target]
        assert torch.allclose(others.mean(0), torch.zeros(4).double(), atol=1e-9)
        mean = found.reproduced[~POSITIVES[:, target], target].mean()
        assert float(mean) == pytest.approx(float(embedding.intercept[target].detach()))


@pytest.mark.parametrize("pooling", ["none", "max", "average"])
def test_maps_are_counted_from_the_mean_of_what_the_readout_adds_up(pooling):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedding = ConvSRAE(6, (5, 3), 4, 2, channels=(8,), pooling=pooling).double()
        z, positives = torch.rand(70, 6, 5, 3).double(), torch.rand(70, 2) < 0.3
    paper = embedding.contributions(embedding.encode(z), anchored=False)
    assert torch.equal(paper, embedding.contributions(embedding.encode(z)))
    anchor(embedding, z, positives)
    found = apply_embedding(embedding, z).contributions
    for target in range(2):
        typical = paper[~positives[:, target], target].mean(0)
        assert torch.allclose(embedding.typical_contributions[target], typical, atol=1e-12)
        assert torch.allclose(found[:, target], paper[:, target] - typical, atol=1e-12)
    total = found.sum(2) + embedding.intercept
    assert torch.allclose(total, apply_embedding(embedding, z).reproduced, atol=1e-12)


def public_numbers(embedding):
    """Every number and text that people read of an embedding's contributions."""
    xnn = XNN(NET, "classifier.1", 4, preprocessing=PREPROCESSING)
    xnn.attach_embedding(embedding, TARGETS, 4)
    fit = measure_activations(embedding, DATA, TARGETS).faithfulness
    found = apply_embedding(embedding, DATA.z)
    explanation, maps = xnn.explain(IMAGES[1]), torch.ones(48, 4, 2, 3)
    maps *= torch.arange(4.0)[:, None, None]
    changes = what_if(xnn, IMAGES[1], config=WhatIfConfig(controls=1)).changes
    rather = contrast(explanation, explanation, 0, 1).sentence()
    texts = [fit.degenerate, fit.active, fit.dead, rather]
    for target in range(len(TARGETS)):
        row = explanation.card(TARGETS[target]).rows[0]
        texts += [explanation.sentence(target), explanation.order(target), row.equation]
    values = [
        torch.tensor(fit.share),
        found.contributions,
        embedding.intercept.detach(),
        combine_maps(maps, found.contributions[:, 0].float()),
        torch.tensor([one.set_reproduced for one in changes]),
        torch.tensor([float(one.decoded_real) for one in changes]),
    ]
    weak = weak_features(found.features, found.contributions, POSITIVES, least=0.2)
    return [*texts, [one.feature for one in changes], weak], values


EXPECTED = public_numbers(directions())


@settings(max_examples=20)
@given(st.lists(st.floats(-100, 100).filter(bool), min_size=4, max_size=4))
def test_no_public_number_hangs_on_where_an_x_feature_starts(amounts):
    texts, values = public_numbers(shifted(directions(), amounts))
    assert texts == EXPECTED[0]
    for found, expected in zip(values, EXPECTED[1], strict=True):
        assert torch.allclose(found.double(), expected.double(), atol=1e-4)


def test_the_paper_s_contributions_do_hang_on_it():
    one, other = directions(), shifted(directions(), [60.0, 0, 0, 0])
    features = [each.encode(DATA.z.double()) for each in (one, other)]
    assert torch.allclose(one.reproduce(features[0]), other.reproduce(features[1]))
    paper = [one.contributions(features[0], False), other.contributions(features[1], False)]
    assert float((paper[0] - paper[1]).detach().abs().max()) > 1


def test_every_fit_with_a_readout_is_anchored_where_it_knows_the_positives():
    z, logits, own = DATA.z, DATA.logits[:, 1], LABELS == 1
    for embedding in (fit_ica(z, logits, own, 3), fit_lasso(z, logits, 3, positives=own)):
        assert bool(embedding.anchored)
        others = apply_embedding(embedding, z[~own]).contributions
        assert torch.allclose(others.mean(0), torch.zeros(1, 3), atol=1e-4)
    pca = fit_pca(z, 3)
    assert not bool(with_readout(pca, pca.encode(z), DATA.logits).anchored)
    assert not bool(fit_lasso(z, logits, 3).anchored)


def test_without_other_images_nothing_is_known_of_them():
    positives = POSITIVES.clone()
    positives[:, 1] = True
    embedding = directions(positives=positives)
    assert not bool(embedding.anchored)
    assert torch.equal(embedding.typical, torch.zeros_like(embedding.typical))


def test_a_fit_of_several_targets_counts_each_from_its_own_others():
    xnn = XNN(NET, "classifier.1", 3)
    quick_fit(xnn, make_loader(), list(TARGETS))
    images, labels = make_images(96)
    assert bool(xnn.embedding.anchored)
    contributions, paper = xnn.contributions(images), xnn.contributions(images, anchored=False)
    typical = xnn.embedding.typical_contributions
    assert torch.allclose(contributions, paper - typical, atol=1e-5)
    assert not torch.allclose(*xnn.embedding.typical)
    total = contributions.sum(2) + xnn.intercept
    assert torch.allclose(total, xnn.predict(images), atol=1e-5)
    train = xnn.embedding.contributions(xnn(images))  # a fifth of them was held out
    for target, of in enumerate(TARGETS):
        assert float(train[labels != of, target].detach().mean(0).abs().max()) < 0.5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An XNN, and the folder that it is saved in."""
    xnn = XNN(NET, "classifier.1", 3)
    quick_fit(xnn, make_loader(), 1)
    folder = tmp_path_factory.mktemp("xnn") / "saved"
    xnn.save_pretrained(folder)
    return xnn, folder


def test_a_saved_xnn_keeps_what_a_typical_other_image_gets(saved):
    xnn, folder = saved
    again = XNN.from_pretrained(folder, NET)
    assert torch.equal(again.embedding.typical, xnn.embedding.typical)
    assert bool(again.embedding.anchored)
    assert torch.equal(again.contributions(IMAGES), xnn.contributions(IMAGES))


def test_an_xnn_of_an_earlier_version_says_that_it_is_not_anchored(saved, tmp_path):
    xnn, folder = saved
    state = {name: value.clone() for name, value in load_file(folder / WEIGHTS).items()}  # unmapped
    del state["typical"], state["anchored"]
    save_file(state, folder / WEIGHTS)
    about = json.loads((folder / MARKER).read_text())
    del about["weights_sha256"]  # as in the first files
    (folder / MARKER).write_text(json.dumps(about))
    old = XNN.from_pretrained(folder, NET)
    assert not bool(old.embedding.anchored)
    assert torch.equal(old.contributions(IMAGES), old.contributions(IMAGES, anchored=False))
    old.save_pretrained(tmp_path / "again")  # with the checksum that its names know it by
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    explanation = old.explain(IMAGES[1])
    assert NOT_ANCHORED in explanation.card().warnings
    assert "(intercept)" in explanation.card().rows[0].equation
    assert "typical" not in explanation.account().sentence()
    assert NOT_ANCHORED in old._repr_html_()
    assert NOT_ANCHORED not in xnn._repr_html_()


def test_an_explanation_of_an_earlier_version_is_read_as_what_it_was(saved, tmp_path):
    xnn, _ = saved
    explanation = xnn.explain(IMAGES[1])
    explanation.save(tmp_path / "one")
    assert Explanation.load(tmp_path / "one").anchored
    record = json.loads((tmp_path / "one" / "explanation.json").read_text())
    del record["anchored"], record["found_again"]
    (tmp_path / "one" / "explanation.json").write_text(json.dumps(record))
    old = Explanation.load(tmp_path / "one")
    assert not old.anchored
    assert old.found_again == ()
    assert NOT_ANCHORED in old.card().warnings


def test_what_is_missing_here_is_said_as_an_absence():
    """An x-feature that is 0 contributes by what a typical other image has of it."""
    xnn = XNN(NET, "classifier.1", 3)
    quick_fit(xnn, make_loader(), 1)
    with torch.no_grad():
        layer = xnn.embedding.encoder[-1]
        layer.weight[2], layer.bias[2] = 0.0, -1.0
        xnn.embedding.typical[0, 2] = 2.0
        xnn.embedding.readout.weight[0, 2] = 50.0
    explanation = xnn.explain(IMAGES[1])
    assert float(explanation.contributions[0, 2]) == pytest.approx(-100)
    assert "the absence of x-feature 3" in explanation.account().sentence()
