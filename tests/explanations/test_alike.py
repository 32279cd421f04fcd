"""X-features that are alike are one reason; one that is no larger on the class is none."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from explanation_examples import explanation, peak
from torchxnn import contrast
from torchxnn.embeddings.apply import Embedded
from torchxnn.errors import DataError
from torchxnn.explanations.alike import (
    MAPS_ALIKE,
    drawn_correlation,
    find_alike,
    groups_of,
    overlap,
)
from torchxnn.explanations.drawing.figure import draw_card
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.sentences import account_for
from torchxnn.explanations.summands import Traits, joined
from torchxnn.metrics.among_positives import AmongPositives, measure_among_positives

MINUS = "\N{MINUS SIGN}"
NAMES = [f"x-feature {i + 1}" for i in range(4)]
SMALL = st.floats(-50, 50)


def account(values, traits, names=NAMES, logit=20.0, **about):
    about = {"target": "bird", "predicted": "bird"} | about
    return account_for(names, values, intercept=1.0, logit=logit, traits=traits, **about)


def known(n=3, mean=None, variation=None):
    mean = tuple(mean or [1.0] * n)
    rows = np.eye(n) if variation is None else np.asarray(variation)
    return AmongPositives(mean, (0.5,) * n, tuple(tuple(map(float, row)) for row in rows))


def same_place(**changes):
    """Three x-features; the first and the third look at the same place."""
    spots = [peak(row=0.3), peak(row=0.7), 2 * peak(row=0.3)]
    return explanation(
        ((4.0, -2.0, 4.0),),
        heatmaps=torch.from_numpy(np.stack(spots)),
        among_positives=(known(),),
        found_again=(0.9, 0.8, 0.2),
        **changes,
    )


def test_the_closed_forms_of_likeness():
    first, second = np.zeros((2, 20, 20), np.float32)
    first[4:8, 4:8], second[12:16, 12:16] = 1, 1
    matrix = drawn_correlation([first, 3 * first - 0.0, second, 0 * first, -first])
    assert matrix[0, 1] == pytest.approx(1)  # the scale of a map does not matter
    assert -0.1 < matrix[0, 2] < 0.0
    assert (matrix[3, :3] == 0).all()  # nothing is drawn
    assert (matrix[4, :3] == 0).all()  # nor is what is negative
    assert overlap(matrix[:2, :2]) == pytest.approx(1)
    assert overlap(matrix[[0, 2]][:, [0, 2]]) == pytest.approx(matrix[0, 2] ** 2)
    assert overlap(matrix[:1, :1]) == 0


def test_thresholds_chains_and_names():
    maps = np.eye(4)
    maps[0, 1] = maps[1, 0] = MAPS_ALIKE
    maps[0, 3] = maps[3, 0] = MAPS_ALIKE - 0.001
    variation = np.eye(4)
    variation[1, 2] = variation[2, 1] = 0.95
    pairs = find_alike(maps, variation.tolist())
    assert [pair.text(NAMES) for pair in pairs] == [
        "x-features 1 and 2 (maps r = 0.90)",
        "x-features 2 and 3 (variation on the class r = 0.95)",
    ]
    groups = groups_of(pairs, 4)
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert find_alike(None, ()) == ()
    assert joined(["wing", "x-feature 2"]) == "wing and x-feature 2"
    assert joined(NAMES[:3]) == "x-features 1, 2 and 3"


def test_a_sentence_names_them_together():
    traits = Traits(groups=(0, 1, 0, 0), here=frozenset([0]))
    text = account([8.0, 6.0, 4.0, -2.0], traits).sentence()
    assert text == (
        "This is a bird because of x-features 1 and 3, which are alike here (+12.00, 60%) and "
        "x-feature 2 (+6.00, 30%); against it speaks x-feature 4, which is like x-features 1 and 3 "
        f"here ({MINUS}2.00, 10%); the rest of the logit of 20.00 is what a typical other image "
        "gets (+1.00) and what remains unexplained (+3.00)."
    )
    assert (
        "x-features 1 and 3, which are alike (+"
        in account([8.0, 6.0, 4.0, -2.0], replace(traits, here=frozenset())).sentence()
    )


def test_two_weak_ones_that_are_alike_are_one_reason():
    values = [20.0, 0.6, 0.6, 0.0]
    assert len(account(values, Traits()).reasons) == 1
    assert len(account(values, Traits(groups=(0, 1, 1, 2))).reasons) == 2


def test_what_is_no_larger_on_the_class_is_no_reason():
    traits = Traits(class_mean=(2.0, -0.1, 1.0, 0.0))
    text = account([8.0, 6.0, -4.0, 2.0], traits).sentence()
    assert text.startswith(
        "This is a bird because of x-feature 1 (+8.00, 40%); x-feature 2 (+6.00, 30%) and "
        "x-feature 4 (+2.00, 10%) add to it here, but are no larger on the class than elsewhere; "
        "against it speaks x-feature 3"
    )
    text = account([0.0, 6.0, 0.0, 0.0], traits, predicted="dog").sentence()
    assert text.startswith(
        "The network sees a dog; there is no evidence for a bird; x-feature 2 (+6.00, 100%) adds "
        "to it here, but is no larger on the class than elsewhere; the rest"
    )


def test_a_reason_that_is_seldom_found_again_says_so():
    traits = Traits(groups=(0, 1, 0, 2), found_again=(0.8, 0.5, 0.35, 0.1))
    text = account([8.0, 6.0, 4.0, 0.0], traits).sentence()
    assert "alike (+12.00, 67%; found again in 80% and 35% of resamplings)" in text
    assert "x-feature 2 (+6.00, 33%);" in text


@given(st.lists(st.tuples(SMALL, st.integers(0, 3), SMALL), min_size=1, max_size=8), SMALL, SMALL)
def test_however_they_are_grouped_the_parts_add_up_to_the_logit(rows, intercept, logit):
    values, groups, means = zip(*rows, strict=True)
    names = [f"x-feature {i + 1}" for i in range(len(values))]
    traits = Traits(groups, frozenset([1]), means)
    found = account_for(
        names, values, intercept=intercept, logit=logit, target="a", predicted="a", traits=traits
    )
    named = (*found.reasons, *found.elsewhere, *found.objections)
    rest = [found.weaker or 0.0, found.intercept, found.unexplained]
    total = math.fsum([*(one.value for one in named), *rest])
    assert math.isclose(total, logit, abs_tol=1e-9)
    kinds = [{(groups[one.feature], one.value > 0) for one in each.members} for each in named]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set().union(*kinds)) == len(named)
    assert all(one.on_class > 0 for one in found.reasons)
    assert all(one.on_class <= 0 for one in found.elsewhere)


def test_every_drawing_of_an_explanation_says_it(tmp_path):
    shown = same_place()
    assert "x-features 1 and 3, which are alike here (+8.00, 80%" in shown.sentence()
    text = "x-features 1 and 3 (maps r = 1.00)"
    card = shown.card()
    assert ("Alike", text) in card.facts
    assert [panel.like for panel in card.panels] == ["like x-feature 3", "like x-feature 1", ""]
    assert card.panels[0].details == ("class +1.00 ± 0.50, rest 0", "found again 90%")
    assert any(line.startswith("Overlap of the x-features' heatmaps") for line in card.certificate)
    shown.to_html(tmp_path / "page.html")
    for page in (shown._repr_html_(), (tmp_path / "page.html").read_text("utf-8")):
        words = page.replace('<span class="whole">', "").replace("</span>", "")
        assert text in words
        assert "like x-feature 3" in words
        assert "found again 20%" in words
    assert text in shown.summary()
    for style, words in (("screen", "like x-feature 3"), ("paper", "like 3")):
        texts = draw_card(card, style).findobj(Text)
        drawn = [each.get_text() for each in texts]
        assert words in drawn


def test_a_contrast_says_it_of_either_class():
    first = same_place()
    second = replace(
        explanation(((1.0, -1.0, 0.5),)), targets=(5,), target_names=("bird 5",),
        among_positives=(known(),),
    )  # fmt: skip
    shown = contrast(first, second)
    said = shown.sentence()
    assert ": bird 4's x-features 1 and 3, which are alike here, speak for bird 4" in said
    assert "bird 4's x-features 1 and 3 +8.00 (" in said
    assert ("Alike of A", "x-features 1 and 3 (maps r = 1.00)") in shown.card().facts
    panels = {panel.name: panel.like for panel in shown.card().panels}
    assert panels["A: x-feature 1"] == "like x-feature 3"
    assert panels["B: x-feature 1"] == ""
    absent = replace(first, among_positives=(known(mean=[-1.0, 1.0, -1.0]),))
    assert "speak for bird 4 here, but are no larger" in contrast(absent, second).sentence()


def test_saved_explanations_keep_it_and_earlier_ones_load(tmp_path):
    shown = same_place()
    shown.save(tmp_path / "one")
    assert Explanation.load(tmp_path / "one").among_positives == shown.among_positives
    file = tmp_path / "one" / "explanation.json"
    record = json.loads(file.read_text("utf-8"))
    del record["among_positives"], record["not_resampled"], record["found_again"]
    file.write_text(json.dumps(record))
    old = Explanation.load(tmp_path / "one")
    assert old.among_positives == ()
    assert old.card().panels[0].details == ()
    with pytest.raises(DataError, match="among_positives"):
        replace(shown, among_positives=(known(2),))


def test_variation_among_the_positives_is_without_the_logit():
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(200, 1, generator=generator)
    own, noise = torch.randn(2, 200, generator=generator)
    features = torch.stack([logit[:, 0] + own, logit[:, 0] + 2 * own, logit[:, 0] + noise], 1)
    features = torch.cat([features, torch.ones(200, 1)], 1)
    contributions = features.unsqueeze(1) * torch.tensor([1.0, -1.0, 2.0, 0.0])
    positives = torch.arange(200).unsqueeze(1) < 150
    (found,) = measure_among_positives(Embedded(features, contributions, logit), logit, positives)
    assert found.mean == pytest.approx(contributions[:150, 0].double().mean(0).tolist())
    assert found.spread[3] == 0
    matrix = torch.tensor(found.variation)
    assert float(matrix[0, 1]) == pytest.approx(1)
    assert abs(float(matrix[0, 2])) < 0.25
    assert float(matrix[0, 3]) == 0
    assert torch.equal(matrix.diagonal(), torch.ones(4))
