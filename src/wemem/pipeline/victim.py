"""The model a user brings: its weights as an ensemble of one, or its ONNX file."""

from pathlib import Path

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.export.checkpoint import load_pruned
from wemem.export.onnx import OnnxModel, read_onnx
from wemem.files.hashing import file_sha256
from wemem.training import Ensemble


def victim_ensemble(config: StudyConfig, data: Dataset) -> tuple[Ensemble, str]:
    """The victim as an ensemble of one, and the fingerprint of its weights file.

    Raises:
        InputError: the file does not fit the model.
    """
    if config.victim is None:
        raise InputError("expected a [victim] with weights, got none")
    path = Path(config.victim.weights)
    module = load_pruned(config.model.build(data.input_shape, data.classes), path)
    return Ensemble.from_modules([module.train()]), file_sha256(path)


def is_onnx(config: StudyConfig) -> bool:
    """Whether the victim is an ONNX file, which can be asked but not trained."""
    return config.victim is not None and Path(config.victim.weights).suffix.lower() == ".onnx"


def victim_file(config: StudyConfig) -> OnnxModel:
    """The victim that is an ONNX file."""
    assert config.victim is not None
    return read_onnx(Path(config.victim.weights))
