"""Fits in a group: each is what it would be alone, and what a literal second version gives."""

import copy
import inspect
import warnings
from dataclasses import replace

import pytest
import torch

import reference
from torchxnn.data.activations import Activations
from torchxnn.data.positives import sample_weights
from torchxnn.embeddings.components import find_components, read_logits
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.linear import group_moments, products, second_moments
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.subspace import directions_of_logits, principal_subspace
from torchxnn.errors import DataError, DegenerateFitWarning, NonFiniteError, XNNError
from torchxnn.parallel.process import one_thread
from torchxnn.training import losses
from torchxnn.training.config import ComputeConfig, Losses
from torchxnn.training.fit import fit_embedding, fit_group
from torchxnn.training.initialise import VectorStarter
from torchxnn.training.objective import batch_statistics, full_set_losses, loss_of_terms
from torchxnn.training.schedule import RunningMeans, Schedule, trial_generator
from torchxnn.training.split import Split
from torchxnn.training.stacked import Stack
from torchxnn.training.stacked_split import StackedSplit
from training_examples import QUICK, distance, make_data, many_classes

pytestmark = pytest.mark.usefixtures("few_starts")


def fit_all(data, validation, targets, config=QUICK, n=3, **compute):
    found = {}
    fit_group(
        data,
        validation,
        [(target,) for target in targets],
        n,
        config,
        ComputeConfig(**compute),
        found.__setitem__,
    )
    return [found[position] for position in range(len(targets))]


