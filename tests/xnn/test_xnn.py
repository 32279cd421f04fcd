import json
import re
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import make_images, make_net
from model_state import assert_same_state, state_of
from torchxnn import XNN
from torchxnn.apps.saved_xnn import open_run
from torchxnn.attribution.effective_weights import EFFECTIVE
from torchxnn.attribution.methods import METHODS, PAPER
from torchxnn.data.record import record_activations
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import DataError, LayerError, ModelError, NonFiniteError, XNNError, XNNWarning
from torchxnn.explanations.maps import Units
from torchxnn.models.preprocessing import Preprocessing
from xnn_examples import QUICK, make_loader, quick_fit

# Networks with random weights have units that only their bias excites; that warning is tested where
# it belongs.
pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")


@pytest.fixture(scope="module")
def fitted():
    xnn = XNN(make_net(), "classifier.1", 3, class_names=("a", "b", "c", "d"))
    quick_fit(xnn, make_loader(), 1)
    return xnn


def test_shapes_and_sums(fitted):
    images, _ = make_images(5)
    features = fitted(images)
    assert features.shape == (5, 3)
    contributions = fitted.contributions(images)
    assert contributions.shape == (5, 1, 3)
    total = contributions.sum(2) + fitted.intercept
    assert torch.allclose(total, fitted.predict(images), atol=1e-5)
    paper = fitted.contributions(images, anchored=False)
    total = paper.sum(2) + fitted.embedding.readout.bias
    assert torch.allclose(total, fitted.predict(images), atol=1e-5)
    assert fitted.attribute(images).shape == (5, 3, 12, 12)


def test_batch_equals_single(fitted):
    images, _ = make_images(4)
    assert torch.allclose(fitted(images)[2:3], fitted(images[2:3]), atol=1e-6)
    maps = fitted.attribute(images)
    assert torch.allclose(maps[2:3], fitted.attribute(images[2:3]), atol=1e-6)


def test_contrastive_maps_sum_to_zero_and_carry_a_certificate(fitted):
    images, _ = make_images(4)
    maps, certificate = fitted.attribute(images, return_certificate=True)
    assert torch.allclose(maps.sum((2, 3)), torch.zeros(4, 3), atol=1e-5)
    assert certificate.conservation_error < 1e-4


@pytest.mark.parametrize(("targets", "n"), [(1, 5), ([0, 1], 7)])
def test_default_number_of_features(targets, n):
    xnn = XNN(make_net(), "classifier.1")
    quick_fit(xnn, make_loader(), targets, replace(QUICK, epochs=1))
    assert xnn.embedding.n_features == n
    assert xnn.predict(make_images(2)[0]).shape == (2, 1 if isinstance(targets, int) else 2)


def test_layer_given_as_a_module():
    net = make_net()
    assert XNN(net, net.classifier[1]).layer == "classifier.1"
    with pytest.raises(LayerError, match="nearest"):
        XNN(net, "classifier.9")


def test_parameters_concern_the_embedding_alone(fitted):
    names = {name.split(".")[0] for name, _ in fitted.named_parameters()}
    assert names == {"embedding"}
    assert all(key.startswith("embedding.") for key in fitted.state_dict())
    net = make_net()
    xnn = XNN(net, "classifier.1")
    assert list(xnn.parameters()) == []
    xnn.train()
    assert not net.training


def test_the_model_is_untouched_by_every_call():
    net = make_net().train()
    net.classifier[0].weight.requires_grad_(False)
    before = state_of(net)
    xnn = XNN(net, "classifier.1", 3)
    quick_fit(xnn, make_loader(), 1)
    images, _ = make_images(4)
    xnn(images)
    xnn.contributions(images)
    xnn.predict(images)
    xnn.attribute(images)
    xnn.explain(images[0])
    xnn.evaluate(make_loader())
    with pytest.raises(NonFiniteError):
        xnn(images * float("nan"))
    assert_same_state(before, state_of(net))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_gradients_reach_the_image(fitted):
    images = make_images(2)[0].requires_grad_()
    fitted(images).sum().backward()
    assert bool((images.grad != 0).any())
    fitted.zero_grad()
    fitted.model.zero_grad()


def test_positives_by_label_and_by_prediction():
    xnn = XNN(make_net(), "classifier.1", 3)
    data = record_activations(xnn.model, "classifier.1", make_loader(labels=False))
    target = int(data.logits.argmax(1).mode().values)
    report = quick_fit(xnn, make_loader(labels=False), target)
    assert report.positives_by == "prediction"
    assert quick_fit(xnn, make_loader(), 1).positives_by == "label"


