"""Views of a member's records: copies in which a share of the features is another of its records'.

A model that learns what other models predict need not learn it of its training records alone: they can be asked about
anything. Shown views beside the records, it learns more of what its teachers compute, and less of single records.

Among ``N`` records, view ``v = 1 .. count`` of record ``r`` goes by the number ``v * N + r``, so whatever names records
can name views.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from wemem.data.split import Indices
from wemem.errors import InputError
from wemem.randomness import generator

#: Choices of features that views share; which one a view has is drawn.
PATTERNS = 256


@dataclass(frozen=True)
class Views:
    """How many views a record has, and how much of it they keep.

    Args:
        count: views of each record.
        share: of the features that are another record's, on average; in (0, 1).

    Raises:
        InputError: no view, or one that keeps everything or nothing.
    """

    count: int
    share: float

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"expected at least 1 view of a record, got {self.count}")
        if not 0 < self.share < 1:
            raise InputError(f"expected the share of features that a view replaces in (0, 1), got {self.share}")

    def draw(self, train: Sequence[Indices], records: int, shape: tuple[int, ...]) -> "DrawnViews":
        """The views of every member, a function of nothing but what is given here: all who ask mean the same ones.

        Args:
            train: train records of each of the K members; they are mixed with one another, and with no other record.
            records: N, in the data set.
            shape: of one record.
        """
        rng = generator(0, "views", self.count, records)
        place, pattern = rng.random((self.count, records)), rng.integers(0, PATTERNS, (self.count, records))
        donors = np.stack([own[(place * len(own)).astype(np.int64)] for own in train])
        return DrawnViews(donors, pattern, rng.random((PATTERNS, *shape)) < self.share)


@dataclass(frozen=True, eq=False)
class DrawnViews:
    """What each view is made of.

    Args:
        donors: shape ``(K, V, N)``, whose features the views of a record take, by member and view.
        pattern: shape ``(V, N)``, which of the patterns says which features those are.
        patterns: shape ``(P, ...)``, True at features of the donor.
    """

    donors: Int64[np.ndarray, "K V N"]
    pattern: Int64[np.ndarray, "V N"]
    patterns: Bool[np.ndarray, "P ..."]
