"""Folders of images: order, labels that never shift, and what is left out."""

import unicodedata
import warnings
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from image_examples import broken_files, noisy_jpeg, write_noise
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.datasets.images import read_image
from torchxnn.errors import DataError, SkippedImagesWarning
from torchxnn.models.preprocessing import Preprocessing

SMALL = Preprocessing(size=16, resize="squash")


def make_folder(root, layout):
    for seed, path in enumerate(layout):
        write_noise(root / path, seed)


def test_class_folders(tmp_path):
    make_folder(tmp_path, ["b/2.jpg", "b/1.JPG", "a/x.jpeg", "C/sub/deep.jpg"])
    dataset = ImageFolder(tmp_path, SMALL)
    assert dataset.classes == ("C", "a", "b")  # sorted as torchvision sorts
    assert dataset.paths == ("C/sub/deep.jpg", "a/x.jpeg", "b/1.JPG", "b/2.jpg")
    assert dataset.labels == (0, 1, 2, 2)
    assert dataset.skipped == ()
    sample = dataset[3]
    assert (sample.label, sample.path) == (2, "b/2.jpg")
    assert torch.equal(sample.image, SMALL(read_image(tmp_path / "b/2.jpg")))


def test_agrees_with_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder as Theirs

    make_folder(tmp_path, ["b/2.jpg", "b/10.jpg", "a/y.jpg", "a/x.jpg", "a b/z.jpg", "B/q.jpg"])
    ours, theirs = ImageFolder(tmp_path, SMALL), Theirs(tmp_path)
    assert list(ours.classes) == theirs.classes
    assert list(ours.labels) == theirs.targets
    assert [str(tmp_path / path) for path in ours.paths] == [path for path, _ in theirs.samples]


def test_hidden_and_other_files_are_ignored(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "a/.2.jpg", ".git/3.jpg", "__MACOSX/a/4.jpg"])
    (tmp_path / "a" / "notes.txt").write_text("notes")
    (tmp_path / "README.md").write_text("notes")
    dataset = ImageFolder(tmp_path, SMALL)
    assert (dataset.classes, dataset.paths) == (("a",), ("a/1.jpg",))


def test_kinds_that_nobody_reads_are_counted_in_one_warning(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "b/2.PNG"])
    for name in ("a/x.HEIF", "a/y.heif", "b/scan.nii", "b/deep/raw.CR2", "beside.exr", "b/0001"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "b" / "LICENSE").write_text("free")
    with pytest.warns(SkippedImagesWarning) as caught:
        dataset = ImageFolder(tmp_path, SMALL)
    assert dataset.paths == ("a/1.jpg", "b/2.PNG")
    (message,) = [str(one.message) for one in caught]
    assert (
        "not read and were left out: .heif 2 (needs pip install pillow-heif), without an "
        "extension 1, .cr2 1, .nii 1 (needs a network of volumes, --size"
    ) in message
    assert message.endswith(", .exr 1")


def test_numbers_are_sorted_by_value_and_all_else_as_text(tmp_path):
    make_folder(tmp_path, [f"{k}/1.jpg" for k in (10, 9, 2, 1)])
    assert ImageFolder(tmp_path, SMALL).classes == ("1", "2", "9", "10")
    make_folder(tmp_path, ["x/1.jpg"])
    assert ImageFolder(tmp_path, SMALL).classes == ("1", "10", "2", "9", "x")


def test_names_with_blanks_and_accents(tmp_path):
    two = unicodedata.normalize("NFD", "Mésange bleue")  # as some systems write it
    make_folder(tmp_path, [f"{two}/un été.jpg", "große Möwe/#1 100%.jpg"])
    names = ("große Möwe", unicodedata.normalize("NFC", two), "Spatz")
    dataset = ImageFolder(tmp_path, SMALL, classes=names)
    assert dataset.classes == names
    assert sorted(dataset.labels) == [0, 1]
    assert all(sample.label == label for sample, label in zip(dataset, dataset.labels, strict=True))


def test_unreadable_images_are_left_out_with_one_warning(tmp_path):
    make_folder(tmp_path, ["a/0.jpg", "a/zz.jpg", "b/1.jpg"])
    broken = broken_files(tmp_path / "a")
    with pytest.warns(SkippedImagesWarning) as caught:
        dataset = ImageFolder(tmp_path, SMALL)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("6 of 9 images could not be read and were left out: a/cut.jpg (trunc")
    assert message.endswith(", ...")
    assert {image.path for image in dataset.skipped} == {f"a/{name}" for name in broken}
    assert dataset.paths == ("a/0.jpg", "a/zz.jpg", "b/1.jpg")
    assert dataset.labels == (0, 0, 1)
    ((images, labels),) = make_loader(dataset)
    assert (len(images), labels.tolist()) == (3, [0, 0, 1])


def test_a_class_without_a_readable_image_stays_in_the_list(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "c/1.jpg"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jpg").write_bytes(b"")
    (tmp_path / "d").mkdir()
    with pytest.warns(SkippedImagesWarning, match="1 of 3 images"):
        dataset = ImageFolder(tmp_path, SMALL)
    assert dataset.classes == ("a", "b", "c", "d")
    assert dataset.labels == (0, 2)


def test_images_beside_the_class_folders_are_reported(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "stray.jpg"])
    with pytest.warns(SkippedImagesWarning, match=r"1 images beside the class .* out: stray\.jpg"):
        ImageFolder(tmp_path, SMALL)


