import json
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import make_images, make_net
from model_state import assert_same_state, state_of
from torchxnn import XNN, DegenerateFitWarning, TrainConfig
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.data.activations import Activations, RowStore
from torchxnn.data.record import record_activations
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import DataError, ModelError, NonFiniteError, XNNError
from torchxnn.training.config import ConvConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.objective import full_set_losses
from torchxnn.training.split import Split

# Networks with random weights have units that only their bias excites, and short fits x-features
# without a contrast; these warnings are tested where they belong.
pytestmark = [
    pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning"),
    pytest.mark.filterwarnings("ignore:.*empty maps:torchxnn.errors.XNNWarning"),
]

CONV = ConvConfig(channels=(8,), map_batch_size=16)
QUICK = TrainConfig(epochs=15, pretrain_epochs=2, trials=1, conv=CONV)


def quiet(call, *args, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        return call(*args, **settings)


def make_loader(count=96, seed=0):
    images, kinds = make_images(count, seed)
    return list(zip(images.split(16), kinds.split(16), strict=True))


@pytest.fixture(scope="module")
def fitted():
    xnn = XNN(make_net(), "features.3", 3, class_names=("a", "b", "c", "d"))
    quiet(xnn.fit, make_loader(), 1, config=QUICK)
    return xnn


def random_embedding(seed=0, **changed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = {"dims": 6, "size": (5, 3), "n_features": 4, "n_targets": 2, "channels": (7,)}
        embedding = ConvSRAE(**{**given, **changed}).double()
        embedding.scale.fill_(1.7)
    return embedding


def literal_contributions(embedding, e):
    """Position by position, with the pooling written out."""
    batch, n, height, width = e.shape
    window = embedding.pool_size
    rows, columns = (1, 1) if embedding.pooling == "none" else (window, window)
    if embedding.pooling != "none" and window is None:
        rows, columns = height, width
    pick = {"none": max, "max": max, "average": lambda values: sum(values) / len(values)}
    v = embedding.readout.weight
    result = torch.zeros(batch, v.shape[0], n, dtype=e.dtype)
    for b in range(batch):
        for i in range(n):
            pooled = []
            for r in range(0, height, rows):
                for c in range(0, width, columns):
                    window_values = e[b, i, r : r + rows, c : c + columns].flatten().tolist()
                    pooled.append(pick[embedding.pooling](window_values))
            for k in range(v.shape[0]):
                weights = v[k, i * len(pooled) : (i + 1) * len(pooled)].tolist()
                pairs = zip(weights, pooled, strict=True)
                result[b, k, i] = sum(w * x for w, x in pairs) / len(pooled)
    return result


@pytest.mark.parametrize(
    ("pooling", "pool_size", "size"),
    [
        ("none", 2, (5, 3)),
        ("max", 2, (3, 2)),
        ("average", 2, (3, 2)),
        ("max", None, (1, 1)),
        ("average", 3, (2, 1)),
    ],
)
def test_contributions_are_weighted_sums_over_positions(pooling, pool_size, size):
    embedding = random_embedding(pooling=pooling, pool_size=pool_size)
    assert embedding.readout_size == size
    e = embedding.encode(torch.rand(3, 6, 5, 3, dtype=torch.float64))
    contributions = embedding.contributions(e)
    assert torch.allclose(contributions, literal_contributions(embedding, e), atol=1e-12)
    reproduced = contributions.sum(2) + embedding.readout.bias
    assert torch.allclose(reproduced, embedding.reproduce(e), atol=1e-12)


def test_equal_weights_multiply_the_spatial_mean():
    embedding = random_embedding()
    embedding.readout_maps.data[:] = torch.arange(8.0).reshape(2, 4, 1, 1)
    e = embedding.encode(torch.rand(3, 6, 5, 3, dtype=torch.float64))
    expected = embedding.summarise(e).unsqueeze(1) * embedding.readout_weight
    assert torch.allclose(embedding.contributions(e), expected, atol=1e-12)
    assert torch.allclose(embedding.readout_weight, torch.arange(8.0).reshape(2, 4).double())


def test_salience_is_the_sum_of_contributions_without_their_signs():
    embedding = random_embedding(n_targets=1)
    e = embedding.encode(torch.rand(3, 6, 5, 3, dtype=torch.float64))
    embedding.readout.weight.data.abs_()
    assert torch.allclose(embedding.salience(e), embedding.contributions(e)[:, 0], atol=1e-12)
    before = embedding.salience(e)
    embedding.readout.weight.data.neg_()
    assert torch.allclose(embedding.salience(e), before)


def twins(n_targets=2, channels=(7,)):
    """A ConvSRAE on 1x1 maps and an SRAE with the same weights."""
    conv = random_embedding(size=(1, 1), n_targets=n_targets, channels=channels)
    dense = SRAE(6, 4, n_targets, channels).double()
    state = {name: value.reshape(dense.state_dict()[name].shape)
             for name, value in conv.state_dict().items()}  # fmt: skip
    dense.load_state_dict(state)
    return conv, dense


def test_one_position_is_the_fully_connected_embedding():
    conv, dense = twins()
    z = torch.rand(5, 6, dtype=torch.float64)
    maps, vectors = conv.encode(z[:, :, None, None]), dense.encode(z)
    assert torch.allclose(maps.flatten(1), vectors, atol=1e-12)
    assert torch.allclose(conv.decode(maps).flatten(1), dense.decode(vectors), atol=1e-12)
    assert torch.allclose(conv.contributions(maps), dense.contributions(vectors), atol=1e-12)
    assert torch.allclose(conv.reproduce(maps), dense.reproduce(vectors), atol=1e-12)


def make_split(z, k=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(z), k, generator=generator)
    positives = torch.rand(len(z), k, generator=generator) < 0.4
    weights = torch.rand(len(z), generator=generator) + 0.1
    return Split(Activations(z, logits, None), logits, positives, weights)


@pytest.mark.parametrize("pull_away", ["within", "correlation", "cosine"])
def test_losses_of_one_position_are_those_of_the_fully_connected_embedding(pull_away):
    conv, dense = (embedding.float() for embedding in twins())
    z, spread = torch.rand(50, 6), torch.tensor([1.5, 0.5])
    config = TrainConfig(pull_away=pull_away)
    maps = full_set_losses(conv, make_split(z[:, :, None, None]), spread, config)
    split = make_split(z)
    split = replace(split, weights=split.weights / split.weights.sum())
    vectors = full_set_losses(dense, split, spread, config)
    for name in ("faithfulness", "sparse_reconstruction", "pull_away", "total"):
        assert getattr(maps, name) == pytest.approx(getattr(vectors, name), rel=1e-4), name


def test_losses_take_positions_as_samples():
    """Literally: every position of every image as a sample, except in the faithfulness."""
    embedding = random_embedding(seed=3).float().requires_grad_(False)
    embedding.encoder[-1].bias.add_(0.3)
    z = torch.rand(70, 6, 5, 3)
    split, spread = make_split(z), torch.tensor([1.5, 0.5])
    config = TrainConfig(pull_away="cosine", q=10.0)
    found = full_set_losses(embedding, split, spread, config)
    e = embedding.encode(z)
    share = split.weights / split.weights.sum()
    gap = (embedding.reproduce(e) - split.logits) / spread
    faithful = float((share * gap.square().sum(1)).sum())
    error = ((embedding.decode(e) - z) / embedding.scale).square().mean((2, 3))
    q = (share.unsqueeze(1) * error).sum(0)
    assert found.faithfulness == pytest.approx(faithful, rel=1e-4)
    assert found.sparse_reconstruction == pytest.approx(float((1 + 10 * q).log().mean()), rel=1e-4)
    vectors = (e * share.sqrt()[:, None, None, None]).transpose(0, 1).flatten(1)
    cosines = [
        float(torch.dot(vectors[a], vectors[b]) / vectors[a].norm() / vectors[b].norm()) ** 2
        for a in range(4)
        for b in range(4)
        if a != b
    ]
    assert found.pull_away == pytest.approx(sum(cosines) / 12, rel=1e-4)


def test_shapes_and_sums(fitted):
    images, _ = make_images(5)
    assert isinstance(fitted.embedding, ConvSRAE)
    maps = fitted.feature_maps(images)
    assert maps.shape == (5, 3, 5, 5)
    assert torch.allclose(fitted(images), maps.mean((2, 3)))
    contributions = fitted.contributions(images)
    assert contributions.shape == (5, 1, 3)
    total = contributions.sum(2) + fitted.intercept
    assert torch.allclose(total, fitted.predict(images), atol=1e-5)
    assert fitted.readout_weight.shape == (1, 3)
    heatmaps, certificate = fitted.attribute(images, return_certificate=True)
    assert heatmaps.shape == (5, 3, 12, 12)
    assert torch.allclose(heatmaps.sum((2, 3)), torch.zeros(5, 3), atol=1e-5)
    assert certificate.conservation_error < 1e-4


def test_feature_maps_need_a_layer_with_maps():
    xnn = XNN(make_net(), "classifier.1", 3)
    with pytest.raises(XNNError, match="not fitted"):
        xnn.feature_maps(make_images(1)[0])
    quiet(xnn.fit, make_loader(), 1, config=replace(QUICK, hidden=(8,), epochs=1))
    with pytest.raises(XNNError, match="one vector per image"):
        xnn.feature_maps(make_images(1)[0])


def test_explain_agrees_with_the_parts(fitted):
    images, _ = make_images(2)
    explanation = fitted.explain(images[1])
    assert torch.allclose(explanation.contributions, fitted.contributions(images)[1], atol=1e-5)
    assert torch.allclose(explanation.features, fitted(images)[1], atol=1e-5)
    total = explanation.contributions.sum(1) + explanation.intercept
    assert torch.allclose(total, explanation.reproduced, atol=1e-5)
    assert explanation.logits[0] == pytest.approx(fitted.model(images)[1, 1].item(), abs=1e-5)


def test_evaluate_measures_every_image_and_stays_small(fitted):
    evaluation = fitted.evaluate(make_loader())
    images, _ = make_images(96)
    logits = fitted.model(images)[:, 1].detach()
    error = (fitted.predict(images)[:, 0].detach() - logits).abs().mean()
    assert evaluation.faithfulness.f_reg == pytest.approx(float(error), rel=1e-5)
    assert evaluation.orthogonality.maps == 24
    recorded = record_activations(fitted.model, "features.3", make_loader())
    assert recorded.z.dtype == torch.float16
    # Images that are measured directly are not rounded to float16 on the way.
    recorded = record_activations(fitted.model, "features.3", make_loader(), map_dtype="float32")
    assert fitted.measure(recorded).faithfulness.f_reg == pytest.approx(
        evaluation.faithfulness.f_reg
    )


def test_the_model_is_untouched_by_every_call():
    net = make_net().train()
    before = state_of(net)
    xnn = XNN(net, "features.3", 3)
    quiet(xnn.fit, make_loader(), 1, config=replace(QUICK, epochs=2))
    images, _ = make_images(4)
    for call in (xnn, xnn.feature_maps, xnn.contributions, xnn.predict, xnn.attribute):
        call(images)
    xnn.explain(images[0])
    xnn.evaluate(make_loader(32))
    with pytest.raises(NonFiniteError):
        xnn(images * float("nan"))
    assert_same_state(before, state_of(net))


@pytest.mark.parametrize(
    "conv", [CONV, ConvConfig(channels=(), pooling="max", map_batch_size=16)], ids=["fc", "mnist"]
)
def test_save_and_load_give_the_same_bits(tmp_path, conv):
    net = make_net()
    xnn = XNN(net, "features.3")
    quiet(xnn.fit, make_loader(), [0, 1], config=replace(QUICK, epochs=2, conv=conv))
    xnn.save_pretrained(tmp_path / "run")
    again = XNN.from_pretrained(tmp_path / "run", net)
    images, _ = make_images(3)
    for name in ("forward", "feature_maps", "contributions", "predict", "attribute"):
        assert torch.equal(getattr(xnn, name)(images), getattr(again, name)(images)), name
    assert again.report == xnn.report
    assert again.report.config.conv == conv
    file = tmp_path / "run" / "xnn.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "embedding_kind": "none such"}))
    with pytest.raises(ModelError, match="damaged"):
        XNN.from_pretrained(tmp_path / "run", net)


def test_images_of_another_size_are_refused(fitted):
    with pytest.raises(DataError, match=r"\(8, 7, 7\).*fitted on \(8, 5, 5\)"):
        fitted(torch.rand(2, 3, 16, 16))
    with pytest.raises(DataError, match=r"\(8,\)"):
        fitted(torch.rand(2, 3, 4, 4))
    sizes = [(torch.rand(4, 3, size, size), torch.arange(4)) for size in (12, 16)]
    with pytest.raises(DataError, match="one size"):
        record_activations(fitted.model, "features.3", sizes)


def test_the_same_seed_gives_the_same_fit():
    data = record_activations(make_net(), "features.3", make_loader())
    config = replace(QUICK, epochs=3, revive=1)
    first, report = quiet(fit_embedding, data, None, [1], 3, config)
    torch.rand(1)
    second, _ = quiet(fit_embedding, data, None, [1], 3, config)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    found = apply_embedding(first, data.z)
    one = apply_embedding(first, data.z[40:41])
    assert torch.allclose(found.contributions[40:41], one.contributions, atol=1e-5)
    assert report.train.images + report.validation.images == 96


def planted(count, seed=0):
    """Spots of channel 0 count at the top only and spots of channel 1 at the bottom only.

    In the other half there are as many spots, which count for nothing, so only places tell.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(count, 3, 4, 2, generator=generator) * 0.1
    there = torch.rand(count, 2, 2, generator=generator) < 0.5
    for i, channel, half in there.nonzero().tolist():
        row, column = torch.randint(2, (2,), generator=generator).tolist()
        size = 2 + float(torch.rand((), generator=generator))
        z[i, channel, 2 * half + row, column] += size
    logit = 3 * z[:, 0, :2].sum((1, 2)) + 2 * z[:, 1, 2:].sum((1, 2)) - 6
    return Activations(z, torch.stack([-logit, logit], 1), None)


PLANTED = TrainConfig(
    epochs=25,
    trials=1,
    learning_rate=1e-2,
    conv=ConvConfig(channels=(6,), map_batch_size=32, map_positions=None),
)


def test_planted_concepts_and_their_places_are_found():
    data = planted(300)
    embedding, report = quiet(fit_embedding, data, planted(100, 5), [1], 2, PLANTED)
    assert report.validation.r2 > 0.95
    assert report.validation.active == 2
    e = embedding.encode(data.z).detach()
    follows = torch.corrcoef(
        torch.stack([*e.transpose(0, 1).flatten(1), *data.z[:, :2].transpose(0, 1).flatten(1)])
    )[:2, 2:]
    first = int(follows[:, 0].argmax())
    assert float(follows[first, 0]) > 0.8
    assert float(follows[1 - first, 1]) > 0.8
    top, bottom = embedding.readout_maps[0].detach().mean(2).unflatten(1, (2, 2)).mean(2).unbind(1)
    assert float(top[first]) > 1.5 * abs(float(bottom[first]))
    assert float(bottom[1 - first]) > 1.5 * abs(float(top[1 - first]))


def test_relevance_is_refused_and_other_terms_can_be_left_out():
    data = planted(60)
    config = replace(PLANTED, epochs=2, minimum_positives=2)
    with pytest.raises(XNNError, match="relevance"):
        fit_embedding(data, None, [1], 2, replace(config, relevance=1.0))
    changed = replace(config, faithful=False, reconstruction="squared", split_logit=False)
    embedding, report = quiet(fit_embedding, data, None, [1], 2, changed)
    losses = report.validation_losses
    assert losses.total == pytest.approx(
        config.beta * losses.sparse_reconstruction + config.eta * losses.pull_away
    )
    embedding.requires_grad_(False)
    error = (embedding.decode(embedding.encode(data.z)) - data.z) / embedding.scale
    assert losses.sparse_reconstruction == pytest.approx(float(error.square().mean()), rel=0.3)


def test_one_weight_per_feature_cannot_tell_places():
    conv = replace(PLANTED.conv, pooling="average", pool_size=None)
    config = replace(PLANTED, epochs=8, conv=conv)
    _, report = quiet(fit_embedding, planted(300), planted(100, 5), [1], 2, config)
    assert report.validation.r2 < 0.7


def test_heatmaps_show_where_the_contribution_comes_from():
    """A readout that looks at the top only draws the top, wherever the map is active."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    for parameter in net.parameters():
        parameter.data.abs_().add_(0.1)
    xnn = XNN(net, "1", 2)
    images = torch.rand(40, 1, 6, 6)
    labels = torch.arange(40) % 2
    quiet(xnn.fit, [(images, labels)], 1, config=replace(QUICK, epochs=1))
    for layer in xnn.embedding.encoder:
        layer.weight.data.abs_()
        layer.bias.data.fill_(0.1)
    xnn.embedding.readout_maps.data[:] = 0
    xnn.embedding.readout_maps.data[:, 0, :3] = 1.0
    xnn.embedding.readout_maps.data[:, 1, 3:] = -1.0
    heatmaps = xnn.attribute(images[:3]).abs()
    assert float(heatmaps[:, 0, 3:].abs().sum()) == pytest.approx(0, abs=1e-6)
    assert float(heatmaps[:, 1, :3].abs().sum()) == pytest.approx(0, abs=1e-6)


@given(limit=st.sampled_from([0.0, 1e-6, 1.0]), counts=st.lists(st.integers(0, 5), min_size=1))
@settings(max_examples=30)
def test_rows_are_the_same_in_memory_and_in_a_file(limit, counts):
    generator = torch.Generator().manual_seed(sum(counts))
    parts = [torch.rand(c, 2, 3, 2, generator=generator).half() for c in counts]
    if sum(counts) == 0:
        return
    store = RowStore(limit)
    for part in parts:
        store.append(part)
    assert torch.equal(store.result(), torch.cat(parts))


def test_a_fit_from_a_file_equals_one_from_memory():
    config = replace(QUICK, epochs=2)
    fits = []
    for memory in (2.0, 0.0):
        xnn = XNN(make_net(), "features.3", 3)
        conv = replace(CONV, map_memory=memory)
        quiet(xnn.fit, make_loader(), 1, config=replace(config, conv=conv))
        fits.append(xnn.state_dict())
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


def test_activations_too_large_for_half_precision_are_named():
    net = make_net()
    net.features[0].weight.data.mul_(1e6)
    with pytest.raises(NonFiniteError, match="map_dtype"):
        record_activations(net, "features.3", make_loader(16))
    data = record_activations(net, "features.3", make_loader(16), map_dtype="float32")
    assert data.z.dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (0,)},
        {"map_batch_size": 0},
        {"pool_size": 0},
        {"map_positions": -1},
        {"map_memory": -1.0},
        {"pooling": "median"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises((XNNError, TypeError)):
        ConvConfig(**wrong)


def test_wrong_sizes_are_refused():
    with pytest.raises(XNNError, match="positive"):
        ConvSRAE(6, (0, 3), 2)


def test_files_from_before_maps_still_load(tmp_path):
    net = make_net()
    xnn = XNN(net, "classifier.1", 3)
    quiet(xnn.fit, make_loader(), 1, config=replace(QUICK, hidden=(8,), epochs=1))
    xnn.save_pretrained(tmp_path / "run")
    file = tmp_path / "run" / "xnn.json"
    about = json.loads(file.read_text())
    del about["embedding_kind"], about["report"]["config"]["conv"]
    file.write_text(json.dumps(about))
    again = XNN.from_pretrained(tmp_path / "run", net)
    images, _ = make_images(3)
    assert torch.equal(again(images), xnn(images))
    assert again.report.config.conv == ConvConfig()


def test_one_pass_gives_what_separate_passes_give(fitted):
    images, _ = make_images(4)
    found = fitted.run_with_maps(images, logits=[1, 3], certify=True)
    maps, certificate = fitted.attribute(images, return_certificate=True)
    assert torch.equal(found.heatmaps, maps)
    assert found.certificate == certificate
    of_logits = ExcitationBackprop(fitted.model).attribute_many(images, [1, 3])
    assert torch.equal(found.logit_heatmaps, of_logits)
    assert torch.equal(found.output.z, fitted.run(images).z)
    with torch.no_grad():
        assert torch.equal(found.output.contributions, fitted.contributions(images))
