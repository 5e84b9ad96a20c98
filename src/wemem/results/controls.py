"""Attribution of a leak to its causes, from the control arms of a study.

Fine-tuning without pruning adds reuse of the training records to the dense model. Undefended
iterative pruning adds pruning to that. One-shot pruning differs from iterative pruning in the
schedule alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wemem.results.arms import Arm
from wemem.results.differences import leakage_difference

Cause = Literal["reuse", "pruning", "schedule"]


@dataclass(frozen=True)
class Effect:
    """The change of leakage from one arm to another that differs by one cause.

    Args:
        cause: ``reuse`` of the training records, ``pruning``, or ``schedule``: iterative in place
            of one-shot pruning.
        before: the arm without the cause.
        after: the arm with the cause.
        change: the mean change of the strongest of the attacks that both arms have.
        sign: 1 if the leak grows, -1 if it shrinks, 0 if the change is not significant.
        exposures: the ratio of the numbers of records seen in fine-tuning, with the cause to
            without it; None where ``before`` is the dense model, which was not fine-tuned.
    """

    cause: Cause
    before: Arm
    after: Arm
    change: float
    sign: int
    exposures: float | None


def effects(rows: Sequence[Arm], metric: str) -> list[Effect]:
    """The effect of each cause on a metric, at the highest sparsity.

    A cause is left out where one of its arms is missing or was not attacked.
    """
    attacked = [arm for arm in rows if arm.attacks]
    highest = max((arm.sparsity for arm in attacked), default=0.0)
    by_kind = {arm.defense: arm for arm in attacked if arm.sparsity in (0, highest)}
    pairs: list[tuple[Cause, str, str]] = [
        ("reuse", "dense", "unpruned"), ("pruning", "unpruned", "undefended"), ("schedule", "one_shot", "undefended"),
    ]  # fmt: skip
    known = [(cause, by_kind.get(before), by_kind.get(after)) for cause, before, after in pairs]
    estimated = (_effect(cause, one, two, metric) for cause, one, two in known if one is not None and two is not None)
    return [effect for effect in estimated if effect is not None]


def _effect(cause: Cause, before: Arm, after: Arm, metric: str) -> Effect | None:
    """One effect; None if the arms have no attack or no seed in common."""
    gap = leakage_difference(after, before, metric)
    return None if gap is None else Effect(cause, before, after, gap.value, gap.sign(), _exposures(before, after))


def _exposures(before: Arm, after: Arm) -> float | None:
    seen = [sum(run["records_seen"] for run in arm.runs) / len(arm.runs) for arm in (before, after)]
    return seen[1] / seen[0] if seen[0] else None
