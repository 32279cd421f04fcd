import json
import re
import shutil
import warnings
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from atlas_examples import CLASSES, LAYER, QUICK, make_parts, small_network
from page_examples import Page
from torchxnn import XNN
from torchxnn.apps.atlas import AtlasConfig, build_atlas
from torchxnn.apps.atlas import class_job as class_jobs
from torchxnn.apps.atlas.images import choose_images, encode_images
from torchxnn.apps.atlas.numbers import standardise
from torchxnn.apps.atlas.predictions import read_predictions
from torchxnn.apps.atlas.runs import find_runs
from torchxnn.apps.run_card import read_card
from torchxnn.cli.main import main
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError, XNNError
from torchxnn.explanations import alike
from torchxnn.explanations.drawing.overlay import intensities, overlay
from torchxnn.metrics import measure_faithfulness
from torchxnn.models.weights import fingerprint
from torchxnn.parallel.engine import LocalEngine
from torchxnn.storage.saved_folder import WEIGHTS

CONFIG = AtlasConfig(examples=2, top=3, spaced=2, against=2, similar=3, least_correlation=-1.0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("parts"))


def build(parts, out, config=CONFIG, runs=None, **options):
    options.setdefault("cache", parts.cache)
    return build_atlas(
        small_network(), runs or parts.runs, parts.dataset, out, config=config, **options
    )


@pytest.fixture(scope="module")
def made(parts, tmp_path_factory):
    return build(parts, tmp_path_factory.mktemp("atlas") / "site", model_name="a net")


def pages_of(folder):
    return sorted(folder.rglob("*.html"))


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def links_of(page, path):
    """Files that a page refers to."""
    found = []
    for tag, name in (("a", "href"), ("img", "src"), ("link", "href"), ("script", "src")):
        for attributes in page.all(tag):
            address = unquote(attributes[name])
            assert not re.match(r"[a-z]+:|/", address), address
            if not address.startswith("#"):
                found.append((path.parent / address.partition("#")[0]).resolve())
    return found


# --- the site


def test_every_class_and_x_feature_has_a_page_and_every_link_leads_somewhere(made, parts):
    assert [entry.name for entry in made.entries] == list(parts.folders)
    assert made.failures == ()
    pages = pages_of(made.folder)
    assert len(pages) == 1 + 4 * (1 + 3)
    for path in pages:
        page = Page(path)
        for target in links_of(page, path):
            assert target.is_file(), target
            assert made.folder in target.parents
        for image in page.all("img"):
            assert image["alt"]
            assert image["loading"] == "lazy"
            assert image["src"].endswith(".webp")


def test_the_index_leads_with_pictures_and_the_claim_without_figures(made, parts):
    index = Page(made.folder / "index.html")
    for entry in made.entries:
        row = int(entry.image.removeprefix("p").removesuffix(".webp"))
        xnn = XNN.from_pretrained(parts.runs / entry.name, small_network())
        contributions = xnn.contributions(parts.dataset[row].image.unsqueeze(0))[0, 0]
        leading = int(contributions.argmax())
        assert entry.map in (f"m{row}-{leading + 1}.webp", "")  # none where it is not active
        assert entry.leading == (xnn.feature_names[leading] if entry.map else "")
        shown = [image["src"] for image in index.all("img") if f"/{entry.name}/" in image["src"]]
        names = [entry.image, entry.map] if entry.map else [entry.image]
        assert shown == [f"classes/{entry.name}/{name}" for name in names]
        assert not re.search(r"\([+\N{MINUS SIGN}]", entry.sentence)
        assert entry.sentence in index.text


def test_every_map_on_a_page_of_a_class_stands_below_its_image(made):
    for entry in made.entries:
        folder = made.folder / "classes" / entry.name
        images = [image["src"] for image in Page(folder / "index.html").all("img")]
        source = (folder / "index.html").read_text("utf-8")
        strips = re.findall(r'<ul class="strip".*?</ul>', source, re.DOTALL)
        assert strips
        for strip in strips:
            for item in re.findall(r"<li>(.*?)</li>", strip, re.DOTALL):
                image, *maps = re.findall(r'src="([^"]+)"', item)
                assert re.fullmatch(r"p\d+\.webp", image)
                assert all(each.startswith(f"m{image[1:-5]}-") for each in maps)
        assert images


