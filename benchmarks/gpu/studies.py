"""Studies on a GPU as far as time goes, with their rate and the time that the whole study would take."""

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch

from benchmarks.gpu.record import Record, Row
from wemem import api
from wemem.training.placement import PlacedStep
from wemem.training.run import Run


class OutOfTimeError(Exception):
    """The end of the time for a study; its stages so far are stored."""


class Watch:
    """Progress that measures every stage and ends the study at its deadline.

    Work is in models times records times epochs, as planned. Of the stage that runs, the records that were shown count,
    since early stopping makes the number of epochs uncertain.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline, self.began = deadline, time.time()
        self.planned = self.done = self.work = 0.0
        self.shown, self.shown_before, self.training = 0, 0, 0.0
        self.stage, self.stage_began = "", 0.0
        self.stages: list[tuple[str, float, float]] = []
        self.messages: list[str] = []

    def plan(self, work: float) -> None:
        self.planned += work

    def begin(self, stage: str, work: float) -> None:
        self.stage, self.work, self.stage_began, self.shown_before = stage, work, time.time(), self.shown

    def advance(self, fraction: float, detail: str) -> None: ...

    def end(self, *, stored: bool) -> None:
        self.done += self.work
        if not stored:
            self.training += self._in_training()
            self.stages.append((self.stage, self.work, round(time.time() - self.stage_began, 3)))
        self.work, self.shown_before, self.stage_began = 0.0, self.shown, time.time()

    def _in_training(self) -> float:
        """Seconds of the stage that runs, if it has shown records."""
        return time.time() - self.stage_began if self.shown > self.shown_before else 0.0

    def tell(self, message: str) -> None:
        self.messages.append(message)

    def warn(self, message: str) -> None:
        self.messages.append(message)

    def worker(self, number: int, workers: int) -> Self:
        return self

    def rate(self) -> float:
        """Records shown in a second of training; NaN before the first."""
        seconds = self.training + self._in_training()
        return self.shown / seconds if self.shown and seconds else float("nan")

    def left(self) -> float:
        """Planned records that are still to be shown."""
        return max(0.0, self.planned - self.done - min(self.work, self.shown - self.shown_before))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the records that are shown within this context."""
        step = Run.step

        def counted(run: Run, placed: PlacedStep, epoch: int) -> None:
            step(run, placed, epoch)
            self.shown += sum(placed.seen)

        with patch.object(Run, "step", counted):
            yield


@dataclass(frozen=True)
class Task:
    """A study to run.

    Args:
        path: the study file.
        overrides: settings in place of those of the file, ``key=value``.
        seconds: the largest number of seconds to spend.
    """

    path: Path
    overrides: Sequence[str]
    seconds: float


def run_study(record: Record, task: Task, device: torch.device, out: Path, store: Path) -> list[Row]:
    """Run a study until it ends or its time is over.

    The forecast is the time so far and that of training on the planned records that are left, by the rate so far. It
    has no attacks and queries to come.
    """
    where = "cuda" if device.type == "cuda" else "cpu"
    watch, end = Watch(time.time() + min(task.seconds, record.left - 3)), ""
    config = api.read_study(task.path, list(task.overrides), device=where)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with interrupted(watch), watch.counting():
                api.run(config, Path(folder, "out"), store, progress=watch)
            shutil.copy(Path(folder, "out", "results.json"), out / f"{task.path.stem}-results.json")
        except OutOfTimeError as error:
            end = str(error)
    seconds, rate = time.time() - watch.began, watch.rate()
    row: dict[str, Any] = {
        "measure": task.path.stem, "study": task.path.stem, "device": where, "seconds": seconds,
        "shown": watch.shown, "planned": watch.planned, "records/s": rate,
        "forecast": seconds + (watch.left() / rate if end else 0.0), "finished": not end, "stopped": end,
        "overrides": list(task.overrides), "slowest": _by_kind(watch.stages),
        "stages": watch.stages, "messages": watch.messages[:20],
    }  # fmt: skip
    return [row]


@contextmanager
def interrupted(watch: Watch) -> Iterator[None]:
    """End the work within this context at the deadline, also in a stage that reports nothing."""

    def stop(*_: object) -> None:
        began = watch.stage_began or watch.began
        raise OutOfTimeError(f"in {watch.stage or 'the preparation'}, which had run for {time.time() - began:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, watch.deadline - time.time()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class JobsTable:
    """A study in several processes on the device, each time from an empty store.

    Args:
        path: the study file.
        device: the device that all processes share.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._name = path.stem
        self._config = api.read_study(path, device="cuda" if device.type == "cuda" else "cpu")
        self._first: list[float] | None = None

    def run(self, jobs: int) -> list[Row]:
        """Run it in a number of processes, and compare its accuracies with those of the first number."""
        began = time.time()
        with tempfile.TemporaryDirectory() as folder:
            results = api.run(self._config, Path(folder, "out"), Path(folder, "store"), jobs=jobs)
        seconds, accuracies = time.time() - began, [run["accuracy"]["test"] for run in results["runs"]]
        self._first = self._first or accuracies
        same = accuracies == self._first
        name = f"{self._name}, {jobs} jobs"
        return [{"measure": name, "study": self._name, "jobs": jobs, "seconds": seconds, "same results": same}]


def _by_kind(stages: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds by the first words of a stage's name, the largest first."""
    total: dict[str, float] = {}
    for stage, _, seconds in stages:
        kind = " ".join(word for word in stage.split() if not any(c.isdigit() for c in word))
        total[kind] = total.get(kind, 0.0) + seconds
    return dict(sorted(((k, round(v, 2)) for k, v in total.items()), key=lambda item: -item[1])[:8])
