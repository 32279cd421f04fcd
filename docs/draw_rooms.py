"""Draw the rooms of the package and what imports what: `python docs/draw_rooms.py`.

The rooms stand on a diagonal in the order of the import contract in pyproject.toml. An import runs
to the right from the room that imports and down into the room that is imported; one against the
contract would run to the left and up. tests/test_docs.py checks that the committed drawing is what
this script makes of the source as it is.
"""

import ast
import tomllib
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "torchxnn"
FILE = ROOT / "docs" / "gallery" / "rooms.svg"
WIDTH, HEIGHT, BOX_WIDTH, BOX_HEIGHT, MARGIN = 78, 46, 104, 28, 14
LEFT_OUT = {"errors"}
"""Every room imports it."""


def rooms_in_order() -> list[str]:
    """The rooms from the top down, as the import contract lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [name.strip() for layer in layers for name in layer.split("|")]
    rooms = [name.removeprefix("torchxnn.") for name in names]
    return [room for room in rooms if room not in LEFT_OUT]


def imports() -> set[tuple[str, str]]:
    """Pairs of rooms: the one that imports, and the one that is imported."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchxnn."):
                found.add((room, str(node.module).split(".")[1]))
    return {(first, second) for first, second in found if first != second}


def draw(rooms: list[str], pairs: set[tuple[str, str]]) -> str:
    """The drawing as SVG."""
    centre = {
        room: (MARGIN + BOX_WIDTH // 2 + i * WIDTH, MARGIN + BOX_HEIGHT // 2 + i * HEIGHT)
        for i, room in enumerate(rooms)
    }
    lines, dots, boxes = [], [], []
    for first, second in product(rooms, rooms):
        if (first, second) not in pairs:
            continue
        (x, y), (column, row) = centre[first], centre[second]
        down = 1 if row > y else -1
        start, end = x + down * BOX_WIDTH // 2, row - down * (BOX_HEIGHT // 2 + 5)
        lines.append(f'<path d="M{start} {y}H{column}V{end}" marker-end="url(#head)"/>')
        dots.append(f'<circle cx="{column}" cy="{y}" r="4"/>')
    for room, (x, y) in centre.items():
        corner = f'x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}"'
        boxes.append(f'<rect {corner} width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"/>')
        boxes.append(f'<text x="{x}" y="{y + 4}">{room}</text>')
    x, y = centre[rooms[-1]]
    width, height = x + BOX_WIDTH // 2 + MARGIN, y + BOX_HEIGHT // 2 + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
            "<title>The rooms of torchxnn; a line runs right and down from a room into one that "
            "it imports</title>",
            '<defs><marker id="head" markerWidth="7" markerHeight="7" refX="3" refY="3.5" '
            'orient="auto"><path d="M0 0L7 3.5L0 7Z" fill="#5b6b7b"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            '<g fill="none" stroke="#9aa8b5" stroke-width="1.2">',
            *lines,
            "</g>",
            '<g fill="#5b6b7b">',
            *dots,
            "</g>",
            '<g fill="#e8eef4" stroke="#36597c">',
            *(box for box in boxes if box.startswith("<rect")),
            "</g>",
            '<g fill="#10253a" text-anchor="middle">',
            *(box for box in boxes if box.startswith("<text")),
            "</g>",
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    FILE.write_text(draw(rooms_in_order(), imports()), encoding="utf-8")
