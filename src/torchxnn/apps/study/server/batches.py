"""Which pictures a participant sees in a batch, in their order, and what the page is told of them.

The page of clustering is told by `torchxnn.apps.study.server.api`; here are all batches, and the
pages of the other tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchxnn.apps.study.design import Trial, draw_order
from torchxnn.apps.study.plan import StudyImage
from torchxnn.apps.study.server.session import Problem, Session
from torchxnn.apps.study.settings import PRACTICE, Shows, Stage
from torchxnn.apps.study.steps import trials_of

LEARNED = 1000
"""Added to the position of a batch: the order of the pictures that are learned from is its own."""


@dataclass(frozen=True)
class Batch:
    """What one batch shows.

    Attributes:
        stage: see `Stage`.
        method: attribution method of its heatmaps, "none" for NoVis.
        images: to be placed, predicted or looked at, in this participant's order.
        classes: predictions that there can be; an answer is the place of one of them, from 1.
        learned: pictures that are shown with the network's answer before; none but in forward
            simulation.
        one_is_enough: whether a single picture needs an answer before the batch is handed in, the
            first one, rather than all.
    """

    stage: Stage
    method: str
    images: Sequence[StudyImage]
    classes: Sequence[str]
    learned: Sequence[StudyImage] = ()
    one_is_enough: bool = False

    @property
    def needed(self) -> list[str]:
        """Ids of the pictures that must have an answer before the batch is handed in."""
        return [image.id for image in self.images[: 1 if self.one_is_enough else None]]

    def answer(self, image: StudyImage) -> int:
        """What the network says of a picture."""
        return list(self.classes).index(image.predicted) + 1


def find_trial(session: Session, position: int) -> Trial:
    """What a participant sees at a position after the practice round.

    Raises:
        Problem: there is no such batch.
    """
    plan, participant = session.site.plan, session.participant
    trials = trials_of(plan, participant.arm, participant.place)
    if not PRACTICE < position <= len(trials):
        raise Problem(404, "not_found")
    return trials[position - 1]


def find_batch(session: Session, position: int) -> Batch:
    """A batch of any task; see `Batch`.

    Raises:
        Problem: there is no such batch.
    """
    plan, number = session.site.plan, session.participant.number
    if position == PRACTICE:
        return _practice(session)
    trial = find_trial(session, position)
    data = plan.data_set(trial.data_set)

    def ordered(number_of_set: int, at: int) -> list[StudyImage]:
        return draw_order(plan.settings, number, at, data.images_of(number_of_set))

    learned = ordered(trial.learned, position + LEARNED) if trial.learned else []
    shown = ordered(trial.set, position)
    few = plan.settings.task == "odd_cue"
    return Batch(trial.stage, trial.method, shown, data.classes, learned, few)


def _practice(session: Session) -> Batch:
    """The practice round; where people learn, one picture of each kind is learned from."""
    plan, who = session.site.plan, session.participant
    settings, images = plan.settings, plan.practice
    stage: Stage = settings.arm(who.arm).practised[0]
    if settings.between:
        stage = trials_of(plan, who.arm, who.place)[0].stage
    classes = sorted({image.predicted for image in images})
    learned: list[StudyImage] = []
    if settings.task == "forward_simulation":
        learned = [next(i for i in images if i.predicted == kind) for kind in classes]
    rest = [image for image in images if image not in learned]
    order = draw_order(settings, who.number, PRACTICE, rest)
    few = settings.task == "odd_cue"
    return Batch(stage, "excitation_backprop", order, classes, learned, few)


def content_of(
    session: Session, batch: Batch, position: int, answers: Mapping[str, int]
) -> dict[str, Any]:
    """What the pages of forward simulation and of the odd cue are told of a batch.

    The network's answer to a picture that is to be predicted is told in the practice round alone.
    """
    site = session.site
    told = site.plan.settings.task == "odd_cue"

    def show(image: StudyImage, explained: bool, answer: bool) -> dict[str, Any]:
        stages: Sequence[Stage] = (batch.stage,) if explained else ()
        shown = shown_image(image, stages, batch.method)
        return {**shown, "answer": batch.answer(image) if answer else None}

    return {
        "answers": len(batch.classes),
        "learned": [show(image, True, True) for image in batch.learned],
        "images": [
            {**show(image, told, told or position == PRACTICE), "group": answers.get(image.id)}
            for image in batch.images
        ],
        "texts": {**site.texts["stage"], **site.texts["answers"]},
    }


def shown_image(
    image: StudyImage, stages: Sequence[Stage], method: str, shows: Shows = "both"
) -> dict[str, Any]:
    """A picture and what the stages show beside it, as paths of the application.

    Of its x-features, what an arm `shows` and nothing else reaches the browser.
    """

    def media(name: str) -> str:
        return f"media/{name}"

    features = zip(image.overlays, image.contributions, strict=True) if "XNN" in stages else ()
    return {
        "id": image.id,
        "picture": media(image.picture),
        "heatmap": media(image.heatmaps[method]) if "1-Heatmap" in stages else None,
        "features": [
            {
                "overlay": media(overlay) if shows != "numbers" else None,
                "contribution": contribution if shows != "maps" else None,
            }
            for overlay, contribution in features
        ],
    }
