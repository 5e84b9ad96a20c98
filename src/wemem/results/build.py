"""``results.json`` and ``per_sample.parquet``: what a study leaves for others to read."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from jaxtyping import Float64, Int64
from scipy.stats import rankdata

from wemem.audit.report import AuditReport, as_json
from wemem.config.study import StudyConfig
from wemem.data.concerns import concerns
from wemem.data.dataset import Dataset
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.export.footprint import footprint
from wemem.files.atomic import write_atomically
from wemem.metrics.intervals import proportion
from wemem.metrics.registry import tpr_metric
from wemem.pipeline.artifacts import TrainedModels
from wemem.results.privacy import account
from wemem.signals import UNKNOWN, Signals
from wemem.study.black_box import BlackBoxAudit
from wemem.study.outcome import Outcome
from wemem.training import accuracy, choose_device, device_name
from wemem.training.device import CPU

#: What results tell of a round.
ROUND = ("round", "sparsity", "test_accuracy", "confidence_auc", "dev_accuracy", "epochs")


def study_results(config: StudyConfig, data: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content of ``results.json``; its schema is :func:`wemem.results.schema.results_schema`."""
    plain = {(o.seed, o.sparsity): o for o in outcomes if o.label == "undefended"}
    runs = [_run(outcome, config, data, plain.get((outcome.seed, outcome.sparsity))) for outcome in outcomes]
    scores = {o.seed: o.scores for o in outcomes if o.scores is not None}
    return {
        "schema": "wemem.results/1",
        "study": config.table,
        "environment": environment(choose_device(config.device)),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "records": len(data),
            "classes": data.classes,
            "input_shape": list(data.input_shape),
        },
        "notes": [*_notes(config, outcomes), *(f"Data: {c}." for c in concerns(data)), *_on_privacy(runs)],
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
        "runs": runs,
    }


