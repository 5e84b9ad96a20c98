"""The commands as functions: each does what the command of its name does, and returns instead of
printing.

>>> from wemem import api
>>> results = api.run("studies/quickstart.toml", "runs/quickstart")  # doctest: +SKIP
>>> api.verify("runs/quickstart").passed  # doctest: +SKIP
True

A study is a :class:`~wemem.config.study.StudyConfig`, or the path of a study file. Paths are
strings or Path objects.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from wemem.config.attack_entries import make_attacks
from wemem.config.override import override_key
from wemem.config.parse import parse_study, read_table
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.diagnosis.diagnose import diagnose as diagnosed
from wemem.diagnosis.experiment import DiagnosisSettings
from wemem.diagnosis.results import diagnosis_content, remove_old_diagnosis, write_diagnosis
from wemem.errors import InputError
from wemem.execution.executor import Executor
from wemem.execution.forecast import planned
from wemem.execution.plan import Plan
from wemem.execution.program import AuditProgram, DiagnosisProgram, PruneProgram, StudyProgram
from wemem.exporting.footprint import side_by_side
from wemem.exporting.shards import weights_path
from wemem.files.input_files import user_path
from wemem.files.output_folder import output_folder
from wemem.pipeline.loading import load_data
from wemem.pipeline.progress import Progress, Silent
from wemem.resolve import Given
from wemem.results.black_box import black_box_results
from wemem.results.build import environment, study_results
from wemem.results.export_files import export_model
from wemem.results.folder import no_results_of_before, remove_old_results, write_results
from wemem.results.gate import FolderGate, Limits, check_folder
from wemem.results.model_files import pruning_summary, remove_old_model, write_model, write_pruned
from wemem.results.record_files import write_records
from wemem.results.sample_table import per_sample_table
from wemem.results.verify import Verified
from wemem.results.verify import verify as verify_folder
from wemem.store.location import location_beside
from wemem.store.store import Store
from wemem.study.black_box import audit_signals
from wemem.study.grid_search import select_settings
from wemem.study.outcome import Outcome
from wemem.study.plan import plan_in_words
from wemem.study.run import run_study
from wemem.study.single_model import audit_model, prune_model
from wemem.study.user_functions import audit_by_functions
from wemem.training import choose_device

#: A path as a user gives it, and a study or the path of its file.
Place = str | Path
Study = StudyConfig | str | Path

T = TypeVar("T", dict[str, Any], list[Any])


def read_study(
    path: Place | None,
    overrides: Sequence[str] = (),
    *,
    data: str | None = None,
    label: str | None = None,
    model: str | None = None,
    weights: Place | None = None,
    members: Place | None = None,
    defense: str | None = None,
    device: str | None = None,
) -> StudyConfig:
    """Read a study file with the options of the command line.

    Args:
        path: a TOML file; the defaults if None.
        overrides: ``key=value``, as in :func:`~wemem.config.override.override_key`; they win over
            the options.
        data: a data source in place of the study's; the other settings of the data stay.
        label: the label column of the data, in place of the study's.
        model: a model kind in place of the study's.
        weights: a trained model in place of one that the study trains.
        members: the records that the trained model was trained on.
        defense: the only defense, with its default settings unless the study has one of that label.
        device: the device to compute on.

    Raises:
        InputError: as :func:`~wemem.config.parse.load_study`, or weights without members.
    """
    if (weights is None) != (members is None):
        raise InputError("expected --weights and --members together; who was a member decides what an audit says")
    table = {} if path is None else read_table(Path(path))
    if data is not None:
        kept = {key: value for key, value in _part(table, "data", {}).items() if key != "path"}
        table["data"] = {**kept, "source": data}
    if label is not None:
        table["data"] = {**_part(table, "data", {}), "label": label}
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
    part = table.get(key, empty)
    if not isinstance(part, type(empty)):
        raise InputError(f"expected {key} to be a {type(empty).__name__}, got {part!r}")
    return part


def _stated(entries: list[Any], defense: str) -> dict[str, Any]:
    """The defense of that label in a study, or else the only one of that kind; if there is none,
    one of that kind.
    """
    tables = [entry for entry in entries if isinstance(entry, dict)]
    matching = [e for e in tables if e.get("label") == defense] or [e for e in tables if e.get("kind") == defense]
    if len(matching) > 1:
        raise InputError(f"expected one defense {defense!r} in the study, got {len(matching)}; give each a label")
    return matching[0] if matching else {"kind": defense}


def run(
    study: Study, out: Place, store: Place | None = None, progress: Progress | None = None, jobs: int = 1,
    ray: str | None = None, threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a study into a folder: ``results.json``, ``per_sample.parquet`` and ``models/``.

    Args:
        study: the study.
        out: the output directory, created if missing.
        store: the store of finished stages, a folder or a URL (:class:`~wemem.store.store.Store`).
            If None, the environment variable ``WEMEM_STORE``; if that is not set, ``.store`` beside
            ``out``, so that neighbours share.
        progress: receives every stage.
        jobs: number of processes, which share the cores; with several, or with ``ray``, the study
            must come from a table.
        ray: the address of a Ray cluster, or ``auto``; None without Ray.
        threads: the number of threads of each task; None as :class:`~wemem.execution.executor.Executor`
            has it.

    Returns:
        The content of ``results.json``, the same for any number of jobs and for Ray with the same
        number of threads each.

    Raises:
        InputError: anything that cannot be used, or a folder that cannot be written.
    """
    executor, config, progress = Executor(jobs, ray, threads), _config(study), progress or Silent()
    progress.tell(plan_in_words(config))
    with output_folder(out) as folder, no_results_of_before(folder, progress, _inputs(config)) as progress:
        data, root = load_data(config, progress), location_beside(store, folder)
        with executor.computed(StudyProgram(config), data, root, progress) as shown:
            return _run_alone(config, data, folder, Store(root, progress.warn), shown)


