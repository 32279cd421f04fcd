"""Labels that do not exclude each other, values, and what is not known, from fit to sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torchxnn import XNN, TrainConfig
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.table import what_if_table
from torchxnn.cli.tables import fit_table
from torchxnn.cli.what_if import curve_table
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.record import cache_activations, record_activations
from torchxnn.errors import DataError, XNNError
from torchxnn.explanations.contrast import contrast
from torchxnn.models.config import OutputsConfig
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.training.many import fit_many
from xnn_examples import quick_fit

QUICK = TrainConfig((12,), epochs=12, batch_size=32, pretrain_epochs=1, trials=1, components=0.0)
pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
NAMES = ("red", "green", "blue")


def linear_net(outputs):
    """Output k is high where colour k is bright."""
    torch.manual_seed(0)
    layers = nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, outputs)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), *layers)
    with torch.no_grad():
        net[2].weight.mul_(0.2)
        net[4].weight.mul_(0.2)
        for k in range(outputs):
            net[2].weight[k, 4 * k : 4 * k + 4] += 1.0
            net[2].weight[k + 5, 4 * k : 4 * k + 2] += 1.0
            net[4].weight[k, [k, k + 5]] += 3.0
            net[4].bias[k] = -6.0
    return net.eval()


def images_of(truth):
    """Pictures (M, 3, 8, 8) whose colour k is as bright as column k says."""
    generator = torch.Generator().manual_seed(1)
    noise = 0.4 * torch.rand(len(truth), 3, 8, 8, generator=generator)
    return noise + truth.float()[:, :, None, None]


def batches(images, labels):
    return list(zip(images.split(24), labels.split(24), strict=True))


@pytest.fixture(scope="module")
def several():
    truth = (torch.rand(120, 3, generator=torch.Generator().manual_seed(2)) < 0.5).long()
    return images_of(truth), truth


@pytest.fixture(scope="module")
def seen(several):
    images, truth = several
    xnn = XNN(linear_net(3), "3", class_names=NAMES)
    quick_fit(xnn, batches(images, truth), 1, QUICK)
    return xnn


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_a_column_of_multi_hot_labels_says_who_is_a_positive(several, dtype):
    images, truth = several
    data = record_activations(linear_net(3), "3", batches(images, truth.to(dtype)))
    assert data.meaning.outputs_are == "labels"
    assert torch.equal(data.labels, truth)


def test_the_report_and_the_figures_are_those_of_labels(several, seen):
    images, truth = several
    assert (seen.meaning.outputs_are, seen.report.positives_by) == ("labels", "label")
    held_out, fitted = seen.report.validation.positives, seen.report.train.positives
    assert held_out + fitted == int(truth[:, 1].sum())
    found = seen.evaluate(batches(images, truth), maps=False).faithfulness
    output = seen.run(images)
    kept = (output.reproduced[:, 0] > 0) == (output.logits[:, 1] > 0)
    assert found.f_cls == pytest.approx(float(kept.double().mean()))
    margin = output.logits[truth[:, 1] == 1, 1].abs().mean()
    assert found.margin == pytest.approx(float(margin), rel=1e-4)


def test_what_is_seen_is_the_logit_of_the_target_and_no_largest_one(several, seen):
    images, truth = several
    logits = seen.run(images).logits
    there = int(((logits[:, 1] > 0.5) & (logits.argmax(1) != 1)).nonzero()[0])
    explained = seen.explain(images[there], label=truth[there])
    assert explained.predicted_class == 1
    assert explained.predicted_name.startswith("green")
    assert explained.sentence().startswith("The network sees a green")
    assert dict(explained.facts())["True labels"] == explained.label
    assert "green" in explained.label
    absent = int((logits[:, 1] < -1).nonzero()[0])
    other = seen.explain(images[absent])
    assert other.predicted_class is None
    assert other.sentence().startswith("The network does not see a green")


def test_saved_and_loaded_it_means_the_same(several, seen, tmp_path):
    seen.save_pretrained(tmp_path / "x")
    again = XNN.from_pretrained(tmp_path / "x", seen.model)
    assert again.meaning == seen.meaning
    image = several[0][0]
    assert again.explain(image).sentence() == seen.explain(image).sentence()
    explained = seen.explain(image)
    explained.save(tmp_path / "e")
    assert type(explained).load(tmp_path / "e").sentence() == explained.sentence()
    about = json.loads((tmp_path / "x" / "xnn.json").read_text())
    del about["meaning"]  # as earlier versions wrote it
    (tmp_path / "x" / "xnn.json").write_text(json.dumps(about))
    assert XNN.from_pretrained(tmp_path / "x", seen.model).meaning.outputs_are == "classes"


def test_images_whose_label_is_not_known_are_neither(several):
    images, truth = several
    for unknown in (-1.0, float("nan")):
        labels = truth.float()
        labels[:30, 1] = unknown
        labels[30:60, 0] = unknown
        xnn = XNN(linear_net(3), "3")
        report = quick_fit(xnn, batches(images, labels), 1, QUICK)
        assert report.train.images + report.validation.images == 90
        assert xnn.evaluate(batches(images, labels), maps=False).faithfulness.images == 90
        with pytest.raises(DataError, match="no label of a target is known"):
            xnn.evaluate(batches(images[:30], labels[:30]), maps=False)


def test_rows_of_one_label_each_are_classes_unless_the_user_says_otherwise():
    kinds = torch.arange(96) % 3
    truth = nn.functional.one_hot(kinds)
    images = images_of(truth)
    data = record_activations(linear_net(3), "3", batches(images, truth))
    assert data.meaning.outputs_are == "classes"
    assert torch.equal(data.labels, kinds)
    xnn = XNN(linear_net(3), "3", outputs_are="labels")
    quick_fit(xnn, batches(images, truth), 2, QUICK)
    assert xnn.meaning.outputs_are == "labels"


def test_without_labels_the_logits_say_it(several):
    images, _ = several
    xnn = XNN(linear_net(3), "3", outputs_are="labels")
    report = quick_fit(xnn, list(images.split(24)), 1, QUICK)
    assert report.positives_by == "prediction"
    expected = int((xnn.run(images).logits[:, 1] > 0).sum())
    assert report.train.positives + report.validation.positives == expected


def test_many_labels_from_a_cache(several, tmp_path):
    images, truth = several
    labels = truth.float()
    labels[:20, 0] = float("nan")
    data = list(zip(images, labels, strict=True))
    cache = cache_activations(linear_net(3), "3", data, tmp_path / "cache")
    assert torch.equal(cache.labels.nan_to_num(-1), labels.nan_to_num(-1))
    fits = fit_many(cache, config=QUICK, out=tmp_path / "runs")
    assert [each.error for each in fits.classes] == [None] * 3
    totals = [each.report.train.images + each.report.validation.images for each in fits.classes]
    assert totals == [100, 120, 120]
    xnn = XNN.from_pretrained(fits.classes[1].location, linear_net(3))
    assert xnn.meaning.outputs_are == "labels"


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (torch.rand(96, 3), {}, "labels (B, K) are 0, 1, or -1"),
        (torch.ones(96, 4), {}, "labels (B, 4) do not fit a model with 3 output(s)"),
        (torch.ones(96, 3), {"outputs_are": "classes"}, "classes exclude each other"),
        (torch.rand(96), {}, "whole numbers from 0; of a model with one number as its output"),
        (torch.arange(96) % 3 + 1, {}, "a label 3, and a model with 3 output(s)"),
        (torch.ones(96, 3, 2), {}, "labels must be (B,), or (B, K) for K outputs, got (24, 3, 2)"),
    ],
)  # fmt: skip
def test_labels_that_fit_nothing_are_refused(labels, options, message):
    images = images_of(torch.zeros(96, 3))
    with pytest.raises(DataError) as caught:
        XNN(linear_net(3), "3", **options).fit(batches(images, labels), 1, config=QUICK)
    assert message in str(caught.value)


# Values


@pytest.fixture(scope="module")
def measured():
    values = 3 * torch.rand(120, generator=torch.Generator().manual_seed(3))
    return images_of(values[:, None].expand(-1, 3) / 3), values


@pytest.mark.parametrize(
    ("positives", "rule", "share"),
    [(None, "(upper quarter)", 0.25), ("top 10%", "(upper 10%)", 0.1), (2.5, "value >= 2.5", None)],
)
def test_high_values_are_the_positives(measured, positives, rule, share):
    images, values = measured
    xnn = XNN(linear_net(1), "3", positives=positives, class_names=["age"])
    report = quick_fit(xnn, batches(images, values), 0, QUICK)
    assert report.positives_by.startswith("value >= ")
    assert report.positives_by.endswith(rule)
    count = report.train.positives + report.validation.positives
    expected = int((values >= 2.5).sum()) if share is None else round(share * 120)
    assert abs(count - expected) <= 1
    assert report.validation.f_cls is report.validation.margin is None
    found = xnn.evaluate(batches(images, values), maps=False)
    assert found.positives_by == report.positives_by
    assert (found.faithfulness.positives, found.faithfulness.f_cls_positives) == (count, None)
    top = xnn.explain(images[int(values.argmax())], label=float(values.max()))
    assert top.sentence().startswith(("The age is ", "The age is"))
    assert "class" not in top.summary()
    assert "F_cls" not in top.summary()
    assert top.predicted_class is None


def test_what_the_user_says_of_recorded_activations_goes_before_what_they_say(measured):
    images, values = measured
    data = record_activations(linear_net(1), "3", batches(images, values))
    assert data.meaning.origin == "upper quarter"
    own = XNN(linear_net(1), "3", positives="1.8")
    report = own.fit_activations(data, 0, config=QUICK)
    assert own.meaning.thresholds == (1.8,)
    assert report.positives_by == "value >= 1.8"
    again = data.settled(own.outputs_config)
    assert again.settled(OutputsConfig("value")) is again  # says nothing new
    assert again.settled(OutputsConfig()) is again


def test_values_without_labels_are_the_models_own(measured):
    images, _ = measured
    xnn = XNN(linear_net(1), "3", outputs_are="value")
    report = quick_fit(xnn, list(images.split(24)), 0, QUICK)
    own = xnn.run(images).logits[:, 0]
    expected = int((own >= own.quantile(0.75)).sum())
    assert report.train.positives + report.validation.positives == expected
    assert xnn.target_name(0) == "value"


def test_whole_numbers_of_a_single_output_need_a_word(measured):
    images, values = measured
    years = (20 * values).long()
    with pytest.raises(DataError, match=r"has classes 0 to 1; .*outputs_are='value'"):
        XNN(linear_net(1), "3").fit(batches(images, years), 0, config=QUICK)
    xnn = XNN(linear_net(1), "3", outputs_are="value")
    assert "upper quarter" in quick_fit(xnn, batches(images, years), 0, QUICK).positives_by


def test_float_labels_0_and_1_of_a_single_logit_are_classes():
    kinds = (torch.arange(96) % 2).float()
    images = images_of(kinds[:, None].expand(-1, 3))
    for labels in (kinds, kinds[:, None], kinds.bool()):
        data = record_activations(linear_net(1), "3", batches(images, labels))
        assert data.meaning.outputs_are == "classes"
        assert torch.equal(data.labels, kinds.long())


@pytest.mark.parametrize("positives", ["0%", "100%", "high", "1.2.3", ""])
def test_positives_that_are_neither_number_nor_share(positives):
    with pytest.raises(XNNError, match=r"a number from which on values are high \(2\.5\)"):
        XNN(linear_net(1), "3", positives=positives)


def test_positives_are_of_values():
    with pytest.raises(XNNError, match="positives= is for values"):
        XNN(linear_net(3), "3", outputs_are="labels", positives="5%")


def test_a_contrast_of_labels_denies_neither(several, seen):
    images, truth = several
    both = int(((truth[:, 1] == 1) & (truth[:, 2] == 1)).nonzero()[0])
    other = XNN(seen.model, "3", class_names=NAMES)
    quick_fit(other, batches(images, truth), 2, QUICK)
    first, second = seen.explain(images[both]), other.explain(images[both])
    found = contrast(first, second)
    assert "rather than" not in found.sentence()
    assert found.sentence().startswith("The logit of ")
    assert found.first in found.sentence().partition(" is larger than that of ")[0]
    assert found.logits[0] >= found.logits[1]
    with pytest.raises(DataError, match="needs two outputs"):
        contrast(first, first)


@pytest.mark.parametrize("kind", ["labels", "value"])
def test_a_table_of_what_if_has_the_probability_of_a_label_and_none_of_a_value(
    kind, several, tmp_path
):
    images, truth = several
    net = linear_net(3)
    preprocessing = Preprocessing(size=8, resize="squash", mean=(0.0,), std=(1.0,)).with_channels(3)
    xnn = XNN(net, "3", class_names=NAMES, outputs_are=kind, preprocessing=preprocessing)
    quick_fit(xnn, batches(images, truth.float() if kind == "value" else truth), 1, QUICK)
    for row in range(4):
        pixels = (preprocessing.picture(images[row]) * 0.99).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
    xnn_data = ImageFolder(tmp_path, preprocessing, labelled=False)
    logits = xnn.run(torch.stack([sample.image for sample in xnn_data])).logits
    row = int(logits[:, 1].argmax())
    if float(logits[row, 1]) <= (0.0 if kind == "labels" else xnn.meaning.thresholds[1]):
        pytest.skip("no picture is a positive")
    table = what_if_table(xnn, xnn_data, most=1, config=WhatIfConfig(share=0.2, controls=1))
    if kind == "value":
        assert table.figures == ("logit", "reproduced")
    else:
        first = table.curve("deletion", figure="probability").mean[0]
        assert first == pytest.approx(float(logits[row, 1].sigmoid()), abs=0.3)
        assert "probability" in table.figures
    assert {column.header for column in curve_table(table).columns} >= {"network's logit"}


def test_tables_leave_out_what_has_no_meaning(seen, measured):
    images, values = measured
    aged = XNN(linear_net(1), "3", outputs_are="value")
    quick_fit(aged, batches(images, values), 0, QUICK)
    assert "F_cls" in set(fit_table(seen.report).columns[0].cells)
    figures = set(fit_table(aged.report).columns[0].cells)
    assert {"F_reg", "R²"} <= figures
    assert not any(name.startswith(("F_cls", "Margin")) for name in figures)
