import sys

import numpy as np
import pytest
import torch

from torchxnn.embeddings import fit_ica
from torchxnn.embeddings.directions import as_directions
from torchxnn.embeddings.ica import RIDGE, varies, ways_to_vary
from torchxnn.errors import DataError, NonFiniteError, XNNError, XNNWarning


def planted(count=300, seed=0):
    """Three independent, far from normal strengths, mixed into 12 dimensions; y is their sum."""
    generator = torch.Generator().manual_seed(seed)
    positives = torch.arange(count) % 2 == 0
    strength = (torch.rand(count, 3, generator=generator) < 0.5).float()
    strength += 0.2 * torch.rand(count, 3, generator=generator)
    strength[~positives] *= 0.3
    directions = torch.rand(3, 12, generator=generator)
    z = strength @ directions + 1
    return z, strength.sum(1), positives, strength


def test_components_are_the_planted_strengths_in_units_of_the_logit():
    z, logits, positives, strength = planted()
    embedding = fit_ica(z, logits, positives, 3)
    features = embedding.encode(z)[positives].detach()
    found = torch.corrcoef(torch.cat([features, strength[positives]], 1).mT)[:3, 3:].abs()
    assert sorted(found.argmax(1).tolist()) == [0, 1, 2]
    assert float(found.amax(1).min()) > 0.98
    order = found.argmax(1)
    assert torch.allclose(features.std(0), strength[positives][:, order].std(0), rtol=0.15)
    assert torch.equal(features.std(0), features.std(0).sort(descending=True).values)


def test_as_many_components_as_ways_to_vary_give_the_ridge_regression_of_the_positives():
    """The known limit: with nothing left out, contributions and intercept are the linear model."""
    z, logits, positives, _ = planted()
    embedding = fit_ica(z, logits, positives, 3)
    told = embedding.reproduce(embedding.encode(z))[positives, 0].detach()
    design = z.double().numpy()
    mean, centred = design.mean(0), design - design.mean(0)
    covariance = centred.T @ centred / len(z)
    damped = covariance + RIDGE * covariance.diagonal().mean() * np.eye(12)
    y = logits.double().numpy()
    weight = np.linalg.solve(damped, centred.T @ (y - y.mean()) / len(z))
    expected = torch.from_numpy(y.mean() + (design - mean) @ weight)[positives]
    assert torch.allclose(told.double(), expected, atol=1e-4)


def test_only_contributions_of_positives_are_split():
    z, logits, positives, _ = planted()
    other = z.clone()
    other[~positives] += torch.randn(z.shape, generator=torch.Generator().manual_seed(1))[
        ~positives
    ]
    weights = positives.float()
    first, second = (fit_ica(each, logits, positives, 3, weights) for each in (z, other))
    assert torch.allclose(first.encoder.weight, second.encoder.weight, atol=1e-5)


def test_an_order_and_a_seed_give_the_same_components():
    z, logits, positives, _ = planted()
    first, again = (fit_ica(z, logits, positives, 3, seed=4) for _ in range(2))
    assert torch.equal(first.encoder.weight, again.encoder.weight)


@pytest.mark.parametrize("columns", [3, 20, 130, 400])
@pytest.mark.parametrize("last", [1.0, 1.5e-6, 0.9e-6, 0.0])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_few_columns_never_change_whether_rows_vary_enough(columns, last, hidden):
    """Rank 3 with a third way that may be too weak, or not be seen in most columns."""
    generator = torch.Generator().manual_seed(columns)
    left, right = (
        torch.linalg.qr(torch.randn(size, 3, generator=generator, dtype=torch.float64)).Q
        for size in (50, columns)
    )
    if hidden:
        right[:-1, 2] = 0.0
    rows = left * torch.tensor([1.0, 0.5, last], dtype=torch.float64) @ right.mT
    for count in (1, 2, 3, 4, 60):
        assert varies(rows, count) == (ways_to_vary(rows) >= count)
    assert not varies(rows[:0], 1)


def test_a_few_columns_are_enough_to_see_that_rows_vary(monkeypatch):
    rows = torch.rand(50, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.delattr("torchxnn.embeddings.ica.ways_to_vary")
    assert varies(rows - rows.mean(0), 5)
    with pytest.raises(NameError):  # of these columns the first is all that varies
        varies(rows * (torch.arange(400) == 0), 5)


def test_too_little_variation_and_bad_numbers_are_named():
    z, logits, positives, _ = planted()
    with pytest.raises(DataError, match="150 positives vary in 3 ways, and 4"):
        fit_ica(z, logits, positives, 4)
    with pytest.raises(DataError, match="0 positives vary in 0 ways"):
        fit_ica(z, logits, torch.zeros_like(positives), 3)
    bad = z.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        fit_ica(bad, logits, positives, 3)


def test_a_fit_that_does_not_converge_warns(monkeypatch):
    import sklearn.decomposition

    real = sklearn.decomposition.FastICA

    def hasty(*given, **settings):
        return real(*given, **{**settings, "max_iter": 1, "tol": 1e-12})

    monkeypatch.setattr(sklearn.decomposition, "FastICA", hasty)
    z, logits, positives, _ = planted()
    with pytest.warns(XNNWarning, match="did not converge on 150 positives"):
        fit_ica(z, logits, positives, 3)


def test_without_scikit_learn_it_is_named(monkeypatch):
    z, logits, positives, _ = planted()
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(XNNError, match="pip install scikit-learn"):
        fit_ica(z, logits, positives, 3)


def test_directions_are_linear_and_decode_by_least_squares():
    z, *_ = planted()
    weight, bias = torch.eye(2, 12), torch.tensor([1.0, 2.0])
    embedding = as_directions(weight, bias, z)
    assert torch.allclose(embedding.encode(z), z[:, :2] + bias)
    assert torch.allclose(embedding.units()(z), z[:, :2] + bias)
    features = torch.cat([z[:, :2] + bias, torch.ones(len(z), 1)], 1).double()
    expected = features @ torch.linalg.lstsq(features, z.double()).solution
    assert torch.allclose(embedding.decode(embedding.encode(z)).double(), expected, atol=1e-4)
    with pytest.raises(DataError, match="directions of 5 dimensions for activations of 12"):
        as_directions(torch.zeros(2, 5), bias, z)
    with pytest.raises(DataError, match="vectors"):
        as_directions(weight, bias, z[:, :, None, None])
