"""Leave-one-out: every model of a reference ensemble attacked by all the others.

Many targets for the price of one ensemble, and with them an interval that covers another training
run too, not only other records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Int64

from wemem.attacks.base import Attack
from wemem.errors import InputError
from wemem.metrics.over_targets import TargetsResult
from wemem.signals import Signals


@dataclass(frozen=True, eq=False)
class TargetRecords:
    """Records of all ``T`` targets of a leave-one-out audit, the victim first.

    Args:
        records: int64, shape ``(N,)``: the indices of the audited records in the data set.
        membership: bool, shape ``(T, N)``.
        correct: bool, shape ``(T, N)``: true where the target predicts the class of the record.
        scores: by attack, the stored arrays of which ``score`` has shape ``(T, N)``. They are read
            on access, since those of all attacks may not fit into memory at once.
    """

    records: Int64[np.ndarray, " N"]
    membership: Bool[np.ndarray, "T N"]
    correct: Bool[np.ndarray, "T N"]
    scores: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of(cls, signals: Signals, scores: Mapping[str, Mapping[str, np.ndarray]]) -> Self:
        """The records of shared signals, beside the scores of attacks on them."""
        rows = signals.audited(0)
        right = signals.logits[:, rows].argmax(axis=-1) == signals.labels[rows]
        membership = np.stack([signals.is_member(k) for k in range(signals.num_models)])
        return cls(signals.records[rows], membership, right, scores)


def leave_one_out(signals: Signals, attacks: Mapping[str, Attack], *, seed: int) -> dict[str, TargetsResult]:
    """Attack every model with each attack that works on shared signals.

    Args:
        signals: signals of layout ``shared``, in which all models have the same audited rows.
        attacks: by label; those of layout ``shared`` are run.
        seed: for attacks that train something, and for the groups of records.

    Raises:
        InputError: another layout, or models with different audited rows.
    """
    rows = signals.audited(0)
    if signals.layout != "shared" or any(
        not np.array_equal(rows, signals.audited(k)) for k in range(signals.num_models)
    ):
        raise InputError("expected shared signals in which all models have the same audited rows, got others")
    membership = np.stack([signals.is_member(k) for k in range(signals.num_models)])
    return {
        label: TargetsResult(
            attack.name,
            np.stack([attack.score(signals, k, seed=seed) for k in range(signals.num_models)]),
            membership,
            seed,
        )
        for label, attack in attacks.items()
        if attack.layout == "shared"
    }
