import csv
import io
import json
import multiprocessing
import threading
import warnings
from contextlib import contextmanager
from dataclasses import replace

import fsspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_images, make_net
from torchxnn import XNN
from torchxnn.data.record import record_activations
from torchxnn.errors import DataError, ModelError, XNNWarning
from torchxnn.explanations.names.adopt import carry_over
from torchxnn.explanations.names.file import names_csv, read_names, write_names
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.explanations.names.records import BY_RULE, Action, Judgement
from torchxnn.explanations.names.texts import bare, names_fact, normalised, words_of_a_rule
from torchxnn.storage.artifact import structure, to_json
from torchxnn.storage.files import replace_folder
from torchxnn.storage.saved_folder import read_saved
from xnn_examples import QUICK, make_loader, quick_fit

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")


@pytest.fixture(scope="module")
def fitted_once():
    xnn = XNN(make_net(), "classifier.1", 3, class_names=("a", "b", "c", "d"))
    quick_fit(xnn, make_loader(), 1)
    return xnn


@pytest.fixture
def xnn(fitted_once):
    fitted_once.names = FeatureNames(3)
    return fitted_once


def named(*votes, n=3):
    names = FeatureNames(n)
    for who, feature, name in votes:
        names = names.judge(feature, name, who=who)
    return names


def test_what_one_person_says_is_shown_as_that_and_not_agreed_on():
    names = named(("Ada", 0, "golden feather"))
    assert names.shown() == ("“golden feather”", "x-feature 2", "x-feature 3")
    assert names.disagreements == ()
    assert (names.name(0), names.agreed(0)) == ("golden feather", "")
    assert (names.settled(0).status, names.settled(0).said_by) == ("one person", "one person alone")
    both = names.judge(0, "Golden feather", who="Bo")
    assert (both.shown()[0], both.agreed(0)) == ("golden feather", "golden feather")
    assert (both.settled(0).status, both.settled(0).said_by) == ("agreed", "2 of 2 people")
    assert (both.settled(1).status, both.settled(1).said_by) == ("", "nobody")
    unnamed = both.judge(1, "", who="Bo", flag="unclear")
    assert unnamed.settled(1).said_by == "one person could not name it"
    assert unnamed.judge(1, "beak", who="Ada").settled(1).said_by == "2 people do not agree"


def test_quotation_marks_that_people_write_do_not_look_like_one_persons_name():
    names = named(("A", 0, '"wing"'), ("A", 1, "“beak”"), ("B", 1, "„beak“"))
    assert names.shown()[:2] == ("“wing”", "beak")
    assert names_fact(names.shown()) == (
        (
            "Names",
            "in quotation marks is what one person calls it, which nobody else has confirmed: "
            "“wing”",
        ),
    )
    assert names_fact(("wing", "x-feature 2")) == ()


def test_a_name_by_rule_is_nobodys_and_says_so_until_a_person_judges():
    names = FeatureNames(2).judge(0, "dark cell", who=BY_RULE)
    label = words_of_a_rule("dark cell")
    assert names.shown() == (label, "x-feature 2")
    settled = names.settled(0)
    assert (settled.status, settled.agreeing, settled.people) == ("by rule", 0, 0)
    assert settled.said_by == "a rule, as an example; no person"
    assert names.people == ()
    mixed = (label, "“beak”")
    one = "in quotation marks is what one person calls it, which nobody else has confirmed: “beak”"
    rule = f"named by a rule, as an example; no person looked: {label}"
    assert names_fact(names.shown()) == (("Names", rule),)
    assert names_fact(mixed) == (("Names", f"{one}; {rule}"),)
    judged = names.judge(0, "Dark cell", who="Ada")
    assert (judged.shown()[0], judged.people) == ("“Dark cell”", ("Ada",))
    assert bare(label) == "dark cell"


