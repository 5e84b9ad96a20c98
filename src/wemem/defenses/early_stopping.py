"""Early stopping, the cheapest control: each round is fine-tuned for fewer epochs.

Fewer passes over the data memorize less (Song & Mittal, USENIX Security 2021, compare every defense
with it). The round's best checkpoint is chosen among those epochs by dev accuracy, as without the
defense.
"""

from dataclasses import dataclass

from wemem.defenses.base import Defense
from wemem.errors import InputError


@dataclass(frozen=True)
class EarlyStopping(Defense):
    """Fine-tune each round for at most ``stop_after`` epochs.

    Args:
        stop_after: largest number of epochs of a round; from the recipe's number on it is plain
            fine-tuning.

    Raises:
        InputError: less than one epoch.

    >>> EarlyStopping(stop_after=3).epochs(21), EarlyStopping(stop_after=30).epochs(21)
    (3, 21)
    """

    stop_after: int = 3

    def __post_init__(self) -> None:
        if self.stop_after < 1:
            raise InputError(f"stop_after must be at least 1 epoch, got {self.stop_after}")

    @property
    def name(self) -> str:
        return "early_stopping"

    def epochs(self, most: int) -> int:
        """Number of epochs of a round, at most ``stop_after``."""
        return min(most, self.stop_after)
