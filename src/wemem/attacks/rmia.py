"""RMIA: how much more the target favours a record than it favours records of the population.

Zarifzadeh, Liu & Shokri, "Low-cost high-power membership inference attacks", ICML 2024. With
``p(x)`` the target's probability of x's true class and ``prior(x)`` the probability that a model is
expected to give it,

``ratio(x) = p(x) / prior(x)``,  ``score(x) = share of z in the population with ratio(x) / ratio(z) >= gamma``.

Online, the prior is the mean of two means: over models trained with x, and over models trained
without it. Offline only the latter is known, and models trained with x are taken to give it ``a
mean_out + (1 - a)``.

Probabilities are softmax outputs at a temperature: of overfitted models most are close to 1, and a
temperature above 1, as in the authors' experiments, spreads them.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from wemem.attacks.base import Scores
from wemem.attacks.copies import ChosenCopies, copies_to_try
from wemem.attacks.reference import Attacked, trials
from wemem.attacks.tuned import EvidenceAttack, best_on_others
from wemem.errors import InputError
from wemem.settings import ADDED
from wemem.signals import Copies, Signals

PerRecord = Float[np.ndarray, " N"]
Probabilities = Float[np.ndarray, "K N"]

#: Records taken at a time: the working copies of 64 models' values then fit the cache.
BLOCK = 2048
#: Values tried where none is given: the authors' grid for a; for gamma from the weakest claim up.
OFFLINE_A = tuple(i / 10 for i in range(11))
GAMMA = (1.0, 1.25, 1.5, 2.0, 3.0)
TEMPERATURE = (1.0, 0.5, 2.0, 4.0)
#: A smaller prior is taken for this, so that nothing is divided by zero.
SMALLEST_PRIOR = 1e-300


def chosen_mean(probabilities: Probabilities, chosen: Bool[np.ndarray, "K N"]) -> PerRecord:
    """Mean over the chosen models, of which every record has at least one.

    >>> chosen_mean(np.array([[0.75], [0.25], [0.5]]), np.array([[True], [True], [False]]))
    array([0.5])
    """
    mean = np.empty(chosen.shape[1])
    for start in range(0, len(mean), BLOCK):
        here = slice(start, start + BLOCK)
        weight = chosen[:, here].astype(np.float64)  # a product is many times faster than a choice by a mask
        mean[here] = np.einsum("kn,kn->n", probabilities[:, here], weight) / weight.sum(axis=0)
    return mean


def offline_prior(mean_out: PerRecord, a: float) -> PerRecord:
    """Estimate the prior without models trained with the record: ``(mean_out + (a mean_out + 1 - a)) / 2``.

    >>> offline_prior(np.array([0.2]), a=0.5)
    array([0.4])
    """
    return np.asarray((1 + a) / 2 * mean_out + (1 - a) / 2)


def dominated(ratios: PerRecord, population: Float[np.ndarray, " P"], gamma: float) -> PerRecord:
    """Share of the population with ``ratio(x) / ratio(z) >= gamma``, in O((N + P) log P).

    Args:
        ratios: ratios of the records, shape ``(N,)``.
        population: ratios of records in no model, shape ``(P,)``.
        gamma: above 0; the paper has 1 and more.

    4 is at least twice 1 and 2; 3 only twice 1:

    >>> dominated(np.array([4.0, 3.0]), np.array([1.0, 2.0, 5.0, 6.0]), 2.0)
    array([0.5 , 0.25])
    """
    return np.searchsorted(np.sort(population), ratios / gamma, side="right") / len(population)


def dominated_others(ratios: PerRecord, gamma: float) -> PerRecord:
    """The same without a population: each record against all the others.

    >>> dominated_others(np.array([4.0, 2.0, 1.0]), 2.0)
    array([1. , 0.5, 0. ])
    """
    itself = ratios / gamma >= ratios
    return (np.searchsorted(np.sort(ratios), ratios / gamma, side="right") - itself) / max(1, len(ratios) - 1)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Probabilities of some records' true class.

    Args:
        probability: the target's, shape ``(n,)``.
        means: of the reference models' probabilities: ``(mean_in, mean_out)``, or ``(mean_out,)``
            alone.
    """

    probability: PerRecord
    means: tuple[PerRecord, ...]


