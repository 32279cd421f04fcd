"""Linear maps in closed form: the same in every call, whatever lies in memory."""

import numpy as np
import pytest
import torch

from torchxnn.embeddings import linear


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("rank", [6, 4])
def test_least_squares_are_the_same_in_every_call_and_those_of_numpy(monkeypatch, stale, rank):
    """PyTorch before 2.14 began gelsy with pivots that nobody had written."""
    monkeypatch.setattr(linear, "STALE_PIVOTS", stale or linear.STALE_PIVOTS)
    generator = torch.Generator().manual_seed(rank)
    parts = [torch.randn(9, rank, generator=generator), torch.randn(rank, 6, generator=generator)]
    matrix, wanted = (parts[0] @ parts[1]).double(), torch.randn(9, 2, generator=generator).double()
    expected = torch.from_numpy(np.linalg.lstsq(matrix.numpy(), wanted.numpy(), rcond=None)[0])
    first = linear.lstsq(matrix, wanted)
    assert torch.allclose(matrix @ first, matrix @ expected, atol=1e-6)
    for junk in range(20):
        torch.randint(1, 7, (junk % 5 + 1,), dtype=torch.int32)  # what the next call finds there
        assert torch.equal(linear.lstsq(matrix, wanted), first)
