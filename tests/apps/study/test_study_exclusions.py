"""Who is left out: every rule by hand, with its edge cases."""

import pandas as pd
import pytest

from study_data import make_tables
from torchxnn.apps.study.analysis.exclusions import (
    ATTENTION,
    TOO_FAST,
    UNFINISHED,
    WITHDREW,
    check_anybody,
    check_tables,
    describe_rules,
    select_participants,
)
from torchxnn.apps.study.analysis.options import AnalysisOptions, ExclusionRules
from torchxnn.errors import DataError


@pytest.fixture
def tables():
    return make_tables(4, 1, kind="participant")


def alter(tables, number, **values):
    """Change columns of one participant."""
    people = tables["participants"]
    for column, value in values.items():
        people.loc[people["participant"] == number, column] = value


def reasons(tables, **rules):
    found = select_participants(tables, AnalysisOptions(ExclusionRules(**rules)))
    return {row.participant: row.reasons for row in found.excluded}


def test_nobody_is_excluded_without_a_reason(tables):
    found = select_participants(tables, AnalysisOptions())
    assert found.kept == (1, 2, 3, 4, 5)
    assert found.kept_arms == {"main": 4, "complementary": 1}
    assert (found.excluded, found.reasons, found.banner) == ((), {}, "")


def test_attention(tables):
    alter(tables, 1, attention_passed=False)
    alter(tables, 2, attention_passed=pd.NA)  # not shown, or not answered
    assert reasons(tables) == {1: (ATTENTION,)}
    assert reasons(tables, attention=False) == {}
    assert select_participants(tables, AnalysisOptions()).attention_unknown == 1


@pytest.mark.filterwarnings("ignore:The behavior of DataFrame concatenation")  # Pandas 2
def test_minimum_time(tables):
    trials = tables["trials"]
    first = trials["participant"] == 1
    trials.loc[first & (trials["position"] == 2), "active_seconds"] = 14.9
    trials.loc[trials["participant"] == 2, "active_seconds"] = 15.0  # the minimum is enough
    trials.loc[trials["participant"] == 3, "active_seconds"] = pd.NA  # unknown excludes nobody
    practice = trials[first].head(1).assign(position=0, active_seconds=1.0, participant=4)
    begun = trials[first].head(1).assign(position=9, active_seconds=1.0, submitted_at=pd.NA)
    begun["participant"] = 5
    tables["trials"] = pd.concat([trials, practice, begun])
    assert reasons(tables) == {1: (TOO_FAST,)}
    assert reasons(tables, minimum_seconds=14.0) == {}
    assert reasons(tables, minimum_seconds=0.0) == {}
    assert select_participants(tables, AnalysisOptions()).time_unknown == 1


def test_withdrawn_and_unfinished(tables):
    alter(tables, 1, status="withdrawn")
    alter(tables, 2, status="in_progress")
    alter(tables, 3, status="expired", attention_passed=False)
    assert reasons(tables) == {1: (WITHDREW,), 2: (UNFINISHED,), 3: (UNFINISHED, ATTENTION)}
    assert reasons(tables, unfinished=False, attention=False) == {1: (WITHDREW,)}
    found = select_participants(tables, AnalysisOptions())
    assert found.reasons == {WITHDREW: 1, UNFINISHED: 2, ATTENTION: 1}


def test_kinds_and_the_banner(tables):
    alter(tables, 1, kind="pilot")
    alter(tables, 2, kind="synthetic")
    tables["trials"]["active_seconds"] = 1.0
    found = select_participants(tables, AnalysisOptions())
    assert (found.kept, found.left_out_kinds) == ((), {"pilot": 1, "synthetic": 1})
    both = AnalysisOptions(include_pilots=True, include_synthetic=True)
    found = select_participants(tables, both)
    assert found.kept == (2,)  # a program needs no time, a pilot does
    assert found.banner.startswith("Synthetic data: no finding (1 of 1")
    assert any("not asked of simulated" in sentence for sentence in describe_rules(both))


def test_nobody_left_is_an_error_that_names_the_flags(tables):
    alter(tables, 1, kind="pilot")
    alter(tables, 2, kind="synthetic")
    for number in (3, 4, 5):
        alter(tables, number, status="in_progress")
    with pytest.raises(DataError) as error:
        check_anybody(select_participants(tables, AnalysisOptions()))
    for text in ("1 of the kind pilot (--include-pilots)", "3 did not finish"):
        assert text in str(error.value)
    assert "1 of the kind synthetic (--include-synthetic)" in str(error.value)
    empty = {name: table.iloc[:0] for name, table in tables.items()}
    with pytest.raises(DataError, match="no participants yet"):
        check_anybody(select_participants(empty, AnalysisOptions()))


def test_rules_say_what_they_do():
    strict = " ".join(describe_rules(AnalysisOptions()))
    assert "less than 15 s of active time" in strict
    assert "pilot or synthetic are not analysed" in strict
    off = ExclusionRules(attention=False, minimum_seconds=0.0, unfinished=False)
    loose = " ".join(describe_rules(AnalysisOptions(off)))
    assert "Attention checks exclude nobody" in loose
    assert "No minimum time" in loose
    with pytest.raises(DataError, match="0 or more"):
        ExclusionRules(minimum_seconds=float("nan"))


def test_other_tables_are_refused(tables):
    with pytest.raises(DataError, match="no table trials"):
        check_tables({"participants": tables["participants"]})
    with pytest.raises(DataError, match="no column kind"):
        check_tables({**tables, "participants": tables["participants"].drop(columns="kind")})
    twice = pd.concat([tables["participants"]] * 2)
    with pytest.raises(DataError, match="participant 1 has two rows"):
        check_tables({**tables, "participants": twice})
