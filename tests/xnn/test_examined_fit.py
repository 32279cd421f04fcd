"""A fit examines its model first, keeps what it found, and refuses what would be wrong."""

import json
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import make_images, make_net
from torchxnn import XNN
from torchxnn.attribution.methods import PAPER, attributor
from torchxnn.cli.tables import evaluation_table
from torchxnn.data.examined import warn_of_doubts
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError, ModelError, XNNError, XNNWarning
from torchxnn.models.config import OutputsConfig
from torchxnn.models.examination import examine_model
from torchxnn.models.label_agreement import label_agreement
from torchxnn.training.many import fit_many
from xnn_examples import QUICK, make_loader, quick_fit

LAYER = "0.classifier.1"


class Dropping(nn.Module):
    def forward(self, logits):
        return F.dropout(logits, 0.2)


def with_end(*modules, outputs=4):
    return nn.Sequential(make_net(outputs), *modules).eval()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (with_end(Dropping()), "dropout or noise is on in the Dropping '1'"),
        (with_end(nn.BatchNorm1d(4, track_running_stats=False)), "the BatchNorm1d '1'"),
        (with_end(nn.Softmax(1)), r"model.set_submodule\('1', torch.nn.Identity\(\)\)"),
        (with_end(nn.Sigmoid(), outputs=1), "the Sigmoid '1'"),
    ],
)
def test_a_fit_is_refused_before_the_second_batch(model, message, tmp_path):
    seen = []

    def loader():
        for batch in make_loader():
            seen.append(batch)
            yield batch

    with pytest.raises(ModelError, match=message):
        XNN(model, LAYER).fit(loader(), 0)
    assert len(seen) == 1
    data = torch.utils.data.TensorDataset(*make_images(8))
    with pytest.raises(ModelError, match=message):
        cache_activations(model, LAYER, data, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_is_allowed_is_fitted_and_noted():
    xnn = XNN(with_end(Dropping()), LAYER)
    quick_fit(xnn, make_loader(), 1, allow=("randomness",))
    assert "other outputs the second time" in xnn.examination.text


def test_what_was_found_is_saved_and_read_back(tmp_path):
    xnn = XNN(make_net(), "classifier.1")
    quick_fit(xnn, make_loader(), 1)
    found = xnn.examination
    assert (found.agreement.images, found.outputs) == (96, "logits")
    xnn.save_pretrained(tmp_path / "xnn")
    assert XNN.from_pretrained(tmp_path / "xnn", make_net()).examination == found
    text = (tmp_path / "xnn" / "xnn.json").read_text()
    about = json.loads(text)
    del about["examination"]  # as earlier versions wrote it
    (tmp_path / "xnn" / "xnn.json").write_text(json.dumps(about))
    assert XNN.from_pretrained(tmp_path / "xnn", make_net()).examination is None
    (tmp_path / "xnn" / "xnn.json").write_text(text.replace('"twice"', '"thrice"'))
    with pytest.raises((ModelError, DataError), match="thrice"):
        XNN.from_pretrained(tmp_path / "xnn", make_net())


class Packed(nn.Module):
    """Weights that are no parameters, and activations that are stored."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.weight, self.last = sign * torch.eye(4), None

    def forward(self, logits):
        self.last = logits @ self.weight
        return self.last


def test_an_xnn_attaches_to_no_other_packed_weights(tmp_path):
    model = with_end(Packed())
    with torch.no_grad():
        model(make_images(3)[0])
    xnn = XNN(model, LAYER)
    quick_fit(xnn, make_loader(), 1)
    assert xnn.examination.changing == ("1.last",)
    xnn.save_pretrained(tmp_path / "xnn")
    XNN.from_pretrained(tmp_path / "xnn", with_end(Packed()))
    with pytest.raises(ModelError, match="explains another model"):
        XNN.from_pretrained(tmp_path / "xnn", with_end(Packed(-1.0)))
    about = json.loads((tmp_path / "xnn" / "xnn.json").read_text())
    del about["examination"]
    about["model_fingerprint"] = "of parameters and buffers alone"
    (tmp_path / "xnn" / "xnn.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="explains another model"):
        XNN.from_pretrained(tmp_path / "xnn", with_end(Packed()))


def test_a_cache_keeps_it_for_the_xnns_of_all_classes(tmp_path):
    data = torch.utils.data.TensorDataset(*make_images(64))
    cache = cache_activations(with_end(Packed()), LAYER, data, tmp_path / "cache")
    cache.check(model=with_end(Packed()))
    with pytest.raises(ModelError, match="another model"):
        cache.check(model=with_end(Packed(-1.0)))
    again = cache_activations(with_end(Packed()), LAYER, data, tmp_path / "cache")
    assert again.examination == cache.examination
    assert cache.examined.agreement == label_agreement(cache.predicted, cache.labels, 4)
    with warnings.catch_warnings(action="ignore"):
        fit_many(cache, [1], config=QUICK, out=tmp_path / "out")
    saved = XNN.from_pretrained(tmp_path / "out" / "0001", with_end(Packed()))
    assert saved.examination == cache.examined


def test_labels_in_another_order_are_said():
    net, (images, _) = make_net(), make_images(96)
    with torch.no_grad():
        predicted = net(images).argmax(1)
    right = label_agreement(predicted, predicted, 4)
    assert (right.share, right.near_chance, right.doubt) == (1.0, False, "")
    found = XNN(net, "classifier.1")
    shifted = list(zip(images.split(32), ((predicted + 1) % 4).split(32), strict=True))
    wanted = "predicts the label of 0% of 96 .*is the order of the classes that of its outputs"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.fit(shifted, int((predicted[0] + 1) % 4), config=QUICK)
    said = [str(each.message) for each in caught if issubclass(each.category, XNNWarning)]
    assert any(re.search(wanted, text) for text in said)


def test_labels_of_a_validation_and_of_an_evaluation_are_compared_too():
    net, (images, _) = make_net(), make_images(96)
    with torch.no_grad():
        predicted = net(images).argmax(1)
    target = int(predicted.mode().values)
    right, wrong = [(images, predicted)], [(images, (predicted + 1) % 4)]
    xnn = XNN(net, "classifier.1")
    asked = "label of 0% of 96 .*is the order of the classes that of its outputs"
    with pytest.warns(XNNWarning, match=f"of the validation, .*{asked}"):
        xnn.fit(right, target, validation=wrong, config=QUICK)
    with pytest.warns(XNNWarning, match=asked):
        found = xnn.evaluate(wrong, maps=False)
    assert found.agreement.share == 0.0
    assert "predicts the label of 0% of 96" in evaluation_table(found).caption
    assert xnn.evaluate(right, maps=False).agreement.share == 1.0
    assert xnn.evaluate([images], maps=False).agreement is None


def test_one_class_alone_tells_no_order():
    ones = torch.ones(96, dtype=torch.long)
    assert label_agreement(ones, ones, 4).doubt == ""
    assert label_agreement(torch.arange(96) % 4, ones, 4).doubt == ""


def test_outputs_between_0_and_1_are_said():
    plain = examine_model(make_net(), make_images(8)[0])
    with pytest.warns(XNNWarning, match="all between 0 and 1"):
        warn_of_doubts(plain, bounded=True)
    warn_of_doubts(plain)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_what_a_softmax_gives_is_refused_or_explained_with_a_map_by_another_method(last):
    images, labels = make_images(48)
    xnn = XNN(with_end(last), LAYER)
    loader = [(images, labels)]
    with pytest.raises(ModelError, match=r"leave it out: model\.set_submodule\('1', torch.nn.Id"):
        xnn.fit(loader, 1, config=QUICK)
    with warnings.catch_warnings(action="ignore"):
        xnn.fit(loader, 1, config=QUICK, allow=["probabilities"])
        found = xnn.explain(images[1])
        with pytest.raises(XNNError, match=r"another method \(integrated_gradients\)"):
            attributor(PAPER, xnn.model).attribute(images[:1], 1)
    assert found.certificate.conservation_error < 1e-4
    assert float(found.logit_heatmaps.abs().sum()) > 0
    assert "that of the whole output: integrated gradients" in found.certificate_lines()[-1]
    assert found.quantity.endswith("probability")


def test_an_allowed_sigmoid_decides_at_one_half(tmp_path):
    images, _ = make_images(48)
    single = with_end(nn.Sigmoid(), outputs=1)
    with torch.no_grad():
        single[0].classifier[-1].bias -= single[0](images).mean()
        chances = single(images)[:, 0]
    truth = (chances > 0.5).long()
    xnn = XNN(single, LAYER, class_names=("ill",))
    with pytest.warns(XNNWarning, match="are probabilities, which is allowed: .* above 0.5"):
        xnn.fit([(images, truth)], 0, config=QUICK, allow=["probabilities"])
    assert xnn.examination.agreement.share == 1.0
    xnn.save_pretrained(tmp_path / "xnn")
    again = XNN.from_pretrained(tmp_path / "xnn", single)
    for row in (int(chances.argmin()), int(chances.argmax())):
        with warnings.catch_warnings(action="ignore"):
            found = again.explain(images[row])
        assert found.predicted_class == truth[row]
        assert found.predicted_name == ("not ill", "ill")[truth[row]]
    data = torch.utils.data.TensorDataset(images, truth)
    allow = {"allow": ["probabilities"]}
    cache = cache_activations(single, LAYER, data, tmp_path / "cache", **allow)
    assert torch.equal(cache.predicted, truth)
    assert cache.settled_labels(OutputsConfig())[1].scale == "probabilities"


def test_labels_of_an_allowed_sigmoid_are_seen_above_one_half():
    images, _ = make_images(48)
    model = with_end(nn.Sigmoid())
    with torch.no_grad():
        model[0].classifier[-1].bias -= model[0](images).mean(0)
        chances = model(images)
    xnn = XNN(model, LAYER)
    with warnings.catch_warnings(action="ignore"):
        xnn.fit([(images, (chances > 0.5).long())], 1, config=QUICK, allow=["probabilities"])
        rows = chances[:, 1].argmin(), chances[:, 1].argmax()
        low, high = (xnn.explain(images[int(row)]) for row in rows)
    assert (low.predicted_class, high.predicted_class) == (None, 1)
    assert low.sentence().startswith("The network does not see")
    assert xnn.report.validation.f_cls is not None


def test_a_sigmoid_at_the_end_of_a_regression_is_a_value():
    images, _ = make_images(48)
    loader = [(images, torch.rand(48, generator=torch.Generator().manual_seed(0)))]
    model = with_end(nn.Sigmoid(), outputs=1)
    with pytest.raises(ModelError, match="outputs_are='value'"):
        XNN(model, LAYER).fit(loader, 0, config=QUICK)
    xnn = XNN(model, LAYER, outputs_are="value")
    with warnings.catch_warnings(action="ignore"):
        xnn.fit(loader, 0, config=QUICK)
        assert xnn.explain(images[0]).sentence().startswith("The value is 0.")


def test_one_name_of_a_single_logit_is_that_of_what_it_speaks_for():
    images, _ = make_images(48)
    model = make_net(1)
    with torch.no_grad():
        model.classifier[-1].bias -= model(images).mean()
        logits = model(images)[:, 0]
    xnn = XNN(model, "classifier.1", class_names=("polyp",))
    with warnings.catch_warnings(action="ignore"):
        xnn.fit([(images, (logits > 0).long())], 0, config=QUICK)
        against, its = (xnn.explain(images[int(row)]) for row in (logits.argmin(), logits.argmax()))
    assert (against.predicted_name, against.target_names) == ("not polyp", ("polyp",))
    assert against.sentence().startswith("The network sees not a polyp; ")
    assert its.predicted_name == "polyp"


def test_logits_with_further_dimensions_and_double_precision_are_explained_as_they_are():
    images, labels = make_images(48)
    plain = XNN(make_net(), "classifier.1")
    with warnings.catch_warnings(action="ignore"):
        plain.fit([(images, labels)], 1, config=QUICK)
        wanted = plain.explain(images[1])
        for model, name, given in (
            (with_end(Around()), LAYER, images),
            (make_net().double(), "classifier.1", images),
            (make_net(), "classifier.1", images.double()),
        ):
            xnn = XNN(model, name)
            xnn.attach_embedding(plain.embedding, [1], 4)
            found = xnn.explain(given[1])
            assert torch.allclose(found.logits.float(), wanted.logits, atol=1e-4)
            assert np.allclose(found.heatmaps, wanted.heatmaps, atol=1e-4)
            assert found.certificate.conservation_error < 1e-4


class Around(nn.Module):
    """Puts dimensions of size 1 around logits."""

    def forward(self, logits):
        return logits[:, None, :, None]


class BlueFirst(nn.Module):
    """As docs/unusual_inputs.md has it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images.flip(1))


def test_channels_in_another_order_are_turned_by_a_wrapper():
    images, labels = make_images(48)
    plain = XNN(make_net(), "classifier.1")
    with warnings.catch_warnings(action="ignore"):
        plain.fit([(images, labels)], 1, config=QUICK)
        wanted = plain.explain(images[1])
        turned = XNN(BlueFirst(make_net()), "model.classifier.1")
        turned.attach_embedding(plain.embedding, [1], 4)
        found = turned.explain(images[1].flip(0))
    assert torch.equal(found.logits, wanted.logits)
    assert np.allclose(found.heatmaps, wanted.heatmaps, atol=1e-5)
