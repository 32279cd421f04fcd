"""What the pages of an atlas are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.atlas.images import ClassImages, feature_page, image_name, map_name
from torchxnn.apps.atlas.numbers import Summary
from torchxnn.apps.atlas.predictions import CloseClass, Predictions
from torchxnn.apps.atlas.runs import SavedClass
from torchxnn.data.class_names import spoken
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.embeddings.apply import Embedded
from torchxnn.explanations.alike import find_alike, likeness
from torchxnn.explanations.image import Explanation
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.xnn import XNN


@dataclass(frozen=True)
class Link:
    """To the page of a class.

    Attributes:
        name: of its folder.
        title: for people.
    """

    name: str
    title: str


@dataclass(frozen=True)
class SimilarLink:
    """To the page of an x-feature of another class.

    Attributes:
        name: folder of the class.
        title: of the class, for people.
        feature: 0-based.
        feature_name: for people.
        correlation: of the two x-features over all images.
        rows: images whose maps stand for it.
    """

    name: str
    title: str
    feature: int
    feature_name: str
    correlation: float
    rows: tuple[int, ...]

    @property
    def address(self) -> str:
        """The page, seen from that of another class."""
        return f"../{self.name}/{feature_page(self.feature)}"

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """The files of its images and maps, seen from there, too."""
        folder = f"../{self.name}"
        return [
            (f"{folder}/{image_name(row)}", f"{folder}/{map_name(row, self.feature)}")
            for row in self.rows
        ]


@dataclass(frozen=True)
class CloseLink:
    """A class that is close to another one, with a link if it is in the atlas.

    Attributes:
        title: for people.
        name: of its folder; None if it is not in the atlas.
        close: how often the network confuses the two.
    """

    title: str
    name: str | None
    close: CloseClass


@dataclass(frozen=True)
class ClassJob:
    """What a job draws.

    Attributes:
        saved: the XNN.
        summary: of its numbers.
        similar: per x-feature, those of other classes.
        close: the classes that the network takes for its neighbours; those in the atlas have links.
        before: the class before it, if there is one.
        after: the class after it.
        key: of all that its pages depend on.
    """

    saved: SavedClass
    summary: Summary
    similar: tuple[tuple[SimilarLink, ...], ...]
    close: tuple[CloseLink, ...]
    before: Link | None
    after: Link | None
    key: str


@dataclass(frozen=True)
class Entry:
    """A class in the index.

    Attributes:
        name: of its folder.
        title: for people.
        output: index of its first target.
        sentence: what is claimed of a typical image, without figures.
        image: file of that image in its folder.
        map: file of the map on it of the x-feature that adds most; empty if none is active.
        leading: name of that x-feature.
        feature_names: one per x-feature.
        r2: R^2 on the data of the atlas; None if the logit does not vary.
        f_cls_positives: share of its images that keep their predicted class.
        f_reg_positives: mean error of the logit on its images, in logits.
        active: x-features that matter.
        recall: share of its images that the network gets right; None without labels.
        images: of the class.
        degenerate: reasons why the fit explains little.
        notes: warnings met on the way.
        nbytes: of its folder.
        key: see `ClassJob`.
    """

    name: str
    title: str
    output: int
    sentence: str
    image: str
    feature_names: tuple[str, ...]
    r2: float | None
    f_cls_positives: float
    f_reg_positives: float
    active: int
    recall: float | None
    images: int
    degenerate: tuple[str, ...]
    notes: tuple[str, ...]
    nbytes: int
    key: str
    map: str = ""
    leading: str = ""


@dataclass(frozen=True, eq=False)
class ClassView:
    """Everything that the pages of one class say.

    Attributes:
        job: what was asked for.
        xnn: fitted.
        dataset: of the images.
        predictions: of the network on them.
        numbers: of the XNN on them.
        contributions: (M, n), of each x-feature to the target that it matters most for.
        logits: (M, k), the network's own.
        positives: (M,), images of the class.
        decided: (M,), images that the network takes for the class.
        measured: faithfulness on the images.
        chosen: images to show.
        explanation: of the typical image.
        drawn: names of the files of images and maps.
        agreement: per image with maps how far they agree as drawn, (n, n); see `draw_images`.
        strengths: how much of the relevance each map holds, in words, by the name of its file.
        notes: warnings met on the way.
    """

    job: ClassJob
    xnn: XNN
    dataset: ImageDataset
    predictions: Predictions
    numbers: Embedded
    contributions: Float[Tensor, "rows features"]
    logits: Float[Tensor, "rows targets"]
    positives: Bool[Tensor, " rows"]
    decided: Bool[Tensor, " rows"]
    measured: Faithfulness
    chosen: ClassImages
    explanation: Explanation
    drawn: frozenset[str]
    agreement: Mapping[int, Float[np.ndarray, "features features"]]
    strengths: dict[str, str]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The sentence that explains the typical image."""
        return spoken(self.explanation.sentence())

    def alike(self, row: int | None = None) -> tuple[str, ...]:
        """Of each x-feature which others it is like, on one image or as far as the fit knows."""
        report = self.xnn.report
        known: Sequence[Sequence[float]] = ()
        if report is not None and report.among_positives:
            known = report.among_positives[0].variation
        maps = None if row is None else self.agreement.get(row)
        return likeness(find_alike(maps, known), self.job.summary.feature_names)

    @property
    def noun(self) -> str:
        """What the page is about: "class" or "label"."""
        return self.xnn.meaning.noun

    @property
    def labelled(self) -> bool:
        """Whether labels, and not predictions, say which images are of a class."""
        return self.predictions.positives_by == "label"

    def class_name(self, row: int) -> str:
        """The name of what an image shows: its label, or without labels the predicted class.

        Of labels that do not exclude each other and are not given, it says what the network sees.
        """
        if self.noun == "label" and not self.labelled:
            return self.predicted_name(row)
        return spoken(self.xnn.class_name(int(self.predictions.kinds[row])), self.xnn.class_names)

    def predicted_name(self, row: int) -> str:
        """The name of the class that the network predicts for an image, or whether it is seen."""
        title = spoken(self.job.summary.title)
        if self.noun == "label":
            return title if bool(self.decided[row]) else f"not {title}"
        return spoken(
            self.xnn.class_name(int(self.predictions.predicted[row])), self.xnn.class_names
        )

    def other(self, row: int) -> str:
        """How the network takes an image, if otherwise than it is labelled; else empty."""
        if self.noun == "class":
            predicted = self.predicted_name(row)
            return "" if predicted == self.class_name(row) else f"taken for {predicted}"
        if not self.labelled or bool(self.decided[row]) == bool(self.positives[row]):
            return ""
        title = spoken(self.job.summary.title)
        return f"{title} is {'' if bool(self.decided[row]) else 'not '}seen"
