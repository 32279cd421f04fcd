"""Small networks of token ids and of rows, and XNNs fitted to them."""

import warnings

import torch
from torch import nn

from torchxnn import XNN, TrainConfig
from torchxnn.errors import XNNWarning

TOKENS, LENGTH, COLUMNS = 12, 7, 6
QUICK = TrainConfig(hidden=(16,), epochs=12, trials=1, pretrain_epochs=1, batch_size=32)


class Recurrent(nn.Module):
    """Embedding, LSTM, mean, two layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 10, batch_first=True, dropout=0.0)
        self.head = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))

    def forward(self, ids):
        return self.head(self.lstm(self.embedding(ids))[0].mean(1))


class Attending(nn.Module):
    """Embeddings of tokens and positions, attention, mean, two layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 8)
        self.positions = nn.Embedding(LENGTH, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, ids):
        x = self.embedding(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def make_network(kind):
    """A network with random weights and logits that differ."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if kind == "row":
            network = nn.Sequential(
                nn.Linear(COLUMNS, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)
            )
        else:
            network = {"lstm": Recurrent, "transformer": Attending}[kind]()
        last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
        last.weight.data.mul_(8)
    return network.eval()


LAYERS = {"row": "3", "lstm": "head.1", "transformer": "head.1"}


def make_inputs(kind, count=160):
    generator = torch.Generator().manual_seed(5)
    if kind == "row":
        return torch.randn(count, COLUMNS, generator=generator)
    return torch.randint(1, TOKENS, (count, LENGTH), generator=generator)


def fit_xnn(kind, target=0, n_features=3):
    """An XNN on a network of this kind; positives are the third with the largest logit."""
    network, inputs = make_network(kind), make_inputs(kind)
    with torch.no_grad():
        logits = network(inputs)
    labels = (logits - logits.mean(0)).argmax(1)
    xnn = XNN(network, LAYERS[kind], n_features, class_names=("red", "green", "blue"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XNNWarning)
        batches = zip(inputs.split(32), labels.split(32), strict=True)
        xnn.fit(list(batches), target, config=QUICK)
    return xnn