def alone(data, validation, target, config=QUICK, n=3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        return fit_embedding(data, validation, [target], n, config)


@pytest.mark.parametrize(
    ("slots", "subspace", "revive"), [(2, None, None), (2, 8, 2), (5, None, 2), (1, 8, None)]
)
def test_a_group_gives_what_single_fits_give(slots, subspace, revive):
    """In float64, with the same seeds and so the same batches, to 1e-6; slots are refilled."""
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    config = replace(QUICK, subspace=subspace, revive=revive)
    if subspace:  # so that the fits end at different times here too
        config = replace(config, learning_rate=0.005)
    targets = [4, 0, 3, 1]
    together = fit_all(data, validation, targets, config, slots=slots)
    epochs = set()
    for target, (embedding, report) in zip(targets, together, strict=True):
        expected, single = alone(data, validation, target, config)
        assert distance(embedding, expected) < 1e-6
        assert report.validation_losses.total == pytest.approx(single.validation_losses.total)
        assert (report.targets, report.epochs) == (single.targets, single.epochs)
        assert report.validation.r2 == pytest.approx(single.validation.r2)
        epochs.add(report.epochs)
    assert len(epochs) > 1, "the fits should end at different times"


@pytest.mark.parametrize(("n", "batch", "hidden"), [(3, 60, (16, 8)), (5, 50, (33, 17))])
def test_neighbours_do_not_change_a_bit_of_a_fit(n, batch, hidden):
    """In float32 on one thread, at other places in groups of other sizes, some of them refilled.

    A last digit that differs is in the third after some hundred steps at a high learning rate.
    """
    data, validation = (many_classes(outputs=12, seed=s) for s in (0, 1))
    config = replace(QUICK, batch_size=batch, hidden=hidden, epochs=5, patience=5)
    with one_thread():
        by_itself = {t: alone(data, validation, t, config, n)[0] for t in range(4)}
        for targets, slots in (([0, 1], None), ([3, 2, 1], None), ([2, 5, 0, 1, 3], 3)):
            found = fit_all(data, validation, targets, config, n, slots=slots)
            for target, (embedding, _) in zip(targets, found, strict=True):
                if target in by_itself:
                    assert distance(embedding, by_itself[target]) == 0.0


@pytest.mark.parametrize(("near", "decay"), [(0.0, None), (0.5, None), (0.5, "cosine")])
def test_a_fit_is_what_the_literal_second_version_gives(near, decay):
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    config = replace(QUICK, revive=None, epochs=6, components=near, decay_every=decay, patience=6)
    target = 2
    positives = data.labels == target
    split = Split(
        data,
        data.logits[:, [target]],
        positives.unsqueeze(1),
        sample_weights(data, [target], config.positive_share),
    )
    components = None
    if near:
        found = find_components(data.z, read_logits(data.z, data.logits), target, positives, 3)
        own = found.contributions(data.z)
        least = own.sort(0).values[int(0.01 * (len(own) - 1))]
        components = [
            (found.contributions(side.z) - least).clamp(min=0) for side in (data, validation)
        ]
        split = replace(split, components=components[0])
    generator = trial_generator(config.seed, 0)
    start = VectorStarter(split, 3, config, generator).embedding
    held_out = (validation.z, validation.logits[:, [target]], validation.labels == target)
    expected, best, epochs = reference.fit_one(
        data.z,
        data.logits[:, [target]],
        positives,
        held_out,
        (start, generator),
        config,
        components=components,
    )
    embedding, report = alone(data, validation, target, config)
    assert report.epochs == epochs
    assert report.validation_losses.total == pytest.approx(best, rel=1e-9)
    assert distance(embedding, expected) < 1e-8


def test_relevance_in_a_group_is_that_of_single_fits():
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    for subspace in (None, 8):
        config = replace(QUICK, relevance=1.0, epochs=3, subspace=subspace)
        together = fit_all(data, validation, [1, 2, 3], config, slots=2)
        for target, (embedding, report) in zip([1, 2, 3], together, strict=True):
            expected, single = alone(data, validation, target, config)
            assert distance(embedding, expected) < 1e-6
            assert report.validation_losses.relevance == pytest.approx(
                single.validation_losses.relevance
            )
            assert report.validation_losses.relevance > 0


@pytest.mark.parametrize(
    "change",
    [
        {"reconstruction": "none", "eta": 0.0},
        {"reconstruction": "squared"},
        {"pull_away": "cosine"},
        {"pull_away": "correlation"},
        {"faithful": False, "split_logit": False, "reconstruction": "squared"},
        {"positive_share": None},
        {"decay_every": 2},
    ],
    ids=str,
)
def test_every_variant_of_the_loss_is_the_same_in_a_group(change):
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    config = replace(QUICK, epochs=4, **change)
    for target, (embedding, _) in enumerate(fit_all(data, validation, [0, 1, 2], config, slots=3)):
        assert distance(embedding, alone(data, validation, target, config)[0]) < 1e-6


def test_several_targets_per_fit():
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    found = {}
    pairs = [(0, 1), (2, 3), (4, 5)]
    fit_group(data, validation, pairs, 4, QUICK, ComputeConfig(slots=2), found.__setitem__)
    for position, pair in enumerate(pairs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateFitWarning)
            expected, _ = fit_embedding(data, validation, pair, 4, QUICK)
        assert distance(found[position][0], expected) < 1e-6
    with pytest.raises(DataError, match="same number of targets"):
        fit_group(data, validation, [(0,), (1, 2)], 4, QUICK, None, found.__setitem__)


def test_one_class_that_fails_does_not_stop_the_rest():
    data = many_classes()
    labels = data.labels.clone()
    labels[(labels == 1).nonzero().flatten()[3:]] = 0  # too few positives
    logits = data.logits.clone()
    logits[:, 2] = 1.0  # nothing to reproduce
    broken = Activations(data.z, logits, labels)
    found = fit_all(broken, None, [0, 1, 2, 9, 3], slots=2)
    assert isinstance(found[1], DataError)
    assert "3 positive image(s)" in str(found[1])
    assert isinstance(found[2], DataError)
    assert "same on every" in str(found[2])
    assert "out of range" in str(found[3])
    for position in (0, 4):
        assert found[position][1].validation.r2 > 0


def test_a_loss_that_explodes_ends_its_fit_alone():
    data, validation = many_classes(dtype=torch.float64), many_classes(seed=1, dtype=torch.float64)
    logits = validation.logits.clone()
    logits[0, 1] = 1e300  # its square is infinite
    wild = Activations(validation.z, logits, validation.labels)
    found = fit_all(data, wild, [0, 1, 2], slots=3)
    assert isinstance(found[1], NonFiniteError)
    for target in (0, 2):
        assert distance(found[target][0], alone(data, validation, target)[0]) < 1e-6


def test_trials_are_run_again_until_a_fit_is_good_enough():
    data, validation = (many_classes(seed=s) for s in (0, 1))
    config = replace(QUICK, trials=3, enough_active=3, epochs=2, split_logit=False)
    for target, (embedding, report) in enumerate(
        fit_all(data, validation, [0, 1, 2, 3], config, slots=2)
    ):
        expected, single = alone(data, validation, target, config)
        assert report.trials == single.trials
        assert distance(embedding, expected) < 1e-4


def test_epochs_are_told_by_position():
    told = []
    data = many_classes()
    fit_group(
        data,
        None,
        [(0,), (1,), (2,)],
        3,
        replace(QUICK, epochs=2, patience=9),
        ComputeConfig(slots=2),
        lambda *_: None,
        lambda position, trial, epoch, current: told.append((position, trial, epoch)),
    )
    assert sorted(told) == [(p, 0, e) for p in range(3) for e in (1, 2)]


# The subspace


def test_an_expanded_embedding_is_the_same_function():
    data = make_data()
    scaled = data.z / 2.0
    torch.manual_seed(0)
    embedding = SRAE(20, 3, 1, (16, 8), subspace=principal_subspace(scaled, 5))
    with torch.no_grad():
        embedding.scale.fill_(2.0)
    plain = embedding.expanded()
    assert plain.subspace is None
    assert plain.encoder[0].weight.shape == (16, 20)
    with torch.no_grad():
        features = embedding.encode(data.z)
        assert torch.allclose(plain.encode(data.z), features, atol=1e-5)
        assert torch.allclose(plain.decode(features), embedding.decode(features), atol=1e-5)
    assert plain.expanded() is plain


def test_the_principal_subspace_is_that_of_a_singular_value_decomposition(monkeypatch):
    torch.manual_seed(0)
    z = torch.randn(60, 4, dtype=torch.float64) @ torch.randn(4, 12, dtype=torch.float64) + 3
    z += 0.01 * torch.randn(60, 12, dtype=torch.float64)
    for exact in (2048, 3):
        monkeypatch.setattr("torchxnn.embeddings.subspace.EXACT_DIMS", exact)
        found = principal_subspace(z, 4)
        basis = torch.linalg.svd(z - z.mean(0), full_matrices=False)[2][:4]
        assert torch.allclose(found.basis @ found.basis.mT, basis.mT @ basis, atol=1e-6)
        assert torch.allclose(found.basis.mT @ found.basis, torch.eye(4, dtype=z.dtype), atol=1e-9)
        rest = found.span(found.project(z)) + found.mean - z
        assert float(rest.abs().max()) < 0.1


def test_a_subspace_holds_the_directions_in_which_logits_are_read():
    """With singular value decompositions: those of most variance, and what is left of Z."""
    torch.manual_seed(0)
    z = torch.randn(80, 10, dtype=torch.float64) * torch.logspace(0, -3, 10)
    weight = torch.zeros(4, 10, dtype=torch.float64)
    weight[:3, 7:] = torch.diag(torch.tensor([5.0, 50.0, 1.0]))  # where Z hardly varies
    weight[3] = weight[0] + weight[1]
    read = directions_of_logits(z, weight, 5)
    assert read.shape == (10, 3), "four logits vary in three ways"
    logits = (z - z.mean(0)) @ weight.mT
    expected = weight.mT @ torch.linalg.svd(logits)[2][:3].mT
    angles = torch.linalg.svdvals(torch.linalg.qr(read).Q.mT @ torch.linalg.qr(expected).Q)
    assert torch.allclose(angles, torch.ones(3, dtype=torch.float64))
    one = directions_of_logits(z, weight, 1)[:, 0]
    assert float((one / one.norm()) @ expected[:, 0] / expected[:, 0].norm()).__abs__() > 1 - 1e-9
    found = principal_subspace(z, 5, within=read)
    assert torch.allclose(found.basis.mT @ found.basis, torch.eye(5).double(), atol=1e-9)
    inside = found.basis @ (found.basis.mT @ read)
    assert torch.allclose(inside, read, atol=1e-9)
    assert torch.allclose(found.basis[:2].norm(dim=1), torch.ones(2).double(), atol=0.01)


@pytest.mark.parametrize("exact", [True, False])
def test_a_subspace_larger_than_what_z_varies_in_is_orthonormal(exact, monkeypatch):
    """Dead units: 61 of 128 dimensions vary, 64 are asked for, 10 of them for the logits."""
    if not exact:
        monkeypatch.setattr("torchxnn.embeddings.subspace.EXACT_DIMS", 16)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(960, 128, generator=generator).relu()
    z[:, torch.randperm(128, generator=generator)[:67]] = 0
    read = torch.randn(128, 10, generator=generator) * (z.var(0) > 0).unsqueeze(1)
    found = principal_subspace(z, 64, 0, read)
    assert torch.allclose(found.basis.mT @ found.basis, torch.eye(64), atol=1e-5)
    assert torch.allclose(found.basis @ (found.basis.mT @ read), read, atol=1e-4)
    centred = z - found.mean
    assert torch.allclose(centred @ found.basis @ found.basis.mT, centred, atol=1e-4)


def test_a_subspace_of_all_dimensions_is_none():
    data = many_classes()
    whole = alone(data, None, 0, replace(QUICK, subspace=20))[0]
    assert distance(whole, alone(data, None, 0)[0]) == 0.0
    with pytest.raises(XNNError, match="subspace must be at least 1"):
        alone(data, None, 0, replace(QUICK, subspace=0))


@pytest.mark.parametrize("every", ["Cosine", 0, -1, 2.5])
def test_a_schedule_that_is_none_is_refused_at_once(every):
    config = replace(QUICK)
    object.__setattr__(config, "decay_every", every)  # types are checked in tests alone
    with pytest.raises(XNNError, match="decay_every must be"):
        config.check()


def test_reported_losses_in_a_subspace_are_those_of_all_of_z():
    data, validation = (many_classes(seed=s) for s in (0, 1))
    embedding, report = alone(data, validation, 1, replace(QUICK, subspace=4, components=0.0))
    split = Split(
        validation,
        validation.logits[:, [1]],
        (validation.labels == 1).unsqueeze(1),
        sample_weights(validation, [1], QUICK.positive_share),
    )
    spread = data.logits[:, [1]].std(0, correction=0)
    again = full_set_losses(embedding, split, spread, QUICK)
    assert embedding.subspace is None
    assert again.total == pytest.approx(report.validation_losses.total, rel=1e-5)


# Stacks, running means, schedules


def stack_of(count=3, device="cpu", **settings):
    torch.manual_seed(0)
    embeddings = [SRAE(6, 3, 1, (5, 4), **settings) for _ in range(count)]
    return embeddings, Stack(embeddings, torch.device(device))


def test_a_stack_computes_what_its_embeddings_compute():
    embeddings, stack = stack_of()
    z = torch.rand(3, 7, 6)
    features = stack.encode(z)
    for fit, embedding in enumerate(embeddings):
        assert torch.allclose(features[fit], embedding.encode(z[fit]), atol=1e-6)
        assert torch.allclose(
            stack.decode_scaled(features)[fit], embedding.decode(features[fit]), atol=1e-6
        )
        assert torch.allclose(
            stack.readout(features)[fit], embedding.readout(features[fit]), atol=1e-6
        )
    copied = copy.deepcopy(embeddings[0])
    stack.take(2, copied)
    assert distance(copied, embeddings[2]) == 0.0
    stack.put(0, embeddings[2])
    assert len(stack) == 3
    stack.take(0, copied)
    assert distance(copied, embeddings[2]) == 0.0


@pytest.mark.parametrize("pooling", ["none", "max", "average"])
def test_a_stack_of_maps_computes_what_its_embeddings_compute(pooling):
    torch.manual_seed(0)
    embeddings = [ConvSRAE(4, (3, 5), 2, 2, (6,), pooling=pooling).double() for _ in range(2)]
    stack = Stack(embeddings, torch.device("cpu"))
    z = torch.rand(2, 7, 4, 3, 5).double()
    features = stack.encode(torch.stack([stack.samples(each) for each in z]))
    decoded, reproduced = stack.decode_scaled(features), stack.readout(features)
    for fit, embedding in enumerate(embeddings):
        maps = embedding.encode(z[fit])
        torch.testing.assert_close(features[fit], stack.samples(maps))
        torch.testing.assert_close(decoded[fit], stack.samples(embedding.decode(maps)))
        torch.testing.assert_close(reproduced[fit], embedding.reproduce(maps))
        torch.testing.assert_close(stack.summarise(features)[fit], embedding.summarise(maps))
        places = torch.tensor([[0, 14], [3, 7]])
        chosen = maps.flatten(2)[:, :, places[fit]].mT.flatten(0, 1)
        torch.testing.assert_close(stack.at(features, places)[fit], chosen)
    copied = copy.deepcopy(embeddings[0])
    stack.take(1, copied)
    assert distance(copied, embeddings[1]) == 0.0


def test_gradients_lie_in_memory_like_their_parameters():
    """Fused optimisers ignore strides: a transposed gradient would be taken in a wrong order."""
    _, stack = stack_of()
    loss = stack.decode_scaled(stack.encode(torch.rand(3, 7, 6))).square().sum()
    names = [name for name in stack.values if not name.startswith("readout")]
    gradients = torch.autograd.grad(loss, [stack.values[name] for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient.stride() == stack.values[name].stride(), name


def meta_rows(fits, batch, n=3):
    """What fits would have beside Z, on a device without values."""

    def empty(*shape, dtype=torch.float32):
        return torch.empty(fits, *shape, device="meta", dtype=dtype)

    return StackedSplit(
        empty(batch, 1),
        empty(1, 1),
        empty(batch),
        empty(batch, dtype=torch.bool),
        empty(batch, 2),
        empty(2),
        empty(batch, n),
        empty(),
    )


def test_a_step_runs_on_the_meta_device():
    """Nothing in a step asks for a value on the host, so it runs where there are none."""
    _, stack = stack_of(device="meta")
    z, index = torch.empty(3, 7, 6, device="meta"), torch.zeros(3, 7, dtype=int, device="meta")
    rows = meta_rows(3, 20).at(index)
    terms = batch_statistics(stack, z, z, rows, "sparse")
    loss = loss_of_terms(terms, rows.shares, QUICK)
    gradients = torch.autograd.grad(loss.sum(), list(stack.values.values()))
    assert all(gradient.is_meta for gradient in gradients)
    assert loss.shape == (3,)


def test_a_step_of_maps_runs_on_the_meta_device():
    stack = Stack([ConvSRAE(4, (3, 5), 2, 1, (6,))], torch.device("meta"))
    z = torch.empty(1, 7 * 15, 4, device="meta")
    places = torch.empty(1, 5, dtype=torch.long, device="meta")
    rows = replace(meta_rows(1, 7, 2), components=None, held=None)
    terms = batch_statistics(stack, z, z, rows, "sparse", places)
    loss = loss_of_terms(terms, rows.shares, QUICK)
    gradients = torch.autograd.grad(loss.sum(), list(stack.values.values()))
    assert all(gradient.is_meta for gradient in gradients)


def test_bfloat16_is_close():
    data, validation = (many_classes(seed=s) for s in (0, 1))
    config = replace(QUICK, epochs=3, patience=9, learning_rate=1e-3)
    plain = fit_all(data, validation, [0, 1], config)
    rounded = fit_all(data, validation, [0, 1], config, autocast=True)
    for (_, first), (_, second) in zip(plain, rounded, strict=True):
        assert second.validation_losses.total == pytest.approx(
            first.validation_losses.total, rel=0.05
        )
        assert second.validation_losses.total != first.validation_losses.total


def test_the_compiled_path(monkeypatch):
    compiled = []

    def compile_(function):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    data = many_classes()
    config = replace(QUICK, epochs=2)
    first = fit_all(data, None, [0], config)[0][0]
    second = fit_all(data, None, [0], config, compile=True)[0][0]
    assert compiled == [batch_statistics]
    assert distance(first, second) == 0.0


def test_compiled_products_are_not_taken_apart():
    graphs = []

    def backend(graph, _):
        graphs.append([node.op for node in graph.graph.nodes])
        return graph.forward

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(3, 5, 5, generator=generator, requires_grad=True) for _ in range(2))
    unchecked = inspect.unwrap(products)  # what checks shapes in tests cannot be compiled
    found = torch.compile(unchecked, backend=backend, fullgraph=True)(left, right)
    assert torch.equal(found, left @ right)
    assert [ops.count("call_function") + ops.count("call_method") for ops in graphs] == [1]
    found.sum().backward()
    assert left.grad is not None


def test_running_means_have_the_value_of_the_set_and_the_gradient_of_the_batch():
    means = RunningMeans()
    value = torch.tensor([2.0, 1.0], requires_grad=True)
    assert means.update("x", value, 0.5).tolist() == [2.0, 1.0]
    second = means.update("x", value * 3, 0.5)
    assert second.tolist() == [4.0, 2.0]  # 2 + (6 - 2) / 2
    second.sum().backward()
    assert value.grad.tolist() == [3.0, 3.0]
    third = means.update("x", value.detach(), 0.5, torch.tensor([True, False]))
    assert third.tolist() == [3.0, 2.0]
    means.forget(1)
    assert means.update("x", torch.tensor([3.0, 9.0]), 0.5).tolist() == [3.0, 9.0]
    means.keep([1])
    assert means.update("x", torch.tensor([1.0]), 0.5).tolist() == [5.0]


def test_running_means_of_nothing_yet():
    means = RunningMeans()
    nothing = means.update("x", torch.tensor([5.0, 0.0]), 0.5, torch.tensor([True, False]))
    assert nothing.tolist() == [5.0, 0.0]
    assert means.update("x", torch.tensor([7.0, 4.0]), 0.5).tolist() == [6.0, 4.0]


def test_a_course_ends_when_the_loss_stops_falling():
    def at(total):
        return Losses(total, 0.0, 0.0, total)

    config = replace(QUICK, patience=2, epochs=9, decay_every=2, learning_rate=1.0, revive=2)
    schedule = Schedule(config, at(5.0))
    assert schedule.advance(at(4.0))
    assert not schedule.advance(at(4.5))
    assert schedule.learning_rate == pytest.approx(0.1)
    assert not schedule.ended
    schedule.advance(at(4.2))
    assert schedule.ended
    assert (schedule.best.total, schedule.best_epoch) == (4.0, 1)
    assert [schedule.revives_after(e) for e in (1, 2, 4, 6)] == [False, True, True, False]
    falling = replace(config, decay_every="cosine", epochs=4)
    rates = [Schedule(falling, at(5.0), epoch=epoch).learning_rate for epoch in range(5)]
    assert rates == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0])
    with pytest.raises(NonFiniteError, match="epoch 4"):
        schedule.advance(at(float("nan")))


