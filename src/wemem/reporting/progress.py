"""A running study on the console: a live display on a terminal, one plain line per finished stage
elsewhere.
"""

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wemem.results.wording import duration, printable

#: Finished stages that stay in sight, and the widest that the display gets.
HISTORY, WIDTH = 5, 100


@dataclass(frozen=True)
class Stage:
    """A stage that runs: its name, its share of the planned work, when it began, how far it is, and
    where that is.
    """

    name: str
    work: float
    began: float
    fraction: float = 0.0
    detail: str = ""

    @property
    def done(self) -> float:
        """Work."""
        return min(1.0, max(0.0, self.fraction)) * self.work


@dataclass(frozen=True)
class Done:
    """The stages that have ended, with their seconds and the sums.

    Args:
        lines: the last stages, each with its seconds or where it was found.
        stages: number of stages in all.
        stored: number of them that were in the store.
        work: the work of all stages.
        worked: the work of those that were not in the store, ...
        seconds: ... and the time that took, ...
        training: ... and that of training and pruning, the stages that have work.
    """

    lines: tuple[tuple[str, str], ...] = ()
    stages: int = 0
    stored: int = 0
    work: float = 0.0
    worked: float = 0.0
    seconds: float = 0.0
    training: float = 0.0

    def then(self, stage: Stage, seconds: float, *, stored: bool) -> "Done":
        """The same with one more stage."""
        line = (stage.name, "found in store" if stored else duration(seconds))
        return Done(
            lines=(*self.lines, line)[-HISTORY:],
            stages=self.stages + 1,
            stored=self.stored + stored,
            work=self.work + stage.work,
            worked=self.worked + (0.0 if stored else stage.work),
            seconds=self.seconds + (0.0 if stored else seconds),
            training=self.training + (0.0 if stored or not stage.work else seconds),
        )


def time_left(todo: float, worked: float, seconds: float) -> float | None:
    """Seconds for the work that is left, at the pace so far; None within the first second, which is
    mostly warm-up.

    >>> time_left(todo=300.0, worked=100.0, seconds=20.0)
    60.0
    """
    return todo * seconds / worked if worked > 0 and seconds >= 1 else None


