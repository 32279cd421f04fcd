"""NYU Depth v2: 1,449 indoor photographs with object masks of 40 classes and scene types.

Silberman, Hoiem, Kohli and Fergus, Indoor Segmentation and Support Inference from RGBD Images,
ECCV 2012. The 40 classes are those of Gupta, Arbelaez and Malik, Perceptual Organization and
Recognition of Indoor Scenes from RGB-D Images, CVPR 2013.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.official import SelectableDataset
from torchxnn.data.datasets.reading import (
    broken_line,
    read_class_list,
    read_class_map,
    read_table,
    sample_with_mask,
)
from torchxnn.errors import DataError


@final
class NYUDepth(SelectableDataset):
    """Indoor frames with their object masks, one file per picture.

    Reads `labels.csv` (columns id, scene, split; others are left alone), `classes.txt` (lines
    `NUMBER NAME` from 0, which is void), `images/ID.jpg` and `masks/ID.png` (the class number of
    every pixel). Pictures are in the order of `labels.csv`. `Sample.masks` is moved into the
    preprocessed picture by nearest neighbour; 0 is void.

    The arguments are those of `SelectableDataset`; the classes are scene types.

    Attributes:
        ids: the number of every picture as written in `labels.csv`.
        object_names: by class number in `Sample.masks`.

    Raises:
        DataError: if a file is missing, a line is broken, or none of the scene types is there; the
            message names file and line.
    """

    marks = (frozenset({"labels.csv", "classes.txt", "masks"}),)

    def _read(self, classes: Sequence[str] | None) -> None:
        if not (self.root / "labels.csv").is_file():
            raise DataError(
                f"{self.root} is not NYU Depth v2 as expected: there is no labels.csv (expected "
                "labels.csv, classes.txt, images/NNNN.jpg and masks/NNNN.png)"
            )
        self.object_names = read_class_list(self.root / "classes.txt")
        found = self._keep(_read_labels(self.root / "labels.csv"), classes)
        self.ids = tuple(image for image, _ in found)
        self._settle(
            ((f"images/{image}.jpg", label) for image, label in found),
            masks=(f"masks/{image}.png" for image in self.ids),
        )

    def load(self, index: int) -> Sample:
        """Read the picture at an index, with its object masks."""
        path = self.root / "masks" / f"{self.ids[index]}.png"
        mask = read_class_map(path, len(self.object_names), "classes.txt")
        return sample_with_mask(self, index, mask, path)


def _read_labels(path: Path) -> list[tuple[str, str, str]]:
    """Number, scene type and half of the split of every picture."""
    rows: dict[str, tuple[str, str, str]] = {}
    for line, row in read_table(path, ("id", "scene", "split")):
        image, scene, half = row["id"], row["scene"], row["split"]
        if not image.isdecimal():
            raise broken_line(path, line, "a number as id", image)
        if not scene:
            raise DataError(f"{path}, line {line}: image {image} has no scene type")
        if half not in ("train", "test"):
            raise broken_line(path, line, "train or test as split", half)
        if image in rows:
            raise DataError(f"{path}, line {line}: image {image} is there twice")
        rows[image] = image, scene, half
    return list(rows.values())
