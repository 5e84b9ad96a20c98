"""Tables of ranks beside results, with one row group for each run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from wemem.errors import InputError
from wemem.files.tables import numbers_of, open_parquet, unfolded_bytes

#: The end of the name of an attack's column.
RANK = "_rank"


@contextmanager
def open_runs(
    path: Path, what: str, columns: Sequence[str], texts: Sequence[str], runs: Sequence[Mapping[str, Any]], most: int
) -> Iterator[Any]:
    """Open a table of ranks.

    Args:
        path: the path of the file.
        what: a phrase for the file that is expected.
        columns: the names of columns that it must have.
        texts: the names of columns that stay dictionary-encoded.
        runs: the runs of the results beside it.
        most: the largest number of values of one run.

    Raises:
        InputError: the table is unreadable or too large, or belongs to other results.
    """
    with open_parquet(path, what, read_dictionary=texts) as file:
        names, groups = file.schema_arrow.names, range(file.metadata.num_row_groups)
        if not set(columns) <= set(names):
            raise foreign(path, f"no columns {', '.join(columns)}")
        if len(groups) > len(runs) or unfolded_bytes(file, names) > 8 * most * len(runs):
            raise foreign(path, "more records than these runs have")
        if any(file.metadata.row_group(group).num_rows * file.metadata.num_columns > most for group in groups):
            raise foreign(path, f"a run of more than {most:,} values")
        yield file


def shape_of(path: Path, table: pa.Table) -> tuple[int, int]:
    """Numbers of targets and of records of a run, whose rows are in the order of the targets.

    Raises:
        InputError: they are not.
    """
    target: Int64[np.ndarray, " R"] = numbers_of(table["target"]).astype(np.int64)
    count = int(target.max(initial=-1)) + 1
    if (
        count < 1
        or len(target) % count
        or not np.array_equal(target, np.repeat(np.arange(count), len(target) // count))
    ):
        raise foreign(path, "targets out of order")
    return count, len(target) // count


def ranks_of(path: Path, table: pa.Table, shape: tuple[int, int]) -> dict[str, Float[np.ndarray, "T N"]]:
    """Ranks of every attack on a run, by its name.

    Raises:
        InputError: ranks are missing.
    """
    ranks = {
        name.removesuffix(RANK): numbers_of(table[name]).astype(np.float64).reshape(shape)
        for name in table.column_names
        if name.endswith(RANK) and table[name].null_count < len(table)
    }
    if any(np.isnan(values).any() for values in ranks.values()):
        raise foreign(path, "missing ranks")
    return ranks


def foreign(path: Path, received: str) -> InputError:
    """The error for a table that belongs to other results."""
    return InputError(f"expected {path} to be of the results beside it, got {received}; run the study again")
