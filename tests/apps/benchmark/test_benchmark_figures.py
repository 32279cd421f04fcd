import re
import warnings
from html.parser import HTMLParser
from itertools import combinations, pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from PIL import Image

from conftest import make_images, make_net
from explanation_examples import HOSTILE
from torchxnn import XNN
from torchxnn.apps.benchmark.figures import looks
from torchxnn.apps.benchmark.figures.bird_parts import (
    draw_cells,
    move_apart,
    parts_figure,
    probability_figure,
    voronoi_cells,
)
from torchxnn.apps.benchmark.figures.class_gallery import (
    GalleryEntry,
    add_to_gallery,
    write_gallery,
)
from torchxnn.apps.benchmark.figures.comparison import comparison_figure, degenerate_figure
from torchxnn.apps.benchmark.figures.looks import EMPTY, OFF, Look, contributions_of, look_at
from torchxnn.apps.benchmark.figures.two_looks import (
    clearest_two_looks,
    two_looks,
    two_looks_figure,
)
from torchxnn.data.datasets.base import Sample
from torchxnn.data.record import record_activations
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import AttributionWarning, DataError, NonFiniteError, XNNError
from torchxnn.explanations.drawing.canvas import save_figure
from torchxnn.explanations.drawing.overlay import number, signed
from torchxnn.metrics import pixel_weights_points, pixel_weights_voronoi
from torchxnn.training.config import TrainConfig

PARTS = ("beak", "left wing", "tail")
NAMES = ("Albatross", "Goldfinch", "An exceedingly long-named bird of the northern " * 4, HOSTILE)
QUICK = TrainConfig(hidden=(8,), epochs=3, trials=1, pretrain_epochs=0, revive=None)


@pytest.fixture(autouse=True)
def untrained_networks_have_rough_maps():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)
        yield


def make_xnn(n=3, target=1, seed=0, dead=(), net=None, layer="classifier.1"):
    """An XNN with random weights and a readout of known signs: + - + - ..."""
    xnn = XNN(net or make_net(), layer, n, class_names=NAMES)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        embedding = SRAE(24, n, 1, hidden=(16,))
    with torch.no_grad():
        embedding.encoder[-1].weight.mul_(4)
        embedding.encoder[-1].bias.fill_(4.0)
        signs = torch.tensor([1.0 if i % 2 == 0 else -1.0 for i in range(n)])
        embedding.readout.weight[0] = signs * torch.arange(1, n + 1)
        for i in dead:
            embedding.encoder[-1].bias[i] = -1e6
    xnn.attach_embedding(embedding.eval(), (target,), 4)
    return xnn


def make_samples(count=4, parts=True):
    images, labels = make_images(count)
    places = torch.tensor([[2.5, 3.0, 1], [8.0, 3.0, 1], [0, 0, 0]])
    return [
        Sample(
            image=image,
            label=int(label),
            path=f"bird/{i}.jpg",
            parts=places if parts else None,
            box=torch.tensor([1.0, 1.0, 9.0, 6.0]) if parts else None,
        )
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def columns(figure, n=3):
    """Names of x-features from left to right, one line of headings."""
    found = [t for t in figure.texts if re.fullmatch(r"x-feature \d+", t.get_text())]
    return [t.get_text() for t in sorted(found, key=lambda t: t.get_position()[0])][:n]


def overlapping(figure):
    """Pairs of texts whose boxes overlap, and texts that leave the figure."""
    renderer = figure.canvas.get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.texts if t.get_text()]
    width, height = figure.canvas.get_width_height()
    bad = [
        (a, b)
        for (a, one), (b, two) in combinations(boxes, 2)
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 1
        and min(one.y1, two.y1) - max(one.y0, two.y0) > 3
    ]
    outside = [
        a for a, b in boxes if b.x0 < -1 or b.x1 > width + 1 or b.y0 < -1 or b.y1 > height + 1
    ]
    return bad + outside


# --- looks


