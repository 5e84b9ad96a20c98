"""The rates that an audit measures, computed from scores. Their intervals are in
:mod:`wemem.metrics.intervals`.

A higher score means member, and ``score >= threshold`` calls a record a member. Only the order of
the scores counts: a strictly increasing map of the scores changes no rate here, and infinite scores
are allowed. NaN has no order and is refused.
"""

import numpy as np
from jaxtyping import Float, Int64

from wemem.errors import InputError

Members = Float[np.ndarray, " m"]
Nonmembers = Float[np.ndarray, " n"]


def auc(members: Members, nonmembers: Nonmembers) -> float:
    """Compute the AUC: the probability that a member outscores a non-member, where a tie counts one
    half.

    ``AUC = (1 / mn) sum_ij ([x_i > y_j] + [x_i = y_j] / 2)`` is the Mann-Whitney statistic (Hanley
    & McNeil 1982). It is counted in whole numbers and divided once, in O((m + n) log(m + n)).

    Raises:
        InputError: there are no members or no non-members, or a score is NaN.

    The member at 3 is above both non-members; the member at 2 is above one and tied with the other:

    >>> auc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    0.875
    """
    x, y = ordered(members, nonmembers)
    return int(_twice_below(np.sort(x), np.sort(y)).sum()) / (2 * len(x) * len(y))


def placements(members: Members, nonmembers: Nonmembers) -> tuple[Members, Nonmembers]:
    """Compute the placement of each record, its contribution to the AUC; the mean of either array
    is the AUC.

    The placement of a member is the share of non-members below it, that of a non-member the share
    of members above it. Ties count one half (DeLong et al. 1988; computed by sorting, as in Sun &
    Xu 2014).

    Returns:
        The placements of members and of non-members, in [0, 1] and in the given order, shapes
        ``(m,)`` and ``(n,)``.

    Raises:
        InputError: there are no members or no non-members, or a score is NaN.

    >>> [v.tolist() for v in placements(np.array([3.0, 2.0]), np.array([1.0, 2.0]))]
    [[1.0, 0.75], [1.0, 0.75]]
    """
    x, y = ordered(members, nonmembers)
    return _twice_below(x, np.sort(y)) / (2 * len(y)), 1 - _twice_below(y, np.sort(x)) / (2 * len(x))