def test_every_class_has_the_card_of_its_xnn(made, parts):
    for entry in made.entries:
        folder = made.folder / "classes" / entry.name
        card = read_card(parts.runs / entry.name)
        assert (folder / "card.md").read_text("utf-8") == card.markdown()
        values = json.loads((folder / "card.json").read_bytes())
        assert [each["name"] for each in values["features"]] == [f.name for f in card.features]
        goals = [link["href"] for link in Page(folder / "index.html").all("a")]
        assert {"card.md", "card.json"} <= set(goals)


def test_nothing_is_written_that_no_page_shows(made):
    shown = {target for path in pages_of(made.folder) for target in links_of(Page(path), path)}
    pictures = set(made.folder.rglob("*.webp"))
    assert {each.resolve() for each in pictures} <= shown
    assert not (made.folder / ".work").exists()
    with Image.open(next(iter(pictures))) as picture:
        assert picture.format == "WEBP"


def test_names_of_classes_are_text_and_not_markup(made, parts):
    index = Page(made.folder / "index.html")
    assert "Blue <b>jay & co" in index.text
    assert "<b>jay" not in index.source
    page = Page(made.folder / "classes" / parts.folders[1] / "index.html")
    assert page.text.count("Blue <b>jay & co") > 2


def test_index_says_what_search_needs(made):
    script = (made.folder / "assets" / "data.js").read_text()
    data = json.loads(re.search(r"classes: (.*)}", script)[1])
    assert [each["name"] for each in data] == [entry.name for entry in made.entries]
    assert data[0]["features"] == ["x-feature 1", "x-feature 2", "x-feature 3"]


def test_headings_are_in_order(made):
    for path in pages_of(made.folder):
        levels = [int(tag[1]) for tag, _ in Page(path).tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels)), path


def test_figures_are_those_of_the_xnn_itself(made, parts):
    net = small_network()
    data = parts.cache.activations(LAYER)
    for entry, place in zip(made.entries, parts.folders, strict=True):
        xnn = XNN.from_pretrained(parts.runs / place, net)
        expected = xnn.measure(data).faithfulness
        assert entry.r2 == pytest.approx(expected.r2, abs=1e-6)
        assert entry.f_cls_positives == expected.f_cls_positives
        assert entry.f_reg_positives == pytest.approx(expected.f_reg_positives, abs=1e-6)
        assert entry.active == expected.active
        own = data.logits[data.labels == entry.output].argmax(1) == entry.output
        assert entry.recall == pytest.approx(float(own.float().mean()))


@pytest.mark.slow
def test_pages_say_why_nobody_knows_what_is_found_again_and_what_is_alike(
    parts, tmp_path, monkeypatch, made
):
    def text(folder, file="index.html"):
        return Page(folder / "classes" / made.entries[0].name / file).text

    before = text(made.folder)
    assert "4 logits are too few to tell 3 causes apart" in before
    assert "0 on other images" in before
    assert "Overlap of the x-features' heatmaps" in before
    monkeypatch.setattr(alike, "MAPS_ALIKE", -1.0)
    folder = build(parts, tmp_path / "maps").folder
    assert "like x-features 2 and 3" in text(folder)
    monkeypatch.setattr(alike, "VARY_ALIKE", -1.0)
    folder = build(parts, tmp_path / "both").folder
    assert "like x-features 2 and 3" in text(folder, "x-feature-1.html")


def test_maps_are_those_of_the_xnn_itself(made, parts):
    entry = made.entries[2]
    xnn = XNN.from_pretrained(parts.runs / entry.name, small_network())
    folder = made.folder / "classes" / entry.name
    file = sorted(folder.glob("m*.webp"))[0]
    row, feature = (int(n) for n in re.findall(r"\d+", file.name))
    image = parts.dataset[row].image
    maps = xnn.attribute(image.unsqueeze(0))[0].numpy()
    (intensity,) = intensities([maps[feature - 1]])
    expected = overlay(parts.dataset.preprocessing.picture(image), intensity)
    with Image.open(file) as picture:
        found = np.asarray(picture.convert("RGB"))
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 15  # WebP loses a little


def test_a_class_takes_at_most_what_its_limit_says(parts, tmp_path, made):
    for entry in made.entries:
        folder = made.folder / "classes" / entry.name
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 1.5e6
        assert entry.nbytes == pytest.approx(
            sum(file.stat().st_size for file in folder.iterdir()), abs=4096
        )
    with pytest.raises(DataError, match="raise the limit"):
        build(parts, tmp_path / "site", replace(CONFIG, limit=0.001))


