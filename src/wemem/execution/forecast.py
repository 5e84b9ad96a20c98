"""A study's plan, with rates that are measured on this machine."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from wemem.config.study import StudyConfig
from wemem.execution.executor import Executor
from wemem.execution.plan import Plan, make_plan, planned_phases
from wemem.execution.trial import measured_rates
from wemem.pipeline.loading import load_data
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress, Silent
from wemem.store.store import Store
from wemem.study.feasibility import require_feasible_study


def planned(config: StudyConfig, location: str | Path | None, progress: Progress, threads: int) -> Plan:
    """Plan a study.

    Args:
        config: the study.
        location: the location of the store in which tasks are looked up; None for that of the
            environment, or an empty one.
        progress: receives the trials.
        threads: the number of threads of each task.

    Raises:
        InputError: a study, data or a store that cannot be used.
    """
    location = location or os.environ.get("WEMEM_STORE")
    with Executor(threads=threads).threads_set(), TemporaryDirectory(prefix="wemem-plan-") as empty:
        data, store = load_data(config, progress), Store(location or empty, progress.warn)
        require_feasible_study(Pipeline.open(config, data, store, Silent()))
        phases = planned_phases(config, data, store)
        return make_plan(config, phases, measured_rates(config, data, progress), threads)
