"""Scores of the audited records, read from ``per_sample.parquet``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from wemem.errors import InputError
from wemem.files.input_files import exists
from wemem.files.tables import numbers_of, open_parquet, texts_of, unfolded_bytes
from wemem.results.folder import SAMPLES

#: Largest number of values to read, about 2 GiB. Ten attacks on 100 models and 60,000 records take
#: a third of it.
MOST = 2**28
#: Columns that are never scores of an attack; an attack with such a label has no readable scores.
OWN = ("label", "seed", "sparsity", "record", "class", "member", "correct_prediction", "memorization", "risk_rank")
NEEDED = ("label", "seed", "sparsity", "class", "member")


@dataclass(frozen=True, eq=False)
class RunScores:
    """Scores of one run's attacks on its ``n`` audited records.

    Args:
        member: true where the victim was trained on the record.
        classes: the class of each record.
        memorization: the memorization score of the defender, NaN for a record without one; None if
            the study estimated no scores.
        scores: the scores by attack; a higher score means member.
        called: the decisions by attack, true where the attack predicts member.
        correct: true where the victim predicts the class of the record; None in files without this
            column.
        records: the number of each record in the data set; None in files without this column.
        risk_rank: the rank of each record by exposure, from 1; None in files without this column.
    """

    member: Bool[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]
    memorization: Float64[np.ndarray, " n"] | None
    scores: Mapping[str, Float64[np.ndarray, " n"]]
    called: Mapping[str, Bool[np.ndarray, " n"]] = field(default_factory=dict)
    correct: Bool[np.ndarray, " n"] | None = None
    records: Int64[np.ndarray, " n"] | None = None
    risk_rank: Int64[np.ndarray, " n"] | None = None

    def members(self, attack: str) -> Float64[np.ndarray, " m"]:
        """Scores of the members."""
        return np.asarray(self.scores[attack][self.member])

    def nonmembers(self, attack: str) -> Float64[np.ndarray, " k"]:
        """Scores of the non-members."""
        return np.asarray(self.scores[attack][~self.member])


def read_scores(folder: Path, runs: Sequence[Mapping[str, Any]]) -> list[RunScores | None]:
    """Read the scores of each run from ``per_sample.parquet``, in the order of the runs.

    Results hold the sparsity that was reached and the table holds the sparsity that was requested.
    So the runs of a label and seed are matched by rank, from the lowest sparsity to the highest.

    Args:
        folder: the ``--out`` folder of a study or an audit.
        runs: the runs of its ``results.json``.

    Returns:
        The scores of each run; None for a run without attacks, and for all runs without the file.

    Raises:
        InputError: the table is unreadable, has more than :data:`MOST` values, or belongs to other
            results.
    """
    path = folder / SAMPLES
    if not exists(path, "the records of a study") or not any(run["attacks"] for run in runs):
        return [None] * len(runs)
    try:
        columns = _columns(path, [name for run in runs for name in run["attacks"]])
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"expected the records of a study in {path}, got: {reason}; run the study again") from error
    return [_scores(path, columns, runs, run) if run["attacks"] else None for run in runs]


@dataclass(frozen=True)
class RecordedAudits:
    """The audits that a folder's ``per_sample.parquet`` has records of.

    Args:
        runs: the label and the seed of each audit.
        attacks: the attacks with scores in it.
    """

    runs: frozenset[tuple[str, int]]
    attacks: frozenset[str]


def recorded_audits(folder: Path) -> RecordedAudits:
    """The audits in a folder's ``per_sample.parquet``; none if there is no such file, or it says
    nothing of runs.

    Raises:
        InputError: no readable table.
    """
    path = folder / SAMPLES
    if not exists(path, "the records of a study"):
        return RecordedAudits(frozenset(), frozenset())
    with open_parquet(path, "the records of a study", read_dictionary=["label"]) as file:
        names = set(file.schema_arrow.names)
        if not names.issuperset(("label", "seed")):
            return RecordedAudits(frozenset(), frozenset())
        table = file.read(["label", "seed"])
    labels, texts = texts_of(table["label"])
    seeds = numbers_of(table["seed"])
    runs = {(texts[label], int(seed)) for label in np.unique(labels) for seed in np.unique(seeds[labels == label])}
    attacks = (name for name in names - {*OWN} if f"{name}_called" in names)
    return RecordedAudits(frozenset(runs), frozenset(attacks))


def _columns(path: Path, attacks: Sequence[str]) -> dict[str, Any]:
    """The columns as arrays; ``label`` holds indices into ``labels``, so that each text is stored
    once.
    """
    remedy = "run the study again"
    with open_parquet(path, "the records of a study", read_dictionary=["label"]) as file:
        types = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        for name in NEEDED:
            if name not in types:
                raise InputError(f"expected a column {name!r} in {path}, got none; {remedy}")
        calls = [f"{name}_called" for name in attacks]
        known = dict.fromkeys(name for name in (*OWN, *attacks, *calls) if name in types)
        for name in known:
            if name != "label" and not _counts(types[name]):
                raise InputError(f"expected numbers in column {name!r} of {path}, got {types[name]}; {remedy}")
        if file.metadata.num_rows * len(known) > MOST:
            raise InputError(f"expected {path} of at most {MOST:,} numbers, got more; report fewer runs together")
        if unfolded_bytes(file, list(known)) > 8 * MOST:
            raise InputError(f"expected {path} of at most {8 * MOST:,} bytes, got more; report fewer runs together")
        table = file.read(list(known))
    arrays: dict[str, Any] = {name: numbers_of(table[name]) for name in known if name != "label"}
    indices, texts = texts_of(table["label"])
    return {**arrays, "label": indices, "labels": texts}


def _counts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _scores(
    path: Path, columns: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], run: Mapping[str, Any]
) -> RunScores:
    """The scores of one run."""
    other = f"expected {path} to be of the results beside it"
    labels = columns["labels"]
    number = labels.index(run["label"]) if run["label"] in labels else -1
    same = (columns["label"] == number) & (columns["seed"] == run["seed"])
    requested = np.unique(columns["sparsity"][same])
    reached = sorted(
        r["sparsity"] for r in runs if r["attacks"] and (r["label"], r["seed"]) == (run["label"], run["seed"])
    )
    if len(requested) != len(reached):
        raise InputError(
            f"{other}, got {len(requested)} audits of {run['label']!r}, seed {run['seed']}; run the study again"
        )
    rows = np.flatnonzero(same & (columns["sparsity"] == requested[reached.index(run["sparsity"])]))
    member = columns["member"][rows].astype(bool)
    scores = {
        name: columns[name][rows].astype(np.float64) for name in run["attacks"] if name in columns and name not in OWN
    }
    for name, values in scores.items():
        audit = run["attacks"][name]
        counts = int(member.sum()), int((~member).sum())
        if counts != (audit["members"], audit["nonmembers"]) or np.isnan(values).any():
            raise InputError(
                f"{other}, got {counts} records or NaN for {name!r} on {run['label']!r}; run the study again"
            )
    memorization = columns["memorization"][rows].astype(np.float64) if "memorization" in columns else None
    called = {name: columns[f"{name}_called"][rows].astype(bool) for name in scores if f"{name}_called" in columns}
    correct = columns["correct_prediction"][rows].astype(bool) if "correct_prediction" in columns else None
    records, ranks = (
        columns[name][rows].astype(np.int64) if name in columns else None for name in ("record", "risk_rank")
    )
    classes = columns["class"][rows].astype(np.int64)
    return RunScores(member, classes, memorization, scores, called, correct, records, ranks)
