"""LiRA by an adversary who holds several releases of one model: the unpruned one, those after each round
of pruning, and the last.

Each release has a logit confidence in a record. Their weighted sum with the weights of Fisher's linear
discriminant,

``w = W^-1 mean_i (c_in(i) - c_out(i))``,

is the statistic that LiRA (Carlini et al., S&P 2022) compares. ``c_in(i)`` and ``c_out(i)`` are the mean
confidences in record i, by release, of the reference models trained with and without it, and W is the
covariance of the confidences around these means, pooled over all records. So releases that say the same
share their weight, a difference between two releases counts where it shows membership, and one that shows
none gets no weight.

A normal distribution over all releases for each record would need a mean and a covariance of every release
from few models. Their errors add up: it finds less than the last release alone on Location
(benchmarks/README.md).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from wemem.attacks.lira import OnlineLikelihood, Statistics
from wemem.attacks.reference import Attacked

#: The releases that an adversary holds.
Held = Literal["all", "rounds", "ends"]

#: Directions with a smaller share of the largest variance are those of releases that are equal.
LEAST_SHARE = 1e-10


@dataclass(frozen=True)
class LiraReleases(OnlineLikelihood):
    """LiRA on a weighted sum of the logit confidences of several releases.

    Args:
        held: ``all``, the unpruned model and those after every round; ``rounds``, those after every
            round; or ``ends``, the unpruned and the last one.
    """

    held: Held = "all"

    name = "lira_releases"
    required_signals = frozenset({"releases"})

    def statistics(self, attacked: Attacked) -> Statistics:
        name = f"releases {self.held}"
        releases = held_releases(attacked.signals.extras["releases"], self.held)
        known = releases[np.ix_(attacked.others, attacked.rows)]
        weights = attacked.once((name, "weights"), lambda: discriminant(known, attacked.trained))
        return {name: releases @ weights}


def held_releases(releases: Float[np.ndarray, "K N R"], held: Held) -> Float[np.ndarray, "K N H"]:
    """The confidences of the releases that an adversary holds, float64; a model that was released
    once has one.

    >>> every = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    >>> [held_releases(every, held)[0, 0].tolist() for held in ("all", "rounds", "ends")]
    [[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0], [1.0, 4.0]]
    """
    count = releases.shape[2]
    chosen = {"all": range(count), "rounds": range(min(1, count - 1), count), "ends": sorted({0, count - 1})}
    return releases[..., list(chosen[held])].astype(np.float64)


def discriminant(known: Float[np.ndarray, "K N H"], trained: Bool[np.ndarray, "K N"]) -> Float[np.ndarray, " H"]:
    """The weight of each release by Fisher's linear discriminant; weights of equal size without a
    spread.

    Args:
        known: the reference models' confidences.
        trained: which records each was trained on; every record has a model on either side.

    Confidences in two releases of models with the record, (3, 1) and (1, 1), and without it, (0, 1)
    and (0, -1): means (2, 1) and (0, 0), covariance 1 and 1:

    >>> known = np.array([[[3.0, 1.0]], [[1.0, 1.0]], [[0.0, 1.0]], [[0.0, -1.0]]])
    >>> discriminant(known, np.array([[True], [True], [False], [False]])).tolist()
    [2.0, 1.0]
    """
    within, difference = np.zeros((known.shape[2],) * 2), np.zeros(known.shape[2])
    for side, sign in ((trained, 1), (~trained, -1)):
        weight = side.astype(np.float64)
        mean = np.einsum("knh,kn->nh", known, weight) / weight.sum(axis=0)[:, None]
        deviation = (known - mean) * weight[..., None]
        within += np.einsum("kng,knh->gh", deviation, deviation)
        difference += sign * mean.mean(axis=0)
    freedom = trained.size - 2 * trained.shape[1]
    if freedom <= 0 or not within.any():
        return np.ones(len(difference))
    # equal releases, such as those of a model that was never pruned, share their weight
    return np.asarray(np.linalg.pinv(within / freedom, LEAST_SHARE, hermitian=True) @ difference)
