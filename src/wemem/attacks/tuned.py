"""Attacks by reference models, whose settings are chosen by attacking other models.

Each candidate attacks the other models in the target's place, with models other than the target,
and the one with the highest mean AUC is taken. The target has no say.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from wemem.attacks.base import Attack, Scores
from wemem.attacks.reference import Attacked, first_others
from wemem.metrics.rates import auc
from wemem.signals import Signals

AnAttack = TypeVar("AnAttack", bound="EvidenceAttack")


@dataclass(frozen=True)
class ReferenceAttack(Attack):
    """An attack that compares the target with reference models."""

    layout = "shared"

    @abstractmethod
    def score_rows(self, attacked: Attacked, *, seed: int) -> Scores:
        """Scores of some rows of a target; no setting may be open."""

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        return self.tune(signals, target).score_rows(Attacked.on_all_rows(signals, target), seed=seed)

    def _score_others(
        self, signals: Signals, target: int, seed: int
    ) -> tuple[Scores, Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        others = first_others(signals, target)
        return (
            np.concatenate([self.score_rows(one, seed=seed) for one in others]),
            np.concatenate([one.member for one in others]),
            np.concatenate([signals.labels[one.rows] for one in others]),
        )


@dataclass(frozen=True)
class EvidenceAttack(ReferenceAttack):
    """An attack that sums up what reference models make of the rows before it compares the target
    with them.
    """

    @property
    @abstractmethod
    def form(self) -> Hashable:
        """The settings that the evidence depends on."""

    @abstractmethod
    def collect(self, attacked: Attacked) -> Any:
        """Sum up what reference models make of the rows.

        Raises:
            InputError: a record with too few reference models on a side.
        """

    @abstractmethod
    def compare(self, evidence: Any) -> Scores:
        """Scores of the rows by the evidence; no setting may be open."""

    def score_rows(self, attacked: Attacked, *, seed: int) -> Scores:
        return self.compare(self.collect(attacked))


def same_attack(attack: Attack) -> Hashable:
    """A key that equal attacks share, also those with settings that cannot be hashed."""
    return type(attack), repr(attack)


def best_on_others(
    candidates: Sequence[AnAttack],
    others: Sequence[Attacked],
    compare: Callable[[AnAttack, Any], Scores] = lambda attack, evidence: attack.compare(evidence),
    measure: str = "score",
) -> AnAttack:
    """The candidate with the highest mean AUC of attacks whose truth is known; the first of equals.

    Args:
        candidates: attacks that differ in their settings, those to prefer first.
        others: the other models; without any, the first candidate is taken.
        compare: the scores that a candidate gives for the evidence that it has collected.
        measure: a name of these scores.
    """
    if not others or len(candidates) == 1:
        return candidates[0]
    areas = [_areas(candidates, one, compare, measure) for one in others]
    means = [float(np.mean(of_candidate)) for of_candidate in zip(*areas, strict=True)]
    return candidates[means.index(max(means))]


def _areas(
    candidates: Sequence[AnAttack], other: Attacked, compare: Callable[[AnAttack, Any], Scores], measure: str
) -> list[float]:
    """The AUC of each candidate's attack on one model; candidates of one form share the evidence."""
    collected: tuple[Hashable, Any] | None = None

    def area(attack: AnAttack) -> float:
        nonlocal collected
        if collected is None or collected[0] != attack.form:
            collected = attack.form, attack.collect(other)
        values, member = compare(attack, collected[1]), other.member
        return auc(values[member], values[~member])

    return [other.figure((measure, same_attack(attack)), partial(area, attack)) for attack in candidates]
