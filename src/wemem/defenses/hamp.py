"""HAMP: uncertain targets and random answers in the same order (Chen & Pattabiraman, NDSS 2024).

The target of a record has the highest probability ``t`` at its true class whose entropy is still
large enough::

    H(t) = - t log t - (1 - t) log((1 - t) / (C - 1))  >=  gamma log C
    loss = - t log p_y - (1 - t) / (C - 1) * sum_{c != y} log p_c - alpha * H(p)

The source minimizes the divergence from the target instead of the cross-entropy; the two differ by
a constant. It takes the scores of answers from the model's outputs on random inputs; ours are
uniform random numbers.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import Capability, OutputPostprocessing
from wemem.errors import InputError


@dataclass(frozen=True)
class HAMP(Defense):
    """High-entropy soft labels and an entropy bonus.

    Args:
        gamma: least entropy of a target as a share of the greatest, log C, in [0, 1); 0 is the hard
            label.
        alpha: weight of the entropy of the outputs; with ``gamma=0``, 0 is plain fine-tuning.

    Raises:
        InputError: a value out of range.

    >>> batch = Batch(torch.zeros(1, 1, 2), torch.tensor([[0]]), torch.ones(1, 1), 0)
    >>> HAMP(gamma=0.5, alpha=1.0).loss(batch)  # whatever the target, log 2 minus an entropy of log 2
    tensor([0.])
    """

    gamma: float = 0.95
    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise InputError(f"gamma must be in [0, 1), got {self.gamma}; at 1 no label would be learned")
        if not 0 <= self.alpha < float("inf"):
            raise InputError(f"alpha must be finite and 0 or more, got {self.alpha}; for no entropy bonus give 0")

    @property
    def name(self) -> str:
        return "hamp"

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean cross-entropy against the soft labels, minus ``alpha`` times the mean entropy."""
        classes = batch.logits.shape[-1]
        top = top_probability(self.gamma, classes)
        other = (1 - top) / (classes - 1)
        log_p = torch.log_softmax(batch.logits, -1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        soft = (top - other) * batch.cross_entropy() - other * log_p.sum(-1)
        return batch.mean(soft - self.alpha * entropy)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return (OutputPostprocessing((random_scores_in_order,)),)


def random_scores_in_order(
    logits: Float32[np.ndarray, "N C"], rng: np.random.Generator
) -> Float32[np.ndarray, "N C"]:  # fmt: skip
    """Random numbers that sort as the given logits do, record by record.

    Args:
        logits: logits of the model; equal ones in a row are ranked in the order of the classes.
        rng: generator of the numbers.

    Returns:
        For each record as many different numbers as there are classes, to be read as logits.

    >>> random_scores_in_order(np.array([[3, -1, 9]], np.float32), np.random.default_rng(0)).argsort().tolist()
    [[1, 0, 2]]
    """
    # draws lie on a grid of 2^-24, on which two can be equal; the ramp keeps them apart after
    # rounding as well
    ramp = np.arange(logits.shape[1], dtype=np.float32) * np.float32(2.0**-22)
    drawn = np.sort(rng.random(logits.shape, dtype=np.float32), axis=1) + ramp
    scores = np.empty_like(drawn)
    np.put_along_axis(scores, np.argsort(logits, axis=1, kind="stable"), drawn, axis=1)
    return scores


@lru_cache(maxsize=64)
def top_probability(gamma: float, classes: int) -> float:
    """Highest probability of one class, to 1e-10, at which the entropy is at least ``gamma log C``.

    The rest of the probability is spread evenly over the other classes.

    >>> top_probability(0.0, 10), top_probability(0.95, 10) < 0.4
    (1.0, True)
    """
    if gamma == 0:
        return 1.0
    low, high = 1 / classes, 1.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        entropy = -middle * math.log(middle) - (1 - middle) * math.log((1 - middle) / (classes - 1))
        low, high = (middle, high) if entropy >= gamma * math.log(classes) else (low, middle)
    return low
