"""What a researcher decides about a study; the same fields in CONFIG.yaml and in the study."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator

Stage = Literal["NoVis", "1-Heatmap", "XNN"]
"""What a participant sees beside the pictures (paper section 4.1)."""

Task = Literal["clustering", "forward_simulation", "odd_cue"]
"""Participants group pictures (paper), predict the network, or find what it was made to see."""
Shows = Literal["both", "numbers", "maps"]
"""What the stage XNN shows of x-features: contributions and heatmaps (paper), or one of them."""

PRACTICE = 0
"""Position of the practice round; the trials that count start at 1."""

LIKERT = 7
"""Points of all agreement scales (paper section 4.1)."""

ATTENTION = "attention"
"""Name of the question of the attention check."""

ATTENTION_ANSWER = 3
"""What the attention check asks to choose: the third point, "Low"; its text names it."""

HARDEST = 7
"""Difficulty is rated from 0 to this (paper appendix I)."""


PARAMETER = r"^[A-Za-z0-9_]{1,40}$"
"""Pattern of the names of URL parameters."""


def _key(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", value):
        raise ValueError(
            f"{value!r} must be 1 to 31 of a-z, 0-9, - and _, and start with a letter or digit"
        )
    return value


Key = Annotated[str, AfterValidator(_key)]


class Frozen(BaseModel):
    """Plain values that cannot change; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cue(Frozen):
    """What a network was made to look at, and what it might look at as well.

    Attributes:
        right: the planted cue, in words that participants choose from.
        others: plausible ones that are wrong.
    """

    right: Annotated[str, Field(min_length=1, max_length=200)]
    others: Annotated[tuple[str, ...], Field(min_length=2, max_length=9)]

    @property
    def options(self) -> tuple[str, ...]:
        """All that participants choose from, the right one first."""
        return (self.right, *self.others)

    @model_validator(mode="after")
    def _check(self) -> Cue:
        if len(set(self.options)) != len(self.options) or "" in self.others:
            raise ValueError(f"cues must be different texts, got {list(self.options)}")
        return self


