"""What the page of a batch asks for and sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from torchxnn.apps.study.practice import count_kinds, kinds_of, split_practice
from torchxnn.apps.study.server.batches import Batch, content_of, find_batch, shown_image
from torchxnn.apps.study.server.session import Problem, ScriptSession, Session, SessionOf
from torchxnn.apps.study.settings import PRACTICE
from torchxnn.apps.study.steps import count_trials
from torchxnn.apps.study.store.trials import (
    Event,
    read_trial,
    save_events,
    submit_trial,
    without_hand,
)

router = APIRouter(prefix="/api/stages")

Position = Annotated[int, Path(ge=PRACTICE, le=100)]


class NewEvents(BaseModel):
    """A batch of events, in the order in which they happened."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[Event], Field(min_length=1, max_length=100)]


@router.get("/{position}")
def show(position: Position, session: SessionOf) -> dict[str, Any]:
    """Pictures of a batch and where they are; nothing that tells their class."""
    site, participant = session.site, session.participant
    batch = find_batch(session, position)
    groups = read_trial(site.database, participant, position, site.clock())
    content = {
        "task": site.plan.settings.task,
        "position": position,
        "last": count_trials(site.plan, participant.arm),
        "stage": batch.stage,
        "features": len(batch.images[0].overlays) if batch.stage == "XNN" else 0,
        "csrf": session.csrf,
        "hand": session.told_all,
    }
    if site.plan.settings.between:
        return content | content_of(session, batch, position, groups)
    return content | _grouping(session, batch, position, groups)


def _grouping(
    session: Session, batch: Batch, position: int, groups: Mapping[str, int]
) -> dict[str, Any]:
    """What the page of clustering is told; in practice, which pictures are of a kind as well."""
    site, arm = session.site, session.site.plan.settings.arm(session.participant.arm)
    practised = arm.practised if position == PRACTICE else ()
    stages, kinds = practised or (batch.stage,), kinds_of(batch.images) if practised else {}
    images = [
        {
            **shown_image(image, stages, batch.method, arm.shows),
            "group": groups.get(image.id),
            **({"kind": kinds[image.id]} if kinds else {}),
        }
        for image in batch.images
    ]
    return {
        "groups": _count_groups(session, batch, position),
        "features": len(batch.images[0].overlays) if "XNN" in stages else 0,
        "shows": arm.shows,
        "parts": split_practice(practised, batch.images),
        "images": images,
        "texts": site.texts["stage"],
    }


def _count_groups(session: Session, batch: Batch, position: int) -> int:
    """Groups that pictures are put into; in practice there is one for each kind of a part."""
    plan = session.site.plan
    if position != PRACTICE:
        return plan.groups
    practised = plan.settings.arm(session.participant.arm).practised
    return max(plan.groups, count_kinds(practised, batch.images))


@router.post("/{position}/events")
def keep(
    position: Position, new: NewEvents, session: ScriptSession
) -> dict[Literal["saved"], list[str]]:
    """Keep what was done; events whose ids are answered are on the disk."""
    site = session.site
    batch = find_batch(session, position)
    known = {image.id for image in batch.images}
    between = site.plan.settings.between
    most = len(batch.classes) if between else _count_groups(session, batch, position)
    for event in new.events:
        group = event.value.get("group")
        outside = isinstance(group, int) and not 1 <= group <= most
        if (event.image is not None and event.image not in known) or outside:
            raise Problem(422, "invalid")
    told = new.events if session.told_all else without_hand(new.events)
    save_events(site.database, session.participant, position, told, site.clock())
    return {"saved": [event.id for event in new.events]}


@router.post("/{position}/submit")
def submit(position: Position, session: ScriptSession) -> dict[Literal["next"], str]:
    """Close a batch, if all its pictures are placed, and answer the path of the next page."""
    site, who = session.site, session.participant
    ids = find_batch(session, position).needed
    step = submit_trial(site.database, site.plan, who, position, ids, site.clock())
    return {"next": step}
