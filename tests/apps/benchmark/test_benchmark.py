"""The benchmark: every figure, resumption, and the same results however it is run."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from benchmark_examples import write_squares, write_weights
from benchmark_settings import CONFIG, TRAIN
from torchxnn.apps.benchmark.class_by_class import Plan
from torchxnn.apps.benchmark.job_settings import REFITS, StabilityConfig, TuneGrid
from torchxnn.apps.benchmark.maps import INTEGRATED, OCCLUSION, OtherMaps, occluded_activations
from torchxnn.apps.benchmark.measure import FIGURES, FIT_FIGURES, READOUT_FIGURES
from torchxnn.apps.benchmark.methods import FitData, UnitsOfMany, fit_ridge, fit_variant, read_class
from torchxnn.apps.benchmark.run import BENCHMARK, run_benchmark, saved_xnn
from torchxnn.apps.benchmark.settings import ALL_METHODS, BETAS, BenchmarkConfig
from torchxnn.apps.benchmark.stability import components_alone, run_stability
from torchxnn.apps.benchmark.stability_tables import stability_text
from torchxnn.apps.benchmark.summary import summarise
from torchxnn.apps.benchmark.tables import markdown, tuning_text
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.apps.benchmark.tune import JUDGED, choose, run_tuning
from torchxnn.apps.benchmark.variants import SEEN, cae_config, nn_config, sae_config
from torchxnn.attribution.methods import attributor
from torchxnn.cli.benchmark import every_few
from torchxnn.cli.benchmark_command import find_classes
from torchxnn.cli.main import main
from torchxnn.data.activations import Activations
from torchxnn.data.positives import sample_weights
from torchxnn.embeddings import fit_pca, read_logits
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.linear import fit_linear
from torchxnn.errors import DataError, XNNError
from torchxnn.metrics.orthogonality import MapCovariance
from torchxnn.training.fit import fit_embedding, fit_group
from torchxnn.xnn import XNN
from training_examples import many_classes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("squares")
    write_squares(root / "data")
    weights = write_weights(root / "data", root / "weights.safetensors")
    return TaskSource("cub", root / "data", weights, "benchmark_examples:network", "3")


@pytest.fixture(scope="module")
def ran(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, run_benchmark(Plan(source, CONFIG, folder))


def without_seconds(record):
    methods = {
        name: {key: value for key, value in figures.items() if key != "seconds"}
        for name, figures in record["methods"].items()
    }
    return {**record, "methods": methods, "seconds": 0}


def test_every_method_is_measured_on_every_class(ran):
    _, records = ran
    assert sorted(records) == ["0", "1", "2"]
    for record in records.values():
        assert set(record["methods"]) == set(ALL_METHODS)
        assert record["positives"] == 4
        assert set(record["more"]) == {"NMF", "PCA", "TopK-SAE"}
        plain = record["readouts"]["PCA, unweighted"]
        assert plain["r2"] >= record["methods"]["PCA"]["r2"] - 0.05  # what R^2 asks for
        assert set(record["readouts"]["ridge on Z"]) == set(READOUT_FIGURES)
        assert [row["num_x"] >= 1 for row in record["lasso"].values()] == [True] * 5
        for name, figures in record["methods"].items():
            assert set(FIGURES) <= set(figures)
            assert figures["locality"] is None or figures["locality"] >= 0
            assert (figures["r2"] is None) == (name in ("Z", "1-heatmap"))
            assert (figures[OCCLUSION] is None) == (name in ("Z", "1-heatmap"))
            assert (figures[INTEGRATED] is None) == (name not in SEEN)
            off = figures["off_object"]
            assert (off is None) == (figures["locality"] is None)  # all concepts are dead
            assert off is None or 0 <= off <= 1
        assert set(record["masking"]) >= {"x-features", "1-heatmap", "random", "original"}


def test_the_faithfulness_figures_are_those_of_the_saved_xnn(ran, source):
    folder, records = ran
    task = TASKS["cub"](source)
    from torchxnn.data.datasets.base import make_loader

    xnn = XNN.from_pretrained(saved_xnn(folder, 1), model=task.model)
    found = xnn.evaluate(make_loader(task.test))
    own = records["1"]["methods"]["SRAE"]
    assert own["r2"] == pytest.approx(found.faithfulness.r2, abs=1e-5)
    assert own["f_reg_positives"] == pytest.approx(found.faithfulness.f_reg_positives, abs=1e-5)
    images = torch.stack([task.test[row].image for row in task.positives(1)])
    covariance = MapCovariance(xnn.fitted().n_features)
    covariance.update(xnn.attribute(images, "excitation_backprop"))
    correlation = covariance.result().mean_squared_correlation
    assert own["mean_squared_correlation"] == pytest.approx(correlation, abs=1e-4)


def test_a_run_goes_on_where_it_stopped_and_gives_the_same(ran, source):
    folder, records = ran
    path = folder / "classes" / "0001.json"
    others = {p: p.stat().st_mtime_ns for p in (folder / "classes").iterdir() if p != path}
    files = list((folder / "activations").rglob("*.safetensors"))
    recorded = [file.stat().st_mtime_ns for file in files]
    path.unlink()
    again = run_benchmark(Plan(source, CONFIG, folder))
    assert {p: p.stat().st_mtime_ns for p in others} == others
    assert len(files) == 3
    assert [file.stat().st_mtime_ns for file in files] == recorded
    assert without_seconds(again["1"]) == without_seconds(records["1"])


@pytest.mark.slow
def test_two_processes_give_what_one_gives(ran, source, tmp_path):
    _, records = ran
    again = run_benchmark(Plan(source, CONFIG, tmp_path / "out", [2, 0], jobs=2))
    for target in ("0", "2"):
        assert without_seconds(again[target]) == without_seconds(records[target])


def test_other_settings_and_foreign_folders_are_refused(ran, source, tmp_path):
    folder, _ = ran
    with pytest.raises(DataError, match=r"other settings: its config.copies is 1, not 2"):
        run_benchmark(Plan(source, replace(CONFIG, copies=2), folder))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="holds no benchmark"):
        run_benchmark(Plan(source, CONFIG, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_broken_files_are_named(ran, source):
    folder, _ = ran
    path = folder / "classes" / "0000.json"
    content = path.read_text()
    path.write_text(content[:50])
    try:
        with pytest.raises(DataError, match=r"0000\.json cannot be read"):
            BENCHMARK.read(folder, 0)
        for name in ("settings", "figures"):
            values = json.loads(content)
            del values[name]
            path.write_text(json.dumps(values))
            with pytest.raises(DataError, match=rf"0000\.json .* no '{name}'; remove it"):
                BENCHMARK.read(folder, 0)
    finally:
        path.write_text(content)


def test_activations_that_were_cut_off_are_recorded_again(ran, source):
    folder, _ = ran
    chunk = folder / "activations" / "train" / "chunk-000000.safetensors"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:1000])
    run_benchmark(Plan(source, CONFIG, folder))
    assert chunk.read_bytes() == whole


def test_classes_that_do_not_exist(source, tmp_path):
    with pytest.raises(DataError, match="no class 7; classes are 0 to 2"):
        run_benchmark(Plan(source, CONFIG, tmp_path / "out", [7]))
    with pytest.raises(XNNError, match="jobs"):
        run_benchmark(Plan(source, CONFIG, tmp_path / "out", jobs=0))
    assert find_classes(("Red Fox", "Hare"), ()) is None
    assert find_classes(("Red Fox", "Hare"), ("1", "red_fox")) == [1, 0]
    with pytest.raises(DataError, match="no class 'Wolf'"):
        find_classes(("Red Fox", "Hare"), ("Wolf",))
    with pytest.raises(DataError, match="no class '²'"):
        find_classes(("Red Fox", "Hare", "Wolf"), ("²",))


def test_settings_out_of_range():
    with pytest.raises(XNNError, match="n_features must be at least 2"):
        BenchmarkConfig(n_features=1)
    with pytest.raises(XNNError, match="map_images"):
        BenchmarkConfig(map_images=0)


def test_methods_are_fitted_with_the_beta_that_they_were_tuned_to(ran, source):
    folder, _ = ran
    xnn = XNN.from_pretrained(saved_xnn(folder, 1), model=TASKS["cub"](source).model)
    assert xnn.report.config.beta == BETAS["SRAE"] != TRAIN.beta
    config = BenchmarkConfig(betas={"SAE": 7.0}, train=TRAIN)
    assert (config.of("SAE").beta, config.of("XNN"), config.of("SRAE")) == (7.0, TRAIN, TRAIN)
    for wrong in ({"SEA": 1.0}, {"SAE": -1.0}, {"SAE": float("nan")}):
        with pytest.raises(XNNError, match="betas need names of methods and no negative value"):
            BenchmarkConfig(betas=wrong)


# --- the command


@pytest.mark.slow
def test_the_command_writes_results_tables_and_figures(source, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["benchmark", "cub", "--root", str(source.root), "--weights", str(source.weights)]
    arguments += ["--out", str(out), "--model", source.model, "--layer", source.layer]
    arguments += ["--classes", "0", "square 2", "--n-features", "3", "--copies", "1"]
    arguments += [
        "--z-dimensions",
        "4",
        "--integrated-images",
        "1",
        "--integrated-steps",
        "2",
        "--kept",
        "50",
        "100",
    ]
    arguments += ["--hidden", "12", "8", "--epochs", "3", "--trials", "1"]
    arguments += ["--minimum-positives", "2", "--pretrain-epochs", "1"]
    assert main(arguments) in (0, None)
    results = json.loads((out / "results.json").read_text())
    assert set(results["methods"]) == set(ALL_METHODS)
    assert set(results["classes"]) == {"0", "2"}
    required = {
        *("f_reg_train", "f_reg_test", "f_cls_train", "f_cls_test", "f_reg_positives"),
        *("f_cls_positives", "r2", "o1", "o2", "locality", "active", "dead"),
        *("degenerate_classes", "seconds"),
    }
    for figures in results["methods"].values():
        assert required <= set(figures)
    tables = (out / "tables.md").read_text()
    assert "| Locality ↓ |" in tables
    assert "Num_x" in tables
    assert "Locality" in capsys.readouterr().out
    for name in ("figure_6_parts", "figure_7_probability", "figure_12_degenerate"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 10_000
    page = (out / "gallery" / "index.html").read_text()
    assert page.count("<img") == 2
    assert "https://" not in page
    assert "http://" not in page


# --- summary, by hand


def record(target, **figures):
    methods = {name: dict.fromkeys(FIGURES) | values for name, values in figures.items()}
    return {
        "target": target,
        "name": f"class {target}",
        "methods": methods,
        "lasso": {
            "5": {
                "num_x": 4 + target,
                "f_reg_train": 1.0,
                "f_reg_test": 2.0,
                "f_reg_test_refitted": 1.5,
            }
        },
        "masking": {"x-features": [0.5], "original": 1.0, "kept": [300]},
        "more": {"PCA": 0.1 * target},
        "readouts": {"ridge on Z": dict.fromkeys(READOUT_FIGURES, 0.1 * target)},
        "positives": 1 + target,
        "seconds": 1.0,
    }


def test_means_and_tests_by_hand():
    records = {
        str(t): record(
            t,
            SRAE={"o1": 0.5 - 0.01 * t, "r2": 0.9, "degenerate_classes": 0},
            NN={"o1": 0.9 + 0.01 * t, "r2": None, "degenerate_classes": t % 2},
        )
        for t in range(8)
    }
    found = summarise(records)
    assert found["methods"]["SRAE"]["o1"] == pytest.approx(0.465)
    assert found["methods"]["NN"]["r2"] is None
    assert found["methods"]["NN"]["degenerate_classes"] == 4
    assert found["methods"]["NN"]["o2_infinite"] == 8
    (tested,) = found["tests"]  # no other figure is known of both
    assert (tested["method"], tested["figure"], tested["against"]) == ("SRAE", "o1", "NN")
    assert tested["p"] == pytest.approx(2 / 2**8)  # all 8 differences are negative
    assert (tested["better"], tested["worse"], tested["p_holm"]) == (8, 0, tested["p"])
    (lasso,) = found["lasso"]
    assert lasso["num_x"] == pytest.approx(7.5)
    assert (lasso["f_reg_train"], lasso["f_reg_test"]) == (1.0, 2.0)
    assert lasso["f_reg_test_refitted"] == 1.5
    assert found["readouts"]["ridge on Z"]["r2"] == pytest.approx(0.35)
    assert found["masking"]["x-features"] == [pytest.approx(0.5)]
    assert found["masking"]["pictures"] == 36
    assert found["more"]["PCA"] == pytest.approx(0.35)
    text = markdown(found, "By hand")
    assert "| O1 ↓ |  | 0.465 | 0.935 |" in text
    assert "| ridge on Z | 0.350 | 0.350 | 0.350 | 0.350 |" in text


def test_tests_are_two_sided_corrected_together_and_begin_with_what_lost():
    records = {
        str(t): record(
            t,
            XNN={"o1": 0.5 - 0.01 * t, "r2": 0.8 + 0.001 * t, "active": 3 + t % 2},
            NN={"o1": 0.9 + 0.01 * t, "r2": 0.9 + 0.002 * t, "active": 4 - t % 2},
        )
        for t in range(10)
    }
    found = summarise(records)
    assert [test["figure"] for test in found["tests"]] == ["r2", "active", "o1"]
    p = 2 / 2**10
    assert found["tests"][0]["p"] == pytest.approx(p)
    assert [t["p_holm"] for t in found["tests"]] == pytest.approx([3 * p, 1.0, 3 * p])
    lines = markdown(found, "By hand").split("## Ours against others")[1].splitlines()
    verdicts = [line.split("|")[4].strip() for line in lines if line.startswith("| XNN")]
    assert verdicts == ["worse", "no difference shown", "better"]
    assert "all 3 of them" in "".join(lines)
    swapped = {
        key: one | {"methods": {"XNN": one["methods"]["NN"], "NN": one["methods"]["XNN"]}}
        for key, one in records.items()
    }
    other = {test["figure"]: test for test in summarise(swapped)["tests"]}
    for test in found["tests"]:  # who is called ours changes the sign and nothing else
        assert other[test["figure"]]["p_holm"] == pytest.approx(test["p_holm"])
        assert other[test["figure"]]["better"] == test["worse"]


def test_ridge_on_z_takes_the_penalty_that_held_out_images_ask_for():
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(400, 10, generator=generator)
    logits = torch.stack([z[:, 0] * 2 + 1, z[:, 1]], 1)
    data = Activations(z, logits, (torch.arange(400) % 4 == 0).long())
    exact = fit_ridge(FitData(data, data), 0, TRAIN)
    with torch.no_grad():
        found = exact.readout(exact.encode(z))[:, 0]
    # without noise the smallest penalty is the best, and leaves the logit nearly as it is
    torch.testing.assert_close(found, logits[:, 0], atol=0.02, rtol=0)
    assert exact.n_features == 1


# --- methods


def planted(samples=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(samples, 10, generator=generator)
    labels = (torch.arange(samples) % 4 == 0).long()
    z[labels == 1, :4] += 1.5
    logits = torch.stack([z[:, 4:].sum(1), 3 * z[:, :4].sum(1)], 1)
    return Activations(z, logits, labels)


DATA = FitData(planted(), planted(seed=1))


def test_variants_of_eq_5_are_what_their_names_say():
    sides = {}
    for name, config in (("NN", nn_config(TRAIN)), ("SAE", sae_config(TRAIN))):
        embedding, report = fit_variant(name, DATA, (1,), 3, TRAIN)
        assert report.config == config
        assert report.config.eta == 0
        sides[name] = report.train_losses
        errors = embedding.decode(embedding.encode(DATA.train.z)) - DATA.train.z
        errors = (errors / embedding.scale).detach()
        weights = sample_weights(DATA.train, (1,), TRAIN.positive_share)
        expected = float((weights[:, None] * errors.square()).sum(0).mean())
        if name == "SAE":
            assert sides[name].sparse_reconstruction == pytest.approx(expected, rel=1e-4)
    assert sides["NN"].sparse_reconstruction == 0
    assert sides["NN"].total == pytest.approx(sides["NN"].faithfulness)


@pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning")
def test_a_classic_autoencoder_does_not_see_the_logit():
    config = cae_config(TRAIN)
    first, _ = fit_embedding(DATA.train, DATA.validation, (1,), 3, config)
    other = replace(DATA.train, logits=DATA.train.logits.flip(0) * 2)
    second, _ = fit_embedding(other, DATA.validation, (1,), 3, config)
    for one, two in zip(first.encoder.parameters(), second.encoder.parameters(), strict=True):
        assert torch.equal(one, two)
    features = first.encode(DATA.train.z).detach()
    weights = torch.full((len(features),), 1 / len(features))
    weight, bias = fit_linear(features, DATA.train.logits[:, [1]], weights, ridge=1e-6)
    torch.testing.assert_close(first.readout.weight, weight)
    torch.testing.assert_close(first.readout.bias, bias)


def test_a_readout_for_one_class_leaves_the_shared_embedding_alone():
    shared = fit_pca(DATA.train.z, 3)
    own = read_class(shared, DATA, 1, TRAIN)
    assert bool(shared.readout.weight.isnan().all())
    assert bool(own.readout.weight.isfinite().all())
    cae, _ = fit_variant("SAE", DATA, (1,), 3, TRAIN)
    before = cae.readout.weight.detach().clone()
    read_class(cae, DATA, 0, TRAIN)
    assert torch.equal(cae.readout.weight, before)


def test_units_of_many_are_the_units_of_each():
    first, _ = fit_variant("NN", DATA, (1,), 3, TRAIN)
    second = fit_pca(DATA.train.z, 2)
    module = UnitsOfMany(lambda images: images, [first, second])
    z = DATA.train.z[:5]
    torch.testing.assert_close(module(z)[:, :3], first.encode(z))
    torch.testing.assert_close(module(z)[:, 3:], second.encode(z))


def test_one_pass_over_hidden_squares_gives_the_occlusion_maps_of_all():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten()
    network = torch.nn.Sequential(*layers, torch.nn.Linear(4 * 26 * 26, 12)).eval()
    concepts = [fit_pca(torch.randn(50, 12), n) for n in (3, 2)]
    images = torch.randn(2, 3, 28, 28)
    found = OtherMaps(network, concepts)
    found.occlude(occluded_activations(network, images))
    for place, embedding in enumerate(concepts):
        units = torch.nn.Sequential(network, embedding.units())
        several = range(embedding.n_features)
        maps = attributor("occlusion", units, window=4, stride=4).attribute_many(images, several)
        overlap = MapCovariance(embedding.n_features)
        overlap.update(maps)
        expected = overlap.result().mean_squared_correlation
        own = found.figures(torch.ones(2, embedding.n_features), place)
        assert own == {OCCLUSION: pytest.approx(expected, rel=1e-3)}


# --- tuning and stability


def setting(r2, overlap, method="SRAE", beta=1.0):
    about = {"method": method, "beta": beta, "eta": 0.1, "q": 100.0}
    return dict.fromkeys(FIT_FIGURES) | {"r2": r2, JUDGED: overlap} | about


def test_the_objective_by_hand():
    yardstick = setting(0.96, 0.5, "NN")
    rows = {
        "NN": yardstick,
        "a": setting(0.95, 0.4, beta=1.0),
        "b": setting(0.94, 0.2, beta=2.0),
        "c": setting(0.7, 0.1, beta=4.0),
        "e": setting(0.94, 0.3, "SAE", 1.0),
        "f": setting(0.95, 0.3, "SAE", 2.0),
    }
    found = choose({"0": rows})
    assert found["chosen"] == {"SRAE": "b", "SAE": "e"}
    assert found["by"] == dict.fromkeys(("SRAE", "SAE"), "overlap of occlusion maps")
    assert found["edges"] == {"SRAE": [], "SAE": ["beta"]}
    assert found["front"] == ["b", "c", "f"]
    text = tuning_text(found, [0])
    assert "- SRAE: b, by overlap of occlusion maps; 3 settings tried\n" in text
    assert "SAE: e, by overlap of occlusion maps; 2 settings tried; at the edge" in text
    too_far = {"NN": setting(0.99, 0.5, "NN"), "a": setting(0.9, 0.4), "b": setting(0.8, 0.1)}
    found = choose({"0": too_far})
    assert (found["chosen"], found["by"]) == ({"SRAE": "a"}, {"SRAE": "R^2"})


def test_every_method_is_tried_with_the_same_values():
    grid = TuneGrid(betas=(0.5, 2.0), etas=(0.1, 0.3))
    settings = grid.settings(TRAIN)
    assert settings["NN"].config == nn_config(TRAIN)
    counts = Counter(one.method for one in settings.values())
    # SAE has no pull-away term whose weight could be varied
    assert counts == {"NN": 1, "XNN": 4, "SRAE": 4, "SRAE-R": 4, "SAE": 2}
    assert settings["SRAE-R, beta 2, eta 0.3, q 100"].config.relevance == 1
    assert settings["SRAE, beta 2, eta 0.3, q 100"].config.components == 0
    assert settings["XNN, beta 2, eta 0.3, q 100"].config.components == TRAIN.components
    with pytest.raises(XNNError, match="nothing to tune of 'NN'; methods are XNN, SRAE"):
        TuneGrid(methods=("NN",))


def test_tuning_looks_at_training_pictures_alone(source, tmp_path):
    config = replace(CONFIG, train=replace(TRAIN, epochs=1))
    grid = TuneGrid(("SRAE",), betas=(0.1, 0.5), etas=(0.1,), qs=(100.0,))
    found = run_tuning(Plan(source, config, tmp_path / "out", [0, 2]), grid)
    names = [f"SRAE, beta {beta}, eta 0.1, q 100" for beta in (0.1, 0.5)]
    assert list(found["settings"]) == ["NN", *names]
    assert found["chosen"]["SRAE"] in names
    assert all(0 <= found["settings"][name][JUDGED] <= 1 for name in names)
    files = sorted((tmp_path / "out" / "tuning").iterdir())
    assert len(files) == 2
    before = [file.stat().st_mtime_ns for file in files]
    assert run_tuning(Plan(source, config, tmp_path / "out", [0, 2]), grid) == found
    assert [file.stat().st_mtime_ns for file in files] == before
    assert f"**{found['chosen']['SRAE']}**" in tuning_text(found, [0, 2])
    content = json.loads(files[1].read_text())
    content["settings"]["betas"][1] = 0.25  # as if its name stood for another grid
    files[1].write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"for other settings: its betas is \[0.1, 0.25\], not"):
        run_tuning(Plan(source, config, tmp_path / "out", [0, 2]), grid)


def test_refits_are_matched(source, tmp_path):
    config = replace(CONFIG, n_features=2, train=replace(TRAIN, epochs=1))
    plan = Plan(source, config, tmp_path / "out", [0, 1])
    found = run_stability(plan, StabilityConfig(fits=2))
    assert tuple(found["methods"]) == ("XNN", "SRAE")
    for kinds in found["methods"].values():
        for figures in kinds.values():
            assert -1 <= figures["matched"]["mean"] <= 1
            assert figures["matched"]["low"] <= figures["matched"]["high"]
            assert 1 <= figures["concepts"]["mean"] <= 2
            assert -1 <= figures["start"]["mean"] <= 1
    assert {(test["first"], test["other"]) for test in found["tests"]} == {("XNN", "SRAE")}
    assert {test["refits"] for test in found["tests"]} == set(REFITS)
    assert all(test["p"] <= test["p_holm"] <= 1 for test in found["tests"])
    text = stability_text(found)
    assert "2 class(es), 2 fits of each kind" in text
    assert "on 6 images of the class" in text  # 4 test images, and 2 held out
    assert "not decided" in text

    done = tmp_path / "out" / "stability" / "0001-XNN-2.json"
    content = json.loads(done.read_text())
    content["figures"]["refits"]["seeds"]["matched"] = 0.125
    done.write_text(json.dumps(content))
    again = run_stability(plan, StabilityConfig(fits=2))  # read, not fitted again
    assert again["classes"]["XNN"]["1"]["refits"]["seeds"]["matched"] == 0.125
    assert again["methods"]["SRAE"] == found["methods"]["SRAE"]
    done.write_text("{")
    with pytest.raises(DataError, match=r"0001-XNN-2.json cannot be read.* write it anew"):
        run_stability(plan, StabilityConfig(fits=2))


@pytest.mark.slow
def test_refits_do_not_depend_on_the_processes(source, tmp_path):
    config = replace(CONFIG, n_features=2, train=replace(TRAIN, epochs=1))
    one, two = (
        run_stability(
            Plan(source, config, tmp_path / str(jobs), [0, 1], jobs),
            StabilityConfig(fits=2, methods=("XNN",)),
        )
        for jobs in (1, 2)
    )
    assert one == two


def test_the_first_fit_of_seeds_and_of_splits_is_the_same(monkeypatch, source, tmp_path):
    asked = []

    def watched(train, validation, targets, n, config, compute, on_done, **given):
        asked.append((len(targets), given["seeds"], train))
        fit_group(train, validation, targets, n, config, compute, on_done, **given)

    monkeypatch.setattr("torchxnn.apps.benchmark.stability.fit_group", watched)
    config = replace(CONFIG, n_features=2, train=replace(TRAIN, epochs=1, seed=3))
    plan = Plan(source, config, tmp_path / "out", [1])
    run_stability(plan, StabilityConfig(fits=2, methods=("SRAE",)))
    assert [(count, seeds) for count, seeds, _ in asked] == [
        (2, [3, 4]),  # seeds, on the first split, as one group
        (1, [3]),  # the other split
        (1, [4]),  # bootstraps
        (1, [5]),
    ]
    samples = [train.z for _, _, train in asked]
    assert not torch.equal(samples[0], samples[1])
    assert len(samples[2]) == len(samples[0])


def test_components_without_a_fit_have_no_start_and_add_up_to_a_linear_model():
    data = many_classes(count=300, seed=0)
    embedding = components_alone(FitData(data, data), 2, 3, seed=0)
    told = apply_embedding(embedding, data.z)
    weight, bias = read_logits(data.z, data.logits)
    assert torch.allclose(told.reproduced[:, 0], data.z @ weight[2] + bias[2], atol=1e-3)
    summed = told.contributions.sum(2) + embedding.intercept
    assert torch.allclose(summed, told.reproduced, atol=1e-3)


def test_components_of_few_logits_are_refused(source, tmp_path):
    plan = Plan(source, CONFIG, tmp_path / "out", [1])
    with pytest.raises(DataError, match="3 logits are too few to tell 3 causes apart"):
        run_stability(plan, StabilityConfig(fits=2, methods=("components",)))


def test_what_cannot_be_refitted_is_refused_before_anything_is_opened(source, tmp_path):
    plan = Plan(source, CONFIG, tmp_path / "out", [1])
    with pytest.raises(XNNError, match="at least 2 fits, got 1"):
        run_stability(plan, StabilityConfig(fits=1))
    with pytest.raises(XNNError, match="no method 'PCA'; known: XNN, SRAE"):
        run_stability(plan, StabilityConfig(methods=("XNN", "PCA")))
    with pytest.raises(XNNError, match="no method ''; known"):
        run_stability(plan, StabilityConfig(methods=()))
    assert not (tmp_path / "out").exists()


def test_about_ten_classes():
    assert every_few(50) == [4, 9, 14, 19, 24, 29, 34, 39, 44, 49]
    assert every_few(3) == [0, 1, 2]


def test_a_mistyped_name_claims_no_folder(source, tmp_path):
    out = tmp_path / "out"
    wrong = (
        replace(source, root=tmp_path / "nowhere"),
        replace(source, weights=tmp_path / "nowhere"),
        replace(source, layer="99"),
    )
    for mistyped in wrong:
        with pytest.raises(XNNError):
            run_benchmark(Plan(mistyped, CONFIG, out))
        assert not out.exists()
    with pytest.raises(DataError, match="no class 7"):
        run_stability(Plan(source, CONFIG, out, [7]))
    assert not out.exists()


def test_a_negative_weight_is_refused_before_any_work():
    with pytest.raises(XNNError, match="betas must not be negative"):
        TuneGrid(betas=(0.1, -1.0))
    with pytest.raises(XNNError, match="qs"):
        TuneGrid(qs=(0.0,))
