"""The work of one worker: it builds the stages of a task from names, and computes what is missing.

A task is JSON: the program by name, the seed and group of a stage, and its key. Results go through
the store. Data and parties stay in the worker from one task to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.execution.graph import Node, find_task
from wemem.execution.program import PROGRAMS, Program
from wemem.pipeline.loading import study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pipeline.stage import Stage
from wemem.store.store import Store
from wemem.study.groups import Group
from wemem.training.device import CudaSettings, cuda_settings, use_cuda_settings


def task_message(node: Node) -> dict[str, Any]:
    """The name of a node's stage, as JSON."""
    return {"seed": node.seed, "group": [node.group.what, node.group.label, node.group.place], "key": str(node.key)}


def program_message(program: Program) -> dict[str, Any]:
    """The name of a program and the settings of GPUs in force here, as JSON."""
    return {"command": program.command, "cuda": asdict(cuda_settings()), **program.as_json()}


class Worker:
    """Computes stages of one program.

    Args:
        program: the program.
        location: the location of the store.
        progress: receives every stage.
        data: the data of the study; loaded if None.
        cuda: the settings of GPUs under which it computes; those in force here if None.
    """

    def __init__(
        self, program: Program, location: str | Path, progress: Progress, data: Dataset | None = None,
        cuda: CudaSettings | None = None,
    ) -> None:  # fmt: skip
        self._program, self._cuda = program, cuda or cuda_settings()
        self._data = study_data(program.config) if data is None else data
        self._store, self._progress = Store(location, progress.warn), progress
        self._parties: Parties | None = None
        self._group: tuple[int, Group] | None = None
        self._stages: Sequence[Stage[Any]] = ()

    @classmethod
    def of(
        cls, message: Mapping[str, Any], location: str | Path, progress: Progress, data: Dataset | None = None
    ) -> Self:  # fmt: skip
        """The worker for a message (:func:`program_message`); the other arguments are as above."""
        program = PROGRAMS[message["command"]].from_json(message)
        return cls(program, location, progress, data, CudaSettings(**message["cuda"]))

    def perform(self, task: Mapping[str, Any]) -> None:
        """Make sure that the store has what a task leaves.

        Args:
            task: the name of the stage (:func:`task_message`).

        Raises:
            InputError: this process would compute something else than the one that named the task,
                or anything that cannot be used.
        """
        group = Group(*task["group"])
        if self._parties is None or self._parties.seed != task["seed"]:
            pipeline = Pipeline.open(self._program.config, self._data, self._store, self._progress)
            self._parties, self._group = self._program.parties(pipeline, task["seed"]), None
        if self._group != (task["seed"], group):
            self._stages, self._group = self._program.stages(self._parties, group), (task["seed"], group)
        stage = find_task(self._stages, task["key"])
        if stage is None:
            raise InputError(
                f"expected the task {task['key'][:12]} of {group.what} {group.label}, got none of that key: this "
                "process has other data or another version; give all processes the same files and versions"
            )
        self._store.forget(stage.stores)  # other machines need them too
        with use_cuda_settings(self._cuda):
            stage.ensure()