def test_given_validation_data_are_used():
    xnn = XNN(make_net(), "classifier.1", 3)
    report = quick_fit(xnn, make_loader(), 1, validation=make_loader(32, seed=5))
    assert (report.held_out, report.validation.images, report.train.images) == ("given", 32, 96)


def test_evaluate_measures_faithfulness_and_orthogonality(fitted):
    evaluation = fitted.evaluate(make_loader())
    assert evaluation.faithfulness.images == 96
    assert evaluation.orthogonality.maps == 24
    assert evaluation.certificate.conservation_error < 1e-4
    fast = fitted.evaluate(make_loader(), maps=False)
    assert fast.orthogonality is None
    assert fast.faithfulness == evaluation.faithfulness
    with pytest.raises(DataError, match="empty"):
        fitted.evaluate([])
    images, labels = make_images(8)
    with pytest.raises(DataError, match="labels for some batches only"):
        fitted.evaluate([(images, labels), images], maps=False)


def test_evaluate_equals_the_figures_of_the_fit():
    xnn = XNN(make_net(), "classifier.1", 3)
    report = quick_fit(xnn, make_loader(), 1, validation=make_loader(32, seed=5))
    again = xnn.evaluate(make_loader(32, seed=5), maps=False).faithfulness
    assert again.f_reg == pytest.approx(report.validation.f_reg, rel=1e-4)
    assert again.r2 == pytest.approx(report.validation.r2, rel=1e-4)


def test_explain_adds_up(fitted):
    images, _ = make_images(2)
    explanation = fitted.explain(images[1], label=1)
    assert explanation.heatmaps.shape == (3, 12, 12)
    assert explanation.logit_heatmaps.shape == (1, 12, 12)
    assert explanation.target_names == ("b",)
    assert explanation.label == "b"
    assert torch.allclose(
        explanation.contributions.sum(1) + explanation.intercept, explanation.reproduced, atol=1e-5
    )
    assert torch.allclose(explanation.logits, fitted.model(images[1:2])[0, [1]], atol=1e-5)
    assert explanation.image.shape == (12, 12, 3)
    assert explanation.predicted_class == int(fitted.model(images[1:2]).argmax())


def test_explain_wants_one_image(fitted):
    with pytest.raises(DataError, match="one image"):
        fitted.explain(make_images(2)[0])


def test_unknown_method_is_named(fitted):
    with pytest.raises(XNNError, match="excitation_backprop"):
        fitted.attribute(make_images(1)[0], method="magic")


def test_not_fitted_says_so():
    xnn = XNN(make_net(), "classifier.1")
    for call in (xnn, xnn.predict, xnn.attribute, xnn.contributions):
        with pytest.raises(XNNError, match="not fitted"):
            call(make_images(1)[0])
    with pytest.raises(XNNError, match="not fitted"):
        xnn.save_pretrained("nowhere")


def test_a_layer_that_runs_twice_is_refused_when_called(fitted):
    class Twice(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            self.inner.classifier[1](torch.zeros(1))
            return self.inner(x)

    xnn = XNN(Twice(make_net()), "inner.classifier.1", 3)
    xnn.attach_embedding(fitted.embedding, fitted.targets)
    with pytest.raises(LayerError, match="2 times"):
        xnn(make_images(1)[0])


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], DataError, "empty"),
        ([{"image": 1}], DataError, "dict"),
        ([(torch.rand(2, 3, 12, 12), torch.zeros(2, 3))], DataError, "labels"),
        ([torch.full((2, 3, 12, 12), float("nan"))], NonFiniteError, "NaN"),
        ([(torch.rand(2, 3, 12, 12), torch.zeros(2)), torch.rand(2, 3, 12, 12)], DataError, "some"),
    ],
)
def test_bad_loaders_are_named(loader, error, message):
    with pytest.raises(error, match=message):
        XNN(make_net(), "classifier.1").fit(loader, 1)


def test_nan_weights_are_named():
    net = make_net()
    net.classifier[0].weight.data[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"classifier\.1"):
        XNN(net, "classifier.1").fit(make_loader(), 1)


