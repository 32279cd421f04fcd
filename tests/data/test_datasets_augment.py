"""Altered copies of pictures."""

import pytest
import torch

from image_examples import write_noise
from torchxnn.data.datasets.augment import AugmentedImages, HeldOutCopies, alter
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

SQUASH = Preprocessing(size=24, resize="squash")


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        write_noise(tmp_path / f"class{index % 2}" / f"{index}.jpg", index)
    return ImageFolder(tmp_path, SQUASH)


def test_originals_come_first_and_copies_keep_their_labels(folder):
    copies = AugmentedImages(folder, 2)
    assert len(copies) == 9
    assert copies.labels == folder.labels * 3
    for index in range(3):
        assert torch.equal(copies[index].image, folder[index].image)
        assert not torch.equal(copies[index + 3].image, folder[index].image)
        assert copies[index + 6].label == folder[index].label
        assert copies[index + 6].path == folder[index].path
    assert len(AugmentedImages(folder, 2, originals=False)) == 6


def test_the_same_seed_gives_the_same_copies(folder):
    first, again = AugmentedImages(folder, 1, seed=3), AugmentedImages(folder, 1, seed=3)
    other = AugmentedImages(folder, 1, seed=4)
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[3].image, other[3].image)


def test_a_part_is_a_part():
    """In a picture of its own columns' numbers one sees which columns a copy shows."""
    ramp = torch.linspace(0, 1, 64).expand(1, 64, 64).contiguous()
    generator = torch.Generator().manual_seed(0)
    mirrored = 0
    for _ in range(50):
        part = alter(ramp, generator)
        assert part.shape == ramp.shape
        assert part.min() >= -1e-6
        assert part.max() <= 1 + 1e-6
        rising = bool(part[0, 0, -1] > part[0, 0, 0])
        mirrored += not rising
        spread = float((part[0, 0, -1] - part[0, 0, 0]).abs())
        assert 0.4 < spread <= 1 + 1e-6  # the narrowest part has sqrt(0.25 * 3 / 4) of the width
    assert 10 < mirrored < 40


def test_bad_settings(folder):
    with pytest.raises(DataError, match="copies must be at least 1"):
        AugmentedImages(folder, 0)


def test_no_copy_of_a_held_out_picture_is_fitted(tmp_path):
    for index in range(12):
        write_noise(tmp_path / f"class{index % 2}" / f"{index}.jpg", index)
    folder = ImageFolder(tmp_path, SQUASH)
    train, validation = HeldOutCopies(folder, 2, held_out=0.3, seed=1).parts
    assert set(train.paths) | set(validation.paths) == set(folder.paths)
    assert not set(train.paths) & set(validation.paths)
    assert (len(train), len(validation)) == (8 * 3, 4 * 3)
    assert sorted(validation.labels) == [0] * 6 + [1] * 6
    again, _ = HeldOutCopies(folder, 2, held_out=0.3, seed=1).parts
    assert again.paths == train.paths


def test_single_pictures_cannot_be_held_out(tmp_path):
    write_noise(tmp_path / "one" / "1.jpg")
    write_noise(tmp_path / "two" / "2.jpg")
    with pytest.raises(DataError, match="too few images"):
        HeldOutCopies(ImageFolder(tmp_path, SQUASH), 1, held_out=0.2)
