import json
import shutil
from dataclasses import replace

import pytest

from cli_examples import fails
from conftest import make_net
from torchxnn import XNN
from torchxnn.apps.run_card import _shares_on, read_card, write_card
from torchxnn.cli.main import main
from torchxnn.errors import DataError, ModelError
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.storage.artifact import to_json
from xnn_examples import make_loader, quick_fit

NAMES = ("cat", "d|o`g*", "fox", "owl")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "run"
    source = {"model": "mine:net", "weights": "/secret/place/w.safetensors", "data": "pictures"}
    xnn = XNN(make_net(), "classifier.1", class_names=NAMES, source=source)
    quick_fit(xnn, make_loader(), 1)
    for who, name in (("Ada", "tail"), ("Bo", "Tail"), ("Cy", "ear")):
        xnn.names = xnn.names.judge(2, name, who=who)
    xnn.name_feature(1, "ear", who="Ada")
    xnn.save_pretrained(folder)
    return xnn, folder


def test_a_card_says_what_the_fit_found_and_who_named_what(saved):
    xnn, folder = saved
    card, held_out = read_card(folder), xnn.report.validation
    assert card.title == "Why d|o`g*?"
    assert dict(card.network)["weights"] == "w.safetensors"
    assert len(dict(card.network)["fingerprint"]) == 64
    assert dict(card.data)["images"] == "pictures"
    assert f"R² {held_out.r2:.3f}" in dict(card.faithfulness)["on held-out images"]
    assert [f.share for f in card.features] == list(held_out.share[0])
    assert [f.contribution for f in card.features] == list(held_out.mean_contribution[0])
    named = card.features[2]
    assert (named.name, named.agreeing, named.people) == ("tail", 2, 3)
    assert (named.status, named.said_by) == ("agreed", "2 of 3 people")
    alone = card.features[1]
    assert (alone.name, alone.status, alone.said_by) == ("“ear”", "one person", "one person alone")
    assert (card.features[0].name, card.features[0].people) == ("x-feature 1", 0)
    assert card.warnings == xnn.report.degenerate
    own = held_out.bound_positives[0]
    assert card.shares_on == f"the {own} positives among {held_out.images} images held out"
    assert f"contributions to the class: on {card.shares_on}." in card.markdown()


def test_shares_are_said_to_be_of_the_first_targets_positives(saved):
    found = saved[0].report.validation
    two = replace(found, share=found.share * 2, bound_positives=(1, 7), positives=8, images=9)
    said = "the 1 positive of the first label among 9 images held out"
    assert _shares_on(two, "label", "held out") == said
    of_old = replace(two, bound_positives=None)
    said = "the positives of the first value among 9 images evaluated"
    assert _shares_on(of_old, "value", "evaluated") == said
    labels = replace(read_card(saved[1]), noun="label").markdown()
    assert "mean contributions to the label: on the " in labels
    assert "| share | label |" in labels


@pytest.mark.parametrize("more", [-1, 1])
def test_names_of_another_number_of_features_are_refused(saved, more):
    names = FeatureNames(saved[0].names.n_features + more)
    with pytest.raises(DataError, match=f"names are of {names.n_features} x-features"):
        read_card(saved[1], names=names)


def test_further_figures_come_from_an_evaluation(saved):
    xnn, folder = saved
    found = xnn.evaluate(make_loader(seed=1))
    card = read_card(folder, found)
    assert f"R² {found.faithfulness.r2:.3f}" in dict(card.faithfulness)["on the images evaluated"]
    masses = [m for m in found.certificate.contrast_mass if m is not None]
    assert dict(card.maps)["contrast mass"].startswith(f"{min(masses):.2%}")
    assert "of which XNN is not recorded" in dict(card.faithfulness)["on the images evaluated"]
    few = replace(found, faithfulness=replace(found.faithfulness, n_features=7))
    for other in (few, replace(found, weights_sha256="of another")):
        with pytest.raises(ModelError, match="is of another XNN than the one in"):
            read_card(folder, other)


def test_the_command_needs_no_network_and_prints_or_writes(saved, tmp_path, capsys):
    xnn, folder = saved
    (tmp_path / "found.json").write_bytes(to_json(xnn.evaluate(make_loader(seed=1))))
    assert main(["card", str(folder)]) == 0
    page = capsys.readouterr().out
    assert "# Why d\\|o\\`g\\*?" in page
    assert "| 3 | tail | 2 of 3 people |" in page
    assert "| 2 | “ear” | one person alone |" in page
    assert "**Names**" not in page  # the column says it
    assert "/secret" not in page
    words = ["card", folder, "--evaluation", tmp_path / "found.json"]
    out, values = tmp_path / "card.md", tmp_path / "card.json"
    assert main([*map(str, words), "--out", str(out), "--json", str(values)]) == 0
    assert "on the images evaluated" in out.read_text("utf-8")
    assert json.loads(values.read_bytes())["features"][2]["name"] == "tail"


def test_a_card_is_written_beside_a_page(saved, tmp_path):
    card = read_card(saved[1])
    assert write_card(card, tmp_path / "a report.html") == (
        ("Markdown", "a report.card.md"), ("JSON", "a report.card.json")
    )  # fmt: skip
    assert (tmp_path / "a report.card.md").read_text("utf-8") == card.markdown()
    assert json.loads((tmp_path / "a report.card.json").read_bytes())["title"] == card.title


def test_what_is_no_card_is_refused_in_one_line(saved, tmp_path, capsys):
    xnn, folder = saved
    (tmp_path / "no.json").write_text("{")
    line = fails(capsys, "card", folder, "--evaluation", tmp_path / "no.json")
    assert "is no JSON; write it with xnn evaluate" in line
    (tmp_path / "other.json").write_text('{"a": 1}')
    assert "damaged" in fails(capsys, "card", folder, "--evaluation", tmp_path / "other.json")
    attached = XNN(make_net(), "classifier.1", class_names=NAMES)
    attached.attach_embedding(xnn.embedding, (1,), 4)
    attached.save_pretrained(tmp_path / "attached")
    with pytest.raises(ModelError, match="keeps no record of a fit"):
        read_card(tmp_path / "attached")
    assert "xnn.json" in fails(capsys, "card", tmp_path)


@pytest.mark.parametrize(
    "change", [{"targets": [-1]}, {"layer": None}, {"class_names": [1, 2]}, {"versions": []}]
)
def test_a_damaged_record_gives_no_card(saved, tmp_path, change):
    copy = tmp_path / "run"
    shutil.copytree(saved[1], copy)
    about = json.loads((copy / "xnn.json").read_text("utf-8"))
    (copy / "xnn.json").write_text(json.dumps({**about, **change}))
    with pytest.raises((ModelError, DataError)):
        read_card(copy)


def test_a_card_of_other_weights_is_refused(saved, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(saved[1], copy)
    file = copy / "embedding.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        read_card(copy)
