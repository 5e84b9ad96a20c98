"""Warnings about a data set before anything is trained on it: copies of records, features out of
scale.
"""

import hashlib

import numpy as np

from wemem.data.dataset import Dataset
from wemem.notes import Note

#: Root mean square above which a feature is called large; standardized ones have 1, shares and
#: switches less.
LARGE = 10.0


def concerns(data: Dataset) -> list[Note]:
    """The notes of a data set, and warnings of it; an empty list for a data set without any.

    >>> data = Dataset.from_arrays("toy", [[0.0, 900.0], [1.0, 700.0], [0.0, 900.0]], [0, 1, 0])
    >>> for concern in concerns(data):
    ...     print(concern)
    1 of 3 records is a copy of another (record 2 of record 0); ...
    1 of 2 features is large (1, root mean square 839); ...
    """
    return [*data.notes, *_copies(data), *_out_of_scale(data)]


def _copies(data: Dataset) -> list[Note]:
    first: dict[bytes, int] = {}
    copies = []
    for i, record in enumerate(data.features):
        # Adding 0 turns -0 into 0.
        original = first.setdefault(hashlib.blake2b((record + 0).tobytes(), digest_size=16).digest(), i)
        if original != i:
            copies.append((i, original))
    if not copies:
        return []
    copy, original = copies[0]
    return [Note("copies", {"copies": len(copies), "records": len(data), "copy": copy, "original": original})]


def _out_of_scale(data: Dataset) -> list[Note]:
    """A warning of large features, for records that are vectors of measurements."""
    if len(data.input_shape) > 1 or data.features.dtype != np.float32 or data.form is not None:
        return []
    squares = np.einsum("nf,nf->f", data.features, data.features, dtype=np.float64)  # without a second table
    size = np.sqrt(squares / len(data))
    large, largest = int((size > LARGE).sum()), int(size.argmax())
    if not large:
        return []
    return [
        Note(
            "large_features",
            {"large": large, "features": len(size), "largest": largest, "size": float(size[largest])},
        )
    ]
