"""2,624 photographs of solar cells from the PyPI package `elpv-dataset`, functional to defective.

Electroluminescence pictures of 44 solar modules, 300 x 300 pixels, grey. Experts gave every cell a
probability of being defective: 0, 1/3, 2/3 or 1.
"""

from collections import defaultdict
from importlib import resources
from importlib.resources.abc import Traversable
from typing import final

import numpy as np

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.images import read_image
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

LICENCE = (
    "Solar cell images: elpv-dataset, CC BY-NC-SA 4.0 "
    "(https://creativecommons.org/licenses/by-nc-sa/4.0/), not for commercial use."
)
CITATION = (
    "Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells in "
    "Electroluminescence Imagery, EU PVSEC 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15; "
    "Deitsch et al., Automatic classification of defective photovoltaic module cells in "
    "electroluminescence images, Solar Energy 185, 2019, doi:10.1016/j.solener.2019.02.067; "
    "Deitsch et al., Segmentation of photovoltaic module cells in uncalibrated "
    "electroluminescence images, Machine Vision and Applications 32(4), 2021, "
    "doi:10.1007/s00138-021-01191-9"
)


@final
class ELPV(ImageDataset):
    """The solar cells, read from the installed package when they are asked for.

    A cell is "defective" (1) if its probability is above `threshold`, else "functional" (0).

    Attributes:
        probabilities: of being defective, per cell: 0, 1/3, 2/3 or 1.
        types: "mono" or "poly" (crystalline), per cell.
        folder: of the package's data, which `paths` start from.

    Raises:
        DataError: if the package is not installed or not as expected.
    """

    labels: tuple[int, ...]

    def __init__(self, preprocessing: Preprocessing, threshold: float = 0.5):
        if not 0 <= threshold < 1:
            raise DataError(f"threshold must be at least 0 and below 1, got {threshold}")
        self.folder = _package_data()
        self.name = "elpv"
        self.preprocessing = preprocessing
        self.classes = ("functional", "defective")
        self.paths, self.probabilities, self.types = _read_labels(self.folder / "labels.csv")
        self.labels = tuple(int(probability > threshold) for probability in self.probabilities)

    def load(self, index: int) -> Sample:
        """Read the cell at an index."""
        path = self.paths[index]
        image = self.preprocessing(read_image(self.folder / path))
        return Sample(image, self.labels[index], path)

    def sure(self) -> tuple[int, ...]:
        """Indices of the cells whose label the experts were sure of (probability 0 or 1)."""
        return tuple(i for i, chance in enumerate(self.probabilities) if chance in (0.0, 1.0))

    def stratified(self, count: int, seed: int = 0) -> tuple[int, ...]:
        """Indices of `count` cells, drawn so that every probability and type keeps its share.

        Shuffled; the same seed gives the same cells. Prefixes and slices of the result are close to
        stratified too, since the groups are interleaved: split it by slicing.

        Raises:
            DataError: if there are not that many cells.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"count must be 1 to {len(self)}, got {count}")
        groups: dict[tuple[float, str], list[int]] = defaultdict(list)
        for index, key in enumerate(zip(self.probabilities, self.types, strict=True)):
            groups[key].append(index)
        random = np.random.default_rng(seed)
        placed: list[tuple[float, int]] = []
        for key in sorted(groups):
            members = random.permutation(groups[key])
            # Even spacing with a random start: any slice holds each group in proportion.
            positions = (np.arange(len(members)) + random.random()) / len(members)
            placed.extend(zip(positions.tolist(), members.tolist(), strict=True))
        return tuple(index for _, index in sorted(placed)[:count])


def _package_data() -> Traversable:
    try:
        folder = resources.files("elpv_dataset") / "data"
    except ModuleNotFoundError as error:
        raise DataError(
            "the solar cells are not installed: pip install 'torchxnn[demo]'"
        ) from error
    if not (folder / "labels.csv").is_file():
        raise DataError(
            f"the installed elpv-dataset has no {folder / 'labels.csv'}: "
            "pip install --force-reinstall 'elpv-dataset>=1.0.0.post1'"
        )
    return folder


def _read_labels(file: Traversable) -> tuple[tuple[str, ...], tuple[float, ...], tuple[str, ...]]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            path, probability, kind = line.split()
            rows.append((path, float(probability), kind))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: expected path, probability, type") from error
    if not rows:
        raise DataError(f"{file} is empty")
    paths, probabilities, kinds = zip(*rows, strict=True)
    return paths, probabilities, kinds
