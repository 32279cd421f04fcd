import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from conftest import make_images, make_net
from dataset_examples import write_noise
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.datasets.augment import AugmentedImages, HeldOutCopies
from torchxnn.data.datasets.base import ImageSubset, make_loader
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.record import cache_activations, record_activations, record_chunk
from torchxnn.errors import DataError, LayerError, ModelError, NonFiniteError
from torchxnn.models.layers import record_layers
from torchxnn.models.preprocessing import Preprocessing

LAYERS = ["features.3", "classifier.1"]
SMALL = Preprocessing(size=12, resize="squash")


class Stream(IterableDataset):
    """Gives the same pairs in order; counts how often it was started."""

    def __init__(self, images, labels):
        self.pairs = list(zip(images, labels.tolist(), strict=True))
        self.starts = 0

    def __iter__(self):
        self.starts += 1
        return iter(self.pairs)


class Breaking(Dataset):
    """Fails at one image, as a truncated file would."""

    def __init__(self, images, bad):
        self.images, self.bad = images, bad

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.bad:
            raise RuntimeError("broken data stream")
        return self.images[index]


@pytest.fixture
def data():
    return TensorDataset(*make_images(23))


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        write_noise(tmp_path / "images" / "ab"[i % 2] / f"{i}.jpg", i)
    return tmp_path / "images"


def record(net, data, place, layers=LAYERS, **options):
    return cache_activations(
        net, layers, data, place, **{"chunk_rows": 7, "batch_size": 3} | options
    )


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return str(tmp_path / "cache") if request.param == "local" else f"memory://{tmp_path}/cache"


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 0), ("float16", 5e-4), ("bfloat16", 4e-3)]
)
def test_a_cache_holds_what_a_recording_in_memory_gives(net, data, place, dtype, error):
    seen = []
    cache = record(net, data, place, dtype=dtype, on_images=seen.append)
    assert sum(seen) == len(cache) == 23
    assert cache.layers == tuple(LAYERS)
    assert (cache.n_outputs, cache.dtype, cache.preprocessing) == (4, getattr(torch, dtype), None)
    loader = DataLoader(data, batch_size=7)
    for layer, dims in (("features.3", (8, 5, 5)), ("classifier.1", (24,))):
        expected = record_activations(net, layer, loader, map_dtype="float32")
        assert cache.dims(layer) == dims
        z = cache.read(layer, dtype=torch.float32)
        assert torch.allclose(z, expected.z, rtol=error, atol=1e-6)
        assert cache.read(layer).dtype == cache.dtype
        assert torch.allclose(cache.logits(), expected.logits, atol=1e-5)
        assert torch.equal(cache.labels, data.tensors[1])
    assert torch.equal(cache.predicted, cache.logits().argmax(1))
    for target in range(4):
        assert torch.equal(cache.column(target), cache.logits()[:, target])
    assert torch.equal(cache.columns([3, 0]), cache.logits()[:, [3, 0]])


ROWS = st.lists(st.integers(0, 22), max_size=30)


@pytest.fixture(scope="module", params=[7, 23])
def small_cache(tmp_path_factory, request):
    place = tmp_path_factory.mktemp("small") / "cache"
    data = TensorDataset(*make_images(23))
    return record(make_net(), data, place, dtype="bfloat16", chunk_rows=request.param)


@settings(max_examples=50)
@given(rows=ROWS, layer=st.sampled_from(LAYERS))
def test_any_rows_come_in_the_order_asked_for(small_cache, rows, layer):
    index = torch.tensor(rows, dtype=torch.int64)
    whole = small_cache.read(layer)
    assert torch.equal(small_cache.read(layer, index), whole[index])
    assert torch.equal(small_cache.logits(index), small_cache.logits()[index])
    mask = torch.zeros(23, dtype=torch.bool)
    mask[index] = True
    chosen = small_cache.activations(layer, mask)
    assert torch.equal(chosen.z, whole[mask])
    assert torch.equal(chosen.labels, small_cache.labels[mask])
    half = small_cache.activations(layer, index, torch.float16)
    assert half.z.dtype == torch.float16
    assert torch.equal(half.logits, small_cache.logits()[index])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0, 23]), "rows 0 to 22; asked for 0 to 23"),
        (torch.tensor([-1]), "asked for -1"),
        (torch.tensor([0.5]), "vector of indices"),
        (torch.ones(5, dtype=torch.bool), "mask"),
    ],
)
def test_rows_that_are_not_there_are_refused(small_cache, rows, message):
    with pytest.raises(DataError, match=message):
        small_cache.read("classifier.1", rows)
    with pytest.raises(DataError, match=r"4 output\(s\), so 0 to 3"):
        small_cache.column(4)


