"""The contract of an attack: ``score(signals, target)``, higher = member.

An attack sees :class:`~wemem.signals.Signals` and nothing else. Of the target's roles it reads only
which rows are audited. Adaptivity belongs to the study: an attack is adaptive if the signals' other
models were made as the target.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression

from wemem.errors import InputError
from wemem.metrics.rates import best_threshold
from wemem.signals import SignalLayout, Signals

Scores = Float[np.ndarray, " n"]

#: Thresholds and settings are chosen on at most this many other models: more would cost K^3 and
#: change nothing.
CALIBRATION_MODELS = 8


@dataclass(frozen=True, eq=False)
class AttackOutput:
    """Scores of the rows ``signals.audited(target)``, in that order, and decisions on them.

    Args:
        score: float64, shape ``(n,)``, higher = member.
        threshold: float64, shape ``(n,)``; ``score >= threshold`` calls the record a member. Chosen
            without the target.
        probability: float64, shape ``(n,)``, the calibrated probability of membership when members
            and non-members are equally likely beforehand; None where the attack gives none.
    """

    score: Scores
    threshold: Scores
    probability: Scores | None = None


@dataclass(frozen=True)
class Attack(ABC):
    """A membership inference attack: a frozen dataclass whose fields are its hyperparameters.

    Class attributes:
        name: key in results.
        layout: ``disjoint`` if it learns from shadows' records, which then must not be the
            target's; ``shared`` if it compares models trained with and without the very record.
            Signals of another layout are refused.
        required_signals: names of :data:`~wemem.signals.EXTRAS` that it reads, and
            :data:`~wemem.signals.MASKS` if it reads the models' sparsity patterns.
        optional_signals: names of those that it reads where they are collected, and does without
            otherwise.
        thresholds: ``global``, one threshold, or ``class``, one per class, chosen on the other
            models to maximize balanced accuracy there; or ``half``, the fixed 0.5 of a score that
            is itself a probability of membership.
        estimates_spread: True if it estimates each record's spread over reference models, so that
            it finds more with many of them.
    """

    name: ClassVar[str]
    layout: ClassVar[SignalLayout]
    required_signals: ClassVar[frozenset[str]] = frozenset()
    optional_signals: ClassVar[frozenset[str]] = frozenset()
    thresholds: ClassVar[Literal["global", "class", "half"]] = "global"
    estimates_spread: ClassVar[bool] = False

    @abstractmethod
    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        """Scores of ``signals.audited(target)``, float64, shape ``(n,)``, higher = member.

        Args:
            signals: outputs of the target and of the adversary's other models.
            target: the model that is attacked.
            seed: for attacks that train something; the others ignore it.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """Hyperparameters by name, as they stand in results."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def predict(self, signals: Signals, target: int = 0, *, seed: int = 0) -> AttackOutput:
        """Score the target's audited rows and decide on them by thresholds chosen on the other
        models.

        Raises:
            InputError: the layout or a needed signal is missing, or there is no other model to
                choose a threshold on.
        """
        self.check(signals, target)
        return self.tune(signals, target)._decide(signals, target, seed=seed)

    def tune(self, signals: Signals, target: int) -> Self:
        """The same attack with every setting that is open chosen on the other models; itself if
        none is open.

        Raises:
            InputError: too few other models to attack one of them with the rest.
        """
        return self

    def _decide(self, signals: Signals, target: int, *, seed: int) -> AttackOutput:
        score = self.score(signals, target, seed=seed)
        if self.thresholds == "half":
            return AttackOutput(score, np.full_like(score, 0.5), score)
        others, member, labels = self._score_others(signals, target, seed)
        threshold = np.full_like(score, best_threshold(others[member], others[~member]))
        if self.thresholds == "class":
            target_labels = signals.labels[signals.audited(target)]
            for label in np.unique(target_labels):
                here = labels == label
                if (here & member).any() and (here & ~member).any():
                    threshold[target_labels == label] = best_threshold(others[here & member], others[here & ~member])
        return AttackOutput(score, threshold, _calibrate(others, member, score))

    def _score_others(
        self, signals: Signals, target: int, seed: int
    ) -> tuple[Scores, Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Scores, truth and labels of attacks on the other models in the target's place, without
        the target.
        """
        parties = signals.without(target)
        targets = range(min(parties.num_models, CALIBRATION_MODELS))
        return (
            np.concatenate([self.score(parties, k, seed=seed) for k in targets]),
            np.concatenate([parties.is_member(k) for k in targets]),
            np.concatenate([parties.labels[parties.audited(k)] for k in targets]),
        )

    def check(self, signals: Signals, target: int) -> None:
        """Refuse signals that this attack cannot honestly use.

        Raises:
            InputError: wrong layout, a missing extra, fewer than two models, or a target among the
                shadows.
        """
        if signals.layout != self.layout:
            raise InputError(
                f"attack {self.name!r} expected {self.layout} signals, got {signals.layout}; "
                + ("it learns from the shadows' records and must not be scored on them" if self.layout == "disjoint"
                   else "it needs reference models trained with and without the audited records")
            )  # fmt: skip
        missing = sorted(self.required_signals - signals.collected)
        if missing:
            raise InputError(
                f"attack {self.name!r} needs the signal {missing[0]!r}; collect it or leave the attack out"
            )
        if signals.num_models < 2:
            raise InputError(f"attack {self.name!r} needs at least one model besides the target, got none")
        if self.layout == "disjoint" and target != 0:
            raise InputError(
                f"attack {self.name!r} expected the victim, model 0, as target, got {target}; shadows share records"
            )


def _calibrate(others: Float[np.ndarray, " o"], member: Bool[np.ndarray, " o"], score: Scores) -> Scores:
    """Platt scaling on the other models' ranks, both sides weighing the same; ranks make any range
    of scores safe.
    """
    reference = np.sort(others)
    ranks = np.searchsorted(reference, others, side="right") / len(reference)
    model = LogisticRegression(class_weight="balanced").fit(ranks[:, None], member)
    rank = np.searchsorted(reference, score, side="right") / len(reference)
    return np.asarray(model.predict_proba(rank[:, None])[:, 1])
