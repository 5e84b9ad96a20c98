"""RSW, the ranked sliding window: limit the reuse of records (Shang et al., NDSS 2025).

Within each class the ``n`` training records are sorted by memorization score. Epoch ``e`` of a
round shows only the positions

    [p, p + width)   with   p = min(floor(stride * e), n - width)

The window starts over each round. At the end of a class it stays at the last full window.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int64

from wemem.data.batches import Group
from wemem.defenses.base import Defense
from wemem.defenses.training_records import TrainingRecords
from wemem.errors import InputError
from wemem.randomness import generator

Order = Literal["low_first", "high_first", "random"]


@dataclass(frozen=True)
class SlidingWindow(Defense):
    """Show only a window of each class, moving along the memorization ranking.

    Args:
        width: records of a class in the window, as a count (int) or a fraction of the class in (0,
            1] (float).
        stride: distance that the window moves each epoch, as a count (int) or a fraction of the
            class (float).
        order: ``low_first`` (the paper's L→H), ``high_first`` (H→L), or ``random``, a new random
            order each round, which is the window without the ranking.

    Raises:
        InputError: a width or stride out of range, or, once the data are seen, a width larger than
            a class.

    >>> import numpy as np
    >>> records = TrainingRecords(np.arange(4), np.zeros(4, np.int64), np.array([.4, .1, .3, .2]), seed=0)
    >>> everything = (Group(np.arange(4)),)
    >>> window = SlidingWindow(width=2, stride=1, order="low_first")
    >>> [window.plan(e, everything, records)[0].records.tolist() for e in (0, 1, 2, 9)]
    [[1, 3], [2, 3], [0, 2], [0, 2]]
    """

    width: int | float = 0.25
    stride: int | float = 0.0375
    order: Order = "low_first"

    @property
    def name(self) -> str:
        return "rsw"

    def __post_init__(self) -> None:
        for field, value, least in (("width", self.width, "positive"), ("stride", self.stride, "0 or more")):
            if not value >= 0 or (field == "width" and value == 0):
                raise InputError(f"{field} must be {least}, got {value}; for no window use Undefended()")
            if isinstance(value, float) and value > 1:
                raise InputError(f"{field} as a fraction must be at most 1.0, got {value}; a count has no point")
        if self.order not in ("low_first", "high_first", "random"):
            raise InputError(f"order must be low_first, high_first or random, got {self.order!r}")

    @property
    def needs_scores(self) -> bool:
        """True unless the order is random."""
        return self.order != "random"

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Cut the groups to the epoch's window; records keep their order."""
        shown = np.concatenate([self._window(epoch, ranked) for ranked in self._ranked_classes(records)])
        return tuple(replace(g, records=g.records[np.isin(g.records, shown)]) for g in groups)

    def _ranked_classes(self, records: TrainingRecords) -> list[Int64[np.ndarray, " _"]]:
        """Training records of each class in the order of the window; ties as in the data set."""
        train = records.train
        if self.order == "random":
            ranked = generator(records.seed, "window").permutation(train)
        else:
            scores = records.scores_of(train)
            ranked = train[np.argsort(scores if self.order == "low_first" else -scores, kind="stable")]
        labels = records.labels[ranked]
        return [ranked[labels == label] for label in np.unique(labels)]

    def _window(self, epoch: int, ranked: Int64[np.ndarray, " c"]) -> Int64[np.ndarray, " w"]:
        n = len(ranked)
        width = max(1, round(self.width * n)) if isinstance(self.width, float) else self.width
        if width > n:
            raise InputError(
                f"expected a window width of at most the smallest class's {n} training records, got {width}; "
                "lower it or give a fraction such as 0.25"
            )
        stride = self.stride * n if isinstance(self.stride, float) else self.stride
        # 1e-9: a stride of 1/60 of 60 records must be 1 record, whatever the rounding of 1/60
        position = min(int(np.floor(stride * epoch + 1e-9)), n - width)
        return ranked[position : position + width]