def _probability(confidence: Float[np.ndarray, "*A"]) -> Float[np.ndarray, "*A"]:
    """The probability of the true class by its logit."""
    return np.asarray(expit(confidence))


#: Evidence of the audited rows, and of the population if there is one.
Collected = tuple[Evidence, Evidence | None]


@dataclass(frozen=True)
class PopulationRatio(EvidenceAttack):
    """Base of both forms of RMIA.

    The population is every row that no model uses in any role. All models are out-models there, and
    ``mean_out`` is over all of them. (The authors' code takes those with the highest half of the
    probabilities: it sorts in-models away as zeros, which a population record has not.) Where there
    is no such row, the other audited rows stand in, each with a prior like x's own.

    A score never falls when ``ratio(x)`` rises: the population makes scores of different targets
    comparable, and gamma decides which records are tied.

    Args:
        gamma: how many times more the target must favour a record; None chooses among
            :data:`GAMMA`, by the mean AUC of attacks on the other models.
        temperature: the softmax temperature; None chooses among :data:`TEMPERATURE`, by the mean
            AUC of the ratio in attacks on the other models.
        copies: which copies of a record of a table count besides it
            (:mod:`wemem.attacks.copies`). With copies the temperature is 1, at which they are
            queried, and the probability is that of the mean logit confidence.
    """

    gamma: float | None = None
    temperature: float | None = None
    copies: ChosenCopies = field(default="auto", metadata=ADDED)

    optional_signals = frozenset({"copies"})
    #: The sides that the prior is made of, True for the models trained with a record.
    sides: ClassVar[tuple[bool, ...]]

    def __post_init__(self) -> None:
        if self.gamma is not None and not self.gamma > 0:
            raise InputError(f"attack {self.name!r} expected gamma above 0, got {self.gamma}; the paper has 1 to 2")
        if self.temperature is not None and not 0 < self.temperature < np.inf:
            raise InputError(
                f"attack {self.name!r} expected a temperature above 0, got {self.temperature}; leave it out to have it "
                "chosen"
            )
        if self.copies not in ("auto", "none") and self.temperature not in (None, 1):
            raise InputError(
                f"attack {self.name!r} expected the temperature 1 with copies, got {self.temperature}; leave one out"
            )

    @property
    def form(self) -> tuple[float | None, ChosenCopies]:
        return self.temperature, self.copies

    def confidence(self, signals: Signals) -> Float[np.ndarray, "K N"]:
        """Logit confidence of every model and record, at the attack's temperature or with its
        copies.
        """
        copies: Copies = "none" if self.copies == "auto" else self.copies
        if copies == "none":
            return signals.confidence_at(self.temperature or 1.0)
        return signals.confidence_with(copies)

    def collect(self, attacked: Attacked) -> Collected:
        """Evidence of the rows, and of the population if there is one."""
        confidence, target, rows = self.confidence(attacked.signals), attacked.target, attacked.rows
        attacked.require(*self.sides)
        means = tuple(self._mean_of(attacked, confidence, side) for side in self.sides)
        evidence = Evidence(_probability(confidence[target, rows]), means)
        population = attacked.population
        if len(population) == 0:
            return evidence, None
        everywhere = attacked.over_population(
            ("mean probability", self.form),
            lambda: _probability(confidence[np.ix_(attacked.others, population)]).mean(axis=0),
        )
        return evidence, Evidence(_probability(confidence[target, population]), (everywhere,))

    def _mean_of(self, attacked: Attacked, confidence: Float[np.ndarray, "K N"], side: bool) -> Float[np.ndarray, " n"]:
        """Mean probability of the reference models trained with each row, or without."""

        def mean() -> Float[np.ndarray, " n"]:
            trained = attacked.trained
            probability = _probability(confidence[np.ix_(attacked.others, attacked.rows)])
            return chosen_mean(probability, trained if side else ~trained)

        return attacked.once(("mean probability", self.form, side), mean)

    def ratio(self, evidence: Evidence) -> PerRecord:
        """``p(x) / prior(x)``."""
        return np.asarray(evidence.probability / np.maximum(self.prior(evidence.means), SMALLEST_PRIOR))

    def compare(self, evidence: Collected) -> Scores:
        """Share of the population that each record dominates."""
        records, population = evidence
        gamma = 1.0 if self.gamma is None else self.gamma
        if population is None:
            return dominated_others(self.ratio(records), gamma)
        return dominated(self.ratio(records), self.ratio(population), gamma)

    def tune(self, signals: Signals, target: int) -> Self:
        """The same attack, with what is None chosen by attacking the other models in the target's
        place.

        The ratio's own settings are chosen by the order of the ratios, gamma by that of the scores.

        Raises:
            InputError: too few reference models to attack one of them with the others.
        """
        candidates = self.ratio_candidates(signals)
        if len(candidates) == 1 and self.gamma is not None:
            return candidates[0]
        others = trials(signals, target)
        attack = best_on_others(candidates, others, lambda tried, evidence: tried.ratio(evidence[0]), "ratio")
        gammas = [replace(attack, gamma=gamma) for gamma in (GAMMA if self.gamma is None else (self.gamma,))]
        return best_on_others(gammas, others)

    def ratio_candidates(self, signals: Signals) -> list[Self]:
        """The attack with every choice of the settings of its ratio that are open."""
        temperatures = TEMPERATURE if self.temperature is None else (self.temperature,)
        choices = copies_to_try(signals, self.copies)
        plain = [replace(self, temperature=temperature, copies="none") for temperature in temperatures]
        more = [replace(self, temperature=1.0, copies=copies) for copies in choices if copies != "none"]
        return [*(plain if "none" in choices else []), *(more if 1.0 in temperatures else [])] or plain

    @abstractmethod
    def prior(self, means: tuple[PerRecord, ...]) -> PerRecord:
        """The probability that a model is expected to give the record's true class."""


