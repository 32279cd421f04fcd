"""Pages of the reference: one per subject of a room, made when the site is built.

A room's page (`docs/api/metrics.md`) gets a list of its subjects, each name with the first
sentence of its docstring; a subject's page (`api/metrics/masking.md`) the same list of its own
names, and below it what mkdocstrings writes. A name is on the page of the module that its room
takes it from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Alias, GriffeLoader, Object, load_extensions
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
XNN_PAGES = {
    "use": (
        "Explain, attribute, evaluate",
        "explain explain_text explain_row attribute attributor evaluate measure",
    ),
    "numbers": (
        "X-features and contributions",
        "run run_with_maps forward feature_maps contributions intercept predict encode embed "
        "readout_weight fitted",
    ),
    "names": (
        "Names of x-features and classes",
        "names feature_names name_feature adopt_names target_name class_name",
    ),
}
"""By page: a title, and the methods of `XNN` that are on it; all others stay with the class."""
SUBJECTS = {
    "explanations": {
        "images": ("Explanations of images", "base image sentences"),
        "others": ("Texts, rows, volumes", "text_table volume saved_result"),
        "contrast": ("Why A and not B", "contrast"),
        "names": ("Names", "names"),
        "drawing": ("Figures and maps", "drawing maps"),
    },
    "training": {
        "settings": ("Settings", "config"),
        "fit": ("One fit", "fit losses report"),
        "many": ("Many classes", "many class_results"),
    },
    "embeddings": {
        "base": ("What all embeddings have in common", "apply base dimensions kinds"),
        "srae": ("The paper's embedding, and that of maps", "srae conv_srae"),
        "components": ("Independent components", "components ica"),
        "concepts": ("Concepts of others: NMF, PCA, directions", "concepts directions nmf pca"),
        "lasso": ("Lasso", "lasso"),
        "topk_sae": ("Sparse autoencoder", "topk_sae"),
    },
    "attribution": {
        "base": ("What all methods have in common", "base methods"),
        "tokens_and_rows": ("Tokens, rows, random weights", "tokens_and_rows sanity"),
        "excitation_backprop": ("Excitation backprop", "excitation_backprop effective_weights"),
        "captum": ("Methods of Captum", "captum_methods"),
        "hidden_parts": ("By hiding parts", "removal rise"),
    },
    "metrics": {
        "table": ("The table of metrics", "table"),
        "faithfulness": ("Faithfulness", "faithfulness among_positives"),
        "maps": ("Where maps lie, and whether they differ", "locality orthogonality"),
        "parts": ("Maps and the parts of an object", "part_weights pointing"),
        "masking": ("Images of which a part is hidden", "config masking"),
        "insertion_deletion": ("X-features taken away and put back", "insertion_deletion"),
        "stability": ("Stability", "stability"),
        "ground_truth": ("Removed parts", "ground_truth"),
        "funnybirds": ("The protocol of FunnyBirds", "funnybirds_protocol funnybirds_scores"),
        "planted": ("Planted truth", "map_truth planted"),
        "statistics": ("Intervals, tests, agreement", "agreement intervals"),
    },
    "data": {
        "activations": ("Activations in memory", "activations config"),
        "cache": ("The activation cache", "activation_cache"),
        "record": ("Record activations", "record"),
        "removals": ("Images of which parts were removed", "removals datasets.funnybirds"),
        "folders": (
            "Folders of images",
            "datasets.augment datasets.class_order datasets.folder datasets.images",
        ),
        "base": ("What all data sets have in common", "datasets.base datasets.open"),
        "published": (
            "Published data sets",
            "datasets.ade20k datasets.cub datasets.elpv datasets.mnist datasets.nyu "
            "datasets.places365",
        ),
        "planted": ("Planted shapes", "datasets.planted"),
    },
    "models": {
        "load": ("Networks, layers, preprocessing", "layer_list load preprocessing"),
        "examination": ("What is examined", "examination hooks weights"),
        "planted": ("The planted network", "planted"),
    },
    "apps": {
        "heatmaps": ("Heatmaps of a whole data set", "heatmaps"),
        "what_if": (
            "What if: one image",
            "what_if.change what_if.config what_if.one_image what_if.result",
        ),
        "what_if_table": ("What if: many images", "what_if.table"),
        "report": ("Reports", "report"),
        "atlas": ("Atlases", "atlas"),
    },
}
"""By room and page: a title, and the modules whose names are on it."""


@dataclass(frozen=True)
class Subject:
    """A page of the reference; `names` are paths such as `torchxnn.metrics.Pointing`."""

    room: str
    page: str
    title: str
    names: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its place below `docs/`."""
        return f"api/{self.room}/{self.page}.md"

    def text(self) -> str:
        """The page: a list that links down, then everything about each name."""
        whose = f"In `{self.names[0].rpartition('.')[0]}`:"
        if self.room == "xnn":
            whose = "Methods and properties of [`XNN`](../xnn.md):"
        listed = "\n".join(_line(name, "") for name in self.names)
        all_of_each = (f"::: {name}" for name in self.names)
        return "\n\n".join([f"# {self.title}", whose, listed, *all_of_each]) + "\n"


