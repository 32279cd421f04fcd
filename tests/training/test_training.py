import json
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from torchxnn.data.activations import Activations
from torchxnn.embeddings import EMBEDDINGS, SRAE, Embedding
from torchxnn.embeddings.apply import anchor, apply_embedding
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.embeddings.linear import deviation, fit_linear, group_moments, second_moments
from torchxnn.errors import DataError, DegenerateFitWarning, NonFiniteError, XNNError
from torchxnn.storage.artifact import structure, to_json
from torchxnn.training import losses
from torchxnn.training.cells import MapStarter
from torchxnn.training.config import TrainConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.initialise import (
    VectorStarter,
    group_units,
    pretrain_greedily,
    read_units,
    split_logit,
    weak_features,
)
from torchxnn.training.objective import full_set_losses
from torchxnn.training.report import FitReport
from torchxnn.training.schedule import RunningMeans
from torchxnn.training.split import Split
from training_examples import make_data

QUICK = TrainConfig(hidden=(32, 16), epochs=40, patience=40, batch_size=32, pretrain_epochs=3)


@pytest.fixture(scope="module")
def fitted():
    return fit_embedding(make_data(), make_data(seed=1), [1], 3, QUICK)


def test_a_fit_is_faithful_with_several_active_features(fitted):
    embedding, report = fitted
    assert report.validation.r2 > 0.9
    assert report.validation.active >= 2
    assert report.degenerate == ()
    assert (report.held_out, report.positives_by, report.targets) == ("given", "label", (1,))
    assert report.train.images == 400
    assert not embedding.training


def test_reported_losses_are_exact_over_the_full_set(fitted):
    embedding, report = fitted
    data = make_data()
    spread = data.logits[:, [1]].std(0, correction=0)
    weights = torch.ones(400)
    positive = data.labels == 1
    share = QUICK.positive_share
    weights[positive] = share / int(positive.sum())
    weights[~positive] = (1 - share) / int((~positive).sum())
    groups = torch.stack([~positive, positive], 1).float()
    with torch.no_grad():
        features = embedding.encode(data.z)
        faithful = losses.faithfulness(
            embedding.readout(features) / spread, data.logits[:, [1]] / spread, weights
        )
        scale = embedding.scale
        errors = losses.reconstruction_errors(
            embedding.decode(features) / scale, data.z / scale, weights
        )
        sparse = losses.sparse_reconstruction(errors, QUICK.q)
        orthogonal = losses.pull_away(
            second_moments(features, weights),
            group_moments(features, groups, weights),
            torch.tensor([1 - share, share]),
        )
    assert report.train_losses.faithfulness == pytest.approx(float(faithful), rel=1e-4)
    assert report.train_losses.sparse_reconstruction == pytest.approx(float(sparse), rel=1e-4)
    assert report.train_losses.pull_away == pytest.approx(float(orthogonal), rel=1e-4)
    assert report.train_losses.components == 0  # three logits are too few for components
    assert report.train_losses.total == pytest.approx(
        float(faithful + QUICK.beta * sparse + QUICK.eta * orthogonal), rel=1e-4
    )


def test_the_same_seed_gives_the_same_fit_and_another_seed_another():
    data = make_data(200)
    config = replace(QUICK, epochs=3)

    def fit(seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateFitWarning)
            return fit_embedding(data, None, [1], 3, replace(config, seed=seed))[0].state_dict()

    first, again, other = fit(0), fit(0), fit(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_fit_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        fit_embedding(make_data(100), None, [1], 2, replace(QUICK, epochs=1, trials=1))
    assert torch.equal(torch.rand(2), expected)


def test_a_fit_computes_on_the_cpu_whatever_the_default_device_of_the_caller():
    data, config = make_data(100), replace(QUICK, epochs=1, trials=1)

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateFitWarning)
            return fit_embedding(data, None, [1], 2, config)[0].state_dict()

    plain = fit()
    with torch.device("meta"):  # where every new tensor would be without values
        elsewhere = fit()
    assert all(torch.equal(plain[key], elsewhere[key]) for key in plain)