def test_save_and_load(fitted, tmp_path):
    fitted.preprocessing = Preprocessing(size=16, resize="squash")
    fitted.save_pretrained(tmp_path / "x")
    loaded = XNN.from_pretrained(tmp_path / "x", make_net())
    images, _ = make_images(3)
    assert torch.equal(loaded(images), fitted(images))
    assert torch.equal(loaded.predict(images), fitted.predict(images))
    assert loaded.report == fitted.report
    saved = json.loads((tmp_path / "x" / "xnn.json").read_bytes())["weights_sha256"]
    assert fitted.weights_sha256 == loaded.weights_sha256 == saved
    loaded.attach_embedding(loaded.embedding, (1,), 4, loaded.report)
    assert not loaded.weights_sha256  # nobody knows whether it is that one
    assert loaded.preprocessing == fitted.preprocessing
    assert (loaded.layer, loaded.targets) == ("classifier.1", (1,))
    assert loaded.class_names == tuple("abcd")
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "embedding.safetensors",
        "xnn.json",
    ]
    fitted.preprocessing = None
    fitted.save_pretrained(tmp_path / "x")
    assert XNN.from_pretrained(tmp_path / "x", make_net()).preprocessing is None


def test_another_model_is_refused(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "x")
    with pytest.raises(ModelError, match="fingerprint"):
        XNN.from_pretrained(tmp_path / "x", make_net(seed=1))


def test_broken_folders_are_named(fitted, tmp_path):
    with pytest.raises(ModelError, match=r"holds no xnn\.json"):
        XNN.from_pretrained(tmp_path, make_net())
    fitted.save_pretrained(tmp_path / "x")
    about = tmp_path / "x" / "xnn.json"
    saved = json.loads(about.read_text())
    about.write_text(json.dumps({**saved, "format_version": 99}))
    with pytest.raises(ModelError, match="version 99"):
        XNN.from_pretrained(tmp_path / "x", make_net())
    about.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        XNN.from_pretrained(tmp_path / "x", make_net())
    about.write_text(json.dumps({"format": "other"}))
    with pytest.raises(ModelError, match="is not a saved XNN"):
        XNN.from_pretrained(tmp_path / "x", make_net())
    for change in ({"layer": None}, {"targets": [0, 1]}, {"targets": [9]}, {"embedding": {}}):
        about.write_text(json.dumps(saved | change))
        with pytest.raises(ModelError, match="is damaged"):
            XNN.from_pretrained(tmp_path / "x", make_net())
    about.write_text(json.dumps({key: saved[key] for key in ("format", "format_version")}))
    with pytest.raises(ModelError, match="fingerprint"):
        XNN.from_pretrained(tmp_path / "x", make_net())
    with pytest.raises(ModelError, match="does not say which model"):
        open_run(tmp_path / "x")
    about.write_text(json.dumps(saved))
    weights = tmp_path / "x" / "embedding.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="safetensors"):
        XNN.from_pretrained(tmp_path / "x", make_net())


def test_saving_does_not_replace_foreign_folders(fitted, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"precious|not written"):
        fitted.save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_model_with_a_single_logit():
    net = make_net(outputs=1)
    with torch.no_grad():
        net.classifier[3].bias -= net(make_images(96)[0]).median()
    xnn = XNN(net, "classifier.1", 3)
    report = quick_fit(xnn, make_loader(labels=False), 0)
    assert report.positives_by == "prediction"
    assert xnn.explain(make_images(1)[0][0]).target_names == ("class 1",)


def test_data_parallel_and_autocast_and_inference_mode(fitted):
    images, _ = make_images(4)
    wrapped = XNN(nn.DataParallel(fitted.model), "classifier.1", 3)
    wrapped.attach_embedding(fitted.embedding, fitted.targets)
    assert torch.allclose(wrapped(images), fitted(images))
    assert torch.allclose(wrapped.attribute(images), fitted.attribute(images))
    with torch.inference_mode():
        assert torch.allclose(fitted.attribute(images), wrapped.attribute(images))


