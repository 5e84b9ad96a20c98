"""The plan of a study, on the objects of a program."""

from wemem import api
from wemem.api import Place
from wemem.execution.plan import Plan
from wemem.objects.code import ArchitectureLike
from wemem.objects.commands import Settings
from wemem.objects.inputs import DataLike, StudyLike, study_of
from wemem.objects.output import shown_progress
from wemem.pipeline.progress import Progress


def plan(
    study: StudyLike | None = None,
    *,
    data: DataLike | None = None,
    architecture: ArchitectureLike | None = None,
    settings: Settings = None,
    store: Place | None = None,
    threads: int | None = None,
    progress: bool | Progress = True,
) -> Plan:
    """Plan a study before it runs: tasks, models, expected time on 1 to 512 workers.

    Args:
        study: a study, its table, or its file; the defaults if None.
        data: the records, in place of the study's.
        architecture: a kind, a module or a factory, in place of the study's model.
        settings: keys of the study set anew.
        store: the store in which tasks are looked up, as in :func:`wemem.api.plan`.
        threads: the number of threads of each task; one if None.
        progress: True for lines or a live display, False for none, or a receiver.

    Raises:
        InputError: anything that cannot be used.
    """
    config = study_of(study, settings, data=data, architecture=architecture)
    with shown_progress(progress) as shown:
        return api.plan(config, store, shown, threads)
