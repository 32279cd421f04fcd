"""Peers, ceilings and floors find what was planted, or cannot."""

import importlib.util
import sys

import pytest
import torch
from scipy.stats import sobol_indices, uniform

from ground_truth_examples import PARTS, TARGET, Planted, profile, specificity
from torchxnn.apps.benchmark.bounds import BOUNDS
from torchxnn.apps.benchmark.contenders import Case, order_agreement
from torchxnn.apps.benchmark.peers import PEERS, _overcomplete, sobol_importance
from torchxnn.embeddings.directions import as_directions
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.errors import DataError, XNNError

CONTENDERS = {**BOUNDS, **PEERS}
INSTALLED = {
    name: each
    for name, each in CONTENDERS.items()
    if each.unavailable() is None or not pytest.skip
}
VECTORS = [name for name, each in CONTENDERS.items() if not each.maps]
MAPS = [name for name, each in CONTENDERS.items() if each.maps]


def fitted(name, seed=0, planted_seed=0):
    contender = CONTENDERS[name]
    missing = contender.unavailable()
    if missing is not None:
        pytest.skip(missing)
    planted = Planted(planted_seed, contender.maps)
    return planted, contender.fit(planted.case(seed=seed))


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_gives_an_embedding_of_the_class_and_repeats_for_a_seed(name):
    state = torch.random.get_rng_state()
    planted, found = fitted(name)
    embedding = found.embedding
    before, _ = planted.removals()
    assert embedding.n_features == PARTS
    assert embedding.n_targets == 1
    assert not embedding.training
    assert embedding.has_maps == CONTENDERS[name].maps
    rebuilt = build_embedding(embedding.kind, embedding.settings(), embedding.state_dict())
    features = embedding.encode(before)
    assert torch.equal(rebuilt.reproduce(rebuilt.encode(before)), embedding.reproduce(features))
    again = fitted(name)[1]
    assert torch.equal(again.embedding.encode(before), features)
    if found.importance is not None:
        assert found.importance.shape == (PARTS,)
        assert torch.equal(found.importance, again.importance)
    assert torch.equal(torch.random.get_rng_state(), state)
