"""Small data sets in exactly the official layouts, for tests of the loaders."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from image_examples import write_noise

NYU_SCENES = [
    ("kitchen", "test"),
    ("bedroom", "train"),
    ("kitchen", "train"),
    ("living_room", "test"),
]
NYU_NAMES = ["void", "wall", "floor", "night_stand"]


def change_line(path: Path, line: int, text: str | None) -> None:
    """Replace a line (from 1) of a text file, or remove it."""
    lines = path.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8)).save(path)


def quarters(*numbers: int, size: int = 80) -> np.ndarray:
    """Four quarters: top left, top right, bottom left, bottom right."""
    half = np.ones((size // 2, size // 2), dtype=np.int32)
    first, second, third, fourth = (number * half for number in numbers)
    return np.block([[first, second], [third, fourth]])


def write_nyu(root: Path) -> Path:
    rows = [f"{i:04},{scene},{split},wall floor" for i, (scene, split) in enumerate(NYU_SCENES, 1)]
    write_lines(root / "labels.csv", ["id,scene,split,classes_ge_1pct", *rows])
    write_lines(root / "classes.txt", [f"{i} {name}" for i, name in enumerate(NYU_NAMES)])
    for number in range(1, len(NYU_SCENES) + 1):
        write_noise(root / f"images/{number:04}.jpg", number)  # 80 x 80
        write_mask(root / f"masks/{number:04}.png", quarters(0, 1, 2, 3))
    return root


def write_places_rooms(root: Path) -> Path:
    rows = [
        "eval/bedroom/Places365_val_00000002.jpg,bedroom,eval,x",
        "train/kitchen/1.jpg,kitchen,train,x",
    ]
    rows += ["train/bedroom/1.jpg,bedroom,train,x", "train/kitchen/2.jpg,kitchen,train,x"]
    write_lines(root / "labels.csv", ["file,class,split,source_path", *rows])
    for row in rows:
        write_noise(root / "images" / row.split(",")[0])
    return root


PLACES_CATEGORIES = ["/b/bathroom", "/b/bedroom", "/c/church/indoor", "/l/living_room"]
PLACES_TRAIN = [
    "/b/bathroom/00000001.jpg 0",
    "/b/bedroom/00000001.jpg 1",
    "/b/bedroom/00000002.jpg 1",
    "/c/church/indoor/00000001.jpg 2",
    "/l/living_room/00000001.jpg 3",
]
PLACES_VAL = ["Places365_val_00000001.jpg 3", "Places365_val_00000002.jpg 1"]


def write_places(root: Path, train: str = "data_256", val: str = "val_256") -> Path:
    categories = [f"{name} {number}" for number, name in enumerate(PLACES_CATEGORIES)]
    write_lines(root / "categories_places365.txt", categories)
    write_lines(root / "places365_train_standard.txt", PLACES_TRAIN)
    write_lines(root / "places365_val.txt", PLACES_VAL)
    for line in PLACES_TRAIN:
        write_noise(root / f"{train}{line.split()[0]}")
    for line in PLACES_VAL:
        write_noise(root / val / line.split()[0])
    return root


ADE_SCENES = [
    ("ADE_train_00000001", "bedroom"),
    ("ADE_train_00000002", "living_room"),
    ("ADE_val_00000001", "bedroom"),
]
ADE_MASKS = {  # class numbers of the quarters, per picture
    "ADE_train_00000001": (0, 3, 2, 1),
    "ADE_train_00000002": (2, 2, 1, 1),
    "ADE_val_00000001": (1, 0, 0, 3),
}


def write_ade_challenge(root: Path) -> Path:
    write_lines(root / "sceneCategories.txt", [f"{name} {scene}" for name, scene in ADE_SCENES])
    rows = [
        "1\t0.1576\t11664\t1172\twall",
        "2 \t0.1072\t6046\t612\tbed ",
        "3\t0.08\t9\t7\tsofa, couch",
    ]
    write_lines(root / "objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tName", *rows])
    for name, _ in ADE_SCENES:
        folder = "training" if "train" in name else "validation"
        write_noise(root / f"images/{folder}/{name}.jpg")
        write_mask(root / f"annotations/{folder}/{name}.png", quarters(*ADE_MASKS[name]))
    return root


ADE_CODES = {1: 2978, 2: 165, 3: 2473}  # official numbers of the release of 2021
ADE_NAMES = {1: "wall", 2: "bed", 3: "sofa, couch, lounge"}


def ade_colours(numbers: tuple[int, ...], instances: tuple[int, ...]) -> np.ndarray:
    """R, G, B of the quarters: class number in R and G, instance in B."""
    codes = quarters(*(ADE_CODES.get(number, 0) for number in numbers))
    return np.stack([codes // 256 * 10, codes % 256, quarters(*instances)], axis=2)


def write_ade_full(root: Path, release: str) -> Path:
    """The release of "2016" or "2021"."""
    for name, scene in ADE_SCENES:
        split = "training" if "train" in name else "validation"
        group = f"ADE/{split}/home_or_hotel" if release == "2021" else f"{split}/{scene[0]}"
        stem = root / "images" / group / scene / name
        write_noise(Path(f"{stem}.jpg"))
        numbers = ADE_MASKS[name]
        objects = [number for number in numbers if number]
        # Every quarter with an object is an instance; B rises with its number, but is not it.
        ranks = tuple(
            30 * sum(map(bool, numbers[: i + 1])) * bool(n) for i, n in enumerate(numbers)
        )
        write_mask(Path(f"{stem}_seg.png"), ade_colours(numbers, ranks))
        write_mask(Path(f"{stem}_parts_1.png"), ade_colours((0, 0, 0, 0), (0, 0, 0, 0)))
        if release == "2016":
            lines = [
                f'{i:03} # 0 # 0 # {ADE_NAMES[n]} # raw # "old, # 1"'
                for i, n in enumerate(objects, 1)
            ]
            write_lines(Path(f"{stem}_atr.txt"), [*lines, '001 # 1 # 0 # handle # handle # ""'])
        else:
            items = [
                {"id": i, "name": ADE_NAMES[n], "name_ndx": ADE_CODES[n]}
                for i, n in enumerate(objects)
            ]
            items.append({"id": 9, "name": "", "name_ndx": 0})
            text = json.dumps({"annotation": {"scene": ["indoor", scene], "object": items}})
            Path(f"{stem}.json").write_text(text)
            write_mask(stem / f"instance_000_{name}.png", quarters(255, 0, 0, 0))
    return root


def idx(values: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, packed by hand."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape)
    return header + values.astype(np.uint8).tobytes()


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 28, 28)), np.arange(count) % 10


def write_mnist(root: Path, zipped: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for seed, (prefix, count) in enumerate([("train", 12), ("t10k", 5)]):
        images, labels = digits(count, seed)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            data = gzip.compress(idx(values)) if zipped else idx(values)
            (root / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}").write_bytes(data)
    return root


CUB_FILES = {
    "images.txt": [
        "1 001.Black_footed_Albatross/one.jpg",
        "2 001.Black_footed_Albatross/two.jpg",
        "3 002.Laysan_Albatross/three.jpg",
    ],
    "classes.txt": ["1 001.Black_footed_Albatross", "2 002.Laysan_Albatross"],
    "image_class_labels.txt": ["1 1", "2 1", "3 2"],
    "train_test_split.txt": ["1 0", "2 1", "3 1"],
    "bounding_boxes.txt": ["1 20.0 10.0 40.0 20.0", "2 0.0 0.0 80.0 80.0", "3 8.5 4.0 16.0 12.0"],
    "parts/parts.txt": ["1 back", "2 left eye"],
    "parts/part_locs.txt": [
        "1 1 40.0 20.0 1",
        "1 2 0.0 0.0 0",
        "2 1 10.0 70.0 1",
        "2 2 80.0 40.0 1",
        "3 1 0.0 0.0 0",
        "3 2 20.0 20.0 1",
    ],
}


def write_cub(root: Path) -> Path:
    for name, lines in CUB_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line} \n" for line in lines))
    for line in CUB_FILES["images.txt"]:
        write_noise(root / "images" / line.split()[1])  # 80 x 80
    return root
