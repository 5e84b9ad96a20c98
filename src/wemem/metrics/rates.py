"""The rates that an audit measures, computed from scores. Their intervals are in :mod:`wemem.metrics.intervals`.

Higher score = member, and ``score >= threshold`` calls a record a member. Only the order of the scores counts: any
strictly increasing map of them changes no rate here, and infinite scores are as good as others. NaN has no
place in an order and is refused.
"""

import numpy as np
from jaxtyping import Float, Int64

from wemem.errors import InputError

Members = Float[np.ndarray, " m"]
Nonmembers = Float[np.ndarray, " n"]


def auc(members: Members, nonmembers: Nonmembers) -> float:
    """Area under the ROC curve: the chance that a member outscores a non-member, a tie counting one half.

    ``AUC = (1 / mn) sum_ij ([x_i > y_j] + [x_i = y_j] / 2)``, the Mann-Whitney statistic (Hanley & McNeil 1982),
    counted in whole numbers and divided once, in O((m + n) log(m + n)).

    Raises:
        InputError: no members, no non-members, or NaN.

    Two of four pairs are won by 3, one by 2, and one is a tie:

    >>> auc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    0.875
    """
    x, y = ordered(members, nonmembers)
    return int(_twice_below(np.sort(x), np.sort(y)).sum()) / (2 * len(x) * len(y))


def placements(members: Members, nonmembers: Nonmembers) -> tuple[Members, Nonmembers]:
    """Each record's own share of the AUC; the mean of either array is the AUC.

    A member's placement is the share of non-members below it, a non-member's the share of members above it,
    ties one half (DeLong et al. 1988; by sorting, as Sun & Xu 2014).

    Returns:
        Values in [0, 1], shapes ``(m,)`` and ``(n,)``, in the given order.

    Raises:
        InputError: no members, no non-members, or NaN.

    >>> [v.tolist() for v in placements(np.array([3.0, 2.0]), np.array([1.0, 2.0]))]
    [[1.0, 0.75], [1.0, 0.75]]
    """
    x, y = ordered(members, nonmembers)
    return _twice_below(x, np.sort(y)) / (2 * len(y)), 1 - _twice_below(y, np.sort(x)) / (2 * len(x))


def roc(
    members: Members, nonmembers: Nonmembers
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """The ROC curve: one point per distinct score, so that a tie is one sloped step, whose area is the AUC's one half.

    Returns:
        ``(fpr, tpr, thresholds)``, each of shape ``(p,)``, from (0, 0) to (1, 1) by falling threshold. The first point
        calls nobody a member; its threshold is given as infinity, and it is there even if scores are infinite too.

    Raises:
        InputError: no members, no non-members, or NaN.

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
    """The threshold of highest balanced accuracy ``(TPR + TNR) / 2``.

    Candidates are the observed scores, members first, in the given order; the first best wins. Accuracies are
    compared as the whole numbers ``n TP + m TN``: as floating-point rates, two equal ones may differ by a rounding,
    and the choice between them would then hang on it.

    Raises:
        InputError: no members, no non-members, or NaN. (Thresholds per class: a class without either has none of its
            own; the caller decides what to use there.)

    Both 3 and 5 get three of four right; 5 was named first:

    >>> best_threshold(np.array([5.0, 3.0]), np.array([4.0, 1.0]))
    5.0
    """
    x, y = ordered(members, nonmembers)
    candidates = np.concatenate([x, y])
    right = len(y) * _at_least(candidates, x) + len(x) * (len(y) - _at_least(candidates, y))
    return float(candidates[right.argmax()])


def true_positive_rate(members: Members, nonmembers: Nonmembers, fpr: float) -> float:
    """TPR at a given FPR: the share of members found while at most ``fpr`` of the non-members are accused.

    The largest observable FPR that is not above ``fpr`` counts, without interpolation. With ``k`` the largest
    whole number for which ``k / n <= fpr``, a record is called a member if it scores above the (k+1)-th highest
    non-member: strictly, so that non-members tied there are all spared, and the members tied with them not found.

    Args:
        members: shape ``(m,)``.
        nonmembers: shape ``(n,)``.
        fpr: the false positive rate, in (0, 1); :func:`smallest_fpr` gives the smallest one that a sample can show.

    Raises:
        InputError: no members, no non-members, NaN, or ``fpr`` out of range.

    One of four non-members may be accused: 7 is, and two of three members score above the next, 4:

    >>> true_positive_rate(np.array([9.0, 5.0, 4.0]), np.array([7.0, 4.0, 2.0, 1.0]), 0.25)
    0.6666666666666666
    """
    x, y = ordered(members, nonmembers)
    if not 0 < fpr < 1:
        raise InputError(f"expected a false positive rate between 0 and 1, got {fpr}; 0.01 is 1 %")
    accused = round(fpr * len(y))
    accused -= accused / len(y) > fpr
    spared = len(y) - 1 - accused
    return int((x > np.partition(y, spared)[spared]).sum()) / len(x)


def smallest_fpr(nonmembers: int) -> float:
    """``1 / n``, the smallest false positive rate above zero that ``n`` non-members can show.

    False positives come whole. Below ``1 / n`` none is allowed, so that the TPR is the one at zero false positives
    whatever rate was asked for: 0.1 % needs 1,000 non-members. A lower bound above zero for it needs more, about
    3,700 at 95 % (:func:`wemem.metrics.intervals.tpr_at_fpr`).

    Raises:
        InputError: no non-members.

    >>> smallest_fpr(1000)
    0.001
    """
    if nonmembers < 1:
        raise InputError(f"expected at least 1 non-member, got {nonmembers}")
    return 1 / nonmembers


def ordered(members: Members, nonmembers: Nonmembers) -> tuple[Members, Nonmembers]:
    """Scores of members and non-members as float64, checked to have an order.

    Raises:
        InputError: not one-dimensional, empty, or NaN.
    """
    arrays = []
    for name, scores in (("member", members), ("non-member", nonmembers)):
        array = np.asarray(scores, dtype=np.float64)
        if array.ndim != 1 or len(array) == 0:
            raise InputError(f"expected {name} scores (n,), at least one, got shape {array.shape}; bring more records")
        if np.isnan(array).any():
            raise InputError(
                f"expected {name} scores without NaN, got {int(np.isnan(array).sum())} NaN, first at index "
                f"{int(np.isnan(array).argmax())}; mend the attack that made them"
            )
        arrays.append(array)
    return arrays[0], arrays[1]


def _twice_below(scores: Float[np.ndarray, " a"], others: Float[np.ndarray, " b"]) -> Int64[np.ndarray, " a"]:
    """Twice the number of sorted ``others`` that each score beats, ties counting one half: a whole number."""
    return np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")


def _at_least(thresholds: Float[np.ndarray, " t"], scores: Float[np.ndarray, " a"]) -> Int64[np.ndarray, " t"]:
    """Number of ``scores`` that reach each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, "left")
