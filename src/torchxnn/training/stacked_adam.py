"""Adam for a stack of fits, each with its own count of steps and learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.optim.adam import adam

from torchxnn.embeddings.linear import ALIGNED

BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True, eq=False)
class _Piece:
    """What one entry of a fused step works on: a parameter of all fits, or of one of them."""

    name: str
    place: int | None
    tensors: tuple[Tensor, Tensor, Tensor]
    steps: Tensor


@final
class StackedAdam:
    """Adam (Kingma, Ba 2015) as `torch.optim.Adam` computes it, on parameters of G fits.

    Fits that began together and have the same learning rate share their steps: one fused operation
    works on the parameters of all of them, on a CPU on those whose sizes fill its registers. A fit
    that began later, or whose x-layer was set anew, has steps of its own, in the same operation.
    Nothing is read from the device.

    Args:
        values: name -> (G, ...), changed in place.
        weight_decay: as of `torch.optim.Adam`.
    """

    def __init__(self, values: Mapping[str, Tensor], weight_decay: float) -> None:
        self.values = {name: value.detach() for name, value in values.items()}
        self.weight_decay = weight_decay
        self.fits = len(next(iter(self.values.values())))
        self.moments = {
            name: (torch.zeros_like(value), torch.zeros_like(value))
            for name, value in self.values.items()
        }
        self.counts = {name: [0] * self.fits for name in self.values}
        self._since = 0
        self._planned: tuple[tuple[float, ...], tuple[str, ...]] = ((), ())
        self._calls: list[tuple[float, list[_Piece]]] = []

    def take_over(self, before: StackedAdam, places: Sequence[int]) -> None:
        """Let the first fits go on as these places of another one of the same names went."""
        before._settle()
        self._settle()
        count, chosen = len(places), list(places)
        for name, own in self.moments.items():
            for new, old in zip(own, before.moments[name], strict=True):
                new[:count] = old[chosen]
            self.counts[name][:count] = [before.counts[name][place] for place in places]

    def forget(self, place: int, prefixes: tuple[str, ...]) -> None:
        """Begin anew with the parameters of one fit whose names begin so."""
        self._settle()
        for name, own in self.moments.items():
            if name.startswith(prefixes):
                self.counts[name][place] = 0
                for moment in own:
                    moment[place] = 0

    def step(self, gradients: Mapping[str, Tensor | None], rates: Sequence[float]) -> None:
        """One step of every fit, at its learning rate; names without a gradient stay."""
        present = {n: each.contiguous() for n, each in gradients.items() if each is not None}
        if self._planned != (tuple(rates), tuple(present)):
            self._plan(rates, tuple(present))
        for rate, pieces in self._calls:
            values, first, second = zip(*(piece.tensors for piece in pieces), strict=True)
            adam(
                list(values),
                [present[p.name] if p.place is None else present[p.name][p.place] for p in pieces],
                list(first),
                list(second),
                [],
                [piece.steps for piece in pieces],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate,
                weight_decay=self.weight_decay,
                eps=EPS,
                maximize=False,
            )
        self._since += 1

    def _settle(self) -> None:
        """Count the steps since the last plan, which no longer holds."""
        for _, pieces in self._calls:
            for piece in pieces:
                counts = self.counts[piece.name]
                places = range(self.fits) if piece.place is None else (piece.place,)
                for place in places:
                    counts[place] += self._since
        self._since, self._calls, self._planned = 0, [], ((), ())

    def _plan(self, rates: Sequence[float], names: tuple[str, ...]) -> None:
        """Divide the parameters into pieces with one count of steps and one learning rate."""
        self._settle()
        by_rate: dict[float, list[_Piece]] = {}
        for name in names:
            counts = self.counts[name]
            together = len(set(counts)) == 1 and len(set(rates)) == 1
            together = together and self._same_bits_together(name)
            places: Sequence[int | None] = [None] if together else range(self.fits)
            for place in places:
                piece = self._piece(name, place)
                by_rate.setdefault(rates[place or 0], []).append(piece)
        self._calls = list(by_rate.items())
        self._planned = (tuple(rates), names)

    def _same_bits_together(self, name: str) -> bool:
        """Whether a tensor of all fits rounds as a tensor of one of them would.

        On a CPU the last few numbers of a tensor, those that fill no vector register, are rounded
        in another way.
        """
        value = self.values[name]
        return value.device.type != "cpu" or value[0].numel() % ALIGNED == 0

    def _piece(self, name: str, place: int | None) -> _Piece:
        value, (first, second) = self.values[name], self.moments[name]
        count = float(self.counts[name][place or 0])
        steps = torch.full((), count, device=value.device)  # made there: no copy to wait for
        if place is None:
            return _Piece(name, None, (value, first, second), steps)
        return _Piece(name, place, (value[place], first[place], second[place]), steps)
