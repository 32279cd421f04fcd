"""Explain a network that tells which part of SciPy a sentence of documentation is from.

The text is the documentation inside the installed SciPy (BSD licence), one of torchxnn's own
dependencies: sentences of `scipy.stats`, `scipy.signal`, `scipy.linalg` and `scipy.optimize`.
Another version of SciPy has other sentences, so figures differ a little. Nothing is fetched; a run
takes well under a minute on one core:

    python examples/text/docstrings.py --out explained
    python examples/text/docstrings.py --network transformer
"""

import argparse
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

from torchxnn import XNN, TrainConfig

MODULES = {
    "stats": "sentence on statistics",
    "signal": "sentence on signal processing",
    "linalg": "sentence on linear algebra",
    "optimize": "sentence on optimisation",
}
LENGTH = 20  # tokens; shorter sentences are padded
PAD, UNKNOWN = 0, 1
LAYER = "head.1"  # the ReLU before the last layer


def read_sentences(most: int = 1500) -> list[tuple[str, int]]:
    """Different sentences of each module with its index, up to `most` of each, in a fixed order."""
    found: list[tuple[str, int]] = []
    owner: dict[str, int] = {}
    for label, name in enumerate(MODULES):
        module = importlib.import_module(f"scipy.{name}")
        for item in sorted(module.__all__):
            text = inspect.getdoc(getattr(module, item)) or ""
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
                words = " ".join(sentence.split())
                plain = re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'()\-]+[.]", words)
                if plain and 6 <= len(words.split()) <= 30:
                    owner.setdefault(words, label)
    for label in range(len(MODULES)):
        found += [(s, label) for s in sorted(s for s, o in owner.items() if o == label)[:most]]
    return found


def tokenize(sentence: str) -> list[str]:
    """Lower-case words and punctuation."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*|[^\sa-z0-9]", sentence.lower())


class Vocabulary:
    """Tokens to ids; the rare ones are unknown."""

    def __init__(self, sentences: list[str], at_least: int = 3) -> None:
        counts = Counter(token for s in sentences for token in tokenize(s))
        kept = sorted(token for token, count in counts.items() if count >= at_least)
        self.ids = {token: index for index, token in enumerate(kept, start=2)}

    def __len__(self) -> int:
        return len(self.ids) + 2

    def encode(self, sentence: str) -> Tensor:
        """(LENGTH,) ids."""
        ids = [self.ids.get(token, UNKNOWN) for token in tokenize(sentence)][:LENGTH]
        return torch.tensor(ids + [PAD] * (LENGTH - len(ids)))


class LstmClassifier(nn.Module):
    """Embedding, LSTM in both directions, the mean over the tokens, two layers."""

    def __init__(self, tokens: int, classes: int, dims: int = 48, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, dims, padding_idx=PAD)
        self.lstm = nn.LSTM(dims, width, batch_first=True, bidirectional=True)
        self.head = _head(2 * width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) to (B, classes)."""
        states, _ = self.lstm(self.embedding(ids))
        return self.head(_mean(states, ids))


class TransformerClassifier(nn.Module):
    """Embeddings of tokens and positions, one attention block, the mean, two layers."""

    def __init__(self, tokens: int, classes: int, dims: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, dims, padding_idx=PAD)
        self.positions = nn.Embedding(LENGTH, dims)
        self.normalise = nn.LayerNorm(dims)
        self.attention = nn.MultiheadAttention(dims, 4, batch_first=True)
        self.head = _head(dims, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) to (B, classes)."""
        positions = self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = self.embedding(ids) + positions
        y = self.normalise(x)
        attended, _ = self.attention(y, y, y, key_padding_mask=ids == PAD, need_weights=False)
        return self.head(_mean(x + attended, ids))


NETWORKS = {"lstm": LstmClassifier, "transformer": TransformerClassifier}


def _head(inputs: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, classes))


def _mean(states: Tensor, ids: Tensor) -> Tensor:
    there = (ids != PAD).unsqueeze(-1).float()
    return (states * there).sum(1) / there.sum(1)


def train_network(network: nn.Module, ids: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A few epochs of Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3, weight_decay=1e-5)
    for _ in range(epochs):
        network.train()
        for batch in torch.randperm(len(ids)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(ids[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()


def explain_sentences(
    out: Path,
    network: str = "lstm",
    most: int = 1500,
    epochs: int = 6,
    config: TrainConfig | None = None,
) -> XNN:
    """Train, fit an XNN to "stats", and write the explanation of three unseen sentences."""
    sentences = read_sentences(most)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(sentences), generator=generator).tolist()
    cut = len(order) * 4 // 5
    train, test = order[:cut], order[cut:]
    vocabulary = Vocabulary([sentences[i][0] for i in train])
    ids = torch.stack([vocabulary.encode(sentence) for sentence, _ in sentences])
    labels = torch.tensor([label for _, label in sentences])

    torch.manual_seed(0)
    model = NETWORKS[network](len(vocabulary), len(MODULES))
    model = train_network(model, ids[train], labels[train], epochs)
    with torch.no_grad():
        predicted = model(ids[test]).argmax(1)
    share = (predicted == labels[test]).float().mean()
    print(f"The network is right about {share:.1%} of {len(test)} unseen sentences.")

    xnn = XNN(model, LAYER, n_features=5, class_names=tuple(MODULES.values()))
    loader = [(ids[batch], labels[batch]) for batch in torch.tensor(train).split(256)]
    xnn.fit(loader, target=0, config=config)
    found = xnn.evaluate([(ids[test], labels[test])]).faithfulness
    print(f"On them the x-features reach R² {found.r2:.3f}; {found.active} of 5 are active.\n")

    shown = [i for i, p in zip(test, predicted.tolist(), strict=True) if p == labels[i] == 0]
    for number, index in enumerate(shown[:3], start=1):
        tokens = tokenize(sentences[index][0])[:LENGTH]
        explanation = xnn.explain_text(ids[index, : len(tokens)], tokens, label=0)
        explanation.save(out / f"sentence_{number}")
        print(explanation.summary(), end="\n\n")
    print(f"Pages: {out}/sentence_*/explanation.html")
    return xnn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("explained_sentences"))
    parser.add_argument("--network", choices=sorted(NETWORKS), default="lstm")
    options = parser.parse_args()
    explain_sentences(options.out, options.network)
