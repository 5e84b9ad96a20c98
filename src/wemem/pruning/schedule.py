"""Sparsity schedules of iterative pruning."""

from dataclasses import dataclass
from typing import Literal

from wemem.errors import InputError

ScheduleKind = Literal["geometric", "cubic", "linear", "one_shot"]


@dataclass(frozen=True)
class Schedule:
    """The sparsity of every round.

    With ``r = 0 .. R-1`` and ``t = r / (R - 1)``::

        geometric   1 - (1 - s)^t          the same share of the weights left each round (Han et al. 2015; the paper)
        cubic       s (1 - (1 - t)^3)      fast first, slow last (Zhu & Gupta 2017)
        linear      s t
        one_shot    s                      everything at once, then R rounds of fine-tuning

    All but ``one_shot`` begin with a round of unpruned fine-tuning, so that R rounds prune R - 1
    times. A single round prunes to the target at once.

    Args:
        sparsity: the target share of pruned weights, in [0, 1).
        rounds: R, the number of rounds.
        kind: the name of the schedule.

    >>> [round(s, 3) for s in Schedule(0.75, rounds=3).sparsities]
    [0.0, 0.5, 0.75]
    """

    sparsity: float = 0.6
    rounds: int = 5
    kind: ScheduleKind = "geometric"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity must be in [0, 1), got {self.sparsity}")
        if self.rounds < 1:
            raise InputError(f"rounds must be at least 1, got {self.rounds}")
        if self.kind not in ("geometric", "cubic", "linear", "one_shot"):
            raise InputError(f"schedule must be geometric, cubic, linear or one_shot, got {self.kind!r}")

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The target sparsity of each round; the last is exactly :attr:`sparsity`."""
        if self.kind == "one_shot" or self.rounds == 1:
            return (self.sparsity,) * self.rounds
        return (*(self._at(r / (self.rounds - 1)) for r in range(self.rounds - 1)), self.sparsity)

    def _at(self, t: float) -> float:
        s = self.sparsity
        if self.kind == "geometric":
            return float(1 - (1 - s) ** t)
        return s * t if self.kind == "linear" else s * (1 - (1 - t) ** 3)
