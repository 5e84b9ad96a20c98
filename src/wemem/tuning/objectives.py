"""What a setting costs and leaks, measured, and how that stands to a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from wemem.defenses.auto import Auto

Fidelity = Literal["quick", "full"]
PerModel = Float64[np.ndarray, " K"]


@dataclass(frozen=True, eq=False)
class Figures:
    """What ``K`` models pruned under one setting show on the defender's records.

    Args:
        accuracy: of each model on records it was not trained on, shape ``(K,)``.
        auc: by attack, of each model, shape ``(K,)``.
        tpr: by attack, at the budget's FPR.
        seconds: that it took.
    """

    accuracy: PerModel
    auc: Mapping[str, PerModel]
    tpr: Mapping[str, PerModel]
    seconds: float


@dataclass(frozen=True)
class Point:
    """A setting beside undefended pruning of the same models; means over models, fractions.

    Args:
        kind, settings: of the defense.
        fidelity: ``full``, or ``quick``: fewer models, rounds and attacks.
        accuracy: on records that the models were not trained on.
        accuracy_drop: from the undefended, with its standard error over models.
        leakage: AUC of the strongest attack.
        tpr: of the strongest attack at the budget's FPR, with its standard error over models.
        models: how many.
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
        """As it stands in results."""
        return asdict(self)


def point_of(kind: str, settings: Mapping[str, Any], found: Figures, plain: Figures, fidelity: Fidelity) -> Point:
    """A setting's figures against those of the same models pruned without a defense."""
    drop = plain.accuracy - found.accuracy
    attack = max(found.auc, key=lambda name: found.auc[name].mean())
    tpr_attack = max(found.tpr, key=lambda name: found.tpr[name].mean())
    return Point(
        kind, dict(settings), fidelity, float(found.accuracy.mean()), float(drop.mean()), standard_error(drop),
        float(found.auc[attack].mean()), attack, float(found.tpr[tpr_attack].mean()),
        standard_error(found.tpr[tpr_attack]), tpr_attack, len(drop),
    )  # fmt: skip


def standard_error(values: PerModel) -> float:
    """Of the mean; 0 of a single value, which says nothing of its error."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def excess(budget: Auto, point: Point, errors: float = 0.0) -> float:
    """By how much a budget is exceeded, all parts added, as a fraction; 0 if it is met.

    Args:
        budget: what was asked for.
        point: what was measured; a quick one's TPR is that of a weak attack and is not counted.
        errors: by so many standard errors the figures must keep within it. The best of many noisy figures is better
            than it should be, so a choice is made with one.
    """
    over = 0.0
    if budget.max_accuracy_drop is not None:
        over += max(0.0, point.accuracy_drop + errors * point.accuracy_drop_se - budget.max_accuracy_drop)
    if budget.max_tpr is not None and point.fidelity == "full":
        over += max(0.0, point.tpr + errors * point.tpr_se - budget.max_tpr)
    return over


def ranked(budget: Auto, points: Sequence[Point]) -> list[Point]:
    """The best first: those that keep within the budget by one standard error, then those that exceed it least.

    Among those that keep within it the one that leaks least comes first; if only a TPR was asked for, the most
    accurate.
    """

    def rank(point: Point) -> tuple[float, float]:
        wish = point.leakage if budget.max_accuracy_drop is not None else -point.accuracy
        return round(excess(budget, point, errors=1.0), 9), wish

    return sorted(points, key=rank)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in accuracy and leakage, the most accurate first; of equal ones the first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.accuracy_drop, p.leakage)):
        if not kept or point.leakage < kept[-1].leakage:
            kept.append(point)
    return kept


def finalists(budget: Auto, points: Sequence[Point]) -> list[Point]:
    """Which quick points deserve a full audit: the best by the budget, and the rest of the front evenly.

    A quick look cannot tell the TPR at a low FPR, so half of the places go to the front as a whole.
    """
    places = min(budget.finalists, len(points))
    best = ranked(budget, points)
    edge = [point for point in front(points) if point not in best[: (places + 1) // 2]]
    spread = [edge[round(i)] for i in np.linspace(0, len(edge) - 1, min(places // 2, len(edge)))] if edge else []
    chosen = [*best[: (places + 1) // 2], *spread]
    return [*chosen, *[point for point in best if point not in chosen]][:places]


def sentence(budget: Auto) -> str:
    """A budget in words.

    >>> sentence(Auto(max_accuracy_drop=0.01, max_tpr=0.05))
    'at most 1.0 points of accuracy lost, at most 5.0 % of the members found at 1 % false alarms'
    """
    parts = []
    if budget.max_accuracy_drop is not None:
        parts.append(f"at most {100 * budget.max_accuracy_drop:.1f} points of accuracy lost")
    if budget.max_tpr is not None:
        parts.append(
            f"at most {100 * budget.max_tpr:.1f} % of the members found at {100 * budget.at_fpr:g} % false alarms"
        )
    return ", ".join(parts)


def figures_in_words(point: Point) -> str:
    """What was measured, in words."""
    return (
        f"accuracy {100 * point.accuracy:.1f} % ({-100 * point.accuracy_drop:+.1f} points ± "
        f"{100 * point.accuracy_drop_se:.1f}), AUC {100 * point.leakage:.1f} % ({point.attack}), "
        f"TPR {100 * point.tpr:.1f} % ± {100 * point.tpr_se:.1f} ({point.tpr_attack})"
    )


_WORDS = {
    "width": lambda v: f"a window over {100 * v:g} % of each class",
    "stride": lambda v: f"that moves by {100 * v:g} % of the class an epoch",
    "order": lambda v: {
        "low_first": "from the least to the most memorized records",
        "high_first": "from the most to the least memorized records",
        "random": "in random order",
    }[v],
    "top": lambda v: f"weight decay on the {100 * v:g} % most memorized records",
    "decay": lambda v: f"of {v:g}",
    "teachers": lambda v: f"labels replaced by the predictions of {v} teachers",
    "held_out": lambda v: f"{v} of which did not see the record",
    "clusters": lambda v: f"nor what is like it, in {v} clusters a class" if v else "whatever is like it",
    "start": lambda v: {"fresh": "into new weights", "dense": "into those of the dense model"}[v],
    "temperature": lambda v: f"at temperature {v:g}",
    "hard": lambda v: f"with {100 * v:g} % of the true label mixed in",
    "views": lambda v: f"at each record and {v} views of it" if v else "at the records alone",
}


def settings_in_words(kind: str, settings: Mapping[str, Any]) -> str:
    """What a found setting does.

    >>> settings_in_words("rmr", {"top": 0.27, "threshold": None, "decay": 0.1})
    'rmr: weight decay on the 27 % most memorized records, of 0.1'
    """
    told = [_WORDS[name](value) for name, value in settings.items() if value is not None and name in _WORDS]
    return f"{kind}: {', '.join(told)}"
