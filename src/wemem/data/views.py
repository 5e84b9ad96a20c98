"""Views of a model's training records: copies with some features of another of its records.

A model that learns from teachers can learn at any input, not only at its training records. Learning
at views as well, it comes closer to the function of its teachers and depends less on single
records. The share of features that is replaced differs between views, so that some are near their
record and others half way to another. Of images a rectangle is replaced, as in CutMix (Yun et al.,
ICCV 2019).

Among ``N`` records, view ``v = 1 .. count`` of record ``r`` has the number ``v * N + r``, so that
an array of record numbers can hold views too. The number 0 stands for the records themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

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
        share: mean share of a view's features that are another record's, in (0, 0.5]. The share of
            each view is drawn evenly from 0 to twice the mean.
        shown: number of views of each record that an epoch shows; epochs take turns. All of them if
            there are no more.

    Raises:
        InputError: no view, or views that replace nothing or everything.
    """

    count: int
    share: float
    shown: int = 3

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"expected at least 1 view of a record, got {self.count}")
        if not 0 < self.share <= 0.5:
            raise InputError(
                f"expected the mean share of features that a view replaces in (0, 0.5], got {self.share}; a view of "
                "which more is replaced is a view of the other record"
            )
        if self.shown < 1:
            raise InputError(f"expected an epoch to show at least 1 view of a record, got {self.shown}")

    @property
    def per_epoch(self) -> int:
        """Number of views of each record that an epoch shows."""
        return min(self.shown, self.count)

    def of_epoch(self, epoch: int) -> list[int]:
        """Views that an epoch shows, by their place from 1 on.

        >>> [Views(5, 0.3, shown=2).of_epoch(epoch) for epoch in range(3)]
        [[1, 2], [3, 4], [5, 1]]
        """
        first = epoch * self.per_epoch
        return [(first + i) % self.count + 1 for i in range(self.per_epoch)]

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
        shares = rng.random(PATTERNS) * 2 * self.share
        if len(shape) == 3:
            return DrawnViews(donors, pattern, _rectangles(shares, shape, rng))
        scattered = rng.random((PATTERNS, *shape)) < shares.reshape(-1, *(1,) * len(shape))
        return DrawnViews(donors, pattern, scattered)


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

    def keep(self, kept: Bool[np.ndarray, "K V N"]) -> "DrawnViews":
        """Keep some of the views; the others become the records themselves."""
        return replace(self, donors=np.where(kept, self.donors, np.arange(kept.shape[-1])))


def _rectangles(
    shares: Float64[np.ndarray, " P"], shape: tuple[int, ...], rng: np.random.Generator
) -> Bool[np.ndarray, "P c h w"]:
    """Rectangles of the image's proportions at random places, each with a share of its area."""
    _, height, width = shape
    masks = np.zeros((len(shares), *shape), bool)
    for mask, share in zip(masks, shares, strict=True):
        h, w = (round(float(np.sqrt(share)) * side) for side in (height, width))
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        mask[:, top : top + h, left : left + w] = True
    return masks