def test_without_validation_a_part_is_held_out():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        _, report = fit_embedding(make_data(200), None, [1], 3, replace(QUICK, epochs=2, trials=1))
    assert report.held_out == "split"
    assert (report.train.images, report.validation.images) == (160, 40)


def test_several_targets_share_the_features():
    data = make_data()
    data.logits[:, 0] = 3 * data.z[:, :4].mean(1) - 1
    labels = torch.where(torch.arange(400) % 4 == 2, 0, data.labels)
    data = Activations(data.z, data.logits, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        embedding, report = fit_embedding(data, None, [1, 0], 4, replace(QUICK, trials=1))
    assert embedding.readout.weight.shape == (2, 4)
    assert len(report.validation.share) == 2
    assert report.targets == (1, 0)
    assert report.validation.r2 > 0.5


def test_a_degenerate_fit_warns_and_says_so():
    data = make_data(200)
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(5))
    hopeless = Activations(data.z, noise, data.labels)
    with pytest.warns(DegenerateFitWarning, match=r"R\^2"):
        _, report = fit_embedding(hopeless, None, [1], 3, replace(QUICK, epochs=3, trials=2))
    assert report.degenerate
    assert report.trials == 2


def test_trials_stop_once_a_fit_is_good_enough(fitted):
    assert fitted[1].trials <= QUICK.trials
    _, report = fit_embedding(
        make_data(), make_data(seed=1), [1], 3, replace(QUICK, enough_active=1)
    )
    assert report.trials == 1


def test_report_survives_json(fitted):
    assert structure(json.loads(to_json(fitted[1])), FitReport, "it") == fitted[1]


@pytest.mark.parametrize(
    ("targets", "message"),
    [([7], "out of range"), ([-1], "out of range"), ([2], "0 positive"), ([], "different")],
)
def test_bad_targets_are_named(targets, message):
    data = make_data()
    data = Activations(data.z, data.logits, torch.where(data.labels == 2, 0, data.labels))
    with pytest.raises(DataError, match=message):
        fit_embedding(data, None, targets, 3, QUICK)


def test_too_few_positives_and_a_constant_logit_are_errors():
    data = make_data(60)
    few = Activations(data.z, data.logits, torch.where(torch.arange(60) < 7, 1, 0))
    with pytest.raises(DataError, match="has 7 positive"):
        fit_embedding(few, None, [1], 3, QUICK)
    flat = Activations(data.z, torch.ones(60, 3), data.labels)
    with pytest.raises(DataError, match="same on every"):
        fit_embedding(flat, None, [1], 3, QUICK)


def test_a_loss_that_explodes_is_an_error():
    with pytest.raises(NonFiniteError, match="learning_rate"):
        fit_embedding(make_data(100), None, [1], 3, replace(QUICK, learning_rate=1e25, epochs=5))


@pytest.mark.parametrize(
    "change",
    [{"q": 0.0}, {"beta": -1.0}, {"positive_share": 1.0}, {"trials": 0}, {"batch_size": 0}],
)
def test_bad_settings_are_errors(change):
    with pytest.raises(XNNError):
        fit_embedding(make_data(100), None, [1], 3, replace(QUICK, **change))


def test_mini_batch_gradients_average_to_the_gradient_of_the_exact_loss():
    """At the true means, the mean of the batches' gradients is the full set's, log or not."""
    torch.manual_seed(0)
    z = torch.rand(12, 3, dtype=torch.float64)
    decoder = nn.Linear(3, 3).double()
    q = 50.0

    def errors(part):
        return losses.reconstruction_errors(decoder(part), part)

    exact = torch.autograd.grad(losses.sparse_reconstruction(errors(z), q), decoder.weight)[0]
    means = RunningMeans()
    means.update("errors", errors(z).detach().unsqueeze(0), 1.0)
    batches = [
        torch.autograd.grad(
            losses.sparse_reconstruction(means.update("errors", errors(b).unsqueeze(0), 0.0), q)[0],
            decoder.weight,
        )[0]
        for b in z.split(4)
    ]
    assert torch.allclose(torch.stack(batches).mean(0), exact)
    naive = torch.stack(
        [
            torch.autograd.grad(losses.sparse_reconstruction(errors(b), q), decoder.weight)[0]
            for b in z.split(4)
        ]
    ).mean(0)
    assert not torch.allclose(naive, exact, rtol=1e-3)


