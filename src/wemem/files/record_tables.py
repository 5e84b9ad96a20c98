"""Tables of record numbers from outside: member lists."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Int64

from wemem.errors import InputError
from wemem.files.memory_limit import memory_limit
from wemem.files.npz import read_npz


def read_members(file: str, records: int) -> Int64[np.ndarray, " m"]:
    """Indices of the records a model was trained on.

    Args:
        file: ``.csv`` or ``.parquet`` with a column ``record``, or ``.npz`` with an array ``members``.
        records: size of the data set.

    Raises:
        InputError: the file cannot be read, or names a record that is not there.
    """
    path = Path(file)
    try:
        if path.suffix == ".npz":
            found = read_npz(path, ["members"], limit=memory_limit(None))[0]
        else:
            found = _record_column(path, records)
    except (OSError, KeyError, pa.ArrowException) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"cannot read members from {path}: {line}; expected a column record (.npz: an array members)"
        ) from error
    if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"expected a list of record numbers in {path}, got {found.dtype} of shape {found.shape}")
    unknown = found[(found < 0) | (found >= records)]
    if len(unknown):
        raise InputError(f"expected members among records 0..{records - 1} in {path}, got {int(unknown[0])}")
    return np.unique(found.astype(np.int64))


def _record_column(path: Path, most: int) -> np.ndarray:
    """The column ``record``, batch by batch, so that a file of any length takes no more memory than ``most`` rows."""
    found: list[np.ndarray] = []
    with _open_table(path) as batches:
        for batch in batches:
            found.append(batch["record"].to_numpy(zero_copy_only=False))
            if sum(map(len, found)) > most:
                raise InputError(f"expected at most {most} rows in {path}, one a record, got more")
    return np.concatenate(found) if found else np.zeros(0, np.int64)


@contextmanager
def _open_table(path: Path) -> Iterator[Iterable[pa.RecordBatch]]:
    if path.suffix == ".csv":
        with pyarrow.csv.open_csv(path, pyarrow.csv.ReadOptions(use_threads=False)) as table:
            yield table
    elif path.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as table:
            yield table.iter_batches(columns=["record"])
    else:
        raise InputError(f"expected a member list ending in .csv, .parquet or .npz, got {path.name!r}")