class Arm(Frozen):
    """A group of participants who pass through the same stages.

    Attributes:
        name: goes into links as `?arm=NAME`.
        stages: after NoVis, which always comes first; in random order.
        method: attribution method of the stage 1-Heatmap.
        participants: how many are to finish; later visitors are told that the study is full. None
            for no limit.
        shows: what the stage XNN shows. With "both", the paper's, one can group the pictures by
            their numbers and never look at a heatmap; further arms tell whether people do.
    """

    name: Key
    stages: tuple[Literal["1-Heatmap", "XNN"], ...] = ("1-Heatmap", "XNN")
    method: str = "excitation_backprop"
    participants: Annotated[int, Field(ge=1)] | None = None
    shows: Shows = "both"

    @model_validator(mode="after")
    def _check(self) -> Arm:
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError(f"arm {self.name!r} needs different stages, got {list(self.stages)}")
        if self.shows != "both" and "XNN" not in self.stages:
            raise ValueError(
                f"arm {self.name!r} shows {self.shows} in the stage XNN, which it lacks: add XNN "
                "to its stages, or leave out `shows`"
            )
        return self

    @model_serializer(mode="wrap")
    def _write(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Without `shows` where it is the paper's: studies of earlier versions stay as they are."""
        values = write(self)
        if self.shows == "both":
            values.pop("shows", None)
        return values

    @property
    def practised(self) -> tuple[Stage, ...]:
        """Stages with heatmaps, in the order in which the practice round goes through them."""
        return tuple(stage for stage in ("1-Heatmap", "XNN") if stage in self.stages)

    def shown(self, stage: str) -> Literal["none", "both", "numbers", "maps"]:
        """What a stage shows beside the pictures, such as "maps"; "none" for NoVis."""
        if stage == "XNN":
            return self.shows
        return "maps" if stage == "1-Heatmap" else "none"

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """NoVis and the others, as written."""
        return ("NoVis", *self.stages)


MAIN = Arm(name="main")
COMPLEMENTARY = Arm(name="complementary", stages=("1-Heatmap",), method="deep_lift")


class Pay(Frozen):
    """What a participant costs.

    Attributes:
        amount: paid to each who finishes.
        currency: such as "GBP".
        fee: share of the amount that the recruiter takes on top, such as 0.33.
    """

    amount: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    currency: Annotated[str, Field(max_length=10)] = ""
    fee: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0


class Recruitment(Frozen):
    """How participants come and where they go.

    Attributes:
        parameters: URL parameters that are kept with a participant; the first one identifies a
            person, who cannot start twice or in two arms.
        session_parameter: the one that nobody can guess: who comes with it and the identifier goes
            on where they were, in whatever browser. None takes the first whose name has "session"
            in it; without one nobody goes on by the link alone.
        completion_url: where the last page leads; `{code}` is replaced by the completion code.
        completion_code: the same for all who finish; None makes one per participant.
        failed_check_code: of those who finish and have failed the attention check; None gives them
            a completion code.
        withdrawn_code: of those who leave and have their answers deleted; None gives them none.
        full_code: of those for whom there is no place, or none any more; None gives them none.
        completion_parameter: of a link by which the recruiter sends back whom it counts as
            finished, with any value but 0; None if it sends nobody back.
        pay: what a participant costs; None leaves costs out.
    """

    parameters: tuple[str, ...] = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")
    session_parameter: str | None = None
    completion_url: str | None = None
    completion_code: str | None = None
    failed_check_code: str | None = None
    withdrawn_code: str | None = None
    full_code: str | None = None
    completion_parameter: Annotated[str, Field(pattern=PARAMETER)] | None = None
    pay: Pay | None = None

    @property
    def session(self) -> str | None:
        """The parameter that nobody can guess, if there is one."""
        found = (name for name in self.parameters if "session" in name.lower())
        return self.session_parameter or next(found, None)

    @model_validator(mode="after")
    def _check(self) -> Recruitment:
        if self.completion_url and not re.fullmatch(r"https?://[^\s]+", self.completion_url):
            raise ValueError(f"completion_url must start with http(s)://: {self.completion_url!r}")
        bad = [p for p in self.parameters if not re.fullmatch(PARAMETER, p)]
        if bad:
            raise ValueError(f"URL parameter {bad[0]!r} must be 1 to 40 of A-Z, a-z, 0-9 and _")
        if self.session_parameter not in (None, *self.parameters):
            raise ValueError(
                f"session_parameter {self.session_parameter!r} is none of the parameters "
                f"{', '.join(self.parameters)}"
            )
        return self


@dataclass(frozen=True)
class MachineRules:
    """From when on somebody acts like a program; docs/study_analysis.md says why these thresholds.

    Attributes:
        signals: leave out who shows as many of the signals below; 0 leaves out nobody.
        pause_ms: median pause between two acts below which it is one.
        pause_cv: standard deviation / mean of the pauses, below which it is one.
        jumps: share of moves without travel of the pointer, above which it is one.
        straight: straight line / path of the pointer, above which it is one.
        scripted: share of moves that no device made, above which it is one.
        away: share of the time away from the page, above which it is one.
        pasted: share of the comment that was pasted, above which it is one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    signals: Annotated[int, Field(ge=0, le=7)] = 2
    pause_ms: Annotated[float, Field(ge=0)] = 250.0
    pause_cv: Annotated[float, Field(ge=0)] = 0.2
    jumps: Annotated[float, Field(ge=0, le=1)] = 0.5
    straight: Annotated[float, Field(ge=0, le=1)] = 0.995
    scripted: Annotated[float, Field(ge=0, le=1)] = 0.5
    away: Annotated[float, Field(ge=0, le=1)] = 0.5
    pasted: Annotated[float, Field(ge=0, le=1)] = 0.8


class Exclusions(Frozen):
    """Who is left out of the analysis; decided before data come in.

    Attributes:
        attention: leave out who fails the attention check.
        minimum_seconds: leave out who spends less active time on any batch.
        machine: leave out who acts like a program.
    """

    attention: bool = True
    minimum_seconds: Annotated[float, Field(ge=0)] = 15.0
    machine: MachineRules = MachineRules()


class Limits(Frozen):
    """What protects the server.

    Attributes:
        requests_per_second: of one participant, on average; four seconds' worth at once.
        starts_per_second: of all new participants together.
        body_bytes: largest request.
        expire_minutes: silence after which an unfinished participant's place in the design goes to
            the next one; the participant may still go on.
    """

    requests_per_second: Annotated[float, Field(gt=0)] = 15.0
    starts_per_second: Annotated[float, Field(gt=0)] = 20.0
    body_bytes: Annotated[int, Field(ge=4096)] = 65536
    expire_minutes: Annotated[float, Field(gt=0)] = 180.0


class StudySettings(Frozen):
    """Everything about a study but its pictures.

    Attributes:
        title: on every page.
        seed: of all draws.
        language: of the texts, `texts/LANGUAGE.yaml`.
        consent_version: kept with every consent; raise it when the text changes.
        sets: batches drawn per data set.
        images_per_set: pictures per batch.
        draw: "balanced" spreads the predicted classes evenly over a batch; "random" is the paper's.
            In the tasks other than clustering, pairs of label and prediction are spread, so that
            the label does not tell what the network says.
        task: see `Task`. In all but clustering each participant sees one stage, drawn by lot.
        rounds: of learning and predicting on each data set, in forward simulation.
        randomisation: "blocks" keeps orders and sets balanced; "simple" draws each participant's
            independently (paper).
        minutes: how long it takes, as consent text and instructions say; None estimates it from the
            number of images: replace it with what pilots have taken.
        demographics: ask for age band, gender, courses (paper appendix I).
        attention_check: one instructed answer in the middle of the study.
        arms: see `Arm`; no person takes part in two.
        allocation: of people whose link names no arm: "first" puts them into the first arm, "lot"
            draws one for each, which is what a comparison between arms needs.
        recruitment: see `Recruitment`.
        exclusions: see `Exclusions`.
        limits: see `Limits`.
        contact: shown on messages and on the deletion page.
    """

    title: Annotated[str, Field(min_length=1, max_length=200)]
    seed: int = 0
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,4})?$")] = "en"
    consent_version: str = "1"
    sets: Annotated[int, Field(ge=2, le=50)] = 5
    images_per_set: Annotated[int, Field(ge=2, le=40)] = 10
    draw: Literal["balanced", "random"] = "balanced"
    randomisation: Literal["blocks", "simple"] = "blocks"
    task: Task = "clustering"
    rounds: Annotated[int, Field(ge=1, le=10)] = 3
    minutes: Annotated[int, Field(ge=1)] | None = None
    demographics: bool = True
    attention_check: bool = True
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = (MAIN, COMPLEMENTARY)
    allocation: Literal["first", "lot"] = "first"
    recruitment: Recruitment = Recruitment()
    exclusions: Exclusions = Exclusions()
    limits: Limits = Limits()
    contact: str = ""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_task(cls, given: Any) -> Any:
        """Other tasks than the paper's have a single arm, and two batches in every round."""
        task = given.get("task", "clustering") if isinstance(given, dict) else "clustering"
        if task == "clustering":
            return given
        own: dict[str, Any] = {"arms": (MAIN,)}
        rounds = given.get("rounds", cls.model_fields["rounds"].default)
        if task == "forward_simulation" and isinstance(rounds, int):
            own["sets"] = 2 * rounds
        return own | given

    @model_validator(mode="after")
    def _check_task(self) -> StudySettings:
        if self.between and any(arm.shows != "both" for arm in self.arms):
            raise ValueError(f"`shows` of an arm belongs to clustering, not to {self.task}")
        if self.between and len(self.arms) > 1:
            raise ValueError(
                f"the task {self.task} compares the stages of one arm, each seen by other "
                f"participants; got the arms {', '.join(arm.name for arm in self.arms)}"
            )
        if self.task == "forward_simulation" and self.sets < 2 * self.rounds:
            raise ValueError(
                f"sets must be at least {2 * self.rounds}: each of the {self.rounds} rounds has "
                f"pictures to learn from and others to predict; got {self.sets}"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> StudySettings:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"two arms have the same name: {names}")
        most = max(len(arm.all_stages) for arm in self.arms)
        if self.sets < most and not self.between:
            raise ValueError(
                f"sets must be at least {most}, one for each stage, so that nobody sees a set "
                f"twice; got {self.sets}"
            )
        return self

    @property
    def between(self) -> bool:
        """Whether a participant sees one stage of the arm, rather than all."""
        return self.task != "clustering"

    @property
    def repeats(self) -> int:
        """Batches of each data set in each stage: a cue can be found once."""
        return self.rounds if self.task == "forward_simulation" else 1

    def arm(self, name: str) -> Arm:
        """The arm of that name; a `KeyError` if there is none."""
        return {arm.name: arm for arm in self.arms}[name]
