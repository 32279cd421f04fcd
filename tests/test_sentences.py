import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from explanation_examples import explanation, faithfulness
from torchxnn.metrics.faithfulness import Faithfulness, measure_faithfulness
from torchxnn.sentences import account_for, article, noun

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
        "79.30 is the intercept (+2.00), weaker x-features (+0.70) and what remains unexplained "
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
        f"{MINUS}2.00 is the intercept (+0.50) and what remains unexplained ({MINUS}0.50)."
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
        ("a dog", "a dog"), ("defective", "defective"), ("", ""), ("living_room", "a living_room"),
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
        "The network sees bird 4; these x-features cannot say why: on this input they reproduce a "
        "logit of 4.25 instead of 4.80, which is off by 0.55, more than the bound of 0.50 that 99% "
        "of held-out images stay within."
    )
    assert any("0.55 of at most 0.50" in line for line in far.certificate_lines())
    assert any("instead of 4.80" in warning for warning in far.card().warnings)
    other = bounded(0.5, logits=torch.tensor([4.8]), predicted_class=9, predicted_name="bird 9")
    assert "cannot say what speaks for bird 4" in other.sentence()


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
    assert Faithfulness.from_json(values).error_bound == found.error_bound
    del values["error_bound"]  # as in records of earlier versions
    assert Faithfulness.from_json(values).error_bound is None