def roc(
    members: Members, nonmembers: Nonmembers
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Compute the ROC curve, one point per distinct score; a tie is a sloped step, which gives it
    one half in the AUC.

    Returns:
        The arrays ``(fpr, tpr, thresholds)``, each of shape ``(p,)``, from (0, 0) to (1, 1) by
        falling threshold. The first point has the threshold infinity and calls no record a member,
        even if some scores are infinite.

    Raises:
        InputError: there are no members or no non-members, or a score is NaN.

    >>> fpr, tpr, thresholds = roc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    >>> fpr.tolist(), tpr.tolist(), thresholds.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], [inf, 3.0, 2.0, 1.0])
    """
    x, y = ordered(members, nonmembers)
    thresholds = np.unique(np.concatenate([x, y]))[::-1]
    tpr = np.concatenate([[0.0], _at_least(thresholds, x) / len(x)])
    fpr = np.concatenate([[0.0], _at_least(thresholds, y) / len(y)])
    return fpr, tpr, np.concatenate([[np.inf], thresholds])


def best_threshold(members: Members, nonmembers: Nonmembers) -> float:
    """Choose the threshold of highest balanced accuracy ``(TPR + TNR) / 2``.

    Candidates are the observed scores, members first, in the given order; the first of the best is
    chosen. Accuracies are compared as the whole numbers ``n TP + m TN``, because equal
    floating-point rates may differ by a rounding.

    Raises:
        InputError: there are no members or no non-members, or a score is NaN. With one threshold
            per class, the caller decides on the classes without members or non-members.

    The thresholds 3 and 5 both call three of four records correctly; 5 comes first:

    >>> best_threshold(np.array([5.0, 3.0]), np.array([4.0, 1.0]))
    5.0
    """
    x, y = ordered(members, nonmembers)
    candidates = np.concatenate([x, y])
    right = len(y) * _at_least(candidates, x) + len(x) * (len(y) - _at_least(candidates, y))
    return float(candidates[right.argmax()])


def true_positive_rate(members: Members, nonmembers: Nonmembers, fpr: float) -> float:
    """Compute the TPR at a given FPR: the share of members called while at most ``fpr`` of the
    non-members are called.

    The threshold is the one of the largest observable FPR that is at most ``fpr``, without
    interpolation. With ``k`` the largest whole number for which ``k / n <= fpr``, a record is
    called a member if its score is strictly above that of the (k+1)-th highest non-member. Records
    with exactly that score, members or not, are not called members.

    Args:
        members: the scores of members, shape ``(m,)``.
        nonmembers: the scores of non-members, shape ``(n,)``.
        fpr: the false positive rate, in (0, 1); :func:`smallest_fpr` gives the smallest one that a
            sample can show.

    Raises:
        InputError: there are no members or no non-members, a score is NaN, or ``fpr`` is out of
            range.

    One false positive among four non-members is allowed, the one at 7. Two of three members are
    above the next, 4:

    >>> true_positive_rate(np.array([9.0, 5.0, 4.0]), np.array([7.0, 4.0, 2.0, 1.0]), 0.25)
    0.6666666666666666
    """
    x, y = ordered(members, nonmembers)
    if not 0 < fpr < 1:
        raise InputError(f"expected a false positive rate between 0 and 1, got {fpr}; 0.01 is 1 %")
    false_positives = round(fpr * len(y))
    false_positives -= false_positives / len(y) > fpr
    place = len(y) - 1 - false_positives
    return int((x > np.partition(y, place)[place]).sum()) / len(x)


def smallest_fpr(nonmembers: int) -> float:
    """Compute ``1 / n``, the smallest false positive rate above zero that ``n`` non-members can
    show.

    At any rate below ``1 / n`` no false positive is allowed, so that the TPR is the one at zero
    false positives. A rate of 0.1 % needs 1,000 non-members. A lower bound above zero for the TPR
    needs more, about 3,700 at 95 % (:func:`wemem.metrics.intervals.tpr_at_fpr`).

    Raises:
        InputError: there are no non-members.

    >>> smallest_fpr(1000)
    0.001
    """
    if nonmembers < 1:
        raise InputError(f"expected at least 1 non-member, got {nonmembers}")
    return 1 / nonmembers


def mean_fpr(nonmembers: int, fpr: float) -> float:
    """Compute the mean false positive rate, on further non-members, of the threshold that ``n``
    non-members give for a rate of ``fpr``.

    The threshold is the score of the (k+1)-th highest of the n, with ``k`` the largest whole number
    for which ``k / n <= fpr``. A further score of the same distribution is equally likely to fall
    into each of the n + 1 gaps between them, of which k + 1 lie above the threshold. So the mean is
    ``(k + 1) / (n + 1)`` for scores without ties. It exceeds ``fpr``, the more so the fewer the
    non-members, and the TPR is then too high.

    Raises:
        InputError: there are no non-members.

    >>> round(mean_fpr(100, 0.01), 4), round(mean_fpr(199, 0.01), 4), round(mean_fpr(10_000, 0.01), 4)
    (0.0198, 0.01, 0.0101)
    """
    smallest_fpr(nonmembers)  # refuses 0
    false_positives = round(fpr * nonmembers)
    false_positives -= false_positives / nonmembers > fpr
    return (false_positives + 1) / (nonmembers + 1)


def ordered(members: Members, nonmembers: Nonmembers) -> tuple[Members, Nonmembers]:
    """Convert the scores of members and non-members to float64, and check that they can be ordered.

    Raises:
        InputError: an array is not one-dimensional, is empty, or holds NaN.
    """
    arrays = []
    for name, scores in (("member", members), ("non-member", nonmembers)):
        array = np.asarray(scores, dtype=np.float64)
        if array.ndim != 1 or len(array) == 0:
            raise InputError(f"expected {name} scores (n,), at least one, got shape {array.shape}; bring more records")
        if np.isnan(array).any():
            raise InputError(
                f"expected {name} scores without NaN, got {int(np.isnan(array).sum())} NaN, first at index "
                f"{int(np.isnan(array).argmax())}; correct the attack that computed them"
            )
        arrays.append(array)
    return arrays[0], arrays[1]


def _twice_below(scores: Float[np.ndarray, " a"], others: Float[np.ndarray, " b"]) -> Int64[np.ndarray, " a"]:
    """Twice the number of sorted ``others`` below each score, where a tie counts one half; a whole
    number.
    """
    return np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")


def _at_least(thresholds: Float[np.ndarray, " t"], scores: Float[np.ndarray, " a"]) -> Int64[np.ndarray, " t"]:
    """The number of ``scores`` that reach each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, "left")
