"""`xnn study init`, `demo`, `simulate` and `export` as a user runs them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

import study_browser as b
from cli_examples import FAST, text_of, write_letters
from study_plan import write_tiny_study
from torchxnn.apps.saved_xnn import open_run
from torchxnn.apps.study.config import StudyConfig
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Limits, StudySettings
from torchxnn.apps.study.simulate import SimulationConfig, simulate
from torchxnn.apps.study.texts import default_texts, read_consent, read_texts, render_consent
from torchxnn.cli.main import main
from torchxnn.data.datasets.images import read_image
from torchxnn.errors import DataError

EXAMPLE = Path(__file__).parents[3] / "examples" / "study" / "birds_and_cells.yaml"

SETTINGS = {
    "title": "Letters",
    "seed": 5,
    "sets": 3,
    "images_per_set": 4,
    "data_sets": [{"key": "letters", "name": "Letters", "xnn": "run", "images": "images"}],
}


def fit(path, out, *targets):
    """`xnn fit` on the pictures in a folder."""
    network = ["cli_examples:small_network", str(path / "images"), "--layer", "classifier.1"]
    assert main(["fit", *network, "--target", *targets, "--out", str(out), *FAST]) == 0


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A folder with pictures, an XNN with four targets fitted to them, and CONFIG.yaml."""
    path = tmp_path_factory.mktemp("letters")
    write_letters(path / "images")
    fit(path, path / "run", "a", "b", "c", "d")
    write(path)
    return path


@pytest.fixture(scope="module")
def built(letters):
    out = letters / "study"
    assert main(["study", "init", str(letters / "config.yaml"), "--out", str(out)]) == 0
    return out


def write(path, **changes):
    file = path / "config.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | changes), "utf-8")
    return file


def test_init_builds_a_complete_folder(built):
    plan = StudyPlan.read(built)
    assert plan.settings.title == "Letters"
    images = plan.data_sets[0].images
    assert [sum(i.set == n for i in images) for n in (1, 2, 3)] == [4, 4, 4]
    assert len({image.file for image in images}) == 12
    for image in images:
        assert image.label == Path(image.file).parts[0]
        assert len(image.overlays) == len(image.contributions) == 7
        assert sum(map(abs, image.contributions)) == pytest.approx(1, abs=1e-3)
        assert set(image.heatmaps) == {"excitation_backprop", "deep_lift"}
    assert {path.name for path in (built / "media").iterdir()} == plan.media()
    for name in plan.media():
        with Image.open(built / "media" / name) as picture:
            assert picture.format == "WEBP"
            assert max(picture.size) <= 384
            assert not picture.getexif()
    create_app(built).state.site.database.close()  # what it needs is there


def test_contributions_and_predictions_are_those_of_the_network(letters, built):
    xnn = open_run(letters / "run")
    for image in StudyPlan.read(built).data_sets[0].images:
        picture = read_image(letters / "images" / image.file)
        batch = xnn.preprocessing(picture).unsqueeze(0)
        best = int(xnn.model(batch)[0].argmax())
        assert image.predicted == "abcd"[best]
        parts = xnn.contributions(batch)[0, best]
        shares = (parts / parts.abs().sum()).tolist()
        assert list(image.contributions) == pytest.approx(shares, abs=1e-3)


@pytest.mark.slow
def test_same_seed_same_study_and_never_replaced(letters, built, tmp_path, capsys):
    config, again = str(letters / "config.yaml"), tmp_path / "again"
    assert main(["study", "init", config, "--out", str(again)]) == 0
    said, warned = text_of(capsys)
    assert "12 images in 3 sets" in said
    assert "xnn study serve" in said
    assert "should show pictures that neither network nor XNN was fitted on" in warned
    assert StudyPlan.read(built) == StudyPlan.read(again)
    assert main(["study", "init", config, "--out", str(again)]) == 2
    assert "a study is never replaced" in text_of(capsys)[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": 30}, "30 sets of 4 pictures need 120 pictures, there are 64"),
        ({"sets": 2}, "sets must be at least 3"),
        ({"titel": "x"}, "titel"),
        ({"arms": [{"name": "main", "method": "magic"}]}, "magic"),
        ({"data_sets": []}, "data_sets"),
        ({"language": "../x"}, "language"),
        ({"recruitment": {"completion_url": "javascript:alert(1)"}}, "completion_url"),
        ({"consent": "nowhere.md"}, "nowhere.md"),
    ],
)
def test_wrong_settings_are_one_line_and_leave_nothing(letters, tmp_path, capsys, changes, message):
    for name in ("images", "run"):
        (tmp_path / name).symlink_to(letters / name)
    out = tmp_path / "study"
    assert main(["study", "init", str(write(tmp_path, **changes)), "--out", str(out)]) == 2
    # The console breaks long paths wherever its width ends.
    assert message.replace(" ", "") in text_of(capsys)[1].replace(" ", "")
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".study")]


