"""Attacks that threshold one number of the target's output, no model but the target needed for the
number itself.

The score functions take log-probabilities and labels and are pure. Where a probability is so close
to 1 that float64 rounds it there, ``log p`` and ``1 - p`` are taken from the *other* classes'
probabilities, which are small and therefore exact: an overfitted model gives most of its members
such a probability, and it is their order that decides the true positive rate at low false positive
rates.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import logsumexp

from wemem.attacks.base import Attack, Scores
from wemem.signals import Signals

LogProbabilities = Float[np.ndarray, "n C"]
Labels = Int64[np.ndarray, " n"]


def confidence(log_probabilities: LogProbabilities, labels: Labels) -> Scores:
    """``log p_y``, the log-probability of the true class.

    >>> confidence(np.log([[0.25, 0.75]]), np.array([1]))
    array([-0.28768207])
    """
    return np.asarray(np.take_along_axis(_resolved(log_probabilities), labels[:, None], axis=1)[:, 0])


def entropy(log_probabilities: LogProbabilities) -> Scores:
    """Entropy ``-sum_c p_c log p_c`` in nats.

    >>> entropy(np.log([[0.5, 0.5]]))
    array([0.69314718])
    """
    return np.asarray(-np.sum(np.exp(log_probabilities) * _resolved(log_probabilities), axis=1))


def modified_entropy(log_probabilities: LogProbabilities, labels: Labels) -> Scores:
    """``Mentr = -(1 - p_y) log p_y - sum_{c != y} p_c log(1 - p_c)`` in nats (Song & Mittal 2021,
    equation 8).

    Unlike the entropy it is large when a wrong class is certain.

    >>> modified_entropy(np.log([[0.25, 0.75]]), np.array([1]))  # -2 * 0.25 * log 0.75
    array([0.14384104])
    """
    log_p, log_rest = _resolved(log_probabilities), _log_complement(log_probabilities)
    terms = np.exp(log_p) * log_rest
    true = np.arange(len(labels)), labels
    terms[true] = np.exp(log_rest[true]) * log_p[true]
    return np.asarray(-np.sum(terms, axis=1))


def top_confidence(log_probabilities: LogProbabilities) -> Scores:
    """``log max_c p_c``, the log-probability of the predicted class.

    >>> top_confidence(np.log([[0.25, 0.75]]))
    array([-0.28768207])
    """
    return np.asarray(_resolved(log_probabilities).max(axis=1))


def correctness(log_probabilities: LogProbabilities, labels: Labels) -> Scores:
    """1 where the true class is the most probable one (the first of equals), else 0.

    >>> correctness(np.log([[0.25, 0.75], [0.25, 0.75]]), np.array([1, 0]))
    array([1., 0.])
    """
    return np.asarray(log_probabilities.argmax(axis=1) == labels, dtype=np.float64)


def _log_complement(log_probabilities: LogProbabilities) -> LogProbabilities:
    """``log(1 - p_c)``: by ``log1p`` where ``p_c <= 1/2``, else by the sum of the other classes."""
    log_rest: LogProbabilities = np.log1p(-np.minimum(np.exp(log_probabilities), 0.5))
    rows, top = np.flatnonzero(log_probabilities.max(axis=1) > -np.log(2.0)), log_probabilities.argmax(axis=1)
    others = log_probabilities[rows].copy()
    others[np.arange(len(rows)), top[rows]] = -np.inf
    log_rest[rows, top[rows]] = logsumexp(others, axis=1)
    return log_rest


def _resolved(log_probabilities: LogProbabilities) -> LogProbabilities:
    """The same, with ``log p_c = log1p(-sum of the others)`` where ``p_c > 1/2``, so that it does
    not round to 0.
    """
    others = np.exp(np.minimum(_log_complement(log_probabilities), -np.log(2.0)))
    return np.where(log_probabilities > -np.log(2.0), np.log1p(-others), log_probabilities)


@dataclass(frozen=True)
class OutputAttack(Attack):
    """An attack that scores a record by one number of the target's output for it."""

    layout = "disjoint"

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        rows = signals.audited(target)
        return self.number(signals.log_probabilities(target, rows), signals.labels[rows])

    @abstractmethod
    def number(self, log_probabilities: LogProbabilities, labels: Labels) -> Scores:
        """The score of each record, higher = member."""


@dataclass(frozen=True)
class Confidence(OutputAttack):
    """``log p_y``, one threshold per class: members are predicted with more confidence.

    Yeom et al., "Privacy risk in machine learning", CSF 2018 (a threshold on the loss, which is
    ``-log p_y``); per class, Song & Mittal, "Systematic evaluation of privacy risks of machine
    learning models", USENIX Security 2021.
    """

    name = "confidence"
    thresholds = "class"

    def number(self, log_probabilities: LogProbabilities, labels: Labels) -> Scores:
        return confidence(log_probabilities, labels)


@dataclass(frozen=True)
class Entropy(OutputAttack):
    """Negative entropy, one threshold per class: members are predicted with less doubt.

    Shokri et al., "Membership inference attacks against machine learning models", S&P 2017;
    thresholds per class, Song & Mittal, USENIX Security 2021.
    """

    name = "entropy"
    thresholds = "class"

    def number(self, log_probabilities: LogProbabilities, labels: Labels) -> Scores:
        return -entropy(log_probabilities)


@dataclass(frozen=True)
class ModifiedEntropy(OutputAttack):
    """Negative modified entropy, one threshold per class: members are predicted correctly
    and with less doubt.

    Song & Mittal, "Systematic evaluation of privacy risks of machine learning models", USENIX
    Security 2021.
    """

    name = "modified_entropy"
    thresholds = "class"

    def number(self, log_probabilities: LogProbabilities, labels: Labels) -> Scores:
        return -modified_entropy(log_probabilities, labels)


@dataclass(frozen=True)
class TopConfidence(OutputAttack):
    """``log max_c p_c``, one threshold: needs neither the label nor its class.

    Salem et al., "ML-Leaks", NDSS 2019, attack 3.
    """

    name = "top_confidence"

    def number(self, log_probabilities: LogProbabilities, labels: Labels) -> Scores:
        return top_confidence(log_probabilities)


@dataclass(frozen=True)
class Correctness(OutputAttack):
    """A record that is classified rightly is called a member: the gap attack.

    Its balanced accuracy is one half plus half the gap between training and test accuracy. Yeom et
    al., "Privacy risk in machine learning", CSF 2018. The floor that every other attack must beat.
    """

    name = "correctness"

    def number(self, log_probabilities: LogProbabilities, labels: Labels) -> Scores:
        return correctness(log_probabilities, labels)