def test_a_person_is_one_however_capitals_are_written():
    names = named(("Ada", 0, "wing"), ("ADA", 0, "wing"), (" ada", 1, "beak"))
    assert names.people == ("Ada",)
    assert names.settled(0).status == "one person"
    assert names.settled(0).people == 1
    assert names.person("aDA") == "Ada"
    assert names.person("Bo") == "Bo"
    assert names.opinions() == (("wing",), ("beak",), (None,))


def test_the_last_judgement_of_a_person_counts_and_all_are_kept():
    names = named(("Ada", 0, "wing"), ("Ada", 0, "golden feather"))
    assert names.name(0) == "golden feather"
    assert len(names.judgements) == 2
    assert names.judge(0, "", who="Ada").name(0) == ""
    assert names.judge(0, "", who="Ada").settled(0).people == 0


def test_spellings_count_as_one_name():
    names = named(
        ("A", 0, "Golden-Feather"), ("B", 0, "golden  feather"), ("C", 0, "golden feather")
    )
    assert names.settled(0).votes == (("golden feather", 3),)
    assert normalised(" \uff27olden_Feather. ") == "golden feather"


def test_a_tie_stays_unnamed_and_is_listed_until_names_are_merged():
    names = named(("A", 0, "red crown"), ("B", 0, "red forehead"))
    assert names.shown()[0] == "x-feature 1"
    assert names.disagreements == (0,)
    merged = names.merge(0, ["red crown", "Red Forehead"], "red forehead", who="A")
    assert merged.agreed(0) == "red forehead"
    assert merged.disagreements == ()
    split = merged.split(0, "red crown", who="B")
    assert split.agreed(0) == ""
    assert len(split.actions) == 2


def test_more_than_half_is_needed_and_those_without_a_name_count():
    names = named(("A", 0, "crown"), ("B", 0, "crown"), ("C", 0, "wing"))
    assert names.agreed(0) == "crown"
    assert (names.settled(0).agreeing, names.settled(0).people) == (2, 3)
    names = names.judge(0, "", who="D", flag="unclear")
    assert names.agreed(0) == ""
    assert names.settled(0).votes == (("crown", 2), ("wing", 1), ("", 1))
    assert names.judge(0, "", who="C", flag="unclear").settled(0).flag == ""


def test_the_flag_needs_more_than_half_too():
    names = FeatureNames(1).judge(0, "beak", who="A", flag="mixed")
    assert names.settled(0).flag == "mixed"
    assert names.judge(0, "beak", who="B").settled(0).flag == ""


def test_merges_chain_and_split_undoes_the_chain():
    names = named(("A", 0, "a1"), ("B", 0, "b1"), ("C", 0, "c1"))
    names = names.merge(0, ["a1", "b1"], "ab").merge(0, ["ab", "c1"], "abc")
    assert names.settled(0).votes == (("abc", 3),)
    assert names.split(0, "a1").settled(0).votes == (("a1", 1), ("b1", 1), ("c1", 1))


def test_a_merge_is_about_one_feature():
    names = named(("A", 0, "x1"), ("B", 0, "y1"), ("A", 1, "x1"), ("B", 1, "y1"))
    assert names.merge(0, ["x1", "y1"], "x1").disagreements == (1,)


def test_equal_names_carry_their_numbers():
    names = named(("A", 0, "wing bar"), ("A", 2, "Wing bar"))
    assert names.shown() == ("“wing bar” #1", "x-feature 2", "“Wing bar” #3")
    names = names.judge(0, "wing bar", who="B")
    assert names.shown()[0] == "wing bar #1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"feature": -1, "name": "a"}, "a number from 0"),
        ({"feature": True, "name": "a"}, "a number from 0"),
        ({"feature": 0, "name": "a" * 81}, "at most 80"),
        ({"feature": 0, "name": "a\nb"}, "one line"),
        ({"feature": 0, "name": "x-feature 2"}, "give another name"),
        ({"feature": 0, "name": "a", "note": "n" * 2001}, "at most 2000"),
        ({"feature": 0, "name": "a", "when": "yesterday"}, "ISO 8601"),
    ],
)
def test_unusable_judgements_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Judgement(**values)


