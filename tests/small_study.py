"""A study of seconds, for the end-to-end tests."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np

FEATURES, CLASSES, RECORDS = 8, 3, 600


def write_data(folder: Path, *, noise: float = 2.0, random_labels: bool = False, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    labels = np.arange(RECORDS) % CLASSES
    features = rng.normal(0, 1, (CLASSES, FEATURES))[labels] + rng.normal(0, noise, (RECORDS, FEATURES))
    if random_labels:
        labels = rng.permutation(labels)
    path = folder / "data.npz"
    part = folder / f"part-{os.getpid()}.npz"  # another process may be reading the file
    np.savez(part, x=features.astype(np.float32), y=labels)
    part.replace(path)
    return path


def table(data: Path, **changed: Any) -> dict[str, Any]:
    study = {
        "seeds": [0],
        "attacks": ["confidence", "entropy", "lira"],
        "data": {"source": str(data)},
        "model": {"kind": "fc", "hidden": [24, 12]},
        "split": {"shadows": 2, "references": 4},
        "scores": {"models": 10},
        "training": {"epochs": 3, "batch_size": 32},
        "finetune": {"epochs": 2, "batch_size": 32},
        "pruning": {"rounds": 3},
        "defenses": ["undefended", "swmr"],
        "controls": [],
    }
    return copy.deepcopy(study) | changed


def as_toml(study: dict[str, Any]) -> str:
    """TOML of the tables above: scalars first, then tables, then arrays of tables."""
    lines = [f"{k} = {literal(v)}" for k, v in study.items() if not isinstance(v, dict)]
    for name, values in study.items():
        if isinstance(values, dict):
            lines += [f"[{name}]", *(f"{k} = {literal(v)}" for k, v in values.items())]
    return "\n".join(lines) + "\n"


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {literal(v)}" for k, v in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """Results that must not depend on the machine's mood."""
    kept = copy.deepcopy(results)
    for part in [*kept["runs"], *kept["scores"]]:
        part.pop("seconds")
        part.pop("peak_memory_mib", None)
        part.get("auto", {}).pop("seconds", None)
    for one in kept.get("selection", {}).get("candidates", []):
        one.pop("seconds")
    return kept
