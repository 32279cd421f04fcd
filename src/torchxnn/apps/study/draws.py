"""Which pictures make a batch."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

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
