"""Centre and spread of a statistic over reference models, record by record, and variances that
records share.

The sample variance of few values is a poor estimate: from eight models it is off by a half as often
as not. Records have variances that are alike, though not equal, so each estimate is drawn toward
the usual one, the more so the fewer the models and the more alike the records. With sample
variances ``s_i^2`` of ``d_i`` degrees of freedom, and true variances distributed as ``d_0 s_0^2 /
chi^2(d_0)``, the posterior is

``shrunk_i^2 = (d_0 s_0^2 + d_i s_i^2) / (d_0 + d_i)``

and ``d_0`` and ``s_0^2`` follow from the mean and variance of ``log s_i^2`` over the records
(Smyth, "Linear models and empirical Bayes methods for assessing differential expression in
microarray experiments", 2004). If the records' variances scatter no more than chance makes them,
``d_0`` is infinite and all are ``s_0^2``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.special import digamma, polygamma

Statistic = Float[np.ndarray, "K N"]
PerRecord = Float[np.ndarray, " N"]
Variance = Literal["record", "shrunk", "global"]
Centre = Literal["median", "mean"]

#: Records taken at a time: the working copies of 64 models' values then fit the cache.
BLOCK = 2048
#: Added to a standard deviation, so that values all equal do not divide by zero.
LEAST_SPREAD = 1e-30
#: Sample variances below this share of the records' mean variance count as this share where
#: logarithms are taken.
LEAST_SHARE = 1e-6


@dataclass(frozen=True, eq=False)
class Moments:
    """One side's values of every record, summed up.

    Args:
        count: int64, shape ``(N,)``: the reference models on this side.
        mean: float64, shape ``(N,)``.
        median: float64, shape ``(N,)``.
        squares: float64, shape ``(N,)``: the sum of squared deviations from the mean.
    """

    count: Int64[np.ndarray, " N"]
    mean: PerRecord
    median: PerRecord
    squares: PerRecord

    def centre(self, kind: Centre) -> PerRecord:
        """Median or mean of each record's values."""
        return self.median if kind == "median" else self.mean

    def spread(self, variance: Variance, width: float | None) -> PerRecord:
        """Standard deviation of each record: its own (divisor n), shrunk, or ``width`` for all."""
        if variance == "global":
            if width is None:
                raise ValueError("expected a common width for the variance 'global', got None")
            return np.full_like(self.mean, width)
        if variance == "record":
            return np.asarray(np.sqrt(self.squares / self.count) + LEAST_SPREAD)
        return self.shrunk_spread

    @cached_property
    def shrunk_spread(self) -> PerRecord:
        """Square root of the :func:`shrunk_variance`, computed once for all centres."""
        return np.asarray(np.sqrt(shrunk_variance(self.squares, self.count)) + LEAST_SPREAD)


def side_moments(statistic: Statistic, chosen: Bool[np.ndarray, "K N"]) -> Moments:
    """Moments of each record's chosen values.

    Args:
        statistic: finite, shape ``(K, N)``.
        chosen: which values count; at least one of every record.

    >>> moments = side_moments(np.array([[1.0], [2.0], [9.0], [5.0]]), np.array([[True], [True], [True], [False]]))
    >>> moments.median, moments.mean, moments.squares  # deviations from the mean 4: -3, -2, 5
    (array([2.]), array([4.]), array([38.]))
    """
    return _joined([_moments(values, weight) for _, values, weight in _blocks(statistic, chosen)])


