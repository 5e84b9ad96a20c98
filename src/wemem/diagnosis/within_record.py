"""Within-record leakage: models that were trained on a record against models that were not.

Records differ in how hard they are, and the records that models memorize are the hard ones; a
comparison of members with *other* records as non-members mixes the two up. Here both sides of every
comparison are answers to one record (difficulty calibration, Watson et al., ICLR 2022, taken to its
end), so that difficulty cannot show, only exposure.

For a set of pairs (model k, record i), k having been shown i, and the models ``O_i`` that never
were::

    leakage        mean over the pairs of  P(phi_k(i) > phi_j(i)), j in O_i, ties one half, phi levelled
    memorization   mean over the pairs of  p_k(i) - mean over j in O_i of p_j(i)

The first averages AUCs of single records, weighted by their pairs: the probability that a model
trained on the record is more confident than a model that was not; 0.5 is chance. Confidences are
levelled first (:func:`levelled`), since a model that is more confident on a whole class carries no
information about a record. The second is Feldman's (STOC 2020) counterfactual memorization of the
records in question, in its probability form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import stdtrit

from wemem.errors import InputError
from wemem.metrics.intervals import Estimate

Values = Float64[np.ndarray, "K N"]
Pairs = Bool[np.ndarray, "K N"]
Kernel = Callable[[Values, Float64[np.ndarray, " N"]], Values]


@dataclass(frozen=True, eq=False)
class Cell:
    """The comparisons of one set of pairs.

    Args:
        values: float64, shape ``(K, N)``: each pair's mean over the models that never met the
            record; NaN elsewhere.
        without: float64, shape ``(K,)``: the cell's mean when model k is left out, on both sides.
    """

    values: Values
    without: Float64[np.ndarray, " K"]

    @property
    def pairs(self) -> int:
        """Number of pairs that the cell is the mean of."""
        return int((~np.isnan(self.values)).sum())

    @property
    def mean(self) -> float:
        """The cell's value."""
        return float(np.nanmean(self.values))


def higher(values: Values, others: Float64[np.ndarray, " N"]) -> Values:
    """The kernel of leakage: 1 where a model is more confident than the other, 1/2 where they tie."""
    return np.asarray((values > others) + 0.5 * (values == others))


def surplus(values: Values, others: Float64[np.ndarray, " N"]) -> Values:
    """The kernel of memorization: by how much a model's value exceeds the other's."""
    return np.asarray(values - others)


def levelled(values: Values, outside: Pairs, labels: Int64[np.ndarray, " N"]) -> Values:
    """Each model's values less their median over the records of the same class that it never met.

    Models differ in how sure they are of a class as a whole. That says nothing of any record, yet
    it moves all records of the class together, and with a few models it can pass for leakage of the
    group they are in. The median, because a few mislabelled records would drag a mean. Where a
    model has met all of a class, nothing is subtracted.

    >>> values, outside = np.array([[5.0, 1.0, 3.0, 8.0]]), np.array([[False, True, True, True]])
    >>> levelled(values, outside, np.array([0, 0, 0, 1])).tolist()
    [[3.0, -1.0, 1.0, 0.0]]
    """
    level = np.zeros(values.shape)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        for k, never in enumerate(outside[:, of_class]):
            if never.any():
                level[k, of_class] = np.median(values[k, of_class[never]])
    return values - level


def compare(values: Values, outside: Pairs, targets: Sequence[Pairs], kernel: Kernel) -> list[Cell]:
    """Compute the cells of several sets of pairs of the same models.

    Args:
        values: the confidences or probabilities of the models, shape ``(K, N)``.
        outside: true where a model was never shown the record.
        targets: sets of pairs whose model was shown the record; a pair whose record has no model
            outside is left out.
        kernel: :func:`higher` or :func:`surplus`.

    Raises:
        InputError: a set without a pair that can be compared, also after leaving out any one model.

    Model 0 was shown both records, 1 and 2 were not. It is above both on the first, between them on
    the second:

    >>> v = np.array([[3.0, 1.0], [1.0, 0.0], [2.0, 4.0]])
    >>> shown = np.array([[True, True], [False, False], [False, False]])
    >>> compare(v, ~shown, [shown], higher)
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected pairs of at least 2 models to compare, got 1; use more models
    >>> v, shown = np.vstack([v, v[:1]]), np.vstack([shown, shown[:1]])
    >>> compare(v, ~shown, [shown], higher)[0].mean
    0.75
    """
    total, count = np.zeros(values.shape), outside.sum(0)
    for other, never in zip(values, outside, strict=True):
        total += kernel(values, other) * never
    comparable = [target & (count > 0) for target in targets]
    for pairs in comparable:
        if pairs.any(1).sum() < 2:
            raise InputError(
                f"expected pairs of at least 2 models to compare, got {pairs.any(1).sum()}; use more models"
            )
    without = np.empty((len(targets), len(values)))
    for k, (other, never) in enumerate(zip(values, outside, strict=True)):
        rest = count - never
        mean = (total - kernel(values, other) * never) / np.maximum(rest, 1)
        for means, pairs in zip(without, comparable, strict=True):
            left = pairs & (rest > 0)
            left[k] = False
            means[k] = mean[left].mean()
    mean = total / np.maximum(count, 1)
    return [Cell(np.where(pairs, mean, np.nan), means) for pairs, means in zip(comparable, without, strict=True)]


def contrast(terms: Sequence[tuple[float, Cell]], level: float = 0.95) -> Estimate:
    """A weighted sum of cells of the same models and records, with an interval over models and
    records at once.

    Pairs depend on each other where they share a model or a record. The variance is that of two-way
    clusters (Cameron, Gelbach & Miller 2011), ``V = V_models + V_records - V_pairs``, and at least
    the larger of the first two. V_models is the delete-one jackknife over models, each left out as
    one that was shown records *and* as one that was not; the others are sums over the pairs'
    influences. Student's t with K - 1 degrees of freedom. What cells share (the same pairs under
    two treatments) cancels in their difference as it should.

    If no pair differs, V is 0 and says nothing; the interval is then that of K agreeing models, as
    in :func:`~wemem.metrics.intervals.auc_interval`.

    Args:
        terms: pairs of a weight and a cell; ``[(1, a), (-1, b)]`` is a difference.
        level: the confidence level, between 0 and 1.
    """
    weights, cells = [weight for weight, _ in terms], [cell for _, cell in terms]
    models = len(cells[0].without)
    value = sum(weight * cell.mean for weight, cell in terms)
    influence, left_out = np.zeros(cells[0].values.shape), np.zeros(models)
    for weight, cell in terms:
        influence += weight * np.nan_to_num(cell.values - cell.mean) / cell.pairs
        left_out += weight * cell.without
    of_models = (models - 1) * float(np.var(left_out))
    of_records = float(np.square(influence.sum(0)).sum())
    of_pairs = float(np.square(influence).sum())
    variance = max(of_models, of_records, of_models + of_records - of_pairs)
    if variance < 1e-18:
        reach = (1 - ((1 - level) / 2) ** (1 / models)) * sum(map(abs, weights))
    else:
        reach = float(stdtrit(models - 1, (1 + level) / 2)) * variance**0.5
    return Estimate(value, value - reach, value + reach)