def write_as_cub(letters, root):
    """The letters in CUB's official layout, two thirds of them in its test part."""
    files = sorted((letters / "images").rglob("*.png"))
    names = [file.relative_to(letters / "images").as_posix() for file in files]
    numbers = range(1, len(files) + 1)
    tables = {
        "images.txt": [f"{i} {name}" for i, name in zip(numbers, names, strict=True)],
        "classes.txt": [f"{i} {letter}" for i, letter in enumerate("abcd", start=1)],
        "image_class_labels.txt": [
            f"{i} {'abcd'.index(name[0]) + 1}" for i, name in zip(numbers, names, strict=True)
        ],
        "train_test_split.txt": [f"{i} {int(i % 3 == 0)}" for i in numbers],
        "bounding_boxes.txt": [f"{i} 1.0 1.0 8.0 8.0" for i in numbers],
        "parts/parts.txt": ["1 middle"],
        "parts/part_locs.txt": [f"{i} 1 6.0 6.0 1" for i in numbers],
    }
    for name, lines in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(lines) + "\n")
    shutil.copytree(letters / "images", root / "images")


@pytest.mark.slow
def test_pictures_in_cubs_layout_are_those_of_its_test_part(letters, tmp_path):
    write_as_cub(letters, tmp_path / "birds")
    data = {"key": "letters", "name": "Letters", "xnn": str(letters / "run"), "images": "birds"}
    config = write(tmp_path, data_sets=[data])
    out = tmp_path / "study"
    assert main(["study", "init", str(config), "--out", str(out)]) == 0
    plan = StudyPlan.read(out)
    training = {line.split()[0] for line in
                (tmp_path / "birds/train_test_split.txt").read_text().splitlines()
                if line.endswith("1")}  # fmt: skip
    files = dict(line.split() for line in (tmp_path / "birds/images.txt").read_text().splitlines())
    images = plan.data_sets[0].images
    shown = {image.file.removeprefix("images/") for image in images}
    assert len(shown) == 12
    assert shown.isdisjoint(files[number] for number in training)
    for image in images:
        assert image.label == Path(image.file).parent.name


def test_an_xnn_of_one_class_is_refused(letters, tmp_path, capsys):
    (tmp_path / "images").symlink_to(letters / "images")
    fit(tmp_path, tmp_path / "run", "b")
    capsys.readouterr()
    assert main(["study", "init", str(write(tmp_path)), "--out", str(tmp_path / "study")]) == 2
    assert "fit one with several targets" in text_of(capsys)[1]


def test_example_config_is_valid_and_shows_the_defaults():
    config = StudyConfig.read(EXAMPLE)
    given = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    default = StudySettings(title="x")
    own = {"title", "seed", "contact", "data_sets", "consent_version"}
    for name in set(given) - own:
        assert getattr(config, name) == getattr(default, name), name
    assert config.data_sets[0].images == EXAMPLE.parent / "../../data/cub50"


@pytest.mark.slow
def test_demo_is_a_study_of_drawn_figures(tmp_path, capsys):
    out = tmp_path / "study"
    assert main(["study", "demo", "--data", "beetles", "--out", str(out)]) == 0
    said, _ = text_of(capsys)
    assert "50 images in 5 sets" in said
    data = StudyPlan.read(out).data_sets[0]
    assert data.about["n_features"] == 7
    assert data.about["r2_validation"] > 0.9
    assert data.agreement > 0.9


# --- texts


