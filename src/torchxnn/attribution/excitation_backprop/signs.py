"""Which units count as negative: by their own sign, or by that of what they are folded into.

A unit is a weighted linear operation with all that follows it up to the next one: BatchNorm, a
ReLU. Its sign is that of its last value, and the competition of its inputs needs it, so that signs
are handed down while the walk passes these operations.
"""

from __future__ import annotations

from collections.abc import Mapping

from torchxnn.attribution.excitation_backprop.competition import Negative
from torchxnn.attribution.excitation_backprop.rules.table import Rule, rule_of, sign_of_target
from torchxnn.attribution.excitation_backprop.tape import Operation, Value
from torchxnn.errors import XNNError


class Signs:
    """The signs of one walk.

    Args:
        target: the output whose unit is explained; it counts as positive.
        readers: how many operations read each value.

    Attributes:
        handed: which elements of a value count as negative, where that is not their own sign; it
            grows while the walk goes on.
    """

    def __init__(self, target: Value, readers: Mapping[Value, int]) -> None:
        self.handed: dict[Value, Negative] = {target: False}
        self._readers = readers

    def negative(self, value: Value) -> Negative:
        """Which elements of an operation's output count as negative, as units after folding."""
        if value in self.handed:
            return self.handed[value]
        if value.tensor is None:
            raise XNNError("a value was not kept; please report this as a bug of torchxnn")
        return value.tensor < 0

    def fold(self, operation: Operation, rule: Rule) -> None:
        """Hand the sign of a unit to the linear operation that belongs to it."""
        output, dependents = operation.output, operation.dependents
        target = self.handed.get(output)
        if isinstance(target, bool) and rule.keeps_target(operation):
            for value in dependents:
                if self._readers[value] == 1:
                    self.handed[value] = target
            return
        if rule.sign is None or len(dependents) != 1:
            return
        if rule.sign is sign_of_target and not isinstance(target, bool):
            return  # it passes on no mask, so none is made: a ReLU would cost a pass over memory
        value = dependents[0]
        if self._readers[value] > 1:
            return
        if target is not False and not self._feeds(value):
            return
        negative = rule.sign(operation, self.negative(output))
        if negative is not None:
            self.handed[value] = negative

    def _feeds(self, value: Value) -> bool:
        """Whether a value comes from a weighted linear operation by folding steps only."""
        while value.producer is not None:
            operation = value.producer
            rule = rule_of(operation)
            if rule is None or value is not operation.outputs[0]:
                return False
            if weighted(operation, rule):
                return True
            if rule.sign is None or len(operation.dependents) != 1:
                return False
            value = operation.dependents[0]
            if self._readers[value] > 1:
                return False
        return False


def weighted(operation: Operation, rule: Rule) -> bool:
    """Whether an operation is a linear one of a single input, with weights: the core of a unit."""
    return rule.linear and len(operation.dependents) == 1
