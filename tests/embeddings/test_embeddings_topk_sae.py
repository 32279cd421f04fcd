import importlib
import importlib.util
import sys
import types

import pytest
import torch
from torch.nn.functional import normalize

from torchxnn.embeddings import TopKConfig, TopKSAE, fit_topk_sae
from torchxnn.embeddings.topk_sae import _revive
from torchxnn.errors import XNNError, XNNWarning


def make_z(count=400, parts=4, dims=16, seed=0):
    """Two of four directions at a time, far from 0."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(dims, dims, generator=generator))[0][:parts]
    order = torch.rand(count, parts, generator=generator).argsort(1)
    codes = (torch.rand(count, parts, generator=generator) + 0.5) * (order < 2)
    return 5 * codes @ directions + 1, directions, 5 * codes


@torch.no_grad()
def explained(embedding, z):
    error = (embedding.decode(embedding.encode(z)) - z).square().sum()
    return 1 - float(error / (z - z.mean(0)).square().sum())


@pytest.fixture(scope="module")
def fitted():
    z, _, _ = make_z()
    return fit_topk_sae(z, 4, TopKConfig(top_k=2))


def test_planted_directions_are_found(fitted):
    z, directions, _ = make_z()
    found = fitted.decoder.weight.detach().mT
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)
    cosines = found @ directions.mT
    assert sorted(cosines.argmax(1).tolist()) == [0, 1, 2, 3]
    assert float(cosines.amax(1).min()) > 0.9
    assert explained(fitted, z) > 0.95
    assert not fitted.training


def test_at_most_top_k_concepts_are_active_and_they_are_the_largest(fitted):
    z, _, _ = make_z(seed=1)
    codes, units = fitted.encode(z), fitted.units()(z)
    assert bool(((codes > 0).sum(1) <= 2).all())
    kept = codes > 0
    assert torch.equal(codes[kept], units[kept])
    smallest_kept = torch.where(kept, codes, torch.inf).amin(1, keepdim=True)
    assert bool((units[~kept] <= smallest_kept.expand_as(units)[~kept]).all())


def test_all_concepts_at_once_is_a_plain_autoencoder_and_no_less_faithful(fitted):
    z, _, _ = make_z()
    plain = fit_topk_sae(z, 4, TopKConfig(top_k=4))
    assert torch.equal(plain.encode(z), plain.units()(z))
    assert explained(plain, z) > 0.95


def test_codes_are_in_the_units_of_z(fitted):
    z, _, _ = make_z()
    scaled = fit_topk_sae(1024 * z, 4, TopKConfig(top_k=2))
    assert torch.allclose(scaled.encode(1024 * z), 1024 * fitted.encode(z), rtol=1e-3, atol=1)


def test_seeds_decide_and_the_global_random_state_does_not():
    z, _, _ = make_z(100)
    quick = TopKConfig(epochs=3)
    first = fit_topk_sae(z, 4, quick)
    torch.manual_seed(99)
    assert torch.equal(fit_topk_sae(z, 4, quick).encode(z), first.encode(z))
    other = fit_topk_sae(z, 4, TopKConfig(epochs=3, seed=1))
    assert not torch.equal(other.encode(z), first.encode(z))


def test_half_of_the_concepts_may_be_active_by_default():
    assert (TopKSAE(8, 5).top_k, TopKSAE(8, 25 - 1).top_k) == (3, 12)
    for top_k in (0, 6):
        with pytest.raises(XNNError, match=f"top_k is {top_k}"):
            TopKSAE(8, 5, top_k=top_k)


def test_dead_concepts_are_restarted_where_the_error_is_largest():
    z, _, _ = make_z(100)
    embedding = fit_topk_sae(z, 4, TopKConfig(epochs=3, top_k=2))
    with torch.no_grad():
        embedding.encoder.bias[1] = -1e6
        codes = embedding.encode(z)
        assert bool((codes[:, 1] == 0).all())
        residual = z - embedding.decode(codes)
        worst = int(residual.square().sum(1).argmax())
    alive = embedding.encoder.weight[[0, 2, 3]].clone()
    _revive(embedding, z)
    assert torch.equal(embedding.encoder.weight[[0, 2, 3]], alive)
    assert torch.allclose(embedding.decoder.weight[:, 1], normalize(residual[worst], dim=0))
    assert bool((embedding.units()(z)[:, 1] > 0).any())


def test_activations_that_do_not_vary_give_dead_concepts_and_a_warning():
    with pytest.warns(XNNWarning, match="2 of 2 concepts"):
        embedding = fit_topk_sae(torch.ones(20, 5), 2, TopKConfig(epochs=2))
    assert torch.allclose(embedding.decode(embedding.encode(torch.ones(3, 5))), torch.ones(3, 5))


def import_overcomplete(monkeypatch):
    """Its autoencoders alone: the package itself imports what newer matplotlib lacks."""
    spec = importlib.util.find_spec("overcomplete")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("overcomplete is not installed")
    package = types.ModuleType("overcomplete")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "overcomplete", package)
    try:
        return importlib.import_module("overcomplete.sae")
    except (ImportError, AttributeError) as error:
        pytest.skip(f"overcomplete cannot be imported: {error}")


def test_our_model_with_the_weights_of_overcomplete_gives_its_codes(monkeypatch):
    sae = import_overcomplete(monkeypatch)
    torch.manual_seed(0)
    theirs = sae.TopKSAE(16, nb_concepts=6, top_k=2).eval()
    linear, _ = theirs.encoder.final_block
    z, _, _ = make_z()
    ours = TopKSAE(16, 6, top_k=2)
    with torch.no_grad():
        ours.encoder.load_state_dict(linear.state_dict())
        ours.decoder.weight.copy_(theirs.get_dictionary().mT)
        ours.decoder.bias.zero_()
        _, codes, reconstruction = theirs(z)
        assert torch.allclose(ours.encode(z), codes, atol=1e-5)
        assert torch.allclose(ours.decode(ours.encode(z)), reconstruction, atol=1e-4)
