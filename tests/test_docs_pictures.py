"""The pictures of README and documentation are what their scripts draw today."""

import runpy
import shutil

import numpy as np
import pytest
from PIL import Image

from docs_examples import ROOT

SCRIPT = "perf/docs_pictures.py"
GALLERY = ROOT / "docs" / "gallery"


@pytest.fixture
def pictures():
    return runpy.run_path(str(ROOT / SCRIPT))


def test_every_picture_is_current(pictures):
    found = pictures["stale"]()
    scripts = sorted(set(found.values()))
    assert not found, f"{sorted(found)} may be out of date: python {SCRIPT} runs {scripts}"


def test_every_picture_has_a_script_that_draws_it(pictures):
    lying = {path.name for path in GALLERY.iterdir()} - {"pictures.json"}
    assert lying == set(pictures["SOURCES"]) | set(pictures["ELSEWHERE"])
    for script, patterns in pictures["SOURCES"].values():
        assert (ROOT / script).is_file()
        assert all(any(ROOT.glob(pattern)) for pattern in patterns), patterns


def test_a_change_of_a_picture_or_of_what_draws_it_is_found(pictures, tmp_path):
    """On a copy of the few files that count."""
    names = pictures["SOURCES"]
    for script, patterns in names.values():
        for pattern in (script, *patterns):
            for path in ROOT.glob(pattern):
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file():
                    shutil.copy(path, copy)
    shutil.copytree(GALLERY, tmp_path / "docs" / "gallery")
    shutil.copy(ROOT / SCRIPT, tmp_path / "perf")

    def stale():
        return set(runpy.run_path(str(tmp_path / SCRIPT))["stale"]())

    runpy.run_path(str(tmp_path / SCRIPT))["record"]()
    assert stale() == set()
    style = tmp_path / "src/torchxnn/apps/atlas/templates/atlas.css"
    style.write_text(style.read_text() + "body { margin: 0 }\n")
    assert stale() == {"page_atlas.webp"}
    (tmp_path / "docs/gallery/readme.webp").write_bytes(b"another picture")
    (tmp_path / "docs/gallery/limits_mass.webp").unlink()
    assert stale() == {"page_atlas.webp", "readme.webp", "limits_mass.webp"}


def differ(first, second):
    """Share of the pixels that differ by more than a quarter of the scale; 1 for other sizes."""
    both = [np.asarray(Image.open(path).convert("L"), dtype=float) for path in (first, second)]
    if both[0].shape != both[1].shape:
        return 1.0
    return float((abs(both[0] - both[1]) > 64).mean())


def drawn(script, folder, **settings):
    runpy.run_path(str(ROOT / "perf" / script))["main"](folder, **settings)
    return [path for path in (folder / "gallery").iterdir() if path.suffix == ".webp"]


def test_two_pictures_are_told_apart(tmp_path):
    found = differ(GALLERY / "3_three.webp", GALLERY / "8_eight.webp")
    assert found > 0.02
    Image.open(GALLERY / "3_three.webp").save(tmp_path / "again.webp", quality=60)
    assert differ(GALLERY / "3_three.webp", tmp_path / "again.webp") < 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("docs_readme.py", {}),
        ("docs_limits.py", {}),
        ("docs_gallery.py", {"classes": 2}),
        ("docs_pages.py", {"only": ("report",), "classes": 0}),
        ("docs_pages.py", {"only": ("study",)}),
    ],
)
def test_scripts_draw_what_is_committed(script, settings, tmp_path):
    """The fits, too; the atlas and the other digits are drawn by the same functions."""
    if script == "docs_pages.py":
        pytest.importorskip("playwright", reason="pip install playwright")
        if shutil.which("chromium") is None:
            pytest.skip("Chromium is not installed (apt-get install chromium)")
    (tmp_path / "gallery").mkdir()
    found = drawn(script, tmp_path, **settings)
    assert found
    for path in found:
        assert differ(path, GALLERY / path.name) < 0.01, path.name