def test_texts_that_a_translation_lacks_are_english_and_named(tmp_path, recwarn):
    (tmp_path / "texts").mkdir()
    values = yaml.safe_load(default_texts("en"))
    english = values["message"]["full"].pop("text")
    admin = values.pop("admin")
    values["done"]["title"] = "Merci"
    file = tmp_path / "texts" / "fr.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    found = read_texts(tmp_path, "fr")
    assert (found["message"]["full"]["text"], found["admin"]) == (english, admin)
    assert found["done"]["title"] == "Merci"
    assert [str(each.message).split(": ")[0] for each in recwarn] == [
        f"{file} lacks message.full.text"
    ]


def test_a_language_file_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "texts").mkdir()
    file = tmp_path / "texts" / "fr.yaml"
    values = yaml.safe_load(default_texts("en"))
    values["done"]["title"] = 5
    file.write_text(yaml.safe_dump(values), "utf-8")
    with pytest.raises(DataError, match=r"done\.title must be a text"):
        read_texts(tmp_path, "fr")
    with pytest.raises(DataError, match=r"de\.yaml is missing: copy"):
        read_texts(tmp_path, "de")
    file.write_text("a: [", "utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(tmp_path, "fr")


def test_consent_shows_html_instead_of_obeying_it(tmp_path):
    (tmp_path / "consent.md").write_text("# Title\n\n<script>x</script> **bold**", "utf-8")
    html = render_consent(read_consent(tmp_path))
    assert "<script>" not in html
    assert "<strong>bold</strong>" in html
    (tmp_path / "consent.md").write_text(" \n", "utf-8")
    with pytest.raises(DataError, match="is empty"):
        read_consent(tmp_path)


# --- simulated participants over HTTP


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A study served on a port of this machine, below a path and at the root."""
    path = tmp_path_factory.mktemp("served")
    write_tiny_study(path, limits=Limits(requests_per_second=1000, starts_per_second=1000))
    with b.serve_app(create_app(path, base_path="/lab")) as url:
        yield path, url


@pytest.mark.slow
def test_simulated_participants_finish_and_are_marked(served, tmp_path, capsys):
    path, url = served
    assert main(["study", "simulate", url, "--participants", "4", "--at-once", "2"]) == 0
    assert "4 synthetic participants finished, 0 did not" in text_of(capsys)[0]
    arm = ["--arm", "complementary", "--participants", "1"]
    assert main(["study", "simulate", url, *arm]) == 0
    assert main(["study", "export", str(path), "--out", str(tmp_path / "export")]) == 0
    people = pd.read_csv(tmp_path / "export" / "participants.csv")
    assert list(people["kind"].unique()) == ["synthetic"]
    assert list(people["status"].unique()) == ["finished"]
    trials = pd.read_csv(tmp_path / "export" / "trials.csv").query("position > 0")
    main_trials = trials[trials["arm"] == "main"]
    for _, own in main_trials.groupby(["participant", "data_set"]):
        assert own["set"].is_unique
    assert (main_trials.groupby("stage").size() == 8).all()
    assert json.loads((tmp_path / "export" / "images.json").read_text())


def test_every_acknowledged_event_is_stored(served):
    from sqlalchemy import create_engine, text

    path, url = served
    found = simulate(f"{url}/lab/", SimulationConfig(participants=2, at_once=2, seed=77))
    engine = create_engine(f"sqlite:///{path / 'study.db'}")
    with engine.connect() as connection:
        stored = set(connection.scalars(text("SELECT id FROM events")))
    engine.dispose()
    assert len(found.acknowledged) > 2 * 7 * 8
    assert found.acknowledged <= stored


def test_simulation_of_nothing_is_one_line(served, capsys):
    assert main(["study", "simulate", "http://127.0.0.1:9"]) == 2
    assert "start `xnn study serve`" in text_of(capsys)[1]
    assert main(["study", "simulate", "ftp://x"]) == 2
    assert "is no web address" in text_of(capsys)[1]
    url = served[1]
    assert main(["study", "simulate", url, "--participants", "0"]) == 2
    assert "at least 1" in text_of(capsys)[1]


def test_export_without_answers_is_one_line(tmp_path, capsys):
    write_tiny_study(tmp_path)
    assert main(["study", "export", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "has no answers yet" in text_of(capsys)[1]
    assert main(["study", "export", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_serve_refuses_a_short_token(tmp_path, capsys):
    write_tiny_study(tmp_path)
    assert main(["study", "serve", str(tmp_path), "--admin-token", "short"]) == 2
    assert "at least 8 characters" in text_of(capsys)[1]
