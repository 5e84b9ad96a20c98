"""A labelled data set as a value: arrays, a name and a fingerprint."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from wemem.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """``N`` labelled records.

    Args:
        name: what the report calls it.
        features: float32, shape ``(N, ...)``, finite.
        labels: int64, shape ``(N,)``, values ``0 .. classes-1``.
        classes: number of classes, at least 2.

    Raises:
        InputError: wrong shapes or types, NaN or infinite features, labels out of range.

    >>> import numpy as np
    >>> toy = Dataset("toy", np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1]), classes=2)
    >>> len(toy), toy.input_shape
    (4, (4,))
    """

    name: str
    features: Float32[np.ndarray, "N ..."]
    labels: Int64[np.ndarray, "N"]
    classes: int

    def __post_init__(self) -> None:
        x, y = self.features, self.labels
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            raise InputError(
                f"data set {self.name!r}: expected features (N, ...) and labels (N,) of the same N, "
                f"got features {x.shape} and labels {y.shape}"
            )
        if len(x) == 0:
            raise InputError(f"data set {self.name!r}: expected at least one record, got none")
        if x.dtype != np.float32 or y.dtype != np.int64:
            raise InputError(
                f"data set {self.name!r}: expected float32 features and int64 labels, "
                f"got {x.dtype} and {y.dtype}; use Dataset.from_arrays to convert"
            )
        if self.classes < 2:
            raise InputError(f"data set {self.name!r}: expected at least 2 classes, got {self.classes}")
        bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if bad.any():
            raise InputError(
                f"data set {self.name!r}: expected finite features, got NaN or infinity in {int(bad.sum())} "
                f"record(s), first at index {int(bad.argmax())}; clean or impute them"
            )
        out = (y < 0) | (y >= self.classes)
        if out.any():
            raise InputError(
                f"data set {self.name!r}: expected labels 0..{self.classes - 1}, "
                f"got {int(y[out][0])} at index {int(out.argmax())}"
            )

    @classmethod
    def from_arrays(cls, name: str, features: Any, labels: Any, classes: int | None = None) -> "Dataset":
        """Convert numeric arrays; ``classes`` defaults to the largest label plus one.

        Raises:
            InputError: not numeric, labels not whole numbers, or what :class:`Dataset` refuses.
        """
        x, y = np.asarray(features), np.asarray(labels)
        if x.dtype.kind not in "biuf":
            raise InputError(f"data set {name!r}: expected numeric features, got {x.dtype}")
        if y.dtype.kind not in "iuf" or not (np.isfinite(y) & (y == np.floor(y))).all():
            raise InputError(f"data set {name!r}: expected whole-number labels, got {y.dtype}")
        y = y.astype(np.int64)
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, dtype=np.float32)
        return cls(name, x, y, int(y.max(initial=0)) + 1 if classes is None else classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record."""
        return tuple(self.features.shape[1:])

    def select(self, records: Int64[np.ndarray, " n"]) -> "Dataset":
        """Some of the records, in the given order."""
        return Dataset(self.name, self.features[records], self.labels[records], self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shapes and bytes; the name does not count."""
        digest = hashlib.sha256(repr((self.features.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.features).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()
