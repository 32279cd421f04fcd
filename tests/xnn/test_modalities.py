"""X-features of texts and of rows: inputs, attributions, explanations, examples."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from explanation_examples import HOSTILE
from part_examples import COLUMNS, LENGTH, QUICK, TOKENS, fit_xnn, make_inputs, make_network
from torchxnn.attribution.tokens_and_rows import (
    attribute_rows,
    attribute_tokens,
    find_token_embedding,
)
from torchxnn.data.record import cache_activations, record_activations
from torchxnn.errors import (
    DataError,
    LayerError,
    NonFiniteError,
    UnsupportedOperationError,
    XNNError,
)
from torchxnn.explanations.card import TOP, Attributions
from torchxnn.explanations.drawing.html import render_card
from torchxnn.explanations.drawing.overlay import LEVELS, signed, tint
from torchxnn.explanations.text_table import TableExplanation, TextExplanation
from torchxnn.models.inputs import check_inputs, kind_of
from torchxnn.xnn import XNN

KINDS = ("row", "lstm", "transformer")
WORDS = [f"word{i}" for i in range(LENGTH)]
NAMES = [f"column {i}" for i in range(COLUMNS)]


@pytest.fixture(scope="module")
def fitted():
    return {kind: fit_xnn(kind) for kind in KINDS}


def explain(xnn, kind, target_label=None, **options):
    one = make_inputs(kind)[0]
    if kind == "row":
        return xnn.explain_row(one, NAMES, label=target_label, **options)
    return xnn.explain_text(one, WORDS, label=target_label, **options)


# --- inputs


def test_kinds_of_inputs():
    assert kind_of(torch.zeros(2, 5, dtype=torch.int64)) == "text"
    assert kind_of(torch.zeros(2, 5, dtype=torch.int32)) == "text"
    assert kind_of(torch.zeros(2, 5)) == "row"
    for batch in (torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, dtype=torch.uint8)):
        assert kind_of(batch) == "image"


def test_checks_of_token_ids():
    network = make_network("lstm")
    check_inputs(network, make_inputs("lstm"))
    for ids, message in (
        (torch.zeros(0, 4, dtype=torch.int64), "non-empty"),
        (torch.tensor([[1, -2]]), "token id -2, and the model embeds ids 0 to 11"),
        (torch.tensor([[1, TOKENS]]), "token id 12"),
        (torch.zeros(1, 4, dtype=torch.int64, device="meta"), "token ids are on meta"),
        (torch.zeros(1, 4, dtype=torch.uint8), "floating point images"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "floating point images"),
    ):
        with pytest.raises(DataError, match=message):
            check_inputs(network, ids)
    with pytest.raises(NonFiniteError):
        check_inputs(make_network("row"), torch.full((1, COLUMNS), torch.nan))


def test_a_wrong_id_is_named_while_fitting():
    xnn = XNN(make_network("lstm"), "head.1", 3)
    with pytest.raises(DataError, match="token id 99"):
        xnn.fit([torch.tensor([[1, 99]])], target=0)


def test_the_activation_cache_records_texts(tmp_path):
    ids = make_inputs("lstm", 20)
    network, dataset = make_network("lstm"), [(row, i % 3) for i, row in enumerate(ids)]
    cache = cache_activations(network, ["head.1"], dataset, str(tmp_path / "cache"))
    expected = record_activations(network, "head.1", [ids])
    assert torch.allclose(cache.read("head.1"), expected.z)


# --- attributions


class MeanOfTokens(nn.Module):
    """A linear network: w of the mean embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, ids):
        return self.last(self.embedding(ids).mean(1))


@pytest.mark.parametrize("method", ["integrated_gradients", "input_x_gradient", "deep_lift"])
def test_a_linear_network_of_tokens_is_shared_out_exactly(method):
    network = MeanOfTokens().double()
    ids = torch.tensor([[1, 4, 2], [0, 0, 3]])
    found, certificate = attribute_tokens(network, network.embedding, ids, [0, 1], method=method)
    expected = (network.embedding(ids) @ network.last.weight.T / 3).transpose(1, 2)
    assert torch.allclose(found, expected.detach(), atol=1e-12)
    assert certificate.completeness_error < 1e-9
    assert certificate.method == method


