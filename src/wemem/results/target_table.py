"""Writer of ``leave_one_out.parquet`` (:mod:`wemem.results.target_records`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float, UInt32

from wemem.auditing.leave_one_out import TargetRecords
from wemem.results.rank_tables import RANK
from wemem.results.target_records import OWN


def write_target_table(path: Path, audits: Sequence[tuple[str, int, float, TargetRecords]]) -> None:
    """Write the records of leave-one-out audits, one audit at a time.

    Args:
        path: the path of the file.
        audits: the label, seed and requested sparsity of each run, and its records.
    """
    attacks = dict.fromkeys(name for *_, targets in audits for name in targets.scores)
    schema = pa.schema([*OWN, *((f"{name}{RANK}", pa.uint32()) for name in attacks)])
    with pa.parquet.ParquetWriter(path, schema) as writer:
        for label, seed, sparsity, targets in audits:
            table = target_rows(label, seed, sparsity, targets, schema)
            writer.write_table(table, row_group_size=len(table))


def target_rows(label: str, seed: int, sparsity: float, targets: TargetRecords, schema: pa.Schema) -> pa.Table:
    """The rows of one audit; attacks of the schema that it lacks are missing values."""
    count, n = targets.membership.shape
    columns: dict[str, Any] = {
        "label": pa.array([label] * (count * n)),
        "seed": np.full(count * n, seed),
        "sparsity": np.full(count * n, sparsity),
        "target": np.repeat(np.arange(count, dtype=np.int32), n),
        "record": np.tile(targets.records, count),
        "member": targets.membership.ravel(),
        "correct_prediction": targets.correct.ravel(),
    }
    for name, arrays in targets.scores.items():
        columns[f"{name}{RANK}"] = np.concatenate([_dense_ranks(score) for score in arrays["score"]])
    missing = {name: pa.nulls(count * n, schema.field(name).type) for name in schema.names if name not in columns}
    return pa.table({**columns, **missing}, schema=schema)


def _dense_ranks(score: Float[np.ndarray, " N"]) -> UInt32[np.ndarray, " N"]:
    return np.unique(score, return_inverse=True)[1].astype(np.uint32)
