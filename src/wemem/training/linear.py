"""Linear discriminants on principal components: models that memorize little, in closed form.

A network memorizes its training records, so that its predictions for *other* records still depend on
the label of each. A logistic regression on a few components has too few parameters for most records
and yet fits a mislabelled one: where every class but the wrong one is certain, its loss is almost
flat, and a single record moves it far. Of a Gaussian discriminant (Fisher; Hastie, Tibshirani &
Friedman, "The elements of statistical learning", section 4.3) a record moves the mean of its class
by ``1 / n_c`` of its distance, whatever its label. With the projections ``z`` of the records, the
centres ``mu_c`` and shares ``pi_c`` of the classes, and the covariance ``S`` within them,

``log p(c | x) = z' S^-1 mu_c - mu_c' S^-1 mu_c / 2 + log pi_c + constant``

The centres are geometric medians by the distance that ``S`` gives. Each record pulls at a median
with the same force, so that a mislabelled record, which is far from its class, moves it no more than
others do; a mean follows it.

Each model has components of its own, of the records that it trains on. Components of all records
would stretch along each, and a record that was held out would still be predicted more surely.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real
from scipy.linalg import solve, solve_triangular
from scipy.special import softmax
from sklearn.utils.extmath import randomized_svd

#: Share of the mean variance that is added to every variance, so that a constant direction does not
#: divide by zero.
RIDGE = 1e-6
#: Steps towards the geometric median of a class, and the distance below which records count alike.
STEPS, NEAREST = 2, 1e-2


@dataclass(frozen=True, eq=False)
class LinearModels:
    """Linear classifiers of the same features.

    Args:
        weight: one matrix for each of T models.
        bias: one bias for each model and class.
    """

    weight: Float64[np.ndarray, "T F C"]
    bias: Float64[np.ndarray, "T 1 C"]

    def probabilities(self, features: Real[np.ndarray, "n ..."]) -> Float64[np.ndarray, "T n C"]:
        """Probabilities of every class by every model."""
        return np.asarray(softmax(_rows(features) @ self.weight + self.bias, axis=-1))


def fit_discriminants(
    features: Real[np.ndarray, "n ..."], labels: Int64[np.ndarray, " n"], seen: Bool[np.ndarray, "T n"], classes: int,
    components: int,
) -> LinearModels:  # fmt: skip
    """Train one linear discriminant on each of several sets of records.

    Args:
        features: the n records.
        labels: the class of each record.
        seen: the records that each of the T models trains on, at least one of every class that
            it is to predict.
        classes: C, the number of classes.
        components: the number of leading principal components; as many as there are directions at
            most.
    """
    x = _rows(features)
    models = [_discriminant(x[rows], labels[rows], classes, components) for rows in seen]
    return LinearModels(np.stack([weight for weight, _ in models]), np.stack([bias for _, bias in models])[:, None])


def _discriminant(
    x: Float64[np.ndarray, "m F"], labels: Int64[np.ndarray, " m"], classes: int, components: int
) -> tuple[Float64[np.ndarray, "F C"], Float64[np.ndarray, " C"]]:
    """Weights and biases of one model."""
    middle = x.mean(axis=0)
    _, _, axes = randomized_svd(x - middle, n_components=min(components, *x.shape), n_iter=4, random_state=0)
    z = (x - middle) @ axes.T
    member = np.eye(classes)[labels]
    count = member.sum(axis=0)
    means = member.T @ z / np.maximum(count, 1)[:, None]
    spread = z - means[labels]
    covariance = spread.T @ spread / len(z)
    covariance += (RIDGE * np.trace(covariance) / len(covariance) + 1e-30) * np.eye(len(covariance))
    means = _medians(z, labels, member, means, np.linalg.cholesky(covariance))
    directions = solve(covariance, means.T, assume_a="pos")
    # a class without a record gets the share of half a record, not a probability of 0
    share = np.maximum(count, 0.5) / len(z)
    bias = np.log(share) - 0.5 * np.einsum("cp,pc->c", means, directions)
    weight = axes.T @ directions
    return weight, np.asarray(bias - middle @ weight)


def _medians(
    z: Float64[np.ndarray, "m P"], labels: Int64[np.ndarray, " m"], member: Float64[np.ndarray, "m C"],
    means: Float64[np.ndarray, "C P"], root: Float64[np.ndarray, "P P"],
) -> Float64[np.ndarray, "C P"]:  # fmt: skip
    """Geometric median of each class by the distance that the covariance gives (Weiszfeld 1937)."""
    for _ in range(STEPS):
        distance = np.linalg.norm(solve_triangular(root, (z - means[labels]).T, lower=True), axis=0)
        weight = member / np.maximum(distance, NEAREST)[:, None]
        total = weight.sum(axis=0)[:, None]
        means = np.where(total > 0, weight.T @ z / np.maximum(total, 1e-30), means)
    return means


def _rows(features: Real[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n F"]:
    return np.asarray(features.reshape(len(features), -1), np.float64)
