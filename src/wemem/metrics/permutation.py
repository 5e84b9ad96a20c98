"""Rates of one attack under many assignments of membership at once.

A permutation test keeps the scores of an attack and draws membership anew, a thousand times and
more. The functions here give the values of :mod:`wemem.metrics.rates` for all draws together: what
can be sorted once is sorted once.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int64

Scores = Float[np.ndarray, " n"]
Memberships = Bool[np.ndarray, "B n"]
Values = Float[np.ndarray, " B"]


def permutations(member: Bool[np.ndarray, " n"], draws: int, rng: np.random.Generator) -> Iterator[Memberships]:
    """Random permutations of a membership, in blocks that together have ``draws`` rows.

    A block holds at most four million entries, so that memory does not grow with the records.
    """
    most = max(1, 2**22 // len(member))
    while draws > 0:
        block = np.tile(member, (min(most, draws), 1))
        yield rng.permuted(block, axis=1)
        draws -= len(block)


def auc_permuted(scores: Scores, members: Memberships) -> Values:
    """AUC for each row of memberships, by the sum of the members' mid-ranks.

    >>> auc_permuted(np.array([3.0, 2.0, 1.0, 2.0]), np.array([[True, True, False, False]]))
    array([0.875])
    """
    m = members.sum(axis=1)
    return np.asarray((members @ _ranks(scores) - m * (m + 1) / 2) / (m * (members.shape[1] - m)))


def _ranks(scores: Scores) -> Scores:
    """Ranks from 1, equal scores sharing the mean of theirs; ``scipy.stats`` would take a second to import for it."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[inverse])


def balanced_accuracy_permuted(called: Bool[np.ndarray, " n"], members: Memberships) -> Values:
    """Balanced accuracy of fixed calls for each row of memberships.

    >>> balanced_accuracy_permuted(np.array([True, False, False]), np.array([[True, True, False]]))
    array([0.75])
    """
    m = members.sum(axis=1)
    found = members @ called.astype(np.float64)
    return np.asarray((found / m + 1 - (called.sum() - found) / (members.shape[1] - m)) / 2)


def tpr_permuted(scores: Scores, members: Memberships, fpr: float) -> Values:
    """TPR at a given FPR for each row of memberships.

    >>> tpr_permuted(np.array([3.0, 2.0, 1.0, 2.0]), np.array([[True, True, False, False]]), 0.1)
    array([0.5])
    """
    order = np.argsort(-scores, kind="stable")
    n = members.shape[1] - members.sum(axis=1)
    spared = np.round(fpr * n).astype(int)
    spared -= spared / n > fpr
    # the highest scores hold the first non-member that may not be called a member in all but odd draws
    share = n.min() / members.shape[1]
    top = int((spared.max() + 1) / share + 8 * np.sqrt((spared.max() + 1) / share)) + 8
    found = _found_above(scores[order], members[:, order[:top]], spared)
    if found is None:
        found = _found_above(scores[order], members[:, order], spared)
    assert found is not None
    return np.asarray(found / members.sum(axis=1))


def _found_above(
    falling: Scores, members: Bool[np.ndarray, "B top"], spared: Int64[np.ndarray, " B"]
) -> Int64[np.ndarray, " B"] | None:
    """Members that score above the first non-member beyond those spared; None where a row does not reach it.

    Args:
        falling: all scores, highest first.
        members: memberships of the highest scores, or of all.
        spared: non-members that may be called members, for each row.
    """
    found = np.cumsum(members, axis=1, dtype=np.int32)
    nonmembers = np.arange(1, members.shape[1] + 1, dtype=np.int32) - found
    if (nonmembers[:, -1] <= spared).any():
        return None
    place = (nonmembers > spared[:, None]).argmax(axis=1)
    first = np.searchsorted(-falling, -falling[place], "left")  # of the records tied with it
    return np.where(first > 0, found[np.arange(len(found)), np.maximum(first - 1, 0)], 0).astype(np.int64)
