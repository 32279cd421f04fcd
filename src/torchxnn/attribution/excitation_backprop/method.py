"""Excitation backprop and its contrastive form (c-MWP): which pixels win the competition.

Relevance starts as 1 on the target and walks down. Each unit passes all it has to its inputs, in
proportion to the contributions that agree with its own sign (`competition`). So the marginal
winning probability (MWP) is non-negative and sums to 1 in every layer. The contrastive map is the
MWP of the target minus that of its dual unit, whose incoming weights are negated; it is signed and
sums to 0. See `docs/excitation_backprop.md` for every rule.

Source: Zhang, Lin, Brandt, Shen, Sclaroff, Top-down neural attention by excitation backprop, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from torchxnn.attribution.base import (
    CONSERVATION_LIMIT,
    Attributor,
    Certificate,
    LayerCertificate,
    Targets,
    check_range,
    contrast_mass,
    for_each,
)
from torchxnn.attribution.excitation_backprop.drawn_maps import DrawnMaps
from torchxnn.attribution.excitation_backprop.prepared import Prepared, first_non_finite, prepare
from torchxnn.attribution.excitation_backprop.propagation import MetFallbackError, Walk
from torchxnn.attribution.excitation_backprop.rules import elementwise as rules_elementwise
from torchxnn.attribution.excitation_backprop.rules import linear as rules_linear
from torchxnn.attribution.excitation_backprop.rules import shape as rules_shape
from torchxnn.attribution.excitation_backprop.tape import Tape, Value, erase
from torchxnn.attribution.excitation_backprop.tracing import record
from torchxnn.embeddings.exact import back, exact_sum
from torchxnn.errors import DataError, LayerError, NonFiniteError, XNNError
from torchxnn.models.hooks import preserve_state
from torchxnn.models.layers import check_images, resolve_layer

UNDECIDED = ("share", "absorb")
"""What becomes of relevance at units that their biases decided, see `ExcitationBackprop`."""

LEAST_LEFT = 1e-6
"""Share of the relevance that must be left by biases; less could not be told from rounding."""

SURE = CONSERVATION_LIMIT / 10
"""Error of conservation of the maps of several targets together, up to which it stands for each;
beyond, every target and every dual is summed by itself."""

# Importing the rules fills their table, which cannot import them itself: they register in it.
_RULE_MODULES = (rules_elementwise, rules_linear, rules_shape)


@dataclass(eq=False, repr=False)
class ExcitationBackprop(Attributor):
    """Excitation backprop through any network, by rules on the operations it runs.

        P(j | i) = (s_i w_ij x_j)+ / sum_k (s_i w_ik x_k)+ ,   R_j = sum_i P(j | i) R_i

    with s_i the sign of unit i (+ for the target). Non-negative and of sum 1 per image and target;
    with `contrastive` the same of the dual unit is subtracted: signed, of sum 0.

    Args:
        module: any module with (B, k) outputs; run in evaluation mode and left as it was.
        contrastive: c-MWP instead of the marginal map.
        stop_at: a submodule or its dotted name; the map is then the relevance of its output,
            summed over `channel_dim`, instead of that of the pixels. Relevance that passes the
            layer by, over a skip connection, is not in it.
        chunk_size: how many maps (image x target) are carried at once; None for all. It bounds the
            memory and does not change the result.
        channel_dim: the dimension that is summed, 1 unless the layer keeps channels elsewhere.
        undecided: what becomes of relevance at a unit that no contribution agrees with, so that its
            bias decided: "share", it is shared by size; or "absorb", it ends there, and what is
            left of the unit's relevance and of the dual's is scaled to a sum of 1 each. The
            target's own unit, and averages above it, share in any case.

    Example:
        >>> method = ExcitationBackprop(torchvision.models.resnet18())
        >>> maps = method.attribute(images, target=3)        # (B, H, W)
    """

    contrastive: bool = True
    stop_at: str | nn.Module | None = None
    chunk_size: int | None = None
    channel_dim: int = 1
    undecided: str = "share"

    def __post_init__(self) -> None:
        """Check the parameters and find the layer to stop at."""
        size = self.chunk_size
        if self.undecided not in UNDECIDED:
            known = " or ".join(UNDECIDED)
            raise XNNError(f"undecided is {self.undecided!r}; it must be {known}")
        if size is not None and size < 1:
            raise XNNError(f"chunk_size is {size}; it must be at least 1, or None for all")
        super().__post_init__()
        stop = self.stop_at
        # A module is taken as it is: it may be one that `module` holds without registering it.
        self._stop = resolve_layer(self._network, stop)[1] if isinstance(stop, str) else stop

    def attribute_outputs(
        self,
        images: Float[Tensor, "batch *image"],
        targets: Sequence[Sequence[int]],
        certify: Sequence[bool],
    ) -> list[DrawnMaps]:
        """Maps of the units of several outputs, from one forward pass; it does not warn.

        Args:
            images: preprocessed images (B, C, H, W).
            targets: unit indices of each output that the module returns, in a tuple of (B, k)
                tensors; of the outputs that are not named no maps are drawn.
            certify: for each of them, whether conservation is measured in every layer.

        Raises:
            XNNError: as `attribute`.
        """
        return self._run(images, [for_each(group, images) for group in targets], certify, True)

    def certify_layers(
        self, images: Float[Tensor, "batch *image"], targets: Sequence[int]
    ) -> tuple[LayerCertificate, ...]:
        """Conservation and fallback layer by layer, from the top down, for `xnn check`.

        Args:
            images: preprocessed images (B, C, H, W).
            targets: output indices.

        Raises:
            XNNError: as `attribute`.
        """
        check_images(self._network, images)
        each = for_each(targets, images).T
        with preserve_state(self._network):
            (found,) = self._explain_part(images, [each], [True], each.numel(), by_layer=True)
        return tuple(found.layers.values())

    def draw(self, images: Tensor, targets: Targets, certify: bool) -> DrawnMaps:
        """Maps of targets (B, n), and what was measured; the same as `attribute`, without warnings.

        Raises:
            XNNError: as `attribute`.
        """
        (found,) = self._run(images, [targets], [certify])
        return found

    def _explain(
        self, images: Tensor, targets: Tensor, certify: bool
    ) -> tuple[Tensor, Certificate | None]:
        found = self.draw(images, targets, certify)
        found.warn(stacklevel=3)
        return found.maps, found.certificate() if certify else None

    def _run(
        self,
        images: Tensor,
        groups: Sequence[Tensor],
        certify: Sequence[bool],
        several: bool = False,
    ) -> list[DrawnMaps]:
        """Maps of each group of targets (B, n); see `attribute_outputs` for several outputs."""
        check_images(self._network, images)
        limit = self.chunk_size or max(targets.numel() for targets in groups)
        parts = []
        with preserve_state(self._network):
            for first in range(0, images.shape[0], limit):
                part = slice(first, first + limit)
                given = images[part], [targets[part].T for targets in groups]
                found = self._explain_part(*given, certify, limit, several)
                if not all(bool(torch.isfinite(drawn.maps).all()) for drawn in found):
                    # Once more, with a check after every operation, to name the place.
                    self._explain_part(*given, [True] * len(groups), limit, several)
                    raise NonFiniteError("the heatmap holds NaN or infinity")
                parts.append(found)
        return [DrawnMaps.cat(drawn) for drawn in zip(*parts, strict=True)]

    def _explain_part(
        self,
        images: Tensor,
        groups: Sequence[Tensor],
        certify: Sequence[bool],
        limit: int,
        several: bool = False,
        by_layer: bool = False,
    ) -> list[DrawnMaps]:
        tapes = record(self._network, images, stop=self._stop, several=several)
        walked, operations = tapes[: len(groups)], tapes[0].operations
        off = torch.autocast(images.device.type, enabled=False)
        found = []
        try:
            with torch.inference_mode(False), torch.no_grad(), off:
                for tape, targets, certified in zip(walked, groups, certify, strict=True):
                    last = tape is walked[-1]
                    ways = {"certify": certified, "by_layer": by_layer, "last": last}
                    found.append(self._walk_tape(tape, targets, limit, **ways))
                    for operation in operations:  # what rules computed belongs to one walk
                        operation.cache.clear()
        finally:
            erase(operations)
        return found

    def _walk_tape(
        self, tape: Tape, targets: Tensor, limit: int, *, certify: bool, by_layer: bool, last: bool
    ) -> DrawnMaps:
        outputs = _check_output(tape, targets)
        prepared = prepare(tape, certify=certify)
        _check_dependence(prepared, targets)
        goal = tape.images if tape.stop is None else tape.stop
        group = max(1, limit // targets.shape[1])
        maps, error = [], 0.0
        shares = []
        layers: dict[str, LayerCertificate] = {}
        for chosen in targets.to(outputs.device, torch.int64).split(group):
            seeds = functional.one_hot(chosen, outputs.shape[1]).to(prepared.dtype)
            seeds = seeds.reshape(chosen.shape[0], *tape.output.shape)
            free = last and group >= targets.shape[0]
            walk, relevance = self._walk(
                prepared, seeds, goal, layers, by_layer=by_layer, free=free
            )
            account = walk.account
            layers = account.layers
            summed = self._summed(relevance)
            if not self.contrastive:  # a difference of equal sums may end a rounding below 0
                summed = summed.clamp(min=0)
            summed, leak = self._settled(summed, account.absorbed, len(seeds))
            maps.append(summed.transpose(0, 1))
            error = max(error, account.error if certify else leak)
            met = account.fallback
            if met is None:
                met = torch.zeros(chosen.shape, dtype=torch.float64)
            shares.append(_without_off(met, outputs, chosen).clamp(max=1).cpu())
        drawn, mass = torch.cat(maps, 1), None
        if self.contrastive:
            off = outputs.gather(1, targets.T.to(outputs.device, torch.int64)) == 0
            mass = contrast_mass(drawn)
            mass = mass.masked_fill(off.to(mass.device), math.nan).cpu()
        return DrawnMaps(drawn, error, torch.cat(shares).T, layers, mass)

    def _walk(
        self,
        prepared: Prepared,
        seeds: Tensor,
        goal: Value,
        layers: dict[str, LayerCertificate],
        *,
        by_layer: bool,
        free: bool,
    ) -> tuple[Walk, Tensor]:
        """A walk with little beside the maps, and others where that does not tell all.

        Args:
            prepared: the tape.
            seeds: where the walk begins, (n, *output shape).
            goal: where it ends.
            layers: what earlier walks measured, added to.
            by_layer: whether the fallback of every layer is wanted.
            free: whether this is the last walk over the tape.
        """
        absorb = self.undecided == "absorb"

        def begin(*, beside: bool = False, one_by_one: bool = False) -> Walk:
            ways = {"contrastive": self.contrastive, "absorb": absorb, "free": free}
            walk = Walk(prepared, **ways, beside=beside, one_by_one=one_by_one)
            walk.account.layers = dict(layers)
            return walk

        walk = begin()
        try:
            relevance = walk.run(seeds, goal)
            if not self.contrastive or walk.account.error <= SURE:
                return walk, relevance
        except MetFallbackError:
            if prepared.certify and not (by_layer or absorb):
                walk = begin(beside=True)
                relevance = walk.run(seeds, goal)
                if walk.account.error <= SURE:
                    return walk, relevance
        walk = begin(beside=True, one_by_one=prepared.certify)
        return walk, walk.run(seeds, goal)

    def _summed(self, relevance: Tensor) -> Tensor:
        if relevance.ndim < 4:
            raise LayerError(
                f"a map of a tensor of shape {tuple(relevance.shape[1:])} is one number per image; "
                "give images (B, C, H, W), or stop at a layer with feature maps"
            )
        dim = self.channel_dim + 1 if self.channel_dim >= 0 else self.channel_dim
        return relevance.sum(dim)

    def _settled(self, summed: Tensor, absorbed: Tensor, seeds: int) -> tuple[Tensor, float]:
        """Maps of what biases did not absorb, scaled to the sum that all relevance would have.

        Of a unit of which nothing is left, or nothing of its dual, the map is 0.

        Args:
            summed: what arrived, (seeds, B, H, W), or with the duals' behind it.
            absorbed: see `Account`.
            seeds: how many there are.

        Returns:
            Maps (seeds, B, H, W), and how far the sums with what was absorbed are from what they
            should be; nothing is known at a layer.
        """
        sums = exact_sum(summed.flatten(2), 2)
        absorbed, pair = absorbed.to(sums.device), len(summed) > seeds
        goal = 1.0 if pair or not self.contrastive else 0.0
        leak = 0.0 if self._stop is not None else float((sums + absorbed - goal).abs().max())
        if absorbed.ndim > 0:
            left = sums if self._stop is None else 1 - absorbed
            scale = torch.where(absorbed > 0, 1 / left.clamp(min=LEAST_LEFT), 1.0)
            there = left > LEAST_LEFT
            if pair:
                there = (there[:seeds] & there[seeds:]).repeat(2, 1)
            factor = back(scale * there, summed)
            summed = summed * factor.reshape(*factor.shape, *(1 for _ in summed.shape[2:]))
        return (summed[:seeds] - summed[seeds:] if pair else summed), leak


def _without_off(lost: Tensor, outputs: Tensor, chosen: Tensor) -> Tensor:
    """Do not count the fallback of targets that are off (exactly 0), as x-features often are.

    Nothing excites such a unit, so all of its map rests on the fallback, and no map of it is shown.
    """
    off = (outputs.gather(1, chosen.T) == 0).T.to(lost.device)
    return lost.masked_fill(off, 0.0)


def _check_output(tape: Tape, targets: Tensor) -> Tensor:
    """The outputs as (B, k), after checking that the targets exist and the numbers are finite."""
    tensor = tape.output.tensor
    images = tape.images.shape[0]
    if tensor is None or tensor.ndim not in (1, 2) or tensor.shape[0] != images:
        raise DataError(
            f"the module must return (B, k) outputs for {images} images, it returns "
            f"{tuple(tape.output.shape)}"
        )
    outputs = tensor.reshape(images, -1)
    check_range(targets, outputs)
    if not bool(torch.isfinite(outputs).all()):
        first = first_non_finite(tape)
        where = f"first at {first.full_name} in {first.place}" if first else "at its output"
        raise NonFiniteError(
            f"the network computes NaN or infinity from these images, {where}; check its weights"
        )
    return outputs


def _check_dependence(prepared: Prepared, targets: Tensor) -> None:
    """Refuse targets that are constants."""
    owner = prepared.owners.get(prepared.tape.output)
    if owner is None or owner.complete:
        return
    varies = (
        (owner.tensor > 0)
        .reshape(prepared.images, -1)
        .gather(1, targets.T.to(owner.compact.device))
    )
    if not bool(varies.all()):
        target = int(targets.T[~varies.cpu()][0])
        raise XNNError(f"target {target} does not depend on the images; choose another output")
