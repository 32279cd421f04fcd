"""CONFIG.yaml of `xnn study init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from torchxnn.apps.study.plan import explain
from torchxnn.apps.study.settings import Cue, Frozen, Key, StudySettings
from torchxnn.apps.study.texts import read
from torchxnn.errors import DataError


def _place(path: Path, info: Any) -> Path:  # pydantic's ValidationInfo cannot be checked
    return (info.context or {}).get("folder", Path()) / path.expanduser()


File = Annotated[Path, AfterValidator(_place)]
"""A file or folder, seen from the folder of the file that names it."""


class DataSource(Frozen):
    """Where the pictures and the explanations of one data set come from.

    Attributes:
        key: short name, for tables.
        name: for reports.
        xnn: folder written by `xnn fit` with one target per class of the study.
        images: folder of pictures in class folders, or CUB-200-2011; pictures that neither the
            network nor the XNN was fitted on.
        images_per_class: most pictures taken per class.
        weights: state dict of the network, if it has moved since the fit.
        model: name of the network, if it has another one now.
        split: part of a data set that has an official split.
        cue: what the network was made to look at, which participants are to find.
    """

    key: Key
    name: str
    xnn: File
    images: File
    images_per_class: Annotated[int, Field(ge=2)] = 50
    weights: File | None = None
    model: str | None = None
    split: Literal["train", "test", "all"] = "test"
    cue: Cue | None = None


class StudyConfig(StudySettings):
    """Everything that `xnn study init` needs: the settings and where the pictures are.

    Attributes:
        data_sets: the paper has two.
        consent: Markdown file with the consent text; None takes a template with blanks.
    """

    data_sets: Annotated[tuple[DataSource, ...], Field(min_length=1, max_length=4)]
    consent: File | None = None

    def settings(self) -> StudySettings:
        """Without the places of files."""
        names = StudySettings.model_fields
        return StudySettings(**{name: getattr(self, name) for name in names})

    @classmethod
    def read(cls, path: Path) -> StudyConfig:
        """Read a YAML file; paths in it are relative to its folder.

        Raises:
            DataError: it cannot be read, or a setting is wrong; the message names it.
        """
        values = read(path, yaml.safe_load)
        if not isinstance(values, dict):
            raise DataError(f"{path} must hold settings as `name: value` lines")
        try:
            return cls.model_validate(values, context={"folder": path.parent})
        except ValidationError as error:
            raise DataError(f"{path}: {explain(error)}") from error
