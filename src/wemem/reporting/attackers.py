"""The access that each attack needs, and the records that it recognizes best."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wemem.attacks import ATTACKS
from wemem.metrics.registry import LOW_FPR
from wemem.results.arms import Arm
from wemem.results.combine import Combined, run_key
from wemem.signals import WEIGHTS_HELD

#: Phrases for the access that the signals of an attack need.
SIGNALS = {
    "sensitivity": "the probabilities of records that are changed a little",
    "queries": "the probabilities of several versions of a record",
    "robustness": "the predicted class of many perturbed copies of a record",
    "repeated": "the answers to many repetitions of one query",
    "trajectory": "the answers of the model after every pruning round",
    "dense": "the answers of the model before pruning",
    "releases": "the answers of the model before pruning and after every round",
    "masks": "the places of the zeros among the weights, neither values nor answers",
}
#: Records of a run that are listed.
LISTED = 10


def access_of(attack: str) -> str:
    """A phrase for the access to the model that an attack needs.

    >>> access_of("lira (weights held)"), access_of("lira")
    ('the weights', 'the probabilities of one query a record')
    """
    if attack.endswith(WEIGHTS_HELD):
        return "the weights"
    known = ATTACKS.get(attack)
    if known is None:
        return "an access that is not known, by an attack of the study's own"
    needed = [SIGNALS[name] for name in sorted(known.required_signals)]
    return " and ".join(needed) if needed else "the probabilities of one query a record"


def knowledge_of(attack: str) -> str:
    """A phrase for the models that an adversary trains for an attack."""
    known = ATTACKS.get(attack.removesuffix(WEIGHTS_HELD))
    if known is None:
        return "models of a training that is not known"
    return {
        "disjoint": "models trained on other records of the same kind",
        "shared": "models trained with and without the very record",
    }.get(getattr(known, "layout", ""), "models of its own")


def access_needed(rows: Sequence[Arm]) -> list[dict[str, Any]]:
    """The strongest attack on each arm at a low FPR, and its needs."""
    found = []
    for arm in rows:
        if arm.attacks:
            attack, estimate = arm.strongest(LOW_FPR)
            models = max(run["attacks"][attack]["reference_models"] for run in arm.runs if attack in run["attacks"])
            found.append(
                {
                    "label": arm.label, "sparsity": arm.sparsity, "attack": attack, "access": access_of(attack),
                    "knowledge": knowledge_of(attack), "models": models, "adaptive": arm.adaptive(attack),
                    "value": estimate.value,
                }
            )  # fmt: skip
    return found


def exposed_records(combined: Combined, rows: Sequence[Arm]) -> list[dict[str, Any]]:
    """The most exposed members of the first run of each arm, by the mean rank over its attacks."""
    found = []
    for arm in rows:
        scores = combined.scores.get(run_key(arm.runs[0]))
        if scores is None or scores.records is None or scores.risk_rank is None:
            continue
        members = np.flatnonzero(scores.member)
        order = members[np.lexsort((scores.records[members], scores.risk_rank[members]))][:LISTED]
        listed = [
            {
                "rank": int(scores.risk_rank[i]),
                "record": int(scores.records[i]),
                "class": int(scores.classes[i]),
                "memorization": _or_none(None if scores.memorization is None else scores.memorization[i]),
            }
            for i in order
        ]
        found.append({"label": arm.label, "sparsity": arm.sparsity, "seed": arm.runs[0]["seed"], "records": listed})
    return found


def _or_none(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)
