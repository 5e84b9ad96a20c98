"""What a running study says of itself; whoever shows it implements :class:`Progress`."""

from typing import Protocol, Self


class Progress(Protocol):
    """Receives a study's stages in the order they run, each with its share of the work."""

    def plan(self, work: float) -> None:
        """The work of everything to come, in records times models times expected epochs."""

    def begin(self, stage: str, work: float) -> None:
        """A stage starts: what it is, in the words of a table, and its share of the planned work."""

    def advance(self, fraction: float, detail: str) -> None:
        """How much of the stage is done, in [0, 1], and where it is: round, epoch, models still training."""

    def end(self, *, stored: bool) -> None:
        """The stage is done; ``stored`` if it was found in the store and cost nothing."""

    def tell(self, message: str) -> None:
        """What has been found so far, in a line."""

    def warn(self, message: str) -> None:
        """Something the user should know that does not stop the study."""

    def worker(self, number: int, workers: int) -> "Progress":
        """Where one of several processes says what it does of the planned work; they are numbered from 1."""
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


def show_epoch(progress: Progress, epoch: int, epochs: int, running: int, index: int = 0, rounds: int = 1) -> None:
    """Show where a training is.

    Args:
        progress: shows it.
        epoch: the epoch that has ended, from 0.
        epochs: of a round at most.
        running: models that still train.
        index: number of the round, from 0.
        rounds: number of rounds.
    """
    where = f"round {index + 1}/{rounds}, " if rounds > 1 else ""
    fraction = (index + (epoch + 1) / epochs) / rounds
    progress.advance(fraction, f"{where}epoch {epoch + 1}/{epochs}, {running} models training")
