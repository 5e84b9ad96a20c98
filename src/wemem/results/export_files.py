"""The files of an export: a model as ONNX, and the certificate beside it."""

from dataclasses import asdict
from pathlib import Path

from wemem.config.study import StudyConfig
from wemem.exporting.checkpoint import (
    DEV_RECORDS,
    EXPORTED,
    altering_defense,
    certificate_of,
    dev_records,
    load_pruned,
    read_certificate,
)
from wemem.exporting.onnx import BATCH, metadata_of, onnx_bytes
from wemem.exporting.shards import weights_path, weights_sha256
from wemem.exporting.trained_form import trained_form
from wemem.files.atomic import write_atomically
from wemem.files.hashing import file_sha256
from wemem.models.table import model_for
from wemem.pipeline.loading import study_data
from wemem.results.build import environment


def export_model(config: StudyConfig, weights: Path, out: Path) -> list[str]:
    """Write a model as ``model.onnx`` with its certificate, checked on the study's first records.

    Args:
        config: the study whose model and data are used.
        weights: the file of the weights, or its folder.
        out: the output folder.

    Returns:
        Sentences on what was done.
    """
    weights = weights_path(weights)
    data = study_data(config)
    data = trained_form(weights, data).applied(data)
    notes: list[str] = []
    module = load_pruned(model_for(config.model, data).build(data.input_shape, data.classes), weights, notes.append)
    content, parity = onnx_bytes(module, data.features[:BATCH], metadata_of(data))
    path = out / "model.onnx"
    write_atomically(path, lambda part: part.write_bytes(content))
    payload = {
        "source_sha256": weights_sha256(weights), "parity": asdict(parity), "environment": environment(),
        DEV_RECORDS: dev_records(weights),
    }  # fmt: skip
    certificate = certificate_of(path, read_certificate(weights), payload, "wemem.export/1")
    write_atomically(out / EXPORTED, lambda part: part.write_text(certificate, encoding="utf-8"))
    altering = altering_defense(weights)
    if altering is not None:
        notes.append(
            f"{altering} alters answers when the model is queried, and that does not ship with the file: its answers "
            "are the model's own, so audit the file and not the defended model"
        )
    return [
        *(f"{note[0].upper()}{note[1:]}." for note in notes),
        f"Wrote {path}, {len(content):,} bytes, SHA-256 {file_sha256(path)}.",
        f"On {parity.records} records its logits are within {parity.difference:.1e} of PyTorch's; {parity.allowed:.1e} "
        "is allowed.",
    ]
