"""The diagnosis of a study, on the objects of a program."""

from wemem import api
from wemem.diagnosis.experiment import DiagnosisSettings
from wemem.objects.code import ArchitectureLike
from wemem.objects.commands import Settings
from wemem.objects.inputs import (
    DataLike,
    Place,
    StudyLike,
    require_processes,
    study_of,
)
from wemem.objects.outcome import (
    DiagnosisResult,
)
from wemem.objects.output import OutputPlace, shown_progress
from wemem.pipeline.progress import Progress


def diagnose(
    study: StudyLike | None = None,
    *,
    data: DataLike | None = None,
    architecture: ArchitectureLike | None = None,
    models: int = 32,
    relevant: float = 0.02,
    top: float = 0.2,
    settings: Settings = None,
    out: Place | None = None,
    store: Place | None = None,
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> DiagnosisResult:
    """Find which drives memorization, data reuse or inherent memorability, and the defense that
    follows from it.

    Args:
        study: a study, its table, or its file; its defenses and attacks play no part.
        data: the records (:func:`~wemem.objects.inputs.loaded_data`), in place of the study's.
        architecture: a kind, a module or a factory, in place of the study's model.
        models: models of each controlled arm.
        relevant: the smallest effect on leakage that matters; 0.02 is 2 points.
        top: the share of the records that counts as memorable.
        settings: keys of the study set anew.
        out: the output directory; a temporary one that the result keeps if None.
        store: the store of finished stages, as in :func:`wemem.api.run`.
        jobs: the number of processes, as in :func:`~wemem.objects.commands.run`.
        ray: the address of a Ray cluster, as in :func:`~wemem.objects.commands.run`.
        threads: the number of threads of each task, as in :func:`~wemem.objects.commands.run`.
        progress: True for lines or a live display, False for none, or a receiver.

    Raises:
        InputError: anything that cannot be used.
    """
    config = study_of(study, settings, data=data, architecture=architecture)
    require_processes(config, jobs, ray)
    place = OutputPlace.of(out)
    with shown_progress(progress) as shown:
        content = api.diagnose(
            config, place.folder, DiagnosisSettings(models, relevant, top), store, shown, jobs, ray, threads
        )
    return DiagnosisResult(place.folder, content, place.keeper)