def _moments(values: Float[np.ndarray, "n K"], weight: Float[np.ndarray, "n K"]) -> Moments:
    """Moments of some records' values of weight 1; the others have weight 0."""
    number = weight.sum(axis=1)
    # Sorting some dozen neighbours is the fastest median; values that do not count go beyond any
    # other.
    ordered = values + (1 - weight) * 1e300
    ordered.sort(axis=1)
    row, count = np.arange(len(values)), number.astype(np.int64)
    median = 0.5 * (ordered[row, (count - 1) // 2] + ordered[row, count // 2])
    mean = np.einsum("nk,nk->n", values, weight) / number
    deviation = (values - mean[:, None]) * weight
    return Moments(count, mean, median, np.einsum("nk,nk->n", deviation, deviation))


def _joined(blocks: Sequence[Moments]) -> Moments:
    if not blocks:
        return Moments(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0))
    columns = zip(*((one.count, one.mean, one.median, one.squares) for one in blocks), strict=True)
    return Moments(*(np.concatenate(column) for column in columns))


def overall_spread(statistic: Statistic, chosen: Bool[np.ndarray, "K N"]) -> float:
    """Standard deviation (divisor n, plus 1e-30) of all chosen values around their common mean."""
    count = int(chosen.sum())
    total, squares = 0.0, 0.0
    for _, values, weight in _blocks(statistic, chosen):
        total += float(np.einsum("nk,nk->", values, weight))
    for _, values, weight in _blocks(statistic, chosen):
        squares += float(np.einsum("nk,nk->", np.square(values - total / count), weight))
    return float(np.sqrt(squares / count)) + LEAST_SPREAD


def _blocks(
    statistic: Statistic, chosen: Bool[np.ndarray, "K N"]
) -> Iterator[tuple[slice, Float[np.ndarray, "n K"], Float[np.ndarray, "n K"]]]:
    """Some records at a time, one row each: their place, their values, and 1 for values that count.

    Products with ones and zeros are many times faster than a choice by a mask.
    """
    for start in range(0, statistic.shape[1], BLOCK):
        here = slice(start, start + BLOCK)
        yield here, np.ascontiguousarray(statistic[:, here].T), chosen[:, here].T.astype(np.float64, order="C")


def shrunk_variance(squares: PerRecord, count: Int64[np.ndarray, " N"]) -> PerRecord:
    """Each record's variance drawn toward the usual one of all records.

    Args:
        squares: sums of squared deviations from the records' means.
        count: values of each record, at least 2.

    Variances that scatter no more than chance are all taken for the same:

    >>> shrunk_variance(np.array([1.0, 1.0, 1.0]), np.array([3, 3, 3])).round(3)
    array([0.5, 0.5, 0.5])
    """
    freedom, usual = variance_prior(squares, count)
    if np.isinf(freedom):
        return np.full_like(squares, usual)
    return np.asarray((freedom * usual + squares) / (freedom + count - 1))


def variance_prior(squares: PerRecord, count: Int64[np.ndarray, " N"]) -> tuple[float, float]:
    """Degrees of freedom ``d_0`` and scale ``s_0^2`` of the scaled inverse chi-squared prior, by
    Smyth's moments.

    If the variances scatter no more than chance makes them, ``d_0`` is infinite and ``s_0^2`` the
    mean variance.
    """
    degrees = (count - 1).astype(np.float64)
    kinds, kind = np.unique(degrees, return_inverse=True)  # few numbers of models, and dear functions of them
    variance = squares / degrees
    pooled = float(squares.sum() / degrees.sum())
    logs = np.log(np.maximum(variance, max(LEAST_SHARE * pooled, 1e-300)))
    centred = logs - digamma(kinds / 2)[kind] + np.log(kinds / 2)[kind]
    excess = float(centred.var(ddof=1) - polygamma(1, kinds / 2)[kind].mean()) if len(centred) > 1 else 0.0
    if excess <= 0:
        return np.inf, pooled
    freedom = 2 * inverse_trigamma(excess)
    return freedom, float(np.exp(centred.mean() + digamma(freedom / 2) - np.log(freedom / 2)))


def inverse_trigamma(value: float) -> float:
    """The x at which the trigamma function is ``value``, by Newton's method on its reciprocal
    (Smyth 2004).

    >>> round(inverse_trigamma(float(polygamma(1, 2.5))), 9)
    2.5
    """
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x
