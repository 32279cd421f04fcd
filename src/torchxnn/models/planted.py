r"""A network whose logits are known sums of known detectors: the ground truth of the metrics.

Each detector answers to one *thing* that `data.datasets.planted` draws: a shape of one colour. The
network is made of ordinary operations and nothing in it is learned:

1. `colours`: a 1 x 1 convolution with ReLU gives one plane per colour, 1 where the colour is pure
   and 0 on greys and on the other colours.
2. `shapes`: a 17 x 17 convolution of the planes, one filter per thing, of least mean square
   response to all other shapes at all places for a response of 1 to its own. ReLU of
   (response - 0.65) / 0.35 is the answer there, and `pool` takes the largest one of the image.
3. `classifier.0` mixes the answers d at random, `classifier.1` is their ReLU: the layer Z to be
   explained, in which no thing has a direction of its own. Each mixture enters with both signs, so
   `classifier.2` can undo the ReLU exactly.

So :math:`y_c=b+\sum_p w_{cp}d_p` for every image, with `WEIGHTS` and `CONSTANT`, up to rounding.

The filters are correlation filters of least average energy (Mahalanobis, Vijaya Kumar and Casasent,
Minimum average correlation energy filters, Applied Optics 26, 1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import ModelError
from torchxnn.models.preprocessing import Preprocessing

FACTORY = "torchxnn.models.planted:planted_network"
"""What `load_model` knows the network as."""

LAYER = "classifier.1"
SIZE = 76
"""Height and width of an image in pixels."""

PREPROCESSING = Preprocessing(size=SIZE, resize="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

COLOURS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
}
"""Corners of the RGB cube, so that one linear map and a ReLU tell them apart."""

SHAPES = ("disc", "square", "triangle", "plus", "floor")
WINDOW = 17
"""Side of a filter; every shape but the floor fits into it."""

THRESHOLD = 0.65
"""Responses up to this share of the right shape's are no answer."""

CONSTANT = -4.0
"""b of every logit."""

_MIXTURES = 64
_FINE = 16  # points per pixel and direction at which a shape is sampled
_RIDGE = 100.0


@dataclass(frozen=True)
class Thing:
    """What a detector answers to."""

    colour: str
    shape: str

    @property
    def name(self) -> str:
        """Such as "red disc"."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class PlantedClass:
    """What one logit is the sum of, and what its images show.

    Attributes:
        name: of the class.
        weights: of the things that the logit is made of; a negative one speaks against the class.
        spurious: a thing that most images of the class show, and whose weight is 0.
    """

    name: str
    weights: dict[str, float]
    spurious: str

    @property
    def reasons(self) -> tuple[int, ...]:
        """Indices in `THINGS` of what tells the class's logit from a constant."""
        return tuple(THING_NAMES.index(name) for name in self.weights)


THINGS = (
    Thing("red", "disc"),
    Thing("red", "plus"),
    Thing("green", "plus"),
    Thing("green", "square"),
    Thing("blue", "square"),
    Thing("blue", "triangle"),
    Thing("yellow", "triangle"),
    Thing("yellow", "disc"),
    Thing("magenta", "disc"),
    Thing("magenta", "square"),
    Thing("cyan", "disc"),
    Thing("cyan", "floor"),
)
"""What is detected, in the order of the answers. The floor is in every image."""

ALWAYS = "cyan floor"
ALWAYS_WEIGHT = 2.0
"""Weight of the floor in every logit: evidence that tells no image from another."""

TOGETHER = (("blue square", "yellow triangle"), ("red plus", "green square"))
"""Things that tend to occur together, on images of the class that they are both a reason for."""

CLASSES = (
    PlantedClass(
        "pattern A",
        {
            "red disc": 3.0,
            "blue square": 2.0,
            "yellow triangle": 2.0,
            "green plus": 1.0,
            "magenta disc": -2.0,
        },
        spurious="red plus",
    ),
    PlantedClass(
        "pattern B",
        {
            "blue triangle": 3.0,
            "red plus": 2.0,
            "green square": 2.0,
            "yellow triangle": 1.0,
            "red disc": -2.0,
        },
        spurious="yellow disc",
    ),
    PlantedClass(
        "pattern C",
        {
            "magenta disc": 3.0,
            "green plus": 2.0,
            "yellow disc": 2.0,
            "magenta square": 1.0,
            "blue square": -2.0,
        },
        spurious="green square",
    ),
)
"""What the logits are. No class knows the cyan disc."""

THING_NAMES = tuple(thing.name for thing in THINGS)

WEIGHTS: Float[Tensor, "classes things"] = torch.tensor(
    [
        [ALWAYS_WEIGHT if name == ALWAYS else each.weights.get(name, 0.0) for name in THING_NAMES]
        for each in CLASSES
    ],
    dtype=torch.float64,
)
"""w, (K, P): the weight of every answer in every logit."""


def shape_mask(shape: str) -> Float[Tensor, "window window"]:
    """How much of each pixel of a window a shape in its middle covers, (17, 17), 0 to 1, float64.

    Raises:
        ModelError: there is no such shape.
    """
    centre = (torch.arange(WINDOW * _FINE, dtype=torch.float64) + 0.5) / _FINE - WINDOW / 2
    y, x = centre.unsqueeze(1), centre.unsqueeze(0)
    inside = {
        "disc": x.square() + y.square() <= 7.0**2,
        "square": torch.maximum(x.abs(), y.abs()) <= 6.0,
        "triangle": (y.abs() <= 6.5) & (x.abs() <= 7.0 * (y + 6.5) / 13.0),
        "plus": (torch.minimum(x.abs(), y.abs()) <= 2.5) & (torch.maximum(x.abs(), y.abs()) <= 7.0),
        "floor": (y.abs() <= 2.5) & (x == x),
    }
    if shape not in inside:
        raise ModelError(f"there is no planted shape {shape!r}; known: {', '.join(inside)}")
    fine = inside[shape].double().reshape(WINDOW, _FINE, WINDOW, _FINE)
    return fine.mean((1, 3))


