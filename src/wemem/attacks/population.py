"""Attack-P: the target's confidence in a record beside its confidence in records that it has
certainly not seen.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from wemem.attacks.base import Attack, Scores
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.signals import Signals


def foreign_rows(signals: Signals, target: int) -> Int64[np.ndarray, " p"]:
    """Rows that have no role for the target. For the victim these are the adversary's own records.

    That the victim's records are others than the adversary's is given (the layout ``disjoint``);
    which of its own the victim was trained on is not read. For a shadow attacked in its place, the
    victim's records are foreign.

    Raises:
        InputError: there is none.
    """
    rows = np.flatnonzero(signals.roles[target] == Role.UNUSED)
    if len(rows) == 0:
        raise InputError(
            f"expected records that model {target} uses in no role, got none; bring some of the adversary's own"
        )
    return rows


@dataclass(frozen=True)
class AttackP(Attack):
    """Share of the population in whose true class the target has less confidence than in the
    record's, one threshold.

    Ye et al., "Enhanced membership inference attacks against machine learning models", CCS 2022.
    The share is one minus the p-value of "the record is one of the population". Its order is that
    of the confidence attack; its scale, unlike that one's, is the same for every model. The
    population is :func:`foreign_rows`.
    """

    name = "attack_p"
    layout = "disjoint"

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        confidence = signals.logit_confidence[target]
        population = np.sort(confidence[foreign_rows(signals, target)])
        below = np.searchsorted(population, confidence[signals.audited(target)], side="left")
        return np.asarray(below / len(population))
