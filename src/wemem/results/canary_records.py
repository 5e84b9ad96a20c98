"""``canaries.parquet``: the records of the attacks on canaries of a study.

Each run has one row group, with a row for each target and canary. An attack's column holds the rank
of the canary among the scores of all targets on canaries of its kind, from 0, with ties equal. The
rates on canaries depend on these ranks alone, so that they follow from the file exactly.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float, UInt32

from wemem.auditing.canaries import CanaryRecords
from wemem.files.input_files import exists
from wemem.files.tables import numbers_of, texts_of
from wemem.metrics.over_targets import metrics_over_targets
from wemem.results.folder import CANARIES
from wemem.results.rank_tables import RANK, foreign, open_runs, ranks_of, shape_of

#: Largest number of values of one run to read.
MOST = 2**26
#: Largest difference between a stored and a recomputed number that is attributed to rounding.
ROUNDING = 1e-9
OWN = pa.schema(
    [
        ("label", pa.string()), ("seed", pa.int64()), ("run", pa.int32()), ("target", pa.int32()),
        ("record", pa.int64()), ("kind", pa.string()), ("member", pa.bool_()),
    ]
)  # fmt: skip
WHAT = "the records of attacks on canaries"


def write_canaries(path: Path, runs: Sequence[tuple[int, str, int, CanaryRecords]]) -> None:
    """Write the records of attacks on canaries, one run at a time.

    Args:
        path: the path of the file.
        runs: the place of each run in ``results.json``, its label, its seed, and its records.
    """
    attacks = dict.fromkeys(name for *_, canaries in runs for name in canaries.scores)
    schema = pa.schema([*OWN, *((f"{name}{RANK}", pa.uint32()) for name in attacks)])
    with pa.parquet.ParquetWriter(path, schema) as writer:
        for place, label, seed, canaries in runs:
            targets, n = canaries.membership.shape
            size = targets * n
            columns: dict[str, Any] = {
                "label": [label] * size,
                "seed": np.full(size, seed),
                "run": np.full(size, place),
                "target": np.repeat(np.arange(targets), n),
                "record": np.tile(canaries.records, targets),
                "kind": [*canaries.kinds] * targets,
                "member": canaries.membership.ravel(),
            }
            for name, score in canaries.scores.items():
                columns[f"{name}{RANK}"] = ranks_by_kind(score, canaries.kinds).ravel()
            missing = {name: pa.nulls(size, schema.field(name).type) for name in schema.names if name not in columns}
            writer.write_table(pa.table({**columns, **missing}, schema=schema), row_group_size=max(1, size))


def ranks_by_kind(score: Float[np.ndarray, "T N"], kinds: Sequence[str]) -> UInt32[np.ndarray, "T N"]:
    """Rank the scores of each kind of canary over all targets, ties equal.

    >>> ranks_by_kind(np.array([[0.5, 9.0], [0.1, 7.0]]), ["twins", "mislabelled"])
    array([[1, 1],
           [0, 0]], dtype=uint32)
    """
    ranks = np.zeros(score.shape, np.uint32)
    for kind in set(kinds):
        own = np.array([one == kind for one in kinds])
        ranks[:, own] = np.unique(score[:, own], return_inverse=True)[1].reshape(len(score), -1)
    return ranks


def read_canaries(folder: Path, runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, CanaryRecords]]:
    """Read the attacks on canaries of runs from ``canaries.parquet``, one run at a time.

    Args:
        folder: the output directory of a study or an audit.
        runs: the runs of its ``results.json``.

    Yields:
        The index of each run with records, and the records. Nothing without the file.

    Raises:
        InputError: the table is unreadable or too large, or belongs to other results.
    """
    path = folder / CANARIES
    if not exists(path, WHAT):
        return
    with open_runs(path, WHAT, OWN.names, ["label", "kind"], runs, MOST) as file:
        known: set[int] = set()
        for group in range(file.metadata.num_row_groups):
            index, canaries = _canaries(path, file.read_row_group(group), runs)
            if index in known:
                raise foreign(path, f"two row groups of run {index}")
            known.add(index)
            yield index, canaries


def canary_differences(run: Mapping[str, Any], canaries: CanaryRecords) -> Iterator[str]:
    """Find rates on canaries of a run that do not follow from its records.

    Args:
        run: the run in ``results.json``.
        canaries: its records.
    """
    stored = run.get("canaries") or {}
    for name in sorted(canaries.scores.keys() ^ stored.keys()):
        yield f"the attack {name} on canaries has no {'rates' if name in canaries.scores else 'records'}"
    for name in stored.keys() & canaries.scores.keys():
        computed = canaries.rates(name, metrics_over_targets(), seed=run["seed"])
        for kind in sorted(stored[name].keys() ^ computed.keys()):
            yield f"{name} on canaries has no {'rates' if kind in computed else 'records'} of the kind {kind}"
        for kind in sorted(stored[name].keys() & computed.keys()):
            yield from _compared(f"{name} on canaries ({kind})", stored[name][kind], computed[kind])


def _compared(words: str, stored: Mapping[str, Any], computed: Mapping[str, Any]) -> Iterator[str]:
    for name, value in computed.items():
        if name not in stored:
            continue
        given, own = (_numbers(one) for one in (stored[name], value))
        if not np.allclose(given, own, rtol=0, atol=ROUNDING):
            yield f"{words}: {name} is {given[0]:.6g}, its records give {own[0]:.6g}"


def _numbers(value: Any) -> list[float]:
    return [value["value"], *value["ci"]] if isinstance(value, Mapping) else [float(value)]


def _canaries(path: Path, table: pa.Table, runs: Sequence[Mapping[str, Any]]) -> tuple[int, CanaryRecords]:
    labels, texts = texts_of(table["label"])
    found = [np.unique(values) for values in (labels, numbers_of(table["seed"]), numbers_of(table["run"]))]
    if any(len(values) != 1 for values in found):
        raise foreign(path, "a row group with the records of no run or several")
    label, seed, index = texts[int(found[0][0])], int(found[1][0]), int(found[2][0])
    if not 0 <= index < len(runs) or (runs[index]["label"], runs[index]["seed"]) != (label, seed):
        raise foreign(path, f"records of {label!r}, seed {seed}, for run {index}")
    shape = shape_of(path, table)
    kinds, kind_texts = texts_of(table["kind"])
    record, kind = numbers_of(table["record"]).astype(np.int64).reshape(shape), np.asarray(kinds).reshape(shape)
    if (record != record[0]).any() or (kind != kind[0]).any():
        raise foreign(path, "other canaries for some targets")
    member = numbers_of(table["member"]).astype(bool).reshape(shape)
    return index, CanaryRecords(
        record[0], [kind_texts[int(one)] for one in kind[0]], member, ranks_of(path, table, shape)
    )
