"""``per_sample.parquet``: the scores of all audited records of a study."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64
from scipy.stats import rankdata

from wemem.auditing.report import AuditReport
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.results.build import correct_predictions
from wemem.study.outcome import Outcome


def per_sample_table(config: StudyConfig, outcomes: Sequence[Outcome], data: Dataset) -> pa.Table:
    """The rows of all attacked outcomes (:func:`sample_rows`)."""
    tables = [
        sample_rows(
            o.label, o.seed, o.sparsity, o.report, data.labels, o.memorization, correct_predictions(o, config, data)
        )
        for o in outcomes
        if o.report.results
    ]
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def sample_rows(
    label: str,
    seed: int,
    sparsity: float,
    report: AuditReport,
    labels: Int64[np.ndarray, " N"],
    memorization: Float64[np.ndarray, " N"] | None,
    correct: Bool[np.ndarray, " N"],
) -> pa.Table:
    """The rows of one audit, one for each audited record.

    Columns are the class of the record, its membership, whether the audited model predicts it
    correctly, its memorization score, and the score, decision and membership probability of each
    attack. ``risk_rank`` ranks records by exposure, from 1: by the share of audited records that
    score no higher, as a mean over attacks.

    Args:
        label: the label of the arm.
        seed: the seed of the run.
        sparsity: the requested sparsity.
        report: the audit of the run.
        labels: the class of every record of the data set.
        memorization: the memorization score of every record; None if there are none.
        correct: true where the audited model predicts the class of the record.

    Raises:
        InputError: the attacks scored different records.
    """
    records = report.results[0].records
    n = len(records)
    columns: dict[str, Any] = {
        "label": [label] * n,
        "seed": [seed] * n,
        "sparsity": [sparsity] * n,
        "record": records,
        "class": labels[records],
        "member": report.results[0].member,
        "correct_prediction": correct[records],
    }
    if memorization is not None:
        columns["memorization"] = memorization[records]
    ranks = []
    for result in report.results:
        if not np.array_equal(result.records, records):
            raise InputError(
                f"expected attacks on the same records, got {result.name!r} on others than {report.results[0].name!r}"
            )
        columns[result.name] = result.output.score
        columns[f"{result.name}_called"] = result.output.score >= result.output.threshold
        if result.output.probability is not None:
            columns[f"{result.name}_probability"] = result.output.probability
        ranks.append(rankdata(result.output.score) / n)
    columns["risk_rank"] = rankdata(-np.mean(ranks, axis=0), method="min").astype(np.int64)
    return pa.table(columns)
