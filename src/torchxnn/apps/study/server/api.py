"""What the page of a batch asks for and sends."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from torchxnn.apps.address import Address
from torchxnn.apps.study.design import draw_order
from torchxnn.apps.study.plan import StudyImage
from torchxnn.apps.study.server.session import Problem, ScriptSession, Session, SessionOf
from torchxnn.apps.study.settings import PRACTICE, Stage
from torchxnn.apps.study.steps import count_trials, trials_of
from torchxnn.apps.study.store.trials import Event, read_trial, save_events, submit_trial

router = APIRouter(prefix="/api/stages")

Position = Annotated[int, Path(ge=PRACTICE, le=100)]


class NewEvents(BaseModel):
    """A batch of events, in the order in which they happened."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[Event], Field(min_length=1, max_length=100)]


def _batch(session: Session, position: int) -> tuple[Stage, str, list[StudyImage]]:
    """Stage, attribution method and pictures of a batch, in this participant's order."""
    plan, participant = session.site.plan, session.participant
    if position == PRACTICE:
        stages = plan.settings.arm(participant.arm).stages
        stage: Stage = "XNN" if "XNN" in stages else "1-Heatmap"
        method, images = "excitation_backprop", plan.practice
    else:
        trials = trials_of(plan, participant.arm, participant.place)
        if position > len(trials):
            raise Problem(404, "not_found")
        trial = trials[position - 1]
        stage, method = trial.stage, trial.method
        images = plan.data_set(trial.data_set).images_of(trial.set)
    order = draw_order(plan.settings, participant.number, position, images)
    return stage, method, order


@router.get("/{position}")
def show(position: Position, session: SessionOf) -> dict[str, Any]:
    """Pictures of a batch and where they are; nothing that tells their class."""
    site, participant, address = session.site, session.participant, session.address
    stage, method, images = _batch(session, position)
    groups = read_trial(site.database, participant, position, site.clock())
    return {
        "position": position,
        "last": count_trials(site.plan, participant.arm),
        "stage": stage,
        "groups": site.plan.groups,
        "features": len(images[0].overlays) if stage == "XNN" else 0,
        "csrf": session.csrf,
        "images": [_shown(image, stage, method, groups.get(image.id), address) for image in images],
        "texts": site.texts["stage"],
    }


def _shown(
    image: StudyImage, stage: Stage, method: str, group: int | None, address: Address
) -> dict[str, Any]:
    def media(name: str) -> str:
        return address.path(f"media/{name}")

    features = zip(image.overlays, image.contributions, strict=True) if stage == "XNN" else ()
    return {
        "id": image.id,
        "picture": media(image.picture),
        "heatmap": media(image.heatmaps[method]) if stage == "1-Heatmap" else None,
        "features": [
            {"overlay": media(overlay), "contribution": contribution}
            for overlay, contribution in features
        ],
        "group": group,
    }


@router.post("/{position}/events")
def keep(
    position: Position, new: NewEvents, session: ScriptSession
) -> dict[Literal["saved"], list[str]]:
    """Keep what was done; events whose ids are answered are on the disk."""
    site = session.site
    known = {image.id for image in _batch(session, position)[2]}
    for event in new.events:
        group = event.value.get("group")
        outside = isinstance(group, int) and not 1 <= group <= site.plan.groups
        if (event.image is not None and event.image not in known) or outside:
            raise Problem(422, "invalid")
    save_events(site.database, session.participant, position, new.events, site.clock())
    return {"saved": [event.id for event in new.events]}


@router.post("/{position}/submit")
def submit(position: Position, session: ScriptSession) -> dict[Literal["next"], str]:
    """Close a batch, if all its pictures are placed, and answer the next page."""
    site, who = session.site, session.participant
    ids = [image.id for image in _batch(session, position)[2]]
    step = submit_trial(site.database, site.plan, who, position, ids, site.clock())
    return {"next": session.address.path(step)}
