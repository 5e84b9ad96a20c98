"""The audit by functions of record numbers, from files and names alone."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from wemem.config.study import StudyConfig
from wemem.files.memory_limit import memory_limit
from wemem.files.npz import read_npz
from wemem.objects.commands import audit
from wemem.pipeline.progress import Progress
from wemem.results.folder import SAMPLES


def audit_by_numbers(
    config: StudyConfig, predict: str, train: str, labels: Path, members: Path, out: Path, store: str | Path | None,
    progress: Progress, file: Path | None = None,
) -> tuple[dict[str, Any], pa.Table]:  # fmt: skip
    """Audit a model by functions that take record numbers (:func:`~wemem.objects.commands.audit`).

    Args:
        config: the study, of which split, seeds and attacks are used.
        predict: ``module:function``, record numbers to logits of the audited model.
        train: ``module:function``, ``train(records, seed) -> predict``.
        labels: an ``.npz`` file whose array ``labels`` has the class of every record.
        members: the file that lists the records on which the audited model was trained.
        out: the output directory.
        store: the location of stored stages.
        progress: receives every model.
        file: the file of the audited model, if it is known.

    Returns:
        The content of ``results.json`` and of ``per_sample.parquet``.
    """
    (numbers,) = read_npz(labels, ["labels"], limit=memory_limit(None))
    result = audit(
        predict, members=members, train=train, labels=numbers.tolist(), file=file, study=config, out=out,
        store=store, progress=progress,
    )  # fmt: skip
    return dict(result.content), pyarrow.parquet.read_table(result.folder / SAMPLES)
