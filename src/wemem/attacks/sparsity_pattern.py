"""The attack by an adversary who sees only which weights of a pruned model are zero.

The adversary knows the sparsity patterns of reference models, and the records of each. A record is
called a member if the target's pattern agrees more with those of models trained with the record than
with those of models trained without it. Two forms of that are tried, and the stronger one on the other
models is taken. The attack is ours.

``weights``: let ``m`` be the target's pattern as a vector of ones and zeros, and ``p_in`` and ``p_out``
the mean patterns of both sides. The score is the log-likelihood ratio of two normal distributions of
variance 1 with these means,

``(m - (p_in + p_out) / 2) (p_in - p_out)``.

The ratio of Bernoulli distributions of every weight has it as its first order where the rates of both
sides differ little. It needs only the agreement of each two models, so that its cost does not grow with
the product of records and weights. It reads membership off as many numbers as there are reference
models: of K of them in complementary pairs and N records, a trace that is alike for all records shows with an
AUC of ``Phi(sqrt(K / N))`` at most.

``inputs``: models that begin from weights of their own agree in single weights by chance alone, since
nothing orders the hidden units of a layer. The inputs of the first layer are ordered by the data. So
the numbers of weights kept behind each input are compared, by the same ratio with a variance for each,
on the :data:`SELECTED` inputs on which the sides of a record differ most.

Records that are in the same reference models get the same score. K models in complementary pairs tell
``2^(K / 2)`` groups of records apart: 16 models tell 256 groups apart, and 64 every record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float

from wemem.attacks.base import Scores
from wemem.attacks.reference import Attacked, trials
from wemem.attacks.tuned import EvidenceAttack, best_on_others
from wemem.signals import MASKS, Signals

Masks = Mapping[str, Bool[np.ndarray, "K ..."]]

#: Inputs of which a record's score is the sum.
SELECTED = 16
#: The variance of an input's count is at least this share of the usual one among all models, and at
#: least :data:`LEAST_VARIANCE`.
LEAST_SHARE, LEAST_VARIANCE = 0.1, 1e-9
#: Records, and weights of each model, taken at a time.
RECORDS, WEIGHTS = 64, 1 << 17


@dataclass(frozen=True, eq=False)
class Patterns:
    """The sparsity patterns of some models, reduced to what is compared, float64.

    Args:
        agreement: shape ``(K, K)``: the number of weights that both of two models keep.
        inputs: shape ``(K, F)``: the number of weights that each model keeps behind each input, or
            input channel, of every layer.
    """

    agreement: Float[np.ndarray, "K K"]
    inputs: Float[np.ndarray, "K F"]

    @classmethod
    def of(cls, masks: Masks, models: int) -> Self:
        """The patterns of some models.

        >>> keep = np.array([[[True, True], [False, True]], [[False, True], [True, True]]])  # (K, outputs, inputs)
        >>> patterns = Patterns.of({"layer": keep}, 2)
        >>> patterns.agreement.tolist(), patterns.inputs.tolist()
        ([[3.0, 2.0], [2.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]])
        """
        agreement, inputs = np.zeros((models, models)), [np.zeros((models, 0))]
        for mask in masks.values():
            flat = mask.reshape(models, -1)
            for start in range(0, flat.shape[1], WEIGHTS):
                # sums of ones, exact in float32 for blocks of this size
                kept = flat[:, start : start + WEIGHTS].astype(np.float32)
                agreement += kept @ kept.T
            if mask.ndim > 2:
                inputs.append(mask.sum(axis=(1, *range(3, mask.ndim)), dtype=np.float64))
        return cls(agreement, np.concatenate(inputs, axis=1))


@dataclass(frozen=True)
class SparsityPattern(EvidenceAttack):
    """Agreement of the target's pruned weights with those of models trained with and without the
    record.

    Args:
        compared: ``weights``, every single weight; ``inputs``, the number of weights kept behind
            each input of a layer; or ``auto``: the one with the highest mean AUC of attacks on the
            other models.
    """

    compared: Literal["auto", "weights", "inputs"] = "auto"

    name = "sparsity_pattern"
    required_signals = frozenset({MASKS})

    @property
    def form(self) -> str:
        return self.compared

    def tune(self, signals: Signals, target: int) -> Self:
        if self.compared != "auto":
            return self
        candidates = [replace(self, compared="weights"), replace(self, compared="inputs")]
        return best_on_others(candidates, trials(signals, target))

    def collect(self, attacked: Attacked) -> Scores:
        attacked.require(True, False)
        patterns, target, others = patterns_of(attacked.signals), attacked.target, attacked.others
        if self.compared == "weights":
            known = patterns.agreement[np.ix_(others, others)]
            return likelihood_by_agreement(known, attacked.trained, patterns.agreement[target, others])
        if self.compared == "inputs":
            return likelihood_by_inputs(patterns.inputs[others], attacked.trained, patterns.inputs[target])
        raise ValueError("expected weights or inputs to compare, got auto; call tune() first")

    def compare(self, evidence: Scores) -> Scores:
        return evidence


def patterns_of(signals: Signals) -> Patterns:
    """The patterns of all models of some signals, computed once.

    Raises:
        ValueError: signals without masks.
    """
    masks = signals.masks
    if masks is None:
        raise ValueError("expected signals with masks, got none; call check() first")
    return signals.recent.get("patterns", lambda: Patterns.of(masks, signals.num_models))


def likelihood_by_agreement(
    known: Float[np.ndarray, "K K"], trained: Bool[np.ndarray, "K N"], target: Float[np.ndarray, " K"]
) -> Scores:
    """The log-likelihood ratio of every record by all weights, from the numbers of weights that two
    models both keep.

    Args:
        known: of each two reference models.
        trained: which records each was trained on.
        target: of the target and each reference model.

    Patterns 110 and 011 with the record, 001 without it; the target has 111. The means are (0.5, 1,
    0.5) and (0, 0, 1), their middle (0.25, 0.5, 0.75), so 0.75 * 0.5 + 0.5 * 1 - 0.25 * 0.5 = 0.75:

    >>> kept = np.array([[1.0, 1, 0], [0, 1, 1], [0, 0, 1]])
    >>> likelihood_by_agreement(kept @ kept.T, np.array([[True], [True], [False]]), kept @ np.ones(3))
    array([0.75])
    """
    inside, outside = (side / side.sum(axis=0) for side in (trained.astype(np.float64), 1.0 - trained))
    difference = inside - outside
    return np.asarray(target @ difference - 0.5 * ((inside + outside) * (known @ difference)).sum(axis=0))


def likelihood_by_inputs(
    known: Float[np.ndarray, "K F"], trained: Bool[np.ndarray, "K N"], target: Float[np.ndarray, " F"]
) -> Scores:
    """The log-likelihood ratio of every record by the inputs on which its sides differ most.

    Args:
        known: the number of weights that each reference model keeps behind each input.
        trained: which records each was trained on.
        target: the target's numbers.

    >>> counts = np.array([[9.0], [7.0], [3.0], [1.0]])  # 8 and 2, variance 2: (6 - 5) * 6 / 2
    >>> likelihood_by_inputs(counts, np.array([[True], [True], [False], [False]]), np.array([6.0]))
    array([3.])
    """
    count = known.shape[1]
    if not count:
        return np.zeros(trained.shape[1])
    least = max(LEAST_SHARE * float(np.median(known.var(axis=0))), LEAST_VARIANCE)
    scores = [np.empty(0)]
    for start in range(0, trained.shape[1], RECORDS):
        inside, outside, variance = _sides(known, trained[:, start : start + RECORDS].T)
        variance = np.maximum(variance, least)
        ratio = (target - (inside + outside) / 2) * (inside - outside) / variance
        differing = np.square(inside - outside) / variance
        chosen = np.argpartition(differing, max(0, count - SELECTED), axis=1)[:, -SELECTED:]
        scores.append(np.take_along_axis(ratio, chosen, axis=1).sum(axis=1))
    return np.concatenate(scores)


def _sides(
    known: Float[np.ndarray, "K F"], trained: Bool[np.ndarray, "n K"]
) -> tuple[Float[np.ndarray, "n F"], Float[np.ndarray, "n F"], Float[np.ndarray, "n F"]]:
    """The means over the models trained with and without each record, and the variance around them."""
    side = trained.astype(np.float64)
    count = side.sum(axis=1, keepdims=True)
    inside = side @ known / count
    outside = (known.sum(axis=0) - inside * count) / (len(known) - count)
    explained = count * np.square(inside) + (len(known) - count) * np.square(outside)
    within = np.maximum(np.square(known).sum(axis=0) - explained, 0)
    return inside, outside, within / max(1, len(known) - 2)
