"""A folder of results that an honest study could have written: real numbers from planted scores, bound by hashes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from results_example import make_results, make_run
from wemem.attacks.base import AttackOutput
from wemem.auditing.leave_one_out import TargetRecords
from wemem.auditing.report import AttackResult, AuditReport, as_json
from wemem.files.hashing import sha256_of
from wemem.metrics.intervals import proportion
from wemem.metrics.over_targets import TargetsResult, metrics_over_targets, reference_accuracy
from wemem.results.content_hash import content_sha256
from wemem.results.folder import TARGETS, remove_old_results, write_results
from wemem.results.sample_table import sample_rows
from wemem.results.target_table import write_target_table

#: By arm, how far the scores of members lie above those of non-members, in standard deviations.
SAFE, LEAKY = 0.0, 2.0
ARMS = {"dense": 0.5, "rsw": SAFE, "swmr": SAFE}


def bound_folder(
    folder: Path, arms: Mapping[str, float] = ARMS, *, seeds: tuple[int, ...] = (0,), members: int = 400,
    nonmembers: int = 1500, attacks: tuple[str, ...] = ("confidence", "lira", "rmia"), adaptive: bool = True,
    references: int = 16, altered: bool = False, targets: int = 0, over_targets: float | None = None,
    leaks: Mapping[int, float] | None = None,
) -> Path:  # fmt: skip
    """Write results, records and model files as a study does, and return the folder.

    With ``targets``, LiRA and RMIA were run leave-one-out too; ``over_targets`` is their leak, that of the arm if None.
    ``leaks`` plants another leak in some seeds.
    """
    import pyarrow as pa

    remove_old_results(folder)
    results, runs, tables, models, audits = make_results(seeds, attacks), [], [], [], []
    for seed in seeds:
        for label, planted in arms.items():
            leak = (leaks or {}).get(seed, planted)
            rng = np.random.default_rng([seed, len(label)])
            report = planted_report(rng, leak, members, nonmembers, attacks, adaptive, references)
            correct = rng.random(members + nonmembers) < 0.7
            run = {**make_run(label, 0.7, 0.6, 0.1, seed, attacks, nonmembers), **as_json(report)}
            test = proportion(int(correct[members:].sum()), nonmembers)
            run["accuracy"].update(test=test.value, test_ci=[test.low, test.high], test_records=nonmembers)
            run["certificate"]["adaptive"] = adaptive
            run["seconds"]["attacks"] = float(rng.random())
            run["altered_answers"] = altered and label != "dense"
            path = folder / "models" / f"{label}-seed{seed}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.bytes(64))
            run["model_file"] = f"models/{path.name}"
            models.append(path)
            runs.append(run)
            if targets:
                records, fields = planted_targets(
                    seed, leak if over_targets is None else over_targets, targets, members + nonmembers
                )
                audits.append((label, seed, run["sparsity"], records))
                run.update(fields)
            labels = np.zeros(members + nonmembers, np.int64)
            tables.append(sample_rows(label, seed, run["sparsity"], report, labels, None, correct))
    results["runs"] = runs
    results["planned"]["runs"] = dict.fromkeys(arms, 1)
    results["study"] = {"name": "bound"}
    results["study_sha256"] = sha256_of(results["study"])
    if audits:
        write_target_table(folder / TARGETS, audits)
    write_results(folder, results, pa.concat_tables(tables), [*models, *([folder / TARGETS] if audits else [])])
    return folder


def planted_targets(seed: int, leak: float, targets: int, records: int) -> tuple[TargetRecords, dict[str, Any]]:
    """Two attacks on targets whose scores leak as far as is asked, and the fields of a run that follow from them."""
    rng = np.random.default_rng([seed, targets])
    member, correct = (rng.random((targets, records)) < share for share in (0.5, 0.8))
    scores = {name: {"score": rng.normal(0, 1, member.shape) + leak * member} for name in ("lira", "rmia")}
    metrics = metrics_over_targets()
    accuracy = reference_accuracy(correct, member, seed=seed)
    audits = {n: TargetsResult(n, arrays["score"], member, seed).summary(metrics) for n, arrays in scores.items()}
    fields = {"leave_one_out": audits, "reference_accuracy": {"targets": targets, **accuracy.as_comparable_json()}}
    return TargetRecords(np.arange(records), member, correct, scores), fields


def planted_report(
    rng: np.random.Generator, leak: float, members: int, nonmembers: int, attacks: tuple[str, ...], adaptive: bool,
    references: int,
) -> AuditReport:  # fmt: skip
    """Attacks whose scores leak as far as is asked; the last one the most."""
    member = np.arange(members + nonmembers) < members
    found = []
    for i, name in enumerate(attacks):
        score = rng.normal(0, 1, len(member)) + leak * (i + 1) / len(attacks) * member
        output = AttackOutput(score, np.full(len(member), 0.5))
        found.append(AttackResult(name, adaptive, references, output, member, np.arange(len(member))))
    return AuditReport(tuple(found))


def edit(folder: Path, change: Any, *, rehash: bool = True) -> None:
    """Change the content of a folder's ``results.json``, and its own hash with it, as a forger would who knows it."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    change(results)
    if rehash:
        results["content_sha256"] = content_sha256(results)
    path.write_text(json.dumps(results))
