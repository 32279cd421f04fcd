"""Draw the picture at the top of the README: a digit, its x-features, their names, the sentence.

Handwritten digits and the small network of `docs_gallery.py`. Run from the repository:

    python perf/docs_readme.py

It writes `docs/gallery/readme.webp`; about half a minute on one core. The names were given by us,
after looking at what the x-features light up on test images; an x-feature that we could not name
keeps its number.
"""

import argparse
import runpy
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from torchxnn import XNN
from torchxnn.explanations.drawing.canvas import figure_bytes
from torchxnn.explanations.drawing.html import halves
from torchxnn.explanations.drawing.overlay import INK, MUTED, heatmap_over

LIMITS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("docs_limits.py")))
FOUR, SHOWN = 4, 1
NAMES = {0: "corner and crossing", 1: "arm at the right", 2: "arm at the left"}


def main(docs: Path, epochs: int = 8) -> None:
    """Train, fit, name, draw."""
    torch.set_num_threads(1)
    digits = LIMITS["Digits"](*LIMITS["GALLERY"]["train_network"](epochs))
    xnn = digits.fit(FOUR)
    for feature, name in NAMES.items():
        xnn.names = xnn.names.judge(feature, name, who="the authors")
    figure = picture(xnn, digits.of(FOUR)[SHOWN])
    file = docs / "gallery" / "readme.webp"
    LIMITS["GALLERY"]["save_webp"](figure_bytes(figure, "png", 130), file)


def picture(xnn: XNN, image: torch.Tensor) -> Figure:
    """One image, the heatmap of its logit, and those of its x-features, largest first."""
    found = xnn.explain(image)
    bare = (image.permute(1, 2, 0) * 255).round().byte().numpy()
    order = found.contributions[0].argsort(descending=True).tolist()
    panels = [("image", "", bare)]
    panels += [("the whole logit", f"{found.logits[0]:.2f}", found.logit_heatmaps[0])]
    panels += [
        (found.feature_names[i], f"{found.contributions[0, i]:+.2f}", found.heatmaps[i])
        for i in order
    ]
    figure = Figure(figsize=(9.8, 2.3))
    figure.text(0.012, 0.9, halves(found.sentence())[0] + " ...", fontsize=9.5, color=INK)
    for axes, (name, value, shown) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(shown if shown is bare else heatmap_over(bare, shown.numpy()))
        axes.set_title(f"{name}\n{value}", fontsize=8, color=INK if value else MUTED)
        axes.set_axis_off()
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.0, top=0.72, wspace=0.06)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    main(parser.parse_args().docs)
