"""All attacks by reference models in one score: an auditor need not know beforehand which of them
is the strongest.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float

from wemem.attacks.base import Attack, Scores
from wemem.attacks.bavaria import Bavaria
from wemem.attacks.combination import combine, learn_weights
from wemem.attacks.lira import Lira, LiraOffline
from wemem.attacks.reference import Attacked, trials
from wemem.attacks.rmia import Rmia
from wemem.attacks.tuned import ReferenceAttack, same_attack
from wemem.errors import InputError
from wemem.signals import Signals

#: The attacks that are combined where none are given.
PARTS: tuple[Attack, ...] = (Lira(), Bavaria(), Rmia(), LiraOffline())


@dataclass(frozen=True)
class Combined(ReferenceAttack):
    """Weighted normal ranks of several attacks' scores.

    The ranks are combined as in :mod:`wemem.attacks.combination`.

    The attacks' own settings and the weights are chosen by attacking the other models in the
    target's place, with models other than the target.

    Args:
        parts: attacks by reference models; those whose signals were not collected are left out.
        weights: one for each part; None learns them.
    """

    parts: tuple[Attack, ...] = PARTS
    weights: tuple[float, ...] | None = None

    name = "combined"
    estimates_spread = True
    optional_signals: ClassVar[frozenset[str]] = frozenset({"queries", "copies"})

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("attack 'combined' expected at least one part, got none; leave parts out for the default")
        for part in self.parts:
            if part.layout != "shared":
                raise InputError(
                    f"attack 'combined' expected attacks by reference models as parts, got {part.name!r}, which works "
                    f"on {part.layout} signals"
                )
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise InputError(
                f"attack 'combined' expected a weight for each of {len(self.parts)} parts, got {len(self.weights)}"
            )

    def score_rows(self, attacked: Attacked, *, seed: int) -> Scores:
        weights = self.weights if self.weights is not None else (1.0,) * len(self.parts)
        return combine(self.inputs(attacked, seed=seed), weights)

    def inputs(self, attacked: Attacked, *, seed: int) -> Float[np.ndarray, "n F"]:
        """Scores of every part."""
        return np.stack([_scores_of(part, attacked, seed) for part in self.parts], axis=1)

    def tune(self, signals: Signals, target: int) -> Self:
        """The same attack with the parts that can run on the signals, their settings and the
        weights chosen.

        Raises:
            InputError: no part can run on the signals, or too few models to attack one of them with
                the rest.
        """
        if self.weights is not None:
            return replace(self, parts=tuple(part.tune(signals, target) for part in self.parts))
        able = [part for part in self.parts if part.required_signals <= signals.collected]
        if not able:
            lacking = sorted(frozenset().union(*(part.required_signals for part in self.parts)) - signals.collected)
            raise InputError(
                f"attack 'combined' expected a part that runs on the signals, got none; collect {', '.join(lacking)}"
            )
        tuned = replace(self, parts=tuple(part.tune(signals, target) for part in able))
        others = trials(signals, target)
        if not others or len(able) == 1:
            return replace(tuned, weights=(1.0,) * len(able))
        every = [Attacked.on_all_rows(signals, one.target, target) for one in others]
        inputs = [tuned.inputs(one, seed=0) for one in every]
        return replace(tuned, weights=learn_weights(inputs, [one.member for one in every]))


def _scores_of(part: Attack, attacked: Attacked, seed: int) -> Scores:
    """Scores of one part, which several targets share."""
    if not isinstance(part, ReferenceAttack):
        return part.score(*attacked.alone, seed=seed)
    key = ("scores", same_attack(part), attacked.target, seed)
    return attacked.once(key, lambda: part.score_rows(attacked, seed=seed))
