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


class Names:
    """Opaque names, the same for the same seed, that tell nothing about what they stand for."""

    def __init__(self, seed: int) -> None:
        self._generator = random.Random(f"{seed}/names")
        self._taken: set[str] = set()

    def new(self, length: int) -> str:
        """A name of hexadecimal digits that was not given before."""
        while True:
            name = f"{self._generator.getrandbits(4 * length):0{length}x}"
            if name not in self._taken:
                self._taken.add(name)
                return name


class Media:
    """Writes pictures under opaque names, without what cameras put into files."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder, self._names = folder, names
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, picture: Picture) -> str:
        """Write a picture; returns the name of its file."""
        name = f"{self._names.new(24)}.webp"
        (self._folder / name).write_bytes(encode(picture, QUALITY))
        return name

    def id(self) -> str:
        """A new id of a picture."""
        return self._names.new(10)
