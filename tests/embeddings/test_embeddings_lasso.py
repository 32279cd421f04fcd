import numpy as np
import pytest
import torch

from torchxnn.embeddings import fit_lasso, fit_lasso_path, lasso_embedding
from torchxnn.embeddings import lasso as module
from torchxnn.errors import DataError, NonFiniteError, XNNError, XNNWarning


def make_problem(count=200, dims=30, seed=0):
    """Ten of the dimensions make the logit; neighbours are correlated; one is constant."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.relu(torch.randn(count, dims, generator=generator))
    z[:, 1:] += 0.5 * z[:, :-1]
    z[:, 7] = 3.0
    truth = torch.zeros(dims)
    truth[::3] = torch.linspace(-2, 2, 10)
    noise = torch.randn(count, generator=generator)
    return z, z @ truth + 0.3 * noise + 4, torch.rand(count, generator=generator) + 0.1


def dense(point, dims):
    row = np.zeros(dims)
    row[list(point.index)] = point.coefficients
    return row


def test_orthogonal_designs_are_soft_thresholded():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(64, 6, generator=generator, dtype=torch.float64)
    columns = torch.linalg.qr(raw - raw.mean(0))[0]
    columns = (columns - columns.mean(0)) * 8  # norm sqrt(64): unit variance
    logits = columns @ torch.tensor([3.0, -2.0, 1.0, 0.5, 0.0, -0.1]).double() + 7
    path = fit_lasso_path(columns, logits, most=6)
    assert path.alpha_max == pytest.approx(3, rel=1e-6)
    assert path.points[0].selected == 0
    for point in path.points:
        assert point.duality_gap <= 1e-6
        plain = columns.mT @ logits / 64
        expected = plain.sign() * (plain.abs() - point.alpha).clamp(min=0)
        assert np.allclose(dense(point, 6), expected.numpy(), atol=2e-3)
        assert point.intercept == pytest.approx(7, abs=1e-9)
    counts = [point.selected for point in path.points]
    assert counts == sorted(counts)


@pytest.mark.parametrize("weighted", [False, True])
def test_every_fit_meets_the_optimality_conditions(weighted):
    z, logits, weights = make_problem()
    shares = (weights if weighted else torch.ones(200)).double()
    shares = (shares / shares.sum()).numpy()
    path = fit_lasso_path(z, logits, weights if weighted else None, most=25)
    x, y = z.double().numpy(), logits.double().numpy()
    assert path.points[0].intercept == pytest.approx(shares @ y)
    for point in path.points:
        row = dense(point, 30)
        residual = y - x @ row - point.intercept
        assert shares @ residual == pytest.approx(0, abs=1e-9)  # the intercept is not penalised
        slope = x.T @ (shares * residual)
        slack = 1e-2 * point.alpha + 1e-9
        assert np.abs(slope).max() <= point.alpha + slack
        chosen = list(point.index)
        assert np.allclose(slope[chosen], point.alpha * np.sign(row[chosen]), atol=slack)
        assert -1e-9 <= point.duality_gap <= 1e-6
        assert point.converged


def test_the_duality_gap_bounds_the_distance_to_the_optimum():
    z, logits, _ = make_problem()
    weights = torch.ones(200).double()
    problem = module._prepare(z, logits, weights)
    path = fit_lasso_path(z, logits, most=20)
    point = path.nearest(10)

    def objective(row):
        residual = problem.y - problem.x @ row
        return residual @ residual / 400 + point.alpha * np.abs(row).sum()

    best = dense(point, 30)
    null = objective(np.zeros(30))
    generator = np.random.default_rng(0)
    for size in (0.0, 1e-3, 0.1, 1.0):
        row = best + size * generator.standard_normal(30)
        gap = module._duality_gaps(problem, np.array([point.alpha]), row[None])[0]
        assert (objective(row) - objective(best)) / null <= gap + 1e-6


def test_a_weight_of_two_is_the_sample_twice():
    z, logits, _ = make_problem(60)
    weights = torch.ones(60)
    weights[:20] = 2
    twice = torch.cat([torch.arange(60), torch.arange(20)])
    weighted = fit_lasso_path(z, logits, weights, most=8)
    repeated = fit_lasso_path(z[twice], logits[twice], most=8)
    assert weighted.alpha_max == pytest.approx(repeated.alpha_max)
    assert len(weighted.points) == len(repeated.points)
    for one, other in zip(weighted.points, repeated.points, strict=True):
        assert np.allclose(dense(one, 30), dense(other, 30), atol=1e-3)


def test_ratios_do_not_depend_on_the_scale_of_z():
    z, logits, _ = make_problem()
    path, scaled = fit_lasso_path(z, logits, most=8), fit_lasso_path(64 * z, logits, most=8)
    assert [point.index for point in path.points] == [point.index for point in scaled.points]
    assert [point.ratio for point in path.points] == [point.ratio for point in scaled.points]
    assert scaled.alpha_max == pytest.approx(64 * path.alpha_max)


def test_the_end_of_the_path_is_least_squares():
    z, logits, _ = make_problem()
    path = fit_lasso_path(z, logits, most=30, smallest_ratio=1e-5)
    last = path.points[-1]
    assert last.ratio == pytest.approx(1e-5, rel=0.04)
    assert last.selected == 29  # all but the constant one
    design = np.concatenate([z.double().numpy(), np.ones((200, 1))], 1)
    fitted = design @ np.linalg.lstsq(design, logits.double().numpy(), rcond=None)[0]
    own = z.double().numpy() @ dense(last, 30) + last.intercept
    assert np.allclose(own, fitted, atol=0.05)


def test_the_nearest_fit_is_the_least_shrunken_one():
    z, logits, _ = make_problem()
    path = fit_lasso_path(z, logits, most=20)
    counts = [point.selected for point in path.points]
    for wanted in (1, 5, 8, 20, 500):
        point = path.nearest(wanted)
        near = min(abs(count - wanted) for count in counts if count)
        assert abs(point.selected - wanted) == near
        assert point.ratio == min(
            p.ratio for p in path.points if p.selected and abs(p.selected - wanted) == near
        )
    assert path.nearest(20).selected in (19, 20, 21)
    with pytest.raises(XNNError, match="selected is 0"):
        path.nearest(0)


def test_the_embedding_reads_by_the_lassos_own_coefficients():
    z, logits, weights = make_problem()
    point = fit_lasso_path(z, logits, weights, most=5).nearest(5)
    embedding = fit_lasso(z, logits, 5, weights)
    assert embedding.index.tolist() == list(point.index)
    reproduced = embedding.reproduce(embedding.encode(z))[:, 0]
    expected = z.double().numpy() @ dense(point, 30) + point.intercept
    assert np.allclose(reproduced.detach().numpy(), expected, atol=1e-4)


def test_a_truncated_descent_gives_a_warning(monkeypatch):
    z, logits, _ = make_problem()
    monkeypatch.setattr(module, "TOLERANCE", 1e-2)
    with pytest.warns(XNNWarning, match="did not converge"):
        fit_lasso_path(z, logits, most=20)


def test_more_samples_than_dimensions_are_not_needed():
    z, logits, _ = make_problem(20)
    path = fit_lasso_path(z, logits, most=15)
    assert path.nearest(15).selected in (14, 15, 16)


def test_bad_input_is_refused():
    z, logits, _ = make_problem()
    with pytest.raises(DataError, match="select: the logit is the same"):
        fit_lasso_path(z, torch.full((200,), 5.3))
    with pytest.raises(DataError, match="select: Z is the same"):
        fit_lasso_path(torch.full((200, 3), 0.1), logits)
    uncorrelated = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    with pytest.raises(DataError, match="does not vary with Z"):
        fit_lasso_path(uncorrelated, torch.tensor([1.0, 1.0, -1.0, -1.0]))
    with pytest.raises(DataError, match="one logit per sample"):
        fit_lasso_path(z, logits[:10])
    with pytest.raises(NonFiniteError):
        fit_lasso_path(z, logits * torch.nan)
    for wrong in ({"most": 0}, {"smallest_ratio": 0.0}, {"smallest_ratio": 1.0}):
        with pytest.raises(XNNError, match="most is"):
            fit_lasso_path(z, logits, **wrong)
    with pytest.raises(DataError, match="different dimensions"):
        lasso_embedding(fit_lasso_path(z, logits, most=2).points[0], z)
