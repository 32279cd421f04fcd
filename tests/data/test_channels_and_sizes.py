"""Images of any number of channels and of sides that differ, from the file to the drawing."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torchxnn import XNN, TrainConfig
from torchxnn.attribution.effective_weights import EFFECTIVE
from torchxnn.attribution.methods import METHODS, attributor
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.images import UnreadableImageError, read_input
from torchxnn.errors import DataError, XNNWarning
from torchxnn.metrics.masking import inpaint_images, masked_accuracy
from torchxnn.models.channels import settle_channels
from torchxnn.models.layers import record_layers, run_model, run_with_output
from torchxnn.models.load import load_model
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import structure, to_json

OBLONG = Preprocessing(size=(8, 24), resize="squash", mean=(0.0,) * 3, std=(1.0,))
SIX = Preprocessing(size=(8, 12), resize="squash", mean=(0.0,) * 6, std=(1.0,), shown=(5, 3, 1))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_height_comes_first():
    pixels = noise(8, 24, 3)
    image = OBLONG(Image.fromarray(pixels))
    assert image.shape == (3, 8, 24) == OBLONG.shape
    np.testing.assert_array_equal(OBLONG.picture(image), pixels)


@pytest.mark.parametrize(("width", "height"), [(100, 30), (30, 100), (64, 16), (17, 90)])
def test_an_oblong_crop_is_the_middle_of_the_picture(width, height):
    ours = Preprocessing(size=(16, 64), resize="crop", shorter_side=20)
    frame = ours.frame(width, height)
    scale = max(80 / width, 20 / height)  # the picture covers 80 x 20, of which 64 x 16 is cut out
    assert (frame.scale_x, frame.scale_y) == pytest.approx((scale, scale), rel=0.06)
    centre = frame.points(torch.tensor([[width / 2, height / 2]]))[0]
    assert centre.tolist() == pytest.approx([32, 8], abs=1)
    assert ours(Image.fromarray(noise(height, width, 3))).shape == (3, 16, 64)


def test_masks_parts_and_boxes_of_oblong_inputs():
    frame = Preprocessing(size=(10, 40), resize="squash").frame(80, 40)
    mask = np.zeros((40, 80), dtype=np.int64)
    mask[20:, 60:] = 7
    moved = frame.mask(mask)
    assert moved.shape == (10, 40)
    assert moved[5:, 30:].eq(7).all()
    assert moved.sum() == 7 * 50
    parts = frame.parts(torch.tensor([[70.0, 36.0, 1.0], [79.0, 41.0, 1.0]]))
    assert parts.tolist() == [[35.0, 9.0, 1.0], [0.0, 0.0, 0.0]]
    assert frame.box(torch.tensor([40.0, 20.0, 90.0, 90.0])).tolist() == [20.0, 5.0, 20.0, 5.0]


@pytest.mark.parametrize("made", [OBLONG, SIX, Preprocessing(mean=(0.5,), std=(0.25,))])
def test_json_brings_back_sizes_and_channels(made):
    assert structure(json.loads(to_json(made)), Preprocessing, "it") == made


def test_a_square_is_one_number_and_old_files_load():
    assert Preprocessing(size=(32, 32)) == Preprocessing(size=32)
    old = {"size": 64, "resize": "crop", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1],
           "interpolation": "bicubic", "shorter_side": 70}  # fmt: skip
    assert structure(old, Preprocessing, "it").channels == 3


def test_a_wrong_size_and_a_wrong_channel_are_named():
    with pytest.raises(DataError, match="must be 8 to 4096 pixels"):
        Preprocessing(size=(8, 4))
    with pytest.raises(DataError, match=r"shown must be 1 or 3 channels from 0 to 5, got \(6,\)"):
        Preprocessing(mean=(0.0,) * 6, std=(1.0,), shown=(6,))
    with pytest.raises(DataError, match=r"must have 6 channel\(s\), got 4"):
        SIX.picture(torch.zeros(4, 8, 12))


def test_what_the_command_line_gives_replaces_what_the_model_expects():
    given = DataConfig(size=(16, 64), in_channels=1, mean=(0.5,), std=(0.25,))
    made = given.preprocessing(Preprocessing())
    assert (made.shape, made.mean, made.std) == ((1, 16, 64), (0.5,), (0.25,))
    assert DataConfig(mean=(0.5,)).preprocessing(Preprocessing()).mean == (0.5, 0.5, 0.5)


def test_chosen_channels_are_drawn_and_stretched():
    image = torch.rand(6, 8, 12) * torch.tensor([1, 2, 3, 1e4, 5, 1e-3])[:, None, None]
    drawn = SIX.picture(image)
    assert drawn.shape == (8, 12, 3)
    for place, channel in enumerate((5, 3, 1)):
        order = np.corrcoef(drawn[..., place].ravel(), image[channel].numpy().ravel())[0, 1]
        assert order > 0.99
        assert drawn[..., place].max() == 255


# --- files


def test_grey_networks_see_all_levels_of_16_bits(tmp_path):
    levels = np.arange(1000, 1000 + 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "x.png")
    grey = Preprocessing(size=8, resize="squash", mean=(0.0,), std=(1.0,))
    image = read_input(tmp_path / "x.png", grey)
    np.testing.assert_allclose(image[0].numpy(), levels / 65535, rtol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1"])
def test_grey_networks_read_pictures_of_every_mode(tmp_path, mode):
    picture = Image.fromarray(noise(8, 8)).convert(mode)
    picture.save(tmp_path / "x.tif")
    grey = Preprocessing(size=8, resize="squash", mean=(0.0,), std=(1.0,))
    expected = np.asarray(picture.convert("RGB").convert("L")) / 255
    found = read_input(tmp_path / "x.tif", grey)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1.5 / 255)


def test_a_grey_picture_is_turned_as_its_camera_says(tmp_path):
    pixels = noise(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    grey = Preprocessing(size=(16, 8), resize="squash", mean=(0.0,), std=(1.0,))
    found = read_input(tmp_path / "x.png", grey)[0] * 255
    np.testing.assert_array_equal(found.round().numpy(), np.rot90(pixels, -1))


@pytest.mark.parametrize("first", [True, False])
def test_arrays_with_the_channels_first_or_last(tmp_path, first):
    pixels = noise(8, 12, 6)
    np.save(tmp_path / "x.npy", pixels.transpose(2, 0, 1) if first else pixels)
    image = read_input(tmp_path / "x.npy", SIX)
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), pixels / 255, atol=1e-6)


def test_pages_of_a_tiff_and_bands_of_a_picture_are_channels(tmp_path):
    pages = [Image.fromarray(noise(8, 12, seed=seed)) for seed in range(6)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    image = read_input(tmp_path / "x.tif", SIX)
    np.testing.assert_allclose(image[4].numpy(), np.asarray(pages[4]) / 255, atol=1e-6)
    four = Preprocessing(size=8, resize="squash", mean=(0.0,) * 4, std=(1.0,))
    pixels = noise(8, 8, 4)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = read_input(tmp_path / "x.png", four).permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((8, 12, 5)), r"an array \(8, 12, 5\); the network takes 6 channel\(s\)"),
        (np.zeros((6, 12, 6)), "may be the first or the last"),
        (np.full((8, 12, 6), np.nan), "NaN or infinity"),
        (np.zeros((8, 12, 6), dtype=complex), "values of the type complex128"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(UnreadableImageError, match=message):
        read_input(tmp_path / "x.npy", SIX)


def test_a_picture_for_six_channels_is_refused_in_one_line(tmp_path):
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match=r"3 band\(s\); the network takes 6 channels"):
        read_input(tmp_path / "x.png", SIX)


# --- networks


def net_of(channels):
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def test_the_first_convolution_says_how_many_channels():
    with pytest.warns(XNNWarning, match=r"takes 1 channel\(s\), and its preprocessing has 3"):
        assert settle_channels(net_of(1), Preprocessing(size=16)).channels == 1
    repeating = nn.Sequential(Repeat(), net_of(3))
    assert settle_channels(repeating, Preprocessing(mean=(0.5,), std=(0.5,))).channels == 1
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    assert settle_channels(flat, Preprocessing(size=8)).channels == 3


class Repeat(nn.Module):
    def forward(self, images):
        return images.expand(-1, 3, -1, -1)


@pytest.mark.filterwarnings("ignore:.*of the relevance met units", "ignore:degenerate fit")
def test_six_oblong_channels_are_explained_by_every_method_and_painted_over():
    net = net_of(6)
    images = torch.rand(48, 6, 8, 12)
    labels = torch.arange(48) % 3
    for k in range(3):
        images[labels == k, k, 2:6, 4 * k : 4 * k + 4] += 2
    xnn = XNN(net, "5", preprocessing=SIX)
    fast = TrainConfig(hidden=(8,), epochs=4, trials=1, pretrain_epochs=1)
    xnn.fit([(images, labels)], target=1, config=fast)
    explanation = xnn.explain(images[1])
    assert explanation.heatmaps.shape[1:] == (8, 12) == explanation.image.shape[:2]
    for method in METHODS:
        assert xnn.attribute(images[:1], method).shape[2:] == (8, 12), method
    keep = torch.ones(1, 8, 12, dtype=torch.bool)
    keep[0, 2:4, 2:4] = False
    painted = inpaint_images(images[:1], keep, SIX)
    assert torch.equal(painted[0, :, keep[0]], images[0, :, keep[0]])
    assert not torch.equal(painted, images[:1])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore:.*of the relevance met units", "ignore:degenerate fit")
def test_models_of_half_precision_take_images_in_float32(kind):
    net = net_of(3).to(kind)
    images, labels = torch.rand(45, 3, 12, 12), torch.arange(45) % 3
    for k in range(3):
        images[labels == k, k] += 2
    xnn = XNN(net, "5")
    fast = TrainConfig(hidden=(16,), epochs=8, trials=1, pretrain_epochs=1)
    xnn.fit([(images, labels)], target=1, config=fast)
    maps, certificate = xnn.attribute(images[:2], return_certificate=True)
    assert maps.dtype == torch.float32
    assert certificate.conservation_error < 1e-5
    assert xnn.run(images[:2]).logits.dtype == torch.float32
    assert next(net.parameters()).dtype == kind
    logits = run_model(net, images[:2])
    z = record_layers(net, ["5"], images[:2])[0][0]
    assert torch.equal(run_with_output(net, "5", images[:2], z), logits)
    every = [(images, labels, images[:, 0])]
    right = run_model(net, images).argmax(1) == labels
    masked = masked_accuracy(net, Preprocessing(size=12), every, (9,))
    assert masked.original == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_every_method_draws_logits_of_half_precision(method):
    options = {"layer": "5"} if method == EFFECTIVE else {}
    images = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    maps = [attributor(method, net, **options).attribute(images, 1)
            for net in (net_of(3), net_of(3).half())]  # fmt: skip
    assert maps[1].dtype == torch.float32
    assert torch.allclose(*maps, atol=0.1 * float(maps[0].abs().max()))


def test_a_wrong_number_of_channels_is_one_line():
    with pytest.raises(DataError, match=r"does not take images \(1, 8, 8\) \(.*got 1 channels"):
        XNN(net_of(3), "5").attached.run(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("shape", [(9,), (9, 9, 2), (1, 3, 9, 9)])
def test_an_array_of_other_dimensions_is_named(shape):
    with pytest.raises(DataError, match=r"takes 3 channel\(s\), the array is \(.*9"):
        Preprocessing(size=8)(np.zeros(shape))


def test_a_preprocessing_that_nobody_gave_is_said_unless_all_of_it_is():
    loaded = load_model("network_examples:always")
    known = load_model("network_examples:always", preprocessing=SIX)
    assert (loaded.assumed, known.assumed) == (True, False)
    assert not load_model("network_examples:complete").assumed
    given = DataConfig(size=(16, 64), mean=(0.5,))
    taken = given.preprocessing(loaded.preprocessing)
    with pytest.warns(XNNWarning, match="taking 3 x 16 x 64, .* mean 0.5, 0.5, 0.5 .* --std"):
        given.warn_of_assumed(loaded.assumed, taken)
    with warnings.catch_warnings(action="error"):
        given.warn_of_assumed(False, taken)
        DataConfig(size=(16, 64), mean=(0.5,), std=(0.2,)).warn_of_assumed(True, taken)
