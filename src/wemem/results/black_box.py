"""Results of an audit by outputs alone, without the code that trained the models."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wemem.attacks import kind_of
from wemem.auditing.report import as_json
from wemem.data.split import Role
from wemem.files.hashing import file_sha256, sha256_of
from wemem.metrics.intervals import proportion
from wemem.notes import Note
from wemem.results.build import SCHEMA, answers_are_constant, certificate, environment, leaking
from wemem.results.sample_table import sample_rows
from wemem.signals import Signals
from wemem.study.black_box import BlackBoxAudit


def black_box_results(
    audit: BlackBoxAudit, name: str, seed: int, file: Path | None = None
) -> tuple[dict[str, Any], pa.Table]:
    """The content of ``results.json`` and of ``per_sample.parquet`` for an audit by outputs alone.

    Args:
        audit: the audit by outputs.
        name: the name of the audited file or function.
        seed: the seed of the attacks.
        file: the file with the outputs, or the file of the model behind the audited function, if
            one is known. Its hash is kept.
    """
    signals, study = audit.outputs, {"signals": name}
    correct = signals.logits[0].argmax(1) == signals.labels
    shares = {}
    for part, role in (("train", Role.TRAIN), ("test", Role.AUDIT)):
        rows = np.flatnonzero(signals.roles[0] == role)
        shares[part] = float(correct[rows].mean())
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
        "backend": {"backend": "none", "reason": Note("no_training").as_json()},
        "rounds": [],
        "certificate": certificate(list(audit.signals.values())),
        "model_file": None,
        "altered_answers": False,
        **({} if file is None else {"audited_file": {"name": file.name, "sha256": file_sha256(file)}}),
        **as_json(audit.report, seed=seed),
    }
    constant = (
        [Note("constant_answers", {"label": run["label"], "seed": seed})] if answers_are_constant(signals) else []
    )
    labels, right = _by_record(signals, signals.labels), _by_record(signals, correct)
    samples = sample_rows("audited model", seed, 0.0, audit.report, labels, None, right)
    digest = hashlib.sha256(np.ascontiguousarray(signals.logits).data).hexdigest()
    results = {
        "schema": SCHEMA,
        "study": study,
        "study_sha256": sha256_of(study),
        "planned": {
            "runs": {"audited model": 1},
            "seeds": [seed],
            "attacks": {label: kind_of(attack) for label, attack in audit.attacks.items()},
        },
        "files": {},
        "environment": environment(),
        "data": {
            "name": name,
            "fingerprint": digest,
            "records": len(signals.labels),
            "classes": signals.classes,
            "input_shape": [],
        },
        "notes": [
            note.as_json()
            for note in (audit.adaptivity, *audit.remarks, *audit.left_out, *constant, *leaking(audit.blind))
        ],
        "scores": [],
        **({"blind_baseline": list(audit.blind)} if audit.blind else {}),
        "runs": [run],
    }
    return results, samples


def _by_record(signals: Signals, values: np.ndarray) -> np.ndarray:
    """Values of the rows of some signals by the numbers of their records; 0 for other records."""
    placed = np.zeros(int(signals.records.max()) + 1, values.dtype)
    placed[signals.records] = values
    return placed
