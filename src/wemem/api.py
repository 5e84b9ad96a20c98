"""A study as a user holds it: read it, run it into a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from wemem.config.attack_entries import make_attacks
from wemem.config.defense_entries import file_name
from wemem.config.override import override_key
from wemem.config.parse import parse_study, read_table
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import FreshStart
from wemem.errors import InputError
from wemem.execution.processes import compute_side_by_side, threads_of
from wemem.export.checkpoint import (
    CERTIFICATE,
    EXPORTED,
    certificate_of,
    channels_of,
    channels_path,
    load_pruned,
    read_certificate,
    write_weights,
)
from wemem.export.footprint import footprint_lines, side_by_side
from wemem.export.onnx import BATCH, onnx_bytes
from wemem.export.sparse import sparse_bytes
from wemem.files.atomic import write_atomically
from wemem.files.hashing import file_sha256
from wemem.files.input_files import is_folder, user_path
from wemem.files.output_folder import output_folder
from wemem.pipeline.loading import load_data, study_data
from wemem.pipeline.progress import Progress, Silent
from wemem.results.black_box import black_box_results
from wemem.results.build import environment, study_results
from wemem.results.folder import remove_old_results, write_results
from wemem.results.sample_table import per_sample_table
from wemem.store.store import Store
from wemem.study.black_box import audit_signals
from wemem.study.grid_search import select_settings
from wemem.study.outcome import Outcome
from wemem.study.run import run_study
from wemem.study.single_model import Pruned, audit_model, prune_model
from wemem.study.user_functions import audit_by_functions
from wemem.training import Ensemble, choose_device
from wemem.tuning.wording import tuning_in_words

T = TypeVar("T", dict[str, Any], list[Any])


def read_study(
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    model: str | None = None,
    weights: Path | None = None,
    members: Path | None = None,
    defense: str | None = None,
    device: str | None = None,
) -> StudyConfig:
    """A study file with the options of the command line.

    Args:
        path: a TOML file; the defaults if None.
        overrides: ``key=value``, as in :func:`~wemem.config.override.override_key`; they win over the options.
        data: another data source.
        model: another model kind.
        weights: a trained model in place of one the study trains.
        members: the records it was trained on.
        defense: the only defense, with its default settings unless the study has one of that label.
        device: where to compute.

    Raises:
        InputError: as :func:`~wemem.config.parse.load_study`, or weights without members.
    """
    if (weights is None) != (members is None):
        raise InputError("expected --weights and --members together; who was a member decides what an audit says")
    table = {} if path is None else read_table(path)
    if data is not None:
        table["data"] = {"source": data}
    if model is not None:
        table["model"] = {"kind": model}
    if device is not None:
        table["device"] = device
    if weights is not None:
        table["victim"] = {**_part(table, "victim", {}), "weights": str(weights), "members": str(members)}
    if defense is not None:
        table["defenses"] = [{**_stated(_part(table, "defenses", []), defense), "label": defense}]
    for override in overrides:
        override_key(table, override)
    return parse_study(table)


def _part(table: dict[str, Any], key: str, empty: T) -> T:
    found = table.get(key, empty)
    if not isinstance(found, type(empty)):
        raise InputError(f"expected {key} to be a {type(empty).__name__}, got {found!r}")
    return found


def _stated(entries: list[Any], defense: str) -> dict[str, Any]:
    """The defense of that label in a study, or else the only one of that kind; if there is none, one of that kind."""
    tables = [entry for entry in entries if isinstance(entry, dict)]
    found = [e for e in tables if e.get("label") == defense] or [e for e in tables if e.get("kind") == defense]
    if len(found) > 1:
        raise InputError(f"expected one defense {defense!r} in the study, got {len(found)}; give each a label")
    return found[0] if found else {"kind": defense}


def run_into(
    config: StudyConfig, out: Path, store: Path | None = None, progress: Progress | None = None, jobs: int = 1
) -> dict[str, Any]:
    """Run a study and leave its files in a folder: ``results.json``, ``per_sample.parquet`` and ``models/``.

    Args:
        config: the study.
        out: the folder; made if it is not there.
        store: where stages are kept and looked up; ``.store`` beside ``out`` if None, so that neighbours share.
        progress: hears of every stage.
        jobs: processes that work side by side and share the cores; with several, the study must come from a table.

    Returns:
        The content of ``results.json``, the same for any number of jobs with the same number of threads each.

    Raises:
        InputError: anything that cannot be used, or a folder that cannot be written.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
    progress = progress or Silent()
    with output_folder(out) as folder:
        data, root = load_data(config, progress), store or folder.parent / ".store"
        if jobs == 1:
            return _run_alone(config, data, folder, Store(root, progress.warn), progress)
        with threads_of(jobs):
            compute_side_by_side(config, data, root, progress, jobs)
            progress.begin("put together what is in the store", 0)
            results = _run_alone(config, data, folder, Store(root, progress.warn), Silent())
            progress.end(stored=False)
            return results


