import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import reference
from conftest import make_images, make_net
from explanation_examples import explanation, faithfulness
from torchxnn import XNN, contrast
from torchxnn.cli.main import main
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.html import halves
from torchxnn.explanations.sentences import account_for, article, noun, stability_facts
from torchxnn.explanations.summands import joined
from torchxnn.metrics.faithfulness import (
    BOUND_LEVEL,
    BoundLevel,
    Faithfulness,
    measure_faithfulness,
)
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import structure
from xnn_examples import make_loader, quick_fit

MINUS = "\N{MINUS SIGN}"


def say(values, logit, intercept=0.0, names=None, **about):
    about = {"target": "European Goldfinch", "predicted": "European Goldfinch"} | about
    names = names or [f"x-feature {i + 1}" for i in range(len(values))]
    return account_for(names, values, intercept=intercept, logit=logit, **about).sentence()


def test_the_form_of_the_sentence():
    names = ["red forehead", "golden feather", "x-feature 3", "x-feature 4"]
    assert say([15.2, 63.1, -4.8, 0.7], 79.3, 2.0, names) == (
        "This is a European Goldfinch because of golden feather (+63.10, 75%) and red forehead "
        f"(+15.20, 18%); against it speaks x-feature 3 ({MINUS}4.80, 6%); the rest of the logit of "
        "79.30 is what a typical other image gets (+2.00), weaker x-features (+0.70) and what "
        "remains unexplained "
        "(+3.10)."
    )


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ([5.0], "This is a European Goldfinch because of x-feature 1 (+5.00, 100%); the rest"),
        (
            [5.0, 3.0, 2.0],
            "This is a European Goldfinch because of x-feature 1 (+5.00, 50%), x-feature 2 (+3.00, "
            "30%) and x-feature 3 (+2.00, 20%); the rest",
        ),
        (
            [0.0, -3.0, -1.0],
            "This is a European Goldfinch, but no x-feature says why; against it speak x-feature 2 "
            f"({MINUS}3.00, 75%) and x-feature 3 ({MINUS}1.00, 25%); the rest",
        ),
        ([0.0, 0.0], "This is a European Goldfinch, but no x-feature says why; the rest"),
    ],
)
def test_none_one_and_many(values, start):
    assert say(values, 1.0).startswith(start)


def test_another_class_was_predicted():
    text = say([1.0, -3.0], -2.0, 0.5, predicted="Indigo Bunting")
    assert text == (
        "The network sees an Indigo Bunting; evidence for a European Goldfinch is x-feature 1 "
        f"(+1.00, 25%); against it speaks x-feature 2 ({MINUS}3.00, 75%); the rest of its logit of "
        f"{MINUS}2.00 is what a typical other image gets (+0.50) and what remains unexplained "
        f"({MINUS}0.50)."
    )
    text = say([0.0], -2.0, -2.0, predicted="Indigo Bunting")
    assert "there is no evidence for a European Goldfinch; the rest" in text


def test_a_wrong_prediction_is_not_called_true():
    text = say([3.0], 3.0, label="American Goldfinch")
    assert text.startswith(
        "The network takes an American Goldfinch for a European Goldfinch because of x-feature 1"
    )


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(-50, 50), st.floats(-50, 50))
def test_the_parts_add_up_to_the_logit(values, intercept, logit):
    names = [str(i) for i in range(len(values))]
    account = account_for(
        names, values, intercept=intercept, logit=logit, target="a", predicted="a"
    )
    said = [part.value for part in (*account.reasons, *account.objections)]
    rest = [account.weaker or 0.0, account.intercept, account.unexplained]
    assert math.isclose(math.fsum([*said, *rest]), logit, abs_tol=1e-9)
    sizes = [part.value for part in account.reasons]
    assert sizes == sorted(sizes, reverse=True)
    assert all(part.share >= 0.05 for part in (*account.reasons, *account.objections))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("European Goldfinch", "a"), ("Indigo Bunting", "an"), ("unicorn", "a"), ("umbrella", "an"),
        ("one-way sign", "a"), ("hour hand", "an"), ("house", "a"), ("LSTM", "an"), ("CD", "a"),
        ("X-ray", "an"), ("8", "an"), ("7", "a"), ("18", "an"), ("80", "an"), ("1", "a"),
        ("USB stick", "a"), ("Ural owl", "a"), ("Eared Grebe", "an"), ("island", "an"),
        ("A", "an"), ("B", "a"), ("I beam", "an"), ("U turn", "a"),
    ],
)  # fmt: skip
def test_articles(name, expected):
    assert article(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("class 3", "class 3"), ("bird 4", "bird 4"), ("7", "a 7"), ("the sea", "the sea"),
        ("a dog", "a dog"), ("defective", "defective"), ("", ""), ("living_room", "a living room"),
        ("014.Indigo_Bunting", "an Indigo Bunting"), ("8", "an 8"), ("_", "a _"),
    ],
)  # fmt: skip
def test_names_without_article(name, expected):
    assert noun(name) == expected


