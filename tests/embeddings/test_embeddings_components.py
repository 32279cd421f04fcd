import numpy as np
import pytest
import torch

from torchxnn.embeddings.components import (
    SAME,
    consensus,
    find_components,
    match,
    read_logits,
    recurrence,
)
from torchxnn.embeddings.ica import WHOLE, unmix, unmix_many
from torchxnn.embeddings.linear import fit_linear
from torchxnn.errors import DataError, NonFiniteError

PARTS = 3


def shared_parts(count=600, outputs=8, seed=0):
    """Parts that several classes share: the logit of a class is the sum of its three parts.

    Of every image of class 0 each part is missing with probability 1/2. Parts lie in Z as three
    directions that overlap, beside noise.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % outputs
    kinds = torch.stack([(torch.arange(outputs) // 2**part) % 2 for part in range(PARTS)], 1)
    there = (torch.rand(count, PARTS, generator=generator) > 0.5).float()
    strength = there * (1 + 0.1 * torch.rand(count, PARTS, generator=generator))
    shown = kinds[labels]
    evidence = torch.zeros(count, 2 * PARTS)
    for part in range(PARTS):
        evidence[torch.arange(count), 2 * part + shown[:, part]] = strength[:, part]
    mixing = torch.rand(2 * PARTS, 20, generator=generator)
    z = evidence @ mixing + 0.01 * torch.rand(count, 20, generator=generator)
    own = torch.cat([torch.nn.functional.one_hot(kinds[:, p], 2) for p in range(PARTS)], 1)
    logits = 4 * evidence @ own.float().mT - 6
    return z, logits, labels, strength


def found(n=PARTS, **changes):
    z, logits, labels, strength = shared_parts()
    given = {"positives": labels == 0, "n_components": n, **changes}
    components = find_components(z, read_logits(z, logits), 0, **given)
    return components, z, logits, labels, strength


def test_components_are_the_parts_that_the_classes_share():
    components, z, _, labels, strength = found()
    own = labels == 0
    places, correlations = match(components.contributions(z)[own].double(), strength[own].double())
    assert sorted(places.tolist()) == [0, 1, 2]
    assert float(correlations.min()) > 0.97  # with their sign: a part adds to the logit
    # what a part is worth is its step, of 4 logits
    spread = components.contributions(z)[own].std(0)
    assert torch.allclose(spread, 4 * strength[own][:, places].std(0), rtol=0.1)


def test_they_add_up_to_the_linear_model_on_every_image():
    components, z, logits, _, _ = found()
    weight, bias = fit_linear(z, logits[:, [0]], torch.ones(len(z)), 0.03)
    expected = z @ weight[0] + bias
    assert torch.allclose(components.contributions(z).sum(1), expected, atol=1e-3)


def test_the_largest_component_comes_first_and_a_seed_gives_the_same_again():
    components, z, _, labels, _ = found()
    spread = components.contributions(z)[labels == 0].std(0)
    assert torch.equal(spread, spread.sort(descending=True).values)
    again, *_ = found()
    assert torch.equal(components.weight, again.weight)
    assert torch.equal(components.found_again, again.found_again)


def test_real_parts_are_found_again_and_noise_is_not():
    components, *_ = found()
    assert float(components.found_again.min()) > 0.8
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    noise = noise - noise.mean(0)
    unmixing = consensus(noise, 5, generator)
    assert float(recurrence(noise, unmixing, generator).mean()) < 0.5


def test_a_consensus_has_uncorrelated_sources_of_variance_one_where_all_starts_agree():
    _, logits, labels, _ = shared_parts()
    rows = logits[labels == 0].double()
    rows = rows - rows.mean(0)
    sources = rows @ consensus(rows, PARTS, torch.Generator().manual_seed(1)).mT
    assert torch.allclose(sources.std(0, correction=0), torch.ones(PARTS).double())
    assert torch.allclose(sources.mT @ sources / len(sources), torch.eye(PARTS).double(), atol=0.05)
    single = rows @ unmix(rows, PARTS, 5)[0].mT
    assert float(match(sources, single)[1].abs().min()) > 0.99


def few_rows(count=24, ways=50, seed=1):
    """As few as a class has, without independent causes; whole steps jump about for ever."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(count, 8, generator=generator, dtype=torch.float64)
    rows = sources @ torch.randn(8, ways, generator=generator, dtype=torch.float64)
    return rows - rows.mean(0)


