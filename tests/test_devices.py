"""Every public path gives on another device what it gives on the CPU.

The pretended device runs everywhere; CUDA and MPS where they are (`pytest -m cuda`).
"""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import atlas_examples
from atlas_examples import LAYER, make_parts, small_network
from cli_examples import FAST, write_letters
from conftest import make_images, make_net
from device_examples import DEVICES, opened
from pretended_device import APPLE, OTHER, PRETENDED, device_of, pretended_devices
from torchxnn import XNN
from torchxnn.apps.atlas import AtlasConfig, build_atlas
from torchxnn.apps.heatmaps.attribute import attribute_many
from torchxnn.apps.heatmaps.drawing import HeatmapConfig
from torchxnn.apps.what_if.one_image import what_if
from torchxnn.apps.what_if.painting import WhatIfConfig
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import METHODS, attributor
from torchxnn.cli.main import main
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.record import cache_activations
from torchxnn.embeddings import fit_dimensions, fit_ica, fit_nmf, fit_pca, with_readout
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import DegenerateFitWarning, ModelError, UnsupportedOperationError
from torchxnn.metrics import measure_faithfulness, part_mass, pointing_game
from torchxnn.metrics.insertion_deletion import feature_use, step_curve
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.training.config import ComputeConfig, ConvConfig
from torchxnn.training.initialise import VectorStarter
from torchxnn.training.many import fit_many
from training_examples import QUICK, distance, many_classes

pytestmark = [
    pytest.mark.usefixtures("few_starts"),
    pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning"),
]

REVIVING = replace(QUICK, subspace=8, components=0.0, revive=1, epochs=4, patience=2)
SHORT = replace(QUICK, epochs=1, pretrain_epochs=1)
FITS = {
    "ordinary": SHORT,
    "subspace": REVIVING,
    "relevance": replace(SHORT, relevance=1.0, trials=2, pull_away="cosine", subspace=8),
    "autoencoder": replace(SHORT, faithful=False, components=0.0, reconstruction="squared"),
}


@pytest.fixture(params=DEVICES)
def device(request):
    with opened(request.param) as found:
        yield found


# --- the pretended device itself --------------------------------------------------------------


