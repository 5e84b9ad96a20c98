"""Content of ``diagnosis.json``; its schema is :func:`diagnosis_schema`."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.diagnosis.design import BASE
from wemem.diagnosis.diagnose import Diagnosis
from wemem.diagnosis.scenario import Scenario
from wemem.files.atomic import write_atomically
from wemem.metrics.intervals import Estimate


def write_diagnosis(out: Path, content: Mapping[str, Any]) -> None:
    """Write ``diagnosis.json`` into a folder."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(out / "diagnosis.json", lambda part: part.write_text(text, encoding="utf-8"))


def remove_old_diagnosis(out: Path) -> None:
    """Remove the files of an earlier diagnosis from a folder."""
    for name in ("diagnosis.json", "diagnosis.html"):
        (out / name).unlink(missing_ok=True)


def diagnosis_content(
    config: StudyConfig, data: Dataset, diagnosis: Diagnosis, environment: Mapping[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """The content of ``diagnosis.json``.

    Args:
        config: the study.
        data: its records.
        diagnosis: the diagnosis.
        environment: the machine and the versions that computed it.
    """
    part, trust = diagnosis.exposures.part, diagnosis.scores.halves_correlation
    return {
        "schema": "wemem.diagnosis/2",
        "study": config.table,
        "environment": dict(environment),
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
