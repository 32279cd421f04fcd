import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import reference
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import (
    Inpainting,
    combine_maps,
    inpaint_images,
    inpaint_picture,
    masked_accuracy,
    top_pixels,
)
from torchxnn.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=16, resize="squash")


class ReddestHalf(nn.Module):
    """Class 0 if the left half is redder, class 1 if the right half is."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.9)

    def forward(self, images):
        half = images.shape[3] // 2
        red = images[:, 0]
        halves = torch.stack([red[:, :, :half].mean((1, 2)), red[:, :, half:].mean((1, 2))], dim=1)
        return self.drop(halves) * self.scale


def normalise(pictures):
    pixels = torch.from_numpy(pictures).float() / 255
    mean, std = torch.tensor(PREPROCESSING.mean), torch.tensor(PREPROCESSING.std)
    return ((pixels - mean) / std).permute(0, 3, 1, 2).contiguous()


def half_red_pictures():
    pictures = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    pictures[0, :, :8] = (250, 40, 40)
    pictures[1, :, 8:] = (250, 40, 40)
    return pictures, torch.tensor([0, 1])


def test_combined_map_by_hand():
    maps = torch.tensor([[[[1.0, 3.0, -5.0]], [[0.0, 0.0, 2.0]]]])
    combined = combine_maps(maps, torch.tensor([[3.0, -1.0]]))
    # shares 3/4 and 1/4 of (1/4, 3/4, 0) and (0, 0, 1)
    assert combined[0, 0].tolist() == pytest.approx([3 / 16, 9 / 16, 1 / 4])


def test_combined_map_of_one_feature_ranks_as_its_own_map():
    maps = torch.randn(2, 1, 3, 4)
    combined = combine_maps(maps, torch.tensor([[0.3], [-7.0]]))
    positive = maps[:, 0].clamp(min=0)
    assert torch.allclose(combined, positive / positive.sum((1, 2), keepdim=True))


def test_empty_map_adds_nothing_and_no_contribution_means_equal_shares():
    maps = torch.tensor([[[[1.0, 1.0]], [[-1.0, 0.0]]], [[[1.0, 0.0]], [[0.0, 1.0]]]])
    combined = combine_maps(maps, torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    assert combined[:, 0].tolist() == [pytest.approx([1 / 8, 1 / 8]), pytest.approx([0.5, 0.5])]


@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6),
    kept=st.integers(1, 6),
)
@settings(max_examples=50)
def test_top_pixels_equal_the_literal_version(scores, kept):
    keep = top_pixels(torch.tensor(scores).reshape(1, 2, 3), kept)
    expected = reference.top_pixels(scores, kept)
    assert set(keep.flatten().nonzero().flatten().tolist()) == expected


def test_inpainting_keeps_the_kept_pixels_and_fills_from_them():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    keep = rng.random((16, 16)) < 0.2
    filled = inpaint_picture(picture, keep)
    assert np.array_equal(filled[keep], picture[keep])
    assert filled.dtype == np.uint8
    assert filled[~keep].mean() > 50
    # what lay under the mask must not shine through
    other = np.where(keep[:, :, None], picture, 255 - picture).astype(np.uint8)
    assert np.array_equal(inpaint_picture(other, keep), filled)


@pytest.mark.parametrize(("algorithm", "drift"), [("telea", 6), ("navier_stokes", 0)])
def test_inpainting_of_one_colour_gives_that_colour_back(algorithm, drift):
    picture = np.full((12, 12, 3), (10, 200, 90), dtype=np.uint8)
    keep = np.zeros((12, 12), dtype=bool)
    keep[5, 5:7] = True
    filled = inpaint_picture(picture, keep, Inpainting(algorithm))
    assert np.abs(filled.astype(int) - picture).max() <= drift


def test_nothing_kept_is_black_and_everything_kept_is_the_picture():
    picture = np.full((4, 5, 3), 77, dtype=np.uint8)
    assert (inpaint_picture(picture, np.zeros((4, 5), dtype=bool)) == 0).all()
    assert (inpaint_picture(picture, np.ones((4, 5), dtype=bool)) == 77).all()


def test_images_come_back_normalised():
    pictures = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    images = normalise(pictures)
    everything = torch.ones(2, 16, 16, dtype=torch.bool)
    assert torch.allclose(inpaint_images(images, everything, PREPROCESSING), images, atol=1e-5)
    with pytest.raises(DataError, match="3 channels, got 1"):
        inpaint_images(images[:, :1], everything, PREPROCESSING)


def test_accuracy_by_hand_and_model_unchanged():
    pictures, labels = half_red_pictures()
    images = normalise(pictures)
    model = ReddestHalf().train()
    good = torch.rand(2, 16, 16) + 0.1
    # only black pixels of the second picture: red cannot be told from it, so class 0 wins the tie
    blind = good.clone()
    blind[1, :, 8:] = -1
    result = masked_accuracy(model, PREPROCESSING, [(images, labels, good)], kept=(200, 256))
    assert result.accuracy == (1.0, 1.0)
    assert result.original == 1.0
    assert (result.images, result.kept, result.short) == (2, (200, 256), (0, 0))
    result = masked_accuracy(model, PREPROCESSING, [(images, labels, blind)], kept=(100, 200))
    assert result.accuracy == (0.5, 0.5)
    assert result.short == (0, 1)
    assert model.training
    assert model.drop.training
    assert model.scale.requires_grad


def test_a_single_logit_tells_two_classes_apart():
    class RedderRight(ReddestHalf):
        def forward(self, images):
            left, right = super().forward(images).unbind(1)
            return right - left

    pictures, labels = half_red_pictures()
    maps = torch.rand(2, 16, 16)
    batch = (normalise(pictures), labels, maps)
    result = masked_accuracy(RedderRight(), PREPROCESSING, [batch], kept=(256,))
    assert (result.original, result.accuracy) == (1.0, (1.0,))


def test_batches_add_up_and_may_use_gradients():
    pictures, labels = half_red_pictures()
    images = normalise(pictures)
    model = ReddestHalf()

    def batches():
        for image, label in zip(images, labels, strict=True):
            one = image.unsqueeze(0).requires_grad_()
            model.eval()(one).sum().backward()
            yield one.detach(), label.reshape(1), one.grad.abs().sum(1)

    assert masked_accuracy(model, PREPROCESSING, batches(), kept=(64,)).images == 2


def test_bad_input_is_an_error():
    pictures, labels = half_red_pictures()
    images, model, maps = normalise(pictures), ReddestHalf(), torch.ones(2, 16, 16)
    with pytest.raises(DataError, match="no images"):
        masked_accuracy(model, PREPROCESSING, [])
    with pytest.raises(DataError, match="at least one number"):
        masked_accuracy(model, PREPROCESSING, [], kept=())
    with pytest.raises(DataError, match="1 to 256, got 300"):
        masked_accuracy(model, PREPROCESSING, [(images, labels, maps)])
    with pytest.raises(DataError, match="2 images, 2 labels and 1 maps"):
        masked_accuracy(model, PREPROCESSING, [(images, labels, maps[:1])], kept=(5,))
    with pytest.raises(DataError, match="0 to 1 of the model, got 0 to 2"):
        masked_accuracy(model, PREPROCESSING, [(images, labels * 2, maps)], kept=(5,))
    with pytest.raises(NonFiniteError, match="heatmap to mask"):
        top_pixels(maps / 0, 1)
    with pytest.raises(NonFiniteError, match="to combine"):
        combine_maps(maps.unsqueeze(0), torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(DataError, match="16 x 16 pixels and the mask 4 x 4"):
        inpaint_picture(pictures[0], np.ones((4, 4), dtype=bool))
    with pytest.raises(DataError, match="radius must be positive, got 0"):
        Inpainting(radius=0.0)
    broken = Inpainting()
    object.__setattr__(broken, "algorithm", "magic")  # as from a file; the constructor is typed
    with pytest.raises(DataError, match="'telea' or 'navier_stokes', got 'magic'"):
        broken.__post_init__()
