"""The choice of an executor: in order, in processes of this machine, or on Ray."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.execution.processes import compute_side_by_side
from wemem.execution.program import Program
from wemem.pipeline.progress import Progress, Silent


@dataclass(frozen=True)
class Executor:
    """Where the tasks of a command run, and on how many threads each.

    Results are the same for every executor, as long as the number of threads is the same.

    Args:
        jobs: the number of processes of this machine.
        ray: the address of a Ray cluster, or ``auto``; None without Ray.
        threads: the number of threads of each task. None for those of PyTorch in one process, for
            an equal share of the cores in several, and for one on Ray.

    Raises:
        InputError: fewer than one process or thread, or both processes and Ray.

    >>> Executor(jobs=2, threads=1).is_in_order
    False
    """

    jobs: int = 1
    ray: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InputError(f"jobs must be at least 1, got {self.jobs}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, got {self.threads}")
        if self.jobs > 1 and self.ray is not None:
            raise InputError(f"expected either --jobs or --ray, got {self.jobs} jobs and {self.ray!r}; leave one out")

    @property
    def is_in_order(self) -> bool:
        """True if this process computes everything, one task after another."""
        return self.jobs == 1 and self.ray is None

    @contextmanager
    def threads_set(self) -> Iterator[None]:
        """The number of threads of each task, also in this process, so that keys agree."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads(before))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @contextmanager
    def computed(
        self, program: Program, data: Dataset, location: str | Path, progress: Progress
    ) -> Iterator[Progress]:  # fmt: skip
        """Compute what a program needs before the body, which reads it from the store.

        Where tasks run in order, the body computes it.

        Args:
            program: the program.
            data: the data of its study.
            location: the location of the store.
            progress: receives every stage.

        Yields:
            The receiver of the stages of the body.

        Raises:
            InputError, WorkerError: as :meth:`compute`.
        """
        with self.threads_set():
            if self.is_in_order:
                yield progress
                return
            self.compute(program, data, location, progress)
            progress.begin("put together what is in the store", 0)
            yield Silent()
            progress.end(stored=False)

    def compute(self, program: Program, data: Dataset, location: str | Path, progress: Progress) -> None:
        """Compute everything that a program needs into a store; nothing where tasks run in order.

        Args:
            program: the program.
            data: the data of its study.
            location: the location of the store.
            progress: receives every stage.

        Raises:
            InputError: Ray is not installed, or anything that cannot be used.
            WorkerError: anything else that went wrong in another process.
        """
        if self.ray is not None:
            try:
                from wemem.execution.ray import compute_on_ray
            except ImportError as error:
                raise InputError(f"--ray needs Ray, got {error}; pip install 'wemem[ray]'") from error
            compute_on_ray(program, data, location, progress, self.ray)
        elif self.jobs > 1:
            compute_side_by_side(program, data, location, progress, self.jobs)

    def _threads(self, usual: int) -> int:
        if self.threads is not None:
            return self.threads
        if self.ray is not None:
            return 1
        return usual if self.jobs == 1 else min(usual, max(1, cores() // self.jobs))


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
