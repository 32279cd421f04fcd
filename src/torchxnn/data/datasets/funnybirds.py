"""FunnyBirds: rendered birds of five known parts, with renderings in which parts are missing.

Hesse, Schaub-Meyer and Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
Explainable AI Methods, ICCV 2023.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.official import OfficialDataset
from torchxnn.data.datasets.reading import read_colour_map, read_text, sample_with_mask
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import structure

PARTS = ("beak", "eye", "foot", "tail", "wing")
BODY = len(PARTS) + 1

_PLACEHOLDER = "placeholder"  # stands in the JSON for a part that was left out
_SUFFIXES = (".png", ".webp")  # of the official renderings, and of smaller copies
_BACKGROUND_OBJECTS = 52  # their blue runs from 204 to 255
_MOST_UNKNOWN = 0.25  # share of pixels; a part map with more is none
_COLOURS: dict[tuple[int, int, int], int] = {
    (0, 0, 0): 0,
    (255, 255, 0): 1,
    (255, 255, 253): 2,
    (255, 255, 254): 2,
    (255, 0, 1): 3,
    (255, 0, 2): 3,
    (0, 0, 255): 4,
    (0, 255, 1): 5,
    (0, 255, 2): 5,
    (170, 170, 170): BODY,
    **{(204, 204, 204 + i): BODY + 1 + i for i in range(_BACKGROUND_OBJECTS)},
}
_KNOWN = np.array(sorted(_COLOURS), dtype=np.int64)
_NUMBERS = np.array([_COLOURS[tuple(colour)] for colour in _KNOWN.tolist()])
_DIGITS = np.array([1 << 16, 1 << 8, 1])


_Kind = dict[str, str]  # values by attribute such as model and color


@dataclass(frozen=True)
class _Catalogue:
    beak: list[_Kind]
    eye: list[_Kind]
    foot: list[_Kind]
    tail: list[_Kind]
    wing: list[_Kind]


@dataclass(frozen=True)
class _ClassParts:
    beak: int
    eye: int
    foot: int
    tail: int
    wing: int


@dataclass(frozen=True)
class _Class:
    class_idx: int
    parts: _ClassParts


@dataclass(frozen=True)
class _Classes:
    classes: list[_Class]


@final
class FunnyBirds(OfficialDataset):
    """The birds with the map of their parts, and what is known of every picture.

    Reads `classes.json`, `parts.json`, `dataset_train.json`, `dataset_test.json`, and pictures in
    `train/CLASS/NNNNNN` and `test/CLASS/NNNNNN`, PNG or WebP; NNNNNN is the position in the JSON.
    The pictures of the training split may be a subset. `Sample.masks` comes from
    `SPLIT_part_map/CLASS/NNNNNN.png`, moved into the preprocessed picture by nearest neighbour, and
    is None where that folder is not there. A pixel of a part map whose colour stands for nothing
    (an antialiased edge) takes the number of that of its eight neighbours which is most like it in
    colour, or of the most similar known colour where all neighbours are such pixels.

    Args:
        root: the folder with these files, or the one above (`FunnyBirds` is then looked for); see
            `OfficialDataset` for `preprocessing` and `split`.

    Attributes:
        numbers: the position of every picture in the JSON of its split.
        part_names: beak, eye, foot, tail, wing.
        object_names: by number in `Sample.masks`: background, the five parts, body, and the
            background objects in their order in the JSON.
        kind_names: for each part the names of its kinds, such as "beak04 yellow".
        class_kinds: (classes, 5), the kind of each part that makes a class.
        kinds: (images, 5), the kind of each part that was rendered; -1 where it was left out.
        background_objects: how many of them were placed in the scene of every picture.

    Raises:
        DataError: if a file or a picture is missing, or the JSON is of another shape; the message
            names the file and the entry.
    """

    marks = (frozenset({"classes.json", "parts.json"}), frozenset({"FunnyBirds"}))
    part_names = PARTS
    object_names = (
        "background",
        *PARTS,
        "body",
        *(f"background object {i}" for i in range(_BACKGROUND_OBJECTS)),
    )

    def __init__(self, root: str | Path, preprocessing: Preprocessing, split: str = "all"):
        super().__init__(_find_root(Path(root)), preprocessing, split)
        catalogue = _read_catalogue(self.root / "parts.json")
        self.class_kinds = _read_classes(self.root / "classes.json", catalogue)
        self.classes = tuple(f"bird {index}" for index in range(len(self.class_kinds)))
        self.kind_names = tuple(
            tuple(" ".join(kind.values()).replace(".glb", "") for kind in catalogue[part])
            for part in PARTS
        )
        pictures: list[tuple[str, int]] = []
        numbers, scenes = [], []
        for half in self.halves:
            entries = _read_scenes(self.root / f"dataset_{half}.json", self.class_kinds, catalogue)
            for number, path in sorted(_find_pictures(self.root, half, entries).items()):
                pictures.append((path, entries[number].label))
                numbers.append(number)
                scenes.append(entries[number])
        self._settle(pictures)
        self.numbers = tuple(numbers)
        self.kinds = torch.tensor([scene.kinds for scene in scenes])
        self.background_objects = tuple(scene.background_objects for scene in scenes)

    @property
    def placeholder(self) -> Bool[Tensor, "images 5"]:
        """Which parts were left out of every picture."""
        return self.kinds < 0

    @property
    def agreeing(self) -> Bool[Tensor, "images classes"]:
        """Which classes have all the parts that a picture was rendered with; its own always."""
        same = self.kinds[:, None] == self.class_kinds
        return (same | self.placeholder[:, None]).all(dim=2)

    def shows(self, target: int) -> Bool[Tensor, "images 5"]:
        """Which parts of every picture are there and of the kind that class `target` has."""
        return self.kinds == self.class_kinds[target]

    def load(self, index: int) -> Sample:
        """Read the picture at an index, with the map of its parts."""
        path = self._part_map(index)
        if not path.parents[1].is_dir():
            image = self.preprocessing(read_image(self.root / self.paths[index]))
            return Sample(image, self.labels[index], self.paths[index])
        return sample_with_mask(self, index, self.part_map(index), path)

    def part_map(self, index: int) -> Int64[np.ndarray, "height width"]:
        """What every pixel of a picture shows, as large as the picture; see `object_names`.

        Raises:
            DataError: if the map is missing or broken, or is none.
        """
        path = self._part_map(index)
        return _part_numbers(read_colour_map(path, ("P", "RGBA")), path)

    def _part_map(self, index: int) -> Path:
        half, label, file = self.paths[index].split("/")
        return self.root / f"{half}_part_map" / label / f"{Path(file).stem}.png"

    def rendering(self, index: int, kept: Iterable[str]) -> str | None:
        """The file of a test picture rendered again with some of its parts, if it is there.

        Args:
            index: the picture.
            kept: the parts that are not left out.

        Returns:
            `test_interventions/CLASS/NNNNNN/body_KEPT_PARTS.png` (or .webp), relative to the root.
        """
        return self._intervention(index, "body_" + "_".join(sorted(kept)))

    def without_background_object(self, index: int, number: int) -> str | None:
        """The file of a test picture rendered without one background object, if it is there."""
        return self._intervention(index, f"background_interventions/{number}")

    def _intervention(self, index: int, name: str) -> str | None:
        half, label, file = self.paths[index].split("/")
        stem = f"{half}_interventions/{label}/{Path(file).stem}/{name}"
        files = (f"{stem}{suffix}" for suffix in _SUFFIXES)
        return next((file for file in files if (self.root / file).is_file()), None)


@final
class FunnyBirdsInterventions(ImageDataset):
    """Every test picture rendered again with exactly one part left out.

    Row `image * 5 + part` is the picture `image` of the birds without the part at `part` in
    `part_names`; its label is that of the picture.

    Args:
        birds: the test pictures.

    Raises:
        DataError: if `birds` are not those of the test split, or a rendering is missing.
    """

    part_names = PARTS
    root: Path

    def __init__(self, birds: FunnyBirds):
        if birds.halves != ("test",):
            raise DataError(
                f"only test pictures are rendered again without parts; {birds.name} has the split "
                f"{birds.split!r}: open it with split='test'"
            )
        self.root, self.preprocessing, self.classes = birds.root, birds.preprocessing, birds.classes
        self.name = f"{birds.name} with one part left out"
        self.labels: tuple[int, ...] = tuple(label for label in birds.labels for _ in PARTS)
        paths = []
        for index, picture in enumerate(birds.paths):
            for part in PARTS:
                kept = [other for other in PARTS if other != part]
                path = birds.rendering(index, kept)
                if path is None:
                    folder = f"test_interventions/{birds.labels[index]}/{Path(picture).stem}"
                    raise DataError(
                        f"{picture} without its {part} is missing in {birds.root}: there is no "
                        f"{folder}/body_{'_'.join(kept)}.png or .webp"
                    )
                paths.append(path)
        self.paths = tuple(paths)
        self._wholes = birds.paths

    def load(self, index: int) -> Sample:
        """Read the rendering at an index; there is no part map of it.

        Raises:
            DataError: if it cannot be read or is not as large as the picture with all parts.
        """
        picture, path = self._wholes[index // len(PARTS)], self.paths[index]
        image, whole = read_image(self.root / path), read_image(self.root / picture)
        if image.size != whole.size:
            raise DataError(
                f"{self.root / path} has {image.width} x {image.height} pixels, {picture} with all "
                f"parts {whole.width} x {whole.height}; what goes must be the part alone"
            )
        return Sample(self.preprocessing(image), self.labels[index], path)


def _find_root(root: Path) -> Path:
    for folder in (root, root / "FunnyBirds"):
        if (folder / "classes.json").is_file():
            return folder
    raise DataError(
        f"{root} is not FunnyBirds: there is no classes.json (expected classes.json, parts.json, "
        "dataset_train.json, dataset_test.json, train/ and test/)"
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}, it is no JSON: {error}") from error


def _read_catalogue(path: Path) -> dict[str, list[_Kind]]:
    """The kinds of each part."""
    catalogue = asdict(structure(_read_json(path), _Catalogue, str(path)))
    if not all(catalogue.values()):
        raise DataError(f"{path} lists no kind of some part")
    return catalogue


def _read_classes(path: Path, catalogue: Mapping[str, Sequence[_Kind]]) -> Int64[Tensor, "k 5"]:
    classes = structure({"classes": _read_json(path)}, _Classes, str(path)).classes
    for index, one in enumerate(classes):
        if one.class_idx != index:
            raise DataError(
                f"{path}, entry {index}: expected class_idx {index}, got {one.class_idx}"
            )
        for part, kind in asdict(one.parts).items():
            if not 0 <= kind < len(catalogue[part]):
                raise DataError(
                    f"{path}, entry {index}: {part} {kind} is out of range, parts.json lists "
                    f"{len(catalogue[part])} kinds"
                )
    if not classes:
        raise DataError(f"{path} lists no class")
    return torch.tensor([[getattr(one.parts, part) for part in PARTS] for one in classes])


@dataclass(frozen=True)
class _Scene:
    """What the JSON says of one picture."""

    label: int
    kinds: tuple[int, ...]
    background_objects: int


def _read_scenes(
    path: Path, class_kinds: Int64[Tensor, "k 5"], catalogue: Mapping[str, Sequence[_Kind]]
) -> list[_Scene]:
    entries, classes = _read_json(path), class_kinds.tolist()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: expected a list of entries, one for every picture")
    scenes = []
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        label = entry.get("class_idx")
        if type(label) is not int or not 0 <= label < len(classes):
            raise DataError(f"{where}: class_idx must be 0 to {len(classes) - 1}, got {label!r}")
        kinds = tuple(_kind(entry, part, catalogue[part], where) for part in PARTS)
        for part, kind, own in zip(PARTS, kinds, classes[label], strict=True):
            if kind not in (-1, own):
                raise DataError(
                    f"{where}: {part} is of kind {kind}, that of class {label} is {own} in "
                    "classes.json; do both files come from the same data set?"
                )
        objects = str(entry.get("bg_objects", "")).split(",")
        scenes.append(_Scene(label, kinds, sum(map(bool, objects))))
    return scenes


def _kind(entry: Mapping[str, Any], part: str, kinds: Sequence[_Kind], where: str) -> int:
    """Position among the kinds of a part, or -1 for a part that was left out."""
    found = {name: entry.get(f"{part}_{name}") for name in kinds[0]}
    if all(value == _PLACEHOLDER for value in found.values()):
        return -1
    if found not in kinds:
        text = ", ".join(f"{part}_{name} {value!r}" for name, value in found.items())
        raise DataError(f"{where}: parts.json knows no {part} with {text}")
    return kinds.index(found)


def _find_pictures(root: Path, half: str, scenes: Sequence[_Scene]) -> dict[int, str]:
    """The picture of every entry by number; in the test split also those that are not there."""
    found: dict[int, str] = {}
    for label in sorted({scene.label for scene in scenes}):
        folder = root / half / str(label)
        # Sorted: where a picture is there twice, the PNG, which has lost nothing, comes first.
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if file.suffix not in _SUFFIXES or not file.stem.isdecimal():
                continue
            number = int(file.stem)
            if number >= len(scenes) or scenes[number].label != label:
                entry = f"of class {scenes[number].label}" if number < len(scenes) else "missing"
                raise DataError(
                    f"{file} and dataset_{half}.json do not belong together: entry {number} is "
                    f"{entry}"
                )
            found.setdefault(number, f"{half}/{label}/{file.name}")
    if half == "test":
        suffix = Path(next(iter(found.values()), ".png")).suffix or ".png"
        for number, scene in enumerate(scenes):
            found.setdefault(number, f"test/{scene.label}/{number:06}{suffix}")
    return found


def _part_numbers(
    colours: UInt8[np.ndarray, "height width 3"], path: Path
) -> Int64[np.ndarray, "height width"]:
    codes = colours @ _DIGITS
    known_codes = _KNOWN @ _DIGITS
    places = np.searchsorted(known_codes, codes).clip(max=len(known_codes) - 1)
    known = known_codes[places] == codes
    numbers = np.where(known, _NUMBERS[places], -1)
    if (unknown := 1 - known.mean()) > _MOST_UNKNOWN:
        raise DataError(
            f"{path} is no part map: {unknown:.0%} of its pixels have a colour that stands for no "
            "part"
        )
    rows, columns = np.nonzero(~known)
    own = colours[rows, columns].astype(np.int64)[:, None]
    padded = np.pad(numbers, 1, constant_values=-1)
    around = np.pad(colours.astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    steps = [(row, column) for row in range(3) for column in range(3)]
    near = np.stack([padded[rows + row, columns + column] for row, column in steps], axis=1)
    shades = np.stack([around[rows + row, columns + column] for row, column in steps], axis=1)
    distances = np.where(near >= 0, ((shades - own) ** 2).sum(axis=2), np.iinfo(np.int64).max)
    best = near[np.arange(len(near)), distances.argmin(axis=1)]
    alike = _NUMBERS[((_KNOWN - own) ** 2).sum(axis=2).argmin(axis=1)]
    numbers[rows, columns] = np.where(best >= 0, best, alike)
    return numbers