def test_what_would_crash_on_cuda_crashes_on_the_pretended_device():
    here = torch.ones(3)
    with pretended_devices() as device:
        there = torch.zeros(3, device=device)
        assert [x.device for x in (there, there[1:], there + 1, torch.zeros_like(there))] == (
            [device] * 4
        )
        assert (there + torch.tensor(2.0)).device == there[torch.tensor([0])].device == device
        assert here.device == there.cpu().device == torch.device("cpu")
        number = there.sum()
        for wrong in (
            lambda: there + here,
            lambda: here * number,
            lambda: here[torch.zeros(1, dtype=torch.int64, device=device)],
            lambda: torch.stack([number, torch.tensor(0.0)]),
            lambda: torch.tensor(0.0).add_(number),
            lambda: torch.where(here > 0, there, there),
            lambda: there + torch.zeros(3, device=OTHER),
            lambda: torch.rand(3, device=device, generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError, match="Expected"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_what_apples_gpus_refuse_is_refused():
    here = torch.ones(3, dtype=torch.float64)
    with opened("apple") as device:
        there = torch.ones(3, device=device)
        assert (there.device, torch.ones(1, device="mps").device) == (device, device)
        assert here.to(device, torch.float32).device == device  # converted before it crosses
        assert (there.cpu().double() + here).sum() == 6
        assert (there * torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32
        for wrong in (
            lambda: here.to(device),
            lambda: there.double(),
            lambda: there.to("cpu", torch.float64),
            lambda: torch.zeros(3, dtype=torch.float64).copy_(there),
            lambda: there.sum(0, dtype=torch.float64),
            lambda: torch.tensor(here.numpy(), device=device),
            lambda: there.new_zeros(2, dtype=torch.float64),
            lambda: nn.Linear(2, 2, dtype=torch.float64).to(device),
        ):
            with pytest.raises(TypeError, match="doesn't support float64"):
                wrong()
        for missing in (torch.linalg.eigh, torch.linalg.qr):
            with pytest.raises(NotImplementedError, match="for the MPS device"):
                missing(torch.eye(2, device=device))
        odd = torch.ones(1, 1, 5, 5, device=device)
        with pytest.raises(RuntimeError, match="must be divisible"):
            functional.adaptive_avg_pool2d(odd, 2)
        assert functional.adaptive_avg_pool2d(odd, 1) == 1


def test_a_module_moves_to_the_pretended_device_and_learns_there():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    images = torch.rand(5, 3).requires_grad_()
    with pretended_devices() as device:
        net.to(device)
        with pytest.raises(RuntimeError, match="same device"):
            net(images)
        net(images.to(device)).square().sum().backward()
        torch.optim.Adam(net.parameters(), fused=True).step()
        assert {device_of(each) for each in net.state_dict().values()} == {PRETENDED}
        assert net[0].weight.grad.device == device
        assert images.grad.device == torch.device("cpu")


def test_a_fit_that_ends_moves_nothing_that_others_share(monkeypatch):
    """The first run on a GPU ended in it: an ended fit took the subspace of all others along."""
    ordinary, shared = VectorStarter._pretrained, []

    def pretrained(self):
        embedding = ordinary(self)
        shared.append(embedding.subspace)
        embedding.subspace = shared[0]
        return embedding

    monkeypatch.setattr(VectorStarter, "_pretrained", pretrained)
    config = replace(REVIVING, epochs=40)
    with pretended_devices() as device:
        found = fit_many(many_classes(), n_features=3, config=config, compute=on(device))
        assert device_of(shared[0].basis) == device
        assert len({fitted.report.epochs for fitted in found.classes}) > 1
        first = found.embedding(found.classes[0].targets)
        assert {device_of(each) for each in first.state_dict().values()} == {torch.device("cpu")}


# --- fits ------------------------------------------------------------------------------------


def on(device, **settings):
    return ComputeConfig(device=str(device), **settings)


@pytest.mark.parametrize("setting", FITS)
def test_fits_are_those_of_the_cpu(setting, device):
    data, config = many_classes(), FITS[setting]
    pretended = device in (PRETENDED, APPLE)
    wanted = fit_many(data, [1, 2], n_features=3, config=config)
    found = fit_many(data, [1, 2], n_features=3, config=config, compute=on(device))
    # On a CPU small products are computed fit by fit, elsewhere in one operation.
    limit = 1e-6 if pretended else 1e-2
    for first, second in zip(wanted.classes, found.classes, strict=True):
        assert first.report.epochs == second.report.epochs
        close = abs(first.report.validation_losses.total - second.report.validation_losses.total)
        assert close <= limit * first.report.validation_losses.total
    same = [distance(wanted.embedding(t), found.embedding(t)) for t in (1, 2)]
    assert max(same) <= (1e-5 if pretended else 0.1)
    revived = sum(fitted.report.revived for fitted in found.classes)
    assert revived > 0 or setting != "subspace"


def test_fits_in_bfloat16_run(device):
    fits = fit_many(
        many_classes(), [1], n_features=3, config=QUICK, compute=on(device, autocast=True)
    )
    assert not fits.failed


@pytest.mark.cuda
def test_compiled_fits_run_on_cuda():
    with opened("cuda") as device, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", DegenerateFitWarning)
        compute = on(device, compile=True)
        assert not fit_many(many_classes(), [1, 2], config=QUICK, compute=compute).failed


# --- one XNN: maps, explanations, evaluation, what-if, bulk, saved files ------------------------

SQUARE = Preprocessing(size=12, resize="squash")


def divided(net):
    """The same function, without an adaptive pool from 5 x 5 to 2 x 2, which MPS refuses."""
    net.avgpool = nn.AvgPool2d(3, 2)
    return net


def xnn_on(device):
    """An XNN whose x-features are all on, the same on every device."""
    xnn = XNN(
        divided(make_net()).to(device), "classifier.1", 3, class_names="abcd", preprocessing=SQUARE
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedding = SRAE(24, 3, 1, hidden=(16,)).eval()
    embedding.encoder[-1].bias.data.add_(0.5)
    xnn.attach_embedding(embedding, (1,), 4)
    return xnn


def attributed(xnn, images, tmp_path):
    """The maps of every method but one that MPS lacks; RISE with few masks."""
    names = [name for name in METHODS if name not in ("rise", "deep_lift")]
    maps = [xnn.attribute(images, name) for name in names]
    return [*maps, attributor("rise", xnn, masks=20).attribute(images, 1)]


def measured(xnn, images, tmp_path):
    """Figures of the network's own tensors, wherever they lie."""
    said, maps = xnn.run(images), xnn.attribute(images)[:, 0]
    own = (said.logits[:, [1]] > said.logits.mean()) | (said.logits == said.logits.max())[:, [1]]
    own[0] = True
    numbers = (said.features, said.contributions, said.reproduced, said.logits)
    found = measure_faithfulness(*numbers, (1,), own)
    boxes = torch.tensor([[2.0, 2.0, 6.0, 6.0]]).repeat(len(images), 1).to(images.device)
    right = torch.arange(12).expand(len(images), 12, 12) // 6
    game, mass = pointing_game(maps, boxes), part_mass(maps.unsqueeze(1), right, 2)
    curve, use = step_curve(said.features), feature_use(*said.features.T)
    steps = [curve.area, curve.interval.low, use.real, use.control_interval.high]
    return [torch.tensor([found.f_reg, found.r2, game.hit_rate]), mass, torch.tensor(steps)]


def concepts(xnn, images, tmp_path):
    """Concepts that are fitted where the activations lie, and what they contribute."""
    data = many_classes()
    z, logit = data.z.relu().to(images.device), data.logits[:, [1]].to(images.device)
    fitted = [fit_pca(z, 3), fit_nmf(z, 3), fit_dimensions(z, logit, logit[:, 0] > 0, 3)]
    fitted.append(fit_ica(z, logit[:, 0], logit[:, 0] > 0, 3))
    read = [with_readout(each, each.encode(z), logit, positives=logit > 0) for each in fitted]
    return [each.contributions(each.encode(z)) for each in read]


def deep_lift(xnn, images, tmp_path):
    if images.device != APPLE:
        return [xnn.attribute(images, "deep_lift")]
    with pytest.raises(UnsupportedOperationError, match=r"has not on mps:0 \(.*max_unpool2d.*CPU"):
        xnn.attribute(images, "deep_lift")
    xnn.model.to("cpu")
    return [xnn.to("cpu").attribute(images.cpu(), "deep_lift")]


def explained(xnn, images, tmp_path):
    explanation = xnn.explain(images[0], label=1)
    explanation.to_html(tmp_path / "page.html")
    return [torch.as_tensor(explanation.heatmaps), torch.as_tensor(explanation.logit_heatmaps)]


def removed(xnn, images, tmp_path):
    found = what_if(xnn, images[0], config=WhatIfConfig(controls=2))
    return [torch.tensor([[one.masked_real, one.set_reproduced] for one in found.changes])]


def in_bulk(xnn, images, tmp_path):
    dataset = ImageFolder(write_letters(tmp_path / "images"), SQUARE)
    config = HeatmapConfig(images="all", dtype="float32", images_at_once=16, chunk_rows=32)
    return [torch.as_tensor(attribute_many(xnn, dataset, tmp_path / "maps", config)[3].heatmaps)]


def saved_and_loaded(xnn, images, tmp_path):
    xnn.save_pretrained(tmp_path / "saved")
    here = XNN.from_pretrained(tmp_path / "saved", divided(make_net()))
    there = XNN.from_pretrained(tmp_path / "saved", divided(make_net()).to(images.device))
    maps = [here.attribute(images.cpu()), there.attribute(images)]
    return [*maps, there.run(images).contributions]


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_the_second_of_two_devices_is_the_one_that_is_used():
    """As with a model on cuda:1 while cuda:0 is the current device."""
    images = make_images(2)[0]
    expected = xnn_on("cpu").explain(images[0], label=1)
    with pretended_devices():
        found = xnn_on(OTHER).explain(images[0].to(OTHER), label=1)
        fits = fit_many(many_classes(), [1], n_features=3, config=SHORT, compute=on(OTHER))
    assert not fits.failed
    torch.testing.assert_close(found.heatmaps.cpu(), expected.heatmaps)


def test_a_model_that_is_spread_over_two_devices_is_refused_with_the_way_out():
    """As `device_map` of Hugging Face leaves it: its numbers can be had, its maps cannot."""
    net = divided(make_net())
    net.avgpool.register_forward_hook(lambda module, given, output: output.to(OTHER))
    images = make_images(2)[0]
    with pretended_devices() as device:
        net.features.to(device)
        net.classifier.to(OTHER)
        xnn = XNN(net, "classifier.1", 3)
        xnn.attach_embedding(xnn_on("cpu").fitted(), (1,), 4)
        xnn.embedding.to(OTHER)
        assert xnn.run(images.to(device)).logits.device == OTHER
        why = "spread over privateuseone:0 and privateuseone:1, .* without device_map"
        for wrong in (
            lambda: ExcitationBackprop(net),
            lambda: xnn.attribute(images.to(device)),
            lambda: xnn.explain(images[0].to(device)),
        ):
            with pytest.raises(ModelError, match=why):
                wrong()


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_maps_run_without_float64_and_with_the_same_certificate():
    images = make_images(2)[0]
    expected = xnn_on("cpu").explain(images[0], label=1)
    with opened("apple") as device:
        found = xnn_on(device).explain(images[0].to(device), label=1)
        assert found.certificate.conservation_error < 1e-6
        shares = found.certificate.fallback_shares
    torch.testing.assert_close(found.heatmaps.cpu(), expected.heatmaps)
    assert shares == pytest.approx(expected.certificate.fallback_shares)


PATHS = [attributed, measured, concepts, deep_lift, explained, removed, in_bulk, saved_and_loaded]


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_a_path_gives_what_it_gives_on_the_cpu(path, device, tmp_path):
    images = make_images(4)[0]
    (tmp_path / "cpu").mkdir()
    (tmp_path / "there").mkdir()
    expected = path(xnn_on("cpu"), images, tmp_path / "cpu")
    found = path(xnn_on(device), images.to(device), tmp_path / "there")
    for first, second in zip(expected, found, strict=True):
        torch.testing.assert_close(first, second.cpu(), rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
@pytest.mark.filterwarnings("ignore:.*left out of O1:torchxnn.errors.XNNWarning")
def test_a_whole_fit_and_its_evaluation_on_maps(device):
    images, kinds = make_images(48)
    loader = list(zip(images.split(16), kinds.split(16), strict=True))
    xnn = XNN(divided(make_net()).to(device), "features.3", 3)
    conv = ConvConfig(channels=(8,), map_batch_size=16, map_positions=8)
    config = replace(SHORT, conv=conv, trials=1)
    xnn.fit(loader, 1, config=config, compute=on(device))
    assert xnn.evaluate(loader).faithfulness.images == 48
    assert xnn.explain(images[0].to(device)).heatmaps.shape[0] == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
@pytest.mark.parametrize("targets", ["--target", "--targets"])
def test_the_command_fits_on_a_device_and_its_xnn_loads_here(targets, device, tmp_path, capsys):
    folder, out = write_letters(tmp_path / "images"), tmp_path / "run"
    given = ["fit", "cli_examples:small_network", folder, "--layer", "classifier.1", targets, "b"]
    settings = ["--device", device, "--out", out, "--n-features", "3", *FAST]
    assert main([*map(str, given), *map(str, settings)]) == 0
    found = next(out.glob("**/xnn.json")).parent
    xnn = XNN.from_pretrained(found, small_network())
    assert xnn.device.type == "cpu"
    assert torch.isfinite(xnn.attribute(make_images(2)[0])).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_a_cache_fits_from_it_and_an_atlas(device, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_examples, "small_network", lambda: divided(small_network()))
    parts = make_parts(tmp_path)
    cache = cache_activations(
        divided(small_network()).to(device), LAYER, parts.dataset, tmp_path / "there", chunk_rows=24
    )
    rows = torch.arange(8)
    torch.testing.assert_close(
        cache.read(LAYER, rows, torch.float32), parts.cache.read(LAYER, rows, torch.float32)
    )
    config = AtlasConfig(examples=1, top=1, spaced=1, against=1, least_correlation=-1.0)
    net = divided(small_network()).to(device)
    site = build_atlas(
        net, parts.runs, parts.dataset, tmp_path / "site", config=config, cache=parts.cache
    )
    assert site.failures == ()
