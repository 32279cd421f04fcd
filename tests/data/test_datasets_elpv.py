"""Solar cells from the package: labels, and draws that keep the shares."""

import sys
from collections import Counter

import pytest

from torchxnn.data.datasets import elpv
from torchxnn.data.datasets.elpv import ELPV
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

SMALL = Preprocessing(size=32, resize="squash")


@pytest.fixture(scope="module")
def cells() -> ELPV:
    pytest.importorskip("elpv_dataset", reason="needs the extra 'demo'")
    return ELPV(SMALL)


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """An installed elpv_dataset with the given labels.csv."""

    def write(labels: str | None):
        (tmp_path / "elpv_dataset" / "data").mkdir(parents=True)
        (tmp_path / "elpv_dataset" / "__init__.py").write_text("")
        if labels is not None:
            (tmp_path / "elpv_dataset" / "data" / "labels.csv").write_text(labels)
        monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    yield write
    sys.modules.pop("elpv_dataset", None)


def test_labels(cells):
    assert len(cells) == 2624
    assert cells.classes == ("functional", "defective")
    shares = Counter(zip((round(3 * p) for p in cells.probabilities), cells.labels, strict=True))
    assert shares == {(0, 0): 1508, (1, 0): 295, (2, 1): 106, (3, 1): 715}
    assert Counter(ELPV(SMALL, threshold=0.0).labels) == {0: 1508, 1: 1116}
    assert len(cells.sure()) == 1508 + 715


def test_reads_a_cell(cells):
    sample = cells[0]
    assert (sample.label, sample.path) == (1, "images/cell0001.png")
    assert sample.image.shape == (3, 32, 32)


def test_stratified_draw_keeps_the_shares(cells):
    drawn = cells.stratified(600, seed=3)
    assert len(set(drawn)) == 600
    assert drawn == cells.stratified(600, seed=3)
    assert drawn != cells.stratified(600, seed=4)
    groups = list(zip(cells.probabilities, cells.types, strict=True))
    whole = Counter(groups)
    for part in (drawn, drawn[:300], drawn[300:]):
        counts = Counter(groups[index] for index in part)
        for group, count in whole.items():
            assert abs(counts[group] - count * len(part) / len(cells)) <= 2, group


@pytest.mark.parametrize("count", [0, 2625])
def test_too_many_cells(cells, count):
    with pytest.raises(DataError, match=f"count must be 1 to 2624|{count}"):
        cells.stratified(count)


def test_wrong_threshold():
    with pytest.raises(DataError, match="threshold must be"):
        ELPV(SMALL, threshold=1.0)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(DataError, match=r"pip install 'torchxnn\[demo\]'"):
        ELPV(SMALL)


def test_a_package_without_labels(fake_package):
    fake_package(None)
    with pytest.raises(DataError, match="force-reinstall"):
        ELPV(SMALL)


def test_a_broken_line_is_named(fake_package):
    fake_package("images/a.png   1.0   mono\nimages/b.png  mono\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 2"):
        ELPV(SMALL)


def test_licence_and_citation():
    assert "CC BY-NC-SA 4.0" in elpv.LICENCE
    assert "10.1016/j.solener.2019.02.067" in elpv.CITATION
