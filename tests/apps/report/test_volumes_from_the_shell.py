"""From a folder of volumes to the report, by the commands that people type."""

import json

import numpy as np
import pytest
import torch

from cli_examples import FAST, fails, text_of
from torchxnn.apps.report import ReportConfig, build_report, write_report
from torchxnn.apps.saved_xnn import open_run
from torchxnn.apps.what_if import what_if
from torchxnn.cli.main import main
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.errors import DataError
from torchxnn.explanations import VolumeExplanation
from torchxnn.explanations.contrast import Contrast, contrast
from torchxnn.explanations.volume import in_slices
from volume_examples import SIZE, make_volumes, write_volumes

MODEL = "volume_examples:described_network"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*of the relevance met units", "ignore:degenerate fit"),
    pytest.mark.filterwarnings("ignore:.*x-feature.* are left out of", "ignore:.*dead x-feature"),
]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    root = tmp_path_factory.mktemp("volumes")
    write_volumes(root / "train", 12)
    write_volumes(root / "test", 4, seed=1)
    argv = ["fit", MODEL, root / "train", "--layer", "5", "--target", "1", "--out", root / "run"]
    assert main([*map(str, argv), *FAST]) == 0
    return root


def test_the_saved_run_knows_the_depth_and_opens_again(there):
    about = json.loads((there / "run" / "xnn.json").read_text())
    assert about["preprocessing"]["size"] == list(SIZE)
    xnn = open_run(there / "run")
    assert xnn.preprocessing.depth == SIZE[0]


def test_the_maps_lie_on_the_planted_ball(there):
    xnn = open_run(there / "run")
    volumes, labels, masks = make_volumes(4, seed=1)
    ours = torch.from_numpy(volumes / 255).float()[labels == 1][:, None]
    maps = xnn.run_with_maps(ours, logits=[1]).logit_heatmaps[:, 0].clamp(min=0)
    around = torch.nn.functional.max_pool3d(torch.from_numpy(masks[labels == 1]).float(), 3, 1, 1)
    share = (maps * around).flatten(1).sum(1) / maps.flatten(1).sum(1)
    assert float(share.min()) > 0.9
    assert float(around.mean()) < 0.06


def test_evaluate_measures_over_voxels(there, capsys, tmp_path):
    argv = ["evaluate", there / "run", there / "test", "--json", tmp_path / "figures.json"]
    assert main([*map(str, argv)]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["orthogonality"]["maps"] == 4
    assert figures["certificate"]["conservation_error"] < 1e-5
    assert "Mean squared correlation of maps" in text_of(capsys)[0]


def test_explain_writes_slices(there, capsys, tmp_path):
    argv = ["explain", there / "run", there / "test" / "1" / "04.npy", "--out", tmp_path]
    assert main([*map(str, argv)]) == 0
    assert "(slices 0, 1, 2; mass" in text_of(capsys)[0]
    explanation = VolumeExplanation.load(tmp_path / "04")
    stored = np.load(there / "test" / "1" / "04.npy")
    assert explanation.volume.shape == (*stored.shape, 3)
    page = (tmp_path / "04" / "explanation.html").read_text()
    assert "Volume, slices 0, 1, 2" in page
    assert "<span>slices 0, 1, 2</span>" in page


def write(xnn, there, out):
    dataset = ImageFolder(there / "test", xnn.preprocessing)
    config = ReportConfig(images=2, sheet=2)
    report = build_report(xnn, dataset, title="Why?", model_name="net", config=config)
    write_report(report, out)
    return report, out.read_text()


def test_the_report_shows_slices_and_is_the_same_of_a_reopened_run(there, tmp_path):
    report, page = write(open_run(there / "run"), there, tmp_path / "one.html")
    assert page == write(open_run(there / "run"), there, tmp_path / "two.html")[1]
    assert report.unit == "volume"
    item = next(item for sheet in report.sheets for item in sheet.items)
    assert item.image.shape[0] == SIZE[1]
    assert item.image.shape[1] > 3 * SIZE[2]
    assert f'<span class="muted">{item.slices}</span> <span class="muted">mass ' in page
    assert f'alt="Volume: {item.caption}, {item.slices}"' in page
    for text in ("Volumes explained", "Volume, slices", "fewest voxels", "O1 "):
        assert text in page
    assert "Images explained" not in page
    assert report.orthogonality.maps > 0


def test_a_row_of_slices_shows_the_same_places_of_volume_and_map():
    volume = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    heatmap = torch.zeros(SIZE)
    heatmap[5, 3, 4] = heatmap[2, 1, 1] = 1
    row = in_slices(volume, heatmap)
    assert (row.slices, row.text) == ((0, 2, 5), "slices 0, 2, 5")
    place = tuple(np.argwhere(row.relevance)[-1])
    np.testing.assert_array_equal(row.image[place], volume[5, 3, 4])


@pytest.mark.slow
def test_contrasts_of_volumes_come_back_and_are_of_one_volume(there, tmp_path):
    xnn = open_run(there / "run")
    other = open_run(there / "run")
    other.attach_embedding(other.embedding, [2], 3)
    first, second = (torch.from_numpy(v / 255).float()[None] for v in make_volumes(2)[0][2:4])
    found = contrast(xnn.explain(first), other.explain(first))
    found.save(tmp_path / "why")
    assert Contrast.load(tmp_path / "why").sentence() == found.sentence()
    with pytest.raises(DataError, match="of different inputs"):
        contrast(xnn.explain(first), other.explain(second))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["attribute", "run", "test", "--out", "maps"], "heatmaps on disk are of images, and the"),
        (["atlas", "run", "--data", "test", "--out", "atlas"], "an atlas shows images, and the"),
        (["whatif", "run", "test/1/04.npy"], "what if paints over regions of images, and the"),
        (["whatif", "run", "test", "--table"], "what if paints over regions of images, and the"),
    ],
)
def test_what_is_made_for_images_says_so_and_names_the_way_out(there, capsys, command, message):
    argv = [there / word if word in ("run", "test") or "/" in word else word for word in command]
    said = fails(capsys, *argv)
    assert message in said
    assert "takes volumes (1 x 8 x 16 x 20): explain some with `xnn explain`" in said


def test_what_if_in_python_says_the_same(there):
    xnn = open_run(there / "run")
    with pytest.raises(DataError, match="what if paints over regions of images, and the network"):
        what_if(xnn, torch.zeros(1, *SIZE))


def test_layers_and_check_name_the_size(there, capsys, tmp_path):
    assert main(["layers", MODEL]) == 0
    assert "1 x 8 x 16 x 20 volume" in text_of(capsys)[0]
    file = tmp_path / "maps.png"
    one = str(there / "test" / "1" / "04.npy")
    assert main(["check", MODEL, one, "--randomize", "--out", str(file)]) == 0
    assert file.is_file()
    message = "a 1 x 224 x 224 image has no depth: give --size DEPTHxHEIGHTxWIDTH"
    for command in ("layers", "check"):
        assert message in fails(capsys, command, "volume_examples:network_of_volumes")
