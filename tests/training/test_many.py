"""Many classes from one cache: the same as one by one, resumable, bounded, on every engine."""

import gc
import json
import os
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from killing import kill_midway
from torchxnn import XNN
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives, split_kinds
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError, DegenerateFitWarning, ModelError, XNNError
from torchxnn.parallel.engine import Engine, LocalEngine
from torchxnn.training.class_results import class_folder
from torchxnn.training.config import ComputeConfig, ManyConfig, TrainConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.many import fit_many
from torchxnn.training.memory import Needs, load_splits
from training_examples import QUICK, distance, many_classes

CLASSES = 6


class Net(nn.Module):
    """The samples are Z already; the logits are linear in them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ReLU()
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x.flatten(1)))


def make_net():
    torch.manual_seed(3)
    net = Net().eval()
    with torch.no_grad():
        net.head.weight.zero_()
        for target in range(CLASSES):
            net.head.weight[target, [(3 * target + i) % 20 for i in range(4)]] = 1.0
    return net


def make_cache(location, count=240, labels=True, **options):
    data = many_classes(count)
    images = data.z.unflatten(1, (1, 4, 5))
    dataset = TensorDataset(images, data.labels) if labels else TensorDataset(images)
    return cache_activations(make_net(), "layer", dataset, location, chunk_rows=50, **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("many") / "cache")


@pytest.mark.usefixtures("few_starts")
def test_every_class_is_what_a_fit_of_its_own_gives(cache):
    fits = fit_many(cache, config=QUICK, n_features=3, many=ManyConfig(block=4))
    assert [fitted.targets for fitted in fits.classes] == [(t,) for t in range(CLASSES)]
    data = cache.activations("layer")
    mask = split_kinds(data.labels, QUICK.validation_share, QUICK.seed)
    for target in range(CLASSES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateFitWarning)
            expected, report = fit_embedding(
                data.select(~mask), data.select(mask), [target], 3, QUICK
            )
        assert distance(fits.embedding(target), expected) < 1e-4
        found = fits.classes[target].report
        assert found.validation.r2 == pytest.approx(report.validation.r2, abs=1e-4)
        assert found.held_out == "split"


@pytest.mark.usefixtures("few_starts")
def test_activations_in_memory_do_as_well(cache):
    data = cache.activations("layer")
    fits = fit_many(data, [1, (2, 3)], config=QUICK, n_features=3)
    assert [fitted.targets for fitted in fits.classes] == [(1,), (2, 3)]
    again = fit_many(cache, [1, (2, 3)], config=QUICK, n_features=3)
    for target in (1, (2, 3)):
        assert distance(fits.embedding(target), again.embedding(target)) == 0.0
    given = fit_many(data, [1], validation=data, config=QUICK, n_features=3)
    assert given.classes[0].report.held_out == "given"
    assert given.classes[0].report.train.images == len(data)


@pytest.mark.slow
def test_processes_give_the_same_bits(cache, tmp_path):
    options = {"config": QUICK, "n_features": 3, "many": ManyConfig(block=2)}
    here = fit_many(cache, **options)
    there = fit_many(cache, **options, engine=LocalEngine(2), out=tmp_path / "runs")
    for target in range(CLASSES):
        assert distance(here.embedding(target), there.embedding(target)) == 0.0
    assert {fitted.location for fitted in there.classes} == {
        str(tmp_path / "runs" / class_folder([t], None)) for t in range(CLASSES)
    }


@pytest.mark.usefixtures("few_starts")
def test_saved_classes_are_xnns_of_the_model_and_are_not_fitted_again(cache, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    options = {"config": QUICK, "n_features": 3, "out": out}
    first = fit_many(cache, [0, 1], **options)
    xnn = XNN.from_pretrained(first.classes[0].location, make_net())
    assert (xnn.layer, xnn.targets) == ("layer", (0,))
    assert xnn.report == first.classes[0].report
    images = many_classes(8).z.unflatten(1, (1, 4, 5))
    assert xnn(images).shape == (8, 3)
    calls = []
    monkeypatch.setattr(
        "torchxnn.training.many.fit_group", lambda *args, **kwargs: calls.append(args[2])
    )
    told = []
    second = fit_many(cache, [0, 1], **options, on_class=told.append)
    assert calls == []
    assert [fitted.resumed for fitted in told] == [True, True]
    assert second.classes[0].report == first.classes[0].report
    with pytest.raises(ModelError, match="other data or with other settings"):
        fit_many(cache, [0], config=replace(QUICK, beta=9.0), n_features=3, out=out)
    (out / class_folder([3], None)).mkdir()
    (out / class_folder([3], None) / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="no saved XNN"):
        fit_many(cache, [3], **options)


def test_activations_belong_to_one_run_and_end_with_it(monkeypatch):
    """Two threads fit at the same time; what was read for them is gone with the last of them."""
    meet = threading.Barrier(2, timeout=60)
    read, seen = [], {}

    def load(*args):
        splits = load_splits(*args)
        read.extend(weakref.ref(split.z) for split in splits if split is not None)
        meet.wait()
        return splits

    def fit(train, validation, targets, n, config, compute, done, **_):
        meet.wait()
        seen[len(train) + len(validation)] = True
        done(0, XNNError("not fitted"))

    monkeypatch.setattr("torchxnn.training.many.load_splits", load)
    monkeypatch.setattr("torchxnn.training.many.fit_group", fit)
    with ThreadPoolExecutor(2) as threads:
        runs = [
            threads.submit(fit_many, many_classes(size), [0], config=QUICK) for size in (60, 90)
        ]
        assert all(run.result().failed for run in runs)
    del runs
    gc.collect()
    assert sorted(seen) == [60, 90]
    assert len(read) == 4
    assert not any(z() is not None for z in read)


@pytest.mark.usefixtures("few_starts")
def test_results_in_object_storage(cache):
    fits = fit_many(cache, [1], config=QUICK, n_features=3, out="memory://many/runs")
    assert fits.classes[0].location == "memory://many/runs/0001"
    here = fit_many(cache, [1], config=QUICK, n_features=3)
    assert distance(fits.embedding(1), here.embedding(1)) == 0.0
    again = fit_many(cache, [1], config=QUICK, n_features=3, out="memory://many/runs")
    assert again.classes[0].resumed
    assert XNN.from_pretrained("memory://many/runs/0001", make_net()).targets == (1,)


@pytest.mark.usefixtures("few_starts")
def test_one_class_that_fails_is_named_and_the_rest_goes_on(cache):
    config = replace(QUICK, minimum_positives=41)
    fits = fit_many(cache, [0, 1], config=config, n_features=3)
    assert len(fits.failed) == 2
    assert "40 positive image(s)" in fits.failed[0].error
    with pytest.raises(XNNError, match="40 positive"):
        fits.embedding(0)
    with pytest.raises(DataError, match="no class has 41 positives, the most is 40"):
        fit_many(cache, config=config)
    data = cache.activations("layer")
    logits = data.logits.clone()
    logits[:, 2] = 5.0
    fits = fit_many(Activations(data.z, logits, data.labels), config=QUICK, n_features=3)
    assert [fitted.targets for fitted in fits.failed] == [(2,)]
    assert len(fits.classes) == CLASSES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": [9]}, "target 9 is out of range"),
        ({"targets": [1, 1]}, "different classes"),
        ({"targets": []}, "at least one"),
        ({"layer": "nope"}, "no layer 'nope'"),
        ({"many": ManyConfig(memory=1e-9)}, "hold no sample"),
    ],
)
def test_bad_settings_are_errors(cache, options, message):
    if "memory" in str(options.get("many")) and "no sample" in message:
        fits = fit_many(cache, **options, config=QUICK, n_features=3)
        assert all(message in fitted.error for fitted in fits.classes)
        return
    with pytest.raises(XNNError, match=message):
        fit_many(cache, **options, config=QUICK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ManyConfig(block=0), "block must be at least 1 class, got 0"),
        (lambda: ManyConfig(memory=0.0), "memory must be above 0 gigabytes"),
        (lambda: ComputeConfig(slots=0), "slots must be at least 1, got 0"),
    ],
)
def test_settings_that_hold_nothing_are_refused_where_they_are_made(make, message):
    with pytest.raises(XNNError, match=message):
        make()


def test_saving_needs_a_cache_and_validation_needs_activations(cache, tmp_path):
    data = cache.activations("layer")
    with pytest.raises(DataError, match="give a cache"):
        fit_many(data, config=QUICK, out=tmp_path / "runs")
    with pytest.raises(DataError, match="its own held-out"):
        fit_many(cache, config=QUICK, validation=data)


def test_a_cache_of_several_layers_needs_to_be_told_which(tmp_path):
    data = many_classes()
    dataset = TensorDataset(data.z.unflatten(1, (1, 4, 5)), data.labels)
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(20, CLASSES))
    two = cache_activations(net, ["1", "2"], dataset, tmp_path / "two")
    with pytest.raises(DataError, match="say which one"):
        fit_many(two)


# Memory


def needs(cache, rows):
    """Needs whose memory holds that many samples."""
    return Needs(cache, "layer", QUICK, Needs(cache, "layer", QUICK, 1.0).bytes(rows) / 1e9 + 1e-9)


def test_a_working_set_holds_all_positives_and_as_many_others_as_fit(cache):
    small = needs(cache, 170)
    assert small.budget == 170
    train, held_out = load_splits(small, [(1,), (4,)])
    assert len(train) + len(held_out) == small.budget
    labels = torch.cat([train.labels, held_out.labels])
    counts = labels.bincount(minlength=CLASSES)
    assert counts[1] == counts[4] == 40
    assert int(counts.sum()) == small.budget
    assert (counts[[0, 2, 3, 5]] > 0).all()
    whole = load_splits(needs(cache, 1000), None)
    mask = split_kinds(cache.labels, QUICK.validation_share, QUICK.seed)
    assert torch.equal(whole[1].z, cache.read("layer", mask))
    inside = {tuple(row) for row in whole[1].z.tolist()}
    assert all(tuple(row) in inside for row in held_out.z.tolist())
    with pytest.raises(XNNError, match="positive_share"):
        load_splits(replace(small, config=replace(QUICK, positive_share=None)), [(1,)])


class Wide(ActivationCache):
    """What is asked of a cache of 1,000 outputs to find out what fits need."""

    n_outputs = 1000

    def __init__(self, *size, rows=10**6):
        self.size, self.rows = size, rows

    def __len__(self):
        return self.rows

    def dims(self, _):
        return self.size


@pytest.mark.parametrize(
    ("size", "samples", "least", "most"),
    [
        ((1024,), 1500, 0.006 + 0.05, 0.2),  # the covariance and rows of Z in float64
        ((2048,), 1500, 0.012 + 0.12, 0.3),
        ((4096,), 6000, 0.10 + 0.27, 1.0),  # the covariance and its factor
        ((25088,), 1500, 0.15 + 0.04 + 0.32, 1.5),  # Z, a matrix of the images, a finished fit
        ((25088,), 6000, 0.60 + 0.58, 2.5),
        ((25088,), 20000, 2.01 + 0.82, 5.0),  # no matrix, but a sample for the subspace
        ((512, 7, 7), 1500, 0.15, 0.4),
    ],
)
def test_the_memory_that_fits_need_by_hand(size, samples, least, most):
    needed = Needs(Wide(*size), "layer", TrainConfig(), 4.0).bytes(samples) / 1e9
    assert least < needed < most
    for memory in (needed, 0.7 * needed):
        needs_ = Needs(Wide(*size), "layer", TrainConfig(), memory)
        assert needs_.budget <= samples
        assert not needs_.budget or needs_.bytes(needs_.budget) <= memory * 1e9


def test_memory_for_more_samples_is_not_taken_for_memory_for_all():
    """One sample more than a matrix is made of needs less; a cache without it needs the matrix."""
    side, size = 8192, (9000,)
    whole, beyond = Wide(*size, rows=side), Wide(*size, rows=side + 1)
    least, most = (
        Needs(data, "layer", TrainConfig(), 1.0).bytes(len(data)) / 1e9 for data in (beyond, whole)
    )
    assert least < most
    memory = (least + most) / 2
    assert Needs(beyond, "layer", TrainConfig(), memory).bytes(side + 1) < memory * 1e9
    few = Needs(whole, "layer", TrainConfig(), memory)
    assert not few.all_fit
    assert few.budget < side
    assert few.bytes(few.budget) <= memory * 1e9
    assert Needs(whole, "layer", TrainConfig(), most + 1e-9).all_fit


def test_a_layer_that_is_too_wide_for_the_memory_says_how_much_it_needs(cache):
    with pytest.raises(XNNError, match=r"1e-06 GB hold no sample: fits to 20 dim.* need 0\.\d+ GB"):
        load_splits(Needs(cache, "layer", QUICK, 1e-6), [(1,)])


@pytest.mark.usefixtures("few_starts")
def test_fits_in_little_memory_are_nearly_as_faithful(cache):
    config = replace(QUICK, epochs=60, patience=60, learning_rate=0.01)
    small = fit_many(
        cache,
        [0, 1, 2, 3],
        config=config,
        n_features=3,
        many=ManyConfig(block=1, memory=needs(cache, 120).memory),
    )
    data = cache.activations("layer")
    for fitted in small.classes:
        assert fitted.report.train.images < 120
        embedding = small.embedding(fitted.targets)
        with torch.no_grad():
            reproduced = embedding.reproduce(embedding.encode(data.z))[:, 0]
        logit = data.logits[:, fitted.targets[0]]
        assert float(1 - (reproduced - logit).var() / logit.var()) > 0.8


@pytest.mark.usefixtures("few_starts")
def test_predictions_decide_without_labels(tmp_path):
    cache = make_cache(tmp_path / "cache", labels=False)
    fits = fit_many(cache, config=replace(QUICK, epochs=2), n_features=3)
    assert all(fitted.report.positives_by == "prediction" for fitted in fits.classes)
    data = cache.activations("layer")
    positives, by = find_positives(data, [0])
    assert by == "prediction"
    assert int(positives.sum()) == int((cache.predicted == 0).sum())


def test_folders_are_named_so_that_every_file_system_takes_them():
    names = ["Café au lait / ☕", "b" * 100]
    assert class_folder([0], names) == "0000-cafe-au-lait"
    assert class_folder([1], names) == "0001-" + "b" * 60
    assert class_folder([0, 1], None) == "0000-0001"


# Kills

SCRIPT = """
import sys
from dataclasses import replace

