"""Networks, and settings of their training, that the tests of the training core share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from toy import CLASSES, FEATURES, blobs
from wemem.defenses import Defense
from wemem.training import Ensemble, Recipe, fit

DATA = blobs()
IMAGES = blobs(shape=(1, 4, 4))
SEEDS = [11, 12, 13]
SGD = Recipe(epochs=4, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
ADAM = Recipe(epochs=4, patience=None, batch_size=16)
SCORES = [np.random.default_rng(k).random(len(DATA)) for k in range(3)]
#: Different numbers of risky records in each member, so that some sit out risky steps.
UNEVEN = [np.where(own < share, 0.9, 0.1) for own, share in zip(SCORES, (0, 0.2, 0.6), strict=True)]
UNKNOWN: Any = "rmsprop"


class ConvNet(nn.Module):
    """Convolution, BatchNorm, dropout, a linear classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


class Moody(nn.Module):
    """A Python branch on a tensor's value: vmap cannot trace it."""

    def __init__(self, by_item=False):
        super().__init__()
        self.head, self.by_item = nn.Linear(FEATURES, CLASSES), by_item

    def forward(self, x):
        y = self.head(x)
        return -y if (y.sum().item() if self.by_item else y.sum()) > 1e9 else y


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu())


class OneDropoutTwice(nn.Module):
    """One dropout layer under two names, which is called three times."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.drop = nn.Dropout(0.5)
        self.also_drop = self.drop
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(self.drop(self.also_drop(self.second(self.drop(self.first(x))))))


class Witness(nn.Module):
    """Notes which inputs its dropout keeps in every training step."""

    def __init__(self):
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        kept = self.drop(x)
        if self.training:
            KEPT.append((kept != 0).numpy())
        return self.head(kept)


KEPT: list[np.ndarray] = []


class Noisy(nn.Module):
    """Draws from PyTorch's global generator while training."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(x + torch.randn_like(x) if self.training else x)


@dataclass(frozen=True)
class Remember(Defense):
    """Plain training that notes how many members took part in every step."""

    @property
    def name(self):
        return "remember"

    def loss(self, batch):
        TAKING.append(len(batch.logits))
        return batch.mean(batch.cross_entropy())


TAKING: list[int] = []


class SubclassedStack(nn.Sequential):
    """Layers in a row, by a class that might do anything with them."""

    def forward(self, x):
        return -super().forward(x)


def stack(kind=nn.Sequential, dropout=0.3, **linear):
    """Layers in a row, two of which are one object."""
    relu = nn.ReLU()
    return kind(
        nn.Flatten(), nn.Linear(FEATURES, 9, **linear), relu, nn.Dropout(dropout), nn.Linear(9, 9, **linear), relu,
        nn.Dropout(dropout), nn.Linear(9, CLASSES, **linear),
    )  # fmt: skip


def tied_stack():
    built = stack()
    middle = nn.Linear(9, 9)
    middle.weight = built[4].weight
    return nn.Sequential(*built[:5], nn.ReLU(), middle, *built[5:])


def hooked_stack():
    built = stack()
    built[1].register_forward_hook(lambda module, given, output: -output)
    return built


def frozen_stack():
    built = stack()
    built[4].requires_grad_(False)
    return built


def modules(build, count=3):
    built = []
    for seed in range(count):
        torch.manual_seed(seed)
        built.append(build())
    return built


def both_backends(ensemble, data, split, recipe, **settings):
    return [fit(ensemble, data, split, recipe, seeds=SEEDS, backend=b, **settings) for b in ("vmapped", "sequential")]


def with_batch_norm(members):
    return Ensemble.from_modules([
        nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES)) for _ in range(members)
    ])  # fmt: skip
