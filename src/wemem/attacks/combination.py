"""Combination of scores: inputs of any scale are ranked within each model, and weights are learned
on known models.

The candidates are each input alone, the sum of all ranks, and a logistic regression on them. The
one with the highest mean AUC over the known models is taken; the regression is measured on models
it was not fitted to. So on the known models no input alone is stronger than the combination.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression

from wemem.metrics.rates import auc

Inputs = Float[np.ndarray, "n F"]
Weights = tuple[float, ...]
Member = Bool[np.ndarray, " n"]

#: Parts of the known models, of which each is left out once when the regression is measured.
FOLDS = 2


def normal_ranks(inputs: Inputs) -> Inputs:
    """Each column's ranks as quantiles of the standard normal distribution, ties at their mean
    rank.

    >>> normal_ranks(np.array([[10.0], [30.0], [20.0]])).round(3)[:, 0]
    array([-0.967,  0.967,  0.   ])
    """
    ranks = rankdata(inputs, axis=0) if len(inputs) else inputs
    return np.asarray(norm.ppf((ranks - 0.5) / max(1, len(inputs))))


def combine(inputs: Inputs, weights: Weights) -> Float[np.ndarray, " n"]:
    """The weighted sum of the normal ranks of one model's inputs.

    >>> combine(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), (2.0, 1.0)).round(3)
    array([-1.935,  0.   ,  1.935])
    """
    return np.asarray(normal_ranks(inputs) @ np.asarray(weights))


def learn_weights(inputs: Sequence[Inputs], member: Sequence[Member]) -> Weights:
    """The weights with the highest mean AUC over the known models; simpler ones where several are
    equal.

    Args:
        inputs: of each known model, shape ``(n, F)``, higher = member.
        member: the truth of its records.
    """
    ranks = [normal_ranks(one) for one in inputs]
    count = inputs[0].shape[1]
    alone = [tuple(float(i == j) for i in range(count)) for j in range(count)]
    simple = alone if count == 1 else [*alone, (1.0,) * count]
    scored = [(_mean_auc([(z @ np.asarray(w)) for z in ranks], member), w) for w in simple]
    if count > 1 and len(ranks) > 1 and any(z.any() for z in ranks):  # constant inputs leave nothing to fit
        scored.append(_regression(ranks, member))
    best = max(value for value, _ in scored)
    return next(weights for value, weights in scored if value == best)


def _regression(ranks: Sequence[Inputs], member: Sequence[Member]) -> tuple[float, Weights]:
    """Weights by logistic regression, and the lesser of their mean AUC on models left out and on
    all.
    """
    left_out: list[Float[np.ndarray, " n"]] = [np.empty(0)] * len(ranks)
    for fold in range(FOLDS):
        folds = [k for k in range(len(ranks)) if k % FOLDS != fold]
        weights = _fit([ranks[k] for k in folds], [member[k] for k in folds])
        for k in range(fold, len(ranks), FOLDS):
            left_out[k] = ranks[k] @ weights
    weights = _fit(ranks, member)
    value = min(_mean_auc(left_out, member), _mean_auc([z @ weights for z in ranks], member))
    return value, tuple(float(w) for w in weights)


def _fit(ranks: Sequence[Inputs], member: Sequence[Member]) -> Float[np.ndarray, " F"]:
    model = LogisticRegression(class_weight="balanced", solver="newton-cholesky")
    model.fit(np.concatenate(ranks), np.concatenate(member))
    return np.asarray(model.coef_[0])


def _mean_auc(scores: Sequence[Float[np.ndarray, " n"]], member: Sequence[Member]) -> float:
    return float(np.mean([auc(s[m], s[~m]) for s, m in zip(scores, member, strict=True)]))