def _run_alone(config: StudyConfig, data: Dataset, out: Path, kept: Store, progress: Progress) -> dict[str, Any]:
    selection = select_settings(config, kept, progress, data) if config.grids else None
    outcomes = list(run_study(selection.config if selection else config, kept, progress, data))
    results, samples = study_results(config, data, outcomes), per_sample_table(config, outcomes, data)
    if selection is not None:
        results["selection"] = selection.as_json()
    remove_old_results(out)
    files = [write_model(out / "models", outcome) for outcome in outcomes]
    for run, (weights, *_) in zip(results["runs"], files, strict=True):
        run["model_file"] = weights.relative_to(out).as_posix()
    return write_results(out, results, samples, [path for paths in files for path in paths])


def write_model(folder: Path, outcome: Outcome) -> list[Path]:
    """Write the victim's weights and, where it was pruned, its masks or channels beside them.

    Returns:
        The files, the weights first.
    """
    label = file_name(outcome.label)
    name = label if outcome.defense is None else f"{label}-sparsity{outcome.sparsity}"
    path = folder / f"{name}-seed{outcome.seed}.safetensors"
    return _write_weights(path, outcome.victim.ensemble, path.with_suffix(".masks.safetensors"))


def _write_weights(path: Path, ensemble: Ensemble, masks_path: Path) -> list[Path]:
    """Write the first model's weights and, beside them, which weights or channels are left of the dense model."""
    for stale in (masks_path, channels_path(path)):
        stale.unlink(missing_ok=True)
    write_atomically(path, lambda part: write_weights(part, ensemble.state(0)))
    if ensemble.masks:
        masks = {key: mask[0] for key, mask in ensemble.masks.items()}
        write_atomically(masks_path, lambda part: write_weights(part, masks))
    if ensemble.channels:
        text = channels_of(path, ensemble)
        write_atomically(channels_path(path), lambda part: part.write_text(text, encoding="utf-8"))
    return [path, *(file for file in (masks_path, channels_path(path)) if file.exists())]


def prune_into(
    config: StudyConfig, label: str, out: Path, store: Path | None = None, progress: Progress | None = None
) -> list[str]:
    """Prune the study's given model under one defense and leave its files in a folder.

    They are ``weights.safetensors``, the same compact in ``weights.sparse.safetensors``, ``masks.safetensors`` or,
    where channels were removed, ``weights.channels.json``, and ``pruning.json``, which tells how they were made and
    what the model costs before and after.

    Returns:
        What was done and how to load it, in sentences.
    """
    progress = progress or Silent()
    with output_folder(out) as folder:
        pruned = prune_model(config, label, Store(store or folder.parent / ".store", progress.warn), progress)
        costs = side_by_side(pruned.dense.ensemble.module(0), pruned.stage.ensemble.module(0), pruned.input_shape)
        _write_pruned(folder, config, pruned, costs)
    return _pruning_summary(folder / "weights.safetensors", config, label, pruned, costs)


def _write_pruned(out: Path, config: StudyConfig, pruned: Pruned, costs: Mapping[str, Any]) -> None:
    ensemble, rounds = pruned.stage.ensemble, pruned.stage.meta["rounds"]
    made_with = environment(choose_device(config.device))
    payload = {"study": config.table, "environment": made_with, "rounds": rounds, "footprint": costs}
    if pruned.tuned is not None:
        payload["auto"] = pruned.tuned.summary
    _write_weights(out / "weights.safetensors", ensemble, out / "masks.safetensors")
    compact = sparse_bytes(ensemble.state(0))
    write_atomically(out / "weights.sparse.safetensors", lambda part: part.write_bytes(compact))
    certificate = certificate_of(out / "weights.safetensors", pruned.stage.provenance[0], payload)
    write_atomically(out / CERTIFICATE, lambda part: part.write_text(certificate, encoding="utf-8"))