def bounded(bound, **changes):
    found = replace(faithfulness(3, 1), error_bound=(bound,))
    return explanation(((3.0, 1.0, 0.0),), faithfulness=found, **changes)


def test_it_declines_beyond_the_bound_and_says_why():
    fine = bounded(0.5, logits=torch.tensor([4.7]))
    assert fine.declined() == ""
    assert fine.error_bound() == 0.5
    far = bounded(0.5, logits=torch.tensor([4.8]))
    assert far.sentence() == (
        "The network sees bird 4; these x-features cannot say why: on this image they reproduce a "
        "logit of 4.25 instead of 4.80, which is off by 0.55, more than the bound of 0.50 that a "
        "new image stays within with probability at least 10/11 (91%), as 10 held-out images of "
        "the class can say."
    )
    assert any("0.55 of at most 0.50" in line for line in far.certificate_lines())
    assert any("instead of 4.80" in warning for warning in far.card().warnings)
    other = bounded(0.5, logits=torch.tensor([4.8]), predicted_class=9, predicted_name="bird 9")
    assert "cannot say what speaks for bird 4" in other.sentence()


def test_numbers_that_look_alike_get_more_digits():
    far = bounded(1.0, logits=torch.tensor([5.2504]))
    assert "off by 1.000400, more than the bound of 1.000000" in far.sentence()


def test_without_a_record_the_bound_is_a_quarter_of_the_size():
    assert explanation(((3.0, 1.0),)).error_bound() == pytest.approx(4.35 / 4)
    assert explanation(((3.0, -3.0),), faithfulness=None).error_bound() == 1.5
    far = explanation(((3.0, -3.0),), faithfulness=None, logits=torch.tensor([2.0]))
    assert "more than the bound of 1.50 of a quarter of its size" in far.sentence()


def test_it_declines_for_a_degenerate_fit():
    example = explanation(degenerate=("1 of 3 x-features carries the logit alone",))
    assert "cannot say why: the fit is degenerate (1 of 3 x-features carries" in example.sentence()
    assert "the rest of the logit" not in example.sentence()


def test_sentences_are_in_summary_figure_page_and_file(tmp_path):
    example = explanation(feature_names=("golden feather", "x-feature 2", "wing"))
    assert "golden feather (+1.00, 29%)" in example.sentence()
    assert example.summary().startswith(example.sentence())
    assert f"{MINUS}2.00  57%  x-feature 2 for bird 4" in example.summary()
    assert example.card().sentence == example.sentence()
    example.to_html(tmp_path / "page.html")
    assert "golden feather (+1.00, 29%)" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize("images", [5, 40, 300])
def test_error_bound_against_the_literal_version(images):
    generator = torch.Generator().manual_seed(images)
    logits = torch.randn(images, 3, generator=generator)
    reproduced = logits[:, :2] + torch.randn(images, 2, generator=generator)
    positives = torch.zeros(images, 2, dtype=torch.bool)
    positives[::5, 0] = positives[1::4, 1] = True
    found = measure_faithfulness(
        torch.ones(images, 2), torch.ones(images, 2, 2), reproduced, logits, (0, 1), positives
    )
    for k in range(2):
        errors = (reproduced[:, k] - logits[:, k]).abs().tolist()
        expected = reference.error_bound(errors, positives[:, k].tolist())
        assert found.error_bound[k] == pytest.approx(expected, rel=1e-6)


