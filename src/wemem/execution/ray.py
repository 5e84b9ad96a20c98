"""Ray as an executor: tasks on one machine or on a cluster, through one store.

Ray places the tasks, takes up those of lost workers and lost nodes again, and holds the data set
once per node. Each task is JSON in and JSON out: no object of this package travels, and what a task
computes goes through the store. The driver hands Ray the ready nodes of the graph, those on the
longest path first, and a few more than run at once, so that no core waits.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wemem.data.dataset import Dataset
from wemem.errors import DivergedError, InputError
from wemem.execution.graph import Frontier, Node
from wemem.execution.memory import TaskMemory
from wemem.execution.processes import THREADS, WorkerError
from wemem.execution.program import Program
from wemem.execution.remote import data_message, perform_remotely, setup_message
from wemem.execution.reporting import TaskProgress
from wemem.execution.todo import Todo, work_of
from wemem.execution.worker import task_message
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress, Silent
from wemem.store.store import Store
from wemem.training import choose_device

#: Attempts at a task after one whose worker or node was lost.
RETRIES = 8
#: Seconds between two looks at what tasks report.
PAUSE = 0.2
#: Seconds in which the head of a cluster must answer.
ANSWERED = 10.0
#: Seconds without a running task after which a line says what each of them takes.
WAITED = 60.0
#: Tasks that Ray holds beyond those that run, as a multiple of the latter.
AHEAD = 1.0


def compute_on_ray(
    program: Program, data: Dataset, location: str | Path, progress: Progress, address: str, gpu_share: float = 1.0
) -> None:
    """Compute everything that a program needs on Ray, into a store that all nodes reach.

    Args:
        program: the program; its study must equal the one that is parsed from its table.
        data: the data of the study.
        location: the location of the store.
        progress: the receiver of progress reports of all tasks.
        address: the address of a cluster; ``auto`` for one that is known here, or else for a Ray of
            this machine that ends with the call.
        gpu_share: the part of a GPU that one task takes, where the study computes on one.

    Raises:
        InputError: no cluster answers, a node has other versions or does not reach the store, a
            worker died too often, or anything that cannot be used.
        WorkerError: anything else that went wrong in a task.
    """
    store = Store(location, progress.warn)
    with _connected(address):
        for todo in work_of(program, data, store, progress):
            _Run(todo, data, store, location, progress, gpu_share).complete()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection to Ray, with the number of threads of this process in every worker."""
    if address != "auto":
        _require_answer(address)
    variables = {**dict.fromkeys(THREADS, str(torch.get_num_threads())), "PYTHONWARNINGS": "ignore"}
    before = signal.getsignal(signal.SIGTERM)
    try:
        # as a Ray of this machine, it serves no page and asks nothing of the network
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address=None if address == "auto" else address, include_dashboard=None if address != "auto" else False,
            log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": variables},
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError, RayError, OSError) as error:
        ray.shutdown()
        raise InputError(
            f"expected a Ray cluster at {address!r}, got {' '.join(str(error).split())[:200]}; start one with ray "
            "start, or use --ray auto for this machine"
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # Ray has set its own
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address at which nothing answers; Ray itself would try again for minutes.

    Raises:
        InputError: no host and port, or nobody there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(
            f"expected the address of a cluster's head as HOST:PORT, or auto, got {address!r}; run the command on a "
            "machine of the cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERED).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"expected a Ray cluster at {address!r}, got no answer ({error}); start one with ray start, or use --ray "
            "auto for this machine"
        ) from error


@dataclass
class _Flight:
    """A task that Ray holds.

    Args:
        number: the number of its node in the graph.
        slot: the number under which it is displayed.
        shown: shows what it reports.
        place: the name of the machine that it runs on; empty before it started.
    """

    number: int
    slot: int
    shown: TaskProgress
    place: str = ""


class _Run:
    """One phase of a program on a cluster."""

    def __init__(
        self, todo: Todo, data: Dataset, store: Store, location: str | Path, progress: Progress, gpu_share: float
    ) -> None:
        self._graph, self._store, self._progress = todo.graph, store, progress
        self._frontier = Frontier(todo.graph, todo.run)
        self._setup = setup_message(todo.program, location)
        about = data_message(data)
        self._data = [None] * 3 if about is None else [ray.put(one) for one in (about, data.features, data.labels)]
        here = ray.get_runtime_context().get_node_id()
        self._reports = _REPORTS.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)).remote()
        self._flights: dict[Any, _Flight] = {}
        self._idle_since: float | None = time.monotonic()
        gpus = gpu_share if choose_device(todo.program.config.device).type == "cuda" else 0.0
        self._resources = {"num_cpus": torch.get_num_threads(), "num_gpus": gpus}
        self._memory = TaskMemory.of(Pipeline.open(todo.program.config, data, store, Silent()))

    def complete(self) -> None:
        """Perform all tasks; on the way out of an error or an interrupt, end those that run."""
        try:
            while self._frontier.left:
                self._submit()
                self._collect()
        finally:
            for task in self._flights:
                with suppress(RayError):
                    ray.cancel(task, force=True)
            ray.kill(self._reports)

    def _submit(self) -> None:
        """Hand ready tasks to Ray, up to a few more than run at once."""
        at_once = _places(self._resources)
        most = at_once + max(1, round(AHEAD * at_once))
        while len(self._flights) < most and (number := self._frontier.take()) is not None:
            node = self._graph.nodes[number]
            taken = {flight.slot for flight in self._flights.values()}
            slot = next(slot for slot in range(1, most + 1) if slot not in taken)
            options = {**self._resources, "memory": min(self._memory.of_task(node), _largest_memory())}
            task = _PERFORM.options(max_retries=RETRIES, **options).remote(
                self._setup, *self._data, json.dumps(task_message(node)), number, self._reports
            )
            self._flights[task] = _Flight(number, slot, TaskProgress(self._progress.worker(slot, at_once), node))

    def _collect(self) -> None:
        """Wait a moment for tasks to end, and show what all of them report."""
        ended, _ = ray.wait(list(self._flights), num_returns=1, timeout=PAUSE)
        if ended:
            ended, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=0)
        answers = [(self._flights[task], _answer(task)) for task in ended]
        self._show()
        for task in ended:
            del self._flights[task]
        for flight, answer in answers:
            self._require_done(self._graph.nodes[flight.number], answer)
            self._frontier.done(flight.number)
        stored = [key for flight, _ in answers for key in self._graph.nodes[flight.number].stores]
        if stored and len(self._store.present(stored)) < len(set(stored)):
            raise InputError(
                f"expected the results of {', '.join(sorted({answer['place'] for _, answer in answers}))} in the "
                "store, got none there; give a --store that every node reaches, such as a shared folder or a bucket"
            )

    def _show(self) -> None:
        """Show what tasks have reported since the last look."""
        flights = {flight.number: flight for flight in self._flights.values()}
        with suppress(RayActorError):
            for line in ray.get(self._reports.drain.remote()):
                number, place, *message = json.loads(line)
                if (flight := flights.get(number)) is None:
                    continue
                if message[0] == "start":
                    if flight.place:
                        title = self._graph.nodes[number].title
                        self._progress.tell(f"{title}: begun again on {place}, its worker on {flight.place} was lost")
                    flight.place = place
                else:
                    flight.shown.show(*message)
        self._warn_of_waiting()

    def _warn_of_waiting(self) -> None:
        """Warn once if no node has taken a task for a while; no node may be large enough."""
        if any(flight.place for flight in self._flights.values()):
            self._idle_since = time.monotonic()
        elif self._idle_since is not None and time.monotonic() - self._idle_since > WAITED:
            self._idle_since = None
            takes = f"{self._resources['num_cpus']} cores" + (" and a GPU" if self._resources["num_gpus"] else "")
            largest = max((node["Resources"].get("CPU", 0.0) for node in _nodes()), default=0.0)
            self._progress.warn(
                f"no node has taken a task for {WAITED:.0f} s: each takes {takes}, and the largest node has "
                f"{largest:.0f} cores; wait for nodes, or give fewer --threads"
            )

    def _require_done(self, node: Node, answer: Mapping[str, str]) -> None:
        match answer["state"]:
            case "diverged":
                raise DivergedError(answer["text"])
            case "refused":
                raise InputError(answer["text"])
            case "broken":
                raise WorkerError(answer["text"])
            case "lost":
                raise InputError(
                    f"expected the task {node.title!r} to end, but its worker was lost {RETRIES + 1} times, at last "
                    f"by: {answer['text']}; if memory ran out, give more of it to each node; what was finished is in "
                    "the store, and the same command goes on from there"
                )