def test_looks_agree_with_explain():
    xnn, samples = make_xnn(), make_samples(3)
    for sample, look in zip(samples, look_at(xnn, samples, 1), strict=True):
        expected = xnn.explain(sample.image, method="excitation_backprop")
        assert np.array_equal(look.picture, expected.image)
        for name in ("features", "heatmaps"):
            found = torch.from_numpy(getattr(look, name))
            torch.testing.assert_close(found, getattr(expected, name), atol=1e-5, rtol=1e-4)
        values = torch.from_numpy(look.contributions)
        torch.testing.assert_close(values, expected.contributions[0], atol=1e-5, rtol=1e-4)
        maps = torch.from_numpy(look.logit_heatmap)
        torch.testing.assert_close(maps, expected.logit_heatmaps[0], atol=1e-5, rtol=1e-4)
        assert look.logit == pytest.approx(float(expected.logits[0]), rel=1e-5)
        assert look.verdict == expected.predicted_name
        assert look.right == (sample.label == expected.predicted_class)


def test_looks_do_not_depend_on_the_batches(monkeypatch):
    xnn, samples = make_xnn(), make_samples(5)
    whole = look_at(xnn, samples, 1)
    values = contributions_of(xnn, samples, 1)
    monkeypatch.setattr(looks, "IMAGES_AT_ONCE", 2)
    torch.testing.assert_close(contributions_of(xnn, samples, 1), values)
    for one, two in zip(whole, look_at(xnn, samples, 1), strict=True):
        np.testing.assert_allclose(one.heatmaps, two.heatmaps, atol=1e-6)
        assert one.verdict == two.verdict
    assert values.numpy() == pytest.approx(np.stack([k.contributions for k in whole]), rel=1e-5)


def test_looking_leaves_the_model_as_it_was():
    net = make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    look_at(make_xnn(net=net), make_samples(2), 1)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def look(features, contributions, heatmaps):
    return Look(
        picture=np.zeros((2, 2, 3), dtype=np.uint8), features=np.array(features),
        contributions=np.array(contributions), heatmaps=np.array(heatmaps),
        logit_heatmap=np.zeros((2, 2)), logit=1.0, verdict="bird", right=True,
    )  # fmt: skip


def test_notes_tell_off_from_empty():
    some, none, low = np.eye(2), np.zeros((2, 2)), -np.ones((2, 2))
    found = look(
        [0.0, 1.0, 1.0, 1.0, 2.0], [0.0, 2.0, -1.0, 3.0, 0.0], [some, some, none, low, some]
    )
    assert [found.note(i) for i in range(5)] == [OFF, "", EMPTY, EMPTY, OFF]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [], "no images"),
        (lambda s: [*s, Sample(torch.zeros(3, 6, 6), 0, "small.jpg")], "small.jpg is"),
    ],
)
def test_bad_images_are_named(change, message):
    with pytest.raises(DataError, match=message):
        comparison_figure(make_xnn(), change(make_samples(2)))


def test_unfitted_and_other_targets_are_errors():
    with pytest.raises(XNNError, match="not fitted"):
        comparison_figure(XNN(make_net(), "classifier.1"), make_samples(1))
    with pytest.raises(DataError, match=r"class 3 is not explained; the targets are \[1\]"):
        comparison_figure(make_xnn(), make_samples(1), target=3)


# --- comparison


def test_columns_have_one_order_by_mean_contribution():
    xnn, samples = make_xnn(4), make_samples(5)
    mean = contributions_of(xnn, samples, 1).mean(0)
    figure = comparison_figure(xnn, samples)
    expected = [f"x-feature {i + 1}" for i in mean.argsort(descending=True).tolist()]
    assert columns(figure, 4) == expected
    assert any("over these images" in text for text in texts(figure))
    assert columns(comparison_figure(xnn, samples, order=(2, 0, 3, 1)), 4) == [
        "x-feature 3", "x-feature 1", "x-feature 4", "x-feature 2",
    ]  # fmt: skip
    assert len(figure.axes) == 5 * (4 + 2) + 1  # and the colour scale


def test_the_order_must_name_each_feature_once():
    with pytest.raises(DataError, match="does not name each of 3"):
        comparison_figure(make_xnn(), make_samples(1), order=(0, 1, 1))