def compare(
    study: Study, out: Place, store: Place | None = None, progress: Progress | None = None, jobs: int = 1,
    ray: str | None = None, threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a study as :func:`run` does, and render its report into the same folder."""
    results = run(study, out, store, progress, jobs, ray, threads)
    report([out], out)
    return results


def plan(
    study: Study, store: Place | None = None, progress: Progress | None = None, threads: int | None = None
) -> Plan:
    """Plan a study: its tasks, those that are stored already, and the expected time on workers.

    Args:
        study: the study.
        store: where tasks are looked up; None for the store of ``WEMEM_STORE``, or an empty one.
        progress: receives the trials that measure the rates.
        threads: the number of threads of each task; one if None.
    """
    return planned(_config(study), store, progress or Silent(), threads or 1)


def report(folders: Sequence[Place], out: Place, limits: Limits | None = None) -> None:
    """Render the report of one folder of results, or of several on the same data, into a folder.

    Args:
        folders: output directories of studies or audits.
        out: the output directory, created if missing; it may be one of the folders.
        limits: those by which the report says whether a model may ship; a stated profile if None.
    """
    from wemem.reporting.report import write_report

    with output_folder(out) as folder:
        write_report([Path(source) for source in folders], folder, limits)


def gate(
    folder: Place, limits: Limits, labels: Sequence[str] = (), waivers: Sequence[str] = (), shipped: Place | None = None
) -> FolderGate:
    """Verify a folder of results and check its arms against limits
    (:func:`~wemem.results.gate.check_folder`).
    """
    return check_folder(Path(folder), limits, labels, waivers, None if shipped is None else Path(shipped))


def evidence(folder: Place, out: Place, author: str, written_at: str, limits: Limits | None = None) -> str:
    """Write a bundle of evidence on a folder of results
    (:func:`~wemem.evidence.bundle.write_bundle`).

    Returns:
        The SHA-256 of its manifest.
    """
    from wemem.evidence.bundle import write_bundle

    return write_bundle(Path(folder), Path(out), author, written_at, limits)


def verify(folder: Place) -> Verified:
    """Verify the hashes and the rates of a folder of results
    (:func:`~wemem.results.verify.verify`).
    """
    return verify_folder(Path(folder))


def diagnose(
    study: Study, out: Place, settings: DiagnosisSettings | None = None, store: Place | None = None,
    progress: Progress | None = None, jobs: int = 1, ray: str | None = None, threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Diagnose a study into a folder (:func:`~wemem.diagnosis.diagnose.diagnose`); what is no setting
    of the diagnosis is as in :func:`run`.

    Returns:
        The content of ``diagnosis.json``.
    """
    settings, config, progress = settings or DiagnosisSettings(), _config(study), progress or Silent()
    executor, program, clear = Executor(jobs, ray, threads), DiagnosisProgram(config, settings), remove_old_diagnosis
    with output_folder(out) as folder, no_results_of_before(folder, progress, _inputs(config), clear) as progress:
        data, root = load_data(config, progress), location_beside(store, folder)
        with executor.computed(program, data, root, progress) as shown:
            diagnosis = diagnosed(config, settings, Store(root, progress.warn), shown, data)
            content = diagnosis_content(config, data, diagnosis, environment(choose_device(config.device)))
        write_diagnosis(folder, content)
    return content


def _config(study: Study) -> StudyConfig:
    return study if isinstance(study, StudyConfig) else read_study(Path(study))


def _inputs(config: StudyConfig) -> list[Path | None]:
    """The files of a study that may be results of another."""
    names = (config.scores.file, *((config.victim.weights, config.victim.members) if config.victim else ()))
    return [None if name is None else user_path(name) for name in names]


def _run_alone(config: StudyConfig, data: Dataset, out: Path, kept: Store, progress: Progress) -> dict[str, Any]:
    selection = select_settings(config, kept, progress, data) if config.grids else None
    outcomes = list(run_study(selection.config if selection else config, kept, progress, data))
    results, samples = study_results(config, data, outcomes), per_sample_table(config, outcomes, data)
    if selection is not None:
        results["selection"] = selection.as_json()
    remove_old_results(out)
    files = [write_model(out / "models", outcome, data.class_names) for outcome in outcomes]
    for run, (weights, *_) in zip(results["runs"], files, strict=True):
        run["model_file"] = weights.relative_to(out).as_posix()
    return write_results(
        out, results, samples, [*(path for paths in files for path in paths), *write_records(out, outcomes)]
    )


def prune(
    study: Study, label: str, out: Place, store: Place | None = None, progress: Progress | None = None,
    jobs: int = 1, ray: str | None = None, threads: int | None = None,
) -> list[str]:  # fmt: skip
    """Prune the study's given model under one defense.

    The folder gets ``weights.safetensors``, the same without zeros in
    ``weights.sparse.safetensors``, ``masks.safetensors`` or, where channels were removed,
    ``weights.channels.json``, for a table ``preprocess.json``, and ``pruning.json``, which certifies
    the recipe and holds the model's costs before and after.

    Args:
        study: the study, with ``[victim]``.
        label: the defense of the study to prune under.
        out: the output directory, created if missing.
        store: the store of finished stages, as in :func:`run`.
        progress: receives every stage.
        jobs: the number of processes, as in :func:`run`.
        ray: the address of a Ray cluster, as in :func:`run`.
        threads: the number of threads of each task, as in :func:`run`.

    Returns:
        Sentences on what was done and how the model is loaded.
    """
    config, progress = _config(study), progress or Silent()
    remove = partial(remove_old_model, victim=config.victim.weights if config.victim else None)
    with output_folder(out) as folder, no_results_of_before(folder, progress, remove=remove) as progress:
        data, root = load_data(config, progress), location_beside(store, folder)
        with Executor(jobs, ray, threads).computed(PruneProgram(config, label), data, root, progress) as shown:
            pruned = prune_model(config, label, Store(root, progress.warn), shown, data)
        costs = side_by_side(pruned.dense.ensemble.module(0), pruned.stage.ensemble.module(0), pruned.input_shape)
        write_pruned(folder, config, pruned, costs)
    return pruning_summary(folder / "weights.safetensors", config, label, pruned, costs)


def export(study: Study, weights: Place, out: Place) -> list[str]:
    """Write a model's weights as ``model.onnx``, checked on the study's first records, and
    ``export.json`` beside it.

    Args:
        study: the study whose model and data are used.
        weights: the file of the weights, or its folder, as
            :func:`~wemem.exporting.checkpoint.load_pruned` takes it.
        out: the output directory, created if missing.

    Returns:
        Sentences on what was done.

    Raises:
        InputError: weights that do not fit the model, or a model that cannot be written as ONNX.
    """
    with output_folder(out) as folder:
        return export_model(_config(study), Path(weights), folder)


def audit(
    study: Study, label: str | None, out: Place, store: Place | None = None, progress: Progress | None = None,
    jobs: int = 1, ray: str | None = None, threads: int | None = None,
) -> tuple[dict[str, Any], pa.Table]:  # fmt: skip
    """Audit the study's given model.

    Args:
        study: the study, with ``[victim]``.
        label: the defense of the study under which the model was pruned; None if it was not.
        out: the output directory, created if missing.
        store: the store of finished stages, as in :func:`run`.
        progress: receives every stage.
        jobs: the number of processes, as in :func:`run`.
        ray: the address of a Ray cluster, as in :func:`run`.
        threads: the number of threads of each task, as in :func:`run`.

    Returns:
        The content of ``results.json`` and of ``per_sample.parquet``.
    """
    config, progress = _config(study), progress or Silent()
    with output_folder(out) as folder, no_results_of_before(folder, progress, _inputs(config)) as progress:
        data, root = load_data(config, progress), location_beside(store, folder)
        with Executor(jobs, ray, threads).computed(AuditProgram(config, label), data, root, progress) as shown:
            outcome = audit_model(config, label, Store(root, progress.warn), shown, data)
            results, samples = study_results(config, data, [outcome]), per_sample_table(config, [outcome], data)
            return _leave(folder, results, samples, [outcome])


def audit_outputs(
    signals: Place, attacks: str | Sequence[str], out: Place, seed: int = 0
) -> tuple[dict[str, Any], pa.Table]:
    """Audit a model by the outputs in a file (:func:`~wemem.study.black_box.audit_signals`)."""
    path = Path(signals)
    with output_folder(out) as folder:
        audited = audit_signals(path, make_attacks(attacks), seed=seed)
        return _leave(folder, *black_box_results(audited, path.name, seed, path))


def audit_functions(
    study: Study, predict: str | Given | None, train: str | Given, members: Place, out: Place,
    store: Place | None = None, progress: Progress | None = None, file: Place | None = None,
) -> tuple[dict[str, Any], pa.Table]:  # fmt: skip
    """Audit a model by its predictions (:func:`~wemem.study.user_functions.audit_by_functions`).

    ``file`` is that of the audited model, or its folder. Results keep its hash, so that a gate can
    tell whether it is the file that ships. With ``predict`` it is not loaded: that a function reads
    it is not checked. Without, its weights are put into the study's architecture.
    """
    config, progress, model = _config(study), progress or Silent(), None if file is None else weights_path(file)
    if model is not None and not model.is_file():
        raise InputError(f"expected the file of the audited model, got {model}, no file; name the one that ships")
    with output_folder(out) as folder, no_results_of_before(folder, progress, [Path(members), model]) as progress:
        kept = Store(location_beside(store, folder), progress.warn)
        audited = audit_by_functions(config, predict, train, Path(members), kept, progress, model)
        return _leave(folder, *black_box_results(audited, str(predict or model), config.seeds[0], model))


def _leave(
    folder: Path, results: Mapping[str, Any], samples: pa.Table, outcomes: Sequence[Outcome] = ()
) -> tuple[dict[str, Any], pa.Table]:
    remove_old_results(folder)
    return write_results(folder, results, samples, write_records(folder, outcomes)), samples
