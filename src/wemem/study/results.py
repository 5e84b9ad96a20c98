"""``results.json`` and ``per_sample.parquet``: what a study leaves for others to read."""

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from jaxtyping import Float64, Int64
from safetensors import SafetensorError
from scipy.stats import rankdata

from wemem.audit.intervals import proportion
from wemem.audit.report import FPRS, AuditReport, as_json
from wemem.data.dataset import Dataset
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.signals import UNKNOWN, Signals
from wemem.study.blackbox import BlackBoxAudit
from wemem.study.config import StudyConfig
from wemem.study.run import Outcome
from wemem.training import accuracy


def study_results(config: StudyConfig, data: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content of ``results.json``; its schema is :func:`wemem.study.schema.results_schema`."""
    plain = {(o.seed, o.sparsity): o.victim.seconds for o in outcomes if o.label == "undefended"}
    scores = {o.seed: o.scores for o in outcomes if o.scores is not None}
    return {
        "schema": "wemem.results/1",
        "study": config.table,
        "environment": environment(),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "records": len(data),
            "classes": data.classes,
            "input_shape": list(data.input_shape),
        },
        "notes": _notes(config),
        "scores": [
            {
                "seed": seed,
                "party": "defender",
                "models": own.models,
                "halves_correlation": None if math.isnan(own.halves_correlation) else own.halves_correlation,
                "seconds": own.seconds,
            }
            for seed, own in scores.items()
            if own.models
        ],
        "runs": [_run(outcome, data, plain.get((outcome.seed, outcome.sparsity))) for outcome in outcomes],
    }


def environment() -> dict[str, Any]:
    """The versions and the number of threads that a result depends on."""
    return {
        "wemem": version("wemem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _notes(config: StudyConfig) -> list[str]:
    notes = []
    if config.victim is not None:
        notes.append(
            "The victim's own training is not known to this study; its shadows and reference models were trained by "
            "the study's recipe and then pruned as the victim was."
        )
    return notes


def _run(outcome: Outcome, data: Dataset, undefended_seconds: float | None) -> dict[str, Any]:
    stage = outcome.victim
    told = list(stage.meta.get("rounds", []))
    dense = outcome.defense is None
    return {
        "defense": "dense" if outcome.defense is None else outcome.defense.name,
        "label": outcome.label,
        "settings": {} if outcome.defense is None else outcome.defense.settings,
        "seed": outcome.seed,
        "sparsity": told[-1]["sparsity"] if told else outcome.sparsity,
        "accuracy": _accuracies(outcome, data),
        "seconds": {
            "finetune": stage.seconds,
            "defense_overhead": None if dense or undefended_seconds is None else stage.seconds - undefended_seconds,
            "scores": outcome.scores.seconds if _scored(outcome) and outcome.scores else 0.0,
            "attacks": outcome.attack_seconds,
        },
        "records_seen": sum(r["records_seen"] for r in told),
        "backend": stage.meta["backend"],
        "rounds": [{k: r[k] for k in ("round", "sparsity", "test_accuracy", "dev_accuracy", "epochs")} for r in told],
        "certificate": certificate(list(outcome.signals.values())),
        **as_json(outcome.report),
        **({"non_adaptive": as_json(outcome.non_adaptive)["attacks"]} if outcome.non_adaptive else {}),
        **({"leave_one_out": _in_turn(outcome)} if outcome.in_turn else {}),
    }


def certificate(all_signals: Sequence[Signals]) -> dict[str, Any]:
    """From the stored fingerprints: were all models the adversary used made exactly as the attacked one?"""
    return {
        "adaptive": bool(all_signals) and all(signals.adaptive for signals in all_signals),
        "victim_made_as": all_signals[0].provenance[0] if all_signals else UNKNOWN,
        "adversary_made_as": sorted({made for signals in all_signals for made in signals.provenance[1:]}),
        "models": sum(signals.members - 1 for signals in all_signals),
    }


def _in_turn(outcome: Outcome) -> dict[str, Any]:
    found = {}
    for name, targets in outcome.in_turn.items():
        measures = {"auc": targets.auc(), **{f"tpr_at_{fpr}": targets.tpr_at_fpr(fpr) for fpr in FPRS}}
        told = {metric: {"value": e.value, "ci": [e.low, e.high]} for metric, e in measures.items()}
        found[name] = {"targets": len(targets.scores), "records": targets.scores.shape[1], **told}
    return found


def _scored(outcome: Outcome) -> bool:
    return outcome.defense is not None and outcome.defense.needs_scores


def _accuracies(outcome: Outcome, data: Dataset) -> dict[str, Any]:
    """The victim's accuracy on its train, dev and non-member records; the last is the test accuracy."""
    victim = outcome.victim.ensemble.select([0])
    found = {}
    for name, role in (("train", Role.TRAIN), ("dev", Role.DEV), ("test", Role.AUDIT)):
        records = outcome.split.records(0, role)
        found[name] = accuracy(victim.logits(data.features[records])[0], data.labels[records])
    n = len(outcome.split.records(0, Role.AUDIT))
    test = proportion(round(found["test"] * n), n)
    return {**found, "test_ci": [test.low, test.high], "test_records": n}


def per_sample_table(outcomes: Sequence[Outcome], data: Dataset) -> pa.Table:
    """One row per outcome and audited record: truth, memorization score, each attack's score, call and probability."""
    tables = [
        sample_rows(o.label, o.seed, o.sparsity, o.report, data.labels, o.memorization)
        for o in outcomes
        if o.report.results
    ]
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def sample_rows(
    label: str,
    seed: int,
    sparsity: float,
    report: AuditReport,
    labels: Int64[np.ndarray, " N"],
    memorization: Float64[np.ndarray, " N"] | None,
) -> pa.Table:
    """The rows of one audit.

    ``risk_rank`` is 1 for the record that the attacks together find most surely to be a member: by the mean over
    attacks of the share of audited records that score no higher.

    Raises:
        InputError: the attacks judged different records.
    """
    records = report.results[0].records
    n = len(records)
    columns: dict[str, Any] = {
        "label": [label] * n,
        "seed": [seed] * n,
        "sparsity": [sparsity] * n,
        "record": records,
        "class": labels[records],
        "member": report.results[0].member,
    }
    if memorization is not None:
        columns["memorization"] = memorization[records]
    ranks = []
    for result in report.results:
        if not np.array_equal(result.records, records):
            raise InputError(f"attack {result.name!r} judged other records than {report.results[0].name!r}")
        columns[result.name] = result.verdict.score
        columns[f"{result.name}_called"] = result.verdict.score >= result.verdict.threshold
        if result.verdict.probability is not None:
            columns[f"{result.name}_probability"] = result.verdict.probability
        ranks.append(rankdata(result.verdict.score) / n)
    columns["risk_rank"] = rankdata(-np.mean(ranks, axis=0), method="min").astype(np.int64)
    return pa.table(columns)


def black_box_results(found: BlackBoxAudit, name: str, seed: int) -> dict[str, Any]:
    """The content of ``results.json`` for an audit by outputs alone."""
    signals = found.signals
    shares = {}
    for part, role in (("train", Role.TRAIN), ("test", Role.AUDIT)):
        rows = np.flatnonzero(signals.roles[0] == role)
        shares[part] = accuracy(signals.logits[0, rows], signals.labels[rows])
    n = int((signals.roles[0] == Role.AUDIT).sum())
    test = proportion(round(shares["test"] * n), n)
    run = {
        "defense": "unknown",
        "label": "audited model",
        "settings": {},
        "seed": seed,
        "sparsity": 0.0,
        "accuracy": {**shares, "dev": None, "test_ci": [test.low, test.high], "test_records": n},
        "seconds": {"finetune": 0.0, "defense_overhead": None, "scores": 0.0, "attacks": 0.0},
        "records_seen": 0,
        "backend": {"backend": "none", "reason": "audited by its outputs"},
        "rounds": [],
        "certificate": certificate([signals]),
        **as_json(found.report),
    }
    digest = hashlib.sha256(np.ascontiguousarray(signals.logits).data).hexdigest()
    return {
        "schema": "wemem.results/1",
        "study": {"signals": name},
        "environment": environment(),
        "data": {
            "name": name,
            "fingerprint": digest,
            "records": len(signals.labels),
            "classes": signals.classes,
            "input_shape": [],
        },
        "notes": [
            "Audited by outputs alone: nothing certifies how the other models were made; no attack counts as adaptive.",
            *found.left_out,
        ],
        "scores": [],
        "runs": [run],
    }


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file and rename, so that a reader sees the old file or the new one.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        if path.parent.is_dir():
            part.unlink(missing_ok=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"cannot write {path}: {reason}; free some space or choose another --out") from error


def require_folder(out: Path) -> None:
    """Refuse a folder that cannot be written, before anything is computed for it. It is not made yet.

    Raises:
        InputError: it is a file, lies in one, or nobody may write there.
    """
    there = next(place for place in (out.absolute(), *out.absolute().parents) if os.path.lexists(place))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise InputError(f"cannot write {out}: {there} is no folder that may be written; choose another --out")


def write_results(out: Path, results: Mapping[str, Any], samples: pa.Table) -> None:
    """Write ``per_sample.parquet`` and, last of all, ``results.json`` into a folder: where it is, all is."""
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_atomically(out / "per_sample.parquet", lambda part: pyarrow.parquet.write_table(samples, part))
    write_atomically(out / "results.json", lambda part: part.write_text(text, encoding="utf-8"))
