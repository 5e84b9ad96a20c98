"""Tables with one row a record from outside: member lists and memorization scores."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from wemem.errors import InputError
from wemem.files.input_files import shown, user_path
from wemem.files.memory_limit import memory_limit
from wemem.files.npz import read_npz
from wemem.files.tables import open_csv, open_parquet

RECORD = "record"


@dataclass(frozen=True)
class RecordIds:
    """Names of records, from a column of a table.

    Args:
        column: the name of the column.
        values: the name of each record, each another.
    """

    column: str
    values: tuple[str, ...]

    def with_more(self, count: int, kind: str) -> "RecordIds":
        """The names with those of further records, which the table does not have."""
        more = (f"{kind} {i} beside {self.column}" for i in range(count))
        return RecordIds(self.column, (*self.values, *more))


def write_members(path: Path, members: Int64[np.ndarray, " m"]) -> None:
    """Write record numbers as :func:`read_members` reads them, whatever the name of the file ends in."""
    with path.open("wb") as file:
        np.savez(file, members=members.astype(np.int64))


def read_members(file: str | Path, records: int, ids: RecordIds | None = None) -> Int64[np.ndarray, " m"]:
    """Read the indices of the records that a model was trained on, sorted and each once.

    Args:
        file: the path of a ``.csv`` or ``.parquet`` file with a column ``record``, or of an
            ``.npz`` file with an array ``members``.
        records: the number of records of the data set.
        ids: the names of the records. A file that has their column, and no column ``record``, lists
            members by name.

    Raises:
        InputError: a file that cannot be read, or a record that the data set does not have.
    """
    path = user_path(file)
    if ids is not None and path.suffix != ".npz" and _lists_names(path, ids):
        return _named_members(path, ids)
    if path.suffix == ".npz":
        members = read_npz(path, ["members"], limit=memory_limit(None))[0]
    else:
        members = read_record_table(path, {}, records, "a member list")[RECORD]
    if members.ndim != 1 or len(members) == 0 or not np.issubdtype(members.dtype, np.integer):
        raise InputError(
            f"expected a list of record numbers in {shown(path)}, got {members.dtype} of shape {members.shape}; write "
            "the number of each training record"
        )
    unknown = members[(members < 0) | (members >= records)]
    if len(unknown):
        raise InputError(
            f"expected members among records 0..{records - 1} in {shown(path)}, got {int(unknown[0])}; number the "
            "records of the data set from 0"
        )
    return np.unique(members.astype(np.int64))


def _lists_names(path: Path, ids: RecordIds) -> bool:
    names = column_names(path, "a member list")
    return ids.column in names and RECORD not in names


def _named_members(path: Path, ids: RecordIds) -> Int64[np.ndarray, " m"]:
    """The indices of the records that a file lists by name.

    Raises:
        InputError: no name, or one that no record has.
    """
    place = {name: i for i, name in enumerate(ids.values)}
    members: list[int] = []
    with _open_table(path, [ids.column], "a member list", {ids.column: pa.string()}) as batches:
        for batch in batches:
            names = ["" if value is None else str(value) for value in batch[ids.column].to_pylist()]
            unknown = next((name for name in names if name not in place), None)
            if unknown is not None:
                raise InputError(
                    f"expected members by their {ids.column!r} in {shown(path)}, got {unknown[:50]!r}, which no record "
                    "of the data set has; take it out, or give the table that has the record"
                )
            members += [place[name] for name in names]
            if len(members) > len(place):
                raise InputError(
                    f"expected at most {len(place)} rows in {shown(path)}, one a record, got more; drop some"
                )
    if not members:
        raise InputError(f"expected a list of members in {shown(path)}, got none; write each training record")
    return np.unique(np.array(members, np.int64))


def read_record_table(
    path: Path, columns: Mapping[str, pa.DataType], records: int, kind: str
) -> dict[str, np.ndarray]:  # fmt: skip
    """Read the column ``record`` of a table and some columns beside it.

    The table is read batch by batch, so that a file of any length takes no more memory than
    ``records`` rows.

    Args:
        path: the path of a ``.csv`` or ``.parquet`` file.
        columns: the names of the other columns, each with a numeric type.
        records: the number of records of the data set, and so the largest number of rows.
        kind: a phrase for the file that is expected, such as ``"a member list"``.

    Returns:
        The columns by name. A missing record is -1, and a missing floating-point number is NaN.

    Raises:
        InputError: another kind of file, a missing column, a value that is no number, or more rows
            than records.
    """
    types = {RECORD: pa.int64(), **columns}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in types}
    with _open_table(path, list(types), kind) as batches:
        rows = 0
        for batch in batches:
            rows += len(batch)
            if rows > records:
                raise InputError(f"expected at most {records} rows in {shown(path)}, one a record, got more; drop some")
            for name, wanted in types.items():
                column = batch[name]
                if pa.types.is_boolean(column.type):
                    raise ValueError(f"booleans in column {name}")
                missing = -1 if pa.types.is_integer(wanted) else np.nan
                parts[name].append(column.cast(wanted).fill_null(missing).to_numpy(zero_copy_only=False))
    empty = {name: np.empty(0, wanted.to_pandas_dtype()) for name, wanted in types.items()}
    return {name: np.concatenate([empty[name], *parts[name]]) for name in types}


def column_names(path: Path, kind: str) -> list[str]:
    """The names of the columns of a ``.csv`` or ``.parquet`` file; none for another kind of file.

    Raises:
        InputError: a file that cannot be read.
    """
    if path.suffix == ".csv":
        with open_csv(path, kind) as table:
            return list(table.schema.names)
    if path.suffix == ".parquet":
        with open_parquet(path, kind) as table:
            return list(table.schema_arrow.names)
    return []


@contextmanager
def _open_table(
    path: Path, columns: list[str], kind: str, types: Mapping[str, pa.DataType] | None = None
) -> Iterator[Iterable[pa.RecordBatch]]:
    kind = f"{kind} with {'the columns' if len(columns) > 1 else 'a column'} {' and '.join(columns)}"
    if path.suffix == ".csv":
        with open_csv(path, kind) as table:
            _require_columns(path, kind, table.schema.names, columns)
        with open_csv(path, kind, only=columns, types=types) as table:
            yield table
    elif path.suffix == ".parquet":
        with open_parquet(path, kind) as table:
            _require_columns(path, kind, table.schema_arrow.names, columns)
            yield table.iter_batches(columns=columns)
    else:
        raise InputError(f"expected {kind} in a file ending in .csv or .parquet, got {shown(path.name)!r}; convert it")


def _require_columns(path: Path, kind: str, names: list[str], columns: list[str]) -> None:
    for column in columns:
        if names.count(column) != 1:
            raise InputError(
                f"expected {kind} in {shown(path)}, got {names.count(column)} columns of the name {column!r}; name the "
                "columns so"
            )
