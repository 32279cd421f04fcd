"""What every registered data set keeps to, on a small set in its official layout."""

import pickle

import pytest
import torch

from dataset_examples import write_ade_challenge, write_cub, write_mnist, write_nyu, write_places
from image_examples import write_noise
from torchxnn.data.datasets import DATASETS, make_loader, subset
from torchxnn.data.datasets.images import read_image
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

SMALL = Preprocessing(size=24, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def write_folder(root):
    write_noise(root / "cat/1.jpg")
    write_noise(root / "dog/1.jpg")
    return root


WRITERS = {
    "folder": write_folder,
    "cub": write_cub,
    "nyu": write_nyu,
    "places": write_places,
    "ade20k": write_ade_challenge,
    "mnist": write_mnist,
}


@pytest.fixture(params=DATASETS)
def dataset(request, tmp_path):
    name = request.param
    if name == "elpv":
        pytest.importorskip("elpv_dataset", reason="needs the extra 'demo'")
        return subset(DATASETS[name](SMALL), range(3))
    return DATASETS[name](WRITERS[name](tmp_path), SMALL)


def test_every_data_set_keeps_the_contract(dataset):
    assert dataset.name
    assert len(dataset) == len(dataset.paths) == len(dataset.labels) > 0
    assert dataset.preprocessing == SMALL
    assert len(set(dataset.paths)) == len(dataset)
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.path == dataset.paths[index]
        file = dataset.file(index)
        assert file is None or SMALL(read_image(file)).equal(sample.image)
        assert sample.label == dataset.labels[index]
        assert 0 <= sample.label < len(dataset.classes)
        assert sample.image.dtype == torch.float32
        assert sample.image.shape[1:] == (24, 24)
        assert sample.image.isfinite().all()
        assert SMALL.picture(sample.image).shape == (24, 24, 3)
        if sample.masks is not None:
            assert sample.masks.shape == (24, 24)
            assert sample.masks.min() >= 0
            assert sample.masks.max() < len(dataset.object_names)
        if sample.parts is not None:
            assert sample.parts.shape == (len(dataset.part_names), 3)
    with pytest.raises(IndexError, match="there is no image"):
        dataset[len(dataset)]


@pytest.mark.parametrize("name", ["folder", "cub", "nyu", "places", "ade20k"])
def test_pictures_that_are_files_are_found(tmp_path, name):
    dataset = DATASETS[name](WRITERS[name](tmp_path), SMALL)
    assert all(dataset.file(index) for index in range(len(dataset)))
    assert subset(dataset, [1]).file(0) == dataset.file(1)


def test_every_data_set_can_be_batched_and_copied(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    for (images, labels), (again, _) in zip(
        make_loader(dataset, 2), make_loader(copy, 2), strict=True
    ):
        assert torch.equal(images, again)
        assert len(images) == len(labels)


@pytest.mark.parametrize("name", WRITERS)
def test_every_data_set_refuses_a_folder_that_is_not_it(tmp_path, name):
    with pytest.raises(DataError, match=str(tmp_path)):
        DATASETS[name](tmp_path, SMALL)
