import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from explanation_examples import CERTIFICATE, HOSTILE, explanation, faithfulness
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.explanations.image import Explanation


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8))
def test_order_is_by_falling_size_and_stable(values):
    order = explanation((tuple(values),), size=(8, 8)).order()
    assert sorted(order) == list(range(len(values)))
    assert order == tuple(sorted(range(len(values)), key=lambda i: -abs(values[i])))


def test_order_of_each_target():
    example = explanation(((1.0, -2.0, 0.5), (3.0, 0.0, -4.0)))
    assert example.order() == (1, 0, 2)
    assert example.order(1) == (2, 0, 1)


def test_equation_adds_up_in_words():
    (row,) = explanation(((1.0, -2.0, 0.0),)).card().rows
    minus = "\N{MINUS SIGN}"
    assert row.equation == (
        f"Logit of bird 4: the network gives {minus}0.65; the x-features reproduce "
        f"{minus}0.75 = {minus}2.00 + 1.00 + 0.25 (a typical other image)"
    )
    (row,) = explanation(((0.0,),), intercept=torch.tensor([0.0])).card().rows
    assert row.equation.endswith("= 0 (a typical other image)")


def test_card_shows_the_predicted_class_first():
    example = explanation(
        ((1.0, -2.0), (3.0, 0.0)), predicted_class=5, predicted_name="bird 5", label=None
    )
    card = example.card()
    assert [row.name for row in card.rows] == ["bird 5", "bird 4"]
    assert [panel.name for panel in card.panels] == ["x-feature 1", "x-feature 2"]
    assert card.panels[0].values == (3.0, 1.0)
    assert card.sentence.startswith("This is bird 5 because of x-feature 1 (+3.00, 100%)")


def test_card_of_one_target():
    card = explanation(((1.0, -2.0), (3.0, 0.0))).card(target=5)
    assert [row.name for row in card.rows] == ["bird 5"]
    assert [panel.note for panel in card.panels] == ["", "inactive here"]
    with pytest.raises(DataError, match=r"class 6 .* targets are \[4, 5\]"):
        explanation(((1.0,), (3.0,))).card(target=6)


def test_inactive_means_no_activation_or_no_weight():
    notes = {p.name: p.note for p in explanation(((0.0, 2.0, 0.5),)).card().panels}
    assert notes == {"x-feature 1": "inactive here", "x-feature 2": "", "x-feature 3": ""}
    weightless = explanation(((0.0, 2.0),), features=torch.tensor([3.0, 1.0]))
    assert weightless.card().panels[1].note == "inactive here"


def test_warnings_tell_every_reason_for_doubt():
    assert explanation().card().warnings == ()
    doubtful = explanation(
        degenerate=("1 of 3 x-features carries the logit alone",),
        logits=torch.tensor([9.0]),
        certificate=replace(CERTIFICATE, fallback_share=0.6, conservation_error=float("nan")),
    )
    text = "; ".join(doubtful.card().warnings)
    assert "degenerate: 1 of 3" in text
    assert "instead of 9.00" in text
    assert "60% of the relevance met units that their biases decided; on such networks" in text
    assert "the method removal tells more" in text
    assert "not conserved" in text
    for warning in doubtful.card().warnings:
        assert warning in doubtful.summary()


def test_summary_and_certificate_without_faithfulness():
    summary = explanation(faithfulness=None, label=None, path=None).summary()
    assert "not measured" in summary
    assert "True class" not in summary
    assert "\N{MINUS SIGN}2.00  57%  x-feature 2" in summary


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"heatmaps": torch.zeros(2, 40, 40)}, DataError, "heatmaps"),
        ({"features": torch.zeros(4)}, DataError, "shape"),
        ({"target_names": ("a", "b")}, DataError, "2 target names"),
        ({"feature_names": ("a",)}, DataError, "1 names for 3"),
        ({"logits": torch.tensor([float("nan")])}, NonFiniteError, "logits"),
        ({"heatmaps": torch.full((3, 40, 40), float("inf"))}, NonFiniteError, "heatmaps"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes, error, message):
    values = {f: getattr(explanation(), f) for f in Explanation.__dataclass_fields__} | changes
    unchecked = object.__new__(Explanation)  # the shape checker would speak first in the tests
    for name, value in values.items():
        object.__setattr__(unchecked, name, value)
    with pytest.raises(error, match=message):
        unchecked.__post_init__()


@pytest.mark.parametrize("k", [1, 3])
def test_save_writes_pictures_arrays_and_json_and_load_reads_them(tmp_path, k):
    example = explanation(((1.0, -2.0, 0.0),) * k, size=(30, 50))
    example.save(tmp_path / "out")
    pictures = [f"x_feature_{i}{s}.png" for i in (1, 2, 3) for s in ("", "_cutout")]
    logits = [f"logit_{t}.png" for t in example.targets]
    own = ["arrays.npz", "explanation.json", "explanation.html", "figure.png", "image.png"]
    expected = [*own, *pictures, *logits]
    assert names(tmp_path / "out") == sorted(expected)
    with Image.open(tmp_path / "out" / "x_feature_2.png") as image:
        assert image.size == (50, 30)
    record = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert record["sentence"] == example.sentence()
    assert record["order"]["4"] == [1, 0, 2]
    loaded = Explanation.load(tmp_path / "out")
    for name in Explanation.__dataclass_fields__:
        before, after = getattr(example, name), getattr(loaded, name)
        if isinstance(before, torch.Tensor):
            assert torch.equal(before, after), name
        elif isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after, name


def test_save_and_load_with_unknowns_and_hostile_names(tmp_path):
    example = explanation(
        path=HOSTILE,
        label=None,
        faithfulness=faithfulness(r2=float("nan")),
        target_names=(HOSTILE,),
    )
    example.save(tmp_path / "out")
    loaded = Explanation.load(tmp_path / "out")
    assert loaded.label is None
    assert np.isnan(loaded.faithfulness.r2)
    assert loaded.path.startswith("<script>")


def test_save_of_tensors_that_require_grad(tmp_path):
    example = explanation(((1.0,),), features=torch.tensor([1.0], requires_grad=True))
    example.save(tmp_path / "out")
    assert example.plot() is not None


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_in_the_middle_of_saving_leaves_everything_as_before(
    tmp_path, monkeypatch, existing
):
    if existing:
        explanation(((1.0,),), label="old").save(tmp_path / "out")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space"):
        explanation(((1.0,),), label="new").save(tmp_path / "out")
    assert names(tmp_path) == (["out"] if existing else [])
    assert not existing or Explanation.load(tmp_path / "out").label == "old"


def test_save_replaces_an_explanation_and_nothing_else(tmp_path):
    explanation(((1.0, 2.0),)).save(tmp_path / "out")
    explanation(((1.0,),)).save(tmp_path / "out")
    assert "x_feature_2.png" not in names(tmp_path / "out")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(FileExistsError, match="photos"):
        explanation().save(tmp_path / "photos")


def test_load_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(DataError, match=r"is not a saved explanation.*holds no explanation\.json"):
        Explanation.load(tmp_path)
    (tmp_path / "explanation.json").write_text('{"format": "torchxnn.explanation", "version": 99}')
    with pytest.raises(DataError, match="version 99"):
        Explanation.load(tmp_path)


def test_a_prompt_shows_the_sentence():
    shown = explanation(((1.0,),))
    assert repr(shown) == f"<Explanation: {shown.sentence()}>"


def test_notebooks_show_the_figure():
    assert explanation(((1.0,),))._repr_png_().startswith(b"\x89PNG")
