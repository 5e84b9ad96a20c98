"""Reference models: the models trained with a record and without it that a target is compared with.

Several targets have reference models in common: of an ensemble of complementary halves, those of
two models of one pair are the same. So what depends on the reference models and the records alone
is computed once for all targets, and kept with the signals.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int64

from wemem.attacks.base import CALIBRATION_MODELS
from wemem.attacks.moments import Moments, overall_spread, side_moments
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.signals import Signals

Trained = Bool[np.ndarray, "K N"]
Rows = Int64[np.ndarray, " n"]
Statistic = Float[np.ndarray, "K N"]
T = TypeVar("T")

#: Settings are chosen on at most this many rows of each other model.
TUNING_ROWS = 10_000


def references(
    signals: Signals, target: int, rows: Int64[np.ndarray, " n"], left_out: int | None = None
) -> Int64[np.ndarray, " k"]:
    """The target's reference models.

    They are all models but the target; of an ensemble of complementary halves only whole pairs.
    When models of such an ensemble are attacked leave-one-out, the target's partner is left single,
    and with it a record is in one reference model fewer exactly if the target was trained on it:
    the *count* gives the truth away, and an estimate over fewer models fits worse. So the single
    one is left out, as in the code of Zarifzadeh et al. It is recognized by the partner that it
    lacks, not by the target's roles.

    Args:
        signals: the outputs of all models.
        target: the attacked model.
        rows: some of its audited rows.
        left_out: a model that is no reference model either; None for none.

    Raises:
        InputError: no reference model.
    """
    others = np.array([k for k in range(signals.num_models) if k not in (target, left_out)], dtype=np.int64)
    keep = whole_pairs(trained_on(signals, others, rows))
    if not keep.any():
        raise InputError(
            f"expected reference models besides the target, model {target}, got none; bring models trained on random "
            "halves of the audited records, 16 for a start"
        )
    return np.asarray(others[keep])


def trained_on(
    signals: Signals, models: Int64[np.ndarray, " k"], rows: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, "k n"]:
    """The rows that each of some models was trained on; a record for early stopping is not."""
    return np.asarray(signals.roles[np.ix_(models, rows)] == Role.TRAIN)


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
        left_out: a model that is not used, because the attack on it is prepared on the others; None
            for none.
    """

    signals: Signals
    target: int
    rows: Rows
    left_out: int | None = None

    @classmethod
    def on_all_rows(cls, signals: Signals, target: int, left_out: int | None = None) -> Self:
        """The target on all of its audited rows."""
        return cls(signals, target, signals.audited(target), left_out)

    @property
    def member(self) -> Bool[np.ndarray, " n"]:
        """The truth of the rows, which an attack reads of models other than its target alone."""
        return np.asarray(self.signals.roles[self.target, self.rows] == Role.TRAIN)

    @cached_property
    def others(self) -> Int64[np.ndarray, " k"]:
        """The :func:`references` of the target."""
        return self._small(
            ("references", self.target, self.left_out, self._place(self.rows)),
            lambda: references(self.signals, self.target, self.rows, self.left_out),
        )

    @cached_property
    def trained(self) -> Trained:
        """The rows that each reference model was trained on."""
        return trained_on(self.signals, self.others, self.rows)

    @cached_property
    def population(self) -> Rows:
        """Rows that no model uses in any role, but perhaps the one that is left out."""
        used = (k for k in range(self.signals.num_models) if k != self.left_out)
        return self._small(
            ("population", self.left_out),
            lambda: np.flatnonzero((self.signals.roles[list(used)] == Role.UNUSED).all(axis=0)),
        )

    @property
    def alone(self) -> tuple[Signals, int]:
        """Signals without the model that is left out, and the place of the target among them."""
        if self.left_out is None:
            return self.signals, self.target
        return self.signals.without(self.left_out), self.target - (self.target > self.left_out)

    @cached_property
    def compared(self) -> Hashable:
        """A key of the reference models and the rows."""
        return self.others.tobytes(), self._place(self.rows)

    def once(self, name: Hashable, compute: Callable[[], T]) -> T:
        """A value that depends on the reference models and the rows, computed once.

        Args:
            name: of the value, the same for all targets.
            compute: computes it.
        """
        return self.signals.recent.get((name, self.compared), compute)

    def over_population(self, name: Hashable, compute: Callable[[], T]) -> T:
        """The same of a value that depends on the reference models and the population."""
        return self.signals.recent.get((name, self.others.tobytes(), self._place(self.population)), compute)

    def figure(self, name: Hashable, compute: Callable[[], float]) -> float:
        """A number that depends on the target, its reference models and the rows, computed once."""
        return self._small((name, self.target, self.compared), compute)

    def require(self, *sides: bool, fewest: int = 1) -> None:
        """:func:`require_models` of the reference models of the rows."""
        if any(self.fewest(side) < fewest for side in sides):
            require_models(self.trained, *sides, fewest=fewest)

    def fewest(self, *sides: bool) -> int:
        """The fewest reference models that a row has on one of some sides; their number, without
        rows.
        """
        most = len(self.others)

        def count(side: bool) -> int:
            return int((self.trained == side).sum(axis=0).min(initial=most))

        return min(self._small(("fewest", side, self.compared), partial(count, side)) for side in sides)

    def moments(self, name: str, values: Statistic, side: bool) -> Moments:
        """The moments of a statistic over the reference models trained with each row, or without.

        Args:
            name: of the statistic.
            values: the statistic of every model and record.
            side: True for the models trained with a row.
        """
        return self.once(("moments", name, side), lambda: side_moments(*self._of_references(values, side)))

    def spread(self, name: str, values: Statistic, side: bool) -> float:
        """The :func:`~wemem.attacks.moments.overall_spread` of one side; arguments as of
        :meth:`moments`.
        """
        return self._small(
            ("spread", name, side, self.compared), lambda: overall_spread(*self._of_references(values, side))
        )

    def _of_references(self, values: Statistic, side: bool) -> tuple[Float[np.ndarray, "k n"], Bool[np.ndarray, "k n"]]:
        """The reference models' values of the rows, and which of them count."""
        return values[np.ix_(self.others, self.rows)], self.trained if side else ~self.trained

    def _place(self, rows: Rows) -> int:
        """A number for some rows, so that no key holds them all."""
        return self._small(rows.tobytes(), lambda: len(self.signals.figures))

    def _small(self, key: Hashable, compute: Callable[[], T]) -> T:
        known = self.signals.figures
        if key not in known:
            known[key] = compute()
        value: T = known[key]
        return value


def trials(signals: Signals, target: int) -> list[Attacked]:
    """The other models on which settings are chosen, at most
    :data:`~wemem.attacks.base.CALIBRATION_MODELS`.

    A model with members or non-members only has no AUC and is left out.
    """
    others = []
    for other in first_others(signals, target):
        some = slice(None, None, max(1, -(-len(other.rows) // TUNING_ROWS)))
        fewer = Attacked(signals, other.target, other.rows[some], target)
        if fewer.member.any() and not fewer.member.all():
            others.append(fewer)
    return others


def first_others(signals: Signals, target: int) -> list[Attacked]:
    """The first :data:`~wemem.attacks.base.CALIBRATION_MODELS` models but the target, attacked
    without it.
    """
    others = [k for k in range(signals.num_models) if k != target][:CALIBRATION_MODELS]
    return [Attacked.on_all_rows(signals, k, target) for k in others]
