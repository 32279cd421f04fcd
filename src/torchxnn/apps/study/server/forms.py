"""What the forms of a participant send."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torchxnn.apps.study.settings import HARDEST, LIKERT
from torchxnn.apps.study.store.schema import NO_NUL

Text = Annotated[str, Field(max_length=4000, pattern=NO_NUL)]
Word = Annotated[str, Field(max_length=100, pattern=NO_NUL)]
Point = Annotated[int, Field(ge=1, le=LIKERT)]


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
