"""Progress of a running study: the protocol that a display implements."""

from collections.abc import Callable
from typing import Protocol, Self


class Progress(Protocol):
    """Receives the stages of a study in the order in which they run."""

    def plan(self, work: float) -> None:
        """Announce the work to come, as :class:`~wemem.pipeline.cost.CostModel` measures it."""

    def begin(self, stage: str, work: float) -> None:
        """Begin a stage.

        Args:
            stage: its name in the display.
            work: its share of the planned work.
        """

    def advance(self, fraction: float, detail: str) -> None:
        """Advance within the stage.

        Args:
            fraction: the part that is done, in [0, 1].
            detail: round, epoch and number of models that still train.
        """

    def end(self, *, stored: bool) -> None:
        """End the stage; ``stored`` if it was found in the store and cost nothing."""

    def tell(self, message: str) -> None:
        """Show an intermediate result in a line."""

    def warn(self, message: str) -> None:
        """Show a warning that does not stop the study."""

    def worker(self, number: int, workers: int) -> "Progress":
        """The display of one of several processes, numbered from 1, for its part of the work."""
        ...


class Silent:
    """Shows nothing."""

    def plan(self, work: float) -> None: ...

    def begin(self, stage: str, work: float) -> None: ...

    def advance(self, fraction: float, detail: str) -> None: ...

    def end(self, *, stored: bool) -> None: ...

    def tell(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def worker(self, number: int, workers: int) -> Self:
        return self


class WatchedProgress:
    """Passes everything on, and calls a function when the first stage begins.

    Args:
        receiver: the receiver of all reports.
        at_first: called once, before the first stage begins.
    """

    def __init__(self, receiver: Progress, at_first: Callable[[], object]) -> None:
        self.receiver, self.at_first = receiver, at_first
        self._begun = False

    def plan(self, work: float) -> None:
        self.receiver.plan(work)

    def begin(self, stage: str, work: float) -> None:
        self._note_begin()
        self.receiver.begin(stage, work)

    def advance(self, fraction: float, detail: str) -> None:
        self.receiver.advance(fraction, detail)

    def end(self, *, stored: bool) -> None:
        self.receiver.end(stored=stored)

    def tell(self, message: str) -> None:
        self.receiver.tell(message)

    def warn(self, message: str) -> None:
        self.receiver.warn(message)

    def worker(self, number: int, workers: int) -> Progress:
        self._note_begin()
        return self.receiver.worker(number, workers)

    def _note_begin(self) -> None:
        if not self._begun:
            self.at_first()
            self._begun = True


def show_epoch(progress: Progress, epoch: int, epochs: int, running: int, index: int = 0, rounds: int = 1) -> None:
    """Show where a training is.

    Args:
        progress: the display.
        epoch: number of the epoch that has ended, from 0.
        epochs: largest number of epochs of a round.
        running: number of models that still train.
        index: number of the round, from 0.
        rounds: number of rounds.
    """
    where = f"round {index + 1}/{rounds}, " if rounds > 1 else ""
    fraction = (index + (epoch + 1) / epochs) / rounds
    progress.advance(fraction, f"{where}epoch {epoch + 1}/{epochs}, {running} models training")