def test_order_of_the_report_is_by_mean_contribution():
    net = make_net()
    images, labels = make_images(96)
    xnn = XNN(net, "classifier.1", 3, class_names=NAMES)
    data = record_activations(net, xnn.layer, [(images, labels)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = xnn.fit_activations(data, 1, data, QUICK)
    positives = data.labels == 1
    mean = xnn.embed(data.z[positives]).contributions[:, 0].mean(0)
    order = mean.argsort(descending=True, stable=True).tolist()
    figure = comparison_figure(xnn, make_samples(2))
    assert columns(figure) == [f"x-feature {i + 1}" for i in order]
    f_reg = number(report.validation.f_reg)
    assert any(text.startswith(f"F_reg {f_reg} on held-out") for text in texts(figure))
    assert "held-out images of the class." in " ".join(texts(figure))
    assert any(t.startswith("F_reg 7.25; ") for t in texts(comparison_figure(
        xnn, make_samples(2), f_reg=7.25)))  # fmt: skip


def test_a_dead_feature_is_off_on_every_image():
    figure = comparison_figure(make_xnn(3, dead=(1,)), make_samples(4))
    assert texts(figure).count(OFF) == 4
    assert texts(figure).count("0") == 4


def test_contributions_and_verdicts_stand_above_the_maps():
    xnn, samples = make_xnn(3), make_samples(2)
    shown = texts(comparison_figure(xnn, samples))
    for value in contributions_of(xnn, samples, 1).flatten().tolist():
        assert signed(value) in shown
    for sample in samples:
        predicted = int(xnn.model(sample.image[None]).argmax())
        start = "recognised" if predicted == sample.label else "taken for"
        assert any(text.startswith(start) for text in shown)


@pytest.mark.parametrize(("n", "target"), [(1, 2), (3, 3), (7, 2)])
def test_long_and_hostile_names_neither_overlap_nor_leave_the_figure(n, target):
    samples = make_samples(4)
    xnn = make_xnn(n, target, dead=(0,))
    for figure in (
        comparison_figure(xnn, samples[:2]),
        parts_figure(xnn, samples[0], PARTS),
        probability_figure(xnn, samples[0], PARTS),
        degenerate_figure(xnn, xnn, samples[:1], ("SRAE", "NN")),
    ):
        assert overlapping(figure) == []


class GreyNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = make_net()

    def forward(self, images):
        return self.inner(images.expand(-1, 3, -1, -1))


def test_one_channel_is_drawn_grey():
    xnn = make_xnn(net=GreyNet().eval(), layer="inner.classifier.1")
    sample = Sample(torch.rand(1, 12, 12), None, "digit")
    monochrome = look_at(xnn, [sample], 1)[0].picture
    assert monochrome.shape == (12, 12, 3)
    assert (monochrome[..., 0] == monochrome[..., 2]).all()
    assert overlapping(comparison_figure(xnn, [sample])) == []


# --- degenerate


def test_degenerate_figure_shows_both_fits_and_the_most_similar_maps():
    good, bad = make_xnn(3), make_xnn(3, seed=1)
    with torch.no_grad():  # x-features 1 and 2 of the bad one are the same
        for parameter in (bad.embedding.encoder[-1].weight, bad.embedding.encoder[-1].bias):
            parameter[1] = parameter[0]
    shown = texts(degenerate_figure(good, bad, make_samples(3)))
    assert "(a) SRAE" in shown
    assert "(b) NN" in shown
    alike = [text for text in shown if text.startswith("Most alike")]
    assert len(alike) == 2
    assert alike[1] == "Most alike: x-feature 1 and x-feature 2, correlation of maps +1.00"
    assert alike[0] != alike[1]


def test_degenerate_figure_needs_the_same_target():
    with pytest.raises(DataError, match="class 1 is not explained"):
        degenerate_figure(make_xnn(target=1), make_xnn(target=2), make_samples(1))


# --- two looks


def brute_force(values, least):
    """Least squares within two groups over every split of the sorted values, literally."""
    ordered = sorted(values)
    best = None
    for cut in range(least, len(ordered) - least + 1):
        low, high = ordered[:cut], ordered[cut:]
        if low[-1] == high[0]:
            continue
        within = sum((v - sum(g) / len(g)) ** 2 for g in (low, high) for v in g)
        if best is None or within < best[0]:
            best = within, low, high
    return best


def test_planted_groups_are_found():
    generator = torch.Generator().manual_seed(0)
    male = torch.rand(40, generator=generator) < 0.4
    noise = torch.rand(40, 4, generator=generator)
    values = 3 + noise
    values[:, 2] = torch.where(male, 6.0, 0.5) + 0.3 * noise[:, 2]
    values[:, 3] = torch.where(male, 0.02, 0.0)  # clearer, but hardly contributes
    found = two_looks(values)
    assert found.feature == 2
    assert torch.equal(found.mask, male)
    assert found.between > 0.99
    assert found.contrast == pytest.approx(0.9, abs=0.02)
    assert found.separation == pytest.approx(found.between * found.contrast)


def test_two_looks_by_hand():
    # groups 0, 0 and 4, 6: means 0 and 5; within 2, total 1/4 * ... = 27: between 25 / 27
    found = two_looks(torch.tensor([[0.0], [4], [0], [6]]))
    assert found.mask.tolist() == [False, True, False, True]
    assert found.between == pytest.approx(25 / 27)
    assert found.contrast == 1
    assert found.separation == pytest.approx(25 / 27)


def test_two_values_that_hardly_differ_lose_against_two_that_do():
    rows = torch.arange(20)
    values = torch.stack([torch.where(rows < 10, 5.0, 5.1), 1 + rows * 0.2], 1)
    assert two_looks(values[:, :1]).between == pytest.approx(1)
    assert two_looks(values).feature == 1


def test_an_outlier_makes_no_group_and_negative_features_do_not_count():
    values = torch.zeros(20, 2)
    values[:, 0] = torch.linspace(1, 2, 20)
    values[0, 0] = 1e3
    values[:10, 1] = -50
    found = two_looks(values)
    assert found.feature == 0
    assert int(found.mask.sum()) >= 4


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 12), min_size=4, max_size=14),
    st.sampled_from([0.2, 0.35, 0.5]),
    st.floats(0.1, 100),
)
@example([0, 3, 4, 5, 8], 0.2, 5.0)  # two splits alike
def test_the_split_is_the_best_and_knows_no_scale(numbers, smallest, scale):
    values = torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)
    least = max(2, int(np.ceil(smallest * len(numbers))))
    expected = brute_force(numbers, least)
    if expected is None:
        with pytest.raises(DataError, match="splits these images"):
            two_looks(values, smallest)
        return
    found = two_looks(values, smallest)
    mean = sum(numbers) / len(numbers)
    total = sum((v - mean) ** 2 for v in numbers)
    assert found.between == pytest.approx(1 - expected[0] / total)
    assert int(found.mask.sum()) >= least
    assert int((~found.mask).sum()) >= least
    assert values[found.mask].min() > values[~found.mask].max()
    again = two_looks(values * scale, smallest)
    assert again.separation == pytest.approx(found.separation)