from killing import kill_midway
from training_examples import QUICK
from torchxnn.parallel.engine import LocalEngine
from torchxnn.training.config import ManyConfig
from torchxnn.training.many import fit_many

if __name__ == "__main__":
    config = replace(QUICK, epochs=40, patience=40)
    options = dict(config=config, n_features=3, many=ManyConfig(block=3))
    fit_many(sys.argv[1], out=sys.argv[2], engine=LocalEngine(2), **options)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_class_by_class(cache, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    out = tmp_path / "runs"
    command = [str(script), str(cache.store.location), str(out)]
    there = kill_midway(command, out, "[0-9]*/xnn.json", 2, CLASSES, group=True)
    done = [path.parent.name for path in there]
    assert len(done) >= 2
    stamps = {name: (out / name / "xnn.json").stat().st_mtime_ns for name in done}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, *command], env=env, check=True)
    assert len(list(out.glob("[0-9]*/xnn.json"))) == CLASSES
    assert {name: (out / name / "xnn.json").stat().st_mtime_ns for name in done} == stamps
    config = replace(QUICK, epochs=40, patience=40)
    whole = fit_many(cache, config=config, n_features=3, many=ManyConfig(block=3))
    for target in range(CLASSES):
        about = json.loads((out / class_folder([target], None) / "xnn.json").read_text())
        assert about["targets"] == [target]
        total = whole.classes[target].report.validation_losses.total
        found = about["report"]["validation_losses"]["total"]
        # What is left after a kill is fitted in other groups, which change no bit of a fit (see
        # test_group); the rest is for BLAS libraries that round by the number of threads.
        assert found == pytest.approx(total, rel=1e-4)


class Asked(Engine):
    """An engine of three workers that notes what it is asked for and does nothing."""

    def _run(self, task, jobs, gpu):
        self.sizes, self.gpu = [len(block) for block in jobs(3)], gpu
        raise InterruptedError


@pytest.mark.parametrize(
    ("device", "block", "sizes", "gpu"),
    [("cpu", None, [6], False), ("cuda", None, [2, 2, 2], True), ("cuda", 4, [3, 3], True)],
)
def test_a_gpu_for_every_worker_has_its_share_of_the_classes(cache, device, block, sizes, gpu):
    engine, compute = Asked(), ComputeConfig(device=device)
    with pytest.raises(InterruptedError):
        fit_many(cache, config=QUICK, compute=compute, many=ManyConfig(block), engine=engine)
    assert (engine.sizes, engine.gpu) == (sizes, gpu)


def test_workers_elsewhere_have_no_gpu_by_a_number_of_this_machine(cache):
    with pytest.raises(XNNError, match=r"'cuda:1' is one GPU of this machine.* say cuda"):
        fit_many(cache, config=QUICK, compute=ComputeConfig(device="cuda:1"), engine=Asked())
