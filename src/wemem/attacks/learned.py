"""Attacks that learn from shadows, whose truth is known, how to weigh several numbers of a model's
outputs.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int64

from wemem.attacks.base import Attack, Scores
from wemem.attacks.combination import combine, learn_weights
from wemem.errors import InputError
from wemem.signals import Signals

Rows = Int64[np.ndarray, " n"]


def shadow_rows(signals: Signals, target: int) -> Iterator[tuple[int, Rows, Bool[np.ndarray, " n"]]]:
    """The rows that an attack may learn from: ``(model, rows, is_member)`` of every model but the
    target, in order.

    Raises:
        InputError: an audited row of a shadow that is an audited row of the target too.
    """
    audited = signals.audited(target)
    for model in range(signals.num_models):
        if model == target:
            continue
        rows = signals.audited(model)
        shared = np.intersect1d(rows, audited, assume_unique=True)
        if len(shared):
            raise InputError(
                f"expected shadow {model} to share no audited record with model {target}, got {len(shared)} shared, "
                f"first {int(signals.records[shared[0]])}; an attack must not be scored on what it has learned from"
            )
        yield model, rows, signals.is_member(model)


@dataclass(frozen=True)
class LearnedAttack(Attack):
    """Weighted normal ranks of a few numbers of a model's outputs
    (:mod:`wemem.attacks.combination`).

    On the shadows it is at least as strong as the strongest of its inputs alone. Its thresholds are
    per class, as those of the confidence are, which is one of the inputs.

    Args:
        weights: one for each input; None learns them from the shadows.
    """

    weights: tuple[float, ...] | None = None

    layout = "disjoint"
    thresholds = "class"

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        weights = self.tune(signals, target).weights
        inputs = self.features(signals, target, signals.audited(target))
        if weights is None or len(weights) != inputs.shape[1]:
            raise InputError(
                f"attack {self.name!r} expected a weight for each of {inputs.shape[1]} inputs, got "
                f"{0 if weights is None else len(weights)}; leave weights out to have them learned"
            )
        return combine(inputs, weights)

    def tune(self, signals: Signals, target: int) -> Self:
        """The same attack with its weights learned from the shadows.

        Raises:
            InputError: a shadow without members or without non-members.
        """
        if self.weights is not None:
            return self
        shadows = list(shadow_rows(signals, target))
        for model, _, member in shadows:
            if member.all() or not member.any():
                raise InputError(
                    f"attack {self.name!r} expected members and non-members among the records of every shadow, got "
                    f"{int(member.sum())} members of {len(member)} for shadow {model}; give the shadows records of "
                    "both kinds"
                )
        inputs = [self.features(signals, model, rows) for model, rows, _ in shadows]
        return replace(self, weights=learn_weights(inputs, [member for _, _, member in shadows]))

    @abstractmethod
    def features(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        """The inputs of one model's outputs on some rows, each higher for members."""
