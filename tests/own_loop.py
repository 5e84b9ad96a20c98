"""A training loop of one's own beside the ensemble trainer: the same records, steps and weights."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from toy import blobs
from wemem.blocks import (
    PruningEngine,
)
from wemem.data.split import Role, Split
from wemem.pruning import Pruning, Schedule, iterate
from wemem.training import Ensemble, Recipe

EPOCHS, BATCH, SEED = 3, 16, 5
DATA = blobs()
TRAIN, DEV = np.arange(0, 60), np.arange(60, 90)
SCORES = np.random.default_rng(1).random(len(TRAIN))


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(DATA.features[0].size, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(),
        nn.Linear(8, DATA.classes),
    )  # fmt: skip


def tensors(records):
    return torch.from_numpy(DATA.features[records]), torch.from_numpy(DATA.labels[records])


def by_ensemble(defense, optimizer="adam", targets=None, rounds=3):
    """The rounds of the ensemble trainer for one model."""
    roles = np.zeros((1, len(DATA)), np.int8)
    roles[0, TRAIN], roles[0, DEV] = Role.TRAIN, Role.DEV
    recipe = Recipe(epochs=EPOCHS, patience=None, batch_size=BATCH, optimizer=optimizer, keep="best")
    scores = np.full(len(DATA), np.nan)
    scores[TRAIN] = SCORES
    ensemble = Ensemble.from_modules([network()])
    soft = None
    if targets is not None:
        soft = np.zeros((1, len(DATA), DATA.classes), np.float32)
        soft[0, TRAIN] = targets
    done = iterate(
        ensemble, DATA, Split(roles, DATA.labels, "subsets"), Pruning(Schedule(0.6, rounds), recipe=recipe), defense,
        seeds=[SEED], scores=[scores], teacher_log_probs=soft, backend="sequential",
    )  # fmt: skip
    return list(done)


def by_blocks(defense, optimizer="adam", targets=None, rounds=3, **wrapping):
    """The same in a plain loop."""
    model = network()
    made = (
        torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
        if optimizer == "adam"
        else torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    )
    loader = DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH, **wrapping)
    engine = PruningEngine(defense, sparsity=0.6, rounds=rounds, seed=SEED)
    model, made, batches = engine.prepare(model, made, loader, scores=SCORES, targets=targets)
    x_dev, y_dev = tensors(DEV)
    for _ in engine.rounds():
        for _ in engine.epochs(EPOCHS):
            model.train()
            for x, y in batches:
                engine.loss(model(x), y).backward()
                made.step()
                made.zero_grad()
            model.eval()
            with torch.no_grad():
                engine.record(float((model(x_dev).argmax(-1) == y_dev).double().mean()))
    return engine, model


def adam(model):
    return torch.optim.Adam(model.parameters(), weight_decay=5e-4)
