"""The benchmark with known causes: every figure, resumption, and what is said first."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmark_settings import TRAIN
from bird_examples import write_bird_weights, write_birds
from torchxnn.apps.benchmark.bounds import BOUNDS
from torchxnn.apps.benchmark.class_by_class import Plan, open_benchmark
from torchxnn.apps.benchmark.funnybirds import run
from torchxnn.apps.benchmark.funnybirds.causes import ask, cause_figures, find_removals, importances
from torchxnn.apps.benchmark.funnybirds.maps import Seen, lie
from torchxnn.apps.benchmark.funnybirds.page import write_page
from torchxnn.apps.benchmark.funnybirds.run import run_funnybirds
from torchxnn.apps.benchmark.funnybirds.settings import RULES, SUBSPACE, TruthConfig, default_config
from torchxnn.apps.benchmark.funnybirds.summary import TESTED, summarise
from torchxnn.apps.benchmark.funnybirds.tables import better, losses, markdown
from torchxnn.apps.benchmark.record import Recorded
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.attribution.methods import OF_ANY_MODULE
from torchxnn.cli.main import main
from torchxnn.data.activations import Activations
from torchxnn.embeddings.apply import anchor
from torchxnn.embeddings.concepts import ConceptEmbedding
from torchxnn.errors import DataError, XNNError, XNNWarning
from torchxnn.metrics import ground_truth as truth
from torchxnn.training.config import TrainConfig

CONFIG = BenchmarkConfig(n_features=3, copies=0, map_images=2, masking=False, train=TRAIN)
FEW = TruthConfig(refits=2, rules=RULES[:3], official=False, peers=False, bounds=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("birds")
    weights = write_bird_weights(write_birds(root / "data"), root / "weights.safetensors")
    return TaskSource("funnybirds", root / "data", weights, "bird_examples:bird_network", "3")


@pytest.fixture(scope="module")
def ran(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth") / "out"
    return folder, run_funnybirds(Plan(source, CONFIG, folder, (0, 2)), FEW)[0]


def without_seconds(record):
    return {key: value for key, value in record.items() if key != "seconds"}


class TestRun:
    def test_every_method_is_asked_about_every_class(self, ran):
        _, records = ran
        assert list(records) == ["0", "2"]
        for record in records.values():
            assert {"XNN", "1-heatmap", "SRAE", "SRAE-R", "NN", "PCA", "Lasso"} <= set(
                record["methods"]
            )
            assert (record["images"], record["map_images"]) == (3, 2)
            assert len(record["causes"]) == 5
            for name, profiles in record["profiles"].items():
                assert len(profiles) >= 1, name
                assert {len(row) for row in profiles} == {5}
            assert set(record["methods"]["class mean of the removals"]) == {"told", "told_error"}
            for name, figures in record["methods"].items():
                if name == "class mean of the removals":
                    continue
                assert figures["background"] is None or 0 <= figures["background"] <= 1
                if name != "1-heatmap":
                    assert figures["intervention_r2"] <= 1
                    assert figures["recovery"] is None or 0 <= figures["recovery"] <= 1
            assert set(record["rules"]["XNN"]) == set(FEW.rules)
            assert set(record["rules"]["1-heatmap"]) == set(FEW.rules) - {"effective_weights"}
            assert len(record["refits"]["recovery"]) == 2
            each = record["features"]
            assert len(each) == len(record["profiles"]["XNN"])
            moving = [feature["background"] for feature in each if feature["moves"]]
            figures = record["rules"]["XNN"]["excitation_backprop"]
            assert sum(moving) / len(moving) == pytest.approx(figures["background"])
            masses = [feature["positive_mass"] for feature in each]
            assert sum(masses) / len(masses) == pytest.approx(figures["positive_mass"])

    def test_profiles_are_those_of_the_saved_xnn(self, ran, source):
        from torchxnn.apps.benchmark.run import saved_xnn
        from torchxnn.xnn import XNN

        folder, records = ran
        task = TASKS["funnybirds"](source)
        xnn = XNN.from_pretrained(saved_xnn(folder, 2, "XNN"), model=task.model)
        rows = task.positives(2)
        whole = xnn.contributions(torch.stack([task.located[row].image for row in rows]))[:, 0]
        sums = torch.zeros(5, 3)
        for place, row in enumerate(rows):
            images = torch.stack([task.removals[row * 5 + part].image for part in range(5)])
            sums += (whole[place] - xnn.contributions(images)[:, 0]).detach()
        found = torch.tensor(records["2"]["profiles"]["XNN"])
        assert torch.allclose(found, (sums / len(rows)).T, atol=1e-4)

    def test_a_run_goes_on_where_it_stopped_and_gives_the_same(self, ran, source):
        folder, records = ran
        (folder / "classes" / "0002.json").unlink()
        done = []
        plan = Plan(source, CONFIG, folder, (0, 2), on_class=lambda *at: done.append(at[2]))
        again, _ = run_funnybirds(plan, FEW)
        assert done == ["bird 2"]
        for target, record in records.items():
            assert without_seconds(again[target]) == without_seconds(record)

    @pytest.mark.slow
    def test_two_processes_give_what_one_gives(self, ran, source, tmp_path):
        _, records = ran
        other, _ = run_funnybirds(Plan(source, CONFIG, tmp_path / "out", (0, 2), jobs=2), FEW)
        for target, record in records.items():
            assert without_seconds(other[target]) == without_seconds(record)

    def test_rules_of_the_protocol_are_on_record_by_name(self, ran, source, monkeypatch):
        """A table of today may have other rules than that of tomorrow."""
        asked = []
        monkeypatch.setattr(run, "measure_classes", lambda _, what, *__: asked.append(what) or {})
        run_funnybirds(Plan(source, CONFIG, ran[0], (0, 2)), replace(FEW, official=True))
        assert asked[1].settings["truth"]["official_rules"] == list(OF_ANY_MODULE)

    @pytest.mark.slow
    def test_the_protocol_of_the_authors_asks_all_xnns(self, ran, source, tmp_path):
        folder = tmp_path / "out"
        rules = ("excitation_backprop", "gradient", "grad_cam")
        few = TruthConfig(
            refits=0, rules=RULES[:1], peers=False, bounds=False, official_rules=rules,
            official_images=2,
        )  # fmt: skip
        plan = Plan(source, CONFIG, folder, (0, 1, 2, 3))
        records, counted = run_funnybirds(plan, few)
        assert list(counted) == list(records)
        names = {"XNN", "XNN, maps", "1-heatmap", "1-heatmap, gradient", "1-heatmap, grad_cam"}
        names |= {"1-heatmap, positive", "class mean of the removals"}
        assert set(counted["0"]["tallies"]) == names
        summary = summarise(records, counted)
        for name in names:
            scores = summary["methods"][name]
            assert 0 <= scores["official_completeness"] <= 1
            assert -1 <= scores["official_correctness"] <= 1
        again = run_funnybirds(plan, few)
        assert again == (records, counted)
        text = markdown(summary)
        assert "Input x Gradient, ResNet-50" in text
        assert "| XNN, maps |" in text
        json.dumps(summary, allow_nan=False)

    def test_a_layer_with_positions_has_its_own_ceilings_and_floors(self, source, tmp_path):
        few = TruthConfig(refits=0, rules=RULES[:2], peers=False, official=False)
        at_maps = replace(source, layer="1")
        plan = Plan(at_maps, CONFIG, tmp_path / "out", (2,))
        record = run_funnybirds(plan, few)[0]["2"]
        ceilings = {"labels, linear by position", "labels, network by position"}
        floors = {"random maps", "class mean of the removals"}
        assert set(record["methods"]) == {"XNN", "1-heatmap"} | floors | ceilings
        assert set(record["rules"]["XNN"]) == {"excitation_backprop"}  # a map has no single J
        assert len(record["profiles"]["random maps"]) == 3
        assert len(record["profiles"]["labels, linear by position"]) == 5

    @pytest.mark.slow
    def test_ceilings_floors_and_peers_are_rows(self, source, tmp_path):
        few = TruthConfig(refits=0, rules=RULES[:1], official=False)
        records, _ = run_funnybirds(Plan(source, CONFIG, tmp_path / "out", (1,)), few)
        methods = records["1"]["methods"]
        assert {"labels, linear", "labels, network", "ICA", "random directions"} <= set(methods)
        assert {"shuffled logits", "TCAV", "NMF of the class", "most relevant units"} <= set(
            methods
        )
        assert methods["TCAV"]["importance_order"] is not None
        text = markdown(summarise(records, {}))
        assert "It sees the part labels." in text
        assert "CRAFT (Craft-xai 0.0.3): not used: MIT" in text

    def test_a_few_rows_without_maps(self, source, tmp_path):
        few = TruthConfig(methods=("NN", "ridge on Z"), maps=False, refits=0, official=False)
        records, _ = run_funnybirds(Plan(source, CONFIG, tmp_path / "out", (1,)), few)
        rows = {"XNN", "NN", "ridge on Z", "class mean of the removals"}
        assert set(records["1"]["methods"]) == rows
        assert records["1"]["map_images"] == 0
        assert records["1"]["concepts"]["ridge on Z"] == 1
        assert not (tmp_path / "out" / "blind.safetensors").exists()
        summary = summarise(records, {})
        assert "| ridge on Z |" in markdown(summary)
        page = write_page(source, summary, CONFIG, few, tmp_path / "out")
        assert "ridge on Z" in page.read_text()

    def test_other_settings_are_refused(self, ran, source):
        folder, _ = ran
        with pytest.raises(DataError, match=r"its truth.refits is 2, not 1"):
            run_funnybirds(Plan(source, CONFIG, folder, (0,)), replace(FEW, refits=1))
        with pytest.raises(DataError, match="other settings"):
            run_funnybirds(Plan(source, replace(CONFIG, n_features=4), folder, (0,)), FEW)

    @pytest.mark.slow
    def test_command_writes_results_and_tables(self, source, tmp_path, capsys):
        arguments = ["--root", source.root, "--weights", source.weights, "--model", source.model]
        arguments += ["--layer", "3", "--classes", "bird 1", "3", "--out", tmp_path / "out"]
        arguments += ["--n-features", 3, "--map-images", 1, "--epochs", 2, "--hidden", 8, 6]
        arguments += ["--subspace", "None", "--minimum-positives", 2]
        arguments += ["--refits", 0, "--rules", "excitation_backprop"]
        arguments += ["--no-official", "--no-peers", "--no-bounds"]
        assert main(["benchmark", "funnybirds", *map(str, arguments)]) == 0
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert set(results["classes"]) == {"1", "3"}
        assert {"XNN", "1-heatmap", "SRAE"} <= set(results["methods"])
        wanted = {"r2", "intervention_r2", "specificity", "coverage", "recovery", "map_truth"}
        assert wanted | {"map_truth_others", "background"} <= set(results["methods"]["XNN"])
        assert "bird 3" in (tmp_path / "out" / "index.html").read_text()
        text = (tmp_path / "out" / "tables.md").read_text()
        assert text.index("loses") < text.index("| Method |")
        assert "No refits were made" in text
        assert "is what `xnn fit` does today" in capsys.readouterr().out

    def test_wrong_input_is_one_line(self, source, tmp_path, capsys):
        start = ["benchmark", "funnybirds", "--weights", str(source.weights), "--out"]
        start += [str(tmp_path / "out"), "--model", source.model, "--layer", "3", "--root"]
        assert main([*start, str(tmp_path)]) != 0
        assert "is not FunnyBirds" in " ".join(capsys.readouterr().err.split())
        assert main([*start, str(source.root), "--classes", "bird 9"]) != 0
        assert "there is no class 'bird 9'" in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "out").exists()


class Parts(ConceptEmbedding):
    """Takes the first dimensions of Z as concepts."""

    kind = "parts"

    def encode(self, activations):
        return activations[:, : self.n_features]

    def decode(self, features):
        return nn.functional.pad(features, (0, self.dims - self.n_features))


def recorded(images=4, parts=5):
    """Z has one dimension per part, 1 if it is there; the logit of class 1 is a weighted sum."""
    weights = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5])
    present = torch.ones(images, parts) * torch.linspace(0.5, 1.5, images).unsqueeze(1)
    removed = present.unsqueeze(1) * (1 - torch.eye(parts))

    def activations(z, label):
        logits = torch.stack([torch.zeros(len(z)), z @ weights], 1)
        return Activations(z, logits, torch.full((len(z),), label))

    test = activations(present, 1)
    train = Activations.cat([test, activations(torch.zeros(6, parts), 0)])
    nothing = train.select(torch.zeros(0, dtype=torch.long))
    return Recorded(train, nothing, test, test, activations(removed.flatten(0, 1), 1)), weights


def perfect(weights):
    embedding = Parts(5, 5)
    with torch.no_grad():
        embedding.readout.weight.copy_(weights.unsqueeze(0))
        embedding.readout.bias.zero_()
    return embedding


class TestCauses:
    def test_a_perfect_explanation_is_perfect_in_every_figure(self):
        data, weights = recorded()
        removals = find_removals(data, range(4), 1, 5)
        answers = ask(perfect(weights), removals)
        found = cause_figures(answers, removals)
        assert found["intervention_r2"] == pytest.approx(1)
        assert (found["specificity"], found["recovery"]) == pytest.approx((1, 1))
        assert found["coverage"] == found["coverage_own"] == 1
        assert (found["alike"], found["moving"]) == (0, 4)  # the fifth is below 5% of all change
        assert found["rises"] == 0
        assert found["told"] == found["told_mixture"] == pytest.approx(1)
        assert found["told_error"] == pytest.approx(0, abs=1e-7)
        expected = removals.causes.double()
        assert torch.allclose(
            importances(answers.anchored, truth.without_own(answers.changes)), expected, atol=1e-6
        )

    def test_one_mixture_for_everything_is_faithful_and_says_nothing(self):
        data, weights = recorded()
        removals = find_removals(data, range(4), 1, 5)

        class Mixture(Parts):
            def encode(self, activations):
                return (activations @ weights).unsqueeze(1).expand(-1, 2)

        embedding = Mixture(5, 2)
        with torch.no_grad():
            embedding.readout.weight.fill_(0.5)
            embedding.readout.bias.zero_()
        found = cause_figures(ask(embedding, removals), removals)
        assert found["intervention_r2"] == pytest.approx(1)
        assert found["specificity"] == pytest.approx(4 / 10.5)
        assert found["recovery"] == pytest.approx((4 + 3) / 2 / 10.5)  # each has half of a part
        assert found["alike"] == 1
        assert found["coverage_own"] == pytest.approx(1 / 3)  # beak; eye and foot matter, too

    def test_anchored_contributions_are_those_over_other_images(self):
        data, weights = recorded()
        shifted = perfect(weights)
        removals = find_removals(data, range(4), 1, 5)

        class Shifted(Parts):
            def encode(self, activations):
                return activations + 7

        other = Shifted(5, 5)
        with torch.no_grad():
            other.readout.weight.copy_(weights.unsqueeze(0))
            other.readout.bias.zero_()
        own = (data.train.labels == 1).unsqueeze(1)
        for embedding in (shifted, other):
            anchor(embedding, data.train.z, own)
        one, two = ask(shifted, removals), ask(other, removals)
        assert torch.allclose(one.anchored, two.anchored, atol=1e-5)
        about = truth.without_own(one.changes)
        found = [importances(each.anchored, about) for each in (one, two)]
        assert torch.allclose(*found, atol=1e-4)


def test_where_maps_lie_by_hand():
    # numbers: 0 background, 1 and 2 parts, 3 body, 4 and 5 background objects
    masks = torch.tensor([[[0, 1, 2], [3, 4, 5]]])
    maps = torch.tensor([[[[1.0, 2.0, -9.0], [3.0, 1.0, 1.0]]]])
    found = lie(maps, Seen(torch.zeros(1, 3, 2, 3), masks), 2)
    assert found.parts.tolist() == [[[0.25, 0.0]]]
    assert found.background.item() == pytest.approx(3 / 8)
    assert found.objects.item() == pytest.approx(2 / 8)
    assert found.mass.item() == 8


class TestSummary:
    def test_means_intervals_and_tests(self, ran):
        _, records = ran
        summary = summarise(records, {})
        own = [record["methods"]["XNN"]["r2"] for record in records.values()]
        assert summary["methods"]["XNN"]["r2"] == pytest.approx(sum(own) / 2)
        low, high = summary["intervals"]["XNN"]["r2"]
        assert low <= summary["methods"]["XNN"]["r2"] <= high
        assert summary["refits"]["recovery"]["fits"] == 2
        figures = {test["figure"] for test in summary["tests"]}
        assert figures <= set(TESTED)
        assert all(test["p"] <= test["p_holm"] <= 1 for test in summary["tests"])
        assert all(test["other"] != "XNN" for test in summary["tests"])
        assert "lost to" not in losses(summary)  # two classes decide nothing
        assert "| XNN |" in markdown(summary)
        json.dumps(summary, allow_nan=False)

    def test_what_lost_comes_first(self):
        def record(ours, theirs):
            methods = {"XNN": {"r2": ours}, "Other": {"r2": theirs}, "Same": {"r2": ours}}
            refits = {"recovery": [], "specificity": []}
            return {"methods": methods, "rules": {}, "refits": refits, "concepts": {}}

        records = {str(i): record(0.1 + i / 100, 0.5 + i / 90) for i in range(20)}
        summary = summarise(records, {})
        lines = losses(summary).splitlines()
        assert lines[0].startswith("- R²: lost to Other, 0.195 against 0.606")
        assert lines[1].startswith("- R²: not decided against Same")
        test = next(each for each in summary["tests"] if each["other"] == "Other")
        assert test["p"] == pytest.approx(2 * 0.5**20, rel=1e-3)  # all of 20 signs
        assert test["p_holm"] == pytest.approx(2 * test["p"])


class TestWhatIsMissing:
    def test_a_class_with_one_test_image_is_refused_before_anything_is_fitted(
        self, source, tmp_path
    ):
        root = write_birds(tmp_path / "data", test=1)
        alone = replace(source, root=root)
        with pytest.raises(DataError, match="bird 0 has fewer than 2 test images"):
            run_funnybirds(Plan(alone, CONFIG, tmp_path / "out", (0,)), FEW)
        assert not (tmp_path / "out").exists()

    def test_no_part_maps(self, source, tmp_path):
        root = write_birds(tmp_path / "data", train=10, test=2)
        shutil.rmtree(root / "test_part_map")
        with pytest.raises(DataError, match=r"no part maps.*test_part_map"):
            run_funnybirds(Plan(replace(source, root=root), CONFIG, tmp_path / "out", (0,)), FEW)
        assert not (tmp_path / "out").exists()

    def test_an_unknown_method_is_named_before_anything_is_recorded(self, source, tmp_path):
        few = replace(FEW, methods=("PCA", "magic"))
        with pytest.raises(XNNError, match=r"no method 'magic'; known: 'XNN', .*'labels, linear'"):
            run_funnybirds(Plan(source, CONFIG, tmp_path / "out", (0,)), few)
        assert not (tmp_path / "out").exists()

    def test_a_network_for_other_classes_is_said(self, source, tmp_path):
        """The weights fit, the answers do not: here the outputs are in another order."""
        weights = load_file(source.weights)
        weights["4.weight"], weights["4.bias"] = (
            weights["4.weight"].flip(0),
            weights["4.bias"].flip(0),
        )
        other = tmp_path / "other.safetensors"
        save_file({name: part.contiguous() for name, part in weights.items()}, other)
        plan = Plan(replace(source, weights=other), CONFIG, tmp_path / "out", (0,))
        with pytest.warns(XNNWarning, match=r"other\.safetensors names 0 of 12 test images right"):
            open_benchmark(plan)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:independent components did not converge")
    def test_copies_know_what_they_show(self, source, tmp_path):
        few = TruthConfig(refits=0, rules=RULES[:1], official=False, peers=False)
        config = replace(CONFIG, copies=1, map_images=1)
        record = run_funnybirds(Plan(source, config, tmp_path / "out", (2,)), few)[0]["2"]
        assert record["methods"]["labels, linear"]["specificity"] > 0.2

    @pytest.mark.slow
    def test_a_method_that_refuses_a_class_is_named(self, source, tmp_path, monkeypatch):
        def refuse(case):
            raise DataError("there are too few images")

        monkeypatch.setitem(BOUNDS, "ICA", replace(BOUNDS["ICA"], fit=refuse))
        few = TruthConfig(refits=0, rules=RULES[:1], official=False, peers=False)
        records, _ = run_funnybirds(Plan(source, CONFIG, tmp_path / "out", (1,)), few)
        assert records["1"]["not_fitted"] == {"ICA": "there are too few images"}
        text = markdown(summarise(records, {}))
        assert "ICA was measured on 0 of 1 classes; bird 1: there are too few images" in text
        assert "Concepts: 3, but labels, linear 5" in text
        assert "Nothing can be tested with so few classes." in text


def test_more_classes_better_is_better_even_if_the_median_is_a_tie():
    test = {"figure": "r2", "higher": 20, "lower": 0, "median_difference": 0.0}
    assert better(test)
    assert not better(test | {"figure": "background"})
    assert not better(test | {"higher": 0})


def test_settings(tmp_path):
    plan = Plan(TaskSource("funnybirds", tmp_path, tmp_path), CONFIG, tmp_path / "out")
    assert default_config().train == TrainConfig(subspace=SUBSPACE)  # what `xnn fit` does
    with pytest.raises(XNNError, match="unknown rule 'magic'; known: excitation_backprop"):
        TruthConfig(rules=("magic",))
    with pytest.raises(XNNError, match="refits must be at least 0"):
        TruthConfig(refits=-1)
    with pytest.raises(XNNError, match="unknown rule 'effective_weights'"):
        run_funnybirds(plan, TruthConfig(official_rules=("effective_weights",)))
