"""Attacks by a multilayer perceptron on the posterior, or on a part of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import nn

from wemem.attacks.classifier import ClassifierAttack, log_odds, own_class_first
from wemem.attacks.learned import Rows
from wemem.signals import Signals


@dataclass(frozen=True)
class _Perceptron(ClassifierAttack):
    """Hidden layers of 512, 256 and 128 ReLU units, dropout after the first two: the size the
    method compares with.
    """

    def network(self, width: int, classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(width, 512), nn.ReLU(), nn.Dropout(self.dropout),
            nn.Linear(512, 256), nn.ReLU(), nn.Dropout(self.dropout),
            nn.Linear(256, 128), nn.ReLU(),
            nn.Linear(128, 1),
        )  # fmt: skip


@dataclass(frozen=True)
class NeuralNet(_Perceptron):
    """``P(member | p)`` by a perceptron on the posterior ``p``: its log-odds, largest first.

    Shokri et al., "Membership inference attacks against machine learning models", S&P 2017. They
    train one network per class on the probabilities in the classes' order; here one network learns
    from the records of all classes, and sorted inputs need no class order (held-out accuracy on
    Location is higher by about a point).
    """

    name = "nn"

    def inputs(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        return -np.sort(-log_odds(signals.logits[model, rows]), axis=1)


@dataclass(frozen=True)
class NeuralNetTop3(_Perceptron):
    """``P(member | p_(1), p_(2), p_(3))`` by a perceptron on the three largest probabilities: their
    log-odds.

    Salem et al., "ML-Leaks: model and data independent membership inference attacks and defenses on
    machine learning models", NDSS 2019, attack 1. All there are where a model has fewer than three
    classes.
    """

    name = "nn_top3"

    def inputs(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        return -np.sort(-log_odds(signals.logits[model, rows]), axis=1)[:, :3]


@dataclass(frozen=True)
class NeuralNetClass(_Perceptron):
    """``P(member | p, y)`` by a perceptron on the posterior and the one-hot label.

    Nasr, Shokri & Houmansadr, "Machine learning with membership privacy using adversarial
    regularization", CCS 2018. The log-odds come with the true class first and the others by size,
    so that the network need not find the place of the true class by itself.
    """

    name = "nn_class"

    def inputs(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        odds, labels = log_odds(signals.logits[model, rows]), signals.labels[rows]
        ordered = np.take_along_axis(odds, own_class_first(odds, labels), axis=1)
        return np.concatenate([ordered, np.eye(signals.classes)[labels]], axis=1)
