"""Worker processes that perform the tasks of a program in parallel and share one store.

Messages are JSON over pipes. The parent sends the names of the program and of tasks; workers send
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from wemem.data.dataset import Dataset
from wemem.errors import DivergedError, InputError
from wemem.execution.graph import Frontier, Node
from wemem.execution.lifeline import serve_with_lifeline
from wemem.execution.program import Program
from wemem.execution.reporting import Reporting, TaskProgress
from wemem.execution.todo import Todo, work_of
from wemem.execution.worker import Worker, program_message, task_message
from wemem.pipeline.progress import Progress
from wemem.store.store import Store

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


def compute_side_by_side(program: Program, data: Dataset, root: str | Path, progress: Progress, jobs: int) -> None:
    """Compute everything that a program needs, in several processes, into a store.

    Args:
        program: the program; its study must equal the one that is parsed from its table.
        data: the data of the study; each process loads them by itself.
        root: the location of the store.
        progress: the receiver of progress reports of all processes.
        jobs: the number of processes; each uses as many threads as this one.

    Raises:
        InputError: anything that cannot be used, in this process or another, or a process that was
            killed.
        WorkerError: anything else that went wrong in a process.
    """
    with Workers(jobs, root, progress) as workers:
        for todo in work_of(program, data, Store(root, progress.warn), progress):
            workers.do(todo)


class Workers:
    """Context manager for worker processes, which start on demand and end on exit."""

    def __init__(self, jobs: int, root: str | Path, progress: Progress) -> None:
        self._jobs, self._root, self._progress = jobs, root, progress
        self._workers: list[_Process] = []

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

    def do(self, todo: Todo) -> None:
        """Perform all tasks of a phase, each after the tasks that it depends on.

        Raises:
            InputError, WorkerError: as :func:`compute_side_by_side`.
        """
        nodes, frontier = todo.graph.nodes, Frontier(todo.graph, todo.run)
        program = program_message(todo.program)
        for worker in self._workers:
            worker.send({"program": program})
        while frontier.left:
            while (number := frontier.take()) is not None:
                if (idle := self._idle(program)) is None:
                    frontier.put_back(number)
                    break
                idle.start(number, nodes[number])
            for connection in wait([worker.connection for worker in self._workers]):
                worker = next(w for w in self._workers if w.connection is connection)
                if (ended := worker.receive()) is not None:
                    frontier.done(ended)

    def _idle(self, program: dict[str, Any]) -> "_Process | None":
        """An idle process, newly started if allowed; None if all are busy."""
        idle = next((worker for worker in self._workers if worker.number_of_task is None), None)
        if idle is None and len(self._workers) < self._jobs:
            number = len(self._workers) + 1
            with _environment(torch.get_num_threads()), _interrupts_ignored():
                idle = _Process(number, self._root, self._progress.worker(number, self._jobs))
            self._workers.append(idle)
            idle.send({"program": program})
        return idle


class _Process:
    """Connection of the parent to one worker process."""

    def __init__(self, number: int, root: str | Path, progress: Progress) -> None:
        self.number, self.progress = number, progress
        self.number_of_task: int | None = None
        self.shown = TaskProgress(progress)
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=serve_with_lifeline, args=(other, str(root), torch.get_num_threads()), daemon=True
        )
        self.process.start()
        other.close()

    def send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it was killed; the next receive() raises the error
            self.connection.send_bytes(json.dumps(message).encode())

    def start(self, number: int, node: Node) -> None:
        self.number_of_task = number
        self.shown = TaskProgress(self.progress, node)
        self.send({"task": task_message(node)})

    def receive(self) -> int | None:
        """One message; the number of the task, if that is what it ended.

        Raises:
            InputError, WorkerError: as :func:`compute_side_by_side`.
        """
        try:
            kind, *payload = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death() from error
        match kind:
            case "refused":
                raise InputError(*payload)
            case "diverged":
                raise DivergedError(*payload)
            case "broken":
                raise WorkerError(*payload)
            case "done":
                ended, self.number_of_task = self.number_of_task, None
                return ended
            case _:
                self.shown.show(kind, *payload)
        return None

    def _death(self) -> InputError:
        self.process.join(PATIENCE)
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        at = f" in the stage {self.shown.stage!r}" if self.shown.stage else ""
        return InputError(
            f"expected worker {self.number} to finish its task, but its process {how}{at}; if memory ran out, give "
            "fewer --jobs; what was finished is in the store, and the same command goes on from there"
        )


def serve(connection: Connection, root: str, threads: int) -> None:
    """Perform tasks from the pipe until its other end is closed.

    Args:
        connection: the pipe to the process that started this one.
        root: the location of the store.
        threads: the number of threads, on which rounding depends.
    """
    torch.set_num_threads(threads)
    reporting = Reporting(lambda message: connection.send_bytes(json.dumps(message).encode()))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            _do_tasks(connection, root, reporting)
        except InputError as error:
            reporting.send("diverged" if isinstance(error, DivergedError) else "refused", str(error))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            reporting.send("broken", traceback.format_exc())


def _do_tasks(connection: Connection, root: str, reporting: Reporting) -> None:
    message = json.loads(connection.recv_bytes())
    while True:
        worker = Worker.of(message["program"], root, reporting)
        while "task" in (message := json.loads(connection.recv_bytes())):
            worker.perform(message["task"])
            reporting.send("done")


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