@pytest.mark.parametrize(
    ("values", "smallest", "error", "message"),
    [
        (torch.rand(3, 2), 0.2, DataError, "at least 4 images"),
        (torch.rand(9, 2), 0.6, DataError, "smallest group"),
        (torch.ones(9, 2), 0.2, DataError, "splits these images in two"),
        (torch.zeros(9, 2), 0.2, DataError, "splits these images in two"),
        (torch.full((9, 2), torch.nan), 0.2, NonFiniteError, "NaN"),
    ],
)
def test_two_looks_refuses(values, smallest, error, message):
    with pytest.raises(error, match=message):
        two_looks(values, smallest)


def test_the_clearest_class_is_chosen():
    even, planted = torch.linspace(1, 2, 20).unsqueeze(1), torch.ones(20, 1)
    planted[:10] = 4
    key, found = clearest_two_looks({"even": even, "planted": planted, "flat": torch.ones(20, 1)})
    assert key == "planted"
    assert found.contrast == pytest.approx(0.75)
    with pytest.raises(DataError, match="no class"):
        clearest_two_looks({"flat": torch.ones(20, 1)})


def test_two_looks_figure_shows_the_typical_images_of_both_groups():
    xnn, samples = make_xnn(3), make_samples(16)
    values = contributions_of(xnn, samples, 1)
    found = two_looks(values)
    figure = two_looks_figure(xnn, samples, per_group=2, columns=2)
    shown = texts(figure)
    size = int(found.mask.sum())
    assert f"(a) {size} images with large contributions" in shown
    assert f"(b) {16 - size} images with small contributions" in shown
    own = values[:, found.feature]
    for mask in (found.mask, ~found.mask):
        distance = (own - own[mask].mean()).abs().masked_fill(~mask, torch.inf)
        assert signed(float(own[distance.argmin()])) in shown
    assert columns(figure, 4)[0] == f"x-feature {found.feature + 1}"
    assert len(figure.axes) == 2 * 2 * (1 + 2) + 1
    assert overlapping(figure) == []


