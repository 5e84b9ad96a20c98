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

import torch

from benchmarks.gpu.record import Record, Row
from wemem import api


class OutOfTimeError(Exception):
    """The end of the time for a study; its stages so far are stored."""


class Watch:
    """Progress that measures every stage and ends the study at its deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.began = deadline, time.time()
        self.planned = self.done = self.work = self.fraction = 0.0
        self.stage, self.stage_began = "", 0.0
        self.stages: list[tuple[str, float, float]] = []
        self.messages: list[str] = []

    def plan(self, work: float) -> None:
        self.planned += work

    def begin(self, stage: str, work: float) -> None:
        self.stage, self.work, self.fraction, self.stage_began = stage, work, 0.0, time.time()

    def advance(self, fraction: float, detail: str) -> None:
        self.fraction = fraction

    def end(self, *, stored: bool) -> None:
        self.done, self.fraction = self.done + self.work, 0.0
        if not stored:
            self.stages.append((self.stage, self.work, round(time.time() - self.stage_began, 3)))
        self.work = 0.0

    def tell(self, message: str) -> None:
        self.messages.append(message)

    def warn(self, message: str) -> None:
        self.messages.append(message)

    def worker(self, number: int, workers: int) -> Self:
        return self

    def share(self) -> float:
        """The part of the planned work that is done."""
        return (self.done + self.work * self.fraction) / self.planned if self.planned else 0.0


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


def run_study(record: Record, task: Task, device: torch.device, out: Path) -> list[Row]:
    """Run a study until it ends or its time is over."""
    where = "cuda" if device.type == "cuda" else "cpu"
    watch, end = Watch(time.time() + min(task.seconds, record.left - 3)), ""
    config = api.read_study(task.path, list(task.overrides), device=where)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with interrupted(watch):
                api.run(config, Path(folder, "out"), progress=watch)
            shutil.copy(Path(folder, "out", "results.json"), out / f"{task.path.stem}-results.json")
        except OutOfTimeError as error:
            end = str(error)
    seconds, done = time.time() - watch.began, watch.share()
    row: dict[str, Any] = {
        "measure": task.path.stem, "study": task.path.stem, "device": where, "seconds": seconds, "done": done,
        "forecast": seconds / done if done else float("nan"), "finished": not end, "stopped": end,
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


def _by_kind(stages: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds by the first words of a stage's name, the largest first."""
    total: dict[str, float] = {}
    for stage, _, seconds in stages:
        kind = " ".join(word for word in stage.split() if not any(c.isdigit() for c in word))
        total[kind] = total.get(kind, 0.0) + seconds
    return dict(sorted(((k, round(v, 2)) for k, v in total.items()), key=lambda item: -item[1])[:8])
