from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import nnls

from torchxnn.embeddings import fit_nmf
from torchxnn.embeddings.nmf import NMFConcepts, nonnegative_codes
from torchxnn.errors import DataError, NonFiniteError, XNNWarning


def make_parts(count=150, parts=4, dims=20, seed=0):
    """Each part has dimensions of its own; every sample is a mixture."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.zeros(parts, dims)
    for part in range(parts):
        dictionary[part, part * 5 : part * 5 + 5] = torch.rand(5, generator=generator) + 0.5
    dictionary = torch.nn.functional.normalize(dictionary, dim=1)
    codes = torch.relu(torch.randn(count, parts, generator=generator))
    return codes @ dictionary, dictionary, codes


def by_hand(gram, product_):
    """Try every set of positive codes."""
    best, found = np.inf, None
    for support in product([False, True], repeat=len(gram)):
        index = np.flatnonzero(support)
        row = np.zeros(len(gram))
        row[index] = np.linalg.lstsq(gram[np.ix_(index, index)], product_[index], rcond=None)[0]
        value = row @ gram @ row / 2 - product_ @ row
        if (row >= 0).all() and value < best:
            best, found = value, row
    return found


def test_planted_parts_are_found():
    z, dictionary, codes = make_parts()
    embedding = fit_nmf(z, 4)
    match = (embedding.dictionary.detach() @ dictionary.mT).argmax(1)
    assert sorted(match.tolist()) == [0, 1, 2, 3]
    assert torch.allclose(embedding.dictionary, dictionary[match], atol=0.02)
    assert torch.allclose(embedding.encode(z), codes[:, match], atol=0.1)
    assert torch.allclose(embedding.decode(embedding.encode(z)), z, atol=0.1)
    assert torch.allclose(embedding.units()(z), z @ embedding.dictionary.mT)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6))
def test_codes_are_those_of_an_exhaustive_search(seed, n, dims):
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(n, dims, generator=generator, dtype=torch.float64)
    z = torch.randn(6, dims, generator=generator, dtype=torch.float64)
    gram, products = dictionary @ dictionary.mT, z @ dictionary.mT
    codes = nonnegative_codes(gram, products)
    assert bool((codes >= 0).all())
    for row, side in zip(codes.numpy(), products.numpy(), strict=True):
        expected = by_hand(gram.numpy(), side)
        ours, best = (r @ gram.numpy() @ r / 2 - side @ r for r in (row, expected))
        assert ours == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("kind", ["independent", "repeated", "nearly equal", "low rank", "dead"])
def test_codes_meet_the_optimality_conditions(kind):
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.rand(16, 30, generator=generator, dtype=torch.float64)
    if kind == "repeated":
        dictionary[8:] = dictionary[:8].clone()
    if kind == "nearly equal":
        dictionary[8:] = dictionary[:8] + 1e-7 * dictionary[8:]
    if kind == "low rank":
        dictionary[3:] = torch.rand(13, 3, generator=generator).double() @ dictionary[:3]
    if kind == "dead":
        dictionary[5] = 0
    z = torch.rand(300, 30, generator=generator, dtype=torch.float64)
    gram, products = dictionary @ dictionary.mT, z @ dictionary.mT
    codes = nonnegative_codes(gram, products)
    size = products.abs().amax(1, keepdim=True)
    slope = (codes @ gram - products) / size
    assert bool((codes >= 0).all())
    assert float(slope.min()) > -1e-8
    assert float((codes * slope).abs().max() / size.min()) < 1e-8
    assert kind != "dead" or bool((codes[:, 5] == 0).all())
    for row in range(0, 300, 50):
        residual = nnls(dictionary.mT.numpy(), z[row].numpy())[1]
        assert float((z[row] - codes[row] @ dictionary).norm()) == pytest.approx(residual, abs=1e-8)


def test_many_samples_and_none():
    gram = torch.eye(2, dtype=torch.float64)
    products = torch.randn(3000, 2, dtype=torch.float64)
    assert torch.allclose(nonnegative_codes(gram, products), products.clamp(min=0))
    assert nonnegative_codes(gram, products[:0]).shape == (0, 2)
    with pytest.raises(NonFiniteError):
        nonnegative_codes(gram, products * torch.nan)


def test_a_dead_concept_has_code_zero_and_no_gradient_is_needed():
    embedding = NMFConcepts(3, 2)
    with torch.no_grad():
        embedding.projection.weight.copy_(torch.tensor([[0.0, 0.6, 0.8], [0.0, 0.0, 0.0]]))
    codes = embedding.encode(torch.tensor([[1.0, 2.0, 1.0]]))
    assert torch.allclose(codes, torch.tensor([[2.0, 0.0]]))


def test_dimensions_without_activity_do_no_harm():
    z, _, _ = make_parts()
    z[:, 0] = 0
    embedding = fit_nmf(z, 4)
    assert bool((embedding.dictionary[:, 0] == 0).all())
    assert bool(torch.isfinite(fit_nmf(torch.zeros(30, 6), 2).encode(torch.zeros(4, 6))).all())


def test_random_starts_depend_on_the_seed_alone():
    z, _, _ = make_parts()
    first, same, other = (fit_nmf(z, 3, seed=seed, init="random") for seed in (0, 0, 1))
    assert torch.equal(first.dictionary, same.dictionary)
    assert not torch.equal(first.dictionary, other.dictionary)


def test_negative_activations_and_too_few_iterations_are_named():
    z, _, _ = make_parts()
    with pytest.raises(DataError, match=r"50\.0% are negative .*least -1.*ReLU"):
        fit_nmf(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), 1)
    with pytest.warns(XNNWarning, match="did not converge in 2"):
        fit_nmf(z, 3, iterations=2)