# --- parts


def test_cells_are_those_of_the_weights():
    sample = make_samples(1)[0]
    weights = pixel_weights_voronoi(sample.parts, sample.box, (12, 12))
    cells = voronoi_cells(weights)
    for y in range(12):
        for x in range(12):
            if not (1 <= x < 10 and 1 <= y < 7):
                assert cells[y, x] == 3  # context
                continue
            distance = [(x - 2) ** 2 + (y - 3) ** 2, (x - 8) ** 2 + (y - 3) ** 2]
            assert cells[y, x] == int(distance[1] < distance[0])
    dense = weights.dense().numpy()
    for part in range(4):
        assert (dense[part][cells != part] == 0).all()


def test_a_box_over_the_whole_picture_has_no_context():
    parts = torch.tensor([[1.0, 1, 1], [4, 4, 1]])
    weights = pixel_weights_voronoi(parts, torch.tensor([0.0, 0, 6, 6]), (6, 6))
    picture = np.full((6, 6, 3), 100, dtype=np.uint8)
    drawn = draw_cells(picture, weights)
    assert set(voronoi_cells(weights).flatten().tolist()) == {0, 1}
    assert len({tuple(c) for c in (drawn[0, 0], drawn[5, 5])}) == 2  # both cells have a colour


def test_without_visible_parts_the_box_has_no_cells():
    weights = pixel_weights_voronoi(torch.zeros(2, 3), torch.tensor([1.0, 1, 3, 3]), (6, 6))
    assert (voronoi_cells(weights)[1:4, 1:4] == -1).all()
    assert draw_cells(np.zeros((6, 6, 3), dtype=np.uint8), weights).shape == (6, 6, 3)


@settings(max_examples=100)
@given(st.lists(st.floats(-1, 3), max_size=12), st.floats(0.01, 0.5))
def test_moving_apart_keeps_order_gap_and_bounds(wanted, gap):
    places = move_apart(sorted(wanted), gap, 0.0, 2.0)
    assert len(places) == len(wanted)
    gap = min(gap, 2.0 / max(1, len(wanted) - 1))
    assert all(-1e-9 <= place <= 2 + 1e-9 for place in places)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))


def test_moving_apart_leaves_what_has_room():
    assert move_apart([0.2, 1.0, 1.8], 0.3, 0.0, 2.0) == pytest.approx([0.2, 1.0, 1.8])
    assert move_apart([1.9, 1.95], 0.3, 0.0, 2.0) == pytest.approx([1.7, 2.0])


def test_parts_figure_is_sorted_and_names_visible_parts():
    xnn, sample = make_xnn(4), make_samples(1)[0]
    values = contributions_of(xnn, [sample], 1)[0]
    figure = parts_figure(xnn, sample, PARTS)
    order = values.argsort(descending=True, stable=True).tolist()
    assert columns(figure, 4) == [f"x-feature {i + 1}" for i in order]
    shown = texts(figure)
    assert {"beak", "left wing"} <= set(shown)
    assert "tail" not in shown
    assert any(text.startswith("Not visible: tail.") for text in shown)


def bars(figure):
    """Widths of the drawn bars in shares of a panel."""
    scale = figure.get_figwidth() / 1.24
    return [patch.get_width() * scale for patch in figure.get_children() if hasattr(patch, "xy")]


