"""Reference models: the models trained with a record and without it that a target is compared with.

Settings of attacks by reference models are chosen here too: each candidate attacks the other models
in the target's place, with models other than the target, and the one with the highest mean AUC is
taken. The target has no say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from wemem.attacks.base import CALIBRATION_MODELS, Attack, Scores
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.metrics.rates import auc
from wemem.signals import Signals

Trained = Bool[np.ndarray, "K N"]
Rows = Int64[np.ndarray, " n"]
AnAttack = TypeVar("AnAttack", bound=Attack)
Evidence = TypeVar("Evidence")

#: Settings are chosen on at most this many rows of each other model.
TUNING_ROWS = 10_000


def references(
    signals: Signals, target: int, rows: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " k"], Bool[np.ndarray, "k n"]]:
    """The target's reference models, and the rows that each was trained on (a record for early
    stopping is out).

    They are all models but the target; of an ensemble of complementary halves only whole pairs.
    When models of such an ensemble are attacked leave-one-out, the target's partner is left single,
    and with it a record is in one reference model fewer exactly if the target was trained on it:
    the *count* gives the truth away, and an estimate over fewer models fits worse. So the single
    one is left out, as in the code of Zarifzadeh et al. It is recognized by the partner that it
    lacks, not by the target's roles.

    Raises:
        InputError: no reference model.
    """
    others = np.delete(np.arange(signals.num_models), target)
    trained = signals.roles[np.ix_(others, rows)] == Role.TRAIN
    keep = whole_pairs(trained)
    if not keep.any():
        raise InputError(
            f"expected reference models besides the target, model {target}, got none; bring models trained on random "
            "halves of the audited records, 16 for a start"
        )
    return others[keep], trained[keep]


def whole_pairs(trained: Trained) -> Bool[np.ndarray, " K"]:
    """Mark the models with a partner trained on exactly the records they were not; all, if there is
    no such pair.

    >>> whole_pairs(np.array([[True, True, False], [False, False, True], [True, False, True]])).tolist()
    [True, True, False]
    >>> whole_pairs(np.array([[True, True, False], [True, False, True]])).tolist()
    [True, True]
    """
    halves = {row.tobytes() for row in np.packbits(trained, axis=1)}
    paired = np.array([row.tobytes() in halves for row in np.packbits(~trained, axis=1)], dtype=bool)
    return paired if paired.any() else np.ones(len(trained), dtype=bool)


def require_models(trained: Bool[np.ndarray, "K N"], *sides: bool, fewest: int = 1) -> None:
    """Refuse records with too few reference models to compare the target with.

    Args:
        trained: the records that each model was trained on.
        sides: True if there must be models trained with each record; False, without it.
        fewest: the least number of them.

    Raises:
        InputError: fewer on a side.
    """
    inside = trained.sum(axis=0)
    for side in sides:
        count = inside if side else len(trained) - inside
        few = count < fewest
        if few.any():
            raise InputError(
                f"expected at least {fewest} reference model(s) trained {'with' if side else 'without'} each audited "
                f"record, got {int(count[few][0])} for number {int(few.argmax())} of {len(count)} and {int(few.sum())} "
                "such record(s); bring more reference models, or leave those records out (role 0)"
                + (", or take one variance for all records" if fewest > 1 else "")
            )


@dataclass(frozen=True, eq=False)
class Attacked:
    """A model that the others of some signals attack.

    Args:
        signals: the outputs of all models.
        target: the attacked model.
        rows: some of its audited rows.
    """

    signals: Signals
    target: int
    rows: Rows

    @classmethod
    def on_all_rows(cls, signals: Signals, target: int) -> Self:
        """The target on all of its audited rows."""
        return cls(signals, target, signals.audited(target))

    @cached_property
    def references(self) -> tuple[Int64[np.ndarray, " k"], Trained]:
        """The :func:`references` of the target, computed once for all settings of an attack."""
        return references(self.signals, self.target, self.rows)

    @property
    def member(self) -> Bool[np.ndarray, " n"]:
        """The truth of the rows, which an attack reads of models other than its target alone."""
        return np.asarray(self.signals.roles[self.target, self.rows] == Role.TRAIN)


def trials(signals: Signals, target: int) -> list[Attacked]:
    """The other models on which settings are chosen, at most
    :data:`~wemem.attacks.base.CALIBRATION_MODELS`.

    A model with members or non-members only has no AUC and is left out.
    """
    parties = signals.without(target)
    others = []
    for k in range(min(parties.num_models, CALIBRATION_MODELS)):
        rows = parties.audited(k)
        some = slice(None, None, max(1, -(-len(rows) // TUNING_ROWS)))
        other = Attacked(parties, k, rows[some])
        if other.member.any() and not other.member.all():
            others.append(other)
    return others


def best_on_others(
    candidates: Sequence[AnAttack],
    score: Callable[[AnAttack, Evidence], Scores],
    evidence: Sequence[tuple[Evidence, Bool[np.ndarray, " n"]]],
) -> AnAttack:
    """The candidate with the highest mean AUC of attacks whose truth is known; the first of equals.

    Args:
        candidates: attacks that differ in their settings, those to prefer first.
        score: scores that a candidate gives for some evidence.
        evidence: what is known of each other model's records, and which are members; without any,
            the first candidate is taken.
    """

    def mean_auc(attack: AnAttack) -> float:
        scores = [(score(attack, known), member) for known, member in evidence]
        return float(np.mean([auc(values[member], values[~member]) for values, member in scores]))

    return max(candidates, key=mean_auc) if evidence and len(candidates) > 1 else candidates[0]
