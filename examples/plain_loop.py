"""Prune a network with BatchNorm under SWMR in a plain PyTorch loop.

    python examples/plain_loop.py [bank-additional.csv]

Without a file it uses the breast cancer table of scikit-learn.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.csv
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wemem


def load_table(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels: numbers as they are, categories as one column for each value."""
    if path is None:
        return load_breast_cancer(return_X_y=True)
    table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=";"))
    labels = np.array(table["y"].to_pylist()) == "yes"
    columns: list[np.ndarray] = []
    for name in table.column_names:
        values = np.array(table[name].to_pylist())
        if name != "y":
            columns += [values] if values.dtype.kind != "U" else [values == kind for kind in np.unique(values)]
    return np.stack(columns, 1).astype(np.float32), labels.astype(np.int64)


def network(width: int) -> nn.Sequential:
    """A classifier of two classes."""
    return nn.Sequential(
        nn.Linear(width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 2),
    )  # fmt: skip


def fit(x: torch.Tensor, y: torch.Tensor, seed: int, epochs: int = 5) -> nn.Module:
    """Train a network from scratch: the user's own training."""
    torch.manual_seed(seed % 2**31)
    model = network(x.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def main(path: str | None, out: Path) -> None:
    """Score the records, prune, and write the model."""
    features, labels = load_table(path)
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    x, y = torch.tensor(features, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, dev = order[: len(x) // 2], order[len(x) // 2 : 5 * len(x) // 8]

    def train_on(records: np.ndarray, seed: int):
        model = fit(x[train[records]], y[train[records]], seed)

        def predict(numbers: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return model(x[train[numbers]]).numpy()

        return predict

    scores = wemem.memorization_scores(train_on, labels[train], models=12, directory=out / "scores")

    model = fit(x[train], y[train], seed=0)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=64)
    engine = wemem.PruningEngine("swmr", sparsity=0.6, rounds=3)
    model, optimizer, batches = engine.prepare(model, optimizer, loader, scores=scores.score)
    for current in engine.rounds():
        for _ in engine.epochs(5, patience=3):
            model.train()
            for inputs, targets in batches:
                engine.loss(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
            model.eval()
            with torch.no_grad():
                engine.record(float((model(x[dev]).argmax(1) == y[dev]).float().mean()))
        print(f"round {current.index + 1}: {100 * current.sparsity:.1f} % of the weights pruned")
    print(f"Pruned model in {engine.save(out / 'pruned')}")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else None
    main(given, Path("runs/plain-loop") / (Path(given).stem if given else "cancer"))