# Embeddings: one contract for all


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_every_embedding_keeps_the_contract(name):
    size = {"size": (2, 3)} if name == "conv_srae" else {}
    embedding = EMBEDDINGS[name](dims=10, n_features=3, n_targets=2, **size)
    assert isinstance(embedding, Embedding)
    assert embedding.kind == name
    assert embedding.activation_shape == (10, *size.get("size", ()))
    assert embedding.has_maps == bool(size)
    for value in embedding.state_dict().values():
        if bool(value.isnan().any()):  # baselines begin without any weights
            value.uniform_()
    z = torch.rand(4, *embedding.activation_shape)
    features = embedding(z)
    assert features.shape == (4, 3, *z.shape[2:])
    assert embedding.summarise(features).shape == (4, 3)
    assert embedding.units()(z).shape == embedding.salience(features).shape == (4, 3)
    assert embedding.readout_weight.shape == (2, 3)
    assert bool((features >= 0).all())
    assert embedding.decode(features).shape == z.shape
    contributions = embedding.contributions(features)
    assert contributions.shape == (4, 2, 3)
    assert torch.allclose(
        contributions.sum(2) + embedding.readout.bias, embedding.reproduce(features), atol=1e-6
    )
    rebuilt = build_embedding(name, embedding.settings(), embedding.state_dict())
    assert torch.equal(rebuilt(z), features)


def test_srae_reconstructs_negative_activations_only_if_told():
    torch.manual_seed(0)
    features = torch.rand(50, 2)
    assert bool((SRAE(6, 2).decode(features) >= 0).all())
    assert bool((SRAE(6, 2, nonnegative=False).decode(features) < 0).any())


def test_srae_refuses_empty_sizes():
    with pytest.raises(XNNError, match="positive"):
        SRAE(10, 0)


def test_scale_makes_the_mean_variance_one():
    data = make_data()
    data = replace(data, z=data.z * 7)
    config = TrainConfig(hidden=(32, 16), pretrain_epochs=0)
    for z in (data.z, torch.ones_like(data.z)):
        split = equal_weights(replace(data, z=z))
        scale = VectorStarter(split, 3, config, torch.Generator().manual_seed(0)).embedding.scale
        assert torch.equal(scale, deviation(z))
    assert float((data.z / deviation(data.z)).var(0, correction=0).mean()) == pytest.approx(1)
    assert float(scale) == 1.0


def test_linear_fit_recovers_a_linear_map():
    x = torch.randn(50, 3, dtype=torch.float64)
    true = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    weight, bias = fit_linear(x, x @ true.mT + 4, torch.rand(50).double() + 0.1, ridge=1e-12)
    assert torch.allclose(weight, true, atol=1e-6)
    assert float(bias) == pytest.approx(4, abs=1e-6)


def test_linear_fit_survives_constant_inputs():
    weight, bias = fit_linear(torch.zeros(5, 2), torch.ones(5, 1), torch.ones(5))
    assert torch.equal(weight, torch.zeros(1, 2))
    assert float(bias) == 1.0


def equal_weights(data):
    positives = (data.labels == 1).unsqueeze(1)
    return Split(data, data.logits[:, [1]], positives, torch.ones(len(data)))


def test_split_logit_starts_every_feature_alive_and_close_to_the_logit():
    split = equal_weights(make_data())
    config = TrainConfig(hidden=(32, 16), pretrain_epochs=3, batch_size=64)
    embedding = VectorStarter(split, 4, config, torch.Generator().manual_seed(0)).embedding
    features = embedding.encode(split.data.z).detach()
    residual = embedding.readout(features).detach() - split.logits
    contributions = embedding.contributions(features)
    assert weak_features(features, contributions, split.positives, least=0.0) == []
    assert bool((features[split.positives[:, 0]] > 0).float().mean(0).min() > 0.5)
    assert float(1 - residual.var() / split.logits.var()) > 0.8


