"""One contract of all results that are drawn and kept: explanations, contrasts, what-ifs."""

import json
import shutil
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from explanation_examples import CERTIFICATE, explanation, peak, photograph
from torchxnn.apps.what_if.change import Change
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.result import WhatIf
from torchxnn.errors import DataError
from torchxnn.explanations.contrast import contrast
from torchxnn.explanations.text_table import TableExplanation, TextExplanation


def listed(kind=TextExplanation, target=4, **changes):
    """An explanation of a text or a row of three entries, with two x-features."""
    own = {"values": torch.tensor([1.5, -2.0, 0.25])} if kind is TableExplanation else {}
    values = torch.tensor([[2.0, -0.5]])
    return kind(
        entries=("a", "b", "c"),
        attributions=torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.5, -0.6]]),
        logit_attributions=torch.tensor([[1.0, 0.5, -0.25]]),
        features=torch.tensor([2.0, 0.5]), contributions=values, intercept=torch.tensor([0.5]),
        targets=(target,), target_names=(f"bird {target}",), logits=torch.tensor([2.1]),
        reproduced=torch.tensor([2.0]), predicted_class=4, predicted_name="bird 4",
        feature_names=("red", "blue"), certificate=CERTIFICATE, faithfulness=None, degenerate=(),
        path="a.txt", **own, **changes,
    )  # fmt: skip


def against(first, **changes):
    return contrast(first, replace(first, targets=(5,), target_names=("bird 5",), **changes))


def absence():
    """What the absence of one x-feature changes, and of one that is inactive."""
    image, heatmap = photograph(30, 40), peak(30, 40)
    change = Change(
        feature=1, name="red", activation=2.0, contribution=3.0, pixels=5, set_reproduced=-3.0,
        masked_real=-2.5, masked_reproduced=-2.25, control_real=(-0.5, 0.1),
        control_reproduced=(0.0, 1e-9), decoded_real=None, heatmap=heatmap, region=heatmap > 0,
        masked=255 - image, control=image, control_region=np.roll(heatmap > 0, 9, 1),
    )  # fmt: skip
    idle = replace(change, feature=0, activation=0.0, pixels=0, region=np.zeros((30, 40), bool))
    config = WhatIfConfig(share=0.2, pixels=5)
    numbers = {"target": 4, "target_name": "bird 4", "logit": 5.1, "reproduced": 5.0}
    return WhatIf(image, **numbers, decoded=None, changes=(change, idle), config=config)


RESULTS = {
    "image": lambda: explanation(),
    "text": lambda: listed(),
    "row": lambda: listed(TableExplanation),
    "contrast": lambda: against(explanation(), logits=torch.tensor([-1.0])),
    "what if": absence,
    "contrast of rows": lambda: against(listed(TableExplanation), logits=torch.tensor([1.0])),
}


@pytest.fixture(params=RESULTS)
def result(request):
    return RESULTS[request.param]()


@pytest.fixture(scope="module")
def put(tmp_path_factory):
    """Put a saved result of a name somewhere: saved once, since that draws pictures, and copied."""
    first = {}

    def put(name, folder):
        if name not in first:
            first[name] = tmp_path_factory.mktemp("saved") / "it"
            RESULTS[name]().save(first[name])
        shutil.copytree(first[name], folder)

    return put


@pytest.fixture
def name(request):
    """The name of the result that the test is about."""
    return request.node.callspec.params["result"]


def assert_same(one, other, where=""):
    """Equal to the last bit, whatever they hold."""
    assert type(one) is type(other), where
    if isinstance(one, (torch.Tensor, np.ndarray)):
        np.testing.assert_array_equal(one, other, err_msg=where)
        assert one.dtype == other.dtype, where
    elif is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), field.name)
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, where)
    else:
        assert one == other, where


def test_it_comes_back_as_it_was(result, tmp_path):
    result.save(tmp_path / "it")
    assert_same(type(result).load(tmp_path / "it"), result)


def test_the_folder_holds_json_page_and_figure(result, tmp_path):
    result.save(tmp_path / "it")
    record = json.loads((tmp_path / "it" / f"{result.stem}.json").read_text("utf-8"))
    assert record["format"] == type(result).format.name
    assert record["versions"]["torchxnn"]
    result.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert (tmp_path / "it" / f"{result.stem}.html").read_text("utf-8") == page
    assert "<script" not in page
    with Image.open(tmp_path / "it" / "figure.png") as figure:
        assert min(figure.size) > 200
    assert result._repr_png_() == (tmp_path / "it" / "figure.png").read_bytes()
    assert result.plot().get_size_inches()[0] > 3


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_figure_is_saved_by_its_ending(result, kind, tmp_path):
    result.save_figure(tmp_path / f"figure.{kind}")
    assert (tmp_path / f"figure.{kind}").stat().st_size > 1000


@pytest.mark.parametrize("what", ["torchxnn.storage.artifact.Format.encode", "PIL.Image.Image.save",
                                  "matplotlib.figure.Figure.savefig"])  # fmt: skip
@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_write_leaves_everything_as_it_was(
    result, name, put, what, existing, tmp_path, monkeypatch
):
    if existing:
        put(name, tmp_path / "it")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(what, fail)
    with pytest.raises(OSError, match="No space"):
        result.save(tmp_path / "it")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == (["it"] if existing else [])
    if existing:
        assert_same(type(result).load(tmp_path / "it"), result)


