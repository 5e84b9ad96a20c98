"""The commands as functions that take the objects of a program and return objects.

>>> import wemem
>>> result = wemem.audit(model, (x, y), members)  # doctest: +SKIP
>>> result.report("audit")  # doctest: +SKIP
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from wemem import api
from wemem.config.study import StudyConfig
from wemem.errors import InputError
from wemem.exporting.checkpoint import CERTIFICATE, EXPORTED
from wemem.files.documents import read_json
from wemem.objects.code import ArchitectureLike, anonymous, given_function
from wemem.objects.inputs import (
    AttackLike,
    DataLike,
    DefenseLike,
    MembersLike,
    Place,
    StudyLike,
    built_network,
    by_numbers,
    members_file,
    numbered_records,
    own_architecture,
    record_numbers,
    require_processes,
    study_of,
    weights_file,
)
from wemem.objects.outcome import (
    AuditResult,
    ExportResult,
    GateResult,
    Outcome,
    PruneResult,
    StudyResult,
    gate_outcome,
)
from wemem.objects.output import OutputPlace, shown_progress
from wemem.pipeline.progress import Progress
from wemem.resolve import resolve
from wemem.results.gate import Limits
from wemem.study.loops import NumberedPredict

Settings = Mapping[str, Any] | None


def audit(
    model: Place | nn.Module | Callable[..., Any] | None = None,
    data: DataLike | None = None,
    members: MembersLike | None = None,
    *,
    train: str | Callable[..., Any] | None = None,
    labels: Sequence[int] | None = None,
    file: Place | None = None,
    signals: Place | None = None,
    architecture: ArchitectureLike | None = None,
    defense: DefenseLike | None = None,
    attacks: AttackLike | Iterable[AttackLike] | None = None,
    study: StudyLike | None = None,
    settings: Settings = None,
    out: Place | None = None,
    store: Place | None = None,
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> AuditResult:
    """Attack one model and measure what it leaks about its training records.

    Three kinds of audit: of a model with ``model``, ``data`` and ``members``, where WeMem trains
    the adversary's models; by functions with ``train`` too, which makes them as the model was made;
    by outputs, with ``signals`` alone. An audit by functions is adaptive where ``train`` runs the
    loop of :class:`~wemem.PruningEngine` that made the model (:mod:`wemem.study.loops`).

    Args:
        model: a trained module, or the path of its weights or ONNX file; with ``train`` also a
            function from features to logits, or ``module:function``.
        data: the records (:func:`~wemem.objects.inputs.loaded_data`); the study's if None.
        members: numbers of the records that the model was trained on, or a file of them.
        train: ``train(features, labels, seed) -> predict`` or ``module:function``; ``predict`` maps
            features to logits, and may be a module.
        labels: the class of every record, in place of ``data``; then the functions are
            ``model(records) -> logits`` and ``train(records, seed) -> predict`` on record numbers,
            for data of any structure; each may be ``module:function``. A
            :class:`~wemem.blocks.RecordModel` is such a function.
        file: with ``train``, the file of ``model`` or its folder. Results keep its hash, and its
            certificate shows which loop made the model.
        signals: an ``.npz`` file with outputs of the model and of others.
        architecture: the architecture of ``model``; its own if ``model`` is a module.
        defense: the defense under which the model was pruned; None if it was not.
        attacks: a preset, or attacks; ``ten`` if neither this nor the study names any.
        study: the settings of training and pruning: a study, its table, or its file.
        settings: keys of the study set anew, such as ``{"split": {"shadows": 2}}``.
        out: the output directory; a temporary one that the result keeps if None.
        store: the store of finished stages, as in :func:`wemem.api.run`.
        jobs: the number of processes, as in :func:`run`.
        ray: the address of a Ray cluster, as in :func:`run`.
        threads: the number of threads of each task, as in :func:`run`.
        progress: True for lines or a live display, False for none, or a receiver.

    Raises:
        InputError: anything that cannot be used.
    """
    place = OutputPlace.of(out)
    if (signals is not None or train is not None) and (jobs != 1 or ray is not None):
        raise InputError("expected jobs or ray with a model alone, got outputs or a function too; leave it out")
    if signals is not None:
        if (model, data, members, train, labels, file) != (None,) * 6:
            raise InputError("expected signals alone, got a model, data or functions too; leave them out")
        listed = study_of({"data": {"source": "digits"}}, settings, attacks="ten" if attacks is None else attacks)
        entries = listed.table["attacks"]
        results, _ = api.audit_outputs(signals, entries, place.folder, listed.seeds[0])
        return AuditResult(place.folder, results, place.keeper)
    if model is None or members is None:
        raise InputError("expected a model and its members, or signals, got neither; the members decide what is a leak")
    if train is not None:
        study_on = partial(study_of, study, settings, architecture=architecture, attacks=attacks)
        return _audit_functions(model, data, members, train, labels, file, study_on, place, store, progress)
    if labels is not None or file is not None or not isinstance(model, str | Path | nn.Module):
        raise InputError("expected train with a predict function, labels or file, got none; add train(...) -> predict")
    architecture = own_architecture(architecture, model)
    with place.inputs() as inputs, shown_progress(progress) as shown:
        victim = weights_file(model, inputs), members_file(members, inputs)
        config = study_of(
            study, settings, data=data, architecture=architecture, defenses=defense, attacks=attacks, victim=victim
        )
        require_processes(config, jobs, ray)
        results, _ = api.audit(
            config, None if defense is None else config.labels[0], place.folder, store, shown, jobs, ray, threads
        )
    return AuditResult(place.folder, results, place.keeper)


def _audit_functions(
    model: Any, data: DataLike | None, members: MembersLike, train: str | Callable[..., Any],
    labels: Sequence[int] | None, file: Place | None, study_on: Callable[..., StudyConfig], place: OutputPlace,
    store: Place | None, progress: bool | Progress,
) -> AuditResult:  # fmt: skip
    """Audit by functions; on record numbers where labels stand in place of data."""
    trainer, predict = given_function(train), None
    if isinstance(model, str | Path) and Path(model).exists():
        if file is not None:
            raise InputError("expected one file of the audited model, got model and file; leave file out")
        file = model
    else:
        predict = given_function(str(model) if isinstance(model, Path) else model)
    if labels is not None:
        own, own_train = None if predict is None else resolve(predict), resolve(trainer)
        if data is not None or not callable(own) or isinstance(own, nn.Module) or not callable(own_train):
            raise InputError("expected labels with two functions of record numbers and no data, got another mix")
        data = numbered_records(labels)
        predict = anonymous(NumberedPredict(own, record_numbers), str(predict))
        # the records behind the numbers are not seen here, so that no stored output may be reused
        trainer = anonymous(by_numbers(own_train), str(trainer))
    config = study_on(data=data)
    with place.inputs() as inputs, shown_progress(progress) as shown:
        listed = members_file(members, inputs)
        results, _ = api.audit_functions(config, predict, trainer, listed, place.folder, store, shown, file)
    return AuditResult(place.folder, results, place.keeper)


def prune(
    model: Place | nn.Module,
    data: DataLike | None = None,
    members: MembersLike | None = None,
    *,
    defense: DefenseLike = "swmr",
    architecture: ArchitectureLike | None = None,
    study: StudyLike | None = None,
    settings: Settings = None,
    out: Place | None = None,
    store: Place | None = None,
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> PruneResult:
    """Prune one trained model under a defense.

    Args:
        model: a trained module, or the path of its weights.
        data: the records (:func:`~wemem.objects.inputs.loaded_data`); the study's if None.
        members: numbers of the records that the model was trained on, or a file of them.
        defense: an instance, a kind or a table.
        architecture: the architecture of ``model``; its own if ``model`` is a module.
        study: the settings of pruning: a study, its table, or its file.
        settings: keys of the study set anew, such as ``{"pruning": {"sparsity": 0.8}}``.
        out: the output directory; a temporary one that the result keeps if None.
        store: the store of finished stages, as in :func:`wemem.api.run`.
        jobs: the number of processes, as in :func:`run`.
        ray: the address of a Ray cluster, as in :func:`run`.
        threads: the number of threads of each task, as in :func:`run`.
        progress: True for lines or a live display, False for none, or a receiver.

    Raises:
        InputError: anything that cannot be used.
    """
    if members is None:
        raise InputError("expected the members of the model, got none; give the numbers of its training records")
    place = OutputPlace.of(out)
    architecture = own_architecture(architecture, model)
    with place.inputs() as inputs, shown_progress(progress) as shown:
        victim = weights_file(model, inputs), members_file(members, inputs)
        config = study_of(study, settings, data=data, architecture=architecture, defenses=defense, victim=victim)
        require_processes(config, jobs, ray)
        lines = api.prune(config, config.labels[0], place.folder, store, shown, jobs, ray, threads)
    certificate = read_json(place.folder / CERTIFICATE, "a certificate")
    return PruneResult(place.folder, certificate, place.keeper, tuple(lines), partial(built_network, config))


def run(
    study: StudyLike | None = None,
    *,
    data: DataLike | None = None,
    architecture: ArchitectureLike | None = None,
    defenses: DefenseLike | Iterable[DefenseLike] | None = None,
    attacks: AttackLike | Iterable[AttackLike] | None = None,
    settings: Settings = None,
    out: Place | None = None,
    store: Place | None = None,
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> StudyResult:
    """Prune under every defense of a study and attack every model.

    Args:
        study: a study, its table, or its file; the defaults if None.
        data: the records (:func:`~wemem.objects.inputs.loaded_data`), in place of the study's.
        architecture: a kind, a module or a factory, in place of the study's model.
        defenses: instances, kinds or tables, in place of the study's.
        attacks: a preset, or instances, kinds or tables, in place of the study's.
        settings: keys of the study set anew, such as ``{"seeds": [0, 1]}``.
        out: the output directory; a temporary one that the result keeps if None.
        store: the store of finished stages, as in :func:`wemem.api.run`.
        jobs: number of processes; one where data or model are in memory.
        ray: the address of a Ray cluster, or ``auto``; None without Ray, and where they are in memory.
        threads: the number of threads of each task, as in :func:`wemem.api.run`.
        progress: True for lines or a live display, False for none, or a receiver.

    Raises:
        InputError: anything that cannot be used.
    """
    config = study_of(study, settings, data=data, architecture=architecture, defenses=defenses, attacks=attacks)
    require_processes(config, jobs, ray)
    place = OutputPlace.of(out)
    with shown_progress(progress) as shown:
        results = api.run(config, place.folder, store, shown, jobs, ray, threads)
    return StudyResult(place.folder, results, place.keeper)


def compare(
    study: StudyLike | None = None,
    *,
    data: DataLike | None = None,
    architecture: ArchitectureLike | None = None,
    defenses: DefenseLike | Iterable[DefenseLike] | None = None,
    attacks: AttackLike | Iterable[AttackLike] | None = None,
    settings: Settings = None,
    out: Place | None = None,
    store: Place | None = None,
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> StudyResult:
    """Run a study as :func:`run` does, and render its report into the same folder."""
    result = run(
        study, data=data, architecture=architecture, defenses=defenses, attacks=attacks, settings=settings, out=out,
        store=store, jobs=jobs, ray=ray, threads=threads, progress=progress,
    )  # fmt: skip
    result.report(result.folder)
    return result


def report(
    results: Outcome | Place | Iterable[Outcome | Place],
    out: Place,
    *,
    max_tpr: float | None = None,
    at_fpr: float = 0.01,
    min_accuracy: float | None = None,
    max_auc: float | None = None,
) -> Path:
    """Render the report of one result, or of several on the same data, into a folder. With limits,
    it says whether the model may ship by them.

    Args:
        results: results of :func:`audit`, :func:`run` or :func:`compare`, or their output
            directories.
        out: the output directory, created if missing.
        max_tpr: largest TPR at the FPR below, as a fraction.
        at_fpr: the FPR of ``max_tpr``.
        min_accuracy: smallest test accuracy.
        max_auc: largest AUC.

    Returns:
        The page.
    """
    limits = Limits.if_given(max_tpr, at_fpr, min_accuracy, max_auc)
    api.report([_folder(one) for one in _several(results)], out, limits)
    return Path(out) / "report.html"


def gate(
    results: Outcome | Place | Iterable[Outcome | Place],
    *,
    max_tpr: float | None = None,
    at_fpr: float = 0.01,
    min_accuracy: float | None = None,
    max_auc: float | None = None,
    max_balanced_accuracy: float | None = None,
    max_canary_tpr: float | None = None,
    labels: Sequence[str] = (),
    waive: Sequence[str] = (),
    shipped: Place | None = None,
) -> GateResult:
    """Verify results and check what models leak and achieve against limits.

    Args:
        results: results of :func:`audit`, :func:`run` or :func:`compare`, or their output
            directories.
        max_tpr: largest TPR at the FPR below, as a fraction.
        at_fpr: the FPR of ``max_tpr``.
        min_accuracy: smallest test accuracy.
        max_auc: largest AUC.
        max_balanced_accuracy: largest balanced accuracy.
        max_canary_tpr: largest TPR on canaries at that FPR.
        labels: defenses to check; all if empty.
        waive: names of the reservations that are accepted.
        shipped: the model file to release.

    Raises:
        InputError: no limit, or results that were changed after they were written.
    """
    limits = Limits(max_tpr, at_fpr, min_accuracy, max_auc, max_balanced_accuracy, max_canary_tpr)
    folders = [_folder(one) for one in _several(results)]
    if not folders:
        raise InputError("expected results to check, got none; give a result or an output directory")
    return gate_outcome([api.gate(folder, limits, labels, waive, shipped) for folder in folders], waive)


def export(
    model: Place | nn.Module | PruneResult,
    data: DataLike | None = None,
    *,
    architecture: ArchitectureLike | None = None,
    study: StudyLike | None = None,
    settings: Settings = None,
    out: Place | None = None,
) -> ExportResult:
    """Write a model as ONNX and check it against PyTorch.

    Args:
        model: a trained module, the path of its weights, or the result of :func:`prune`.
        data: the records, whose first ones are the check.
        architecture: the architecture before pruning; that of ``model`` if it is a module.
        study: a study, its table, or its file.
        settings: keys of the study set anew.
        out: the output directory; a temporary one that the result keeps if None.

    Raises:
        InputError: weights that do not fit the architecture, or a model that cannot be written as
            ONNX.
    """
    place = OutputPlace.of(out)
    architecture = own_architecture(architecture, model)
    with place.inputs() as inputs:
        weights = model.folder if isinstance(model, PruneResult) else weights_file(model, inputs)
        lines = api.export(study_of(study, settings, data=data, architecture=architecture), weights, place.folder)
    return ExportResult(place.folder, read_json(place.folder / EXPORTED, "a certificate"), place.keeper, tuple(lines))


def _several(results: Outcome | Place | Iterable[Outcome | Place]) -> list[Outcome | Place]:
    return [results] if isinstance(results, Outcome | str | Path) else list(results)


def _folder(result: Outcome | Place) -> Path:
    return result.folder if isinstance(result, Outcome) else Path(result)
