"""What a map holds of the relevance is said wherever it is drawn, and a residue is called weak."""

import json
from dataclasses import replace

import pytest

from explanation_examples import explanation
from torchxnn.attribution.base import WEAK_MASS
from torchxnn.explanations.card import strength, weakness
from torchxnn.explanations.image import Explanation

MASSES = (0.0002, 0.032, None)


def measured():
    given = explanation()
    certificate = replace(
        given.certificate,
        conservation_error=0.0,
        contrast_mass=MASSES,
        method="excitation_backprop",
    )
    return replace(given, certificate=certificate)


def test_words():
    assert strength(0.0002) == weakness(0.0002) == "weak: mass 0.02%"
    assert (strength(0.032), weakness(0.032)) == ("mass 3.2%", "")
    assert strength(None) == weakness(None) == ""
    assert weakness(WEAK_MASS) == ""


def test_it_is_said_wherever_the_map_is_drawn(tmp_path):
    shown = measured()
    panels = {panel.name: panel for panel in shown.card().panels}
    assert panels["x-feature 1"].weak == "weak: mass 0.02%"
    assert panels["x-feature 2"].details[0] == "mass 3.2%"
    assert panels["x-feature 2"].weak == panels["x-feature 3"].weak == ""
    assert shown.card().logit_panels[0].details[0].startswith(("mass ", "weak: mass "))
    assert "weak: mass 0.02%" in shown.summary()
    assert "contrast mass 0.02% to 3.2%" in shown.certificate_lines()[-1]
    assert "it is called weak" in shown.card().caption
    shown.save(tmp_path / "one")
    page = (tmp_path / "one" / "explanation.html").read_text("utf-8")
    assert "<strong>weak: mass 0.02%</strong>" in page
    assert "weak: mass 0.02%" in shown._repr_html_()
    for style, mark in (("screen", "weak: mass 0.02%"), ("paper", "weak")):
        texts = [text.get_text() for text in shown.plot(style=style).texts]
        assert mark in texts
    assert Explanation.load(tmp_path / "one").certificate == shown.certificate


def test_files_of_earlier_versions_do_not_know(tmp_path):
    measured().save(tmp_path / "one")
    path = tmp_path / "one" / "explanation.json"
    record = json.loads(path.read_text("utf-8"))
    del record["certificate"]["contrast_mass"]
    path.write_text(json.dumps(record), "utf-8")
    old = Explanation.load(tmp_path / "one")
    assert old.certificate.contrast_mass is None
    assert "contrast mass not measured" in old.certificate_lines()[-1]
    assert not any(panel.weak for panel in old.card().panels)


@pytest.mark.parametrize("masses", [(None, None, None), None])
def test_nothing_known(masses):
    shown = measured()
    shown = replace(shown, certificate=replace(shown.certificate, contrast_mass=masses))
    assert not any(panel.weak for panel in shown.card().panels)
