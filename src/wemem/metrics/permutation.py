"""Rates of one attack under many assignments of membership at once.

A permutation test keeps the scores of an attack fixed and draws membership a thousand times or
more. The functions here compute the values of :mod:`wemem.metrics.rates` for all draws together, so
that scores are sorted only once.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int64

Scores = Float[np.ndarray, " n"]
Memberships = Bool[np.ndarray, "B n"]
Values = Float[np.ndarray, " B"]


def permutations(member: Bool[np.ndarray, " n"], draws: int, rng: np.random.Generator) -> Iterator[Memberships]:
    """Draw random permutations of a membership, in blocks that together have ``draws`` rows.

    A block holds at most four million entries, so that memory does not grow with the records.
    """
    most = max(1, 2**22 // len(member))
    while draws > 0:
        block = np.tile(member, (min(most, draws), 1))
        yield rng.permuted(block, axis=1)
        draws -= len(block)


def auc_permuted(scores: Scores, members: Memberships) -> Values:
    """Compute the AUC for each row of memberships, from the sum of the members' mid-ranks.

    >>> auc_permuted(np.array([3.0, 2.0, 1.0, 2.0]), np.array([[True, True, False, False]]))
    array([0.875])
    """
    m = members.sum(axis=1)
    return np.asarray((members @ _ranks(scores) - m * (m + 1) / 2) / (m * (members.shape[1] - m)))


def _ranks(scores: Scores) -> Scores:
    """Ranks from 1, where equal scores share their mean rank; importing ``scipy.stats`` for it
    would take a second.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[inverse])


def balanced_accuracy_permuted(called: Bool[np.ndarray, " n"], members: Memberships) -> Values:
    """Compute the balanced accuracy of fixed calls for each row of memberships.

    >>> balanced_accuracy_permuted(np.array([True, False, False]), np.array([[True, True, False]]))
    array([0.75])
    """
    m = members.sum(axis=1)
    true_positives = members @ called.astype(np.float64)
    false_positives = called.sum() - true_positives
    return np.asarray((true_positives / m + 1 - false_positives / (members.shape[1] - m)) / 2)


def tpr_permuted(scores: Scores, members: Memberships, fpr: float) -> Values:
    """Compute the TPR at a given FPR for each row of memberships.

    >>> tpr_permuted(np.array([3.0, 2.0, 1.0, 2.0]), np.array([[True, True, False, False]]), 0.1)
    array([0.5])
    """
    order = np.argsort(-scores, kind="stable")
    n = members.shape[1] - members.sum(axis=1)
    allowed = np.round(fpr * n).astype(int)
    allowed -= allowed / n > fpr
    # in almost every draw, the highest scores suffice to reach the non-member that sets the
    # threshold
    share = n.min() / members.shape[1]
    top = int((allowed.max() + 1) / share + 8 * np.sqrt((allowed.max() + 1) / share)) + 8
    true_positives = _true_positives(scores[order], members[:, order[:top]], allowed)
    if true_positives is None:
        true_positives = _true_positives(scores[order], members[:, order], allowed)
    assert true_positives is not None
    return np.asarray(true_positives / members.sum(axis=1))


def _true_positives(
    falling: Scores, members: Bool[np.ndarray, "B top"], allowed: Int64[np.ndarray, " B"]
) -> Int64[np.ndarray, " B"] | None:
    """The number of members above the non-member that sets the threshold; None if a row does not
    reach that one.

    Args:
        falling: all scores, highest first.
        members: the memberships of the highest scores, or of all scores.
        allowed: the number of false positives that is allowed in each row.
    """
    counts = np.cumsum(members, axis=1, dtype=np.int32)
    nonmembers = np.arange(1, members.shape[1] + 1, dtype=np.int32) - counts
    if (nonmembers[:, -1] <= allowed).any():
        return None
    place = (nonmembers > allowed[:, None]).argmax(axis=1)
    first = np.searchsorted(-falling, -falling[place], "left")  # the first of the records with the same score
    return np.where(first > 0, counts[np.arange(len(counts)), np.maximum(first - 1, 0)], 0).astype(np.int64)