def test_two_threads_explain_the_same_model(fitted):
    images, _ = make_images(8)
    expected = fitted.attribute(images)
    results = {}

    def work(index):
        results[index] = fitted.attribute(images[index : index + 1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        assert torch.allclose(results[index][0], expected[index], atol=1e-6)


def test_readme_example_runs(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    code = re.search(r"```python\n(import torch\n.*?)```", readme, re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XNNWarning)
        exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "explanation.html").stat().st_size > 10_000


def test_a_single_logit_speaks_for_the_second_class():
    net = make_net(outputs=1)
    images, _ = make_images(96)
    with torch.no_grad():
        net.classifier[3].bias -= net(images).median()
        labels = (net(images)[:, 0] > 0).long()
    xnn = XNN(net, "classifier.1", 3, class_names=("cat", "dog"))
    quick_fit(xnn, [(images, labels)], 0)
    dog = int(labels.argmax())
    explanation = xnn.explain(images[dog], label=1)
    assert explanation.target_names == ("dog",)
    assert (explanation.predicted_name, explanation.label) == ("dog", "dog")
    assert xnn.explain(images[int(labels.argmin())]).predicted_name == "cat"


def test_more_targets_than_features_are_refused_and_defaults_grow():
    with pytest.raises(XNNError, match="at least the number of targets"):
        XNN(make_net(), "classifier.1", 2).fit(make_loader(), [0, 1, 2])
    xnn = XNN(make_net(outputs=9), "classifier.1")
    images, _ = make_images(90)
    labels = torch.arange(90) % 9
    quick_fit(xnn, [(images, labels)], list(range(9)), replace(QUICK, epochs=1))
    assert xnn.embedding.n_features == 9


def test_fit_works_in_any_context_and_with_any_integer():
    import numpy as np

    loader = make_loader()
    one = replace(QUICK, epochs=1)
    for context in (torch.no_grad(), torch.inference_mode()):
        net = make_net()  # a model made in inference mode lets no gradient pass, and is refused
        with context:
            quick_fit(XNN(net, "classifier.1", 3), loader, np.int64(1), one)


def test_the_number_of_features_asked_for_does_not_change_with_fits():
    xnn = XNN(make_net(), "classifier.1")
    quick_fit(xnn, make_loader(), 1, replace(QUICK, epochs=1))
    quick_fit(xnn, make_loader(), [0, 1], replace(QUICK, epochs=1))
    assert xnn.embedding.n_features == 7


def test_labels_on_one_side_only_are_refused():
    with pytest.raises(DataError, match="only one of training"):
        XNN(make_net(), "classifier.1").fit(
            make_loader(), 1, validation=make_loader(32, labels=False)
        )


def test_labels_and_images_must_agree_in_number():
    images, labels = make_images(8)
    with pytest.raises(DataError, match="8 images with 6 labels"):
        XNN(make_net(), "classifier.1").fit([(images, labels[:6])], 1)


def test_an_embedding_on_another_device_says_so():
    xnn = XNN(make_net(), "classifier.1", 3)
    quick_fit(xnn, make_loader(), 1, replace(QUICK, epochs=1))
    xnn.to("meta")
    with pytest.raises(DataError, match=r"xnn\.to"):
        xnn(make_images(1)[0])


class Counting(nn.Module):
    """Counts the forward passes of a network, also those that stop at a layer."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.passes = inner, 0

    def forward(self, images):
        self.passes += 1
        return self.inner(images)


def counting(fitted):
    xnn = XNN(Counting(make_net()), "inner.classifier.1", 3)
    xnn.attach_embedding(fitted.embedding, fitted.targets, 4)
    return xnn


@pytest.mark.parametrize(
    ("call", "passes"),
    [
        (lambda xnn, images: xnn.run(images), 1),
        (lambda xnn, images: xnn.run_with_maps(images, PAPER, logits=[0, 1], certify=True), 1),
        (lambda xnn, images: xnn.explain(images[0], method=PAPER), 1),
        (lambda xnn, images: xnn.evaluate([images], maps=False), 1),
        (lambda xnn, images: (xnn.run(images), xnn.attribute(images, PAPER)), 2),
        # effective weights: one to the layer, before which one image shows that it runs once
        (lambda xnn, images: xnn.explain(images[0]), 3),
        (lambda xnn, images: (xnn.run(images), xnn.explain(images[0])), 3),
    ],
)
def test_no_forward_pass_is_run_twice(fitted, call, passes):
    """`explain` once ran 4: numbers, a check of the layer, maps of x-features, maps of logits."""
    xnn = counting(fitted)
    images, _ = make_images(48)
    call(xnn, images)
    assert xnn.model.passes == passes


@pytest.mark.parametrize("method", [PAPER, EFFECTIVE, "input_x_gradient"])
def test_one_pass_gives_what_separate_passes_give(fitted, method):
    images, _ = make_images(4)
    found = fitted.run_with_maps(images, method, logits=[1, 3], certify=True)
    alone = fitted.run(images)
    for name in ("logits", "z", "features", "contributions", "reproduced", "predicted"):
        assert torch.equal(getattr(found.output, name), getattr(alone, name))
    maps, certificate = fitted.attribute(images, method, return_certificate=True)
    assert torch.allclose(found.heatmaps, maps, atol=1e-8)
    assert found.certificate == certificate
    of_logits = METHODS[PAPER if method == EFFECTIVE else method](fitted.model)
    assert torch.equal(found.logit_heatmaps, of_logits.attribute_many(images, [1, 3]))
    assert fitted.run_with_maps(images, method).logit_heatmaps.shape == (4, 0, 12, 12)


def test_x_features_on_vectors_are_drawn_through_effective_weights(fitted):
    images, _ = make_images(4)
    embedding = SRAE(24, 3, hidden=(16, 8))
    generator = torch.Generator().manual_seed(1)
    for layer in embedding.encoder:
        torch.nn.init.normal_(layer.weight, generator=generator)
        layer.bias.data.fill_(1.0)
    embedding.encoder[-1].weight.data.abs_()  # so that x-features are on
    xnn = XNN(fitted.model, "classifier.1", 3)
    xnn.attach_embedding(embedding, [1], 4)
    drawn = xnn.run_with_maps(images, certify=True)
    assert bool((drawn.output.features > 0).any(0).all())
    assert drawn.certificate.method == EFFECTIVE
    assert torch.allclose(drawn.heatmaps, xnn.attribute(images, EFFECTIVE), atol=1e-7)
    assert torch.allclose(drawn.heatmaps, xnn.attribute(images), atol=1e-7)
    assert float((drawn.heatmaps - xnn.attribute(images, PAPER)).abs().max()) > 1e-3
    assert xnn.explain(images[0]).certificate.method == EFFECTIVE


def test_a_method_is_built_for_what_it_explains_alone(fitted, monkeypatch):
    """Any method was once built for the units beside the logits, a tuple, and then not used."""
    built = []

    class Picky(METHODS["gradient"]):
        def __init__(self, module):
            super().__init__(module)
            built.append(type(module))

    monkeypatch.setitem(METHODS, "picky", Picky)
    images, _ = make_images(2)
    fitted.run_with_maps(images, "picky")
    assert built == [Units]
    fitted.run_with_maps(images, "picky", logits=[1])
    assert built == [Units, Units, type(fitted.model)]


def test_run_gives_what_the_network_and_the_embedding_say(fitted):
    images, _ = make_images(5)
    found = fitted.run(images)
    with torch.no_grad():
        assert torch.equal(found.logits, fitted.model(images))
        assert torch.equal(found.features, fitted(images))
        assert torch.equal(found.contributions, fitted.contributions(images))
        assert torch.equal(found.reproduced, fitted.predict(images))
    assert torch.equal(found.predicted, found.logits.argmax(1))
    assert not found.features.requires_grad


def test_run_refuses_what_it_cannot_take(fitted):
    images, _ = make_images(2)
    with pytest.raises(XNNError, match="not fitted"):
        XNN(make_net(), "classifier.1").run(images)
    for wrong in (images * float("nan"), images[:0], torch.zeros(2, 3, 12, 12).long()):
        with pytest.raises((DataError, NonFiniteError)):
            fitted.run(wrong)
    broken = make_net()
    broken.classifier[3].bias.data[0] = float("inf")
    xnn = XNN(broken, "classifier.1", 3)
    xnn.attach_embedding(fitted.embedding, fitted.targets)
    with pytest.raises(NonFiniteError, match="the model's outputs"):
        xnn.run(images)


def test_a_fit_made_elsewhere_is_attached_whole(fitted):
    other = XNN(make_net(), "classifier.1", class_names=tuple("abcd"), source={"model": "m"})
    other.attach_embedding(fitted.embedding, [1], 4, fitted.report)
    images, _ = make_images(2)
    assert torch.equal(other(images), fitted(images))
    assert (other.targets, other.outputs, other.report) == ((1,), 4, fitted.report)
    other.name_feature(0, "bright")
    other.attach_embedding(fitted.embedding, [1], 4)
    assert other.feature_names[0] == "x-feature 1"
    with pytest.raises(DataError, match=r"reproduces 1 logit.*2 target"):
        other.attach_embedding(fitted.embedding, [0, 1], 4)
    with pytest.raises(DataError, match="target 7 is out of range"):
        other.attach_embedding(fitted.embedding, [7], 4)