def test_several_layers_in_one_pass_are_each_as_alone(net, images):
    outputs, logits = record_layers(net, LAYERS, images)
    for layer, output in zip(LAYERS, outputs, strict=True):
        (alone,), same_logits = record_layers(net, [layer], images)
        assert torch.equal(output, alone)
        assert torch.equal(logits, same_logits)
    twice = nn.Sequential(relu := nn.ReLU(), nn.Flatten(), relu, nn.Linear(432, 2))
    with pytest.raises(LayerError, match="'0' runs 2 times"):
        record_layers(twice, ["1", "0"], images)
    assert not any(module._forward_hooks for module in net.modules())


def test_an_interrupted_recording_goes_on_to_the_same_bits(net, data, tmp_path):
    expected = record(net, data, tmp_path / "whole")

    class Stop(Exception):
        pass

    for stop_after in range(1, 24):
        seen = []

        def count(images, seen=seen, stop_after=stop_after):
            seen.append(images)
            if sum(seen) >= stop_after:
                raise Stop

        with pytest.raises(Stop):
            record(net, data, tmp_path / "cut", on_images=count)
        if len(ActivationCache.open(tmp_path / "cut", complete=False).store.missing()):
            with pytest.raises(DataError, match=r"not complete: \d of 4 chunks are missing"):
                ActivationCache.open(tmp_path / "cut")
    seen = []
    record(net, data, tmp_path / "cut", on_images=seen.append)
    assert sum(seen) == 23
    assert files(tmp_path / "cut") == files(expected.store.location)


def test_single_chunks_in_any_order_give_the_same_bits(net, data, tmp_path):
    expected = record(net, data, tmp_path / "whole")
    cache = cache_activations(
        net, LAYERS, data, tmp_path / "parts", chunk_rows=7, batch_size=3, manifest_only=True
    )
    for chunk in reversed(cache.store.missing()):
        record_chunk(net, data, cache.store.location, chunk, batch_size=3)
    assert files(tmp_path / "parts") == files(expected.store.location)


def test_loaders_in_order_streams_and_workers_give_the_same_bits(net, data, tmp_path):
    expected = files(record(net, data, tmp_path / "whole").store.location)
    loader = DataLoader(data, batch_size=3)
    assert files(record(net, loader, tmp_path / "loader", batch_size=99).store.location) == expected
    assert files(record(net, data, tmp_path / "workers", workers=1).store.location) == expected
    chunks = {name: part for name, part in expected.items() if name != "manifest.json"}
    first = ActivationCache.open(tmp_path / "whole")
    streams = {"stream": Stream(*data.tensors)}
    streams["loader"] = DataLoader(streams["stream"], batch_size=3)
    for name, stream in streams.items():
        cache = record(net, stream, tmp_path / f"of {name}", rows=23)
        for layer in LAYERS:
            assert torch.equal(cache.read(layer), first.read(layer))
        whole = files(cache.store.location)
        (cache.store.location / "chunk-000002.safetensors").unlink()
        record(net, stream, tmp_path / f"of {name}", rows=23)
        assert files(cache.store.location) == whole
        assert len(whole) == len(chunks) + 1


def test_a_stream_that_ends_too_early_or_whose_length_is_unknown(net, data, tmp_path):
    stream = Stream(*data.tensors)
    with pytest.raises(DataError, match=r"length of Stream is not known.*rows="):
        record(net, stream, tmp_path / "a")
    with pytest.raises(DataError, match="the data end before row 23"):
        record(net, stream, tmp_path / "b", rows=30)
    assert len(record(net, stream, tmp_path / "c", rows=10)) == 10
    cache = cache_activations(
        net, LAYERS, stream, tmp_path / "d", rows=23, chunk_rows=7, manifest_only=True
    )
    with pytest.raises(DataError, match="single chunks of an iterable"):
        record_chunk(net, stream, cache.store.location, 0)