def test_what_is_not_ours_is_neither_replaced_nor_read(result, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(FileExistsError, match="photos"):
        result.save(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"
    with pytest.raises(DataError, match=f"photos is not a saved .*{result.stem}.json"):
        type(result).load(tmp_path / "photos")
    file = tmp_path / "photos" / f"{result.stem}.json"
    for content, message in (("{", "damaged"), ('{"format": "torchxnn.chunks"}', "its format is")):
        file.write_text(content)
        with pytest.raises(DataError, match=message):
            type(result).load(tmp_path / "photos")


def test_a_folder_with_a_part_missing_is_called_damaged(result, name, put, tmp_path):
    put(name, tmp_path / "it")
    file = tmp_path / "it" / f"{result.stem}.json"
    whole = json.loads(file.read_text("utf-8"))
    head = {key: whole[key] for key in ("format", "format_version", "versions")}
    file.write_text(json.dumps(head))
    with pytest.raises(DataError, match=r"damaged|without its explanations"):
        type(result).load(tmp_path / "it")


@pytest.mark.parametrize("name", ["contrast", "contrast of rows"])
@pytest.mark.parametrize("change", [{"explanations": "torchxnn.other"}, {"explanations": ["a"]},
                                    {"positions": [0, 9]}, {"positions": 0}])  # fmt: skip
def test_a_contrast_of_what_is_not_there_is_called_damaged(name, change, put, tmp_path):
    result = RESULTS[name]()
    put(name, tmp_path / "it")
    file = tmp_path / "it" / "contrast.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change))
    with pytest.raises(DataError, match="damaged"):
        type(result).load(tmp_path / "it")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of numpy.load
@pytest.mark.parametrize("name", ["image", "what if"])
def test_no_damage_of_the_arrays_is_anything_but_damage(name, put, tmp_path):
    result = RESULTS[name]()
    put(name, tmp_path / "it")
    file = tmp_path / "it" / "arrays.npz"
    whole = file.read_bytes()
    cuts = [whole[:length] for length in (0, 1, len(whole) // 2, len(whole) - 1)]
    flips = [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, 600, 3)]
    for content in [*cuts, *flips]:
        file.write_bytes(content)
        with suppress(DataError):  # a bit that nobody reads may be flipped
            type(result).load(tmp_path / "it")
    file.unlink()
    with pytest.raises(DataError, match=r"damaged|without its arrays"):
        type(result).load(tmp_path / "it")


def test_an_older_result_is_replaced_as_a_whole(result, name, put, tmp_path):
    put(name, tmp_path / "it")
    (tmp_path / "it" / "left_over.png").write_text("of an older version")
    result.save(tmp_path / "it")
    assert not (tmp_path / "it" / "left_over.png").exists()


@pytest.mark.parametrize("name", ["image", "text", "row"])
def test_explanations_of_earlier_versions_are_read(name, put, tmp_path):
    result = RESULTS[name]()
    put(name, tmp_path / "it")
    file = tmp_path / "it" / "explanation.json"
    record = json.loads(file.read_text("utf-8"))
    record["version"] = record.pop("format_version")  # as written before there were `versions`
    del record["versions"]
    file.write_text(json.dumps(record))
    assert_same(type(result).load(tmp_path / "it"), result)


def test_a_contrast_of_rows_draws_columns():
    card = RESULTS["contrast of rows"]().card()
    assert card.kind == "table"
    assert [panel.name for panel in card.panels] == ["A: red", "B: red", "A: blue", "B: blue"]
    assert card.panels[1].values == (-2.0,)
    difference = card.logit_panels[0].evidence.values
    np.testing.assert_array_equal(difference, np.zeros(3, dtype=np.float32))


def test_a_contrast_needs_explanations_of_one_kind_and_input():
    with pytest.raises(DataError, match="different inputs"):
        contrast(explanation(), listed(target=5))
    with pytest.raises(DataError, match="different inputs"):
        contrast(listed(), replace(listed(target=5), entries=("a", "b", "d")))


def test_a_shared_scale_compares_the_x_features():
    own, shared = (listed().card(scale=scale).panels for scale in ("each", "shared"))
    assert [max(panel.evidence.levels(), key=abs) for panel in own] == [8, -8]
    assert [max(panel.evidence.levels(), key=abs) for panel in shared] == [4, -8]
    assert own[0].evidence.bounds == pytest.approx((0.2, 0.3))
    assert shared[0].evidence.bounds == pytest.approx((0.6, 0.5))


def test_a_what_if_of_an_earlier_version_claims_nothing_that_5_controls_cannot_show(tmp_path):
    """ "The network uses it" after beating 5 controls is p = 1/6."""
    found = absence()
    change = replace(found.changes[0], control_real=(-0.5, 0.1, 0.0, -1.0, 0.2))
    replace(found, changes=(change, found.changes[1])).save(tmp_path / "it")
    file = tmp_path / "it" / "what_if.json"
    record = json.loads(file.read_text("utf-8"))
    del record["config"]["on_object"]
    record["config"]["controls"] = 5
    for each in record["changes"]:
        del each["p"], each["p_holm"]
        each["used"] = True
    file.write_text(json.dumps(record), "utf-8")
    loaded = WhatIf.load(tmp_path / "it")
    assert loaded.config.on_object == 0
    assert not loaded.used(1)
    assert "not show that the network uses it (p = 0.167; needed: at" in loaded.sentence(1)
