"""``leave_one_out.parquet``: the records of the leave-one-out audits of a study.

Each run has one row group, with a row for each target and audited record. An attack's column holds
the rank of the record among the scores of its target, from 0, with ties equal. Rates without a
threshold depend on ranks alone, so that they follow from the file exactly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from wemem.files.input_files import exists
from wemem.files.tables import numbers_of, texts_of
from wemem.results.folder import TARGETS
from wemem.results.rank_tables import foreign, open_runs, ranks_of, shape_of

#: Largest number of values of one run to read, about 2 GiB: 8 attacks on 65 targets and 500,000
#: records.
MOST = 2**28
OWN = pa.schema(
    [
        ("label", pa.string()), ("seed", pa.int64()), ("sparsity", pa.float64()), ("target", pa.int32()),
        ("record", pa.int64()), ("member", pa.bool_()), ("correct_prediction", pa.bool_()),
    ]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunTargets:
    """The records of one run's leave-one-out audit of ``T`` targets.

    Args:
        member: bool, shape ``(T, N)``.
        correct: bool, shape ``(T, N)``: true where the target predicts the class of the record.
        ranks: by attack, the ranks of the records among the scores of each target.
    """

    member: Bool[np.ndarray, "T N"]
    correct: Bool[np.ndarray, "T N"]
    ranks: Mapping[str, Float[np.ndarray, "T N"]]


def read_targets(folder: Path, runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, RunTargets]]:
    """Read the leave-one-out audits of runs from ``leave_one_out.parquet``, one at a time.

    As in ``per_sample.parquet``, the table holds the requested sparsity and results the sparsity
    that was reached. So the runs of a label and seed are matched by rank.

    Args:
        folder: the output directory of a study or an audit.
        runs: the runs of its ``results.json``.

    Yields:
        The index of each run with records, and the records. Nothing without the file.

    Raises:
        InputError: the table is unreadable or too large, or belongs to other results.
    """
    path = folder / TARGETS
    what = "the records of a leave-one-out audit"
    if not exists(path, what):
        return
    with open_runs(path, what, OWN.names, ["label"], runs, MOST) as file:
        audits = [_audit_of(path, file, group) for group in range(file.metadata.num_row_groups)]
        for group, index in enumerate(_matched(path, audits, runs)):
            yield index, _targets(path, file, group)


def _audit_of(path: Path, file: Any, group: int) -> tuple[str, int, float]:
    """The label, seed and requested sparsity of a row group, all of whose rows must agree."""
    table = file.read_row_group(group, columns=["label", "seed", "sparsity"])
    labels, texts = texts_of(table["label"])
    columns = [np.unique(values) for values in (labels, numbers_of(table["seed"]), numbers_of(table["sparsity"]))]
    if any(len(values) != 1 for values in columns):
        raise foreign(path, "a row group with the records of several runs")
    return texts[int(columns[0][0])], int(columns[1][0]), float(columns[2][0])


def _matched(
    path: Path, audits: Sequence[tuple[str, int, float]], runs: Sequence[Mapping[str, Any]]
) -> list[int]:  # fmt: skip
    """The index of the run of each row group."""
    order = sorted(range(len(runs)), key=lambda i: runs[i]["sparsity"])
    indices = []
    for label, seed, sparsity in audits:
        requested = sorted(one[2] for one in audits if one[:2] == (label, seed))
        reached = [i for i in order if (runs[i]["label"], runs[i]["seed"]) == (label, seed)]
        if len(reached) != len(requested) or len(set(requested)) != len(requested):
            raise foreign(path, f"{len(requested)} audits of {label!r}, seed {seed}, beside {len(reached)} runs")
        indices.append(reached[requested.index(sparsity)])
    return indices


def _targets(path: Path, file: Any, group: int) -> RunTargets:
    table = file.read_row_group(group, columns=[name for name in file.schema_arrow.names if name != "label"])
    shape = shape_of(path, table)
    ranks = ranks_of(path, table, shape)
    member, correct = (numbers_of(table[name]).astype(bool).reshape(shape) for name in ("member", "correct_prediction"))
    return RunTargets(member, correct, ranks)
