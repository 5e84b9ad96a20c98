"""A study as a user holds it: read it, run it into a folder."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.study.config import StudyConfig, VictimSettings, load_study
from wemem.study.progress import Progress, Silent
from wemem.study.results import per_sample_table, study_results, write_atomically, write_results
from wemem.study.run import Outcome, run_study
from wemem.study.store import Store
from wemem.study.weights import write_weights


def read_study(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    weights: Path | None = None,
    members: Path | None = None,
) -> StudyConfig:
    """A study file with the options of the command line.

    Args:
        path: a TOML file.
        overrides: ``key=value``, as in :func:`~wemem.study.config.load_study`.
        data: another data source.
        weights: a trained model in place of one the study trains.
        members: the records it was trained on.

    Raises:
        InputError: as :func:`~wemem.study.config.load_study`, or weights without members.
    """
    if (weights is None) != (members is None):
        raise InputError("expected --weights and --members together; who was a member decides what an audit says")
    given = [] if data is None else [f"data={{source={data!r}}}"]
    config = load_study(path, [*given, *overrides])
    if weights is None or members is None:
        return config
    victim = VictimSettings(str(weights), str(members))
    return replace(config, victim=victim, table={**config.table, "victim": {"weights": str(weights), "members": str(members)}})


def run_into(config: StudyConfig, out: Path, store: Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Run a study and leave its files in a folder: ``results.json``, ``per_sample.parquet`` and ``models/``.

    Args:
        config: the study.
        out: the folder; made if it is not there.
        store: where stages are kept and looked up; ``.store`` beside ``out`` if None, so that neighbours share.
        progress: hears of every stage.

    Returns:
        The content of ``results.json``.

    Raises:
        InputError: anything that cannot be used, or a folder that cannot be written.
    """
    progress = progress or Silent()
    data = config.data.load()
    outcomes = []
    for outcome in run_study(config, Store(store or out.parent / ".store", progress.warn), progress, data):
        write_model(out / "models", outcome)
        outcomes.append(outcome)
    results = study_results(config, data, outcomes)
    write_results(out, results, per_sample_table(outcomes, data))
    return results


def write_model(folder: Path, outcome: Outcome) -> Path:
    """The victim's weights and, where it was pruned, its masks beside them; returns the weights file."""
    label = re.sub(r"[^A-Za-z0-9=+.-]+", "_", outcome.label).strip(".") or "model"
    name = label if outcome.defense is None else f"{label}-sparsity{outcome.sparsity}"
    path = folder / f"{name}-seed{outcome.seed}.safetensors"
    ensemble = outcome.victim.ensemble
    write_atomically(path, lambda part: write_weights(part, ensemble.state(0)))
    if ensemble.masks:
        masks = {key: mask[0] for key, mask in ensemble.masks.items()}
        write_atomically(path.with_suffix(".masks.safetensors"), lambda part: write_weights(part, masks))
    return path
