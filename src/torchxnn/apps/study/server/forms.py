"""What the forms of a participant send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from torchxnn.apps.study.settings import HARDEST, LIKERT
from torchxnn.apps.study.store.schema import NO_NUL

LONGEST_TEXT = 4000
"""Characters of a free text that are kept; longer ones are shown again to be shortened."""


def _lines(value: str) -> str:
    """Lines as people wrote them: forms send every end of a line as two characters."""
    return value.replace("\r\n", "\n")


Text = Annotated[str, Field(pattern=NO_NUL), AfterValidator(_lines)]
Word = Annotated[str, Field(max_length=100, pattern=NO_NUL)]
Point = Annotated[int, Field(ge=1, le=LIKERT)]


def too_long(texts: Mapping[str, Any], text: str) -> str:
    """What a page says of a text that is too long."""
    said: str = texts["common"]["too_long"]
    return said.format(length=len(text), most=LONGEST_TEXT)


class Body(BaseModel):
    """What every form sends: the proof that it comes from a page of this participant."""

    model_config = ConfigDict(extra="ignore")

    csrf: Word = ""


class About(Body):
    """Optional questions about the participant."""

    age: Word = ""
    gender: Word = ""
    computer_science: Word = ""
    ai_courses: Word = ""


class Confidence(Body):
    """The questions after a batch."""

    confidence: Point | None = None
    attention: Point | None = None
    cue: Annotated[int, Field(ge=0, le=20)] | None = None


class Ratings(Body):
    """The questions after all batches."""

    rating_one_heatmap: Point | None = None
    rating_xnn: Point | None = None
    difficulty: Annotated[int, Field(ge=0, le=HARDEST)] | None = None
    comments: Text = ""
    pasted: Annotated[int, Field(ge=0, le=100_000)] | None = None