@cache
def shape_filters() -> dict[str, Float[Tensor, "window window"]]:
    r"""The filter of every shape: response 1 to it, least mean square response to what else occurs.

    .. math:: k_s=\frac{(C_s+\rho I)^{-1}a_s}{a_s^\top(C_s+\rho I)^{-1}a_s}

    with :math:`a_s` the shape in the middle of the window and :math:`C_s` the sum of the outer
    products of all windows that show another shape, wholly or in part, or the same one more than a
    pixel off. Shapes are taken as their colour's plane shows them on a grey of 0.5, where a pixel
    that they cover by a share m has the value 1.5 m - 0.5, or 0 if that is negative.
    """
    views = {shape: _windows(shape) for shape in SHAPES}
    filters = {}
    for shape in SHAPES:
        near = torch.zeros(2 * WINDOW - 1, 2 * WINDOW - 1, dtype=torch.bool)
        middle = slice(WINDOW - 2, WINDOW + 1)
        near[middle, :] = shape == "floor"
        near[middle, middle] = True
        others = [views[other] for other in SHAPES if other != shape] + [views[shape][~near]]
        seen = torch.cat([view.reshape(-1, WINDOW**2) for view in others])
        own = _in_plane(shape).flatten()
        ridge = _RIDGE * torch.eye(WINDOW**2, dtype=torch.float64)
        found = torch.linalg.solve(seen.mT @ seen + ridge, own)
        filters[shape] = (found / (found @ own)).reshape(WINDOW, WINDOW)
    return filters


def _in_plane(shape: str) -> Float[Tensor, "window window"]:
    return (1.5 * shape_mask(shape) - 0.5).clamp(min=0)


def _windows(shape: str) -> Float[Tensor, "rows columns pixels"]:
    """What a window shows of a shape at every place where it shows any of it."""
    edge = WINDOW - 1
    mask = nn.functional.pad(_in_plane(shape)[None, None], (0, 0, edge, edge))
    mode = "replicate" if shape == "floor" else "constant"  # the floor goes on to both sides
    mask = nn.functional.pad(mask, (edge, edge, 0, 0), mode=mode)
    places = 2 * WINDOW - 1
    return nn.functional.unfold(mask, WINDOW)[0].mT.reshape(places, places, WINDOW**2)


class PlantedNetwork(nn.Module):
    """See the top of this module; everything is float32, as `load_model` gives it.

    Args:
        seed: of the mixing.
    """

    preprocessing = PREPROCESSING
    num_classes = len(CLASSES)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        things = len(THINGS)
        self.colours = nn.Sequential(nn.Conv2d(3, len(COLOURS), 1), nn.ReLU())
        self.shapes = nn.Sequential(
            nn.Conv2d(len(COLOURS), things, WINDOW, padding=WINDOW // 2), nn.ReLU()
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(things, 2 * _MIXTURES), nn.ReLU(), nn.Linear(2 * _MIXTURES, len(CLASSES))
        )
        self._set_detectors()
        self._set_mixing(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _set_detectors(self) -> None:
        colours, shapes = cast(nn.Conv2d, self.colours[0]), cast(nn.Conv2d, self.shapes[0])
        corners = torch.tensor(list(COLOURS.values()))
        colours.weight.copy_((2 * corners - 1)[:, :, None, None])
        cast(Tensor, colours.bias).copy_(1 - corners.sum(1))
        filters, scale = shape_filters(), 1 - THRESHOLD
        shapes.weight.zero_()
        cast(Tensor, shapes.bias).fill_(-THRESHOLD / scale)
        for place, thing in enumerate(THINGS):
            plane = list(COLOURS).index(thing.colour)
            shapes.weight[place, plane] = (filters[thing.shape] / scale).float()

    @torch.no_grad()
    def _set_mixing(self, generator: torch.Generator) -> None:
        mixing, readout = (cast(nn.Linear, self.classifier[at]) for at in (0, 2))
        weight = torch.randn(_MIXTURES, len(THINGS), dtype=torch.float64, generator=generator)
        bias = torch.randn(_MIXTURES, dtype=torch.float64, generator=generator)
        mixing.weight.copy_(torch.cat([weight, -weight]))
        mixing.bias.copy_(torch.cat([bias, -bias]))
        unmixed, constant = self.unmix()
        readout.weight.copy_(WEIGHTS @ unmixed)
        readout.bias.copy_(CONSTANT + WEIGHTS @ constant)

    def unmix(self) -> tuple[Float[Tensor, "things dims"], Float[Tensor, " things"]]:
        """The linear map from Z back to the answers: weight (P, S_z) and constant (P,), float64."""
        mixing = cast(nn.Linear, self.classifier[0])
        weight, bias = (part.detach().double()[:_MIXTURES] for part in (mixing.weight, mixing.bias))
        undone = torch.linalg.pinv(weight)
        return torch.cat([undone, -undone], 1), -undone @ bias

    def answers(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch things"]:
        """d: what the detectors answer, (B, P), at least 0, and 1 for a shape of pure colour."""
        return self.pool(self.shapes(self.colours(images))).flatten(1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch k"]:
        """The logits (B, K) of images (B, 3, H, W) with values from 0 to 1."""
        return self.classifier(self.answers(images))


def planted_network(seed: int = 0) -> PlantedNetwork:
    """The planted network in evaluation mode, for `load_model`; see `FACTORY`."""
    return PlantedNetwork(seed).eval()
