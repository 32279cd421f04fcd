"""Rooms with masks: what the benchmarks on Places365 open and measure."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from benchmark_examples import rooms_network, ten_rooms_network, write_rooms
from benchmark_settings import CONFIG, TRAIN
from dataset_examples import write_ade_challenge, write_nyu
from torchxnn.apps.benchmark.class_by_class import Plan
from torchxnn.apps.benchmark.run import run_benchmark
from torchxnn.apps.benchmark.tasks import ROOMS, TASKS, TaskSource
from torchxnn.cli.benchmark import Nyu, Places
from torchxnn.data.datasets.places365 import PLACES_ROOMS
from torchxnn.errors import DataError, ModelError


def rooms_source(tmp_path):
    weights = tmp_path / "rooms.safetensors"
    save_file(rooms_network().model.state_dict(), weights)
    return TaskSource(
        "nyu",
        write_rooms(tmp_path / "rooms", ROOMS),
        weights,
        "benchmark_examples:rooms_network",
        "3",
        write_nyu(tmp_path / "nyu"),
    )


def test_rooms_are_measured_on_the_masks_of_nyu(tmp_path):
    source = rooms_source(tmp_path)
    task = TASKS["nyu"](source)
    assert task.classes == ROOMS
    assert len(task.train) == 60
    assert task.parts[0] != "void"
    found = [target for target in range(6) if task.positives(target)]
    assert found  # some rooms have pictures
    assert ROOMS.index("entrance_hall") not in found
    sample = task.located[task.positives(found[0])[0]]
    weights = task.weigh(sample)
    assert weights.n_parts == len(task.parts)
    assert weights.has_void
    # quarters: void, 1, 2, 3
    torch.testing.assert_close(weights.uniform()[:3], torch.full((3,), 0.25).double())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no better than guessing")  # its weights are random
def test_a_run_on_rooms(tmp_path):
    source = rooms_source(tmp_path)
    config = replace(CONFIG, masking=False, train=replace(TRAIN, epochs=1))
    records = run_benchmark(Plan(source, config, tmp_path / "out"))
    for record in records.values():
        assert record["masking"] is None
        own = record["methods"]["SRAE"]
        assert own["locality_without_context"] == own["locality"]
        assert 0 <= own["void_share"] <= 1


def test_ten_rooms_are_measured_on_the_masks_of_ade(tmp_path):
    weights = tmp_path / "rooms.safetensors"
    save_file(ten_rooms_network().model.state_dict(), weights)
    source = TaskSource(
        "places",
        write_rooms(tmp_path / "rooms", PLACES_ROOMS, train=2, test=1),
        weights,
        "benchmark_examples:ten_rooms_network",
        "3",
        write_ade_challenge(tmp_path / "ade"),
    )
    task = TASKS["places"](source)
    assert task.parts == ("wall", "bed", "sofa, couch")
    bedrooms = task.positives(PLACES_ROOMS.index("bedroom"))
    assert len(bedrooms) == 2
    uniform = task.weigh(task.located[bedrooms[0]]).uniform()
    torch.testing.assert_close(uniform, torch.full((3,), 0.25).double())


def test_masks_must_be_given_and_weights_must_fit(tmp_path):
    source = rooms_source(tmp_path)
    for kind in ("nyu", "places"):
        with pytest.raises(DataError, match="needs --masks"):
            TASKS[kind](replace(source, kind=kind, measured=None))
    with pytest.raises(ModelError):
        TASKS["nyu"](replace(source, model="benchmark_examples:ten_rooms_network"))


def test_a_network_for_other_classes_is_refused_though_it_has_no_num_classes(tmp_path):
    weights = tmp_path / "ten.safetensors"
    save_file(ten_rooms_network().model.state_dict(), weights)
    model = "benchmark_examples:ten_rooms_network"
    source = replace(rooms_source(tmp_path), weights=weights, model=model)
    with pytest.raises(ModelError, match=r"ten_rooms_network .* 10 outputs, .* has 6 classes"):
        run_benchmark(Plan(source, CONFIG, tmp_path / "out"))


def test_commands_name_their_data(tmp_path):
    common = {"root": tmp_path, "weights": tmp_path / "w", "out": tmp_path / "o"}
    assert Nyu(**common, masks=tmp_path / "m").source().measured == tmp_path / "m"
    assert Places(**common, masks=tmp_path / "m").source().kind == "places"