def test_images_become_smaller_until_they_fit():
    noise = np.random.default_rng(0).integers(0, 256, (9, 128, 128, 3), dtype=np.uint8)
    drawn = {f"{row}.webp": pixels for row, pixels in enumerate(noise)}

    def side(files):
        return max(max(Image.open(BytesIO(content)).size) for content in files.values())

    large = encode_images(drawn, 10**9)
    assert side(large) == 128
    room = sum(map(len, large.values())) // 2
    files = encode_images(drawn, room)
    assert sum(map(len, files.values())) <= room
    assert side(files) < 128
    with pytest.raises(DataError, match="show fewer images"):
        encode_images(drawn, 100)


# --- building


@pytest.mark.slow
def test_the_same_with_several_processes_and_without_a_cache(made, parts, tmp_path):
    found = build(parts, tmp_path / "site", engine=LocalEngine(2), cache=None, model_name="a net")
    expected = contents(made.folder)
    assert contents(found.folder).keys() == expected.keys()
    different = [n for n, c in contents(found.folder).items() if c != expected[n]]
    # activations that were recorded on their own may differ in the last bit, and so may keys
    assert all(name.endswith("class.json") for name in different), different


def test_a_class_that_fails_is_named_and_the_rest_is_written(parts, tmp_path):
    runs = shutil.copytree(parts.runs, tmp_path / "runs")
    weights = runs / parts.folders[1] / "embedding.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (runs / parts.folders[2] / "xnn.json").write_text("{")
    other = runs / parts.folders[3] / "xnn.json"
    other.write_text(other.read_text().replace(fingerprint(small_network()), "0" * 64))
    (runs / "index.json").write_text(json.dumps({"classes": [
        {"names": ["005.Eagle"], "targets": [4], "error": "too few positives"},
    ]}))  # fmt: skip
    made = build(parts, tmp_path / "site", runs=runs)
    assert [entry.name for entry in made.entries] == [parts.folders[0]]
    reasons = {failure.name: failure.reason for failure in made.failures}
    assert reasons.keys() == {"Eagle", *parts.folders[1:]}
    assert "damaged" in reasons[parts.folders[1]] or "read" in reasons[parts.folders[1]]
    assert "another model" in reasons[parts.folders[3]]
    text = Page(made.folder / "index.html").text
    assert "4 classes are missing" in text
    assert "too few positives" in text


@pytest.mark.slow
def test_nothing_links_to_a_class_whose_drawing_fails(parts, tmp_path, monkeypatch):
    draw = class_jobs.draw_images

    def fail(xnn, *arguments):
        if xnn.targets == (2,):
            raise RuntimeError("no memory")
        return draw(xnn, *arguments)

    monkeypatch.setattr(class_jobs, "draw_images", fail)
    made = build(parts, tmp_path / "site")
    assert [failure.reason for failure in made.failures] == ["RuntimeError: no memory"]
    assert len(made.entries) == 3
    for path in pages_of(made.folder):
        for target in links_of(Page(path), path):
            assert target.is_file(), target


def count_drawings(monkeypatch):
    calls, draw = [], class_jobs.draw_images

    def count(xnn, *arguments):
        calls.append(xnn.targets[0])
        return draw(xnn, *arguments)

    monkeypatch.setattr(class_jobs, "draw_images", count)
    return calls


@pytest.mark.slow
def test_an_interrupted_build_goes_on(parts, made, tmp_path, monkeypatch):
    calls = count_drawings(monkeypatch)

    def stop(step, done, total):
        if step == "Drawing classes" and done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "site"
    with pytest.raises(KeyboardInterrupt):
        build(parts, out, on_step=stop)
    assert not (out / "index.html").exists()
    assert calls == [0, 1]
    build(parts, out, model_name="a net")
    assert calls == [0, 1, 2, 3]
    assert contents(out) == contents(made.folder)
    build(parts, out, replace(CONFIG, top=2))
    assert len(calls) == 8


@pytest.mark.slow
def test_a_new_class_draws_only_what_it_changes(parts, tmp_path, monkeypatch):
    calls = count_drawings(monkeypatch)
    runs = shutil.copytree(parts.runs, tmp_path / "runs")
    last = runs / parts.folders[3]
    config = replace(CONFIG, similar=0, close=0)
    kept = last.rename(tmp_path / "kept")
    build(parts, tmp_path / "site", config, runs=runs)
    assert calls == [0, 1, 2]
    kept.rename(last)
    build(parts, tmp_path / "site", config, runs=runs)
    assert calls == [0, 1, 2, 2, 3]  # class 2 has a link to the next class now
    shutil.rmtree(last)
    made = build(parts, tmp_path / "site", config, runs=runs)
    assert not (made.folder / "classes" / parts.folders[3]).exists()


@pytest.mark.slow
def test_names_that_people_gave_are_on_all_pages(parts, tmp_path, monkeypatch):
    runs = shutil.copytree(parts.runs, tmp_path / "runs")
    build(parts, tmp_path / "site", runs=runs)
    xnn = XNN.from_pretrained(runs / parts.folders[0], small_network())
    xnn.name_feature(1, "golden <i>feather")
    xnn.save_pretrained(runs / parts.folders[0])
    calls = count_drawings(monkeypatch)
    made = build(parts, tmp_path / "site", runs=runs)
    assert 0 in calls
    assert made.entries[0].feature_names == ("x-feature 1", "“golden <i>feather”", "x-feature 3")
    own = made.folder / "classes" / parts.folders[0]
    assert "what one person calls it" in Page(own / "index.html").text
    assert "golden <i>feather" in Page(own / "index.html").text
    assert Page(own / "x-feature-2.html").text.count("golden <i>feather") > 1
    data = (made.folder / "assets" / "data.js").read_text()
    assert "golden <i>feather" in data
    others = [Page(p).text for p in pages_of(made.folder) if parts.folders[0] not in str(p)]
    assert any("“golden <i>feather” of" in " ".join(text.split()) for text in others)


def test_other_weights_of_the_same_size_are_drawn_anew(parts, tmp_path):
    runs = shutil.copytree(parts.runs, tmp_path / "runs")
    run = runs / parts.folders[0]
    about = json.loads((run / "xnn.json").read_text("utf-8"))
    del about["weights_sha256"]  # as earlier versions wrote it
    (run / "xnn.json").write_text(json.dumps(about), "utf-8")
    before = build(parts, tmp_path / "site", runs=runs).entries[0]
    state = load_file(run / WEIGHTS)
    save_file(state | {"readout.weight": 2 * state["readout.weight"]}, run / WEIGHTS)
    after = build(parts, tmp_path / "site", runs=runs).entries[0]
    assert after.f_reg_positives != before.f_reg_positives


def test_other_folders_and_other_data_are_refused(parts, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError):
        build(parts, tmp_path / "mine")
    images = shutil.copytree(parts.images, tmp_path / "images")
    next(images.rglob("*.png")).unlink()
    dataset = type(parts.dataset)(images, parts.dataset.preprocessing, classes=CLASSES)
    cache = cache_activations(small_network(), LAYER, dataset, tmp_path / "cache")
    with pytest.raises(DataError, match="other images"):
        build(parts, tmp_path / "site", cache=cache)
    with pytest.raises(DataError, match="no folder"):
        build(parts, tmp_path / "site", runs=tmp_path / "nothing")
    with pytest.raises(DataError, match="no saved XNN"):
        build(parts, tmp_path / "site", runs=images)
    with pytest.raises(XNNError, match="side"):
        AtlasConfig(side=3)


def test_without_labels_predictions_decide(parts, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for at, file in enumerate(sorted(parts.images.rglob("*.png"))):
        shutil.copy(file, flat / f"{at}.png")
    dataset = type(parts.dataset)(flat, parts.dataset.preprocessing, labelled=False)
    made = build_atlas(small_network(), parts.runs, dataset, tmp_path / "site", config=CONFIG)
    assert made.entries
    assert all(entry.recall is None for entry in made.entries)
    text = Page(made.folder / "classes" / made.entries[0].name / "index.html").text
    assert "if the network says so" in text
    assert "taken from it" not in text


def test_several_targets_in_one_xnn(parts, tmp_path):
    xnn = XNN(small_network(), LAYER, 3, class_names=CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xnn.fit_activations(parts.cache.activations(LAYER), [0, 3], config=QUICK)
    xnn.save_pretrained(tmp_path / "runs" / "two")
    made = build(parts, tmp_path / "site", runs=[parts.runs, tmp_path / "runs" / "two"])
    assert len(made.entries) == 5
    assert "Black crow or Dove" in {entry.title for entry in made.entries}


@pytest.mark.slow
def test_the_command(parts, tmp_path, capsys):
    out = tmp_path / "site"
    argv = ["atlas", parts.runs, "--data", parts.images, "--out", out, "--examples", "2"]
    assert main([str(a) for a in [*argv, "--cache", parts.cache.store.location]]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4 classes" in text
    assert (out / "index.html").is_file()
    assert main([str(a) for a in [*argv[:2], *argv[2:4], "--out", parts.images]]) == 2


# --- the parts


def test_correlations_are_pearsons(parts):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(4, 50, generator=generator)
    rows[3] = 0.7
    found = standardise(rows) @ standardise(rows).T
    expected = np.corrcoef(rows[:3].double().numpy())
    assert np.allclose(found[:3, :3], expected, atol=1e-6)
    assert torch.equal(found[3], torch.zeros(4))  # a constant is like nothing


def test_similar_x_features_are_the_most_correlated(made, parts):
    net = small_network()
    z = parts.cache.read(LAYER)
    features = [XNN.from_pretrained(parts.runs / n, net).embed(z).features for n in parts.folders]
    stacked = standardise(torch.cat(features, 1).T)
    correlation = (stacked @ stacked.T).unflatten(1, (4, 3))
    correlation[:3, 0] = -2
    best = correlation[0].flatten().topk(3)
    page = made.folder / "classes" / parts.folders[0] / "x-feature-1.html"
    section = page.read_text("utf-8").split('id="similar"')[1]
    expected = [
        f"../{parts.folders[i // 3]}/x-feature-{i % 3 + 1}.html" for i in best.indices.tolist()
    ]
    found = re.findall(r'href="(\.\./[^"]+)"', section)
    assert found == expected[: len(found)]
    assert [f"r = {v:.2f}" for v in best.values.tolist()] == re.findall(r"r = [-\d.]+", section)


def test_predictions_in_little_space_are_those_of_all_logits(parts):
    found = read_predictions(parts.cache, 2)
    logits, labels = parts.cache.logits(), parts.cache.labels
    predicted = logits.argmax(1)
    for a in range(4):
        own = labels == a
        assert torch.allclose(found.means[a].float(), logits[own].mean(0), atol=1e-5)
        for b in range(4):
            assert int(found.counts[a, b]) == int((own & (predicted == b)).sum())
    close = found.closest(1, 3)
    assert [each.output for each in close] != []
    for each in close:
        margin = (logits[labels == 1, 1] - logits[labels == 1, each.output]).mean()
        assert each.margin == pytest.approx(float(margin), abs=1e-5)
    generator = torch.Generator().manual_seed(1)
    for targets in ((2,), (0, 3)):
        reproduced = logits[:, list(targets)] + torch.randn(
            len(logits), len(targets), generator=generator
        )
        positives = torch.stack([labels == t for t in targets], 1)
        features = torch.rand(len(logits), 2, generator=generator)
        contributions = torch.rand(len(logits), len(targets), 2, generator=generator)
        around = found.logits_around(logits[:, list(targets)], targets)
        small = measure_faithfulness(
            features, contributions, reproduced, around, tuple(range(len(targets))), positives
        )
        large = measure_faithfulness(
            features, contributions, reproduced, logits, targets, positives
        )
        assert small == large


def test_chosen_images():
    logits = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    positives = torch.tensor([True, True, True, True, False, False])
    decided = torch.tensor([True, True, True, False, True, False])
    features = torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0], [5, 0], [6, 0]])
    contributions = torch.stack([features[:, 0], torch.zeros(6)], 1)
    config = AtlasConfig(examples=3, top=2, spaced=2, against=2)
    found = choose_images(logits, positives, decided, features, contributions, config)
    assert found.typical == 1  # the median of those that the network gets right
    assert found.examples == (0, 3, 4)
    assert found.features[0].top == (5, 4)
    assert found.features[0].spaced == (3, 0)
    assert found.features[0].against == (5, 3)  # it speaks for the class, the network does not
    assert found.features[1].top == ()
    negative = choose_images(logits, positives, decided, features, -contributions, config)
    assert negative.features[0].against == (4, 2)


def test_runs_by_target_and_free_names(parts, tmp_path):
    twice = shutil.copytree(parts.runs / parts.folders[0], tmp_path / parts.folders[0])
    found, failures = find_runs([parts.runs, twice])
    assert failures == ()
    assert [each.targets for each in found] == [(0,), (0,), (1,), (2,), (3,)]
    assert len({each.name for each in found}) == 5


@pytest.mark.slow
def test_fifty_classes_in_several_processes(parts, tmp_path):
    runs = tmp_path / "runs"
    for copy in range(50):
        shutil.copytree(parts.runs / parts.folders[copy % 4], runs / f"{copy:04d}-class")
    made = build(parts, tmp_path / "site", runs=runs, engine=LocalEngine(2))
    assert len(made.entries) == 50
    assert made.largest <= 1.5e6
    for path in pages_of(made.folder):
        for target in links_of(Page(path), path):
            assert target.is_file(), target
    copies = (made.folder / "classes" / "0000-class" / "x-feature-1.html").read_text("utf-8")
    assert "r = 1.00" in copies  # the same XNN under another name
