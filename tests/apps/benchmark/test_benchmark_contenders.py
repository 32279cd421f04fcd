"""Peers, ceilings and floors find what was planted, or cannot."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from scipy.stats import sobol_indices, uniform

from ground_truth_examples import PARTS, TARGET, Planted, profiles
from torchxnn.apps.benchmark import peers
from torchxnn.apps.benchmark.bounds import BOUNDS, _shuffled
from torchxnn.apps.benchmark.contenders import order_agreement
from torchxnn.apps.benchmark.peers import MISSING, PEERS, _overcomplete, sobol_importance
from torchxnn.embeddings.directions import as_directions
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.embeddings.linear import deviation
from torchxnn.errors import DataError, XNNError
from torchxnn.metrics.ground_truth import recovery, specificity

CONTENDERS = {**BOUNDS, **PEERS}


def fitted(name, seed=0, planted_seed=0):
    contender = CONTENDERS[name]
    missing = contender.unavailable()
    if missing is not None:
        pytest.skip(missing)
    planted = Planted(planted_seed, contender.maps)
    case = planted.case(seed=seed)
    return planted, case, contender.fit(case)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_gives_an_embedding_of_the_class_and_repeats_for_a_seed(name):
    state = torch.random.get_rng_state()
    planted, _, found = fitted(name)
    embedding = found.embedding
    before, _ = planted.removals()
    assert embedding.n_features == (1 if name == "ridge on Z" else PARTS)
    assert embedding.n_targets == 1
    assert embedding.has_maps == CONTENDERS[name].maps
    rebuilt = build_embedding(embedding.kind, embedding.settings(), embedding.state_dict())
    features = embedding.encode(before)
    assert torch.equal(rebuilt.reproduce(rebuilt.encode(before)), embedding.reproduce(features))
    again = fitted(name)[2]
    assert torch.equal(again.embedding.encode(before), features)
    if found.importance is not None:
        assert found.importance.shape == (PARTS,)
        assert torch.equal(found.importance, again.importance)
    assert torch.equal(torch.random.get_rng_state(), state)


LABELS = [name for name, each in BOUNDS.items() if each.labels]


@pytest.mark.parametrize("name", LABELS)
def test_what_sees_the_labels_finds_the_parts_and_what_sees_nothing_does_not(name):
    planted, _, found = fitted(name)
    floor = "random maps" if CONTENDERS[name].maps else "random directions"
    chance = fitted(floor)[2].embedding
    before, after = planted.removals()
    own, nothing = (profiles(each, before, after) for each in (found.embedding, chance))
    assert own.argmax(1).tolist() == list(range(PARTS))
    assert specificity(own) > 0.7
    assert recovery(own).value > recovery(nothing).value + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_independent_components_find_parts_without_labels(seed):
    planted, _, found = fitted("ICA", planted_seed=seed)
    own = profiles(found.embedding, *planted.removals())
    assert recovery(own).value > 0.8
    assert sorted(recovery(own).parts) == list(range(PARTS))


def test_shuffled_logits_are_those_of_the_same_kind_of_image_in_another_order():
    train = Planted().case().data.train
    shuffled = _shuffled(train, TARGET, torch.Generator().manual_seed(0))
    before, after = train.logits[:, TARGET], shuffled.logits[:, TARGET]
    for rows in (train.labels == TARGET, train.labels != TARGET):
        assert torch.equal(before[rows].sort().values, after[rows].sort().values)
        assert float((before[rows] == after[rows]).double().mean()) < 0.1
    others = [column for column in range(train.n_outputs) if column != TARGET]
    assert torch.equal(train.logits[:, others], shuffled.logits[:, others])
    assert torch.equal(train.z, shuffled.z)


def test_what_is_fitted_to_shuffled_logits_knows_the_class_and_little_within_it():
    _, case, found = fitted("shuffled logits")
    train, positives = case.data.train, case.positives
    with torch.no_grad():
        told = found.embedding.reproduce(found.embedding.encode(train.z))[:, 0]
    assert float(told[positives].mean()) > float(told[~positives].mean()) + 0.2
    assert float(told[positives].std()) < 0.5 * float(train.logits[positives, TARGET].std())


def test_the_readout_of_a_linear_ceiling_is_weighted_least_squares():
    """The normal equations in float64, with their intercept, have the same solution."""
    _, case, found = fitted("labels, linear")
    embedding = found.embedding
    features = embedding.encode(case.data.train.z).double()
    design = torch.cat([features, torch.ones(len(features), 1)], 1)
    weighted = design.mT * case.weights.double()
    logit = case.data.train.logits[:, TARGET].double()
    solution = torch.linalg.solve(weighted @ design, weighted @ logit)
    assert torch.allclose(embedding.readout.weight[0].double(), solution[:-1], atol=1e-3)
    assert torch.allclose(embedding.readout.bias.double(), solution[-1:], atol=1e-3)


def test_sobol_importance_of_a_linear_head_is_the_share_of_its_variance(monkeypatch):
    """By hand: y = sum_l w_l E_l f_l with uniform f has total indices (w_l E_l)^2 / sum (w E)^2."""
    planted = Planted()
    case = planted.case()
    weight = torch.eye(PARTS, planted.directions.shape[1])
    embedding = as_directions(weight, torch.zeros(PARTS), case.data.train.z)
    with torch.no_grad():
        embedding.decoder.weight.copy_(planted.directions.mT)
        embedding.decoder.bias.zero_()
    codes = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    effect = codes * (planted.directions @ planted.weight)
    expected = (effect.square() / effect.square().sum(1, keepdim=True)).mean(0)
    monkeypatch.setattr(peers, "DESIGNS", 1024)
    found = sobol_importance(embedding, codes, case)
    assert torch.allclose(found, expected.double(), atol=0.01)
    assert float(found[2]) < float(found[0]) < float(found[1])
    nothing = sobol_importance(embedding, torch.zeros(2, PARTS), case)
    assert torch.equal(nothing, torch.zeros(PARTS, dtype=torch.float64))


def test_sobol_importance_agrees_with_scipy_on_a_network(monkeypatch):
    planted = Planted()
    case = planted.case()
    hidden = torch.randn(planted.directions.shape[1], 4, generator=torch.Generator().manual_seed(3))
    case = replace(case, head=lambda z: torch.relu(z @ hidden - 0.5))
    embedding = as_directions(torch.eye(PARTS, len(hidden)), torch.zeros(PARTS), case.data.train.z)
    with torch.no_grad():
        embedding.decoder.weight.copy_(planted.directions.mT)
    codes = torch.tensor([[1.0, 2.0, 1.5]])

    def answer(masks):
        z = embedding.decode(codes * torch.from_numpy(masks.T).float())
        return case.head(z)[:, TARGET].detach().numpy()[None]

    theirs = sobol_indices(func=answer, n=1024, dists=[uniform()] * PARTS, rng=0).total_order
    monkeypatch.setattr(peers, "DESIGNS", 1024)
    ours = sobol_importance(embedding, codes, case)
    assert torch.allclose(ours, torch.as_tensor(theirs).double().flatten(), atol=0.01)


def test_most_relevant_units_of_a_linear_head_are_those_of_largest_product():
    planted, case, found = fitted("most relevant units")
    relevance = (case.own * planted.weight).mean(0)
    index = relevance.argsort(descending=True)[:PARTS]
    assert torch.equal(found.embedding.index, index)
    assert torch.allclose(found.importance, relevance[index], atol=1e-5)


def test_the_directions_of_tcav_have_norm_1_and_their_sensitivity_is_along_them():
    planted, case, found = fitted("TCAV")
    rows = found.embedding.encoder.weight.detach()
    assert torch.allclose(rows.norm(dim=1), torch.ones(PARTS), atol=1e-5)
    assert torch.allclose(found.importance, rows @ planted.weight, atol=1e-4)
    assert specificity(profiles(found.embedding, *planted.removals())) > 0.8
    with pytest.raises(DataError, match=r"part 1 is visible in all .* fit to images with and"):
        PEERS["TCAV"].fit(replace(case, visible=case.visible | (torch.arange(PARTS) == 1)))


@pytest.mark.parametrize("name", ["TopK-SAE of the class", "RA-SAE"])
def test_our_copy_of_an_overcomplete_autoencoder_is_the_same_function(name, monkeypatch):
    if PEERS[name].unavailable():
        pytest.skip("overcomplete is not installed")
    kept = {}
    sae = _overcomplete()
    train = sae.train_sae
    monkeypatch.setattr(
        sae, "train_sae", lambda model, *a, **k: kept.update(model=model) or train(model, *a, **k)
    )
    _, case, found = fitted(name)
    z = case.own
    with torch.no_grad():
        _, codes, decoded = kept["model"](z / deviation(z))
        assert torch.allclose(found.embedding.encode(z), codes * deviation(z), atol=1e-4)
        assert torch.allclose(
            found.embedding.decode(found.embedding.encode(z)), decoded * deviation(z), atol=1e-4
        )


@pytest.mark.parametrize("name", [*PEERS, "ICA"])
def test_a_missing_package_is_named_with_the_way_to_get_it(name, monkeypatch):
    _overcomplete.cache_clear()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "overcomplete" else find_spec(n, *a)
    )
    for module in ("sklearn.decomposition", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, module, None)
    contender = CONTENDERS[name]
    case = Planted().case()
    if name == "most relevant units":
        assert contender.unavailable() is None
        assert contender.fit(case).embedding.n_features == PARTS
        return
    assert "pip install " in contender.unavailable()
    with pytest.raises(XNNError, match="pip install "):
        contender.fit(case)


@pytest.mark.parametrize("broken", [ImportError, OSError, RuntimeError])
def test_a_broken_package_is_a_reason(broken):
    def needs():
        raise broken("libgomp.so.1: cannot open shared object file")

    contender = replace(BOUNDS["ICA"], needs=needs)
    assert "is broken (libgomp.so.1: cannot open" in contender.unavailable()


def test_tcav_asks_for_what_it_uses(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert "needs scikit-learn" in PEERS["TCAV"].unavailable()


def test_importing_the_autoencoders_leaves_no_half_imported_package():
    if PEERS["RA-SAE"].unavailable():
        pytest.skip("overcomplete is not installed")
    assert "overcomplete" not in sys.modules


def test_a_case_needs_a_row_of_labels_per_image_and_images_of_its_class():
    case = Planted().case()
    with pytest.raises(DataError, match="10 rows"):
        replace(case, visible=case.visible[:10])
    with pytest.raises(DataError, match="no training image is of class 3"):
        replace(case, target=3)


def test_agreement_of_orders_is_a_rank_correlation():
    assert order_agreement(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([9.0, 0.1, 0.2])) == 1.0
    assert order_agreement(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.0, 2.0, 1.0])) == -1.0
    assert order_agreement(torch.ones(3), torch.arange(3.0)) is None


def test_every_row_of_the_table_says_what_it_is():
    assert not set(BOUNDS) & set(PEERS)
    for name, each in CONTENDERS.items():
        assert each.about.endswith("."), name
        assert each.labels == name.startswith(("labels", "TCAV")), name
    assert all(MISSING.values())
