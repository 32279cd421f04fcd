import json
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from atlas_examples import CLASSES, LAYER, make_parts, small_network
from conftest import make_images, make_net
from explanation_examples import explanation
from page_examples import Page
from torchxnn import XNN
from torchxnn.apps.what_if.change import Change
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.one_image import expected_cost, what_if
from torchxnn.apps.what_if.painting import regions_of
from torchxnn.apps.what_if.result import WhatIf
from torchxnn.apps.what_if.table import FIGURES, ORDERS, WAYS, what_if_table
from torchxnn.cli.main import main
from torchxnn.cli.saved_run import folder_names
from torchxnn.embeddings.apply import anchor
from torchxnn.errors import DataError, LayerError, XNNError
from torchxnn.explanations.drawing.overlay import BLUR, OUTLINE, signed
from torchxnn.explanations.image import Explanation
from torchxnn.metrics import inpaint_images, top_pixels
from torchxnn.metrics.insertion_deletion import control_regions
from torchxnn.models.layers import record_layers, run_with_output
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.training.config import TrainConfig

# the tiny network has few units that agree with a unit's sign
pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def xnn(parts):
    return XNN.from_pretrained(parts.runs / parts.folders[1], small_network())


@pytest.fixture(scope="module")
def image(parts):
    return parts.dataset[[*parts.dataset.labels].index(1)].image


def test_each_change_is_what_a_run_of_its_own_gives(xnn, image):
    config = WhatIfConfig(share=0.2, controls=2, blur=0.0)
    found = what_if(xnn, image, config=config)
    batch = image.unsqueeze(0)
    with torch.no_grad():
        logit, reproduced = float(xnn.model(batch)[0, 1]), float(xnn.predict(batch)[0, 0])
    assert found.logit == pytest.approx(logit, abs=1e-5)
    assert found.reproduced == pytest.approx(reproduced, abs=1e-5)
    assert found.target == 1
    maps = xnn.attribute(batch)[0]
    features, typical = xnn(batch)[0].detach(), xnn.embedding.typical[0]
    for one in found.changes:
        weight = float(xnn.readout_weight[0, one.feature])
        activation = float(features[one.feature])
        contribution = weight * (activation - float(typical[one.feature]))
        assert one.contribution == pytest.approx(contribution, abs=1e-5)
        assert one.set_reproduced == pytest.approx(-contribution, abs=1e-5)
        if activation == 0:
            assert one.pixels == 0
            assert one.masked_real == pytest.approx(0, abs=1e-5)
            continue
        region = top_pixels(maps[one.feature : one.feature + 1], round(0.2 * 144))
        assert torch.equal(torch.from_numpy(one.region), region[0])
        painted = inpaint_images(batch, ~region, xnn.preprocessing)
        with torch.no_grad():
            real, sum_of_all = xnn.model(painted)[0, 1], xnn.predict(painted)[0, 0]
        assert one.masked_real == pytest.approx(float(real) - logit, abs=1e-4)
        expected = float(sum_of_all) - reproduced
        assert one.masked_reproduced == pytest.approx(expected, abs=1e-4)
        count = 2 if one.pixels else 0
        assert len(one.control_real) == len(one.control_reproduced) == count
    sizes = [abs(one.contribution) for one in found.changes]
    assert sizes == sorted(sizes, reverse=True)


def test_the_reconstruction_runs_through_the_rest_of_the_network(xnn, image):
    found = what_if(xnn, image, config=WhatIfConfig(controls=1))
    batch = image.unsqueeze(0)
    with torch.no_grad():
        features = xnn(batch)
        decoded = float(xnn.model.classifier[2:](xnn.embedding.decode(features))[0, 1])
        assert found.decoded == pytest.approx(decoded, abs=1e-5)
        for one in found.changes:
            without = features.clone()
            without[0, one.feature] = xnn.embedding.typical[0, one.feature]
            other = float(xnn.model.classifier[2:](xnn.embedding.decode(without))[0, 1])
            assert one.decoded_real == pytest.approx(other - decoded, abs=1e-5)


