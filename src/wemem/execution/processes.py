"""Worker processes that perform the tasks of a study in parallel and share one store.

Messages are JSON over pipes. The parent sends the table of the study and tasks; workers send
progress and errors. Models and results pass through the store alone. All processes use the same
number of threads, on which rounding depends. So what one of them stores is what the others would
compute.
"""

import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.execution.graph import Task, perform, selection_tasks, study_tasks
from wemem.execution.lifeline import serve_with_lifeline
from wemem.pipeline.loading import study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress, Silent
from wemem.store.store import Store
from wemem.study.feasibility import require_feasible_study
from wemem.study.grid_search import select_settings
from wemem.study.plan import cost_of, planned_work

#: Environment variables that set the number of threads of linear algebra libraries when they load.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Seconds that a process has to end after it was asked to terminate.
PATIENCE = 5.0


class WorkerError(RuntimeError):
    """An unforeseen error in a worker process.

    Args:
        trace: the traceback in the worker; its last line is the message, the whole is a note.
    """

    def __init__(self, trace: str) -> None:
        super().__init__(trace.strip().rpartition("\n")[2])
        self.add_note(trace)


def compute_side_by_side(config: StudyConfig, data: Dataset, root: str | Path, progress: Progress, jobs: int) -> None:
    """Compute everything that a study needs, in several processes, into a store.

    Args:
        config: the study; it must equal the one that is parsed from its table.
        data: the data of the study; each process loads them by itself.
        root: the location of the store.
        progress: the receiver of progress reports of all processes.
        jobs: the number of processes; each uses as many threads as this one.

    Raises:
        InputError: anything that cannot be used, in this process or another, or a process that was
            killed.
        WorkerError: anything else that went wrong in a process.
    """
    if not config.table or parse_study(config.table) != config:
        raise InputError("expected a study that a table gives, for several jobs, got another; use parse_study()")
    store = Store(root, progress.warn)
    require_feasible_study(Pipeline.open(config, data, store, Silent()))
    cost = cost_of(config, data)
    progress.plan(planned_work(cost))
    with Workers(jobs, root, progress) as workers:
        if config.grids:
            workers.do(config, selection_tasks(cost))
            config = select_settings(config, store, Silent(), data).config
        workers.do(config, study_tasks(replace(cost, config=config)))


@contextmanager
def threads_of(jobs: int) -> Iterator[None]:
    """Share the cores among some processes: fewer threads in each, this one included, so that
    results agree.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, max(1, cores() // jobs)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Context manager for worker processes, which start on demand and end on exit."""

    def __init__(self, jobs: int, root: str | Path, progress: Progress) -> None:
        self._jobs, self._root, self._progress = jobs, root, progress
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def do(self, config: StudyConfig, tasks: Sequence[Task]) -> None:
        """Perform all tasks of a study, each after the tasks that it depends on.

        Raises:
            InputError, WorkerError: as :func:`compute_side_by_side`.
        """
        waiting, done = list(tasks), set[Task]()
        finished: set[str] = set()  # stages; one that several tasks look up is reported once
        for worker in self._workers:
            worker.send({"study": config.table})
        while len(done) < len(tasks):
            ready = [task for task in waiting if done.issuperset(task.after)]
            for task in sorted(ready, key=lambda task: -task.expected_time):
                if (idle := self._idle(config)) is None:
                    break
                waiting.remove(task)
                idle.start(task)
            for connection in wait([worker.connection for worker in self._workers]):
                worker = next(w for w in self._workers if w.connection is connection)
                if (ended := worker.hear(finished)) is not None:
                    done.add(ended)

    def _idle(self, config: StudyConfig) -> "_Worker | None":
        """An idle process, newly started if allowed; None if all are busy."""
        idle = next((worker for worker in self._workers if worker.task is None), None)
        if idle is None and len(self._workers) < self._jobs:
            number = len(self._workers) + 1
            with _environment(torch.get_num_threads()), _interrupts_ignored():
                idle = _Worker(number, self._root, self._progress.worker(number, self._jobs))
            self._workers.append(idle)
            idle.send({"study": config.table})
        return idle


class _Worker:
    """Connection of the parent to one worker process."""

    def __init__(self, number: int, root: str | Path, progress: Progress) -> None:
        self.number, self.progress = number, progress
        self.task: Task | None = None
        self.stage = ""  # that it is in; empty if nothing is shown
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=serve_with_lifeline, args=(other, str(root), torch.get_num_threads()), daemon=True
        )
        self.process.start()
        other.close()

    def send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it was killed; the next hear() raises the error
            self.connection.send_bytes(json.dumps(message).encode())

    def start(self, task: Task) -> None:
        self.task = task
        self.send({"task": [task.what, task.seed, task.label, task.place]})

    def hear(self, finished: set[str]) -> Task | None:
        """One message; the task, if that is what it ended.

        Raises:
            InputError, WorkerError: as :func:`compute_side_by_side`.
        """
        try:
            kind, *payload = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death() from error
        match kind:
            case "begin":
                self.stage = "" if payload[0] in finished else payload[0]
                if self.stage:
                    self.progress.begin(*payload)
            case "advance":
                if self.stage:
                    self.progress.advance(*payload)
            case "end":
                if self.stage:
                    self.progress.end(stored=payload[0])
                    finished.add(self.stage)
            case "tell" | "warn":
                {"tell": self.progress.tell, "warn": self.progress.warn}[kind](*payload)
            case "refused":
                raise InputError(*payload)
            case "broken":
                raise WorkerError(*payload)
            case "done":
                ended, self.task = self.task, None
                return ended
        return None

    def _death(self) -> InputError:
        self.process.join(PATIENCE)
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        at = f" in the stage {self.stage!r}" if self.stage else ""
        return InputError(
            f"expected worker {self.number} to finish its task, but its process {how}{at}; if memory ran out, give "
            "fewer --jobs; what was finished is in the store, and the same command goes on from there"
        )


class _Reporting(Silent):
    """Sender of progress reports to the parent process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def report(self, *message: object) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def begin(self, stage: str, work: float) -> None:
        self.report("begin", stage, work)

    def advance(self, fraction: float, detail: str) -> None:
        self.report("advance", fraction, detail)

    def end(self, *, stored: bool) -> None:
        self.report("end", stored)

    def tell(self, message: str) -> None:
        self.report("tell", message)

    def warn(self, message: str) -> None:
        self.report("warn", message)


def serve(connection: Connection, root: str, threads: int) -> None:
    """Perform tasks from the pipe until its other end is closed.

    Args:
        connection: the pipe to the process that started this one.
        root: the location of the store.
        threads: the number of threads, on which rounding depends.
    """
    torch.set_num_threads(threads)
    reporting = _Reporting(connection)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            _do_tasks(connection, root, reporting)
        except InputError as error:
            reporting.report("refused", str(error))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            reporting.report("broken", traceback.format_exc())


def _do_tasks(connection: Connection, root: str, reporting: _Reporting) -> None:
    data: Dataset | None = None
    message = json.loads(connection.recv_bytes())
    while True:
        config = parse_study(message["study"])
        data = study_data(config) if data is None else data
        pipeline = Pipeline.open(config, data, Store(root, reporting.warn), reporting)
        parties: Parties | None = None
        while "task" in (message := json.loads(connection.recv_bytes())):
            what, seed, label, place = message["task"]
            if parties is None or parties.seed != seed:
                parties = Parties.of(pipeline, seed)
            perform(parties, Task(what, seed, label, place))
            reporting.report("done")


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Number of threads for processes that are started here."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started here leave Ctrl-C to this one, from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