def test_an_unknown_flag_is_refused():
    with pytest.raises((DataError, TypeError), match="sure"):  # beartype may see it first
        Judgement(0, "a", flag="sure")


def test_actions_need_names():
    with pytest.raises(DataError, match="needs names"):
        Action("merge", 0, ("a",), "")
    with pytest.raises(DataError, match="needs names"):
        FeatureNames(1).split(0, "")
    with pytest.raises(DataError, match="no x-feature 3"):
        named(("A", 3, "a"))


# Tuples of plain values: the checks of types draw random numbers, which strategies must not.
DAYS = ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+02:00"]
judgements = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["wing", "Wing", "beak", "", "crown"]),
    st.just(""),
    st.sampled_from(["", "mixed"]),
    st.sampled_from(["A", "B", "C"]),
    st.sampled_from(DAYS),
)
actions = st.tuples(
    st.sampled_from(["merge", "split"]),
    st.integers(0, 2),
    st.just(("wing", "beak")),
    st.sampled_from(["wing", "bird"]),
    st.just("A"),
    st.sampled_from(DAYS),
)
records = st.tuples(st.lists(judgements, max_size=6), st.lists(actions, max_size=3))


def collect(found):
    return FeatureNames(
        3, tuple(Judgement(*each) for each in found[0]), tuple(Action(*each) for each in found[1])
    )


@given(records, records)
@settings(max_examples=50)
def test_union_does_not_depend_on_the_order_and_json_keeps_everything(one, other):
    first, second = collect(one), collect(other)
    both = first.union(second)
    assert both == second.union(first)
    assert both.shown() == second.union(first).shown()
    assert both.union(first) == both
    assert structure(json.loads(to_json(both)), FeatureNames, "it") == both


def test_times_go_on_even_if_the_clock_does_not():
    names = FeatureNames(1).judge(0, "old", who="A", when="2999-12-31T23:59:59.999999+00:00")
    assert names.judge(0, "new", who="A").name(0) == "new"


def test_names_show_everywhere_and_survive_saving(xnn, tmp_path):
    images, _ = make_images(4)
    xnn.name_feature(0, "golden feather", who="Ada", note="also the belly")
    assert xnn.feature_names == ("“golden feather”", "x-feature 2", "x-feature 3")
    assert xnn.explain(images[1]).feature_names == xnn.feature_names
    xnn.save_pretrained(tmp_path / "run")
    loaded = XNN.from_pretrained(tmp_path / "run", xnn.model)
    assert loaded.names == xnn.names
    loaded.name_feature(1, "crown", who="Bo")
    loaded.save_pretrained(tmp_path / "run")
    xnn.name_feature(2, "wing", who="Cy")
    xnn.save_pretrained(tmp_path / "run")  # adds to what Bo wrote meanwhile
    assert XNN.from_pretrained(tmp_path / "run", xnn.model).feature_names == (
        "“golden feather”", "“crown”", "“wing”"
    )  # fmt: skip


def test_names_of_another_fit_are_not_replaced(xnn, tmp_path):
    xnn.name_feature(0, "wing")
    xnn.save_pretrained(tmp_path / "run")
    other = XNN(make_net(), "classifier.1", 3)
    quick_fit(other, make_loader(), 1, replace(QUICK, seed=5, epochs=2))
    with pytest.raises(FileExistsError, match="adopt_names"):
        other.save_pretrained(tmp_path / "run")
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "names.json").write_bytes((tmp_path / "run/names.json").read_bytes())
    with pytest.raises(ModelError, match="another fit"):
        XNN.from_pretrained(tmp_path / "other", xnn.model)