@pytest.mark.parametrize("method", ["integrated_gradients", "input_x_gradient", "occlusion"])
def test_a_linear_network_of_rows_is_shared_out_exactly(method):
    network = nn.Linear(COLUMNS, 2).double()
    rows = make_inputs("row", 4).double()
    found, _ = attribute_rows(network, rows, [1], method)
    assert torch.allclose(found[:, 0], (network.weight[1] * rows).detach(), atol=1e-12)


def test_a_baseline_row_and_a_baseline_token_get_nothing():
    row = make_inputs("row", 1)
    found, _ = attribute_rows(make_network("row"), row, [0], baseline=row[0])
    assert torch.equal(found, torch.zeros(1, 1, COLUMNS))
    network = make_network("lstm")
    ids = torch.tensor([[3, 5, 3, 7]])
    found, _ = attribute_tokens(network, network.embedding, ids, [0], baseline=3)
    assert float(found[0, 0, 0]) == float(found[0, 0, 2]) == 0
    assert float(found.abs().max()) > 0


def literal_integrated_gradients(network, ids, target, steps=400):
    """Midpoint rule over the embedded tokens, with the rest of `Recurrent` written out."""
    vectors = network.embedding(ids).detach()
    total = torch.zeros_like(vectors)
    for step in range(steps):
        x = (vectors * (step + 0.5) / steps).requires_grad_()
        network.head(network.lstm(x)[0].mean(1))[0, target].backward()
        total += x.grad / steps
    return (vectors * total).sum(2)


def test_tokens_of_an_lstm_equal_the_literal_integral():
    network = make_network("lstm").double()
    ids = make_inputs("lstm", 1)
    found, certificate = attribute_tokens(network, network.embedding, ids, [2])
    expected = literal_integrated_gradients(network, ids, 2)
    assert torch.allclose(found[:, 0], expected, rtol=1e-3, atol=1e-4)
    assert certificate.completeness_error < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_attributions_add_up_to_the_difference_to_the_baseline(fitted, kind):
    xnn, inputs = fitted[kind], make_inputs(kind, 4)
    found, certificate = xnn.attribute(inputs, return_certificate=True)
    assert found.shape == (4, 3, COLUMNS if kind == "row" else LENGTH)
    assert certificate.method == "integrated_gradients"
    assert certificate.completeness_error < 0.05
    assert torch.equal(xnn.attribute(inputs), found)
    if kind == "row":
        delta = (xnn(inputs) - xnn(torch.zeros_like(inputs))).detach()
        scale = float(delta.abs().max())
        assert float((found.sum(2) - delta).abs().max()) < 0.05 * scale


def test_excitation_backprop_refuses_recurrent_layers_and_explains_the_others(fitted):
    with pytest.raises(UnsupportedOperationError, match="lstm"):
        fitted["lstm"].attribute(make_inputs("lstm", 1), method="excitation_backprop")
    for kind in ("row", "transformer"):
        maps = fitted[kind].attribute(make_inputs(kind, 2), method="excitation_backprop")
        assert torch.isfinite(maps).all()
        assert float(maps.sum(2).abs().max()) < 1e-4  # contrastive maps sum to 0


def test_methods_that_need_pictures_are_refused(fitted):
    for method in ("grad_cam", "rise", "removal"):
        with pytest.raises(XNNError, match="needs pictures"):
            fitted["row"].attribute(make_inputs("row", 1), method=method)
    with pytest.raises(XNNError, match="unknown attribution method"):
        fitted["row"].attribute(make_inputs("row", 1), method="magic")
    with pytest.raises(XNNError, match="no baseline"):
        explain(fitted["row"], "row", method="gradient", baseline=0.0)


def test_the_embedding_of_the_tokens_is_found_or_asked_for():
    network, ids = make_network("transformer"), make_inputs("transformer", 2)
    assert find_token_embedding(network, ids) is network.embedding
    assert find_token_embedding(network, ids, "embedding") is network.embedding
    network.second = nn.Embedding(TOKENS, 8)
    forward = network.forward
    network.forward = lambda x: forward(x) + network.second(x).sum()
    with pytest.raises(LayerError, match="'embedding', 'second'; name it with token_layer="):
        find_token_embedding(network, ids)
    with pytest.raises(LayerError, match="found: none"):
        find_token_embedding(OneHot(), ids)


