"""A labelled data set as a value: arrays, a name and a fingerprint."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64, Real

from wemem.data.packed_inputs import PackedInputs
from wemem.data.table_form import TableForm
from wemem.errors import InputError
from wemem.files.record_tables import RecordIds
from wemem.notes import Note

#: Classes that a note names one by one.
SHOWN_CLASSES = 20
#: Numbers that are checked at a time.
CHECKED = 2**24
#: Bytes of the features that are read at a time where models answer on them.
AT_ONCE = 2**28


@dataclass(frozen=True, eq=False)
class Dataset:
    """``N`` labelled records.

    Args:
        name: the name of the data set in reports.
        features: shape ``(N, ...)``; finite float32, or int64 for whole numbers such as token ids.
        labels: int64, shape ``(N,)``, values ``0 .. classes-1``.
        classes: the number of classes, at least 2.
        class_names: the label of each class in the source; empty if the labels there are ``0 ..
            classes-1`` too.
        notes: remarks on what was changed while the data were read.
        drawn_from: the number of records that these were drawn from; None if all were taken.
        table: the columns of a table, of which ``features`` holds one number each; None for
            features that a model takes as they are. Only a table may have missing values, as NaN.
        ids: the names of the records, for files that list members by name; None without.
        inputs: several inputs that ``features`` holds packed; None for one.

    Raises:
        InputError: wrong shapes or types, NaN or infinite features, labels out of range, or ids
            that do not distinguish the records.

    >>> import numpy as np
    >>> toy = Dataset("toy", np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1]), classes=2)
    >>> len(toy), toy.input_shape
    (4, (4,))
    """

    name: str
    features: Real[np.ndarray, "N ..."]
    labels: Int64[np.ndarray, " N"]
    classes: int
    class_names: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    drawn_from: int | None = None
    table: TableForm | None = None
    ids: RecordIds | None = None
    inputs: PackedInputs | None = None

    def __post_init__(self) -> None:
        x, y = self.features, self.labels
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            raise InputError(
                f"data set {self.name!r}: expected features (N, ...) and labels (N,) of the same N, "
                f"got features {x.shape} and labels {y.shape}; bring one label for each record"
            )
        if len(x) == 0:
            raise InputError(f"data set {self.name!r}: expected at least one record, got none; bring some")
        if x.dtype not in (np.float32, np.int64) or y.dtype != np.int64:
            raise InputError(
                f"data set {self.name!r}: expected float32 or int64 features and int64 labels, "
                f"got {x.dtype} and {y.dtype}; use Dataset.from_arrays to convert"
            )
        if self.classes < 2:
            raise InputError(
                f"data set {self.name!r}: expected at least 2 classes, got {self.classes}; bring records of another"
            )
        if len(self.class_names) not in (0, self.classes):
            raise InputError(
                f"data set {self.name!r}: expected a name for each of {self.classes} classes or none at all, got "
                f"{len(self.class_names)}; name them all"
            )
        if self.ids is not None and not len(set(self.ids.values)) == len(self.ids.values) == len(x):
            raise InputError(
                f"data set {self.name!r}: expected another {self.ids.column!r} for each of {len(x)} records, got "
                f"{len(set(self.ids.values))} different ones; correct them, or take another column as data.id"
            )
        if self.table is None:
            self._require_finite()
        else:
            self.table.require_records(x, self.name)
        out = (y < 0) | (y >= self.classes)
        if out.any():
            raise InputError(
                f"data set {self.name!r}: expected labels 0..{self.classes - 1}, "
                f"got {int(y[out][0])} at index {int(out.argmax())}; number the classes from 0"
            )

    def _require_finite(self) -> None:
        rows = max(1, CHECKED // max(1, self.features[0].size))
        starts = range(0, len(self), rows)
        parts = (self.features[s : s + rows].reshape(-1, self.features[0].size) for s in starts)
        bad = ~np.concatenate([np.isfinite(part).all(axis=1) for part in parts])
        if bad.any():
            raise InputError(
                f"data set {self.name!r}: expected finite features, got NaN or infinity in {int(bad.sum())} "
                f"record(s), first at index {int(bad.argmax())}; clean or impute them"
            )

    @classmethod
    def from_arrays(cls, name: str, features: Any, labels: Any, classes: int | None = None) -> "Dataset":
        """Convert numeric arrays.

        Args:
            name: the name of the data set in reports.
            features: numbers, shape ``(N, ...)``; they become float32.
            labels: whole numbers ``(N,)`` or ``(N, 1)``, or one column of 0 and 1 for each class,
                ``(N, C)``.
            classes: the number of classes, for labels ``0 .. classes-1``. If None, the classes are
                the labels that occur, in ascending order; where those are not ``0 .. C-1``, a note
                says how they were numbered.

        Raises:
            InputError: not numeric, labels that are not whole numbers, or what :class:`Dataset`
                refuses.

        >>> toy = Dataset.from_arrays("toy", np.eye(4), [10, 30, 10, 20])
        >>> toy.labels.tolist(), toy.class_names, str(toy.notes[0])
        ([0, 2, 0, 1], ('10', '20', '30'), 'the labels 10, 20, 30 are the classes 0..2')
        """
        x, y = np.asarray(features), np.asarray(labels)
        if x.dtype.kind not in "biuf":
            raise InputError(f"data set {name!r}: expected numeric features, got {x.dtype}; convert them first")
        if y.dtype.kind not in "biuf" or not (np.isfinite(y) & (y == np.floor(y))).all():
            raise InputError(
                f"data set {name!r}: expected whole-number labels, got {y.dtype}; number the classes from 0"
            )
        if y.dtype.kind in "uf" and (np.abs(y) >= 2.0**63).any():
            raise InputError(
                f"data set {name!r}: expected labels of at most 63 bits, got larger ones; number them anew"
            )
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, dtype=np.float32)
        y, one_hot = _one_label_each(y.astype(np.int64))
        if classes is not None or one_hot is not None or y.ndim != 1 or not len(y):
            counted = one_hot if classes is None else classes
            return cls(name, x, y, 2 if counted is None else counted)
        numbers, codes = np.unique(y, return_inverse=True)
        if np.array_equal(numbers, np.arange(len(numbers))):
            return cls(name, x, y, len(numbers))
        names = tuple(map(str, numbers.tolist()))
        return cls(name, x, codes.reshape(-1), len(numbers), names, (class_note(names),))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record."""
        return tuple(self.features.shape[1:])

    def select(self, records: Int64[np.ndarray, " n"]) -> "Dataset":
        """Some of the records, in the given order."""
        ids = self.ids and RecordIds(self.ids.column, tuple(self.ids.values[i] for i in records))
        return replace(self, features=self.features[records], labels=self.labels[records], ids=ids)

    def parts(self, records: Int64[np.ndarray, " n"]) -> list[Int64[np.ndarray, " _"]]:
        """The records in parts whose features take at most :data:`AT_ONCE` bytes, for data that are
        larger than memory; each part but the last has a multiple of 1,024 records.
        """
        rows = max(1, AT_ONCE // max(1, 1024 * self.features[0].nbytes)) * 1024
        return [records[start : start + rows] for start in range(0, len(records), rows)]

    @property
    def form(self) -> TableForm | PackedInputs | None:
        """The meaning of the single features of a record, where they have one."""
        return self.table or self.inputs

    def as_floats(self) -> "Dataset":
        """The same records with float32 features."""
        return replace(self, features=self.features.astype(np.float32, copy=False))

    def require_all_records(self, what: str) -> None:
        """Refuse record numbers from outside where only some of the records were drawn, and are
        numbered anew.

        Args:
            what: a phrase for the file with the record numbers, such as ``"members"``.

        Raises:
            InputError: the records were drawn from more.
        """
        if self.drawn_from is not None:
            raise InputError(
                f"expected {what} beside all {self.drawn_from:,} records of {self.name!r}, got data.records = "
                f"{len(self):,}, which draws some and numbers them anew; leave data.records out"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shapes and bytes; names and notes do not count."""
        kind: tuple[object, ...] = () if self.features.dtype == np.float32 else (str(self.features.dtype),)
        kind = kind if self.table is None else self.table.kind
        kind = kind if self.inputs is None else (*kind, self.inputs)
        digest = hashlib.sha256(repr((self.features.shape, self.classes, *kind)).encode())
        digest.update(np.ascontiguousarray(self.features).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def _one_label_each(y: Int64[np.ndarray, "..."]) -> tuple[Int64[np.ndarray, "..."], int | None]:
    """Labels as one axis, and the number of classes if they came as one column of 0 and 1 for each."""
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0], None
    if y.ndim == 2 and y.shape[1] > 1 and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        return y.argmax(axis=1), y.shape[1]
    return y, None


def class_note(names: Sequence[str]) -> Note:
    """A note on the numbering of the classes, for a reader who knows their labels.

    >>> str(class_note(["no", "yes"]))
    'the labels no, yes are the classes 0..1'
    """
    return Note("class_numbers", {"names": list(names[:SHOWN_CLASSES]), "classes": len(names)})