def test_flat_folder_without_labels(tmp_path):
    make_folder(tmp_path, ["2.jpg", "1.jpg", "more/3.jpg"])
    dataset = ImageFolder(tmp_path, SMALL, labelled=False)
    assert dataset.paths == ("1.jpg", "2.jpg", "more/3.jpg")
    assert dataset.labels is None
    assert dataset.classes == ()
    assert dataset[0].label is None
    (images,) = make_loader(dataset)
    assert images.shape == (3, 3, 16, 16)


def test_known_classes_keep_their_numbers(tmp_path):
    make_folder(tmp_path, ["cat/1.jpg", "dog/1.jpg"])
    dataset = ImageFolder(tmp_path, SMALL, classes=("bird", "dog", "cat"))
    assert dataset.classes == ("bird", "dog", "cat")
    assert dataset.labels == (2, 1)
    with pytest.raises(DataError, match=r"dog is none of the 2 classes given; near ones: dogs"):
        ImageFolder(tmp_path, SMALL, classes=("cat", "dogs"))
    with pytest.raises(DataError, match="'cat' is given twice"):
        ImageFolder(tmp_path, SMALL, classes=("cat", "cat", "dog"))


def test_clear_errors(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        ImageFolder(tmp_path / "nowhere", SMALL)
    with pytest.raises(DataError, match="it is empty"):
        ImageFolder(tmp_path, SMALL)
    with pytest.raises(DataError, match="it is empty"):
        ImageFolder(tmp_path, SMALL, labelled=False)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(DataError, match="is not a folder"):
        ImageFolder(tmp_path / "notes.txt", SMALL)
    with pytest.raises(DataError, match=r"no class folders \(it has 1 x \.txt"):
        ImageFolder(tmp_path, SMALL)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"has no images \(it has 1 x \.txt; looked for"):
        ImageFolder(tmp_path, SMALL)
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 images .* a/1\.jpg: empty file"):
        ImageFolder(tmp_path, SMALL)


def test_images_without_class_folders_say_what_to_do(tmp_path):
    make_folder(tmp_path, ["1.jpg"])
    with pytest.raises(DataError, match="labelled=False"):
        ImageFolder(tmp_path, SMALL)


def test_a_file_that_breaks_later_is_an_error(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "a/2.jpg"])
    dataset = ImageFolder(tmp_path, SMALL)
    (tmp_path / "a" / "2.jpg").write_bytes(noisy_jpeg()[:900])
    with pytest.raises(DataError, match=r"2\.jpg: truncated"):
        list(make_loader(dataset))


def test_without_the_check_nothing_is_decoded(tmp_path):
    make_folder(tmp_path, ["a/1.jpg"])
    (tmp_path / "a" / "2.jpg").write_bytes(b"")
    dataset = ImageFolder(tmp_path, SMALL, check=False)
    assert len(dataset) == 2
    with pytest.raises(DataError, match=r"2\.jpg: empty file"):
        dataset[1]


def test_a_circle_of_links_ends(tmp_path):
    make_folder(tmp_path, ["a/1.jpg"])
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    assert ImageFolder(tmp_path, SMALL).paths == ("a/1.jpg",)


def test_a_link_to_the_root_does_not_bring_in_other_classes(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "b/2.jpg"])
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert ImageFolder(tmp_path, SMALL).paths == ("a/1.jpg", "b/2.jpg")


def test_links_to_files_and_folders_are_followed(tmp_path):
    make_folder(tmp_path, ["kept/1.jpg", "store/2.jpg", "set/b/3.jpg"])
    root = tmp_path / "set"
    (root / "a").symlink_to(tmp_path / "kept", target_is_directory=True)
    (root / "b" / "2.jpg").symlink_to(tmp_path / "store" / "2.jpg")
    (root / "b" / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "b" / "loop.jpg").symlink_to(root / "b" / "loop.jpg")
    with pytest.warns(SkippedImagesWarning, match="2 of 5 images could not be read"):
        dataset = ImageFolder(root, SMALL)
    assert dataset.paths == ("a/1.jpg", "b/2.jpg", "b/3.jpg")
    assert dataset.labels == (0, 1, 1)


def test_many_files_are_listed_without_looking_at_each(tmp_path, monkeypatch):
    make_folder(tmp_path, ["a/1.jpg"])
    for number in range(50):
        (tmp_path / "a" / f"x{number}.png").write_bytes(b"?")
    looked = []
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: looked.append(self) or real(self, **how))
    assert len(ImageFolder(tmp_path, SMALL, check=False)) == 51
    assert not [path for path in looked if path.suffix]


def test_progress_counts_every_image(tmp_path):
    make_folder(tmp_path, ["a/1.jpg", "a/2.jpg"])
    progress = Progress(disable=True)
    ImageFolder(tmp_path, SMALL, progress=progress)
    assert progress.tasks[0].completed == 2


def test_warning_filters_are_left_as_they_were(tmp_path):
    make_folder(tmp_path, ["a/1.jpg"])
    before = list(warnings.filters)
    ImageFolder(tmp_path, SMALL)
    assert warnings.filters == before
