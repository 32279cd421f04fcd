"""What the demonstration says of solar cells, by hand: names, what is odd, what comes next."""

from pathlib import Path

import pytest
import torch

from torchxnn.apps.solar_cells import (
    FIGURES,
    KIND,
    accuracy_sentence,
    corner_peaks,
    drop_examples,
    example_names,
    example_sentence,
    figures_of,
    next_steps,
    odd_sentences,
    with_examples,
)
from torchxnn.explanations.names.file import NAMES, _encode
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.explanations.names.records import BY_RULE
from torchxnn.explanations.names.texts import words_of_a_rule

BRIGHT, SPREAD, PATTERN, _ = FIGURES


def grey(*rows):
    return torch.tensor(rows, dtype=torch.uint8).unsqueeze(2).expand(-1, -1, 3)


def test_figures_by_hand():
    flat, stripes = grey([51, 51], [51, 51]), grey([0, 255], [0, 255])
    found = figures_of([flat, stripes], [True, False])
    assert found[BRIGHT].tolist() == pytest.approx([0.2, 0.5])
    assert found[SPREAD].tolist() == pytest.approx([0.0, (1 / 3) ** 0.5 / 0.5])
    assert found[PATTERN].tolist() == pytest.approx([0.0, 1.0])
    assert found[KIND].tolist() == [1.0, 0.0]


def test_names_go_to_the_strongest_first_and_each_figure_names_one():
    bright = torch.tensor([0.0, 1.0, 2.0, 3.0])
    pattern = torch.tensor([1.0, -1.0, -1.0, 1.0])  # no correlation with the brightness
    features = torch.stack([-bright, bright + 0.5 * pattern, pattern, torch.zeros(4)], 1)
    found = example_names(features, {BRIGHT: bright.double(), PATTERN: pattern.double()})
    assert [(each.feature, each.name) for each in found] == [(0, "dark cell"), (2, "fine pattern")]
    assert found[0].correlation == pytest.approx(-1)
    assert "r = -1.00 on 4 images" in found[0].note
    said = example_sentence(found, with_examples(FeatureNames(4), found))
    assert said.startswith("Names in angle marks are examples, given by a rule; no person looked.")
    dark = words_of_a_rule("dark cell")
    assert f"{dark} is x-feature 1, which goes with the mean brightness (r = -1.00)" in said
    assert "The other 2 go with none of the four figures" in said
    assert "The other" not in example_sentence(found[:1], with_examples(FeatureNames(1), found[:1]))
    kept = with_examples(FeatureNames(4).judge(0, "dark cell", who="Ada"), found)
    assert "dark" not in example_sentence(found, kept), "a person looked"
    assert "is x-feature 3" in example_sentence(found, kept)
    assert example_sentence(found, kept.judge(2, "grid", who="Ada")) == ""
    weak = {BRIGHT: torch.tensor([0.0, 1.0, 0.0, 0.0]).double()}
    assert example_names(bright[:, None], weak) == ()
    assert example_sentence((), FeatureNames(4)).startswith("No x-feature is named")


def test_names_are_marked_as_examples_and_give_way_to_nobody_but_themselves(tmp_path):
    bright = torch.tensor([0.0, 1.0, 2.0])
    names = with_examples(FeatureNames(1), example_names(bright[:, None], {BRIGHT: bright}))
    (judgement,) = names.judgements
    assert judgement.who == BY_RULE
    assert judgement.note.startswith("an example of naming, written by the authors of torchxnn")
    assert (names.settled(0).status, names.settled(0).people) == ("by rule", 0)
    assert names.shown() == (words_of_a_rule(judgement.name),)
    same, other = (names.judge(0, name, who="Ada") for name in (judgement.name, "corner"))
    assert (same.settled(0).status, same.settled(0).people) == ("one person", 1)
    assert other.settled(0).name == "corner", "what a rule says counts for nothing beside a person"
    file = tmp_path / NAMES
    drop_examples(tmp_path)  # nothing is there
    file.write_bytes(_encode(names, "0" * 64))
    drop_examples(tmp_path)
    assert not file.exists()
    file.write_bytes(_encode(names.judge(0, "corner", who="Ada"), "0" * 64))
    drop_examples(tmp_path)
    assert file.exists()


def test_corner_peaks_by_hand():
    maps = torch.zeros(4, 12, 12)
    maps[0, 11, 0] = 1.0  # a corner
    maps[1, 5, 5] = 1.0
    maps[2, 0, 11] = -9.0  # against: only what speaks for is bright
    maps[2, 3, 0] = 1.0  # the left edge, below the corner's block of two rows
    assert corner_peaks(maps) == pytest.approx(1 / 3)  # the last map shows nothing
    assert corner_peaks(maps[3:]) == 0


def test_what_is_odd_is_said_where_it_is_there():
    kind = example_names(torch.tensor([[0.0], [1.0]]), {KIND: torch.tensor([1.0, 0.0])})
    said = odd_sentences(kind, [0.08], 0.3, {"“dark”": 1, "x-feature 2": 2})
    assert [text.split(":")[0] for text in said] == ["Odd"] * 3
    assert "in 30% of the maps" in said[0]
    assert "the corners are 11% of its area" in said[0]
    assert "x-feature 1, with 8% of the logit, goes with the kind of the cell" in said[1]
    assert "at most 20%) are on the sheets of “dark” (1), x-feature 2 (2)." in said[2]
    assert odd_sentences((), [0.5], 0.2, {}) == []


def test_accuracy_beside_one_answer_for_all():
    said = accuracy_sentence([0, 0, 0, 1, 0], [0, 0, 0, 1, 1], ("functional", "defective"))
    assert "right on 80.0% of 5 test images: 100% of the 3 functional ones, 50% of the 2" in said
    assert "always says functional is right on 60.0%" in said


def test_what_comes_next_names_what_is_there():
    assert f"xnn whatif {Path('demo/xnn')} cells/cell0001.png" in next_steps(
        Path("demo/xnn"), Path("cells")
    )