@cache
def _package() -> Object | Alias:
    extensions = load_extensions(str(DOCS / "griffe_extension.py"))
    loader = GriffeLoader(extensions=extensions, search_paths=[str(DOCS.parent / "src")])
    package = loader.load("torchxnn")
    loader.resolve_aliases()
    return package


def _object(path: str) -> Object | Alias:
    return _package()[path.removeprefix("torchxnn.")]


def _line(name: str, place: str, anchor: bool = False) -> str:
    """An item of a list: the name, linked, and the first sentence of its docstring."""
    docstring = _object(name).docstring
    said = docstring.value.partition("\n\n")[0].replace("\n", " ") if docstring else ""
    mark = f'<span id="{name}"></span>' if anchor else ""
    return f"- {mark}[`{name.rpartition('.')[2]}`]({place}#{name}): {said}"


def public_names(room: str) -> Iterator[tuple[str, str]]:
    """What users may import from a room: its path, and where in the room it comes from."""
    found = _package()[room]
    apps = {modules.partition(".")[0] for _, modules in SUBJECTS["apps"].values()}
    for each in [found[app] for app in sorted(apps)] if room == "apps" else [found]:
        for name in each.exports:
            path = f"{each.path}.{name}"
            if each[name].is_module:  # a function that has the name of its module
                path = origin = f"{path}.{name}"
            else:
                origin = each[name].target_path
            yield path, origin.removeprefix(f"torchxnn.{room}.")


def subjects(room: str) -> list[Subject]:
    """The pages of a room; those without any have one page, `docs/api/ROOM.md`."""
    if room == "xnn":
        return [
            Subject(room, page, title, tuple(f"torchxnn.XNN.{name}" for name in names.split()))
            for page, (title, names) in XNN_PAGES.items()
        ]
    public = list(public_names(room)) if room in SUBJECTS else []
    found = []
    for page, (title, modules) in SUBJECTS.get(room, {}).items():
        starts = tuple(f"{module}." for module in modules.split())
        names = tuple(name for name, defined in public if defined.startswith(starts))
        found.append(Subject(room, page, title, names))
    return found


def on_config(config: Any) -> Any:
    """Put the pages of each room below it in the navigation."""
    (reference,) = (section["Reference"] for section in config.nav if "Reference" in section)
    (rooms,) = (entry["Rooms"] for entry in reference if "Rooms" in entry)
    rooms[:] = [_with_subjects(entry) for entry in rooms]
    return config


def _with_subjects(entry: dict[str, str]) -> dict[str, Any]:
    ((title, file),) = entry.items()
    found = subjects(Path(file).stem)
    if not found:
        return entry
    return {title: [{"What there is": file}, *({one.title: one.file} for one in found)]}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of subjects."""
    for room in ("xnn", *SUBJECTS):
        for one in subjects(room):
            files.append(File.generated(config, one.file, content=one.text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """List the subjects on a room's page; links to a name on it, made before, lead to its line."""
    path = Path(page.file.src_uri)
    if path.parent.name != "api":
        return markdown
    listed = ""
    for one in subjects(path.stem):
        place = f"{one.room}/{one.page}.md"
        lines = [_line(name, place, anchor=True) for name in one.names]
        listed += "\n".join([f"\n\n## [{one.title}]({place})\n", *lines])
    head, mark, rest = markdown.partition("\n::: ")
    return f"{head}{listed}\n{mark}{rest}"
