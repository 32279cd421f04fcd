"""Linear models of wide Z are those of the covariance, without a matrix of its size."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode

from device_examples import opened
from torchxnn.embeddings import linear, subspace, wide
from torchxnn.embeddings.linear import fit_linear
from torchxnn.embeddings.subspace import directions_of_logits, principal_subspace
from torchxnn.errors import NonFiniteError, XNNWarning


def literal(z, outputs, weights, ridge):
    """Ridge regression with a matrix of d x d, in NumPy."""
    share = weights / weights.sum()
    centred, wanted = z - share @ z, outputs - share @ outputs
    covariance = (centred * share[:, None]).T @ centred
    damping = ridge * np.diag(covariance).mean()
    if np.trace(covariance) <= (1e-14 * np.linalg.norm(share @ z)) ** 2:  # rounding
        weight = np.zeros((outputs.shape[1], z.shape[1]))
    else:
        cross = (centred * share[:, None]).T @ wanted
        weight = np.linalg.solve(covariance + damping * np.eye(len(covariance)), cross).T
    return weight, share @ outputs - weight @ (share @ z)


@st.composite
def problems(draw):
    """Z after a ReLU with dead units, constant columns and the same row twice; weights with 0."""
    samples, dims = draw(st.integers(2, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    z = np.maximum(rng.normal(size=(samples, dims)), 0)
    z[:, rng.random(dims) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = draw(st.sampled_from([0, 3]))
    if draw(st.booleans()):
        z[-1] = z[0]
    weights = rng.random(samples) * (rng.random(samples) < draw(st.sampled_from([0.6, 1.0])))
    weights[0] = 1.0
    return z, rng.normal(size=(samples, draw(st.integers(1, 5)))), weights


HOW = {"by the smaller side": 8192, "by conjugate gradients": 0}


@pytest.fixture(params=HOW)
def wide_ones(request, monkeypatch):
    """Every layer counts as wide, and everything is done in many small parts."""
    monkeypatch.setattr(linear, "WIDE", 0)
    monkeypatch.setattr(wide, "LARGEST_SIDE", HOW[request.param])
    for name, value in {"VALUES_AT_ONCE": 40, "BLOCK": 3, "OUTPUTS_AT_ONCE": 2}.items():
        monkeypatch.setattr(wide, name, value)


@pytest.mark.usefixtures("wide_ones")
@pytest.mark.parametrize("ridge", [1.0, 0.03, 1e-3])
def test_a_wide_layer_gives_the_solution_of_the_covariance(ridge):
    @settings(max_examples=40, deadline=None)
    @given(problems())
    def compare(problem):
        z, outputs, weights = map(torch.from_numpy, problem)
        before = z.clone()
        weight, bias = fit_linear(z, outputs, weights, ridge)
        expected_weight, expected_bias = map(torch.from_numpy, literal(*problem, ridge))
        size = float(expected_weight.abs().max()) + 1e-3
        assert float((weight - expected_weight).abs().max()) < 1e-6 * size
        assert torch.allclose(bias, expected_bias, atol=1e-6 * (1 + 10 * size))
        assert torch.equal(z, before), "the caller's activations are left as they are"

    compare()


def test_exact_solutions_are_those_of_the_covariance_to_rounding(monkeypatch):
    """Without conjugate gradients there is no tolerance, for small penalties either."""
    generator = torch.Generator().manual_seed(0)
    for samples, dims in ((40, 90), (90, 40), (60, 60)):
        z = torch.relu(torch.randn(samples, dims, generator=generator, dtype=torch.float64))
        z[3], z[:, 5] = z[4], 0.0
        outputs = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
        weights = torch.rand(samples, generator=generator, dtype=torch.float64)
        for ridge in (0.03, 1e-6):
            monkeypatch.setattr(linear, "WIDE", 2048)
            expected = fit_linear(z, outputs, weights, ridge)
            monkeypatch.setattr(linear, "WIDE", 0)
            found = fit_linear(z, outputs, weights, ridge)
            for one, other in zip(found, expected, strict=True):
                size = float(other.abs().max())
                assert torch.allclose(one, other, rtol=0, atol=2e-14 / ridge * size)


@pytest.mark.usefixtures("wide_ones")
def test_two_images_of_three_dimensions_by_hand():
    """Deviations are (1, 0, 0) and its negative, so the variance is 1 / 3 on average.

    The outputs deviate by 2, and the weight is 2 / (1 + 3 / 3).
    """
    z = torch.tensor([[2.0, 5.0, 0.0], [0.0, 5.0, 0.0]])
    outputs = torch.tensor([[4.0], [0.0]])
    weight, bias = fit_linear(z, outputs, torch.ones(2), ridge=3.0)
    assert torch.allclose(weight, torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.allclose(bias, torch.tensor([1.0]))
    assert weight.dtype == torch.float32


@pytest.mark.usefixtures("wide_ones")
def test_nothing_that_varies_has_no_weight():
    weight, bias = fit_linear(torch.ones(4, 6), torch.arange(4.0).unsqueeze(1), torch.ones(4))
    assert torch.equal(weight, torch.zeros(1, 6))
    assert torch.allclose(bias, torch.tensor([1.5]))


@pytest.mark.usefixtures("wide_ones")
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_wide_layer_with_nan_is_refused(wrong):
    z, outputs = torch.rand(5, 8), torch.rand(5, 1)
    z[2, 3] = wrong
    with pytest.raises(NonFiniteError, match="Z or the outputs of a linear fit"):
        fit_linear(z, outputs, torch.ones(5))
    with pytest.raises(NonFiniteError, match="Z or the outputs of a linear fit"):
        fit_linear(torch.rand(5, 8), torch.full((5, 1), wrong), torch.ones(5))


def test_conjugate_gradients_end_at_their_tolerance_and_say_when_they_do_not(monkeypatch):
    monkeypatch.setattr(linear, "WIDE", 0)
    monkeypatch.setattr(wide, "LARGEST_SIDE", 0)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(80, 50, generator=generator, dtype=torch.float64)
    outputs, weights = z @ torch.randn(50, 2, generator=generator).double(), torch.ones(80)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight, _ = fit_linear(z, outputs, weights, 0.03)
    centred = z - z.mean(0)
    damping = 0.03 * centred.square().mean()
    cross = centred.mT @ (outputs - outputs.mean(0)) / 80
    left = cross - centred.mT @ (centred @ weight.mT) / 80 - damping * weight.mT
    assert bool((left.norm(dim=0) <= 2 * wide.CLOSE * cross.norm(dim=0)).all())
    monkeypatch.setattr(wide, "MOST_STEPS", 3)
    with pytest.warns(XNNWarning, match=r"not solved to the end: after 3 steps 0\.\d+ of it"):
        fit_linear(z, outputs, weights, 0.03)


def test_a_matrix_that_rounding_made_indefinite_is_solved_all_the_same():
    gram = torch.diag(torch.tensor([4.0, -1e-9], dtype=torch.float64))
    wanted, damping = torch.ones(2, 1, dtype=torch.float64), torch.tensor(1e-10).double()
    found = wide._solve(gram, wanted, damping)
    assert torch.allclose(found[:, 0], torch.tensor([0.25, 1e10], dtype=torch.float64), rtol=1e-6)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made in a `with`, views left aside."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result._base is None:
            self.numbers = max(self.numbers, result.numel())
        return result


def test_no_tensor_is_as_large_as_a_covariance_or_as_z(monkeypatch):
    monkeypatch.setattr(wide, "VALUES_AT_ONCE", 2**14)
    monkeypatch.setattr(subspace, "VALUES_AT_ONCE", 2**14)
    generator = torch.Generator().manual_seed(0)
    z = torch.relu(torch.randn(60, 2500, generator=generator))
    outputs = z[:, :10] + 1
    with Largest() as made:
        weight, _ = fit_linear(z, outputs, torch.ones(60), 0.03)
        scale = torch.tensor(2.0)
        read = directions_of_logits(z, weight, 8, scale=scale)
        found = principal_subspace(z, 20, 0, read, scale)
    assert made.numbers < z.numel() // 2
    assert found.basis.shape == (2500, 20)


def test_a_wide_subspace_is_that_of_a_singular_value_decomposition(monkeypatch):
    """Of scaled Z, beside what the logits are read from, in many parts."""
    monkeypatch.setattr(subspace, "VALUES_AT_ONCE", 100)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 5, generator=generator) @ torch.randn(5, 30, generator=generator) + 3
    z = (z + 0.01 * torch.randn(60, 30, generator=generator)).double()
    read = torch.randn(30, 2, generator=generator).double()
    expected = principal_subspace(z / 2.5, 6, 0, read)
    monkeypatch.setattr(subspace, "EXACT_DIMS", 3)
    found = principal_subspace(z, 6, 0, read, torch.tensor(2.5).double())
    assert torch.allclose(found.mean, expected.mean)
    projections = [each.basis @ each.basis.mT for each in (found, expected)]
    assert torch.allclose(*projections, atol=1e-6)


@pytest.mark.parametrize("largest", [8192, 0])
def test_wide_linear_models_and_subspaces_on_a_gpu_of_apple(monkeypatch, largest):
    """Which has no float64 and no QR."""
    monkeypatch.setattr(linear, "WIDE", 8)
    monkeypatch.setattr(wide, "LARGEST_SIDE", largest)
    monkeypatch.setattr(subspace, "EXACT_DIMS", 8)
    generator = torch.Generator().manual_seed(0)
    z = torch.relu(torch.randn(40, 30, generator=generator))
    outputs = z[:, :3] + 0.1
    expected = fit_linear(z, outputs, torch.ones(40), 0.03)
    basis = principal_subspace(z, 6, 0, expected[0].mT).basis
    with opened("apple") as device:
        there = z.to(device)
        weight, bias = fit_linear(there, outputs.to(device), torch.ones(40, device=device), 0.03)
        found = principal_subspace(there, 6, 0, weight.mT).basis
        assert weight.device.type == bias.device.type == found.device.type == device.type
        weight, bias, found = weight.cpu(), bias.cpu(), found.cpu()
    torch.testing.assert_close((weight, bias), expected)
    torch.testing.assert_close(found @ found.mT, basis @ basis.mT, atol=1e-4, rtol=0)
