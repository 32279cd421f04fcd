"""The texts of every language that comes with the study, and the direction of the others."""

import re
from string import Formatter

import pytest
import yaml

import study_session as s
from study_plan import write_tiny_study
from torchxnn.apps.study.plan import TEXTS
from torchxnn.apps.study.recorded import RECORDED
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import StudySettings
from torchxnn.apps.study.texts import (
    ASKED,
    MINUTES,
    default_consent,
    default_texts,
    direction,
    find_blanks,
    read_texts,
)

TASKS = tuple(ASKED["en"])
SAME = {"de": {"stage.heatmaps", "stage.heatmap", "stage.heatmap_of"}}
"""Texts that are as in English, by language."""


def leaves(values, place=""):
    """All texts by their place, say "stage.intro.XNN"."""
    if isinstance(values, dict):
        inner = values.items()
    elif isinstance(values, list):
        inner = enumerate(values)
    else:
        return {place: values}
    found = {}
    for key, value in inner:
        found |= leaves(value, f"{place}.{key}" if place else str(key))
    return found


def texts_of(language, task):
    return leaves(yaml.safe_load(default_texts(language, task)))


def names(text):
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", sorted(set(ASKED) - {"en"}))
@pytest.mark.parametrize("task", TASKS)
def test_a_language_has_every_text_with_the_same_names_and_nothing_in_english(language, task):
    ours, english = texts_of(language, task), texts_of("en", task)
    assert list(ours) == list(english)
    for place, text in english.items():
        assert names(ours[place]) == names(text), place
        where = place if task == "clustering" else f"{task}.{place}"
        if place.endswith(".value"):  # what is kept in the data
            assert ours[place] == text, place
        else:
            assert (ours[place] == text) == (where in SAME[language]), place
    assert not [text for text in ours.values() if re.search(r"\b(the|and|your|of|with)\b", text)]


@pytest.mark.parametrize("language", sorted(set(ASKED) - {"en"}))
@pytest.mark.parametrize("task", TASKS)
def test_a_consent_text_has_the_same_parts(language, task):
    ours, english = default_consent(task, language), default_consent(task)
    for mark in (MINUTES, RECORDED, "\n## ", "**"):
        assert ours.count(mark) == english.count(mark), mark
    assert len(find_blanks(ours)) == len(find_blanks(english))


@pytest.mark.parametrize("task", TASKS)
def test_german_says_sie_to_everybody(task):
    said = [*texts_of("de", task).values(), default_consent(task, "de")]
    assert not [
        text for text in said if re.search(r"\b([Dd](u|ich|ir|ein\w*)|[Ee]u(ch|er\w*))\b", text)
    ]


def test_the_instructed_answer_is_named_as_it_stands():
    for language in ASKED:
        asked = yaml.safe_load(default_texts(language))["confidence"]
        assert re.findall("[“„](.*?)[“”]", asked["attention"]) == [asked["options"][2]]


def test_buttons_are_named_as_they_stand():
    for language in ASKED:
        texts = yaml.safe_load(default_texts(language, "odd_cue"))
        named = re.findall("[“„](.*?)[“”]", texts["instructions"]["how"])
        assert named == [texts["answers"]["next"], texts["answers"]["known"]]


def test_a_study_in_german(tmp_path):
    write_tiny_study(tmp_path, language="de")
    client, page = s.join(create_app(tmp_path, admin_token="a-token-of-the-admin"))
    assert '<html lang="de" dir="ltr">' in page.text
    assert "Ihr Alter" in page.text
    page = client.get("/nowhere")
    assert "Hier ist nichts" in page.text


def test_what_a_german_file_of_an_earlier_version_lacks_is_ours(tmp_path):
    (tmp_path / TEXTS).mkdir()
    values = yaml.safe_load(default_texts("de"))
    del values["stage"]["check"]
    (tmp_path / TEXTS / "de.yaml").write_text(yaml.safe_dump(values), "utf-8")
    assert read_texts(tmp_path, "de")["stage"]["check"] == "Prüfen"


@pytest.mark.parametrize(
    ("language", "expected"),
    [("en", "ltr"), ("de", "ltr"), ("ar", "rtl"), ("he", "rtl"), ("fa-IR", "rtl"), ("ur", "rtl")],
)
def test_the_direction_follows_from_the_language(language, expected):
    assert direction(StudySettings(title="A study", language=language).language) == expected