def _pruning_summary(
    weights: Path, config: StudyConfig, label: str, pruned: Pruned, costs: Mapping[str, Any]
) -> list[str]:  # fmt: skip
    rounds = pruned.stage.meta["rounds"]
    accuracy = f"dev accuracy {100 * rounds[-1]['dev_accuracy']:.1f} %"
    if rounds[-1]["test_accuracy"] is not None:
        accuracy += f", accuracy on the records it was not trained on {100 * rounds[-1]['test_accuracy']:.1f} %"
    lines = [f"Pruned to sparsity {rounds[-1]['sparsity']:.4f} under {label}: {accuracy}."]
    if pruned.defense.capability(FreshStart) is not None:
        lines.append("It starts from new weights: of the given model only the architecture was used.")
    if pruned.dev_from_training:
        lines.append("The dev records were training records, so the dev accuracy flatters; bring records it never saw.")
    file = str(weights)
    load = f"model.load_state_dict(safetensors.torch.load_file({file!r}))"
    if pruned.stage.ensemble.channels:
        load = f"wemem.load_pruned(model, {file!r})"
    tuning = tuning_in_words(pruned.tuned.summary) if pruned.tuned else []
    return [*tuning, *lines, *footprint_lines(costs), f"Load it: {load}"]


def export_into(config: StudyConfig, weights: Path, out: Path) -> list[str]:
    """Write a model's weights as ``model.onnx``, checked on the study's first records, and ``export.json`` beside it.

    Args:
        config: the model and data of the study are used.
        weights: its file, or a folder, as :func:`~wemem.export.checkpoint.load_pruned` takes it.
        out: the folder; made if it is not there.

    Returns:
        What was done, in sentences.

    Raises:
        InputError: weights that do not fit the model, or a model that cannot be written as ONNX.
    """
    with output_folder(out) as folder:
        return _export(config, weights, folder)


def _export(config: StudyConfig, weights: Path, out: Path) -> list[str]:
    weights = weights / "weights.safetensors" if is_folder(weights, "weights") else user_path(weights)
    data = study_data(config)
    notes: list[str] = []
    module = load_pruned(config.model.build(data.input_shape, data.classes), weights, notes.append)
    content, parity = onnx_bytes(module, data.features[:BATCH])
    path = out / "model.onnx"
    write_atomically(path, lambda part: part.write_bytes(content))
    told = {"source_sha256": file_sha256(weights), "parity": asdict(parity), "environment": environment()}
    certificate = certificate_of(path, read_certificate(weights), told, "wemem.export/1")
    write_atomically(out / EXPORTED, lambda part: part.write_text(certificate, encoding="utf-8"))
    return [
        *(f"{note[0].upper()}{note[1:]}." for note in notes),
        f"Wrote {path}, {len(content):,} bytes, SHA-256 {file_sha256(path)}.",
        f"On {parity.records} records its logits are within {parity.difference:.1e} of PyTorch's; {parity.allowed:.1e} "
        "is allowed.",
    ]


def audit_into(
    config: StudyConfig, label: str | None, out: Path, store: Path | None = None, progress: Progress | None = None
) -> tuple[dict[str, Any], pa.Table]:
    """Audit the study's given model and leave ``results.json`` and ``per_sample.parquet`` in a folder."""
    progress = progress or Silent()
    with output_folder(out) as folder:
        data = load_data(config, progress)
        kept = Store(store or folder.parent / ".store", progress.warn)
        outcome = audit_model(config, label, kept, progress, data)
        results, samples = study_results(config, data, [outcome]), per_sample_table(config, [outcome], data)
        return _leave(folder, results, samples)


def audit_outputs_into(
    signals: Path, attacks: str | Sequence[str], out: Path, seed: int = 0
) -> tuple[dict[str, Any], pa.Table]:
    """Audit a model by the outputs in a file (:func:`~wemem.study.black_box.audit_signals`)."""
    with output_folder(out) as folder:
        audited = audit_signals(signals, make_attacks(attacks), seed=seed)
        return _leave(folder, *black_box_results(audited, signals.name, seed, signals))


def audit_functions_into(
    config: StudyConfig, predict: str, train: str, members: Path, out: Path, store: Path | None, progress: Progress
) -> tuple[dict[str, Any], pa.Table]:
    """Audit a model by its predictions (:func:`~wemem.study.user_functions.audit_by_functions`)."""
    with output_folder(out) as folder:
        kept = Store(store or folder.parent / ".store", progress.warn)
        audited = audit_by_functions(config, predict, train, members, kept, progress)
        return _leave(folder, *black_box_results(audited, predict, config.seeds[0]))


def _leave(folder: Path, results: Mapping[str, Any], samples: pa.Table) -> tuple[dict[str, Any], pa.Table]:
    remove_old_results(folder)
    return write_results(folder, results, samples), samples