def test_loaders_whose_rows_could_not_be_told_apart_are_refused(net, data, tmp_path):
    class OwnBatches(torch.utils.data.BatchSampler):
        pass

    own = OwnBatches(torch.utils.data.SequentialSampler(data), 3, False)
    for loader, message in (
        (DataLoader(data, shuffle=True), r"RandomSampler.*shuffle=False"),
        (DataLoader(data, batch_sampler=own), "another order"),
        (DataLoader(data, batch_size=5, drop_last=True), "drop_last=False"),
        (iter([1]), "a Dataset or a DataLoader is needed"),
    ):
        with pytest.raises(DataError, match=message):
            record(net, loader, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_other_models_layers_precisions_and_data_are_refused(net, data, folder, tmp_path):
    place = tmp_path / "cache"
    record(net, data, place)
    images, labels = data.tensors
    wrong_label = labels.clone()
    wrong_label[22] = 3
    for change, message in (
        ({"net": make_net(seed=1)}, r"its model\.fingerprint is"),
        ({"layers": "classifier.1"}, r"layers\.features\.3 is \[8, 5, 5\], not null"),
        ({"dtype": "float16"}, 'its dtype is "float32", not "float16"'),
        ({"preprocessing": SMALL}, "its preprocessing is null, not"),
        ({"data": TensorDataset(images + 1, labels)}, r"data\.samples is"),
        ({"data": TensorDataset(images, wrong_label)}, r"data\.samples is"),
        ({"data": TensorDataset(images[:20], labels[:20])}, r"data\.length is 23, not 20"),
        ({"data": images}, r'data\.kind is "TensorDataset", not "Tensor"'),
        ({"chunk_rows": 8}, "chunk_rows is 7, not 8"),
    ):
        with pytest.raises(DataError, match=message):
            record(**{"net": net, "data": data, "place": place} | change)
    record(net, data, place, chunk_rows=None, batch_size=5)  # one that is there is continued
    with pytest.raises(DataError, match=r"holds 'maps' version None.*reads 'activations'"):
        ActivationCache.open(other_store(tmp_path / "maps"))


def other_store(place):
    from torchxnn.storage.chunk_store import ChunkStore

    return ChunkStore.create(place, {"kind": "maps"}, 3, 3).location


def test_our_data_sets_are_known_by_their_files(net, folder, tmp_path):
    dataset = ImageFolder(folder, SMALL)
    cache = record(net, dataset, tmp_path / "c")
    assert cache.preprocessing == SMALL
    assert cache.class_names is None  # two folders, four outputs
    assert torch.equal(cache.labels, torch.tensor(dataset.labels))
    record(net, make_loader(ImageFolder(folder, SMALL), 3), tmp_path / "c")
    other_size = Preprocessing(size=14, resize="squash")
    changes = (
        (ImageFolder(folder, other_size), r"preprocessing\.size is 12, not 14"),
        (ImageFolder(folder, SMALL, labelled=False), r"labels"),
        (ImageSubset(dataset, range(11)), r"data\.images is 12, not 11"),
        (AugmentedImages(dataset, 1), r"data\.copies is null, not 1"),
    )
    for changed, message in changes:
        with pytest.raises(DataError, match=message):
            record(net, changed, tmp_path / "c")
    file = dataset.file(3)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"data\.file_sizes"):
        record(net, ImageFolder(folder, SMALL), tmp_path / "c")


@pytest.mark.parametrize("value", ["nan", "large"])
def test_bad_activations_name_the_row(net, data, tmp_path, value):
    images, labels = (part.clone() for part in data.tensors)
    images[16] = float("nan") if value == "nan" else images[16] * 1e6
    place = tmp_path / "cache"
    if value == "nan":
        with pytest.raises(
            NonFiniteError, match=r"rows 14 to 16: NaN or infinity in image\(s\) \[2\]"
        ):
            record(net, TensorDataset(images, labels), place)
    else:
        with pytest.raises(
            NonFiniteError, match=r"row 16: activations of layer .* too large for float16"
        ):
            record(net, TensorDataset(images, labels), place, dtype="float16")
        record(net, TensorDataset(images, labels), tmp_path / "wide", dtype="bfloat16")
        with torch.no_grad():
            net.features[0].weight[:] = 3e38
        with pytest.raises(NonFiniteError, match=r"row 0: .* layer 'features.3' are NaN or inf"):
            record(net, data, tmp_path / "broken")
    assert ActivationCache.open(place, complete=False).store.missing() == [2, 3]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(net, data, folder, tmp_path, workers):
    with pytest.raises(DataError, match="row 9: RuntimeError: broken data stream"):
        record(net, Breaking(data.tensors[0], 9), tmp_path / "a", workers=workers)
    dataset = ImageFolder(folder, SMALL)
    dataset.file(4).write_bytes(b"text")
    with pytest.raises(
        DataError, match=r"row 4 \(a/6.jpg\): cannot read the image .*6.jpg: not an"
    ):
        record(net, dataset, tmp_path / "b", workers=workers)


