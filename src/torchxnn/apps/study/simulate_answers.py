"""How synthetic participants answer in the tasks other than clustering.

They compare new pictures with those whose answers they were told, and trust the regions that the
explanation highlighted there; without an explanation they compare whole pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

Looks = Float[np.ndarray, " pixels"]

Read = Callable[[str], Looks]
"""What is remembered of the picture at an address; the same length for all."""


def predict_answers(content: Mapping[str, Any], read: Read) -> dict[str, int]:
    """The network's answer to each new picture, as that to the most alike one that was learned.

    Args:
        content: what the server says of a batch of forward simulation.
        read: of the picture at an address.

    Returns:
        An answer from 1 by the id of the picture.
    """
    learned: Sequence[Mapping[str, Any]] = content["learned"]
    known = np.stack([read(image["picture"]) for image in learned])
    weight = np.mean([_highlighted(image, read) for image in learned], axis=0)
    found = {}
    for image in content["images"]:
        apart = ((known - read(image["picture"])) ** 2 * weight).sum(1)
        found[image["id"]] = int(learned[int(apart.argmin())]["answer"])
    return found


def _highlighted(image: Mapping[str, Any], read: Read) -> Looks:
    """How much an explanation changed the looks of each place; 1 everywhere without one."""
    plain = read(image["picture"])
    shown = [(image["heatmap"], 1.0)] if image["heatmap"] else []
    shown += [(each["overlay"], abs(each["contribution"])) for each in image["features"]]
    if not shown:
        return np.ones_like(plain)
    return np.sum([share * np.abs(read(address) - plain) for address, share in shown], axis=0)
