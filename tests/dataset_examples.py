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


BIRD_PARTS = {
    "beak": [{"model": f"beak0{i}.glb", "color": "yellow"} for i in (1, 2)],
    "eye": [{"model": "eye01.glb"}, {"model": "eye02.glb"}],
    "foot": [{"model": "foot01.glb"}, {"model": "foot02.glb"}],
    "tail": [{"model": "tail01.glb", "color": colour} for colour in ("red", "green")],
    "wing": [{"model": "wing01.glb", "color": colour} for colour in ("red", "blue")],
}
BIRD_CLASSES = [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 1, 1, 1, 1), (0, 0, 1, 1, 0)]
BIRD_BACKGROUND = (120, 140, 160)
# Where things lie in a picture of 32 x 32 (top, bottom, left, right), far things first, with the
# shade of each kind and the colours in the part map.
BIRD_THINGS = {
    "object 0": ((1, 7, 1, 7), [(200, 30, 60)], (204, 204, 204)),
    "object 1": ((4, 10, 24, 31), [(30, 200, 60)], (204, 204, 205)),
    "body": ((10, 24, 10, 22), [(128, 128, 128)], (170, 170, 170)),
    "tail": ((18, 26, 2, 12), [(250, 10, 10), (10, 250, 10)], (0, 0, 255)),
    "foot": ((24, 31, 13, 16), [(90, 60, 20), (60, 20, 90)], (255, 0, 1)),
    "wing": ((13, 20, 12, 19), [(220, 40, 40), (40, 40, 220)], (0, 255, 2)),
    "beak": ((12, 15, 21, 28), [(240, 220, 30), (210, 180, 80)], (255, 255, 0)),
    "eye": ((11, 13, 17, 20), [(10, 10, 10), (250, 250, 250)], (255, 255, 254)),
}


def draw_bird(kinds: dict[str, int], part_map: bool = False) -> Image.Image:
    """A bird with the given kinds of parts, on background objects 0 and 1 where they are named."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:] = 0 if part_map else BIRD_BACKGROUND
    for thing, ((top, bottom, left, right), shades, code) in BIRD_THINGS.items():
        if thing == "body" or thing in kinds:
            shade = shades[kinds.get(thing, 0)]
            pixels[top:bottom, left:right] = code if part_map else shade
    return Image.fromarray(pixels)


def bird_entry(label: int, kinds: dict[str, int], objects: int = 2) -> dict[str, object]:
    entry: dict[str, object] = {"class_idx": label, "camera_distance": 300}
    for part, choices in BIRD_PARTS.items():
        for name in choices[0]:
            value = choices[kinds[part]][name] if part in kinds else "placeholder"
            entry[f"{part}_{name}"] = value
    return entry | {"bg_objects": "".join(f"{i}," for i in range(objects)), "bg_radius": "100,"}


def write_funnybirds(
    root: Path,
    suffix: str = ".png",
    alpha: bool = False,
    classes: list[tuple[int, ...]] = BIRD_CLASSES,
) -> Path:
    """Four classes; two test pictures each, and of three training pictures each the first two.

    The first training picture of a class lacks beak and eye. Interventions are those without one
    part and without all.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "parts.json").write_text(json.dumps(BIRD_PARTS))
    wholes = [dict(zip(BIRD_PARTS, kinds, strict=True)) for kinds in classes]
    listed = [{"class_idx": label, "parts": kinds} for label, kinds in enumerate(wholes)]
    (root / "classes.json").write_text(json.dumps(listed))

    def write(image: Image.Image, name: str, suffix: str = suffix) -> None:
        path = root / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if suffix == ".webp" else {}
        image.convert("RGBA" if alpha else "RGB").save(path, **options)

    for half, count in (("train", 3), ("test", 2)):
        entries = []
        for label, whole in enumerate(wholes):
            for copy in range(count):
                lacking = ("beak", "eye") if half == "train" and copy == 0 else ()
                kinds = {part: kind for part, kind in whole.items() if part not in lacking}
                entries.append(bird_entry(label, kinds))
                scene = kinds | {"object 0": 0, "object 1": 0}
                name = f"{label}/{len(entries) - 1:06}"
                if copy < 2:
                    write(draw_bird(scene), f"{half}/{name}")
                    write(draw_bird(scene, part_map=True), f"{half}_part_map/{name}", ".png")
                for removed in (*([part] for part in BIRD_PARTS), [*BIRD_PARTS]):
                    if half == "test":
                        kept = {key: kind for key, kind in scene.items() if key not in removed}
                        body = "_".join(part for part in BIRD_PARTS if part in kept)
                        write(draw_bird(kept), f"test_interventions/{name}/body_{body}")
        (root / f"dataset_{half}.json").write_text(json.dumps(entries))
    return root