class OneHot(nn.Module):
    """A network of ids without an embedding."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(TOKENS, 2)

    def forward(self, ids):
        return self.last(nn.functional.one_hot(ids, TOKENS).float().mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_as_before_also_after_an_error(fitted, kind):
    xnn = fitted[kind]
    network = xnn.model.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    explain(xnn, kind)
    with pytest.raises(XNNError):
        explain(xnn, kind, method="rise")
    if kind == "lstm":
        with pytest.raises(UnsupportedOperationError):
            explain(xnn, kind, method="excitation_backprop")
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    network.eval()


# --- explanations


@pytest.mark.parametrize("kind", KINDS)
def test_an_explanation_adds_up_and_says_the_same_everywhere(fitted, kind, tmp_path):
    explanation = explain(fitted[kind], kind, target_label=0, path="number 1")
    total = explanation.contributions.sum(1) + explanation.intercept
    assert torch.allclose(total, explanation.reproduced, atol=1e-4)
    assert explanation.attributions.shape == (3, len(explanation.entries))
    assert explanation.faithfulness is not None
    assert explanation.label == "red"
    said = explanation.summary()
    assert "Attributions: integrated gradients, completeness error" in said
    assert "Source: number 1" in said
    assert f"held-out {'rows' if kind == 'row' else 'texts'}" in said
    explanation.save(tmp_path / "one")
    loaded = type(explanation).load(tmp_path / "one")
    assert loaded.summary() == said
    assert torch.allclose(loaded.attributions, explanation.attributions)
    assert loaded.entries == explanation.entries
    page = (tmp_path / "one" / "explanation.html").read_text("utf-8")
    assert (tmp_path / "one" / "figure.png").read_bytes().startswith(b"\x89PNG")
    explanation.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == page
    record = json.loads((tmp_path / "one" / "explanation.json").read_text("utf-8"))
    assert record["sentence"] == explanation.sentence()


@pytest.mark.parametrize(("kind", "unit"), [("row", "row"), ("lstm", "text")])
def test_a_warning_says_what_kind_of_input_it_is_about(fitted, kind, unit):
    found = explain(fitted[kind], kind)
    far = replace(found, reproduced=found.reproduced + 1000)
    assert f"on this {unit} the x-features reproduce" in far.summary()
    assert f"on this {unit} they reproduce" in far.declined()
    assert "image" not in far.summary()


def test_one_kind_is_not_read_as_another(fitted, tmp_path):
    explain(fitted["row"], "row").save(tmp_path / "row")
    with pytest.raises(DataError, match=r"format is 'torchxnn\.table_explanation'"):
        TextExplanation.load(tmp_path / "row")
    with pytest.raises(DataError, match=r"holds no explanation\.json"):
        TableExplanation.load(tmp_path)


def test_every_number_is_on_the_page_as_text(fitted):
    for kind in ("row", "lstm"):
        explanation = explain(fitted[kind], kind)
        page = render_card(explanation.card()).decode()
        for value in explanation.attributions.flatten().tolist():
            assert signed(value) in page
        assert "style=" not in page  # the policy forbids it
        assert "<script" not in page


def test_hostile_tokens_do_no_harm(fitted):
    words = [HOSTILE, *WORDS[1:]]
    explanation = fitted["lstm"].explain_text(make_inputs("lstm")[0], words)
    page = render_card(explanation.card()).decode()
    fragment = explanation._repr_html_()
    for text in (page, fragment):
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text
    explanation.plot()


def test_wrong_calls_say_what_is_wrong(fitted):
    with pytest.raises(DataError, match=r"integer ids \(T,\)"):
        fitted["lstm"].explain_text(make_inputs("lstm"), WORDS)
    with pytest.raises(DataError, match=r"integer ids \(T,\)"):
        fitted["lstm"].explain_text(torch.rand(LENGTH), WORDS)
    with pytest.raises(DataError, match=r"floating point row \(D,\)"):
        fitted["row"].explain_row(torch.ones(COLUMNS, dtype=torch.int64), NAMES)
    with pytest.raises(DataError, match=r"2 token\(s\) need"):
        fitted["lstm"].explain_text(make_inputs("lstm")[0], WORDS[:2])
    with pytest.raises(DataError, match=r"values .*6 column\(s\) need"):
        fitted["row"].explain_row(make_inputs("row")[0], NAMES, values=[1.0])
    with pytest.raises(DataError, match="class 7 is not explained"):
        explain(fitted["row"], "row").plot(target=7)


def test_rows_show_the_values_that_people_know(fitted):
    values = [100.0 + i for i in range(COLUMNS)]
    explanation = explain(fitted["row"], "row", values=values)
    assert explanation.card().panels[0].evidence.shown[2] == "102.0"
    assert "column 2 = 102.0" in explanation._repr_html_()


def test_several_targets_have_a_logit_each():
    xnn = fit_xnn("row", target=[0, 2], n_features=4)
    explanation = explain(xnn, "row")
    assert explanation.logit_attributions.shape == (2, COLUMNS)
    assert len(explanation.card().logit_panels) == 2
    assert len(explanation.card(target=2).rows) == 1
    assert "to red" in explanation._repr_html_()
    explanation.plot()


def test_evaluation_of_texts_measures_faithfulness_alone(fitted):
    found = fitted["lstm"].evaluate([(make_inputs("lstm"), torch.arange(160) % 3)])
    assert found.orthogonality is None
    assert found.certificate is None
    assert found.faithfulness.images == 160


def test_an_xnn_of_a_text_classifier_survives_saving(fitted, tmp_path):
    fitted["lstm"].save_pretrained(tmp_path / "x")
    loaded = XNN.from_pretrained(tmp_path / "x", fitted["lstm"].model)
    ids = make_inputs("lstm", 3)
    assert torch.equal(loaded(ids), fitted["lstm"](ids))


# --- drawing


def test_levels_bars_and_tints_by_hand():
    panel = Attributions(tuple("abcd"), np.array([4.0, -2.0, 0.1, 0.0]), (2.0, 4.0))
    assert panel.levels() == [LEVELS, -LEVELS // 2, 0, 0]
    assert panel.order() == [0, 1, 2, 3]
    assert [panel.is_spoken(i) for i in range(4)] == [True, True, False, False]
    assert panel.zero() == pytest.approx(1 / 3)
    assert panel.reach(1) == pytest.approx(1 / 3)
    empty = Attributions(tuple("abc"), np.zeros(3), (0.0, 0.0))
    assert (empty.levels(), empty.zero(), empty.reach(0)) == ([0, 0, 0], 0.0, 0.0)
    assert tint(0) == "#ffffff"
    assert tint(LEVELS) == "#dc97a0"


def test_what_is_drawn_as_bars_is_limited_and_the_rest_summed(fitted):
    names = [f"c{i}" for i in range(TOP + 3)]
    base = explain(fitted["row"], "row")
    more = torch.arange(float(TOP + 3)).expand(3, -1).contiguous()
    explanation = replace(
        base, entries=tuple(names), attributions=more, logit_attributions=more[:1], values=more[0]
    )
    assert "3 more columns together: +3.00" in explanation._repr_html_()


# --- examples


def load_example(path):
    file = Path(__file__).parents[2] / "examples" / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchxnn.errors.XNNWarning")
def test_the_example_of_a_table_runs(tmp_path, capsys):
    xnn = load_example("tabular/wines.py").explain_table(tmp_path, QUICK)
    assert xnn.targets == (1,)
    assert len(list(tmp_path.glob("row_*/explanation.html"))) == 3
    assert "The network is right about" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchxnn.errors.XNNWarning")
@pytest.mark.parametrize("network", ["lstm", "transformer"])
def test_the_example_of_a_text_runs(tmp_path, capsys, network):
    example = load_example("text/docstrings.py")
    example.explain_sentences(tmp_path, network, most=150, epochs=4, config=QUICK)
    assert list(tmp_path.glob("sentence_*/explanation.html"))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["lstm", "transformer"])
def test_the_example_of_a_text_is_faithful(tmp_path, network):
    example = load_example("text/docstrings.py")
    xnn = example.explain_sentences(tmp_path, network)
    assert xnn.report.validation.r2 > 0.9
    assert xnn.report.validation.active >= 2
    assert not xnn.report.degenerate
