"""A network in bfloat16 through contrast, evaluation, what-if, the cascade and the atlas."""

import warnings

import pytest
import torch

from atlas_examples import CLASSES, QUICK, write_pictures
from conftest import make_net
from torchxnn import XNN
from torchxnn.apps.atlas import AtlasConfig, build_atlas
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.table import what_if_table
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.sanity import randomize_from_the_top
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.explanations.contrast import contrast
from torchxnn.models.preprocessing import Preprocessing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchxnn.errors.XNNWarning")
def test_a_network_in_half_precision_goes_through_every_application(tmp_path):
    preprocessing = Preprocessing(size=12, resize="squash")
    dataset = ImageFolder(write_pictures(tmp_path / "images", 32), preprocessing, classes=CLASSES)
    net, loader = make_net().bfloat16(), make_loader(dataset)
    fitted = []
    for target in (0, 1):
        xnn = XNN(net, "classifier.1", 3, class_names=CLASSES, preprocessing=preprocessing)
        xnn.fit(loader, target, config=QUICK)
        xnn.save_pretrained(tmp_path / "runs" / str(target))
        fitted.append(xnn)
    image = dataset[0].image
    found = contrast(*(xnn.explain(image) for xnn in fitted))
    with torch.no_grad():
        logits = net(image[None].bfloat16())[0].float()
    assert sorted(found.logits) == pytest.approx(sorted(logits[:2].tolist()), abs=1e-6)
    assert fitted[0].evaluate(loader).faithfulness.images == 32
    table = what_if_table(fitted[0], dataset, most=1, config=WhatIfConfig(share=0.2, controls=1))
    assert table.images == 1
    config = AtlasConfig(examples=1, top=1, spaced=1, against=1)
    assert build_atlas(net, tmp_path / "runs", dataset, tmp_path / "site", config=config).entries

    def draw(model):
        with warnings.catch_warnings(action="ignore"):
            return ExcitationBackprop(model).attribute_many(image[None], [1])

    steps = list(randomize_from_the_top(net, image[None], draw))
    assert len(steps) == 5
    assert {step.maps.dtype for step in steps} == {torch.float32}