def test_other_values_and_chosen_x_features(xnn, image):
    found = what_if(xnn, image, [2], config=WhatIfConfig(value=1.5, controls=1))
    (one,) = found.changes
    weight = float(xnn.readout_weight[0, 2])
    assert one.set_reproduced == pytest.approx(weight * (1.5 - one.activation), abs=1e-5)
    if one.pixels:
        assert "at 1.50" in found.sentence(2)
    with pytest.raises(DataError, match="was not asked for"):
        found.sentence(0)


def test_regions_may_be_smoothed(xnn, image):
    plain = what_if(xnn, image, config=WhatIfConfig(controls=1))
    smoothed = what_if(xnn, image, config=WhatIfConfig(controls=1, blur=0.1))
    assert [a.pixels for a in plain.changes] == [b.pixels for b in smoothed.changes]
    pairs = zip(plain.changes, smoothed.changes, strict=True)
    assert any((a.region != b.region).any() for a, b in pairs)


class Patches(nn.Module):
    """Two numbers: mean brightness left and right; the logit is 3 left + 0 right."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ReLU()
        self.head = nn.Linear(2, 2)
        self.head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
        self.head.bias.data.zero_()

    def forward(self, images):
        halves = images.mean(1).unflatten(2, (2, -1)).mean((1, 3))
        return self.head(self.layer(halves))


def test_the_network_does_not_follow_an_explanation_that_is_wrong():
    """An embedding that claims both halves alike is found out: only one moves the logit."""
    preprocessing = Preprocessing(size=16, resize="squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    net = Patches()
    xnn = XNN(net, "layer", 2, preprocessing=preprocessing)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 16, 16, generator=generator)
    labels = torch.arange(40) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = TrainConfig(hidden=(4,), epochs=2, pretrain_epochs=0, trials=1)
        xnn.fit([(images, labels)], 0, config=config)
    embedding = xnn.embedding
    identity = torch.zeros(4, 2)
    identity[:2] = torch.eye(2)
    with torch.no_grad():
        embedding.scale.fill_(1)
        for layer, weight in zip(embedding.encoder, (identity, identity.T), strict=True):
            layer.weight.copy_(weight)
            layer.bias.zero_()
        embedding.readout.weight.fill_(1.5)
        embedding.readout.bias.zero_()
        anchor(embedding, torch.full((9, 2), 0.2), torch.zeros(9, 1, dtype=torch.bool))
    image = torch.full((3, 16, 16), 0.2)
    image[:, 5:11, 2:6] = 0.9
    image[:, 5:11, 10:14] = 0.9
    found = what_if(xnn, image, config=WhatIfConfig(pixels=24, blur=0.05))
    left, right = found.change(0), found.change(1)
    assert left.set_reproduced == pytest.approx(right.set_reproduced, rel=1e-5)
    assert left.masked_real < -0.1
    assert right.masked_real == pytest.approx(0, abs=0.02)
    assert len(left.control_real) == 40  # 20 for each x-feature
    assert left.p == pytest.approx(1 / 41)
    assert found.p_holm(0) == pytest.approx(2 / 41)
    assert found.used(0)
    assert not found.used(1)
    assert "the network uses it (p = 0.049, corrected for 2 x-features)" in found.sentence(0)
    assert f"not show that the network uses it (p = {found.p_holm(1):.3f}" in found.sentence(1)
    assert "corrected for 2 x-features; needed: at most 0.05)" in found.sentence(1)
    assert found.uses() == (True, False)
    low, high = left.control_range
    assert low == min(left.control_real) < left.control_mean < high == max(left.control_real)
    few = what_if(xnn, image, [0], config=WhatIfConfig(pixels=24, blur=0.05, controls=5))
    assert few.change(0).p == pytest.approx(1 / 6)  # that was enough to say that it is used
    unable = (
        "no other place moves it as far, but so few of them do not show that the network uses it "
        "(p = 0.167; needed: at most 0.05), nor could it be with fewer than 19 controls."
    )
    assert few.sentence(0).endswith(unable)
    assert "nor could it" not in found.sentence(1)  # 40 controls could show it
    one = what_if(xnn, image, config=WhatIfConfig(pixels=24, blur=0.05, controls=1))
    assert "with such a region at another place: no other place" in one.sentence(0)
    assert "with fewer than 39 controls" in one.sentence(0)  # two x-features


def one_change(real, controls, claimed=-1.0):
    """Of an x-feature that claims -1 logit, with a region of one pixel at the top left."""
    image = np.full((8, 8, 3), 100, np.uint8)
    painted, control = image.copy(), image.copy()
    painted[2:4, 2:4] = 0
    control[5:7, 5:7] = 0
    region, elsewhere = ((pixels == 0).all(-1) for pixels in (painted, control))
    change = Change(0, "wing", 1.0, -claimed, 4, claimed, real, 0.0, controls, controls, None,
                    region.astype(np.float32), region, painted, control, elsewhere)  # fmt: skip
    return WhatIf(image, 0, "it", 0.0, 0.0, None, (change,), WhatIfConfig())


def test_a_large_change_that_is_not_enough_is_explained():
    """Seven of 100 other places do as much: (1 + 7) / 101 = 0.079."""
    found = one_change(-0.62, (-0.7,) * 7 + (0.1,) * 93)
    mean = signed((-0.7 * 7 + 0.1 * 93) / 100)
    assert found.sentence(0).endswith(
        f"by {signed(-0.62)}, and by {mean} on average ({signed(-0.7)} to +0.10) with such a "
        "region at one of 100 other places: 7 of these places move it at least as far, so this "
        "does not show that the network uses it (p = 0.079; needed: at most 0.05)."
    )
    against = one_change(0.3, (-0.1,) * 100)
    assert "the network's own does not move as claimed, so this does not" in against.sentence(0)
    assert one_change(-0.62, (-0.1,) * 100).uses() == (True,)


def test_a_region_is_patches_of_the_smoothed_map():
    """Alone a pixel is highest; smoothed, the block that holds more relevance is."""
    assert WhatIfConfig().blur == pytest.approx(2 * BLUR)  # as in cut-outs
    single = torch.zeros(1, 100, 100)
    single[0, ::9, 5] = 1.5  # twelve pixels, far from each other
    single[0, 40:52, 40:52] = 1.0
    active = torch.tensor([True])
    scattered = regions_of(single, active, WhatIfConfig(pixels=12, blur=0.0))[0]
    assert torch.equal(scattered, single[0] == 1.5)
    together = regions_of(single, active, WhatIfConfig(pixels=12))[0]
    assert together[40:52, 40:52].sum() == together.sum() == 12
    (one,), black, shares = one_change(-1.0, (0.0,)).changes, np.zeros((100, 100, 3), np.uint8), []
    for region in (scattered, together):
        one = replace(one, heatmap=single[0].numpy(), region=region.numpy(), pixels=12,
                      masked=black, control=black, control_region=region.numpy())  # fmt: skip
        shares.append((one.pieces, one.relevance_share))
    total = 12 * 1.5 + 144
    assert shares == [(12, pytest.approx(18 / total)), (1, pytest.approx(12 / total))]
    assert one.extent() == "0% of the image in one patch, 7% of its positive relevance"


def test_the_cost_is_said_before_it_begins(xnn, image, monkeypatch):
    """Every run of the network on a painted image is in the number, and the time goes with it."""
    config = WhatIfConfig(controls=7)
    runs, seconds = expected_cost(xnn, image, config)
    assert runs == 3 * 8
    assert seconds > 0
    assert expected_cost(xnn, image)[0] == 3 * (1 + 60)
    counted = []
    run = type(xnn).run
    monkeypatch.setattr(
        type(xnn), "run", lambda x, images: counted.append(len(images)) or run(x, images)
    )
    found = what_if(xnn, image, config=config)
    idle = sum(one.pixels == 0 for one in found.changes)
    assert sum(counted) == runs - 7 * idle


def test_the_page_says_what_a_region_is():
    assert WhatIfConfig().definition() == (
        "where its map is highest after smoothing by 2.7% of the shorter side, 10% of the pixels"
    )
    assert WhatIfConfig(pixels=5, blur=0.0).definition() == "where its map is highest, 5 pixels"
    told = dict(one_change(-1.0, (0.0,)).facts())
    assert told["Region of an x-feature"] == WhatIfConfig().definition()


def test_painted_regions_are_outlined_and_the_range_is_drawn(tmp_path):
    found = one_change(-0.62, (-0.7, 0.5, 0.2))
    _, painted, control = found.pictures(found.changes[0])
    around = np.zeros((8, 8), bool)
    around[1:5, 2:4] = around[2:4, 1:5] = True
    around[2:4, 2:4] = False
    assert ((painted == OUTLINE).all(-1) == around).all()
    assert ((control == OUTLINE).all(-1) == np.roll(around, 3, (0, 1))).all()
    assert (painted[2:4, 2:4] == 0).all()  # what is painted over is seen whole
    restored = found.changes[0].control.copy()
    restored[5, 5] = 100  # painting gave this pixel the colour that it had
    _, _, again = found.pictures(replace(found.changes[0], control=restored))
    assert ((again == OUTLINE).all(-1) == np.roll(around, 3, (0, 1))).all()
    assert found.largest() == 1.0
    found.save(tmp_path / "it")
    page = Page(tmp_path / "it" / "what_if.html")
    assert "range of 3 places: \N{MINUS SIGN}0.70 to +0.50" in page.text
    (line,) = [rect for rect in page.all("rect") if rect["class"] == "range"]
    assert (float(line["x"]), float(line["width"])) == (50 - 35.0, 60.0)
    assert "The rule." in page.text


@pytest.mark.slow
def test_by_luck_no_more_than_one_in_twenty_pictures_gets_a_claim():
    """Of five x-features that the network does not use one beat 5 controls on 60% of pictures."""
    generator = np.random.default_rng(0)

    def claimed(controls):
        empty = np.zeros((2, 2), bool)
        changes = tuple(
            Change(i, "x", 1.0, 1.0, 1, -1.0, draw[0], 0.0, tuple(draw[1:]), (), None,
                   empty.astype(np.float32), ~empty, *[np.zeros((2, 2, 3), np.uint8)] * 2, empty)
            for i, draw in enumerate(generator.standard_normal((5, 1 + controls)).tolist())
        )  # fmt: skip
        found = WhatIf(np.zeros((2, 2, 3), np.uint8), 0, "it", 0.0, 0.0, None, changes,
                       WhatIfConfig())  # fmt: skip
        beaten = [-each.masked_real > max(0.0, *(-c for c in each.control_real))
                  for each in changes]  # fmt: skip
        return any(beaten), any(found.used(i) for i in range(5))

    before = np.mean([claimed(5)[0] for _ in range(400)])
    now = np.mean([claimed(sum(WhatIfConfig().control_counts(5)))[1] for _ in range(400)])
    assert before > 0.5
    assert now < 0.08


def test_half_of_the_controls_lie_on_the_object():
    """The region lies on the object, and controls that all hit background are easily beaten."""
    region = torch.zeros(40, 40, dtype=torch.bool)
    region[10:16, 10:16] = True
    mass = torch.zeros(40, 40)
    mass[8:24, 8:24] = 1.0
    found = control_regions(region, mass, 50, 50, seed=0)
    assert found.shape == (100, 40, 40)
    assert (found.flatten(1).sum(1) == 36).all()
    assert len(found.flatten(1).unique(dim=0)) >= 90  # none twice among either half
    assert not (found == region).flatten(1).all(1).any()
    covered = (found & (mass > 0)).flatten(1).sum(1) / 36
    assert covered[:50].mean() == pytest.approx(16 * 16 / 1600, abs=0.1)
    assert covered[50:].mean() > 0.6
    assert torch.equal(found, control_regions(region, mass, 50, 50, seed=0))
    nowhere = control_regions(region, torch.zeros(40, 40), 0, 50, seed=0)
    assert (nowhere & (mass > 0)).flatten(1).sum(1).double().mean() / 36 < 0.4
    tiny = control_regions(torch.tensor([[True, False]]), torch.ones(1, 2), 2, 2, seed=0)
    assert torch.equal(tiny, torch.tensor([[[False, True]]] * 4))


def test_the_number_of_controls_allows_a_claim_for_every_number_of_x_features():
    for features in (1, 2, 5, 20):
        total = sum(WhatIfConfig().control_counts(features))
        assert total >= 39
        assert features / (total + 1) <= 0.05
    assert WhatIfConfig(controls=7, on_object=1.0).control_counts(5) == (0, 7)
    assert WhatIfConfig(controls=7, on_object=0.0).control_counts(5) == (7, 0)


def test_an_inactive_x_feature_has_no_region(xnn, image):
    state = {name: value.clone() for name, value in xnn.embedding.state_dict().items()}
    try:
        with torch.no_grad():
            xnn.embedding.encoder[-1].bias[0] = -1e4
        found = what_if(xnn, image, config=WhatIfConfig(controls=1))
    finally:
        xnn.embedding.load_state_dict(state)
    one = found.change(0)
    assert one.pixels == 0
    assert one.p is found.p_holm(0) is found.used(0) is None
    assert one.control_real == ()
    assert found.sentence(0).endswith("is inactive on this image.")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": [3]}, DataError, "0 to 2"),
        ({"features": [1, 1]}, DataError, "different"),
        ({"features": []}, DataError, "different"),
        ({"target": 2}, DataError, r"targets are \[1\]"),
        ({"image": torch.zeros(1, 12, 12)}, DataError, "to have 3 channels, but got 1"),
        ({"config": WhatIfConfig(pixels=144)}, DataError, "leaves nothing"),
    ],
)
def test_what_cannot_be_asked(xnn, image, change, error, message):
    options = {"image": image, "features": None, **change}
    with pytest.raises(error, match=message):
        what_if(xnn, options.pop("image"), options.pop("features"), **options)


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"pixels": 0}, {"controls": 0}, {"value": -1.0}, {"on_object": 1.5}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(DataError):
        WhatIfConfig(**wrong)


def test_no_preprocessing_and_no_fit(image):
    with pytest.raises(XNNError, match="not fitted"):
        what_if(XNN(make_net(), LAYER, 3), image)


def test_the_network_is_as_before(xnn, image):
    before = {name: value.clone() for name, value in xnn.model.state_dict().items()}
    xnn.model.train()
    what_if(xnn, image, config=WhatIfConfig(controls=1))
    assert all(module.training for module in xnn.model.modules())
    xnn.model.eval()
    assert all(torch.equal(before[n], v) for n, v in xnn.model.state_dict().items())
    assert not any(module._forward_hooks for module in xnn.model.modules())


# --- other outputs of a layer


@pytest.mark.parametrize("inplace", [False, True])
def test_the_layers_own_output_changes_nothing(inplace):
    net, (images, _) = make_net(inplace=inplace), make_images(4)
    for layer in ("classifier.0", "classifier.1", "features"):
        (z,), logits = record_layers(net, [layer], images)
        kept = z.clone()
        assert torch.allclose(run_with_output(net, layer, images, z), logits, atol=1e-6)
        assert torch.equal(z, kept)


def test_outputs_that_cannot_be_replaced():
    net, (images, _) = make_net(), make_images(2)
    with pytest.raises(DataError, match="cannot replace"):
        run_with_output(net, "classifier.1", images, torch.zeros(2, 7))
    assert not net.classifier[1]._forward_hooks
    shared = nn.Linear(3, 3)
    twice = nn.Sequential(nn.Flatten(), nn.Linear(432, 3), shared, nn.ReLU(), shared)
    with pytest.raises(LayerError, match="2 times"):
        run_with_output(twice, "2", images, torch.zeros(2, 3))


# --- what is written


def test_folder_page_and_figure(xnn, image, tmp_path):
    config = WhatIfConfig(controls=3)
    found = what_if(xnn, image, path='a "quoted" <b> $x$.png', config=config)
    found.save(tmp_path / "it")
    record = json.loads((tmp_path / "it" / "what_if.json").read_text())
    assert record["logit"] == found.logit
    assert [each["feature"] for each in record["changes"]] == [c.feature for c in found.changes]
    for each, one in zip(record["changes"], found.changes, strict=True):
        assert (each["p"], each["p_holm"]) == (one.p, found.p_holm(one.feature))
        assert each["used"] == found.used(one.feature)
    page = Page(tmp_path / "it" / "what_if.html")
    assert "3 other places, 50% of them on the object" in page.text
    for one in found.changes:
        assert found.sentence(one.feature).split(";")[0] in page.text
    assert "<b> $x$.png" in page.text
    assert all(image["src"].startswith("data:") and image["alt"] for image in page.all("img"))
    with Image.open(tmp_path / "it" / "figure.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 5
    found.save(tmp_path / "it")
    for one in found.changes:
        away = one.control_region
        assert away.sum() == one.pixels
        changed = (one.control != found.image).any(-1)
        assert not (changed & ~away).any()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError):
        found.save(tmp_path / "other")


def test_a_saved_result_of_an_earlier_version_shows_where_pixels_changed(tmp_path):
    """Its arrays do not say where the control lies."""
    found = one_change(-0.62, (-0.7, 0.5, 0.2))
    found.save(tmp_path / "it")
    file = tmp_path / "it" / "arrays.npz"
    with np.load(file) as arrays:
        kept = {name: arrays[name] for name in arrays if name != "control_region"}
    np.savez_compressed(file, **kept)
    (read,), (one,) = WhatIf.load(tmp_path / "it").changes, found.changes
    assert (read.control_region == one.control_region).all()


# --- the table


def test_table_agrees_with_single_images(xnn, parts):
    config = WhatIfConfig(share=0.1, controls=1)
    table = what_if_table(xnn, parts.dataset, most=3, config=config)
    rows = [row for row, label in enumerate(parts.dataset.labels) if label == 1]
    chosen = [rows[0], rows[len(rows) // 2], rows[-1]]
    assert table.images == 3
    assert table.positives_by == "label"
    singles = [what_if(xnn, parts.dataset[row].image, config=config) for row in chosen]
    for i, use in enumerate(table.features):
        changes = [each.change(i) for each in singles if each.change(i).activation]
        if use is None:
            assert not changes
            continue
        assert use.images == len(changes)
        claimed = np.mean([each.set_reproduced for each in changes])
        assert use.reproduced == pytest.approx(claimed, abs=1e-4)
        assert use.real == pytest.approx(np.mean([c.masked_real for c in changes]), abs=1e-3)
    n = len(table.feature_names)
    for way in WAYS:
        for order in ORDERS:
            for figure in FIGURES:
                assert len(table.curve(way, order, figure).mean) == n + 1
    logits = np.mean([each.logit for each in singles])
    deletion, insertion = table.curve("deletion"), table.curve("insertion")
    assert deletion.mean[0] == pytest.approx(logits, abs=1e-4)
    assert insertion.mean[-1] == pytest.approx(logits, abs=1e-4)
    assert deletion.mean[-1] == pytest.approx(insertion.mean[0], abs=1e-4)
    assert table.curve("deletion", "random").mean[-1] == pytest.approx(deletion.mean[-1], abs=1e-4)
    assert 0 <= table.curve("deletion", figure="probability").area <= 1


def test_table_is_reproducible_and_says_what_is_missing(xnn, parts):
    calls = []
    first = what_if_table(
        xnn, parts.dataset, most=2, on_image=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 2), (2, 2)]
    assert what_if_table(xnn, parts.dataset, most=2).curves == first.curves
    other = type(parts.dataset)(parts.images / CLASSES[0], xnn.preprocessing, labelled=False)
    predicted = [int(xnn.model(other[i].image.unsqueeze(0)).argmax()) for i in range(len(other))]
    if 1 not in predicted:
        with pytest.raises(DataError, match="no images of"):
            what_if_table(xnn, other)
    else:
        assert what_if_table(xnn, other, most=1).positives_by == "prediction"


def test_commands(parts, tmp_path, capsys):
    run = parts.runs / parts.folders[1]
    images = sorted((parts.images / CLASSES[1]).glob("*.png"))[:2]
    argv = ["whatif", run, *images, "--out", tmp_path / "out", "--share", "0.2", "--controls", "1"]
    assert main([str(a) for a in argv]) == 0
    assert {each.name for each in (tmp_path / "out").iterdir()} == {each.stem for each in images}
    argv = ["whatif", run, parts.images, "--table", "--most", "2", "--out", tmp_path / "table"]
    assert main([str(a) for a in argv]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Deletion: lower is better" in text
    record = json.loads((tmp_path / "table" / "what_if_table.json").read_text())
    assert record["images"] == 2
    assert len(record["curves"]) == 18
    assert main(["whatif", str(run), "a", "b", "--table"]) == 2
    assert math.isfinite(record["curves"][0]["curve"]["area"])


@pytest.mark.slow
def test_explain_and_report_carry_what_was_shown(parts, tmp_path, capsys):
    run = parts.runs / parts.folders[1]
    image = min((parts.images / CLASSES[1]).glob("*.png"))
    argv = ["explain", run, image, "--out", tmp_path / "out", "--what-if"]
    assert main([str(a) for a in argv]) == 0
    folder = tmp_path / "out" / image.stem
    assert f"{folder}/what_if/what_if.html" in "".join(capsys.readouterr().out.split())
    found = WhatIf.load(folder / "what_if")
    shown = Explanation.load(folder)
    assert shown.used == found.uses()
    assert any(each is not None for each in shown.used)
    page = Page(folder / "explanation.html")
    for verdict, words in ((True, "use shown"), (False, "use not shown")):
        assert page.text.count(words) == shown.used.count(verdict)
    assert "not shown does not mean not used" in page.text
    argv = ["report", run, parts.images, "--out", tmp_path / "report.html", "--images", "1",
            "--sheet", "1", "--what-if"]  # fmt: skip
    assert main([str(a) for a in argv]) == 0
    assert re.search("use (not )?shown", Page(tmp_path / "report.html").text)


def test_explain_says_once_what_what_ifs_cost(parts, tmp_path, monkeypatch, capsys):
    run, probed = parts.runs / parts.folders[1], []
    nothing = SimpleNamespace(uses=tuple, save=lambda folder: None)
    place = "torchxnn.apps.what_if.one_image"
    monkeypatch.setattr(f"{place}.what_if", lambda xnn, image, path: nothing)
    monkeypatch.setattr(
        f"{place}.expected_cost", lambda xnn, image: probed.append(image) or (300, 7.0)
    )
    images = sorted((parts.images / CLASSES[1]).glob("*.png"))[:2]
    argv = ["explain", run, *images, "--out", tmp_path / "out", "--what-if"]
    assert main([str(a) for a in argv]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("What if: 300 runs of the network, about 7 s for each image") == 1
    assert len(probed) == 1


def test_what_was_shown_is_of_every_x_feature():
    with pytest.raises(DataError, match=r"used has 2 entries for 3 x-feature"):
        explanation(used=(True, None))
    assert "use" not in str(explanation().details(0, 0))


def test_images_of_one_name_overwrite_no_results(parts, tmp_path):
    """Two files x.png and one x-2.png once gave two folders: the third hid the second."""
    given = sorted((parts.images / CLASSES[1]).glob("*.png"))[:3]
    images = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", tmp_path / "b" / "x-2.png"]
    for source, copy in zip(given, images, strict=True):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(source.read_bytes())
    out = tmp_path / "out"
    argv = ["whatif", parts.runs / parts.folders[1], *images, "--out", out, "--controls", "1"]
    assert main([str(a) for a in argv]) == 0
    assert {each.name for each in out.iterdir()} == {"x", "x-3", "x-2"}


def test_folder_names_are_different():
    names = folder_names([Path(name) for name in ("X.png", "x.jpg", "x-2.png", "x.png", "y.png")])
    assert names == ["X", "x-3", "x-2", "x-4", "y"]