def test_names_in_object_storage(xnn):
    url = "memory://naming/run"
    xnn.name_feature(0, "wing", who="A")
    xnn.save_pretrained(url)
    loaded = XNN.from_pretrained(url, xnn.model)
    loaded.name_feature(1, "crown", who="B")
    loaded.save_pretrained(url)
    xnn.save_pretrained(url)
    assert XNN.from_pretrained(url, xnn.model).feature_names[:2] == ("“wing”", "“crown”")
    fsspec.filesystem("memory").rm("/naming", recursive=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"format": "other"}', "is not a file of names"),
        ('{"format": "torchxnn.names", "format_version": 2}', "format version 2"),
        (
            '{"format": "torchxnn.names", "format_version": 1, "embedding_sha256": "d"}',
            "is damaged",
        ),
        (
            '{"format": "torchxnn.names", "format_version": 1, "embedding_sha256": "d", '
            '"n_features": 2, "judgements": [], "actions": []}',
            "about 2 x-features",
        ),
    ],
)
def test_a_broken_file_is_an_error(tmp_path, content, message):
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_names(tmp_path, "d", 3)


def test_a_judgement_given_while_the_xnn_is_saved_again_is_kept(xnn, tmp_path, monkeypatch):
    run = tmp_path / "run"
    xnn.name_feature(0, "wing", who="A")
    xnn.save_pretrained(run)
    embedding = read_saved(run)[0]["weights_sha256"]
    entered, others = threading.Event(), []

    def judge(who):
        entered.set()
        write_names(run, FeatureNames(3).judge(1, f"name of {who}", who=who), embedding)

    @contextmanager
    def slow(path, marker):
        with replace_folder(path, marker) as folder:
            yield folder  # the names that are to stay are in the new folder, and somebody judges
            others.extend(threading.Thread(target=judge, args=(who,)) for who in "BCD")
            for other in others:
                other.start()
            entered.wait()
            others[0].join(0.3)

    monkeypatch.setattr("torchxnn.storage.saved_folder.replace_folder", slow)
    xnn.save_pretrained(run)
    for other in others:
        other.join(30)
    assert read_names(run, embedding, 3).people == ("A", "B", "C", "D")


def test_a_judgement_given_between_the_two_renames_of_a_save_is_kept(xnn, tmp_path, monkeypatch):
    """The folder is not there at that moment; who judges then must wait, and not make it anew."""
    run = tmp_path / "run"
    xnn.save_pretrained(run)
    embedding = read_saved(run)[0]["weights_sha256"]
    judgement = FeatureNames(3).judge(1, "wing", who="B")
    other = threading.Thread(target=write_names, args=(run, judgement, embedding))
    rename = type(run).rename

    def slow(self, target):
        renamed = rename(self, target)
        if self == run:
            other.start()
            other.join(0.3)
        return renamed

    monkeypatch.setattr(type(run), "rename", slow)
    xnn.save_pretrained(run)
    other.join(30)
    assert read_names(run, embedding, 3).people == ("B",)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.lock", "run"]


def test_names_of_an_xnn_that_is_gone_are_refused(tmp_path):
    judgement = FeatureNames(3).judge(0, "wing", who="A")
    for folder in (tmp_path, tmp_path / "run", tmp_path / "gone" / "run"):
        with pytest.raises(FileNotFoundError):
            write_names(folder, judgement, "d")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def _judge_often(folder, who):
    for feature in range(3):
        for _ in range(5):
            write_names(folder, FeatureNames(3).judge(feature, f"name of {who}", who=who), "d")


def test_two_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    (tmp_path / "xnn.json").write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        jobs = [context.Process(target=_judge_often, args=(tmp_path, who)) for who in "AB"]
        for job in jobs:
            job.start()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert len(read_names(tmp_path, "d", 3).judgements) == 30


