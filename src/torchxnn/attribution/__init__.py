"""Attribution methods: (module, images, target) -> heatmaps. A new method is one file and one line.

`METHODS` maps the names that users pass to the classes.
"""

from torchxnn.attribution.base import Attributor, Certificate
from torchxnn.attribution.excitation_backprop import ExcitationBackprop

METHODS: dict[str, type[Attributor]] = {"excitation_backprop": ExcitationBackprop}

__all__ = ["METHODS", "Attributor", "Certificate", "ExcitationBackprop"]
