"""Heatmaps in bulk: the numbers, the files, kills, and what is refused."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from cli_examples import write_letters
from conftest import make_images, make_net
from killing import kill_midway
from reference import shrink_maps_reference
from torchxnn.apps.heatmaps.attribute import attribute_many
from torchxnn.apps.heatmaps.config import HeatmapConfig
from torchxnn.apps.heatmaps.drawing import shrink_maps
from torchxnn.apps.heatmaps.store import Heatmaps
from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.methods import PAPER
from torchxnn.cli.main import main
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import (
    AttributionWarning,
    DataError,
    NonFiniteError,
    SkippedImagesWarning,
    XNNError,
)
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.parallel.engine import LocalEngine
from torchxnn.parallel.ray_engine import RayEngine
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.xnn import XNN

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")

SQUARE = Preprocessing(size=12, resize="squash")
ALL = HeatmapConfig(images="all", dtype="float32", images_at_once=8, chunk_rows=10)


def make_xnn(seed=0, net=None, targets=(1,), outputs=4, source=None):
    xnn = XNN(
        make_net(outputs) if net is None else net,
        "classifier.1",
        3,
        class_names="abcd" if outputs == 4 else None,
        preprocessing=SQUARE,
        source=source,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        embedding = SRAE(24, 3, len(targets), hidden=(16,)).eval()
    embedding.encoder[-1].bias.data.add_(0.5)  # every x-feature is on
    xnn.attach_embedding(embedding, targets, outputs)
    return xnn


@pytest.fixture
def xnn():
    return make_xnn()


@pytest.fixture
def folder(tmp_path):
    return write_letters(tmp_path / "images")


def open_folder(root, **options):
    return ImageFolder(root, SQUARE, **options)


def files(location):
    return {file.name: file.read_bytes() for file in Path(location).iterdir()}


def stacked(dataset, rows):
    return torch.stack([dataset[row].image for row in rows])


class TestNumbers:
    def test_they_are_those_of_the_xnn(self, xnn, folder, tmp_path):
        dataset, seen = open_folder(folder), []
        maps = attribute_many(
            xnn, dataset, tmp_path / "maps", ALL, on_images=lambda *counts: seen.append(counts)
        )
        assert len(maps) == 64
        assert seen == [
            (0, 64),
            (10, 64),
            (20, 64),
            (30, 64),
            (40, 64),
            (50, 64),
            (60, 64),
            (64, 64),
        ]
        for rows in (range(4), range(8, 10), range(10, 14)):
            images = stacked(dataset, rows)
            expected = xnn.attribute(images)
            for at, row in enumerate(rows):
                record = maps[row]
                assert (record.row, record.name) == (row, dataset.paths[row])
                assert torch.equal(record.heatmaps, expected[at])
                assert torch.allclose(record.features, xnn(images)[at])
                assert torch.allclose(record.contributions, xnn.contributions(images)[at])
                assert torch.allclose(record.reproduced, xnn.predict(images)[at])
                logits = xnn.model(images)[at]
                assert torch.allclose(record.logits, logits[[1]])
                assert record.predicted == int(logits.argmax())
                assert record.conservation_error < 1e-5
                assert 0 <= record.fallback_share <= 1
                assert record.problem == ""

    def test_a_sequence_of_frozen_records(self, xnn, folder, tmp_path):
        maps = attribute_many(xnn, open_folder(folder), tmp_path / "maps", ALL)
        assert [record.row for record in maps] == list(range(64))
        assert maps[-1].row == 63
        assert [record.row for record in maps[8:12]] == [8, 9, 10, 11]
        with pytest.raises(IndexError, match="no image 64"):
            maps[64]
        with pytest.raises(dataclasses.FrozenInstanceError):
            maps[0].row = 1
        assert (maps.targets, maps.class_names, maps.method) == (
            (1,),
            tuple("abcd"),
            "excitation_backprop_effective",
        )
        again = pickle.loads(pickle.dumps(maps))
        assert torch.equal(again[5].heatmaps, maps[5].heatmaps)
        assert torch.equal(maps.column("features")[5], maps[5].features)
        assert torch.equal(maps.rows, torch.arange(64))

    def test_float16_keeps_three_digits(self, xnn, folder, tmp_path):
        """Though relevance is far below the smallest number that float16 has without a scale."""
        dataset = open_folder(folder)
        exact = attribute_many(xnn, dataset, tmp_path / "exact", ALL)
        half = dataclasses.replace(ALL, dtype="float16")
        rounded = attribute_many(xnn, dataset, tmp_path / "half", half)
        for one, other in zip(exact, rounded, strict=True):
            largest = one.heatmaps.abs().amax((1, 2), keepdim=True)
            normal = one.heatmaps.abs() > largest / 16000
            error = (one.heatmaps - other.heatmaps).abs() / one.heatmaps.abs()
            assert error[normal].max() < 1e-3

    @pytest.mark.parametrize("method", ["gradient", "occlusion"])
    def test_other_methods_promise_nothing(self, xnn, folder, tmp_path, method):
        config = dataclasses.replace(ALL, method=method, images="positives")
        record = attribute_many(xnn, open_folder(folder), tmp_path / "maps", config)[0]
        assert record.conservation_error is record.fallback_share is None
        assert float(record.heatmaps.abs().sum()) > 0

    def test_fallback_shares_do_not_depend_on_what_is_drawn_together(self, xnn, folder, tmp_path):
        """They were means over the images that were drawn together."""
        images, _ = make_images(6)
        drawn = xnn.run_with_maps(images, PAPER, warn=False)
        expected = drawn.fallback_share.float()
        assert torch.equal(drawn.heatmaps, ExcitationBackprop(xnn).attribute_many(images, range(3)))
        assert float(expected.min()) < float(expected.max()) < 1
        data = TensorDataset(images)
        for size in (1, 4, 6):
            config = dataclasses.replace(ALL, images_at_once=size, method=PAPER)
            found = attribute_many(xnn, data, tmp_path / str(size), config).column("fallback_share")
            assert torch.allclose(found, expected[: len(found)], atol=1e-6)

    def test_bad_maps_are_counted_in_a_warning(self, xnn, folder, tmp_path, monkeypatch):
        monkeypatch.setattr("torchxnn.apps.heatmaps.attribute.FALLBACK_LIMIT", -1.0)
        with pytest.warns(AttributionWarning, match="64 of 64 images have relevance that was"):
            attribute_many(xnn, open_folder(folder), tmp_path / "maps", ALL)


class TestChosenImages:
    config = dataclasses.replace(ALL, images="positives")

    def test_positives_by_label(self, xnn, folder, tmp_path):
        dataset = open_folder(folder)
        maps = attribute_many(xnn, dataset, tmp_path / "maps", self.config)
        assert maps.rows.tolist() == [i for i, label in enumerate(dataset.labels) if label == 1]

    def test_positives_by_prediction_are_found_once(self, folder, tmp_path, monkeypatch):
        dataset, xnn = open_folder(folder, labelled=False), make_xnn(targets=(1, 3))
        predicted = xnn.model(stacked(dataset, range(64))).argmax(1)
        expected = [i for i, k in enumerate(predicted.tolist()) if k in (1, 3)]
        maps = attribute_many(xnn, dataset, tmp_path / "maps", self.config)
        assert maps.rows.tolist() == expected
        assert maps.store.about["chosen"] == "positives by prediction"
        monkeypatch.setattr("torchxnn.apps.heatmaps.attribute.find_part", None)
        assert len(attribute_many(xnn, dataset, tmp_path / "maps", self.config)) == len(expected)

    def test_a_single_output(self, folder, tmp_path):
        xnn = make_xnn(targets=(0,), outputs=1)
        dataset = open_folder(folder, labelled=False)
        logits = xnn.model(stacked(dataset, range(64)))[:, 0]
        config = dataclasses.replace(ALL)
        maps = attribute_many(xnn, dataset, tmp_path / "maps", config)
        assert maps.column("predicted").tolist() == (logits > 0).long().tolist()

    def test_data_sets_of_others(self, xnn, tmp_path):
        images, labels = make_images(12)
        maps = attribute_many(xnn, TensorDataset(images, labels), tmp_path / "maps", ALL)
        assert maps[3].name == "image 3"
        assert torch.equal(maps[3].heatmaps, xnn.attribute(images[:4])[3])

    def test_nothing_to_draw_is_an_error(self, xnn, folder, tmp_path):
        empty = TensorDataset(torch.zeros(0, 3, 12, 12))
        with pytest.raises(DataError, match="has no images"):
            attribute_many(xnn, empty, tmp_path / "maps", ALL)
        dataset = open_folder(folder, classes=tuple("abcde"))
        of_ten = make_xnn(targets=(9,), outputs=10)
        with pytest.raises(DataError, match="there are no images of 'class 9'"):
            attribute_many(of_ten, dataset, tmp_path / "maps", self.config)
        with pytest.raises(DataError, match="with images by number, got generator"):
            attribute_many(xnn, (i for i in [1]), tmp_path / "maps", ALL)
        with pytest.raises(XNNError, match="not fitted"):
            attribute_many(XNN(make_net(), "classifier.1"), dataset, tmp_path / "maps", ALL)
        assert not (tmp_path / "maps").exists()


class TestShrinking:
    def test_literal_sums(self):
        maps = torch.randn(2, 3, 7, 10, dtype=torch.float64)
        for size in (1, 3, 5, 7):
            found = shrink_maps(maps, size)
            expected = shrink_maps_reference(maps[1, 2].tolist(), size)
            assert torch.allclose(found[1, 2], torch.tensor(expected, dtype=torch.float64))
            assert torch.allclose(found.sum((2, 3)), maps.sum((2, 3)))

    def test_by_hand(self):
        """The middle pixel of three lies half in each of two cells."""
        maps = torch.tensor([[1.0, 2.0, 4.0]] * 3)
        assert torch.allclose(shrink_maps(maps, 2), torch.tensor([[3.0, 7.5], [3.0, 7.5]]))

    def test_its_limits(self):
        maps = torch.randn(4, 4)
        assert torch.equal(shrink_maps(maps, 4), maps)
        with pytest.raises(DataError, match="cannot be shrunk to size 5"):
            shrink_maps(maps, 5)

    def test_on_disk(self, xnn, folder, tmp_path):
        dataset = open_folder(folder)
        config = dataclasses.replace(ALL, map_size=5)
        maps = attribute_many(xnn, dataset, tmp_path / "maps", config)
        expected = shrink_maps(xnn.attribute(stacked(dataset, range(4))), 5)
        assert torch.equal(maps[2].heatmaps, expected[2])
        large = dataclasses.replace(ALL, map_size=13)
        with pytest.raises(DataError, match="map_size 13 is larger than the images, 12 x 12"):
            attribute_many(xnn, dataset, tmp_path / "more", large)


class TestStore:
    @pytest.mark.slow
    def test_interrupted_and_continued_gives_the_same_files(self, xnn, folder, tmp_path):
        dataset = open_folder(folder)
        attribute_many(xnn, dataset, tmp_path / "whole", ALL)

        def interrupt(done, _total):
            if done == 30:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            attribute_many(xnn, dataset, tmp_path / "maps", ALL, on_images=interrupt)
        with pytest.raises(DataError, match="4 of 7 chunks are missing"):
            Heatmaps.open(tmp_path / "maps")
        assert Heatmaps.open(tmp_path / "maps", complete=False)[29].row == 29
        seen = []
        attribute_many(
            xnn, dataset, tmp_path / "maps", ALL, on_images=lambda done, _: seen.append(done)
        )
        assert seen == [30, 40, 50, 60, 64]
        assert files(tmp_path / "maps") == files(tmp_path / "whole")

    def test_object_storage(self, xnn, tmp_path):
        data = TensorDataset(*make_images(12))
        there = attribute_many(xnn, data, "memory://bucket/maps", ALL)
        here = attribute_many(xnn, data, tmp_path / "maps", ALL)
        again = Heatmaps.open("memory://bucket/maps")
        assert len(again) == len(there) == 12
        for one, other in zip(again, here, strict=True):
            assert torch.equal(one.heatmaps, other.heatmaps)
        assert not attribute_many(xnn, data, "memory://bucket/maps", ALL).store.missing()

    def test_a_relative_folder_stays_where_it_is(self, xnn, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        maps = attribute_many(xnn, TensorDataset(make_images(4)[0]), "maps", ALL)
        monkeypatch.chdir("/")
        assert maps.store.location == tmp_path / "maps"
        assert maps[3].row == 3

    def test_other_settings_are_refused(self, xnn, folder, tmp_path):
        dataset = open_folder(folder)
        attribute_many(xnn, dataset, tmp_path / "maps", ALL)
        before = files(tmp_path / "maps")
        for what, changes in (
            ("method", {"method": "gradient"}),
            ("dtype", {"dtype": "float16"}),
            ("chosen", {"images": "positives"}),
            ("maps", {"map_size": 6}),
            ("images_at_once", {"images_at_once": 5}),
            ("chunk_rows", {"chunk_rows": 20}),
        ):
            config = dataclasses.replace(ALL, **changes)
            with pytest.raises(DataError, match=f"its {what}"):
                attribute_many(xnn, dataset, tmp_path / "maps", config)
        assert files(tmp_path / "maps") == before

    def test_another_xnn_model_or_data_set_is_refused(self, xnn, folder, tmp_path):
        dataset, place = open_folder(folder), tmp_path / "maps"
        attribute_many(xnn, dataset, place, ALL)
        with pytest.raises(DataError, match="its xnn is"):
            attribute_many(make_xnn(seed=1), dataset, place, ALL)
        with pytest.raises(DataError, match=r"its model\.fingerprint is"):
            attribute_many(make_xnn(net=make_net(seed=1)), dataset, place, ALL)
        (folder / "a" / "0.png").unlink()
        with pytest.raises(DataError, match=r"its data\.names is"):
            attribute_many(xnn, open_folder(folder), place, ALL)

    def test_a_folder_of_something_else_is_refused(self, xnn, folder, tmp_path):
        with pytest.raises(DataError, match="not a chunk store"):
            attribute_many(xnn, open_folder(folder), folder, ALL)
        ChunkStore.create(tmp_path / "cache", {"kind": "cache"}, 1, 1)
        with pytest.raises(DataError, match="its kind is"):
            attribute_many(xnn, open_folder(folder), tmp_path / "cache", ALL)
        with pytest.raises(DataError, match="holds 'cache' version None"):
            Heatmaps.open(tmp_path / "cache")

    @pytest.mark.parametrize(
        ("text", "changes"),
        [("unknown attribution method", {"method": "magic"}), ("map_size", {"map_size": 0}),
         ("images_at_once", {"images_at_once": 0}), ("chunk_rows", {"chunk_rows": -1})],
    )  # fmt: skip
    def test_settings_out_of_range(self, text, changes):
        with pytest.raises(XNNError, match=text):
            HeatmapConfig(**changes)


class TestBrokenImages:
    def break_images(self, folder, names):
        for name in names:
            path = folder / name
            path.write_bytes(path.read_bytes()[:60])

    def test_one_keeps_its_row_and_its_reason(self, xnn, folder, tmp_path):
        self.break_images(folder, ["b/1.png"])
        dataset = open_folder(folder, check=False)
        at = dataset.paths.index("b/1.png")
        with pytest.warns(SkippedImagesWarning, match=r"1 image\(s\) could not be read .*b/1\.png"):
            maps = attribute_many(xnn, dataset, tmp_path / "maps", ALL)
        record = maps[at]
        assert len(maps) == 64
        assert "truncated" in record.problem
        assert bool(record.heatmaps.isnan().all())
        assert bool(record.features.isnan().all())
        assert record.predicted == -1
        assert list(maps.unreadable) == ["b/1.png"]
        assert not any(other.problem for other in maps if other.row != at)
        with pytest.warns(SkippedImagesWarning, match="could not be read"):
            attribute_many(xnn, dataset, tmp_path / "maps", ALL)

    def test_those_left_out_before_are_named_too(self, xnn, folder, tmp_path):
        self.break_images(folder, ["b/1.png"])
        with pytest.warns(SkippedImagesWarning):
            dataset = open_folder(folder)
        with pytest.warns(SkippedImagesWarning, match=r"b/1\.png"):
            maps = attribute_many(xnn, dataset, tmp_path / "maps", ALL)
        assert len(maps) == 63
        assert "truncated" in maps.unreadable["b/1.png"]

    def test_nobody_knows_whether_one_is_a_positive(self, xnn, folder, tmp_path):
        self.break_images(folder, ["b/1.png"])
        dataset = open_folder(folder, labelled=False, check=False)
        config = dataclasses.replace(ALL, images="positives")
        xnn = make_xnn(targets=(0, 1, 2, 3))
        with pytest.warns(SkippedImagesWarning, match=r"b/1\.png"):
            maps = attribute_many(xnn, dataset, tmp_path / "maps", config)
        assert len(maps) == 63

    def test_all_of_them(self, xnn, folder, tmp_path):
        dataset = open_folder(folder, check=False)
        self.break_images(folder, dataset.paths)
        with pytest.raises(DataError, match=r"none of the 64 images can be read; the first: "):
            attribute_many(xnn, dataset, tmp_path / "maps", ALL)

    def test_nan_is_refused_and_named(self, xnn, tmp_path):
        images, _ = make_images(12)
        images[7, 0, 3, 3] = float("nan")
        with pytest.raises(NonFiniteError, match="NaN or infinity in image 7"):
            attribute_many(xnn, TensorDataset(images), tmp_path / "maps", ALL)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_engine_writes_the_same_files(xnn, folder, tmp_path, engine):
    dataset = open_folder(folder)
    attribute_many(xnn, dataset, tmp_path / "serial", ALL)
    if engine == "ray":
        pytest.importorskip("ray")
        several = RayEngine(workers=2)
    else:
        several = LocalEngine(2)
    attribute_many(xnn, dataset, tmp_path / "several", ALL, engine=several)
    assert files(tmp_path / "several") == files(tmp_path / "serial")


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path):
        source = {"model": "cli_examples:small_network", "weights": None, "random_weights": True}
        xnn = make_xnn(source=source)
        xnn.save_pretrained(tmp_path / "run")
        return tmp_path / "run"

    def arguments(self, run, folder, out, *more):
        return ["attribute", str(run), str(folder), "--out", str(out), "--images", "all",
                "--images-at-once", "1", "--chunk-rows", "1", "--map-size", "6", *more]  # fmt: skip

    def test_it_draws_and_says_where(self, run, folder, tmp_path, capsys):
        assert main(["attribute", str(run), str(folder), "--out", str(tmp_path / "maps")]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert (
            "16 of 64 images (those of 'b' by their labels; --images all draws the others, too)"
            in out
        )
        assert ", 3 heatmaps of 12 x 12 each, in" in out
        assert len(Heatmaps.open(tmp_path / "maps")) == 16

    def test_errors_are_one_line(self, run, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        assert main(self.arguments(run, tmp_path / "empty", tmp_path / "maps")) == 2
        assert "has no images" in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "maps").exists()
        assert main(self.arguments(run, tmp_path, tmp_path / "maps", "--address", "auto")) == 2
        assert "the local engine has no address" in capsys.readouterr().err

    @pytest.mark.slow
    def test_killed_and_run_again_gives_the_same_files(self, run, folder, tmp_path):
        """SIGKILL in the middle, while two workers write; no worker outlives it."""
        for file in [*folder.glob("c/*"), *folder.glob("d/*")]:
            file.unlink()
        maps = tmp_path / "maps"
        command = ["-m", "torchxnn.cli", *self.arguments(run, folder, maps), "--jobs", "2"]
        assert kill_midway(command, maps, "chunk-*.safetensors", 3, 32)
        store = ChunkStore.open(maps)
        assert 0 < len(store.missing()) < store.chunks == 32
        assert store.verify() == []
        assert main(self.arguments(run, folder, maps)) == 0
        assert main(self.arguments(run, folder, tmp_path / "whole")) == 0
        assert files(maps) == files(tmp_path / "whole")
