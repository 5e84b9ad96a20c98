"""Measured cost and leakage of a setting, and how they compare to a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from wemem.config.budget import Budget

Fidelity = Literal["quick", "full"]
PerModel = Float64[np.ndarray, " K"]


@dataclass(frozen=True, eq=False)
class Figures:
    """Measurements of models pruned under one setting, on the defender's records.

    Args:
        accuracy: accuracy of each model on records that it was not trained on, shape ``(K,)``.
        auc: by attack, the AUC of each model that was trained on some of the records in question.
        tpr: by attack, the TPR of each of these models at the budget's FPR.
        records: number of records that the leakage was measured on.
        seconds: wall time of the measurement.
    """

    accuracy: PerModel
    auc: Mapping[str, PerModel]
    tpr: Mapping[str, PerModel]
    records: int
    seconds: float


@dataclass(frozen=True)
class Point:
    """A setting beside undefended pruning of the same models; means over models, as fractions.

    Args:
        kind: kind of the defense.
        settings: settings of the defense.
        fidelity: ``full``, or ``quick``: fewer models, rounds and attacks.
        accuracy: accuracy on records that the models were not trained on.
        accuracy_drop: accuracy of undefended pruning minus ``accuracy``.
        accuracy_drop_se: standard error of ``accuracy_drop`` over models.
        leakage: AUC of the attack with the highest AUC.
        attack: name of that attack.
        tpr: TPR at the budget's FPR of the attack with the highest TPR.
        tpr_se: standard error of ``tpr`` over models.
        tpr_attack: name of that attack.
        models: number of models.
    """

    kind: str
    settings: Mapping[str, Any]
    fidelity: Fidelity
    accuracy: float
    accuracy_drop: float
    accuracy_drop_se: float
    leakage: float
    attack: str
    tpr: float
    tpr_se: float
    tpr_attack: str
    models: int

    def as_json(self) -> dict[str, Any]:
        """Fields by name, as they stand in results."""
        return asdict(self)


def point_of(
    kind: str, settings: Mapping[str, Any], defended: Figures, plain: Figures, fidelity: Fidelity
) -> Point:  # fmt: skip
    """Compare a setting to undefended pruning of the same models, model by model.

    Args:
        kind: kind of the defense.
        settings: settings of the defense.
        defended: measurements under the defense.
        plain: measurements of undefended pruning.
        fidelity: how thorough the measurements are.
    """
    drop = plain.accuracy - defended.accuracy
    attack = max(defended.auc, key=lambda name: defended.auc[name].mean())
    tpr_attack = max(defended.tpr, key=lambda name: defended.tpr[name].mean())
    return Point(
        kind, dict(settings), fidelity, float(defended.accuracy.mean()), float(drop.mean()), standard_error(drop),
        float(defended.auc[attack].mean()), attack, float(defended.tpr[tpr_attack].mean()),
        standard_error(defended.tpr[tpr_attack]), tpr_attack, len(drop),
    )  # fmt: skip


def standard_error(values: PerModel) -> float:
    """Standard error of the mean; 0 for a single value, whose error is not known."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def excess(budget: Budget, point: Point, errors: float = 0.0) -> float:
    """Amount by which a point exceeds a budget, all bounds added; 0 if it keeps them.

    Args:
        budget: the bounds.
        point: the measurement. The TPR of a quick one is that of a weak attack and is not counted.
        errors: number of standard errors by which the figures must stay within the bounds. The best
            of many noisy figures is better than it should be, so a choice is made with one.
    """
    over = 0.0
    if budget.max_accuracy_drop is not None:
        over += max(0.0, point.accuracy_drop + errors * point.accuracy_drop_se - budget.max_accuracy_drop)
    if budget.max_tpr is not None and point.fidelity == "full":
        over += max(0.0, point.tpr + errors * point.tpr_se - budget.max_tpr)
    return over


def ranked(budget: Budget, points: Sequence[Point]) -> list[Point]:
    """Sort points, the best first.

    Points within the budget by one standard error come first, then those that exceed it least.
    Among those within it the one that leaks least comes first; if only a TPR is bounded, the most
    accurate.
    """

    def rank(point: Point) -> tuple[float, float]:
        objective = point.leakage if budget.max_accuracy_drop is not None else -point.accuracy
        return round(excess(budget, point, errors=1.0), 9), objective

    return sorted(points, key=rank)


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in accuracy and leakage, the most accurate first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.accuracy_drop, p.leakage)):
        if not kept or point.leakage < kept[-1].leakage:
            kept.append(point)
    return kept


def finalists(budget: Budget, points: Sequence[Point]) -> list[Point]:
    """Choose the points that get a full audit: the best ones, and the rest of the front evenly.

    A quick measurement does not resolve the TPR at a low FPR, so half of the places go to the front
    as a whole.
    """
    places = min(budget.finalists, len(points))
    best = ranked(budget, points)
    edge = [point for point in front(points) if point not in best[: (places + 1) // 2]]
    spread = [edge[round(i)] for i in np.linspace(0, len(edge) - 1, min(places // 2, len(edge)))] if edge else []
    chosen = [*best[: (places + 1) // 2], *spread]
    return [*chosen, *[point for point in best if point not in chosen]][:places]
