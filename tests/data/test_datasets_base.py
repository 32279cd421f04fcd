"""Preprocessing, the geometry of parts and boxes, subsets and loaders."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample, make_loader
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Frame, Preprocessing
from torchxnn.storage.artifact import structure, to_json

PLAIN = Preprocessing(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Squares(ImageDataset):
    """Pictures of one grey value each."""

    def __init__(self, count: int, labels: tuple[int, ...] | None):
        self.name = "squares"
        self.classes = ("dark", "light") if labels else ()
        self.labels = labels
        self.paths = tuple(f"{index}.png" for index in range(count))
        self.preprocessing = PLAIN

    def load(self, index: int) -> Sample:
        label = None if self.labels is None else self.labels[index]
        return Sample(torch.full((3, 16, 16), float(index)), label, self.paths[index])


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(60, 41), (41, 60), (50, 50), (9, 300), (17, 18)])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_agrees_with_torchvision(width, height, resize, interpolation):
    shorter = 37 if resize == "crop" else None
    ours = Preprocessing(32, resize, interpolation=interpolation, shorter_side=shorter)
    mode = v2.InterpolationMode(interpolation)
    if resize == "squash":
        steps = [v2.Resize((32, 32), mode)]
    else:
        steps = [v2.Resize(37, mode), v2.CenterCrop(32)]
    normalise = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    theirs = v2.Compose([*steps, *normalise, v2.Normalize(ours.mean, ours.std)])
    image = noise(width, height)
    torch.testing.assert_close(ours(image), theirs(image).as_subclass(torch.Tensor))


def test_crop_resizes_the_shorter_side_to_256_for_224():
    frame = Preprocessing(size=224, resize="crop").frame(512, 1024)
    assert (frame.scale_x, frame.scale_y) == (0.5, 0.5)
    assert (frame.left, frame.top) == (16, (512 - 224) // 2)


def test_picture_undoes_the_normalisation():
    image = noise(24, 24)
    preprocessing = Preprocessing(size=24, resize="squash")
    np.testing.assert_array_equal(preprocessing.picture(preprocessing(image)), np.asarray(image))


def test_picture_is_clipped():
    bright = torch.full((3, 8, 8), 1e6)
    assert (Preprocessing(size=8).picture(bright) == 255).all()
    assert (Preprocessing(size=8).picture(-bright) == 0).all()


def test_survives_json():
    preprocessing = Preprocessing(size=96, resize="squash", mean=(0.1, 0.2, 0.3))
    assert structure(json.loads(to_json(preprocessing)), Preprocessing, "it") == preprocessing
    with pytest.raises(DataError, match="it is damaged: nobody knows colour"):
        structure({"colour": 1}, Preprocessing, "it")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size must be 8 to 4096 pixels, got 0"),
        ({"resize": "stretch"}, "resize must be 'squash' or 'crop', got 'stretch'"),
        ({"interpolation": "box"}, "interpolation must be"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"mean": (1.0, float("nan"), 1.0)}, "mean must be one finite number per channel"),
        ({"mean": [1.0, 2.0]}, "mean must be one finite number per channel"),
        ({"shorter_side": 100}, r"shorter_side must be at least size \(224\), got 100"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    made = Preprocessing()
    for name, value in values.items():  # around beartype, which people do not have
        object.__setattr__(made, name, value)
    with pytest.raises(DataError, match=message):
        made.__post_init__()
    with pytest.raises(DataError, match=r"it is damaged: .*"):
        structure(values, Preprocessing, "it")


def test_parts_and_box_when_squashed_by_hand():
    frame = Preprocessing(size=100, resize="squash").frame(200, 50)  # x halves, y doubles
    parts = torch.tensor([[20.0, 10.0, 1.0], [30.0, 5.0, 0.0]])
    assert frame.parts(parts).tolist() == [[10.0, 20.0, 1.0], [0.0, 0.0, 0.0]]
    assert frame.box(torch.tensor([20.0, 10.0, 60.0, 30.0])).tolist() == [10.0, 20.0, 30.0, 60.0]


def test_parts_and_box_when_cropped_by_hand():
    # 200 x 100 becomes 100 x 50, of which the middle 40 x 40 is cut out: x from 30, y from 5.
    frame = Preprocessing(size=40, resize="crop", shorter_side=50).frame(200, 100)
    parts = torch.tensor([[100.0, 50.0, 1.0], [10.0, 50.0, 1.0]])
    assert frame.parts(parts).tolist() == [[20.0, 20.0, 1.0], [0.0, 0.0, 0.0]]
    assert frame.box(torch.tensor([20.0, 30.0, 80.0, 40.0])).tolist() == [0.0, 10.0, 20.0, 20.0]
    assert frame.box(torch.tensor([0.0, 0.0, 10.0, 10.0]))[2:].tolist() == [0.0, 0.0]


@given(
    st.integers(20, 90),
    st.integers(20, 90),
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.9),
    st.sampled_from(["squash", "crop"]),
)
def test_a_part_stays_on_its_pixel(width, height, right, down, resize):
    """A white square drawn around a part is white at the moved part."""
    x, y = int(right * width), int(down * height)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = 255
    preprocessing = Preprocessing(size=64, resize=resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    image = preprocessing(Image.fromarray(pixels))
    part = preprocessing.frame(width, height).parts(torch.tensor([[x + 0.5, y + 0.5, 1.0]]))[0]
    if part[2]:
        assert image[0, int(part[1]), int(part[0])] > 0.9


def nearest(length: int, resized: int, start: int, size: int) -> list[int]:
    """Literal second version in exact fractions: the pixel that holds the centre."""
    centres = [Fraction(2 * (start + index) + 1, 2) for index in range(size)]
    return [int(centre * length / resized) for centre in centres]


@given(st.integers(9, 60), st.integers(9, 60), st.sampled_from(["squash", "crop"]))
def test_a_mask_takes_the_nearest_pixel(width, height, resize):
    mask = np.random.default_rng(0).integers(0, 3688, (height, width))
    preprocessing = Preprocessing(size=23, resize=resize, shorter_side=29)
    frame = preprocessing.frame(width, height)
    wide, high = round(width * frame.scale_x), round(height * frame.scale_y)
    rows = nearest(height, high, frame.top, 23)
    columns = nearest(width, wide, frame.left, 23)
    ours = frame.mask(mask)
    assert ours.dtype == torch.int64
    np.testing.assert_array_equal(ours, mask[rows][:, columns])
    np.testing.assert_array_equal(ours, frame.mask(mask.astype(np.uint16)))


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_mask_agrees_with_pillow(resize):
    """At odd sizes no centre lies on a border, where Pillow rounds either way."""
    mask = np.random.default_rng(0).integers(0, 3688, (241, 321))
    frame = Preprocessing(size=199, resize=resize, shorter_side=211).frame(321, 241)
    size = round(321 * frame.scale_x), round(241 * frame.scale_y)
    resized = Image.fromarray(mask.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    edges = (frame.left, frame.top, frame.left + 199, frame.top + 199)
    np.testing.assert_array_equal(frame.mask(mask), np.asarray(resized.crop(edges)))


@given(st.integers(30, 90), st.integers(30, 90), st.sampled_from(["squash", "crop"]))
def test_a_mask_lies_on_its_picture(width, height, resize):
    """Four grey quarters: number and grey belong together, but for 3 pixels beside a border."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: height // 2, width // 2 :] = 1
    mask[height // 2 :, : width // 2] = 2
    mask[height // 2 :, width // 2 :] = 3
    preprocessing = Preprocessing(size=64, resize=resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    picture = Image.fromarray(np.repeat(mask[..., None] * 85, 3, axis=2))
    seen = preprocessing(picture)[0] * 3
    moved = preprocessing.frame(width, height).mask(mask).float()
    largest = torch.nn.functional.max_pool2d(moved[None], 7, 1, 3)[0]
    smallest = -torch.nn.functional.max_pool2d(-moved[None], 7, 1, 3)[0]
    inside = largest == smallest
    assert inside.float().mean() > 0.7
    torch.testing.assert_close(seen[inside], moved[inside])


def test_a_mask_by_hand():
    # 4 x 2 becomes 2 x 2: column centres 1 and 3 lie on borders, which belong to the right.
    frame = Frame(scale_x=0.5, scale_y=1.0, left=0, top=0, height=2, width=2)
    assert frame.mask(np.array([[1, 2, 3, 4], [5, 6, 7, 8]])).tolist() == [[2, 4], [6, 8]]
    # Twice as large, of which the 2 x 2 from column 3 and row 1 is cut out.
    frame = Frame(scale_x=2.0, scale_y=2.0, left=3, top=1, height=2, width=2)
    assert frame.mask(np.array([[1, 2, 3, 4], [5, 6, 7, 8]])).tolist() == [[2, 3], [6, 7]]


def test_picture_of_one_channel_is_grey():
    preprocessing = Preprocessing(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    drawn = preprocessing.picture(torch.zeros(1, 8, 8))
    assert drawn.shape == (8, 8, 3)
    assert (drawn == 128).all()
    with pytest.raises(DataError, match=r"must have 3 channel\(s\), got 2"):
        preprocessing.picture(torch.zeros(2, 8, 8))


def test_loader_yields_images_and_labels_in_order():
    batches = list(make_loader(Squares(5, (0, 1, 0, 1, 1)), batch_size=2))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 1, 0, 1, 1]


def test_loader_without_labels_yields_images_alone():
    (batch,) = make_loader(Squares(3, None))
    assert isinstance(batch, torch.Tensor)
    assert batch.shape == (3, 3, 16, 16)


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 0), (1, -1)])
def test_loader_refuses_wrong_numbers(batch_size, workers):
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        make_loader(Squares(3, None), batch_size, workers)