class LiveProgress:
    """Shows a study's :class:`~wemem.pipeline.progress.Progress`; a context manager.

    Stages found in the store count as done, but not in the speed from which the time left is
    forecast. Stages that will still be found there are not known, so that a study may finish sooner.
    A report replaces one value, which the display reads eight times a second.

    Args:
        console: where to show it.

    >>> with LiveProgress(Console(width=80)) as progress:
    ...     progress.plan(2.0)
    ...     progress.begin("dense models, seed 0", 1.0)
    ...     progress.end(stored=True)
     50 %  dense models, seed 0: found in store
    1 stage in 0.0 s, 1 of them found in store
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._began = console.get_time()
        self._planned = 0.0
        self._done = Done()
        self._running: dict[int, Stage] = {}  # by the number of the process, 0 if it is this one
        self._processes = 1

    def __enter__(self) -> Self:
        self._began = self._console.get_time()
        if self._console.is_terminal and self._console.is_interactive:
            self._live = Live(console=self._console, get_renderable=self._display, refresh_per_second=8)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            # What was going on when it broke stays in sight.
            self._live.transient = error is None
            self._live.stop()
        if error is None and self._done.stages:
            self._say(self._summary())

    def plan(self, work: float) -> None:
        """The work of everything to come."""
        self._planned = self._done.work + work

    def begin(self, stage: str, work: float) -> None:
        """A stage starts."""
        self.begin_in(0, stage, work)

    def advance(self, fraction: float, detail: str) -> None:
        """Show the position of the stage; cheap enough for every step."""
        self.advance_in(0, fraction, detail)

    def end(self, *, stored: bool) -> None:
        """The stage is done.

        Raises:
            RuntimeError: none began.
        """
        self.end_in(0, stored=stored)

    def tell(self, message: str) -> None:
        """One line, above the display."""
        self._say(printable(message))

    def warn(self, message: str) -> None:
        """One line, above the display."""
        self._say(f"warning: {printable(message)}", style="yellow" if self._live else None)

    def worker(self, number: int, workers: int) -> "WorkerProgress":
        """The display of one of several processes."""
        self._processes = workers
        return WorkerProgress(self, number)

    def begin_in(self, process: int, stage: str, work: float) -> None:
        """A stage starts in one of several processes."""
        self._running[process] = Stage(printable(stage), work, self._console.get_time())

    def advance_in(self, process: int, fraction: float, detail: str) -> None:
        """Show the position of the stage of one of several processes."""
        if (stage := self._running.get(process)) is not None:
            self._running[process] = replace(stage, fraction=fraction, detail=detail)

    def end_in(self, process: int, *, stored: bool) -> None:
        """The stage of one of several processes is done.

        Raises:
            RuntimeError: none began.
        """
        stage = self._running.pop(process, None)
        if stage is None:
            raise RuntimeError("expected begin() before end()")
        self._done = self._done.then(stage, self._console.get_time() - stage.began, stored=stored)
        if self._live is None:
            name, took = self._done.lines[-1]
            self._say(f"{100 * self._share():3.0f} %  {name}: {took}")

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _share(self) -> float:
        """Share of the whole study that is done, in [0, 1]."""
        running = list(self._running.values())
        done = self._done.work + sum(stage.done for stage in running)
        planned = max(self._planned, self._done.work + sum(stage.work for stage in running))
        return done / planned if planned > 0 else 0.0

    def _display(self) -> RenderableType:
        """The last finished stages, those that run, and the whole."""
        now, width = self._console.get_time(), min(WIDTH, self._console.width)
        running, done = dict(sorted(self._running.items())), self._done
        parts: list[RenderableType] = []
        room = max(0, self._console.height - 4 - 2 * max(1, len(running)))
        for name, took in done.lines[max(0, len(done.lines) - room) :]:
            parts.append(_ends(name, took, width, "dim"))
        for process, stage in running.items():
            name = f"{process}: {stage.name}" if process else stage.name
            parts.append(_ends(name, duration(now - stage.began), width, "bold"))
            parts.append(_bar(min(1.0, max(0.0, stage.fraction)), printable(stage.detail), width))
        parts.append(_ends("whole study", duration(now - self._began), width, "bold"))
        parts.append(_bar(self._share(), self._time_left(now), width))
        return Group(*parts)

    def _time_left(self, now: float) -> str:
        """At the pace of one process so far, for as many as there are."""
        running = list(self._running.values())
        under_way = sum(stage.done for stage in running)
        seconds = self._done.seconds + sum(now - stage.began for stage in running)
        todo = max(0.0, self._planned - self._done.work - under_way)
        left = time_left(todo / self._processes, self._done.worked + under_way, seconds)
        return "estimating the time left" if left is None else f"about {duration(left)} left"

    def _summary(self) -> str:
        done = self._done
        stages = "1 stage" if done.stages == 1 else f"{done.stages} stages"
        stored = f", {done.stored} of them found in store" if done.stored else ""
        took = self._console.get_time() - self._began
        whole = took * self._processes
        share = f"; {100 * done.training / whole:.0f} % of the time was training and pruning" if done.training else ""
        return f"{stages} in {duration(took)}{stored}{share}"


class WorkerProgress:
    """One of several processes on the display of the study that they work on."""

    def __init__(self, board: LiveProgress, number: int) -> None:
        self._board, self._number = board, number

    def plan(self, work: float) -> None:
        """The study has planned for all of them."""

    def begin(self, stage: str, work: float) -> None:
        """A stage starts."""
        self._board.begin_in(self._number, stage, work)

    def advance(self, fraction: float, detail: str) -> None:
        """Show the position of the stage."""
        self._board.advance_in(self._number, fraction, detail)

    def end(self, *, stored: bool) -> None:
        """The stage is done."""
        self._board.end_in(self._number, stored=stored)

    def tell(self, message: str) -> None:
        """One line, above the display."""
        self._board.tell(message)

    def warn(self, message: str) -> None:
        """One line, above the display."""
        self._board.warn(message)

    def worker(self, number: int, workers: int) -> "WorkerProgress":
        """A process that this one starts shows what it does in its place."""
        return self


def _ends(name: str, took: str, width: int, style: str) -> Table:
    """A name at the left end of a line and a time at the right."""
    line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    line.width = width
    line.add_column(no_wrap=True, overflow="crop", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(Text(name), Text(took), style=style)
    return line


def _bar(fraction: float, text: str, width: int) -> Table:
    """Progress as a bar and in per cent, with a word on it."""
    line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    line.width = width
    line.add_column(width=1)
    line.add_column(width=width // 4)
    line.add_column(width=5, justify="right")
    line.add_column(no_wrap=True, overflow="crop", ratio=1)
    bar = ProgressBar(total=1.0, completed=fraction, width=width // 4)
    line.add_row("", bar, f"{100 * fraction:.0f} %", Text(f" {text}", "dim"))
    return line
