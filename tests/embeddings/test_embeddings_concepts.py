import json
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from conftest import make_images, make_net
from torchxnn.attribution import ExcitationBackprop
from torchxnn.embeddings import (
    EMBEDDINGS,
    ConceptEmbedding,
    TopKConfig,
    as_directions,
    fit_dimensions,
    fit_ica,
    fit_lasso,
    fit_nmf,
    fit_pca,
    fit_topk_sae,
    with_readout,
)
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.concepts import import_sklearn
from torchxnn.embeddings.dimensions import select_dimensions
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.embeddings.linear import check_weights, least_squares
from torchxnn.errors import DataError, NonFiniteError, XNNError


def make_z(count=120, dims=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.relu(torch.randn(count, dims, generator=generator) + 0.3)
    z[:, dims - 1] = 0  # a dead dimension
    labels = torch.arange(count) % 3
    logits = torch.stack([2 * z[:, 0] - z[:, 1], z[:, 2] + z[:, 3]], 1) + 0.5
    return z, logits, labels


def fit_all(n_concepts=3):
    z, logits, labels = make_z()
    quick = TopKConfig(epochs=5, top_k=2)
    return {
        "pca": fit_pca(z, n_concepts),
        "nmf": fit_nmf(z, n_concepts),
        "topk_sae": fit_topk_sae(z, n_concepts, quick),
        "dimensions": fit_dimensions(z, logits[:, :1], labels == 0, n_concepts),
        "lasso": fit_lasso(z, logits[:, 0], n_concepts),
        "directions": as_directions(torch.eye(n_concepts, z.shape[1]), torch.ones(n_concepts), z),
        "ica": fit_ica(z, logits[:, 0], labels == 0, n_concepts),
    }


FITTED = fit_all()


@pytest.mark.parametrize("name", FITTED)
def test_every_concept_embedding_keeps_the_contract(name):
    z, logits, _ = make_z()
    fitted = FITTED[name]
    before = {key: value.clone() for key, value in fitted.state_dict().items()}
    embedding = with_readout(fitted, fitted.encode(z), logits)
    after = fitted.state_dict()
    assert all(torch.equal(after[k], before[k]) or bool(before[k].isnan().all()) for k in before)
    features = embedding(z)
    n = embedding.n_features
    assert features.shape == (120, n)
    assert embedding.decode(features).shape == z.shape
    contributions = embedding.contributions(features)
    assert contributions.shape == (120, 2, n)
    reproduced = embedding.reproduce(features)
    assert torch.allclose(contributions.sum(2) + embedding.readout.bias, reproduced, atol=1e-5)
    assert torch.equal(apply_embedding(embedding, z).reproduced, reproduced)
    assert embedding.units()(z).shape == (120, n)
    assert all(bool(torch.isfinite(value).all()) for value in embedding.state_dict().values())


@pytest.mark.parametrize("name", FITTED)
def test_settings_and_state_rebuild_an_equal_embedding(name):
    z, logits, _ = make_z()
    embedding = with_readout(FITTED[name], FITTED[name].encode(z), logits)
    plain = json.loads(json.dumps(embedding.settings()))
    rebuilt = build_embedding(embedding.kind, plain, embedding.state_dict())
    assert type(rebuilt) is type(embedding)
    assert torch.equal(rebuilt.encode(z), embedding.encode(z))
    assert torch.equal(rebuilt.decode(rebuilt.encode(z)), embedding.decode(embedding.encode(z)))
    assert torch.equal(rebuilt.units()(z), embedding.units()(z))


@pytest.mark.parametrize(
    "name", [name for name, kind in EMBEDDINGS.items() if issubclass(kind, ConceptEmbedding)]
)
def test_nothing_is_random_before_a_fit_and_no_readout_is_silently_wrong(name):
    state = torch.random.get_rng_state()
    embedding = EMBEDDINGS[name](dims=6, n_features=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bool(embedding.reproduce(torch.ones(1, 2)).isnan().all())
    with pytest.raises(XNNError, match="positive"):
        EMBEDDINGS[name](dims=6, n_features=0)


@pytest.mark.parametrize("name", ["pca", "nmf", "topk_sae"])
def test_unsupervised_fits_leave_the_readout_open_and_repeat_for_a_seed(name):
    state = torch.random.get_rng_state()
    again = fit_all()[name]
    assert torch.equal(torch.random.get_rng_state(), state)
    for key, value in FITTED[name].state_dict().items():
        assert bool(value.isnan().all()) if "readout" in key else True
        assert torch.equal(value.nan_to_num(7.0), again.state_dict()[key].nan_to_num(7.0))


@pytest.mark.parametrize("fit", [fit_pca, fit_nmf, fit_topk_sae])
def test_fits_refuse_what_has_no_concepts(fit):
    z, _, _ = make_z()
    with pytest.raises(DataError, match="n_concepts is 11"):
        fit(z, 11)
    with pytest.raises(DataError, match="vectors"):
        fit(z.reshape(12, 10, 5, 2).flatten(2), 2)
    bad = z.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        fit(bad, 2)


# --- readout


def test_the_readout_is_the_weighted_least_squares_solution():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(50, 3, generator=generator) * torch.tensor([1.0, 1e-4, 100.0])
    logits = torch.randn(50, 2, generator=generator)
    weights = torch.rand(50, generator=generator)
    weight, bias = least_squares(features, logits, weights)
    root = weights.double().sqrt().numpy()[:, None]
    design = np.concatenate([features.double().numpy(), np.ones((50, 1))], 1)
    expected = np.linalg.lstsq(design * root, logits.double().numpy() * root, rcond=None)[0]
    assert np.allclose(weight.numpy(), expected[:3].T, rtol=1e-6)
    assert np.allclose(bias.numpy(), expected[3], rtol=1e-6)


def test_a_weight_of_two_is_the_sample_twice():
    z, logits, _ = make_z(40)
    weights = torch.ones(40)
    weights[:10] = 2
    weighted = least_squares(z[:, :3], logits, weights)
    twice = torch.cat([torch.arange(40), torch.arange(10)])
    repeated = least_squares(z[twice, :3], logits[twice], torch.ones(50))
    assert torch.allclose(weighted[0], repeated[0], rtol=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-50, 50))
def test_the_readout_follows_units_and_offsets_of_the_features(seed, scale, offset):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    logits = torch.randn(30, 1, generator=generator, dtype=torch.float64)
    ones = torch.ones(30)
    weight, bias = least_squares(features, logits, ones)
    moved, moved_bias = least_squares(features * scale + offset, logits, ones)
    assert torch.allclose(
        features @ weight.mT + bias, (features * scale + offset) @ moved.mT + moved_bias, atol=1e-6
    )


def test_dead_constant_and_repeated_concepts_do_no_harm():
    z, logits, _ = make_z()
    dead, constant = torch.zeros(120), torch.full((120,), 1e3)
    features = torch.stack([z[:, 0], dead, constant, z[:, 0], z[:, 1]], 1)
    weight, _ = least_squares(features, logits, torch.ones(120))
    assert bool((weight[:, 1:3] == 0).all())
    assert torch.allclose(weight[0], torch.tensor([1, 0, 0, 1, -1.0]).double(), atol=1e-4)
    flat, flat_bias = least_squares(features[:, 1:3], logits, torch.ones(120))
    assert bool((flat == 0).all())
    assert torch.allclose(flat_bias, logits.double().mean(0))


def test_readouts_refuse_what_does_not_match():
    z, logits, _ = make_z()
    concepts = FITTED["pca"]
    with pytest.raises(DataError, match="10 features"):
        with_readout(concepts, z, logits)
    with pytest.raises(DataError, match="120 samples"):
        least_squares(z, logits[:5], torch.ones(120))
    with pytest.raises(NonFiniteError, match="outputs"):
        with_readout(concepts, concepts.encode(z), logits * torch.inf)
    for weights in (torch.ones(3), -torch.ones(120), torch.zeros(120), torch.ones(120) * torch.nan):
        with pytest.raises(DataError, match="weights"):
            check_weights(weights, z)


def test_the_error_without_scikit_learn_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(XNNError, match="pip install scikit-learn"):
        import_sklearn("decomposition")


# --- single dimensions


def test_the_most_active_dimensions_of_the_positives_come_first():
    z = torch.tensor([[1.0, 4.0, 2.0, 4.0], [9.0, 0.0, 0.0, 0.0], [3.0, 4.0, 2.0, 4.0]])
    positives = torch.tensor([True, False, True])
    logits = torch.tensor([[0.0], [1.0], [2.0]])
    embedding = fit_dimensions(z, logits, positives, 3)
    assert embedding.index.tolist() == [1, 3, 0]
    assert torch.equal(embedding.encode(z), z[:, [1, 3, 0]])
    assert torch.allclose(embedding.reproduce(embedding.encode(z)), logits, atol=1e-3)


def test_all_dimensions_reconstruct_z_and_themselves_exactly():
    z, _, _ = make_z()
    embedding = select_dimensions(z, torch.tensor([5, 2, 9]))
    decoded = embedding.decode(embedding.encode(z))
    assert torch.allclose(decoded[:, [5, 2, 9]], z[:, [5, 2, 9]], atol=1e-5)
    everything = select_dimensions(z, torch.arange(10))
    assert torch.allclose(everything.decode(everything.encode(z)), z, atol=1e-5)


def test_dimensions_refuse_what_is_not_there():
    z, logits, labels = make_z()
    with pytest.raises(DataError, match="no positives"):
        fit_dimensions(z, logits, labels == 7, 3)
    with pytest.raises(DataError, match="10 dimensions"):
        fit_dimensions(z, logits, labels == 0, 64)
    for index in ([], [1, 1], [-1], [10]):
        with pytest.raises(DataError, match="0 to 9"):
            select_dimensions(z, torch.tensor(index, dtype=torch.long))


# --- heatmaps


class ToUnits(nn.Module):
    """A small network down to the ReLU of its first fully connected layer, and units on it."""

    def __init__(self, net, units):
        super().__init__()
        self.net, self.units = net, units

    def forward(self, images):
        pooled = torch.flatten(self.net.avgpool(self.net.features(images)), 1)
        return self.units(self.net.classifier[1](self.net.classifier[0](pooled)))


def fit_on_net(name):
    net, (images, labels) = make_net(), make_images(48)
    with torch.no_grad():
        z, logits = ToUnits(net, nn.Identity())(images), net(images)
    fits = {
        "pca": lambda: fit_pca(z, 3),
        "nmf": lambda: fit_nmf(z, 3),
        "topk_sae": lambda: fit_topk_sae(z, 3, TopKConfig(epochs=5)),
        "dimensions": lambda: fit_dimensions(z, logits[:, :1], labels == 0, 3),
        "lasso": lambda: fit_lasso(z, logits[:, 0], 3),
        "directions": lambda: as_directions(torch.eye(3, z.shape[1]), torch.ones(3), z),
        "ica": lambda: fit_ica(z, logits[:, 0], labels == 0, 3),
    }
    return net, images, z, fits[name]()


# So small a network has images on which a unit has no input of the right sign.
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
@pytest.mark.parametrize("name", FITTED)
def test_excitation_backprop_draws_every_concept(name):
    net, images, z, embedding = fit_on_net(name)
    module = ToUnits(net, embedding.units())
    n = embedding.n_features
    alive = (embedding.units()(z) > 0.1).all(1).nonzero().flatten()[:2]
    chosen = images[alive] if len(alive) else images[:2]
    maps = ExcitationBackprop(module, contrastive=False).attribute_many(chosen, range(n))
    assert maps.shape == (len(chosen), n, 12, 12)
    assert torch.allclose(maps.sum((2, 3)), torch.ones(len(chosen), n), atol=1e-3)
    contrastive = ExcitationBackprop(module).attribute_many(chosen, range(n))
    assert torch.allclose(contrastive.sum((2, 3)), torch.zeros(len(chosen), n), atol=1e-3)


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
@pytest.mark.parametrize("name", ["dimensions", "lasso"])
def test_maps_of_chosen_dimensions_are_those_of_the_layer_itself(name):
    net, images, z, embedding = fit_on_net(name)
    index = embedding.index.tolist()
    on = images[(z[:, index] > 0).all(1)][:2]
    ours = ExcitationBackprop(ToUnits(net, embedding.units()))
    layers = ExcitationBackprop(ToUnits(net, nn.Identity()))
    assert torch.allclose(
        ours.attribute_many(on, range(len(index))), layers.attribute_many(on, index), atol=1e-6
    )
