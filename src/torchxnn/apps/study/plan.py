"""What a study folder holds: pictures under opaque names, what they show, and the settings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from torchxnn.apps.study.settings import Arm, Cue, Frozen, Key, StudySettings
from torchxnn.errors import DataError
from torchxnn.storage.files import replace_file

PLAN, MEDIA, TEXTS, CONSENT = "study.json", "media", "texts", "consent.md"
FORMAT_VERSION: Literal[1] = 1


class StudyImage(Frozen):
    """One picture of a study; only `id` and the names of the media files reach a browser.

    Attributes:
        id: opaque.
        file: where it came from.
        label: true class.
        predicted: the class, among those of the study, whose logit is highest.
        set: batch that it belongs to, from 1.
        picture: media file.
        heatmaps: media files of the predicted class's heatmap by attribution method.
        overlays: media files of the x-features' heatmaps.
        contributions: of the x-features to the predicted class's logit, divided by the sum of
            their absolute values.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{4,40}$")]
    file: str
    label: str
    predicted: str
    set: int
    picture: str
    heatmaps: dict[str, str]
    overlays: tuple[str, ...]
    contributions: tuple[float, ...]


class StudyDataSet(Frozen):
    """Pictures of one data set.

    Attributes:
        key: short name.
        name: for reports.
        classes: class names, never shown to participants.
        agreement: share of the pictures whose predicted class is the label.
        about: network, XNN, its faithfulness, and where pictures came from; for reports.
        images: those of all sets.
        cue: what the network was made to look at; None if nobody is asked for it.
    """

    key: Key
    name: str
    classes: tuple[str, ...]
    agreement: float
    about: dict[str, Any]
    images: tuple[StudyImage, ...]
    cue: Cue | None = None

    def images_of(self, number: int) -> tuple[StudyImage, ...]:
        """Pictures of a set."""
        return tuple(image for image in self.images if image.set == number)


_MAY_CHANGE: dict[str, Any] = {
    "minutes": True,
    "recruitment": {
        "session_parameter", "failed_check_code", "withdrawn_code", "full_code",
        "completion_parameter", "pay",
    },
}  # fmt: skip
"""Settings that came after the first studies, and are no part of what answers mean."""

_OF_OTHER_TASKS = ("task", "rounds")
"""Settings that came with further tasks, and mean nothing in clustering."""


class StudyPlan(Frozen):
    """A whole study, as written to `study.json`.

    Attributes:
        format_version: of the file.
        version: of torchxnn that built it.
        settings: see `StudySettings`.
        data_sets: one or more.
        practice: pictures of the practice round.
    """

    format_version: Literal[1] = FORMAT_VERSION
    version: str
    settings: StudySettings
    data_sets: Annotated[tuple[StudyDataSet, ...], Field(min_length=1)]
    practice: tuple[StudyImage, ...]

    @model_validator(mode="before")
    @classmethod
    def _keep_rules(cls, values: Any) -> Any:
        """A study that was planned before there was a rule has none: it leaves out as it did."""
        settings = values.get("settings") if isinstance(values, dict) else None
        if isinstance(settings, dict) and isinstance(settings.setdefault("exclusions", {}), dict):
            settings["exclusions"].setdefault("machine", {"signals": 0})
        return values

    @model_validator(mode="after")
    def _check(self) -> StudyPlan:
        keys = [data.key for data in self.data_sets]
        if len(set(keys)) != len(keys):
            raise ValueError(f"two data sets have the same key: {keys}")
        for data in self.data_sets:
            if self.settings.task == "odd_cue" and data.cue is None:
                raise ValueError(f"{data.key!r} needs a `cue`: what its network was made to see")
            for number in range(1, self.settings.sets + 1):
                if len(data.images_of(number)) != self.settings.images_per_set:
                    raise ValueError(f"set {number} of {data.key!r} is not complete")
        ids = [image.id for image in self.images]
        if len(set(ids)) != len(ids):
            raise ValueError("two pictures have the same id")
        return self

    @property
    def images(self) -> tuple[StudyImage, ...]:
        """All pictures, practice included."""
        return (*self.practice, *(image for data in self.data_sets for image in data.images))

    @property
    def groups(self) -> int:
        """Number of groups that pictures are sorted into."""
        return max(len(data.classes) for data in self.data_sets)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The main study, within participants, and the others, compared with it between them.

        It is the first arm whose XNN shows numbers and maps, else the first with XNN, else the
        first.
        """
        return tuple(
            sorted(self.settings.arms, key=lambda a: ("XNN" not in a.stages, a.shows != "both"))
        )

    @property
    def main(self) -> Arm:
        """The arm of the main study."""
        return self.arms[0]

    def data_set_name(self, key: str) -> str:
        """A data set's name for people; its key if the study does not name it."""
        return next((data.name for data in self.data_sets if data.key == key), key)

    def data_set(self, key: str) -> StudyDataSet:
        """The data set of that key; a `KeyError` if there is none."""
        return {data.key: data for data in self.data_sets}[key]

    def media(self) -> frozenset[str]:
        """Names of all media files."""
        found: set[str] = set()
        for image in self.images:
            found |= {image.picture, *image.heatmaps.values(), *image.overlays}
        return frozenset(found)

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what answers mean: what a database belongs to.

        Only the settings in `_MAY_CHANGE` may change after a study began; the other ones of
        recruitment, such as `completion_url`, are part of it. Two that came later are left out
        while they mean what there was before: no rule `machine`, allocation to the first arm.
        """
        left_out: dict[str, Any] = {"settings": dict(_MAY_CHANGE)}
        if not self.settings.exclusions.machine.signals:
            left_out["settings"]["exclusions"] = {"machine"}
        if self.settings.allocation == "first":
            left_out["settings"]["allocation"] = True
        if not self.settings.between:
            left_out["settings"] |= dict.fromkeys(_OF_OTHER_TASKS, True)
            left_out["data_sets"] = {"__all__": {"cue"}}
        text = self.model_dump_json(exclude=left_out)
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `study.json`."""
        replace_file(folder / PLAN, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> StudyPlan:
        """Read a study folder, and check that its media files are there.

        Raises:
            DataError: no study there, a broken file, or files are missing.
        """
        path = folder / PLAN
        try:
            plan = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} is no study: it holds no {PLAN}; make one with `xnn study init` or "
                "`xnn study demo`"
            ) from error
        except (OSError, ValidationError) as error:
            raise DataError(f"{path} cannot be read: {explain(error)}") from error
        missing = sorted(name for name in plan.media() if not (folder / MEDIA / name).is_file())
        if missing:
            raise DataError(
                f"{folder / MEDIA} lacks {len(missing)} file(s), such as {missing[0]}; "
                "copy the whole study folder, or build it again"
            )
        return plan


def explain(error: Exception) -> str:
    """The first complaint of pydantic in one line, with the place; other errors as they are."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    text = f"{place}: {first['msg']}" if place else str(first["msg"])
    return text.replace("Value error, ", "") + (f" (and {more} more)" if more else "")