def test_loader_refuses_an_empty_data_set():
    with pytest.raises(DataError, match="squares has no images"):
        make_loader(Squares(0, None))


def test_a_missing_label_never_becomes_a_number():
    class Forgetful(Squares):
        def load(self, index: int) -> Sample:
            return dataclasses.replace(super().load(index), label=None)

    with pytest.raises(DataError, match=r"0\.png has no label"):
        next(iter(make_loader(Forgetful(2, (0, 1)))))


def test_subset_keeps_order_labels_and_paths():
    part = ImageSubset(Squares(5, (0, 1, 0, 1, 1)), [4, 0, 3])
    assert part.labels == (1, 0, 1)
    assert part.paths == ("4.png", "0.png", "3.png")
    assert part.classes == ("dark", "light")
    assert [sample.image[0, 0, 0].item() for sample in (part[0], part[1], part[-1])] == [4, 0, 3]
    assert ImageSubset(part, [1]).paths == ("0.png",)
    assert ImageSubset(Squares(3, None), [0]).labels is None


@pytest.mark.parametrize("index", [5, -1])
def test_subset_refuses_an_index_outside(index):
    with pytest.raises(DataError, match=f"must be 0 to 4, got {index}"):
        ImageSubset(Squares(5, None), [index])


def test_index_outside():
    with pytest.raises(IndexError, match="squares has 2 images, there is no image 2"):
        Squares(2, None)[2]
