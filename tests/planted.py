"""Signals with a leak of known size, and without one: what an attack must find, and what it must not.

Model ``k``'s statistic of record ``i``, the logit of the true-class probability, is drawn as
``difficulty_i + leak * [k was trained on i] + noise``, ``difficulty ~ N(0, 1)``, ``noise ~ N(0, NOISE^2)``, and logits
are made that have exactly this statistic. The best attack by the statistic alone has
``AUC = Phi(leak / sqrt(2 (1 + NOISE^2)))``; who knows the difficulty has ``TPR = Phi(leak / NOISE - Phi^-1(1 - FPR))``.
"""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from wemem.data.split import Role, random_halves, victim_and_shadows
from wemem.randomness import generator
from wemem.signals import Signals

CLASSES = 5
NOISE = 0.7
LEAK = 2.0
ROUNDS = 3
QUERIES = 3


def disjoint(leak, *, seed=0, records=2000, shadows=5, classes=CLASSES):
    """A victim and its shadows, no record shared between them."""
    labels = _labels(records, classes)
    split = victim_and_shadows(labels, shadows, seed=seed)
    return planted(split.roles, labels, "disjoint", leak, seed=seed, classes=classes)


def shared(leak, *, seed=0, pool=800, outside=400, models=16, classes=CLASSES):
    """A victim trained on a random half of a pool, and reference models on complementary random halves of it."""
    labels = _labels(pool + outside, classes)
    split = random_halves(
        labels, np.arange(pool), models, seed=seed, outside=np.arange(pool, pool + outside), dev_size=100
    )
    victim = np.zeros(pool + outside, np.int8)
    victim[:pool] = generator(seed, "planted/victim").permutation(np.repeat([Role.TRAIN, Role.AUDIT], [pool // 2] * 2))
    return planted(np.vstack([victim, split.roles]), labels, "shared", leak, seed=seed, classes=classes)


def planted(roles, labels, layout, leak, *, seed, classes=CLASSES):
    """Signals of the given roles, with every extra."""
    rng = generator(seed, "planted/statistics")
    k, n = roles.shape
    trained = roles == Role.TRAIN
    difficulty = rng.normal(0, 1, n)

    def statistic(share=1.0):
        return difficulty + share * leak * trained + rng.normal(0, NOISE, (k, n))

    last = statistic()
    logits = with_statistic(last, labels, classes, rng)
    rounds = [with_statistic(statistic(r / ROUNDS), labels, classes, rng) for r in range(1, ROUNDS)] + [logits]
    queries = [logits] + [with_statistic(statistic(), labels, classes, rng) for _ in range(QUERIES - 1)]
    extras = {
        "sensitivity": np.exp(-last / 4)[..., None] * rng.uniform(0.5, 1.5, (k, n, classes)),
        "queries": np.stack(queries, axis=2),
        "robustness": rng.binomial(20, norm.cdf(last / 2)) / 20,
        "trajectory": np.stack(rounds, axis=2),
        "dense": with_statistic(statistic(0.5), labels, classes, rng),
    }
    return Signals(
        logits, labels, roles, np.arange(n), layout, ("same",) * k,
        {name: array.astype(np.float32) for name, array in extras.items()},
    )  # fmt: skip


def with_statistic(statistic, labels, classes, rng):
    """Logits whose true-class probability has the given logit; the other classes are random."""
    logits = rng.normal(0, 1, (*statistic.shape, classes))
    np.put_along_axis(logits, np.broadcast_to(labels[:, None], (*statistic.shape, 1)), -np.inf, axis=-1)
    true = statistic + logsumexp(logits, axis=-1)
    np.put_along_axis(logits, np.broadcast_to(labels[:, None], (*statistic.shape, 1)), true[..., None], axis=-1)
    return logits.astype(np.float32)


def _labels(records, classes):
    return np.arange(records, dtype=np.int64) % classes
