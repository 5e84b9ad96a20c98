"""The content of ``evidence.json``: all that a bundle states, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wemem.attacks import ATTACKS
from wemem.errors import InputError
from wemem.evidence.coverage import coverage
from wemem.evidence.disclosure_form import disclosure_form
from wemem.metrics.registry import METRICS
from wemem.reporting.attackers import SIGNALS, access_of, exposed_records, knowledge_of
from wemem.reporting.certainty import on_certainty
from wemem.reporting.content import classes, deciles
from wemem.reporting.notes import notes
from wemem.reporting.release import release_answer
from wemem.results.arms import Arm, arms
from wemem.results.canaries import canary_rates
from wemem.results.combine import read_sources
from wemem.results.gate import Limits
from wemem.results.verify import verify
from wemem.signals import WEIGHTS_HELD

SCHEMA = "wemem.evidence/1"
STATEMENT = "This is evidence, not a determination of anonymity."
#: Groups of records that are listed for each arm: those of which most is recognized.
WORST_GROUPS = 5


def evidence_content(folder: Path, author: str, written_at: str, limits: Limits | None = None) -> dict[str, Any]:
    """The content of ``evidence.json`` for a folder of results.

    Args:
        folder: the ``--out`` folder of a study or an audit.
        author: the person or body that hands the evidence over.
        written_at: the time, as text.
        limits: the limits of the answer; a stated profile if None.

    Raises:
        InputError: results that cannot be read, or that contradict their files.
    """
    verified = verify(folder)
    if verified.forged:
        raise InputError(
            f"expected results in {folder} that follow from their records, got: {verified.forged[0].text}; "
            "run the study again"
        )
    return {
        "schema": SCHEMA,
        "statement": STATEMENT,
        "written": {"by": author, "at": written_at},
        "results_sha256": verified.sha256,
        "verification": [{"passed": one.passed, "text": one.text} for one in verified.findings],
        "limits": None if limits is None else asdict(limits),
        **from_records(folder, limits, written_at),
        **from_results(verified.results),
    }


def from_records(folder: Path, limits: Limits | None, written_at: str) -> dict[str, Any]:
    """The part of the content that follows from the records beside the results, so that a reader
    of the bundle who has the folder can derive it again.
    """
    combined = read_sources([folder])
    rows = arms(combined.results)
    return {
        "release": release_answer(combined, [folder], limits),
        "exposed": exposed_records(combined, rows),
        "subgroups": [*_worst(deciles(combined, rows), "decile"), *_worst(classes(combined, rows), "class")],
        "disclosure_form": disclosure_form(combined, rows, written_at),
    }


def from_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the content that follows from ``results.json`` alone, so that a reader of the
    bundle can derive it again.
    """
    rows = arms(results)
    run = list(dict.fromkeys(name for arm in rows for name in arm.attacks))
    return {
        "study": {"name": str(results["study"].get("name", "")), "sha256": results.get("study_sha256")},
        "data": dict(results["data"]),
        "environment": dict(results["environment"]),
        "files": dict(results.get("files", {})),
        "arms": [_arm(arm) for arm in rows],
        "attacks_not_run": _not_run(results, run),
        "split": _split(results),
        "blind_baseline": _blind(rows),
        "power": on_certainty(rows, [arm for arm in rows if arm.attacks and not arm.is_control]),
        "coverage": coverage(rows, {"attacks": run}),
        "notes": notes(results),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    certificate = [run["certificate"] for run in arm.runs]
    accuracy = arm.accuracy()
    return {
        "label": arm.label,
        "defense": arm.defense,
        "sparsity": arm.sparsity,
        "seeds": [run["seed"] for run in arm.runs],
        "settings": dict(arm.runs[0]["settings"]),
        "files": [run["model_file"] for run in arm.runs if run.get("model_file")],
        "audited_files": [dict(run["audited_file"]) for run in arm.runs if "audited_file" in run],
        "accuracy": {"value": accuracy.value, "low": accuracy.low, "high": accuracy.high},
        "answers_only": arm.answers_only,
        "adaptive": all(one["adaptive"] for one in certificate),
        "adversary_models": min(one["models"] for one in certificate),
        "attacks": [_attack(arm, name) for name in arm.attacks],
        "strongest": {name: _strongest(arm, name) for name in METRICS if arm.attacks and _has(arm, name)},
        "canaries": [
            {"kind": rate.kind, "metric": name, "attack": rate.attack, "value": rate.estimate.value,
             "low": rate.estimate.low, "high": rate.estimate.high, "targets": rate.targets, "records": rate.records}
            for name, metric in METRICS.items() if not metric.needs_threshold for rate in canary_rates(arm, name)
        ],
        **({"privacy": dict(arm.runs[0]["privacy"])} if "privacy" in arm.runs[0] else {}),
    }  # fmt: skip


def _attack(arm: Arm, name: str) -> dict[str, Any]:
    audits = [run["attacks"][name] for run in arm.runs if name in run["attacks"]]
    measured = {metric: arm.measure(name, metric) for metric in METRICS if all(METRICS[metric].read(a) for a in audits)}
    return {
        "name": name,
        "adaptive": arm.adaptive(name),
        "access": access_of(name),
        "knowledge": knowledge_of(name),
        **{count: min(audit[count] for audit in audits) for count in ("members", "nonmembers", "reference_models")},
        "metrics": {key: {"value": one.value, "low": one.low, "high": one.high} for key, one in measured.items()},
    }


def _has(arm: Arm, metric: str) -> bool:
    return all(METRICS[metric].read(audit) is not None for run in arm.runs for audit in run["attacks"].values())


def _strongest(arm: Arm, metric: str) -> dict[str, Any]:
    """The strongest attack beside what the strongest of the suite reaches on models that leak
    nothing.
    """
    attack, estimate = arm.strongest(metric)
    chance = arm.chance(metric)
    return {
        "attack": attack,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "chance": METRICS[metric].chance if chance is None else chance.expected,
        "chance_high": None if chance is None else chance.high,
        "exceeds_chance": arm.leaks(metric),
    }


def _not_run(results: Mapping[str, Any], attacks: Sequence[str]) -> list[dict[str, str]]:
    run = {name.removesuffix(WEIGHTS_HELD) for name in attacks}
    planned = results.get("planned", {}).get("attacks", {})
    kinds = {planned.get(name, name) for name in run}
    reasons = [{"name": name, "reason": "planned, and missing in the results"} for name in planned if name not in run]
    for name, attack in ATTACKS.items():
        if name not in kinds and name not in planned.values():
            needed = [SIGNALS[signal] for signal in sorted(attack.required_signals)]
            needs = f"; it needs {' and '.join(needed)}" if needed else ""
            reasons.append({"name": name, "reason": f"not among the attacks of the study{needs}"})
    return reasons


#: Codes of notes on models that the user trained.
OUTSIDE = ("outputs_alone", "loops_equal", "loops_unlike", "victim_training_unknown")


def _split(results: Mapping[str, Any]) -> dict[str, Any]:
    outside = any(isinstance(note, Mapping) and note.get("code") in OUTSIDE for note in results["notes"])
    if outside:
        return {
            "proved": False,
            "text": "The membership of records is that which the user stated; this program did not train the model.",
        }
    return {
        "proved": True,
        "text": (
            "This program dealt the records out and trained every model. Training, development and audited records "
            "of each model are disjoint, which is checked before anything is trained; thresholds and attack models "
            "are fitted without the audited model. The fingerprint of the data binds the records."
        ),
    }


def _blind(rows: Sequence[Arm]) -> dict[str, Any]:
    """The baseline that sees no model: it shows whether members differ from the others by
    themselves.
    """
    for arm in rows:
        for name in arm.attacks:
            if name.split(" ")[0].startswith("blind"):
                estimate = arm.measure(name, "auc")
                return {"run": True, "attack": name, "auc": estimate.value, "low": estimate.low, "high": estimate.high}
    return {"run": False, "text": "Not run: no attack of the study works without the model."}


def _worst(entries: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The groups of each arm of which most members are recognized."""
    return [
        {
            "label": arm["label"], "sparsity": arm["sparsity"], "attack": arm["attack"], "kind": kind,
            "groups": sorted(arm["groups"], key=lambda group: -group["tpr"]["value"])[:WORST_GROUPS],
        }
        for arm in entries
    ]  # fmt: skip
