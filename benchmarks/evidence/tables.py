"""Figures of a comparison as they are stored."""

from pathlib import Path
from statistics import fmean
from typing import Any

from wemem.metrics.intervals import Estimate
from wemem.results.arms import Arm, arms
from wemem.results.canaries import worst_case
from wemem.results.combine import Combined
from wemem.results.curves import by_decile
from wemem.results.differences import Difference, accuracy_difference, leakage_over_targets

ROOT = Path(__file__).parents[2]
STORED = ROOT / "benchmarks" / "results" / "evidence.json"
PAGE = ROOT / "docs" / "measurements.md"
#: Files below ``studies/``, the short ones first; a file's stem names the data set.
STUDIES = (
    "evidence/digits",
    "evidence/adult",
    "evidence/bank",
    "evidence/letter",
    "evidence/sst2",
    "evidence/location",
    "evidence/cifar10",
    "fashion",
)
FPR = "tpr_at_0.01"
#: Differences by claim: what is compared, and the arms, the first minus the second.
DIFFERENCES = (
    ("C1", "accuracy", "undefended", "one_shot"),
    ("C1", "leak", "undefended", "one_shot"),
    ("C1", "leak", "undefended", "unpruned"),
    ("C2", "leak", "unpruned", "dense"),
    ("C3", "leak", "window", "undefended"),
    ("C3", "leak", "rsw", "window"),
    ("C3", "leak", "rmr", "undefended"),
    ("C4", "leak", "rsw", "undefended"),
    ("C4", "leak", "swmr", "undefended"),
    ("C4", "accuracy", "rsw", "undefended"),
    ("C4", "accuracy", "rmr", "undefended"),
    ("C4", "accuracy", "swmr", "undefended"),
    ("C5", "leak", "rsw", "ppb"),
    ("C5", "leak", "swmr", "ppb"),
    ("C5", "accuracy", "rsw", "ppb"),
)


def figures(combined: Combined) -> dict[str, Any]:
    """The figures of a comparison that the page shows; rates are fractions."""
    results = combined.results
    rows = arms(results)
    first = next(iter(results["runs"][0]["attacks"].values()))
    return {
        "study_sha256": results["study_sha256"],
        "seeds": sorted({run["seed"] for run in results["runs"]}),
        "wemem": results["environment"].get("wemem"), "attacks": list(results["planned"]["attacks"]),
        "records": results["data"]["records"], "classes": results["data"]["classes"],
        "members": first["members"], "nonmembers": first["nonmembers"],
        "references": results["study"]["split"]["references"], "rows": [_row(arm) for arm in rows],
        "differences": _differences(rows), "deciles": _deciles(combined, rows),
    }  # fmt: skip


def _row(arm: Arm) -> dict[str, Any]:
    attack, tpr = arm.strongest(FPR)
    balanced_by, balanced = arm.strongest("balanced_accuracy")
    chance, targets, canaries = arm.chance(FPR), arm.leave_one_out(FPR), worst_case(arm, FPR)
    has_combined = "combined" in arm.leave_one_out_attacks(FPR)
    return {
        "arm": arm.label, "sparsity": arm.sparsity, "answers_only": arm.answers_only,
        "accuracy": _ends(arm.accuracy()), "balanced_accuracy": _ends(balanced), "balanced_by": balanced_by,
        "tpr": _ends(tpr), "attack": attack, "chance": None if chance is None else [chance.expected, chance.high],
        "targets": None if targets is None else {"attack": targets[0], "tpr": _ends(targets[1]), "count": targets[2]},
        "combined": _ends(arm.over_targets("combined", FPR)) if has_combined else None,
        "canaries": None if canaries is None else {
            "kind": canaries.kind, "tpr": _ends(canaries.estimate), "records": canaries.records,
        },
        "records_seen": fmean(run["records_seen"] for run in arm.runs),
    }  # fmt: skip


def _differences(rows: list[Arm]) -> list[dict[str, Any]]:
    by_label = {arm.label: arm for arm in rows}
    known = [one for one in DIFFERENCES if one[2] in by_label and one[3] in by_label]
    return [
        {"claim": claim, "of": of, "arms": [one, other], **_difference(of, by_label[one], by_label[other])}
        for claim, of, one, other in known
    ]


def _difference(of: str, one: Arm, other: Arm) -> dict[str, Any]:
    found = accuracy_difference(one, other) if of == "accuracy" else leakage_over_targets(one, other, FPR)
    return {"difference": _of_difference(found), "unit": None if found is None else [found.basis, found.count]}


def _of_difference(found: Difference | None) -> list[float] | None:
    """Value and ends; the value alone where there is no interval."""
    if found is None:
        return None
    return [found.value] if found.interval is None else _ends(found.interval)


def _deciles(combined: Combined, rows: list[Arm]) -> dict[str, list[float]] | None:
    """The share of the least and of the most memorized tenth that is found under no defense."""
    arm = next(arm for arm in rows if arm.label == "undefended")
    attack = arm.strongest(FPR)[0]
    runs = combined.of(arm, attack)
    groups = by_decile(runs, attack) if runs else []
    return {"least": _ends(groups[0].tpr), "most": _ends(groups[-1].tpr)} if groups else None


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