@dataclass(frozen=True)
class Rmia(PopulationRatio):
    """Share of population records whose likelihood ratio the record exceeds.

    Online: ``prior = (mean_in + mean_out) / 2``, each side weighing the same however many models
    it has.

    Zarifzadeh, Liu & Shokri, ICML 2024.
    """

    name = "rmia"
    sides: ClassVar[tuple[bool, ...]] = (True, False)

    def prior(self, means: tuple[PerRecord, ...]) -> PerRecord:
        return np.asarray(np.mean(means, axis=0))


@dataclass(frozen=True)
class RmiaOffline(PopulationRatio):
    """RMIA without models trained with the record.

    Offline: ``prior = (mean_out + (a mean_out + 1 - a)) / 2``.

    Zarifzadeh, Liu & Shokri, ICML 2024.

    Args:
        gamma: as in :class:`Rmia`.
        temperature: as in :class:`Rmia`.
        copies: as in :class:`Rmia`.
        a: in [0, 1]: 1 takes models trained with a record to be no surer of it, 0 to be certain.
            None chooses among 0, 0.1, ..., 1, by the mean AUC of attacks on the other models.
    """

    a: float | None = None

    name = "rmia_offline"
    sides: ClassVar[tuple[bool, ...]] = (False,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.a is not None and not 0 <= self.a <= 1:
            raise InputError(
                f"attack {self.name!r} expected a between 0 and 1, got {self.a}; leave it out to have it chosen"
            )

    def ratio_candidates(self, signals: Signals) -> list[Self]:
        values = OFFLINE_A if self.a is None else (self.a,)
        return [replace(attack, a=a) for attack, a in product(super().ratio_candidates(signals), values)]

    def prior(self, means: tuple[PerRecord, ...]) -> PerRecord:
        return offline_prior(means[0], OFFLINE_A[-1] if self.a is None else self.a)
