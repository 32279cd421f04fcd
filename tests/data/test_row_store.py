"""Rows of a large tensor, gathered in pieces."""

import weakref
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from torchxnn.data import activations
from torchxnn.data.activations import RowStore
from torchxnn.errors import DataError


@given(counts=st.lists(st.integers(0, 9), min_size=1), chunk=st.integers(1, 60))
@settings(max_examples=60)
def test_pieces_of_any_size_give_the_rows_in_order(counts, chunk):
    parts = [torch.rand(count, 3) for count in counts]
    with patch.object(activations, "CHUNK", chunk):
        store = RowStore(1.0)
        for part in parts:
            store.append(part)
        assert torch.equal(store.result(), torch.cat(parts))


def test_nothing_that_was_given_is_kept_alive():
    """A small tensor that stays between large ones would split the heap; so might a view."""
    store = RowStore(1.0)
    batch = torch.rand(4, 3)
    seen = weakref.ref(batch)
    store.append(batch[:2])
    del batch
    assert seen() is None
    assert store.result().shape == (2, 3)


def test_what_was_given_may_change_afterwards():
    store = RowStore(1.0)
    batch = torch.ones(2, 3)
    store.append(batch)
    batch.zero_()
    assert torch.equal(store.result(), torch.ones(2, 3))


def test_rows_of_another_size_or_none_are_refused():
    store = RowStore(1.0)
    with pytest.raises(DataError, match="no activations"):
        store.result()
    store.append(torch.rand(2, 3))
    with pytest.raises(DataError, match="follow"):
        store.append(torch.rand(2, 4))
