"""The page of the benchmark on birds: its numbers, its failures, and what it draws."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from benchmark_settings import TRAIN
from bird_examples import write_bird_weights, write_birds
from page_examples import Page
from torchxnn.apps.benchmark.class_by_class import Opened, Plan
from torchxnn.apps.benchmark.funnybirds.causes import ask, find_removals
from torchxnn.apps.benchmark.funnybirds.figures import (
    ANSWERS,
    choose_failures,
    clearest_image,
    draw_class,
    name_features,
    outline,
)
from torchxnn.apps.benchmark.funnybirds.page import (
    GROUPS,
    MAIN,
    PUBLISHED,
    group_of,
    losses,
    method_rows,
    strips,
    tables,
    write_page,
)
from torchxnn.apps.benchmark.funnybirds.run import run_funnybirds
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.apps.benchmark.funnybirds.summary import summarise
from torchxnn.apps.benchmark.record import record_task
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tables import number
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.attribution.base import WEAK_MASS
from torchxnn.errors import DataError
from torchxnn.xnn import XNN

CONFIG = BenchmarkConfig(n_features=3, copies=0, map_images=2, masking=False, train=TRAIN)
FEW = TruthConfig(
    refits=0, rules=("excitation_backprop",), official=False, peers=False, bounds=False
)
PARTS = ("beak", "eye", "foot", "tail", "wing")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("birds")
    weights = write_bird_weights(write_birds(root / "data"), root / "weights.safetensors")
    return TaskSource("funnybirds", root / "data", weights, "bird_examples:bird_network", "3")


@pytest.fixture(scope="module")
def ran(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "out"
    summary = summarise(*run_funnybirds(Plan(source, CONFIG, folder, (0, 2)), FEW))
    return folder, json.loads(json.dumps(summary))


@pytest.fixture(scope="module")
def page(ran, source):
    folder, summary = ran
    return Page(write_page(source, summary, CONFIG, FEW, folder))


@pytest.fixture(scope="module")
def opened(ran, source):
    task = TASKS["funnybirds"](source)
    return Opened(task, record_task(task, 0, ran[0]), CONFIG, ran[0])


class TestPage:
    def test_numbers_are_those_of_the_results(self, ran, page):
        _, summary = ran
        for name, values in summary["methods"].items():
            row = page.source.split(f'<th scope="row"><bdi>{name}</bdi></th>')[1].split("</tr>")[0]
            shown = re.findall(r"<td><span[^>]*>([^< ]+)", row)
            assert shown == [number(values.get(figure)) for figure in MAIN]
        for low, high in (
            each["r2"] for each in summary["intervals"].values() if each.get("r2") is not None
        ):
            assert f"{low:.3f} to {high:.3f}" in page.text

    def test_every_class_is_drawn_once_and_failures_name_theirs(self, ran, page):
        _, summary = ran
        shown = [attrs["aria-label"] for attrs in page.all("div") if "aria-label" in attrs]
        about = [label for label in shown if label.startswith("What the x-features of")]
        assert sorted(about) == [f"What the x-features of bird {each} are about" for each in (0, 2)]
        cards = [attrs["id"] for attrs in page.all("section") if attrs.get("class") == "card"]
        chosen = {failure.target for failure in choose_failures(summary)}
        assert sorted(cards) == sorted(f"bird-{target}" for target in chosen)
        for failure in choose_failures(summary):
            assert failure.says in page.text

    def test_pictures_are_described_and_nothing_is_requested(self, page):
        images = page.all("img")
        # whole image and three maps, and two pictures of each of five parts, of two classes
        assert len(images) == 2 * (1 + 3 + 2 * 5)
        assert all(image["alt"] and image["src"].startswith("data:image/") for image in images)
        outside = [
            value
            for _, attrs in page.tags
            for key, value in attrs.items()
            if key in ("src", "href", "srcset") and not value.startswith(("data:", "#"))
        ]
        assert outside == []
        assert page.all("script") == page.all("link") == []
        assert all("style" not in attrs for _, attrs in page.tags)  # the policy forbids it
        anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        assert {link["href"][1:] for link in page.all("a")} <= anchors

    def test_it_says_where_it_comes_from(self, page, source):
        assert "weights.safetensors, fingerprint" in page.text
        assert str(source.root) not in page.source
        assert "Apache License 2.0" in page.text
        assert "Nothing was tested" not in page.text

    def test_names_are_escaped_and_a_page_is_written_whole(self, ran, source, tmp_path):
        folder, summary = ran
        summary = json.loads(json.dumps(summary))
        for record in summary["classes"].values():
            record["name"] = "<b>bird & co</b>"
        shutil.copytree(folder, tmp_path / "out")
        path = write_page(source, summary, CONFIG, FEW, tmp_path / "out")
        assert "<b>" not in path.read_text()
        assert "&lt;b&gt;bird &amp; co&lt;/b&gt;" in path.read_text()
        before = path.read_bytes()
        shutil.rmtree(saved_xnn(tmp_path / "out", 2, "XNN"))
        with pytest.raises(DataError, match=r"XNN of class 2 is missing.*0002\.json"):
            write_page(source, summary, CONFIG, FEW, tmp_path / "out")
        assert path.read_bytes() == before

    def test_the_protocol_stands_beside_published_scores(self, ran):
        _, summary = ran
        assert tables(summary)["official"] == []
        scores = {f"official_{name}": 0.5 for name in ("completeness", "correctness")}
        scores |= {"official_contrastivity": 0.6, "official_mean": 0.533, "composed_share": 0.25}
        methods = summary["methods"] | {"1-heatmap, grad_cam": scores}
        methods["XNN"] = methods["XNN"] | scores
        found = tables(summary | {"methods": methods, "not_drawn": {"deep_lift": "no rule"}})
        groups = {group: dict(members) for group, members in found["official"]}
        assert list(groups) == [PUBLISHED, *GROUPS[:2]]
        published = groups[PUBLISHED]["Input x Gradient, ResNet-50"]
        assert [cell.text for cell in published] == ["0.583", "0.546", "0.806", "0.645"]
        shown = [cell.text for cell in groups[GROUPS[1]]["1-heatmap, grad_cam"]]
        assert shown == ["0.500", "0.500", "0.600", "0.533"]
        assert "0.250 of the images" in found["official_notes"][0]
        assert found["official_notes"][-1] == "deep_lift draws no map: no rule"


class TestDrawing:
    def test_a_figure_says_what_the_network_and_the_xnn_do(self, ran, opened):
        folder, summary = ran
        record = summary["classes"]["2"]
        figure = draw_class(opened, 2, record, FEW)
        rows = opened.task.positives(2)
        at = next(at for at, row in enumerate(rows) if opened.task.located[row].path == figure.path)
        xnn = XNN.from_pretrained(saved_xnn(folder, 2, "XNN"), model=opened.task.model)
        answers = ask(xnn.fitted(), find_removals(opened.recorded, rows, 2, 5))
        whole = opened.task.located[rows[at]]
        maps = (
            xnn.attribute(whole.image.unsqueeze(0), "excitation_backprop").clamp(min=0)[0].double()
        )
        assert [row.part for row in figure.rows] == list(PARTS)
        for part, row in enumerate(figure.rows):
            removed = opened.task.removals[rows[at] * 5 + part].image
            images = torch.stack([whole.image, removed])
            with torch.no_grad():
                logits = opened.task.model(images)[:, 2]
            assert row.cause == pytest.approx(float(logits[0] - logits[1]), abs=1e-3)
            assert row.changes == answers.changes[at, part].tolist()
            assert sum(row.changes) == pytest.approx(row.reproduced, abs=1e-3)
            assert row.profile == [each[part] for each in record["profiles"]["XNN"]]
            inside = maps[:, whole.masks == part + 1].sum(1) / maps.sum((1, 2)).clamp(min=1e-300)
            assert row.on_part == pytest.approx(inside.tolist(), abs=1e-4)
            assert row.without.shape == row.outlined.shape == figure.picture.shape
            assert (row.outlined != figure.picture).any() == row.visible
        for column, mass in zip(figure.columns, maps.sum((1, 2)).tolist(), strict=True):
            assert column.mass == pytest.approx(mass, rel=1e-3, abs=1e-9)
            assert column.weak == (column.mass < WEAK_MASS)
            assert (
                column.matched is None
                or figure.rows[column.matched].profile[figure.columns.index(column)] > 0
            )
        assert figure.largest == max(abs(v) for row in figure.rows for v in row.changes)
        flat = [abs(value) for row in figure.rows for value in row.profile]
        assert figure.level(max(flat)) == 8
        assert figure.level(0.0) == 0

    def test_the_image_with_the_clearest_hidden_part(self):
        masks = torch.zeros(3, 4, 5, dtype=torch.int64)
        for image, tail in enumerate((1, 3, 2)):
            for part in range(5):
                masks[image, : tail if part == 3 else 4, part] = part + 1
        assert clearest_image(masks) == 1
        masks[:, :, 0] = 0  # no beak anywhere
        assert clearest_image(masks) == 0

    def test_an_outline_lies_around(self):
        inside = np.zeros((7, 7), bool)
        inside[3, 3] = True
        changed = (outline(np.zeros((7, 7, 3), np.uint8), inside) > 0).any(2)
        assert not changed[3, 3]
        assert changed[3, 2]
        assert changed[1, 3]
        assert not changed[3, 0]
        assert not (outline(np.zeros((7, 7, 3), np.uint8), inside & False) > 0).any()

    def test_names_by_hand(self):
        one, none = name_features([[1.0, -4.0, 3.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0, 0.0]])
        assert (one.part, one.share, str(one)) == (2, 0.75, "foot, 75%")
        assert (none.part, none.share, str(none)) == (None, 0.0, "no part")


def record(specificity=0.5, map_truth=0.5, r2=0.9, features=(), profiles=()):
    figures = {"specificity": specificity, "map_truth": map_truth, "intervention_r2": r2}
    return {
        "methods": {"XNN": figures, "random directions": {"specificity": specificity / 2}},
        "rules": {},
        "refits": {"recovery": [], "specificity": []},
        "profiles": {"XNN": list(profiles)},
        "concepts": {},
        "features": [
            {"moves": moves, "background": background, "positive_mass": 0.1}
            for moves, background in features
        ],
    }


class TestFailures:
    def test_the_worst_of_each_by_hand(self):
        about = [[4.0, 0.0, 0.0, 0.0, 6.0], [1.0] * 5, [5.0, 0.0, 0.0, 0.0, 0.0]]
        assert max(about[1]) / sum(about[1]) < ANSWERS
        summary = summarise(
            {
                "3": record(specificity=0.3, map_truth=0.4),
                "5": record(map_truth=None, r2=0.8),
                "8": record(
                    map_truth=-0.1,
                    r2=0.8,
                    # all of the second lies beside the bird, but it answers to nothing
                    features=[(True, 0.6), (True, 1.0), (False, 0.9)],
                    profiles=about,
                ),
            },
            {},
        )
        found = choose_failures(summary)
        assert [failure.target for failure in found] == [3, 8, 5, 8]
        assert "0.300 (mean 0.433; 0.20" in found[0].says
        assert "70% of what" in found[0].says
        assert "correlate at -0.100 (mean 0.150)" in found[1].says
        assert "R² of the change 0.800 (mean 0.833)" in found[2].says
        assert "x-feature 1 answers to a part" in found[3].says
        assert "60% of what" in found[3].says
        assert "without the wing, but 60% of" in found[3].says
        assert "most of 1 x-features" in found[3].says

    def test_what_does_not_exist_is_left_out(self):
        summary = summarise({"0": record(map_truth=None), "1": record(map_truth=None)}, {})
        assert [failure.target for failure in choose_failures(summary)] == [0, 0]


class TestTables:
    def test_groups(self):
        names = ("XNN", "1-heatmap", "PCA", "ICA", "labels, linear", "random directions")
        assert [group_of(name) for name in names] == list(GROUPS)
        assert group_of("XNN, maps") == GROUPS[0]
        assert group_of("1-heatmap, grad_cam") == GROUPS[1]
        assert group_of("TCAV") == GROUPS[4]
        assert group_of("most relevant units") == GROUPS[3]

    def test_the_best_explanation_is_marked_and_ceilings_never_are(self):
        values = {"XNN": 0.4, "PCA": 0.5, "labels, linear": 0.9, "random directions": 0.95}
        summary = {
            "methods": {
                name: {"specificity": value, "background": value} for name, value in values.items()
            },
            "intervals": {name: {} for name in values},
        }
        marked = {
            (name, figure)
            for _, members in method_rows(summary, ("specificity", "background"))
            for name, cells in members
            for figure, cell in zip(("specificity", "background"), cells, strict=True)
            if cell.best
        }
        assert marked == {("PCA", "specificity"), ("XNN", "background")}

    def test_what_is_lost_comes_first(self):
        def test(figure, other, difference, p):
            higher = 17 if difference > 0 else 3  # of 20 classes
            counts = {"classes": 20, "higher": higher, "lower": 20 - higher}
            return {"figure": figure, "other": other, "p": p, "p_holm": p, **counts}

        tests = [
            test("r2", "PCA", 0.1, 0.01),  # won
            test("specificity", "PCA", -0.1, 0.2),
            test("background", "PCA", 0.1, 0.01),  # less is better
            test("background", "labels, linear", 0.1, 0.01),
        ]
        values = {"r2": 0.5, "specificity": 0.4, "background": 0.7}
        methods = dict.fromkeys(("XNN", "PCA", "labels, linear"), values)
        found = losses({"tests": tests, "methods": methods})
        assert [entry["figure"] for entry in found] == ["on the background", "specificity"]
        assert [other["name"] for other in found[0]["lost"]] == ["PCA", "labels, linear"]
        assert [other["labels"] for other in found[0]["lost"]] == [False, True]
        assert [other["p"] for other in found[1]["undecided"]] == ["0.2"]

    def test_mass_is_shown_where_it_is_a_share(self, ran):
        _, summary = ran
        values = {"map_truth": 0.5, "positive_mass": 0.25}
        rules = {"XNN": {"excitation_backprop": values, "occlusion": values}}
        shown = [[row[1], row[2], row[-1]] for row in tables(summary | {"rules": rules})["rules"]]
        assert shown[0] == ["excitation_backprop", "0.500", "0.250"]
        assert shown[1] == ["occlusion", "0.500", number(None)]

    def test_strips_by_hand(self):
        summary = summarise({"0": record(specificity=0.4), "1": record(specificity=0.8)}, {})
        low, high, drawn = strips(summary, "specificity")
        assert (low, high) == (0, 0.8)
        assert [strip.method for strip in drawn] == ["XNN", "random directions"]
        assert drawn[0].classes == [50, 100]
        assert drawn[0].at == pytest.approx(75)
        assert drawn[1].classes == [25, 50]
