"""Weights and member lists from outside: read without executing anything, refused in one line."""

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from jaxtyping import Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wemem.data.dataset import Dataset
from wemem.data.memory import memory_limit
from wemem.data.npz import read_npz
from wemem.errors import InputError
from wemem.signals import UNKNOWN
from wemem.study.config import StudyConfig
from wemem.study.onnx_file import OnnxModel, read_onnx
from wemem.training import Ensemble
from wemem.training.resize import resized

#: The files beside a pruned model's weights, or its ONNX file, that say how it was made.
CERTIFICATE, EXPORTED = "pruning.json", "export.json"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: no such file, truncated, or of another format.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"expected weights in safetensors format in {path}, got an error: {line}; save them again"
        ) from error


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict. Plain PyTorch reads it: ``model.load_state_dict(safetensors.torch.load_file(path))``."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


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


def load_pruned(module: nn.Module, path: str | Path) -> nn.Module:
    """A pruned model from its file, in plain PyTorch; where channels were removed, a smaller network.

    Args:
        module: the architecture before pruning, with any weights; not changed.
        path: a ``.safetensors`` file of weights with, where channels were removed, its :func:`channels_path` beside it;
            or a folder with ``weights.safetensors``.

    Returns:
        A copy in evaluation mode, with the weights of the file to the bit.

    Raises:
        InputError: a file that cannot be read, or that does not fit the architecture.
    """
    path = Path(path)
    path = path / "weights.safetensors" if path.is_dir() else path
    state = read_weights(path)
    own = module.state_dict()
    smaller = read_channels(path)
    for name in sorted(set(own) | set(state)):
        wanted = tuple(own[name].shape) if name in own else "no such tensor"
        got = tuple(state[name].shape) if name in state else "none"
        if wanted != got and not (smaller and name in own and name in state):
            raise InputError(
                f"expected {name!r} of shape {wanted} in {path}, got {got}; the weights are of another architecture, "
                "or data of another shape"
            )
    for layer, (dense, kept) in smaller.items():
        shapes = [tuple(tensors.get(f"{layer}.weight", torch.empty(0)).shape)[:1] for tensors in (own, state)]
        if shapes != [(dense,), (len(kept),)]:
            raise InputError(
                f"expected {layer!r} with {len(kept)} of {dense} filters, as {channels_path(path)} says, "
                f"got {shapes[1]} of {shapes[0]}; the files do not belong together"
            )
    made = resized(copy.deepcopy(module), {name: tuple(tensor.shape) for name, tensor in state.items()})
    made.load_state_dict(state)
    return made.eval()


def channels_path(weights: Path) -> Path:
    """The file beside a weights file that says which channels of the dense model are left."""
    return weights.with_suffix(".channels.json")


def channels_of(weights: Path, ensemble: Ensemble) -> str:
    """The content of :func:`channels_path` for the first member, whose weights that very file holds."""
    layers = {
        name: {"of": len(kept[0]), "kept": kept[0].nonzero().flatten().tolist()}
        for name, kept in ensemble.channels.items()
    }
    return json.dumps({"schema": "wemem.channels/1", "weights_sha256": file_sha256(weights), "layers": layers}) + "\n"


def read_channels(weights: Path) -> dict[str, tuple[int, list[int]]]:
    """By layer, how many channels the dense model made and which are left; nothing if there is no such file.

    Raises:
        InputError: a file that is broken, or of other weights.
    """
    path = channels_path(weights)
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > 2**26:
            raise ValueError("it is too large")
        told = json.loads(path.read_bytes())
        if told["weights_sha256"] != file_sha256(weights):
            raise ValueError("it belongs to other weights")
        found = {str(layer): (int(own["of"]), [int(c) for c in own["kept"]]) for layer, own in told["layers"].items()}
        for dense, kept in found.values():
            if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= dense:
                raise ValueError("no channels of that layer")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"expected {path} to say which channels of {weights} are left, got: {line}; prune the model again"
        ) from error


def certificate_of(weights: Path, made_as: str, told: Mapping[str, Any], schema: str = "wemem.pruning/1") -> str:
    """The content of the :data:`CERTIFICATE` or :data:`EXPORTED` beside a file: how that very file was made."""
    certificate = {"schema": schema, "made_as": made_as, "weights_sha256": file_sha256(weights), **told}
    return json.dumps(certificate, indent=1) + "\n"


def read_certificate(weights: Path) -> str:
    """How a model's file was made, by the certificate beside it; ``unknown`` if there is none for that very file."""
    path = weights.with_name(EXPORTED if weights.suffix.lower() == ".onnx" else CERTIFICATE)
    try:
        if path.stat().st_size > 2**24:
            return UNKNOWN
        told = json.loads(path.read_bytes())
        certified = told["weights_sha256"] == file_sha256(weights)
        return str(told["made_as"]) if certified else UNKNOWN
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return UNKNOWN


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_members(file: str, records: int) -> Int64[np.ndarray, " m"]:
    """Indices of the records a model was trained on.

    Args:
        file: ``.csv`` or ``.parquet`` with a column ``record``, or ``.npz`` with an array ``members``.
        records: size of the data set.

    Raises:
        InputError: the file cannot be read, or names a record that is not there.
    """
    path = Path(file)
    try:
        if path.suffix == ".npz":
            found = read_npz(path, ["members"], limit=memory_limit(None))[0]
        else:
            found = _record_column(path, records)
    except (OSError, KeyError, pa.ArrowException) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"cannot read members from {path}: {line}; expected a column record (.npz: an array members)"
        ) from error
    if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"expected a list of record numbers in {path}, got {found.dtype} of shape {found.shape}")
    unknown = found[(found < 0) | (found >= records)]
    if len(unknown):
        raise InputError(f"expected members among records 0..{records - 1} in {path}, got {int(unknown[0])}")
    return np.unique(found.astype(np.int64))


def _record_column(path: Path, most: int) -> np.ndarray:
    """The column ``record``, batch by batch, so that a file of any length takes no more memory than ``most`` rows."""
    found: list[np.ndarray] = []
    with _open_table(path) as batches:
        for batch in batches:
            found.append(batch["record"].to_numpy(zero_copy_only=False))
            if sum(map(len, found)) > most:
                raise InputError(f"expected at most {most} rows in {path}, one a record, got more")
    return np.concatenate(found) if found else np.zeros(0, np.int64)


@contextmanager
def _open_table(path: Path) -> Iterator[Iterable[pa.RecordBatch]]:
    if path.suffix == ".csv":
        with pyarrow.csv.open_csv(path, pyarrow.csv.ReadOptions(use_threads=False)) as table:
            yield table
    elif path.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as table:
            yield table.iter_batches(columns=["record"])
    else:
        raise InputError(f"expected a member list ending in .csv, .parquet or .npz, got {path.name!r}")
