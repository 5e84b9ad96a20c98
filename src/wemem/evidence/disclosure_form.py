"""The attack results in the form of SACRO-ML, which reviewers of trusted research environments read.

Each entry of the file is one attack with its instances, one for each seed. The metrics have the
names and the definitions of ``sacroml.metrics`` (https://github.com/AI-SDC/SACRO-ML).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import norm

from wemem.metrics.registry import METRICS
from wemem.results.arms import Arm, Run
from wemem.results.combine import Combined, run_key
from wemem.results.per_record import RunScores

#: Shares of the records with the highest and the lowest scores, and the suffixes of their metrics.
ENDS = {"01": 0.1, "02": 0.2, "001": 0.01}
#: The logarithm of a probability too small for a float, as SACRO-ML has it.
SMALLEST_LOG = -115.13


def disclosure_form(combined: Combined, rows: Sequence[Arm], written_at: str) -> dict[str, Any]:
    """The content of ``attack_results.json``.

    Args:
        combined: the results with their scores.
        rows: the arms.
        written_at: the time, as text.
    """
    form: dict[str, Any] = {}
    for arm in rows:
        for attack in arm.attacks:
            instances = [
                _instance(run, attack, combined.scores.get(run_key(run)))
                for run in arm.runs
                if attack in run["attacks"]
            ]
            name = f"WeMem {attack} on {arm.label} at sparsity {arm.sparsity:g}"
            log_id = hashlib.sha256(f"{name} {written_at}".encode()).hexdigest()[:32]
            form[f"{name}_{log_id}"] = {
                "log_id": log_id,
                "log_time": written_at,
                "metadata": {
                    "sacroml_version": None,
                    "attack_name": name,
                    "attack_params": {"attack": attack, "seeds": [run["seed"] for run in arm.runs]},
                    "global_metrics": {},
                    "target_model": arm.label,
                    "target_model_params": dict(arm.runs[0]["settings"]),
                    "target_train_params": {"defense": arm.defense, "sparsity": arm.sparsity},
                },
                "attack_experiment_logger": {
                    "attack_instance_logger": {f"instance_{i}": one for i, one in enumerate(instances)}
                },
            }
    return form


def _instance(run: Run, attack: str, scores: RunScores | None) -> dict[str, Any]:
    """The metrics of one attack on one model; those that need scores only where they are stored."""
    audit = run["attacks"][attack]
    members, others = audit["members"], audit["nonmembers"]
    area = METRICS["auc"].read(audit)
    values: dict[str, Any] = {"n_pos_test_examples": members, "n_neg_test_examples": others}
    if area is not None:
        spread = math.sqrt((members + others + 1) / (12 * members * others))
        values |= {"AUC": area.value, "P_HIGHER_AUC": float(norm.sf(area.value, 0.5, spread))}
    for metric in METRICS.values():
        if metric.fpr is not None and (measured := metric.read(audit)) is not None:
            values[f"TPR@{metric.fpr:g}"] = measured.value
    if scores is not None and attack in scores.called:
        values |= _called(scores.member, scores.called[attack])
    if scores is not None and attack in scores.scores:
        for suffix, share in ENDS.items():
            values |= _ends(scores.member, scores.scores[attack], share, suffix)
    return values


def _called(member: Bool[np.ndarray, " n"], called: Bool[np.ndarray, " n"]) -> dict[str, float]:
    tpr, fpr = float(called[member].mean()), float(called[~member].mean())
    precision = float(member[called].mean()) if called.any() else 0.0
    return {
        "TPR": tpr, "FPR": fpr, "TNR": 1 - fpr, "FNR": 1 - tpr, "PPV": precision,
        "FAR": 1 - precision if called.any() else 0.0,
        "NPV": float((~member[~called]).mean()) if not called.all() else 0.0,
        "ACC": float((called == member).mean()),
        "F1score": 2 * precision * tpr / (precision + tpr) if precision + tpr else 0.0,
        "Advantage": abs(tpr - fpr),
    }  # fmt: skip


def _ends(
    member: Bool[np.ndarray, " n"], score: Float64[np.ndarray, " n"], share: float, suffix: str
) -> dict[str, float]:
    """The share of members among the highest and the lowest scores, their difference, and minus the
    logarithm of its p-value.
    """
    count = math.ceil(len(score) * share)
    order = np.argsort(score, kind="stable")
    highest, lowest = float(member[order[-count:]].mean()), float(member[order[:count]].mean())
    base = float(member.mean())
    p_value = float(norm.sf(highest - lowest, 0, math.sqrt(2 * base * (1 - base) / count)))
    log_p = SMALLEST_LOG if p_value < 1e-50 else math.log(p_value)
    return {
        f"FMAX{suffix}": highest, f"FMIN{suffix}": lowest, f"FDIF{suffix}": highest - lowest, f"PDIF{suffix}": -log_p,
    }  # fmt: skip
