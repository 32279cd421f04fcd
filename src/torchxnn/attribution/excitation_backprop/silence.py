"""Where no relevance can be, known from the rules that it passed instead of by looking.

What a competition hands to an input is a multiple of |x|, so none of it is where x = 0, and a ReLU
below receives none where its input is negative. To know it saves a search through the relevance of
all seeds at every operation.
"""

from __future__ import annotations

from collections.abc import Mapping

from torchxnn.attribution.excitation_backprop.competition import Negative
from torchxnn.attribution.excitation_backprop.tape import Operation, Value

_RECTIFIERS = {"relu": 0, "relu6": 0, "clamp_min": 1, "clamp": 1, "hardtanh": 1, "threshold": 1}
"""Operations that are 0 where their input is negative, and the argument that must be 0 for it."""

_NORMALISATIONS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm",
}  # fmt: skip
POOLS = {"max_pool2d_with_indices", "max_pool3d_with_indices"}


class Silence:
    """What is known of the relevance of one walk.

    Args:
        signs: which elements of a value count as negative, where that is not their own sign; it
            grows while the walk goes on.
    """

    def __init__(self, signs: Mapping[Value, Negative]) -> None:
        self._signs = signs
        # By value: whether no relevance is where it is 0, and none where it counts as negative.
        self._known: dict[Value, tuple[bool, bool]] = {}

    def of_negative(self, value: Value) -> bool:
        """Whether it is certain that no element that counts as negative has relevance."""
        return self._known.get(value, (False, False))[1]

    def hand_on(
        self,
        operation: Operation,
        reached: list[Value],
        receivers: list[Value],
        *,
        by_size: bool,
        copies: bool,
    ) -> None:
        """Conclude what is known of what the receivers of an operation's relevance received.

        Args:
            operation: has passed on the relevance of its outputs.
            reached: those of its outputs that had relevance.
            receivers: the values that received it.
            by_size: whether what each element received is a multiple of its size.
            copies: whether the operation only moves elements.
        """
        known = [self._known.get(value, (False, False)) for value in reached]
        zero, negative = all(each[0] for each in known), all(each[1] for each in known)
        output = operation.output
        for value in receivers:
            own = value not in self._signs
            same = own == (output not in self._signs)
            if by_size:  # of a sum > 0 only the terms > 0 win
                term = _adds(operation) and value.shape == output.shape
                found = True, term and negative and own and same
            elif rectifies(operation):
                found = zero, zero and own
            elif copies or operation.name in POOLS:
                found = zero, negative and same
            elif operation.name in _NORMALISATIONS and not own:
                found = False, negative and not _flips(operation)
            else:
                found = False, False
            before = self._known.get(value, (True, True))
            self._known[value] = before[0] and found[0], before[1] and found[1]

    def unknown(self, receivers: list[Value]) -> None:
        """Nothing is known of what these received."""
        self._known.update(dict.fromkeys(receivers, (False, False)))


def _adds(operation: Operation) -> bool:
    """Whether it is a + alpha b with alpha > 0; with alpha < 0 a term wins where it is negative."""
    if operation.name != "add":
        return False
    alpha = operation.args[2] if len(operation.args) > 2 else operation.kwargs.get("alpha", 1)
    return float(alpha) > 0


def rectifies(operation: Operation) -> bool:
    """Whether it is 0 where its input is negative."""
    if operation.name not in _RECTIFIERS:
        return False
    position = _RECTIFIERS[operation.name]
    if operation.name == "threshold":  # max(x, 0) with both numbers 0
        return tuple(operation.args[1:3]) == (0, 0)
    return position == 0 or (len(operation.args) > 1 and operation.args[1] == 0)


def _flips(operation: Operation) -> bool:
    """Whether a normalisation turns signs round in some channel."""
    known = operation.known.get("flips")
    scale = operation.args[1]
    if known is not None:
        return known
    return scale is not None and bool((scale.tensor < 0).any())
