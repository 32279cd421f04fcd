"""NYU Depth v2: 1,449 indoor photographs with object masks of 40 classes and scene types.

Silberman, Hoiem, Kohli and Fergus, Indoor Segmentation and Support Inference from RGBD Images,
ECCV 2012. The 40 classes are those of Gupta, Arbelaez and Malik, Perceptual Organization and
Recognition of Indoor Scenes from RGB-D Images, CVPR 2013.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.reading import (
    broken_line,
    check_files,
    find_absent,
    parts_of_split,
    preprocess_with_mask,
    read_class_map,
    read_names,
    read_table,
    select,
)
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing


@final
class NYUDepth(ImageDataset):
    """Indoor frames with their object masks, one file per picture.

    Reads `labels.csv` (columns id, scene, split; others are left alone), `classes.txt` (lines
    `NUMBER NAME` from 0, which is void), `images/ID.jpg` and `masks/ID.png` (the class number of
    every pixel). Pictures are in the order of `labels.csv`. `Sample.masks` is moved into the
    preprocessed picture by nearest neighbour; 0 is void.

    Args:
        root: the folder with these files.
        preprocessing: how pictures become tensors.
        split: "train" or "test" of the official split, or "all".
        scenes: the scene types to keep, in the order of the label indices, such as the classes of
            the explained network ("living room" matches living_room). One that has no picture here
            keeps its index, with a warning; by default all types, sorted by name.

    Attributes:
        ids: the number of every picture as written in `labels.csv`.
        object_names: by class number in `Sample.masks`.
        absent: the scene types in `classes` without a picture in this split.

    Raises:
        DataError: if a file is missing, a line is broken, or none of the scene types is there; the
            message names file and line.
    """

    root: Path
    labels: tuple[int, ...]

    def __init__(
        self,
        root: str | Path,
        preprocessing: Preprocessing,
        split: str = "all",
        scenes: Sequence[str] | None = None,
    ):
        wanted = parts_of_split(split)
        self.root = Path(root)
        self.name = f"{self.root.name or self.root} ({split})"
        self.preprocessing = preprocessing
        self.split = split
        if not (self.root / "labels.csv").is_file():
            raise DataError(
                f"{self.root} is not NYU Depth v2 as expected: there is no labels.csv (expected "
                "labels.csv, classes.txt, images/NNNN.jpg and masks/NNNN.png)"
            )
        self.object_names = read_names(self.root / "classes.txt")
        rows = _read_labels(self.root / "labels.csv")
        selection = select((scene for scene, _ in rows.values()), scenes, str(self.root))
        self.classes = selection.classes
        self.ids = tuple(
            image
            for image, (scene, part) in rows.items()
            if part in wanted and scene in selection.labels
        )
        self.labels = tuple(selection.labels[rows[image][0]] for image in self.ids)
        self.paths = tuple(f"images/{image}.jpg" for image in self.ids)
        check_files(self.root, self.paths)
        check_files(self.root, [f"masks/{image}.png" for image in self.ids], "masks")
        self.absent = find_absent(self.classes, self.labels, self.name, scenes is not None)

    def load(self, index: int) -> Sample:
        """Read the picture at an index, with its object masks."""
        path = self.root / "masks" / f"{self.ids[index]}.png"
        mask = read_class_map(path)
        if mask.max() >= len(self.object_names):
            raise DataError(
                f"{path} has class number {mask.max()}, classes.txt ends at "
                f"{len(self.object_names) - 1}"
            )
        picture = self.root / self.paths[index]
        image, masks = preprocess_with_mask(self.preprocessing, picture, mask, path)
        return Sample(image, self.labels[index], self.paths[index], masks=masks)


def _read_labels(path: Path) -> dict[str, tuple[str, str]]:
    """Scene type and part of the split by the number of the picture."""
    rows: dict[str, tuple[str, str]] = {}
    for line, row in read_table(path, ("id", "scene", "split")):
        image, scene, part = row["id"], row["scene"], row["split"]
        if not image.isdecimal():
            raise broken_line(path, line, "a number as id", image)
        if not scene:
            raise DataError(f"{path}, line {line}: image {image} has no scene type")
        if part not in ("train", "test"):
            raise broken_line(path, line, "train or test as split", part)
        if image in rows:
            raise DataError(f"{path}, line {line}: image {image} is there twice")
        rows[image] = scene, part
    return rows
