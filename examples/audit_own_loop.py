"""Audit a model that was pruned in one's own loop, with an adversary who runs the same loop: the audit is adaptive.

python examples/audit_own_loop.py
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wemem

OUT = Path("runs/audit-own-loop")


def fit(x: torch.Tensor, y: torch.Tensor, seed: int) -> nn.Module:
    """Train a network from scratch."""
    torch.manual_seed(seed % 2**31)
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        for batch in torch.randperm(len(x)).split(32):
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


def prune(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[wemem.PruningEngine, nn.Module]:
    """Score the records, train and prune: all that makes one model, from its records alone."""
    x, y = torch.tensor(features), torch.tensor(labels)

    def train_on(records: np.ndarray, seed: int):
        model = fit(x[records], y[records], seed)
        return lambda numbers: model(x[numbers]).detach().numpy()

    scores = wemem.memorization_scores(train_on, labels, models=16)
    model = fit(x, y, seed)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    engine = wemem.PruningEngine("swmr", sparsity=0.6, rounds=2)
    loader = DataLoader(TensorDataset(x, y), batch_size=32)
    model, optimizer, batches = engine.prepare(model, optimizer, loader, scores=scores.score)
    for _ in engine.rounds():
        for _ in engine.epochs(3):
            for inputs, targets in batches:
                engine.loss(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
    return engine, model


def train(features: np.ndarray, labels: np.ndarray, seed: int) -> nn.Module:
    """Make one of the adversary's models: the same loop on other records."""
    return prune(features, labels, seed)[1]


def main() -> None:
    """Prune a model, save it, attack it, and print what it leaks."""
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    members = np.random.default_rng(0).permutation(len(y))[:150]
    engine, model = prune(x[members], y[members], seed=0)
    file = engine.save(OUT / "pruned")  # its certificate describes the loop
    result = wemem.audit(
        model, (x, y), members, train=train, file=file, attacks=["confidence", "lira"],
        settings={"split": {"shadows": 2, "references": 4}}, out=OUT,
    )  # fmt: skip
    print(result)
    print(f"Report {result.report(OUT)}")


if __name__ == "__main__":
    main()