def test_csv_holds_all_judgements_and_runs_nothing():
    names = named(("A", 0, "=HYPERLINK()"), ("B", 0, "wing"), ("A", 0, "wing"))
    rows = list(csv.DictReader(io.StringIO(names_csv(names).decode())))
    assert [row["name"] for row in rows] == ["'=HYPERLINK()", "wing", "wing", "", ""]
    assert [row["counts"] for row in rows] == ["no", "yes", "yes", "", ""]
    assert (rows[0]["agreed_name"], rows[0]["status"]) == ("wing", "agreed")
    assert rows[3]["x_feature"] == "x-feature 2"


def test_carry_over_by_hand():
    base = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    names = named(("A", 0, "wing"), ("A", 1, "crown"), ("B", 2, "beak"))
    new = torch.stack([base[:, 2] * 3, base[:, 0] + 1, torch.rand(20)], 1)
    carried, adoption = carry_over(names, base, new)
    assert [carried.name(i) for i in range(3)] == ["beak", "wing", ""]
    assert "x-feature 3 of an earlier fit, correlation 1.00" in carried.judgements[1].origin
    assert [match.name for match in adoption.lost] == ["crown"]
    assert "not carried over (below 0.7)" in adoption.summary()


def test_carry_over_to_fewer_and_more_features():
    base = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    names = named(("A", 0, "wing"), ("A", 1, "crown"))
    fewer, adoption = carry_over(names, base, base[:, 1:2])
    assert fewer.shown() == ("“crown”",)
    assert adoption.matches[0].new is None
    assert "no x-feature left" in adoption.summary()
    more, _ = carry_over(names, base, torch.cat([torch.zeros(20, 2), base], 1))
    assert more.shown()[2:4] == ("“wing”", "“crown”")
    with pytest.raises(DataError, match="too few"):
        carry_over(names, base[:9], base[:9])
    with pytest.raises(DataError, match="threshold"):
        carry_over(names, base, base, 0.0)


def test_adopt_names_matches_refits(xnn):
    for i, name in enumerate(("wing", "crown", "beak")):
        xnn.name_feature(i, name, who="Ada")
    same = XNN(xnn.model, "classifier.1", 3)
    same.embedding, same.targets = xnn.embedding, xnn.targets
    images, labels = make_images(96)
    adoption = same.adopt_names(xnn, make_loader())
    alive = [m.old for m in adoption.matches if m.adopted]
    assert alive
    assert [same.feature_names[i] for i in alive] == [xnn.feature_names[i] for i in alive]
    recorded = record_activations(xnn.model, xnn.layer, [(images, labels)])
    assert same.adopt_names(xnn, recorded).matches == adoption.matches
    other = XNN(xnn.model, "classifier.0", 3)
    other.embedding, other.targets = xnn.embedding, xnn.targets
    with pytest.raises(DataError, match="give a loader"):
        other.adopt_names(xnn, recorded)
    other.targets = (0,)
    with pytest.raises(DataError, match="explain classes"):
        other.adopt_names(xnn, recorded)


def test_a_refit_keeps_what_it_finds_again_and_warns_of_the_rest():
    xnn = XNN(make_net(), "classifier.1", 3)
    quick_fit(xnn, make_loader(), 1)
    for i in range(3):
        xnn.name_feature(i, f"name {i}")
    with warnings.catch_warnings(record=True):  # a dead x-feature matches nothing
        warnings.simplefilter("always")
        quick_fit(xnn, make_loader(), 1)  # the same seed finds the same x-features
    assert any(name.startswith("“name") for name in xnn.feature_names)
    for i in range(3):
        xnn.name_feature(i, f"name {i}")
    with pytest.warns(XNNWarning, match="the new fit has no x-feature like 'name 0'"):
        quick_fit(xnn, make_loader(), 2)
    assert xnn.feature_names == ("x-feature 1", "x-feature 2", "x-feature 3")


def test_names_must_fit(xnn):
    with pytest.raises(DataError, match="do not fit"):
        xnn.names = FeatureNames(4)
    with pytest.raises(DataError, match="different XNNs"):
        FeatureNames(3).union(FeatureNames(4))