def test_data_of_other_kinds_are_refused(net, tmp_path):
    image = torch.zeros(3, 12, 12)
    for samples, message in (
        ([{"scene": image}] * 3, r"it yields a dict with scene \(\[3, 12, 12\]\)"),
        ([(image, "cat")] * 3, "they yield Tensor, str"),
        ([(image, 0), (image, None), image], "some images have a label and some have none"),
        ([image, torch.zeros(3, 14, 12), image], "images of different sizes"),
        ([image] * 3 + [torch.zeros(3, 20, 20)] * 3, r"row 3 to 5|rows 3 to 5: layer 'features.3'"),
        ([], "has 0 images"),
    ):
        with pytest.raises(DataError, match=message):
            record(net, samples, tmp_path / message[:5], layers="features.3")
    with pytest.raises(DataError, match="several different layers"):
        record(net, [image], tmp_path / "x", layers=["features.3", net.features[3]])
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        record(net, [image], tmp_path / "x", batch_size=0)
    with pytest.raises(LayerError, match="nearest: 'features'"):
        record(net, [image], tmp_path / "x", layers="feature")


def test_images_alone_give_a_cache_without_labels(net, data, tmp_path):
    cache = record(net, data.tensors[0], tmp_path / "cache")
    assert (cache.labels, cache.held_out, cache.source) == (None, None, None)
    assert cache.activations("classifier.1").labels is None


def test_check_refuses_what_does_not_belong(net, small_cache):
    small_cache.check(net, "classifier.1", SMALL)
    small_cache.check(model=net, layer=net.features[3])
    with pytest.raises(ModelError, match="other weights of a SmallNet"):
        small_cache.check(make_net(seed=1))
    with pytest.raises(LayerError, match=r"no layer 'classifier.0', only 'features.3', 'class"):
        small_cache.check(layer="classifier.0")
    with pytest.raises(LayerError, match="only with its model"):
        small_cache.check(layer=net.features[3])


def test_check_compares_the_preprocessing(net, data, tmp_path):
    cache = record(net, data, tmp_path / "cache", preprocessing=SMALL)
    cache.check(preprocessing=SMALL)
    with pytest.raises(DataError, match=r"recorded with .*size=12.*not with .*size=224"):
        cache.check(preprocessing=Preprocessing())


def test_held_out_copies_are_both_parts_one_after_the_other(net, folder, tmp_path):
    dataset = ImageFolder(folder, SMALL)
    both = HeldOutCopies(dataset, 2, 0.3, seed=5)
    train, held_out = both.parts
    for i in range(len(both)):
        part = train[i] if i < len(train) else held_out[i - len(train)]
        assert torch.equal(both[i].image, part.image)
        assert both[i].path == both.paths[i] == dataset.paths[both.picture[i]]
        assert both[i].label == both.labels[i]
        if both.copy[i] == 0:
            assert torch.equal(both[i].image, dataset[int(both.picture[i])].image)
    cache = record(net, both, tmp_path / "cache")
    assert torch.equal(cache.picture, both.picture)
    assert torch.equal(cache.copy, both.copy)
    assert torch.equal(cache.held_out, torch.arange(36) >= len(train))
    assert not set(cache.picture[cache.held_out].tolist()) & set(
        cache.picture[~cache.held_out].tolist()
    )
    expected = record_activations(net, "classifier.1", make_loader(held_out))
    found = cache.activations("classifier.1", cache.held_out)
    assert torch.allclose(found.z, expected.z, atol=1e-6)
    for other in (HeldOutCopies(dataset, 2, 0.3, seed=6), HeldOutCopies(dataset, 2, 0.4, seed=5)):
        with pytest.raises(DataError, match=r"data\.(seed|held_out) is"):
            record(net, other, tmp_path / "cache")


