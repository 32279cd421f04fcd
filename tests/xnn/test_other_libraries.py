"""An XNN in other libraries, by the blocks of docs/compare.md.

Captum's block runs with those of all pages (tests/test_docs.py); Quantus is in no extra, so its
block runs where a person has installed it.
"""

import numpy as np
import pytest

from docs_examples import names_of_a_page, read_blocks

PAGE = "docs/compare.md"


def scores_of(sign):
    """What Quantus says of the maps of an x-feature, times a sign, on the same random pixels."""
    names = names_of_a_page()
    blocks = [block.text for block in read_blocks(PAGE) if block.language == "python"]
    before, measure, after = blocks[-1].partition("measure = ")
    for block in (*blocks[:-1], before):
        exec(compile(block, PAGE, "exec"), names)
    own = names["explain_feature"]
    names["explain_feature"] = lambda *words, **more: sign * own(*words, **more)
    np.random.seed(0)  # noqa: NPY002 (what Quantus draws with)
    exec(compile(measure + after, PAGE, "exec"), names)
    return np.asarray(names["scores"], dtype=float), len(names["images"])


def test_quantus_measures_the_map_of_an_x_feature():
    pytest.importorskip("quantus", reason="Quantus is in no extra: pip install quantus")
    scores, count = scores_of(1)
    assert scores.shape == (count,)
    assert np.isfinite(scores).all()
    assert abs(scores).max() > 0.01
    opposite, _ = scores_of(-1)
    np.testing.assert_allclose(opposite, -scores, atol=1e-6)