# Losses with further dimensions in front


def test_losses_of_many_fits_are_those_of_each():
    torch.manual_seed(0)
    features, weights = torch.rand(4, 9, 3), torch.rand(4, 9)
    groups = torch.nn.functional.one_hot(torch.arange(9) % 2).float().expand(4, -1, -1)
    shares = weights.unsqueeze(1) @ groups / weights.sum(1)[:, None, None]
    moments = second_moments(features, weights)
    means = group_moments(features, groups, weights)
    together = losses.pull_away(moments, means, shares.squeeze(1))
    errors = losses.reconstruction_errors(features, features.flip(1), weights)
    faithful = losses.faithfulness(features, features.flip(1), weights)
    for fit in range(4):
        single = losses.pull_away(
            second_moments(features[fit], weights[fit]),
            group_moments(features[fit], groups[fit], weights[fit]),
            shares[fit, 0],
        )
        assert float(together[fit]) == pytest.approx(float(single), rel=1e-5)
        other = features[fit].flip(0)
        assert torch.allclose(
            errors[fit], losses.reconstruction_errors(features[fit], other, weights[fit])
        )
        assert torch.allclose(
            faithful[fit], losses.faithfulness(features[fit], other, weights[fit])
        )


def test_fits_of_one_target_differ_in_their_seeds_and_are_those_of_their_seeds():
    data, validation = (many_classes(seed=s, dtype=torch.float64) for s in (0, 1))
    found, begun = {}, []

    def begin(position, trial, embedding):
        begun.append((position, trial, embedding.encode(data.z).detach()))

    fit_group(
        data,
        validation,
        [(4,)] * 3,
        3,
        QUICK,
        ComputeConfig(slots=2),
        found.__setitem__,
        seeds=[7, 8, 7],
        on_start=begin,
    )
    for position, seed in enumerate((7, 8, 7)):
        embedding, report = found[position]
        expected, single = alone(data, validation, 4, replace(QUICK, seed=seed))
        assert report.config == single.config
        assert report.validation.r2 == pytest.approx(single.validation.r2, abs=1e-6)
        assert distance(embedding, expected) < 1e-6
    starts = {position: at for position, trial, at in begun if trial == 0}
    assert set(starts) == {0, 1, 2}
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])
