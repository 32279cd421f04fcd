"""Pictures under names that tell nothing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from torchxnn.explanations.drawing.encode import encode

Picture = UInt8[np.ndarray, "height width 3"]

QUALITY = 85
"""Of WebP."""


class Media:
    """Writes pictures under opaque names, without what cameras put into files.

    Names are the same for the same seed and tell nothing about what they stand for.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._generator = random.Random(f"{seed}/names")
        self._taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def _name(self, length: int) -> str:
        """A name of hexadecimal digits that was not given before."""
        while True:
            name = f"{self._generator.getrandbits(4 * length):0{length}x}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def add(self, picture: Picture) -> str:
        """Write a picture; returns the name of its file."""
        name = f"{self._name(24)}.webp"
        (self._folder / name).write_bytes(encode(picture, QUALITY))
        return name

    def id(self) -> str:
        """A new id of a picture."""
        return self._name(10)
