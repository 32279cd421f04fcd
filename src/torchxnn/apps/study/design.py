"""Which pictures make a batch, and who sees what in which order: pure functions.

A participant takes a *place* in the design: normally that of the own number, or the place of one
who dropped out. With blocks, each block of places holds every order of data sets and stages once
(four with two data sets and two assisted stages), and each block of as many places as there are
sets shows every set once in every stage. So cells stay balanced whatever the drop-out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from torchxnn.apps.study.settings import Arm, Stage, StudySettings
from torchxnn.errors import DataError


def draw_sets(
    classes: Sequence[int], sets: int, size: int, balanced: bool, generator: random.Random
) -> list[list[int]]:
    """Draw disjoint batches of pictures.

    A balanced batch takes pictures of the classes in turn, beginning with another class each time,
    so that the numbers per class differ by at most one while no class runs out; then the others
    fill up.

    Args:
        classes: of every picture, what the batches are balanced over.
        sets: number of batches.
        size: pictures per batch.
        balanced: or drawn at random.
        generator: draws.

    Returns:
        Indices of the pictures of every batch.

    Raises:
        DataError: too few pictures.
    """
    if len(classes) < sets * size:
        raise DataError(
            f"{sets} sets of {size} pictures need {sets * size} pictures, there are {len(classes)};"
            " give more pictures, or lower sets or images_per_set"
        )
    indices = list(range(len(classes)))
    generator.shuffle(indices)
    if not balanced:
        return [indices[first : first + size] for first in range(0, sets * size, size)]
    piles: dict[int, list[int]] = defaultdict(list)
    for index in indices:
        piles[classes[index]].append(index)
    order = sorted(piles)
    found: list[list[int]] = [[] for _ in range(sets)]
    for turn in range(size):  # one picture per batch in turn: a rare class is spread over all
        for number, batch in enumerate(found):
            # the class whose turn it is, or the next one that has any left
            turns = (order[(turn + number + step) % len(order)] for step in range(len(order)))
            batch.append(next(piles[kind] for kind in turns if piles[kind]).pop())
    return found


@dataclass(frozen=True)
class Trial:
    """One batch in one stage.

    Attributes:
        position: from 1.
        stage: see `Stage`.
        data_set: key.
        method: attribution method of its heatmaps, "none" for NoVis.
        set: number of the batch, from 1.
        learned: number of the batch that is shown before with the network's answers; 0 for none.
    """

    position: int
    stage: Stage
    data_set: str
    method: str
    set: int
    learned: int = 0


@dataclass(frozen=True)
class Cell:
    """An order of data sets and an order of stages; the participants of an arm spread over all."""

    data_sets: tuple[str, ...]
    stages: tuple[Stage, ...]

    @property
    def label(self) -> str:
        """The orders in words, as the dashboard shows them."""
        return f"{', '.join(self.data_sets)}; {', '.join(self.stages)}"


def all_cells(arm: Arm, data_sets: Sequence[str], between: bool = False) -> list[Cell]:
    """Every order of the data sets with every order of the assisted stages; NoVis is first.

    `between` participants, it is every order of the data sets with every single stage.
    """
    orders: list[tuple[Stage, ...]] = [("NoVis", *stages) for stages in permutations(arm.stages)]
    if between:
        orders = [(stage,) for stage in arm.all_stages]
    return [Cell(tuple(data), stages) for data in permutations(data_sets) for stages in orders]


def draw_cell(settings: StudySettings, arm: Arm, data_sets: Sequence[str], place: int) -> Cell:
    """The orders of a place, from 0."""
    cells = all_cells(arm, data_sets, settings.between)
    if settings.randomisation == "simple":
        return _generator(settings, arm, "cell", place).choice(cells)
    block, row = divmod(place, len(cells))
    generator = _generator(settings, arm, "cells", block)
    generator.shuffle(cells)
    if settings.between:  # as many successive places as there are stages hold each of them once
        turns = {cell.data_sets: generator.random() for cell in cells}
        cells.sort(key=lambda cell: turns[cell.data_sets])  # stages stay shuffled within an order
    return cells[row]


def draw_trials(
    settings: StudySettings, arm: Arm, data_sets: Sequence[str], place: int
) -> tuple[Trial, ...]:
    """What the participant at a place does, in order; data sets alternate, no set comes twice."""
    cell = draw_cell(settings, arm, data_sets, place)
    if settings.between:
        return _draw_rounds(settings, arm, cell, place)
    sets = {key: _draw_sets(settings, arm, key, place) for key in data_sets}
    trials: list[Trial] = []
    for stage in cell.stages:
        for key in cell.data_sets:
            number = sets[key][arm.all_stages.index(stage)]
            trials.append(Trial(len(trials) + 1, stage, key, _method(arm, stage), number))
    return tuple(trials)


def _method(arm: Arm, stage: Stage) -> str:
    """The attribution method of a stage's heatmaps."""
    return {"NoVis": "none", "1-Heatmap": arm.method, "XNN": "excitation_backprop"}[stage]


def _draw_rounds(settings: StudySettings, arm: Arm, cell: Cell, place: int) -> tuple[Trial, ...]:
    """Rounds in the one stage of a participant; data sets alternate.

    Within a block of places, which holds every stage with every order of the data sets once, all
    see the same batches in the same rounds: stages do not differ in their pictures.
    """
    block = place // len(all_cells(arm, cell.data_sets, between=True))
    number = block if settings.randomisation == "blocks" else place
    stage = cell.stages[0]
    trials: list[Trial] = []
    sets = {
        key: _generator(settings, arm, f"rounds/{key}", number).sample(
            range(1, settings.sets + 1), settings.sets
        )
        for key in cell.data_sets
    }
    for _ in range(settings.repeats):
        for key in cell.data_sets:
            learned = sets[key].pop() if settings.task == "forward_simulation" else 0
            shown = len(trials) + 1, stage, key, _method(arm, stage), sets[key].pop(), learned
            trials.append(Trial(*shown))
    return tuple(trials)


def draw_order(settings: StudySettings, number: int, position: int, items: Sequence[Any]) -> list:
    """The order in which a participant sees the pictures of a batch."""
    order = list(items)
    random.Random(f"{settings.seed}/order/{number}/{position}").shuffle(order)
    return order


def _draw_sets(settings: StudySettings, arm: Arm, key: str, place: int) -> list[int]:
    """The set of every stage of the arm, in the order of `Arm.all_stages`."""
    numbers = list(range(1, settings.sets + 1))
    stages = len(arm.all_stages)
    if settings.randomisation == "simple":
        return _generator(settings, arm, f"sets/{key}", place).sample(numbers, stages)
    block, row = divmod(place, settings.sets)
    generator = _generator(settings, arm, f"blocks/{key}", block)
    generator.shuffle(numbers)
    rows = generator.sample(range(settings.sets), settings.sets)
    return [numbers[(rows[row] + stage) % settings.sets] for stage in range(stages)]


def _generator(settings: StudySettings, arm: Arm, purpose: str, number: int) -> random.Random:
    """Its own stream for every purpose, so that one more draw changes no other."""
    return random.Random(f"{settings.seed}/{arm.name}/{purpose}/{number}")