def test_split_logit_can_restart_single_features():
    split = equal_weights(make_data())
    embedding = SRAE(20, 4, 1, (32, 16))
    before = embedding.encoder[-1].weight.detach().clone()
    with torch.no_grad():
        hidden = embedding.below_x_layer(embedding.inputs(split.data.z))
        generator = torch.Generator().manual_seed(0)
        split_logit(embedding, read_units(hidden, split), generator, [2])
    changed = (embedding.encoder[-1].weight != before).any(1).tolist()
    assert changed == [False, False, True, False]


@pytest.mark.parametrize("maps", [False, True])
def test_weak_features_start_again_and_the_others_stay(maps):
    split = equal_weights(make_data())
    if maps:
        z = split.data.z.reshape(-1, 5, 2, 2)
        split = replace(split, data=Activations(z, split.data.logits, split.data.labels))
    config = TrainConfig(hidden=(32, 16), pretrain_epochs=1)
    kind = MapStarter if maps else VectorStarter
    starter = kind(split, 4, config, torch.Generator().manual_seed(0))
    layer = starter.embedding.encoder[-1]
    with torch.no_grad():
        layer.weight[2], layer.bias[2] = 0.0, -1.0
        anchor(starter.embedding, split.data.z, split.positives)
        found = apply_embedding(starter.embedding, split.data.z)
        weak = weak_features(found.features, found.contributions, split.positives)
    assert 2 in weak
    assert len(weak) < 4
    before = layer.weight.detach().clone()
    assert starter.find_weak() == weak
    starter.start_features(weak)
    changed = (layer.weight != before).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == weak
    again = apply_embedding(starter.embedding, split.data.z).features
    assert bool((again[split.positives[:, 0], 2] > 0).any())


def test_greedy_pretraining_lowers_the_reconstruction_error():
    data = make_data()
    torch.manual_seed(0)
    embedding = SRAE(20, 3, 1, (32,))
    encode, decode = embedding.encoder[0], embedding.decoder[-1]

    def error():
        with torch.no_grad():
            return float((torch.relu(decode(torch.relu(encode(data.z)))) - data.z).square().mean())

    before = error()
    pretrain_greedily(embedding, data.z, torch.Generator().manual_seed(0), 10, 32)
    assert error() < 0.5 * before


def test_groups_vary_together_and_none_is_empty():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(100, 2, generator=generator)
    columns = torch.stack([base[:, 0]] * 3 + [base[:, 1]] * 3, 1)
    columns += 0.01 * torch.randn(100, 6, generator=generator)
    groups = group_units(columns, 2, generator)
    assert len(set(groups[:3].tolist())) == len(set(groups[3:].tolist())) == 1
    assert groups[0] != groups[3]
    assert len(group_units(columns, 5, generator).unique()) == 5
    assert group_units(columns[:, :2], 4, generator).tolist() == [0, 1]


def test_weak_features_are_dead_on_the_positives_or_carry_too_little():
    features = torch.tensor([[0.0, 1.0, 2.0, 2.0], [5.0, 1.0, 1.0, 1.0]])
    weight = torch.tensor([[1.0, 0.01, 1.0, -1.0]])
    positives = torch.tensor([[True], [False]])
    assert weak_features(features, features.unsqueeze(1) * weight, positives) == [0, 1]
    both = torch.tensor([[1.0, 0.01, 1.0, -1.0], [1.0, 1.0, 0.0, 1.0]])
    positives = torch.tensor([[True, False], [False, True]])
    assert weak_features(features, features.unsqueeze(1) * both, positives) == []


def test_full_set_losses_of_a_perfect_embedding():
    data = make_data(16)
    embedding = SRAE(20, 1, 1, ())
    split = Split(
        data, torch.zeros(16, 1), (data.labels == 1).unsqueeze(1), torch.full((16,), 1 / 16)
    )
    with torch.no_grad():
        for parameter in embedding.readout.parameters():
            parameter.zero_()
    result = full_set_losses(embedding, split, torch.ones(1), QUICK)
    assert result.faithfulness == 0.0
    assert result.pull_away == 0.0
    assert result.total == pytest.approx(QUICK.beta * result.sparse_reconstruction)