def environment(device: torch.device = CPU) -> dict[str, Any]:
    """The versions, the number of threads and the device that a result depends on."""
    return {
        "wemem": version("wemem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "device": device.type,
        "device_name": device_name(device),
    }


def _notes(config: StudyConfig, outcomes: Sequence[Outcome]) -> list[str]:
    notes = [
        f"The audited model is the file {shipped.name}, SHA-256 {shipped.sha256}, by its answers in {shipped.runtime}."
        for shipped in (outcome.victim.shipped for outcome in outcomes)
        if shipped is not None
    ]
    if config.victim is not None:
        notes.append(
            "The victim's own training is not known to this study; its shadows and reference models were trained by "
            "the study's recipe and then pruned as the victim was."
        )
    return notes


def _on_privacy(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the accountant says of each arm that it is asked about, over its seeds."""
    arms: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for run in runs:
        if "privacy" in run:
            arms.setdefault((run["label"], round(run["sparsity"], 3)), []).append(run["privacy"])
    notes = []
    for (label, sparsity), told in arms.items():
        known = [privacy["epsilon"] for privacy in told if privacy["epsilon"] is not None]
        reasons = dict.fromkeys(privacy["note"] for privacy in told if "note" in privacy)
        ends = " to ".join(dict.fromkeys(f"{end:.3g}" for end in (min(known), max(known)))) if known else "not known"
        notes.append(
            f"{label}, {100 * sparsity:.3g} % sparsity: nominal ε {ends} at δ {told[0]['delta']:.2g}, which covers "
            f"{told[0]['covers']}{''.join(f'; {reason}' for reason in reasons)}."
        )
    return notes


def _run(
    outcome: Outcome, config: StudyConfig, data: Dataset, plain: Outcome | None
) -> dict[str, Any]:  # fmt: skip
    stage = outcome.victim
    told = list(stage.meta.get("rounds", []))
    dense = outcome.defense is None
    return {
        "defense": outcome.kind,
        "label": outcome.label,
        "settings": {} if outcome.defense is None else outcome.defense.settings,
        "seed": outcome.seed,
        "sparsity": told[-1]["sparsity"] if told else outcome.sparsity,
        "accuracy": _accuracies(outcome, config, data),
        "seconds": {
            "finetune": stage.seconds,
            "teachers": stage.teachers_seconds,
            "defense_overhead": None
            if dense or outcome.is_control or plain is None
            else stage.seconds + stage.teachers_seconds - plain.victim.seconds,
            "scores": outcome.scores.seconds if _scored(outcome) and outcome.scores else 0.0,
            "attacks": outcome.attack_seconds,
        },
        "records_seen": sum(r["records_seen"] for r in told),
        "peak_memory_mib": max((r["peak_memory_mib"] for r in told if r["peak_memory_mib"] is not None), default=None),
        "backend": stage.meta["backend"],
        "rounds": [{name: r[name] for name in ROUND} for r in told],
        **_privacy(outcome, config, told),
        "certificate": certificate(list(outcome.signals.values())),
        **_what_it_is(stage, data),
        **as_json(outcome.report, seed=outcome.seed),
        **({"non_adaptive": as_json(outcome.non_adaptive)["attacks"]} if outcome.non_adaptive else {}),
        **({"leave_one_out": dict(outcome.leave_one_out)} if outcome.leave_one_out else {}),
        **({"auto": {**outcome.tuned.summary, **_audited(outcome, config, data, plain)}} if outcome.tuned else {}),
    }


def _audited(
    outcome: Outcome, config: StudyConfig, data: Dataset, plain: Outcome | None
) -> dict[str, Any]:  # fmt: skip
    """Compare the run's own figures to its budget; its non-members are records that no search has used."""
    if outcome.tuned is None or not outcome.report.results:
        return {}
    budget = outcome.tuned.budget
    attack, tpr = outcome.report.worst(tpr_metric(budget.at_fpr))
    both = [_accuracies(one, config, data)["test"] for one in (plain, outcome) if one is not None]
    drop = None if plain is None else both[0] - both[1]
    lost = budget.max_accuracy_drop is not None and drop is not None and drop > budget.max_accuracy_drop
    leaks = budget.max_tpr is not None and tpr.value > budget.max_tpr
    unknown = budget.max_accuracy_drop is not None and drop is None and not leaks
    met = None if unknown else not (lost or leaks)
    return {"audited": {"accuracy_drop": drop, "tpr": tpr.value, "tpr_attack": attack.name, "met": met}}


def _privacy(outcome: Outcome, config: StudyConfig, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where the victim was fine-tuned by this study and under DP-SGD: what that is worth in theory."""
    if outcome.defense is None or not told:
        return {}
    records, steps = len(outcome.split.records(0, Role.TRAIN)), sum(r["steps"] for r in told)
    found = account(outcome.defense, records, config.finetune.batch_size, steps)
    return {} if found is None else {"privacy": found}


def _what_it_is(stage: TrainedModels, data: Dataset) -> dict[str, Any]:
    """What the victim costs, or which file it is if no more is known of it."""
    if stage.shipped is None:
        return {"footprint": asdict(footprint(stage.ensemble.module(0), data.input_shape))}
    return {"audited_file": {"name": stage.shipped.name, "sha256": stage.shipped.sha256}}


def certificate(all_signals: Sequence[Signals]) -> dict[str, Any]:
    """From the stored fingerprints: were all models the adversary used made exactly as the attacked one?"""
    return {
        "adaptive": bool(all_signals) and all(signals.adaptive for signals in all_signals),
        "victim_made_as": all_signals[0].provenance[0] if all_signals else UNKNOWN,
        "adversary_made_as": sorted({made for signals in all_signals for made in signals.provenance[1:]}),
        "models": sum(signals.num_models - 1 for signals in all_signals),
    }


def _scored(outcome: Outcome) -> bool:
    return outcome.defense is not None and outcome.defense.needs_scores


def _accuracies(outcome: Outcome, config: StudyConfig, data: Dataset) -> dict[str, Any]:
    """The victim's accuracy on its train, dev and non-member records; the last is the test accuracy."""
    found, device = {}, choose_device(config.device)
    for name, role in (("train", Role.TRAIN), ("dev", Role.DEV), ("test", Role.AUDIT)):
        records = outcome.split.records(0, role)
        found[name] = accuracy(outcome.victim.first(data.features[records], device), data.labels[records])
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
        columns[result.name] = result.output.score
        columns[f"{result.name}_called"] = result.output.score >= result.output.threshold
        if result.output.probability is not None:
            columns[f"{result.name}_probability"] = result.output.probability
        ranks.append(rankdata(result.output.score) / n)
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
        **as_json(found.report, seed=seed),
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


def write_results(out: Path, results: Mapping[str, Any], samples: pa.Table) -> None:
    """Write ``per_sample.parquet`` and, last of all, ``results.json`` into a folder: where it is, all is."""
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_atomically(out / "per_sample.parquet", lambda part: pyarrow.parquet.write_table(samples, part))
    write_atomically(out / "results.json", lambda part: part.write_text(text, encoding="utf-8"))
