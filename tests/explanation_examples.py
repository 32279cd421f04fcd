"""Small explanations for the tests of drawings and reports; nothing here needs a network."""

from dataclasses import replace

import numpy as np
import torch

from torchxnn.attribution.base import Certificate
from torchxnn.explanations.image import Explanation
from torchxnn.metrics.faithfulness import Faithfulness

CERTIFICATE = Certificate(
    conservation_error=3e-7,
    fallback_share=0.01,
    dtype="float32",
    method="excitation_backprop",
    versions={"torchxnn": "0.1.0", "torch": "2.6.0"},
)
HOSTILE = '<script>alert("x")</script> & "quotes" $x_1$ \u96ea\u202e\x07\udcff'


def faithfulness(n=3, targets=1, **changes):
    row = tuple(2 * (n - i) / (n * (n + 1)) for i in range(n))
    base = Faithfulness(
        f_reg=0.2, f_cls=0.99, f_reg_positives=0.4, f_cls_positives=0.95, r2=0.9, images=100,
        positives=10, n_features=n, active=n, dead=0, share=(row,) * targets,
    )  # fmt: skip
    return replace(base, **changes)


def photograph(height=40, width=40, seed=0):
    """A smooth coloured picture with a bright disc, uint8."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    generator = np.random.default_rng(seed)
    disc = np.exp(-((x - generator.random()) ** 2 + (y - generator.random()) ** 2) / 0.02)
    channels = [0.3 + 0.5 * x, 0.6 - 0.3 * y + 0.2 * disc, 0.2 + 0.7 * disc]
    return (255 * np.clip(np.stack(channels, -1), 0, 1)).astype(np.uint8)


def peak(height=40, width=40, row=0.5, column=0.5):
    """A signed map: a sharp positive peak on slightly negative ground; sums to 0."""
    y, x = np.mgrid[0:height, 0:width]
    size = max(height, width)
    bump = np.exp(-((y / size - row) ** 2 + (x / size - column) ** 2) / 0.004)
    return (bump / bump.sum() - 1 / bump.size).astype(np.float32)


def explanation(contributions=((1.0, -2.0, 0.5),), size=(40, 40), **changes):
    """An explanation with E = |v E| of the first target."""
    values = torch.tensor(contributions)
    k, n = values.shape
    intercept = torch.full((k,), 0.25)
    reproduced = values.sum(-1) + intercept
    spots = [peak(*size, row=(i + 1) / (n + 1), column=(i + 1) / (n + 1)) for i in range(n)]
    base = Explanation(
        image=photograph(*size),
        features=values[0].abs(),
        contributions=values,
        intercept=intercept,
        heatmaps=torch.from_numpy(np.stack(spots)),
        logit_heatmaps=torch.from_numpy(np.stack([peak(*size)] * k)),
        targets=tuple(range(4, 4 + k)),
        target_names=tuple(f"bird {i}" for i in range(4, 4 + k)),
        logits=reproduced + 0.1,
        reproduced=reproduced,
        predicted_class=4,
        predicted_name="bird 4",
        feature_names=tuple(f"x-feature {i + 1}" for i in range(n)),
        certificate=CERTIFICATE,
        faithfulness=faithfulness(n, k),
        degenerate=(),
        label="bird 4",
        path="bird/4.jpg",
    )
    return replace(base, **changes)
