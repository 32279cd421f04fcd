import numpy as np
import torch

from torchxnn.embeddings import fit_pca


def make_z(count=80, dims=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3, 0.5, dims)
    return torch.randn(count, dims, generator=generator) * spread + 2


def test_components_and_scores_are_those_of_the_singular_value_decomposition():
    z = make_z()
    embedding = fit_pca(z, 4)
    centred = (z - z.mean(0)).double().numpy()
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    components = embedding.encoder.weight.detach().double().numpy()
    signs = np.sign((components * right[:4]).sum(1))
    assert np.allclose(components, signs[:, None] * right[:4], atol=1e-5)
    scores = embedding.encode(z).detach().numpy()
    assert np.allclose(scores, (left * values)[:, :4] * signs, atol=1e-4)
    largest = np.abs(components).argmax(1)
    assert (components[np.arange(4), largest] > 0).all()


def test_the_reconstruction_is_the_best_of_its_rank():
    z = make_z()
    values = torch.linalg.svdvals((z - z.mean(0)).double())
    for n in (1, 4, 9):
        embedding = fit_pca(z, n)
        error = (embedding.decode(embedding.encode(z)) - z).square().sum()
        assert torch.allclose(error.double(), values[n:].square().sum(), rtol=1e-4, atol=1e-4)


def test_units_are_the_scores_themselves():
    z = make_z()
    embedding = fit_pca(z, 3)
    assert torch.equal(embedding.units()(z), embedding.encode(z))
    assert torch.allclose(embedding.encode(z).mean(0), torch.zeros(3), atol=1e-4)


def test_components_beyond_the_rank_have_score_zero():
    z = torch.randn(40, 2) @ torch.randn(2, 6) + 1
    embedding = fit_pca(z, 5)
    assert torch.allclose(embedding.encode(z)[:, 2:], torch.zeros(40, 3), atol=1e-4)
    weight = embedding.encoder.weight
    assert torch.allclose(weight @ weight.mT, torch.eye(5), atol=1e-5)
    assert torch.allclose(fit_pca(torch.ones(5, 4), 2).encode(torch.ones(3, 4)), torch.zeros(3, 2))
