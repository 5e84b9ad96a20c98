"""Content of ``diagnosis.json``; its schema is :func:`diagnosis_schema`."""

import json
import math
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.diagnosis.design import BASE
from wemem.diagnosis.diagnose import Diagnosis, DiagnosisSettings, diagnose
from wemem.diagnosis.scenario import Scenario
from wemem.files.atomic import require_folder, write_atomically
from wemem.metrics.intervals import Estimate
from wemem.pipeline.loading import load_data
from wemem.pipeline.progress import Progress, Silent
from wemem.results.build import environment
from wemem.results.folder import no_results_of_before
from wemem.store.location import location_beside
from wemem.store.store import Store
from wemem.training import choose_device


def diagnose_into(
    config: StudyConfig,
    settings: DiagnosisSettings,
    out: Path,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Diagnose a study and write ``diagnosis.json`` into a folder.

    Args:
        config: the study.
        settings: the settings of the diagnosis.
        out: the output directory; created if missing.
        store: the store of finished stages, as in :func:`wemem.api.run`.
        progress: the receiver of progress reports; silent if None.

    Returns:
        The content of the file.

    Raises:
        InputError: anything that cannot be used, or a folder that cannot be written.
    """
    out = require_folder(out)
    with no_results_of_before(out, progress or Silent(), remove=_remove_old_diagnosis) as watched:
        data = load_data(config, watched)
        diagnosis = diagnose(config, settings, Store(location_beside(store, out), watched.warn), watched, data)
    content = diagnosis_content(config, data, diagnosis)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(out / "diagnosis.json", lambda part: part.write_text(text, encoding="utf-8"))
    return content


def _remove_old_diagnosis(out: Path) -> None:
    for name in ("diagnosis.json", "diagnosis.html"):
        (out / name).unlink(missing_ok=True)


def diagnosis_content(config: StudyConfig, data: Dataset, diagnosis: Diagnosis) -> dict[str, Any]:
    """The content of ``diagnosis.json``."""
    part, trust = diagnosis.exposures.part, diagnosis.scores.halves_correlation
    return {
        "schema": "wemem.diagnosis/2",
        "study": config.table,
        "environment": environment(choose_device(config.device)),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "records": len(data), "classes": data.classes},
        "settings": {**asdict(diagnosis.settings), "seed": diagnosis.seed},
        "design": {
            "pool": len(diagnosis.exposures.pool),
            "records": int((part[0] >= BASE).sum()),
            "base": int((part[0] == BASE).sum()),
            "part": int((part[0] == 0).sum()),
            "rounds": diagnosis.exposures.rounds,
            "epochs": diagnosis.epochs,
            "sparsity": diagnosis.sparsity,
            "models": len(part),
        },
        "scores": {"models": diagnosis.scores.models, "halves_correlation": None if math.isnan(trust) else trust},
        "scenario": _scenario(diagnosis.scenario),
        "measured": [
            {
                **{name: getattr(one, name) for name in ("arm", "group", "round", "sparsity", "exposures", "pairs")},
                "leakage": _estimate(one.leakage),
                "memorization": _estimate(one.memorization),
            }
            for one in diagnosis.measured
        ],
        "comparisons": [
            {"name": name, "leakage": _estimate(leakage), "memorization": _estimate(memorization)}
            for name, (leakage, memorization) in diagnosis.comparisons.items()
        ],
        "controls": [{"name": name, "leakage": _estimate(leakage)} for name, leakage in diagnosis.controls.items()],
        "accuracy": dict(diagnosis.accuracy),
        "seconds": diagnosis.seconds,
    }


def diagnosis_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of ``diagnosis.json``.

    >>> diagnosis_schema()["properties"]["schema"]
    {'const': 'wemem.diagnosis/2'}
    """
    schema: dict[str, Any] = json.loads(files("wemem.diagnosis").joinpath("diagnosis.schema.json").read_text("utf-8"))
    return schema


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci": [estimate.low, estimate.high]}


def _scenario(scenario: Scenario) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "defense": scenario.defense,
        "snippet": scenario.snippet,
        "effects": [
            {"name": effect.name, **_estimate(effect.estimate), "decision": effect.decision}
            for effect in scenario.effects
        ],
    }