def test_error_bound_by_hand_and_in_records():
    logits = torch.zeros(6, 2)
    reproduced = torch.tensor([[0.1], [0.2], [-0.9], [0.3], [0.4], [0.5]])
    positives = torch.tensor([[True], [True], [True], [False], [False], [False]])
    found = measure_faithfulness(
        torch.ones(6, 1), torch.ones(6, 1, 1), reproduced, logits, (0,), positives
    )
    assert found.error_bound == (pytest.approx(0.9),)
    values = {name: getattr(found, name) for name in Faithfulness.__dataclass_fields__}
    values["error_bound"] = list(values["error_bound"])
    assert structure(values, Faithfulness, "it").error_bound == found.error_bound
    assert found.bound_level() == BoundLevel(Fraction(3, 4), 3, own=True)
    del values["bound_positives"]  # as in records of earlier versions
    assert structure(values, Faithfulness, "it").bound_level() == found.bound_level()
    del values["error_bound"]
    assert structure(values, Faithfulness, "it").error_bound is None


def test_a_few_images_carry_no_99_percent():
    """Of the largest of 6 errors "99% stay within" was said; a seventh image exceeds 1 in 7."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(20_000, 7, generator=generator).abs()
    inside = float((errors[:, 6] <= errors[:, :6].amax(1)).double().mean())
    assert inside == pytest.approx(6 / 7, abs=0.01)
    few = replace(faithfulness(3, 1), images=500, positives=6)
    assert few.bound_level() == BoundLevel(Fraction(6, 7), 6, own=True)
    found = explanation(((3.0, 1.0),), faithfulness=replace(few, error_bound=(0.5,)))
    line = found.certificate_lines()[1]
    assert "probability at least 6/7 (86%), as 6 held-out images of the class can say" in line
    assert "99%" not in line
    many = replace(few, positives=250, error_bound=(0.5,))
    line = explanation(((3.0, 1.0),), faithfulness=many).certificate_lines()[1]
    assert "probability at least 99%, as 250 held-out images of the class can say" in line
    most = replace(few, positives=499)
    assert most.bound_level() == BoundLevel(Fraction(1, 2), 1, own=False)
    assert replace(few, positives=500).bound_level().own


@given(st.integers(1, 400), st.integers(0, 400))
def test_the_level_is_what_so_many_images_can_carry(own, others):
    found = replace(faithfulness(3, 1), images=own + others, positives=0, bound_positives=(own,))
    level = found.bound_level().probability
    smallest = min(count for count in (own, others) if count)
    assert level == Fraction(smallest, smallest + 1) if smallest < 99 else level >= BOUND_LEVEL
    several = replace(found, share=((1.0,), (1.0,)), bound_positives=None)
    assert several.bound_level() is None  # an earlier version with several targets


def pair(first=((3.0, -1.0, 0.1),), second=((2.0, -0.5),), **changes):
    a = explanation(first, logits=torch.tensor([3.0]), feature_names=("red", "gold", "tail"))
    b = explanation(
        second, targets=(7,), target_names=("bird 7",), logits=torch.tensor([2.0]),
        feature_names=("black cap", "x-feature 2"), **changes,
    )  # fmt: skip
    return a, b


def test_the_form_of_a_contrast():
    found = contrast(*pair())
    assert repr(found) == f"<Contrast: {found.sentence()}>"
    assert found.sentence() == (
        "Bird 4 rather than bird 7: red speaks for bird 4, and bird 7's x-feature 2 speaks against "
        "bird 7. The other way, black cap speaks for bird 7, and gold speaks against bird 4. In "
        f"logits: red +3.00 (45%), black cap {MINUS}2.00 (30%), gold {MINUS}1.00 (15%), bird 7's "
        "x-feature 2 +0.50 (8%), what typical other images get 0, weaker x-features +0.10, what "
        "remains unexplained +0.40; together 1.00."
    )
    words, numbers = halves(found.sentence())
    assert words.endswith("gold speaks against bird 4.")
    assert numbers.startswith("In logits: red")
    assert halves("The network sees a dog; evidence (a; b).") == (
        "The network sees a dog;", "evidence (a; b)."
    )  # fmt: skip


def test_a_contrast_of_values_is_in_figures_not_in_logits():
    found = contrast(*(replace(each, outputs_are="value") for each in pair()))
    words, numbers = halves(found.sentence())
    assert words.startswith("The value of bird 4 is larger than that of bird 7: ")
    assert words.endswith("gold speaks against bird 4.")
    assert numbers.startswith("In figures: red +3.00")
    assert "ogit" not in found.sentence()


def test_a_name_with_the_words_before_the_figures_does_not_cut_a_contrast():
    a, b = pair()
    for name in ("no In logits: yes", "no In figures: yes"):
        sentence = contrast(replace(a, feature_names=(name, "gold", "tail")), b).sentence()
        assert sentence.count(name) == 2
        words, numbers = halves(sentence)
        assert words.endswith("gold speaks against bird 4.")
        assert numbers.startswith(f"In logits: {name} +3.00")


def test_a_contrast_says_whose_x_feature_it_speaks_of():
    a, b = pair(first=((3.0, 1.0, 0.1),), second=((2.0, 2.5),))
    a = replace(a, feature_names=("x-feature 1", "x-feature 2", "beak"), target_names=("014.Owl",))
    a = replace(a, logits=torch.tensor([5.0]))
    b = replace(b, feature_names=("beak", "x-feature 2"), logits=torch.tensor([4.5]))
    text = contrast(a, b).sentence()
    assert ": Owl's x-feature 1 and Owl's x-feature 2 speak for an Owl. The other way" in text
    assert "The other way, bird 7's x-feature 2 and bird 7's beak speak for bird 7." in text
    assert f"Owl's x-feature 1 +3.00 (35%), bird 7's x-feature 2 {MINUS}2.50 (29%)" in text
    panels = [panel.name for panel in contrast(a, b).card().panels]
    assert panels == ["A: x-feature 1", "B: x-feature 2", "B: beak", "A: x-feature 2", "A: beak"]


def test_a_contrast_of_one_xnn_has_no_owners():
    both = explanation(((1.0, -2.0), (3.0, 0.0)))
    assert "'s " not in contrast(both, both, 0, 1).sentence()


def test_the_claim_of_a_list_has_no_figures():
    assert explanation(((1.0, -2.0, 0.5),)).brief() == (
        "This is bird 4 because of x-features 1 and 3."
    )
    refused = explanation(((1.0, -2.0),), degenerate=("one carries all",))
    assert refused.brief() == "The network sees bird 4; these x-features cannot say why."
    other = explanation(((-1.0,),), predicted_class=9, predicted_name="owl")
    assert other.brief() == "The network sees an owl; there is no evidence for bird 4."


def test_what_several_x_features_have_in_common_is_said_once():
    assert joined(["an owl's x-feature 1", "an owl's x-feature 3"]) == "an owl's x-features 1 and 3"
    assert joined(["owl's x-feature 1", "gull's x-feature 3"]) == (
        "owl's x-feature 1 and gull's x-feature 3"
    )
    assert joined(["x-feature 1", "wing"]) == "x-feature 1 and wing"
    assert joined(["the absence of x-feature 1"]) == "the absence of x-feature 1"


def test_a_contrast_adds_up_and_puts_the_larger_logit_first():
    a, b = pair()
    found, turned = contrast(a, b), contrast(b, a)
    assert found == turned
    assert found.difference == 1.0
    total = math.fsum([one.value for one in found.summands] + [found.intercept, found.unexplained])
    assert math.isclose(total, found.difference, abs_tol=1e-12)
    assert math.fsum(one.share for one in found.summands) == pytest.approx(1)


@given(
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=4),
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=4),
    st.floats(-9, 9, width=32),
)
@settings(max_examples=25)
def test_every_contrast_adds_up(first, second, logit):
    a = explanation((tuple(first),), size=(8, 8), logits=torch.tensor([logit]))
    b = explanation((tuple(second),), size=(8, 8), targets=(7,), target_names=("bird 7",))
    found = contrast(a, b)
    total = math.fsum([one.value for one in found.summands] + [found.intercept, found.unexplained])
    assert math.isclose(total, float(found.logits[0] - found.logits[1]), abs_tol=1e-9)
    assert found.difference >= 0


def test_a_contrast_of_two_targets_of_one_xnn():
    both = explanation(((1.0, -2.0), (3.0, 0.0)))
    found = contrast(both, both, 0, 1)
    assert (found.first, found.second) == ("bird 5", "bird 4")
    assert [one.of for one in found.summands] == ["first", "second", "second", "first"]


def test_a_contrast_declines_and_names_the_predicted_class():
    a, b = pair(degenerate=("1 of 2 x-features carries the logit alone",))
    text = contrast(replace(a, logits=torch.tensor([5.0])), b).sentence()
    assert text.endswith(
        "cannot say why: for bird 4, on this image they reproduce a logit of 2.35 instead of 5.00, "
        "which is off by 2.65, more than the bound of 1.25 of a quarter of its size; for bird 7, "
        "the fit is degenerate (1 of 2 x-features carries the logit alone)."
    )
    a, b = (replace(e, predicted_class=9, predicted_name="owl") for e in pair())
    assert contrast(a, b).sentence().startswith("The network sees an owl; of the two, bird 4")


def test_a_contrast_needs_one_input_and_two_classes():
    a, b = pair()
    with pytest.raises(DataError, match="both explanations are about bird 4"):
        contrast(a, a)
    with pytest.raises(DataError, match="different inputs"):
        contrast(a, replace(b, image=255 - b.image))
    with pytest.raises(DataError, match="different inputs"):
        contrast(a, replace(b, predicted_class=8))


def test_a_contrast_is_saved_and_drawn(tmp_path):
    found = contrast(*pair())
    found.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "contrast.html", "contrast.json", "figure.png", "first", "second"
    ]  # fmt: skip
    record = json.loads((tmp_path / "out/contrast.json").read_text("utf-8"))
    assert record["sentence"] == found.sentence()
    assert len(record["summands"]) == 5
    card = found.card()
    assert [panel.name for panel in card.panels][:2] == ["A: red", "B: black cap"]
    assert found.plot().get_size_inches()[0] > 5


@pytest.fixture
def runs(tmp_path):
    """Two saved XNNs of one network, and a picture."""
    for target in (1, 2):
        source = {"model": "conftest:make_net", "weights": None, "random_weights": True}
        preprocessing = Preprocessing(12, "squash")
        xnn = XNN(make_net(), "classifier.1", 3, preprocessing=preprocessing, source=source)
        quick_fit(xnn, make_loader(), target)
        if target == 1:
            xnn.name_feature(0, "bright square")
        xnn.save_pretrained(tmp_path / f"run{target}")
    pixels = (make_images(2)[0][1].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchxnn.errors.XNNWarning")
def test_explain_against_another_run(runs, capsys):
    command = ["explain", str(runs / "run1"), str(runs / "photo.png"), "--out", str(runs / "out")]
    assert main([*command, "--against", str(runs / "run2")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lass 1 rather than class 2" in said or "lass 2 rather than class 1" in said
    folder = runs / "out" / "photo"
    assert f"{folder}/contrast/contrast.html" in said
    record = json.loads((folder / "contrast" / "contrast.json").read_text("utf-8"))
    total = sum(one["value"] for one in record["summands"])
    total += record["intercept"] + record["unexplained"]
    assert total == pytest.approx(record["difference"], abs=1e-9)
    assert (folder / "contrast" / "contrast.html").is_file()
    assert (folder / "explanation.html").is_file()
    saved = json.loads((folder / "explanation.json").read_text("utf-8"))
    assert saved["feature_names"][0] == "“bright square”"
    # what cannot be contrasted replaces nothing
    assert main([*command, "--against", str(runs / "run1")]) == 2
    assert (folder / "contrast" / "contrast.json").is_file()


def test_fit_refuses_to_replace_names_before_it_starts(runs, capsys):
    command = ["fit", "conftest:make_net", str(runs), "--layer", "classifier.1", "--target", "1"]
    assert main([*command, "--random-weights", "--out", str(runs / "run1")]) == 2
    assert "carry the names over with XNN.adopt_names" in " ".join(capsys.readouterr().err.split())


def test_how_often_x_features_are_found_again_is_said_by_name():
    assert stability_facts(["wing", "x-feature 2"], [0.55, 0.1]) == (
        ("Found again", "wing 55% and x-feature 2 10% of resampled images"),
    )
    assert stability_facts(["wing"], (), "maps") == (("Found again", "not measured: maps"),)
    assert stability_facts(["wing"], ()) == ()


def test_a_semicolon_in_parentheses_does_not_cut_a_sentence_in_half():
    reason = "This is a 4 because of x-feature 1 (+2.00, 9%; found again in 45% of resamplings)"
    assert halves(f"{reason}; the rest of the logit of 3.00 is one.") == (
        f"{reason};",
        "the rest of the logit of 3.00 is one.",
    )
    assert halves(f"{reason}.") == (f"{reason}.", "")
    assert halves("") == ("", "")
    assert halves("of a :) (+1.00, 9%; b); c") == ("of a :) (+1.00, 9%; b);", "c")
    assert halves("never (closed; c") == ("never (closed; c", "")
