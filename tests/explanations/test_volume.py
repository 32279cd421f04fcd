"""Networks of volumes (B, C, D, H, W): maps of every voxel, and explanations that show slices."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from torchxnn import XNN, TrainConfig
from torchxnn.attribution import ExcitationBackprop
from torchxnn.errors import DataError
from torchxnn.explanations.volume import VolumeExplanation, slices_of

FAST = TrainConfig(hidden=(16,), epochs=12, trials=1, pretrain_epochs=1)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*of the relevance met units", "ignore:degenerate fit"
)


def net_of_volumes():
    torch.manual_seed(0)
    body = [nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.AvgPool3d(2)]
    head = [nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)]
    return nn.Sequential(*body, *head).eval()


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(1)
    volumes, labels = torch.rand(45, 1, 6, 10, 12), torch.arange(45) % 3
    for k in range(3):
        volumes[labels == k, 0, 2 * k : 2 * k + 2, :5, :5] += 2
    xnn = XNN(net_of_volumes(), "7")
    xnn.fit([(volumes, labels)], target=1, config=FAST)
    return xnn, volumes


def test_maps_are_of_every_voxel_and_conserved(fitted):
    xnn, volumes = fitted
    xnn = copy.deepcopy(xnn)
    xnn.model.double()
    xnn.double()
    maps, certificate = xnn.attribute(volumes[:2].double(), return_certificate=True)
    assert maps.shape == (2, xnn.fitted().n_features, 6, 10, 12)
    assert certificate.conservation_error < 1e-9


def test_other_methods_say_what_they_take(fitted):
    xnn, volumes = fitted
    with pytest.raises(DataError, match=r"a map needs images \(B, C, H, W\)"):
        xnn.attribute(volumes[:1], "grad_cam")


def test_a_volume_of_one_slice_is_an_image():
    torch.manual_seed(2)
    flat = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2)]
    deep = [nn.Conv3d(2, 4, (1, 3, 3)), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
            nn.AvgPool3d((1, 2, 2))]  # fmt: skip
    for from_flat, to_deep in zip(flat[:2], deep[:2], strict=True):
        state = {k: v.reshape(to_deep.state_dict()[k].shape) for k, v in
                 from_flat.state_dict().items()}  # fmt: skip
        to_deep.load_state_dict(state)
    head = [nn.Flatten(), nn.Linear(16, 3)]
    images = torch.rand(2, 2, 10, 10, dtype=torch.float64)
    nets = (nn.Sequential(*body, *head).double().eval() for body in (flat, deep))
    first, second = (
        ExcitationBackprop(net).attribute_many(batch, [0, 2])
        for net, batch in zip(nets, (images, images.unsqueeze(2)), strict=True)
    )
    torch.testing.assert_close(second.squeeze(2), first)


def test_slices_with_the_most_positive_relevance_in_the_order_of_depth():
    heatmap = torch.zeros(5, 2, 2)
    heatmap[3, 0, 0], heatmap[1, 1, 1], heatmap[4], heatmap[0] = 2, 1, -9, 0.5
    assert slices_of(heatmap) == [0, 1, 3]


def test_an_explanation_draws_slices_and_comes_back(fitted, tmp_path):
    xnn, volumes = fitted
    explanation = xnn.explain(volumes[1])
    assert isinstance(explanation, VolumeExplanation)
    assert explanation.volume.shape == (6, 10, 12, 3)
    (shown, *_) = explanation.evidence(explanation.heatmaps)
    assert shown.image.shape == (10, 3 * 12 + 2, 3) == (*shown.relevance.shape, 3)
    chosen = slices_of(explanation.heatmaps[0])
    np.testing.assert_array_equal(shown.image[:, :12], explanation.volume[chosen[0]])
    assert f"slices {', '.join(map(str, chosen))}" in explanation.details(0, 0)
    explanation.save(tmp_path / "why")
    loaded = VolumeExplanation.load(tmp_path / "why")
    torch.testing.assert_close(loaded.heatmaps, explanation.heatmaps)
    assert loaded.summary() == explanation.summary()


def test_a_wrong_shape_is_one_line(fitted):
    with pytest.raises(DataError, match=r"one image \(C, H, W\) or volume \(C, D, H, W\), got"):
        fitted[0].explain(torch.zeros(2, 2))