def test_many_runs_begin_as_those_of_scikit_learn():
    rows, seeds = few_rows(), [3, 4, 5]
    for steps in (1, WHOLE):
        found, converged = unmix_many(rows.unsqueeze(0), 5, seeds, steps)
        assert not converged.any()
        for run, seed in zip(found, seeds, strict=True):
            expected = unmix(rows, 5, seed, steps)[0]
            torch.testing.assert_close(run, expected, rtol=0, atol=1e-6)
    drawn = torch.stack([few_rows(seed=seed) for seed in range(3)])
    found = unmix_many(drawn, 5, seeds, 4)[0]
    for run, rows, seed in zip(found, drawn, seeds, strict=True):
        torch.testing.assert_close(run, unmix(rows, 5, seed, 4)[0], rtol=0, atol=1e-6)


def test_runs_that_converged_are_where_a_whole_step_of_fastica_leads_back_to():
    rows = few_rows()
    found, converged = unmix_many(rows.unsqueeze(0), 5, range(20), 400)
    assert int(converged.sum()) >= 18
    assert sum(unmix(rows, 5, seed, 400)[2] for seed in range(20)) < 18, "whole steps suffice"
    for run in found[converged].numpy():
        s = run @ rows.numpy().T
        np.testing.assert_allclose(s @ s.T / len(rows), np.eye(5), atol=1e-9)
        g = np.tanh(s)
        step = g @ s.T / len(rows) - np.diag((1 - g**2).mean(1))
        values, vectors = np.linalg.eigh(step @ step.T)
        whole = vectors @ np.diag(values**-0.5) @ vectors.T @ step
        np.testing.assert_allclose(np.abs(whole), np.eye(5), atol=0.01)


def test_rounding_does_not_decide_what_a_run_finds():
    rows = few_rows()
    other = rows * (1 + 1e-9 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)))
    other = other - other.mean(0)
    first, second = (unmix_many(each.unsqueeze(0), 5, range(20), 400)[0] for each in (rows, other))
    same = ((first - second).abs().amax((1, 2)) < 1e-3).sum()
    assert int(same) >= 18
    whole = [(unmix(rows, 5, s, 200)[0] - unmix(other, 5, s, 200)[0]).abs().max() for s in range(8)]
    assert sum(float(gap) > 1e-3 for gap in whole) >= 3, "whole steps are as good"


def test_columns_are_matched_whatever_their_order_and_sign():
    first = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    places, correlations = match(first, -3 * first[:, order] + 1)
    assert torch.equal(order[places], torch.arange(4))
    assert torch.allclose(correlations, -torch.ones(4).double())
    constant = torch.cat([first[:, :1], torch.zeros(30, 1).double()], 1)
    assert match(constant, constant)[1].tolist() == pytest.approx([1.0, 0.0])
    assert 0 < SAME < 1


def test_too_little_variation_and_bad_numbers_are_named():
    z, logits, labels, _ = shared_parts()
    readout = read_logits(z, logits)
    few = torch.zeros(len(z), dtype=torch.bool)
    few[:2] = True
    with pytest.raises(DataError, match="logits of 2 positives vary in 1 ways, and 3"):
        find_components(z, readout, 0, few, PARTS)
    with pytest.raises(DataError, match="0 positives"):
        find_components(z, readout, 0, torch.zeros(len(z), dtype=torch.bool), PARTS)
    with pytest.raises(DataError, match="5 logits are too few to tell 3 causes apart; at least 6"):
        find_components(z, read_logits(z, logits[:, :5]), 0, labels == 0, PARTS)
    with pytest.raises(DataError, match="vectors"):
        read_logits(z[:, :, None, None], logits)
    with pytest.raises(DataError, match="600 samples of Z, but 599"):
        read_logits(z, logits[:-1])
    bad = logits.clone()
    bad[3, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="logits"):
        read_logits(z, bad)
    bad = z.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        find_components(bad, readout, 0, labels == 0, PARTS)


def test_a_way_in_which_nothing_varies_leaves_no_nan():
    """The first logit is the same everywhere, as of a class that a head does not use."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 28, generator=generator, dtype=torch.float64)
    rows[:, 0] = 0.0
    found, _ = unmix_many(rows.unsqueeze(0), 5, range(3), 400)
    assert bool(torch.isfinite(found).all())
    values = (rows - rows.mean(0)) @ found.mT
    assert torch.allclose(values.var(1, correction=0), torch.ones(3, 5, dtype=rows.dtype))