def _answer(task: Any) -> dict[str, str]:
    """The answer of a task that has ended."""
    try:
        answer: dict[str, str] = json.loads(ray.get(task))
        return answer
    except RayTaskError as error:  # code before our own failed, such as an import
        return {"state": "broken", "text": str(error), "place": ""}
    except RayError as error:
        return {"state": "lost", "text": " ".join(str(error).split())[:300], "place": ""}


def _places(resources: Mapping[str, float]) -> int:
    """The number of tasks that the cluster can run at once."""
    known: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    places = known.get("CPU", 1.0) / resources["num_cpus"]
    if resources["num_gpus"]:
        places = min(places, known.get("GPU", 0.0) / resources["num_gpus"])
    return max(1, int(places))


def _largest_memory() -> int:
    """The memory of the largest node, beyond which no request could be met; the trainer divides its
    models itself where they do not fit.
    """
    return int(0.9 * max((node["Resources"].get("memory", 0.0) for node in _nodes()), default=0.0))


def _nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that are alive."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


class _Reports:
    """Reports of tasks, until the driver takes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, lines: list[str]) -> None:
        """Take the reports of one task."""
        self._lines += lines

    def drain(self) -> list[str]:
        """Give the reports that came since the last call."""
        lines, self._lines = self._lines, []
        return lines


def _perform(
    setup: str, about: str | None, features: np.ndarray | None, labels: np.ndarray | None, task: str, number: int,
    reports: Any,
) -> str:  # fmt: skip
    """Perform one task in a worker process of Ray (:func:`perform_remotely`)."""
    return perform_remotely(setup, about, features, labels, task, number, reports.add.remote)


_REPORTS: Any = ray.remote(num_cpus=0)(_Reports)
_PERFORM: Any = ray.remote(_perform)
