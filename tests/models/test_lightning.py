"""Modules of Lightning: with logging in the forward pass, after training, and their checkpoints."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import SmallNet, make_images, make_net
from torchxnn import XNN
from torchxnn.models.checkpoints import load_checkpoint, read_checkpoint
from torchxnn.models.layers import record_layers

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")

IMAGES, KINDS = make_images(8)


class Lit(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters()
        self.model = SmallNet()
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))

    def forward(self, images):
        logits = self.model(images)
        self.log("mean", logits.mean())
        return logits

    def training_step(self, batch, _):
        return self.criterion(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lightning")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    place = {"default_root_dir": folder, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=1, **quiet, **place)
    module = Lit()
    trainer.fit(module, DataLoader(TensorDataset(IMAGES, KINDS), batch_size=8))
    trainer.save_checkpoint(folder / "last.ckpt")
    return module, folder / "last.ckpt"


def test_it_may_log_without_a_trainer_and_after_training(trained):
    module, _ = trained
    fresh = Lit()
    fresh.load_state_dict(module.state_dict())
    trainer = module.trainer
    found = [record_layers(m, ["model.classifier.1"], IMAGES) for m in (fresh, module)]
    assert torch.equal(found[0][1], found[1][1])
    assert module.trainer is trainer
    assert XNN(module, "model.classifier.1").layer == "model.classifier.1"


def test_a_checkpoint_loads_into_the_network_alone_and_into_the_module(trained):
    module, file = trained
    network, whole = make_net(), Lit()
    note = load_checkpoint(network, read_checkpoint(file))
    assert "begin with 'model.', leaving out criterion.weight" in note
    assert "begin" not in load_checkpoint(whole, read_checkpoint(file))
    for other in (network, whole.model):
        for one, two in zip(module.model.parameters(), other.parameters(), strict=True):
            assert torch.equal(one, two)