def test_a_cache_knows_names_and_source_and_can_be_pickled(net, folder, tmp_path):
    source = {"model": "x:y", "weights": None}
    cache = record(net, ImageFolder(folder, SMALL), tmp_path / "cache",
                   class_names=list("abcd"), source=source)  # fmt: skip
    again = pickle.loads(pickle.dumps(cache))
    assert again.class_names == ("a", "b", "c", "d")
    assert again.source == source
    assert torch.equal(again.labels, cache.labels)
    assert again.nbytes("classifier.1") == 12 * 24 * 4


def test_the_model_is_left_as_it_was(data, tmp_path):
    net = make_net(inplace=True).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    record(net, data, tmp_path / "cache", layers=["classifier.0"])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    z = ActivationCache.open(tmp_path / "cache").read("classifier.0")
    assert float(z.min()) < 0  # the ReLU behind it works in place


def test_chunks_have_a_sensible_size_by_default(net, data, tmp_path):
    cache = cache_activations(net, "classifier.1", data, tmp_path / "a", batch_size=4)
    assert (cache.store.chunks, cache.store.chunk_rows) == (1, 4096)
    images = torch.zeros(2, 3, 600, 600)
    maps = cache_activations(net, "features.3", images, tmp_path / "b", batch_size=4)
    assert maps.store.chunk_rows == 20  # 8 x 299 x 299 float32 is 2.9 MB
    assert maps.nbytes("features.3") == 2 * 8 * 299 * 299 * 4


def read_everywhere(place, rows, queue):
    cache = ActivationCache.open(place)
    queue.put((cache.read("classifier.1", torch.tensor(rows)).tolist(), cache.column(1).tolist()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_read_at_once(small_cache):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    rows = [[22, 3], [5, 5, 14]]
    place = small_cache.store.location
    readers = [context.Process(target=read_everywhere, args=(place, r, queue)) for r in rows]
    for reader in readers:
        reader.start()
    found = sorted((queue.get(timeout=300) for _ in rows), key=lambda item: len(item[0]))
    for reader in readers:
        reader.join()
    for (z, logits), wanted in zip(found, rows, strict=True):
        assert z == small_cache.read("classifier.1", torch.tensor(wanted)).tolist()
        assert logits == small_cache.column(1).tolist()


class Rows(TensorDataset):
    """If it stalls, whoever reads the last row but one waits for ever: no recording ends."""

    stalls = False

    def __getitem__(self, index):
        if self.stalls and index == len(self) - 2:
            threading.Event().wait()
        return super().__getitem__(index)


def record_slowly(place, stalls=False):
    rows = Rows(*make_images(60))
    rows.stalls = stalls
    cache_activations(make_net(), LAYERS, rows, place, chunk_rows=3, batch_size=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_recording_killed_at_random_moments_ends_in_the_same_bits(net, tmp_path):
    record_slowly(tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    place, waits = tmp_path / "killed", torch.rand(6, generator=torch.Generator().manual_seed(0))
    for wait in waits.tolist():
        there = len(list(place.glob("chunk*")))
        process = context.Process(target=record_slowly, args=(place, True))
        process.start()
        while process.is_alive() and len(list(place.glob("chunk*"))) < min(there + 2, 15):
            time.sleep(0.001)
        time.sleep(wait * 0.01)
        assert process.is_alive()
        process.kill()
        process.join()
        assert ActivationCache.open(place, complete=False).store.verify() == []
    record_slowly(place)
    assert files(place) == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_cache_larger_than_the_memory_allowed_is_usable(tmp_path):
    script = Path(__file__).parents[2] / "perf" / "cache_memory.py"
    options = {"gigabytes": 4, "limit": 2, "working-set": 0.3, "images": 2, "repeats": 1}
    command = [sys.executable, str(script), "--folder", str(tmp_path)]
    command += [f"--{name}={value}" for name, value in options.items()]
    subprocess.run([*command, "--json", str(tmp_path / "j.json")], check=True, timeout=300)
    reading = json.loads((tmp_path / "j.json").read_text())["reading"]
    assert reading["bytes"] > 3.9e9
    assert reading["right"]
    assert reading["peak_anonymous_bytes"] < 1.5e9
    assert not (tmp_path / "cache").exists()
