"""Signals with a leak of known size, and signals without one: the inputs on which attacks are
checked.

Model ``k``'s statistic of record ``i``, the logit of the true-class probability, is drawn as
``difficulty_i + leak * [k was trained on i] + noise``, ``difficulty ~ N(0, 1)``, ``noise ~ N(0,
NOISE^2)``, and logits are made that have exactly this statistic. The best attack by the statistic
alone has ``AUC = Phi(leak / sqrt(2 (1 + NOISE^2)))``. An attack that knows the difficulty has ``TPR
= Phi(leak / NOISE - Phi^-1(1 - FPR))``.
"""

import numpy as np
from jaxtyping import Float, Float32, Int8, Int64
from scipy.special import logsumexp
from scipy.stats import norm

from wemem.data.split import Role, random_halves, victim_and_shadows
from wemem.randomness import generator
from wemem.signals import ROBUSTNESS_COPIES, SignalLayout, Signals, logit_confidence

CLASSES = 5
NOISE = 0.7
LEAK = 2.0
ROUNDS = 3
QUERIES = 3
OUTPUTS = 16


def disjoint(leak: float, *, seed: int = 0, records: int = 2000, shadows: int = 5, classes: int = CLASSES) -> Signals:
    """Signals of a victim and its shadows, no record shared between the victim and them.

    Args:
        leak: rise of the statistic for records that a model was trained on; 0 is a null split.
        seed: for the split and the statistics.
        records: number of records.
        shadows: number of shadow models.
        classes: number of classes.
    """
    labels = _labels(records, classes)
    split = victim_and_shadows(labels, shadows, seed=seed)
    return planted(split.roles, labels, "disjoint", leak, seed=seed, classes=classes)


def shared(
    leak: float, *, seed: int = 0, pool: int = 800, outside: int = 400, models: int = 16, classes: int = CLASSES
) -> Signals:
    """Signals of a victim trained on a random half of a pool, and of reference models on
    complementary halves of it.

    Args:
        leak: rise of the statistic for records that a model was trained on; 0 is a null split.
        seed: for the split and the statistics.
        pool: number of audited records.
        outside: number of records that are not audited: the population, and the dev records.
        models: number of reference models, even.
        classes: number of classes.
    """
    labels = _labels(pool + outside, classes)
    split = random_halves(
        labels, np.arange(pool), models, seed=seed, outside=np.arange(pool, pool + outside), dev_size=100
    )
    victim = np.zeros(pool + outside, np.int8)
    victim[:pool] = generator(seed, "planted/victim").permutation(np.repeat([Role.TRAIN, Role.AUDIT], [pool // 2] * 2))
    return planted(np.vstack([victim, split.roles]), labels, "shared", leak, seed=seed, classes=classes)


def planted(
    roles: Int8[np.ndarray, "K N"],
    labels: Int64[np.ndarray, " N"],
    layout: SignalLayout,
    leak: float,
    *,
    seed: int,
    classes: int = CLASSES,
) -> Signals:
    """Signals of the given roles, with every extra and with masks.

    Behind the input of record i each of :data:`OUTPUTS` weights is kept with the probability
    ``Phi(leak / 2)`` if the model was trained on it, otherwise with ``Phi(-leak / 2)``.
    """
    rng = generator(seed, "planted/statistics")
    k, n = roles.shape
    trained = roles == Role.TRAIN
    difficulty = rng.normal(0, 1, n)

    def statistic(share: float = 1.0) -> Float[np.ndarray, "K N"]:
        return np.asarray(difficulty + share * leak * trained + rng.normal(0, NOISE, (k, n)))

    last = statistic()
    logits = with_statistic(last, labels, classes, rng)
    rounds = [with_statistic(statistic(r / ROUNDS), labels, classes, rng) for r in range(1, ROUNDS)] + [logits]
    queries = [logits] + [with_statistic(statistic(), labels, classes, rng) for _ in range(QUERIES - 1)]
    extras = {
        "sensitivity": np.exp(-last / 4)[..., None] * rng.uniform(0.5, 1.5, (k, n, classes)),
        "queries": np.stack(queries, axis=2),
        "robustness": rng.binomial(ROBUSTNESS_COPIES, norm.cdf(last / 2)) / ROBUSTNESS_COPIES,
        "repeated": with_statistic(last, labels, classes, rng),
        "trajectory": np.stack(rounds, axis=2),
        "dense": with_statistic(statistic(0.5), labels, classes, rng),
    }
    unpruned = logit_confidence(extras["dense"], labels)
    releases = [unpruned, *(logit_confidence(one, labels) for one in rounds)]
    extras["releases"] = np.stack(releases, axis=2)
    kept = rng.random((k, OUTPUTS, n)) < norm.cdf(leak * (trained - 0.5))[:, None]
    return Signals(
        logits, labels, roles, np.arange(n), layout, ("same",) * k,
        {name: array.astype(np.float32) for name, array in extras.items()}, {"layer": kept},
    )  # fmt: skip


def with_statistic(
    statistic: Float[np.ndarray, "K N"], labels: Int64[np.ndarray, " N"], classes: int, rng: np.random.Generator
) -> Float32[np.ndarray, "K N C"]:
    """Logits whose true-class probability has the given logit; those of the other classes are
    random.
    """
    logits = rng.normal(0, 1, (*statistic.shape, classes))
    np.put_along_axis(logits, np.broadcast_to(labels[:, None], (*statistic.shape, 1)), -np.inf, axis=-1)
    true = statistic + logsumexp(logits, axis=-1)
    np.put_along_axis(logits, np.broadcast_to(labels[:, None], (*statistic.shape, 1)), true[..., None], axis=-1)
    return logits.astype(np.float32)


def _labels(records: int, classes: int) -> Int64[np.ndarray, " N"]:
    return np.arange(records, dtype=np.int64) % classes
