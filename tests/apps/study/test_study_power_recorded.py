"""Every power analysis gives what is on record: answers made before they shared their code."""

import json
from pathlib import Path

import pytest

from torchxnn.apps.study.analysis.answers.power import AnswerSampleSize, find_answer_sample_size
from torchxnn.apps.study.analysis.answers.power_options import AnswerPowerOptions
from torchxnn.apps.study.analysis.arm_power import ArmSampleSize, find_arm_sample_size
from torchxnn.apps.study.analysis.arm_power_options import ArmPowerOptions
from torchxnn.apps.study.analysis.power import SampleSize, find_sample_size
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.errors import DataError
from torchxnn.storage.artifact import plain

RECORDED = json.loads((Path(__file__).parent / "power_recorded.json").read_text("utf-8"))
KINDS = {
    "find_sample_size": (find_sample_size, SampleSize),
    "find_arm_sample_size": (find_arm_sample_size, ArmSampleSize),
    "find_answer_sample_size": (find_answer_sample_size, AnswerSampleSize),
}


def close(found, recorded):
    """Equal, and numbers that are not whole to rounding."""
    if isinstance(recorded, dict):
        return found.keys() == recorded.keys() and all(close(found[k], recorded[k]) for k in found)
    if isinstance(recorded, list):
        return len(found) == len(recorded) and all(map(close, found, recorded))
    if isinstance(recorded, float):
        return found == pytest.approx(recorded, abs=1e-9)
    return found == recorded


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_the_same_answer_as_before(tmp_path, number):
    recorded = RECORDED[number]
    find, kind = KINDS[recorded["find"]]
    (tmp_path / "old.json").write_text(json.dumps(recorded["answer"]), "utf-8")
    before = kind.read(tmp_path / "old.json")  # a file of an earlier version
    answer = find(before.options, "on record")
    assert close(plain(answer), recorded["answer"])
    assert answer.sentence() == before.sentence() == recorded["sentence"]


def test_the_record_has_every_analysis_with_and_without_an_answer():
    found = {(one["find"], one["answer"]["participants"] is None) for one in RECORDED}
    assert found == {(find, none) for find in KINDS for none in (True, False)}


@pytest.mark.parametrize(
    ("made", "least"), [(PowerOptions, 2), (ArmPowerOptions, 12), (AnswerPowerOptions, 12)]
)
def test_what_all_are_asked_for_is_checked(made, least):
    senseless = {"alpha": 0.0, "power": 1.0, "largest": least - 1, "lost": 1.0, "runs": 99}
    for name, value in senseless.items():
        with pytest.raises(DataError, match=f"{name} must be .*, got {value}"):
            made(**{name: value})
    assert made(largest=least).largest == least