def test_probability_figure_draws_the_probabilities():
    xnn, sample = make_xnn(3), make_samples(1)[0]
    figure = probability_figure(xnn, sample, PARTS)
    seen = look_at(xnn, [sample], 1)[0]
    positive = np.maximum(seen.heatmaps.astype(np.float64), 0)
    order = [i for i in np.argsort(-seen.contributions).tolist() if not seen.note(i)]
    assert len(order) == 2  # the other one has an empty map
    positive = positive[order] / positive[order].sum((1, 2), keepdims=True)
    expected = []
    weights = (
        pixel_weights_points(sample.parts, (12, 12)).dense().numpy()[:2],
        pixel_weights_voronoi(sample.parts, sample.box, (12, 12)).dense().numpy()[[0, 1, 3]],
    )
    for planes in weights:
        share = np.einsum("nhw,phw->np", positive, planes)
        expected += (share / share.max()).flatten().tolist()
    drawn = [patch for patch in bars(figure) if patch <= 1.0001][-len(expected) :]
    assert drawn == pytest.approx(expected, abs=1e-6)


def test_probability_figure_marks_features_that_are_off():
    figure = probability_figure(make_xnn(3, dead=(0,)), make_samples(1)[0], PARTS)
    assert texts(figure).count(OFF) == 2


@pytest.mark.parametrize("draw", [parts_figure, probability_figure])
def test_part_figures_need_parts(draw):
    with pytest.raises(DataError, match="no part locations or no box"):
        draw(make_xnn(), make_samples(1, parts=False)[0], PARTS)
    with pytest.raises(DataError, match="3 parts, but there are 2 names"):
        draw(make_xnn(), make_samples(1)[0], PARTS[:2])


# --- files


def test_saved_figures_are_whole_and_the_same_each_time(tmp_path):
    xnn, samples = make_xnn(), make_samples(1)
    for name in ("a.png", "b.png"):
        save_figure(comparison_figure(xnn, samples), tmp_path / "new" / name)
    first, second = (tmp_path / "new" / name for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as picture:
        assert picture.format == "PNG"
    save_figure(comparison_figure(xnn, samples), second, dpi=50)
    with Image.open(first) as large, Image.open(second) as small:
        assert small.width == pytest.approx(large.width * 50 / 110, abs=1)
    assert sorted(p.name for p in first.parent.iterdir()) == ["a.png", "b.png"]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_gallery_shows_every_class_and_requests_nothing_else(tmp_path):
    entries = [
        add_to_gallery(make_xnn(2, target), make_samples(1), tmp_path, f_reg=0.25)
        for target in (0, 2, 3)
    ]
    page = write_gallery(entries, tmp_path, HOSTILE, ("Photographs: <b>someone</b>",))
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert page == tmp_path / "index.html"
    images = found.all("img")
    assert len(images) == 3
    for image, entry in zip(images, entries, strict=True):
        assert image["src"] == f"./{entry.file}"
        assert (tmp_path / entry.file).is_file()
        assert image["loading"] == "lazy"
        assert len(image["alt"]) > 30
        with Image.open(tmp_path / entry.file) as picture:
            assert (int(image["width"]), int(image["height"])) == picture.size
    assert not found.all("script")
    assert not found.all("link")
    assert "<b>someone" not in text
    assert not re.search(r"https?://|url\(|@import", text)
    policy = next(m["content"] for m in found.all("meta") if "content-security" in str(m).lower())
    assert "img-src 'self' file: data:" in policy
    assert "default-src 'none'" in policy
    targets = {s["id"] for s in found.all("section")}
    links = [a["href"] for a in found.all("a") if a["href"].startswith("#")]
    assert {f"#{name}" for name in targets} == set(links)
    assert "0.25" in text
    assert [entry.file[:4] for entry in entries] == ["000_", "002_", "003_"]
    assert all(re.fullmatch(r"[\w.-]{1,90}", entry.file) for entry in entries)


def test_a_broken_gallery_is_refused_and_the_old_page_kept(tmp_path):
    save_figure(comparison_figure(make_xnn(), make_samples(1)), tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    good = GalleryEntry("Bird", "a.png", "a bird")
    before = write_gallery([good], tmp_path).read_bytes()
    for entries, message in (
        ([], "at least one"),
        ([good, good], "same file a.png"),
        ([good, GalleryEntry("Gone", "gone.png", "")], "picture of Gone is missing"),
        ([GalleryEntry("Broken", "b.png", "")], "picture of Broken is missing or broken"),
        ([GalleryEntry("Out", "../a.png", "")], "not the name of a file"),
    ):
        with pytest.raises(DataError, match=message):
            write_gallery(entries, tmp_path)
        assert (tmp_path / "index.html").read_bytes() == before
