"""Explain a small network that tells three grape cultivars apart by 13 measurements of a wine.

The data come with scikit-learn (178 wines of one region, Aeberhard and Forina, 1992, CC BY 4.0).
Nothing is fetched; a run takes a few seconds on one core:

    python examples/tabular/wines.py --out explained
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_wine
from torch import Tensor, nn

from torchxnn import XNN, TrainConfig

LAYER = "3"  # the second ReLU
CULTIVARS = ("wine of cultivar 1", "wine of cultivar 2", "wine of cultivar 3")
TRAINED = 130


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in the scale of the network's input, and what people know them as."""

    rows: Tensor
    labels: Tensor
    values: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]


def read_table() -> Table:
    """The table, standardised; classes are three cultivars."""
    data = load_wine()
    values = torch.tensor(data.data, dtype=torch.float32)
    rows = (values - values.mean(0)) / values.std(0)
    names = tuple(map(str, data.feature_names))
    return Table(rows, torch.tensor(data.target), values, names, CULTIVARS)


def train_network(rows: Tensor, labels: Tensor, epochs: int = 80) -> nn.Sequential:
    """A perceptron with two hidden layers."""
    torch.manual_seed(0)
    width = rows.shape[1]
    network = nn.Sequential(
        nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(rows[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()


def explain_table(out: Path, config: TrainConfig | None = None) -> XNN:
    """Train, fit an XNN to the second cultivar, and write the explanation of three unseen rows."""
    table = read_table()
    order = torch.randperm(len(table.rows), generator=torch.Generator().manual_seed(0))
    train, test = order[:TRAINED], order[TRAINED:]
    network = train_network(table.rows[train], table.labels[train])
    with torch.no_grad():
        right = network(table.rows[test]).argmax(1) == table.labels[test]
    print(f"The network is right about {right.float().mean():.1%} of {len(test)} unseen rows.")

    xnn = XNN(network, LAYER, n_features=5, class_names=table.classes)
    loader = [(table.rows[batch], table.labels[batch]) for batch in train.split(64)]
    xnn.fit(loader, target=1, config=config)
    found = xnn.evaluate([(table.rows[test], table.labels[test])]).faithfulness
    print(f"On them the x-features reach R² {found.r2:.3f}; {found.active} of 5 are active.\n")

    for index in test[table.labels[test] == 1][:3].tolist():
        explanation = xnn.explain_row(
            table.rows[index],
            table.names,
            values=table.values[index].tolist(),
            label=int(table.labels[index]),
            path=f"row {index}",
        )
        explanation.save(out / f"row_{index}")
        print(explanation.summary(), end="\n\n")
    print(f"Pages: {out}/row_*/explanation.html")
    return xnn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("explained_rows"))
    explain_table(parser.parse_args().out)
