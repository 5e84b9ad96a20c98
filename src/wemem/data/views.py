"""Views of a model's training records: copies with some features of another of its records.

A model that learns from teachers can learn at any input, not only at its training records. Learning
at views as well, it comes closer to the function of its teachers and depends less on single
records.

Among ``N`` records, view ``v = 1 .. count`` of record ``r`` has the number ``v * N + r``, so that
an array of record numbers can hold views too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from wemem.data.split import Indices
from wemem.errors import InputError
from wemem.randomness import generator

#: Number of patterns of replaced features; each view draws one.
PATTERNS = 256


@dataclass(frozen=True)
class Views:
    """Settings of views: records with some features replaced by those of another record.

    Args:
        count: number of views of each record.
        share: mean share of a view's features that are another record's, in (0, 1).

    Raises:
        InputError: no view, or views that replace nothing or everything.
    """

    count: int
    share: float

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"expected at least 1 view of a record, got {self.count}")
        if not 0 < self.share < 1:
            raise InputError(f"expected the share of features that a view replaces in (0, 1), got {self.share}")

    def draw(self, train: Sequence[Indices], records: int, shape: tuple[int, ...]) -> "DrawnViews":
        """Draw the views of every model; the same arguments give the same views.

        Args:
            train: training records of each of the K models; they are mixed with one another only.
            records: number of records in the data set, N.
            shape: shape of one record.
        """
        rng = generator(0, "views", self.count, records)
        place, pattern = rng.random((self.count, records)), rng.integers(0, PATTERNS, (self.count, records))
        donors = np.stack([candidates[(place * len(candidates)).astype(np.int64)] for candidates in train])
        return DrawnViews(donors, pattern, rng.random((PATTERNS, *shape)) < self.share)


@dataclass(frozen=True, eq=False)
class DrawnViews:
    """Composition of every view.

    Args:
        donors: shape ``(K, V, N)``, the record from which each view takes features, by model and
            view.
        pattern: shape ``(V, N)``, index of the pattern of each view.
        patterns: shape ``(P, ...)``, True at the features that come from the donor.
    """

    donors: Int64[np.ndarray, "K V N"]
    pattern: Int64[np.ndarray, "V N"]
    patterns: Bool[np.ndarray, "P ..."]
