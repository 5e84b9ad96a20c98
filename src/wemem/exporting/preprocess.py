"""The preprocessing of a table beside a model's weights: ``preprocess.json``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wemem.data.preprocessing import Preprocessing
from wemem.data.preprocessing_file import preprocessing_text, read_preprocessing
from wemem.errors import InputError
from wemem.exporting.shards import weights_sha256
from wemem.files.input_files import exists
from wemem.models.table import FITTED, NETWORK, PREPROCESS, TableInput, require_form, table_input

NAME = "preprocess.json"


def preprocess_path(weights: Path) -> Path:
    """The path of the preprocessing beside a weights file: ``preprocess.json`` for
    ``weights.safetensors``, else a file with the name of the weights in front.
    """
    return weights.with_name(NAME) if weights.stem == "weights" else weights.with_suffix(f".{NAME}")


def preprocess_beside(weights: Path) -> Path | None:
    """The preprocessing that lies beside a weights file, under its name or as ``preprocess.json``;
    None without one.
    """
    places = (preprocess_path(weights), weights.with_name(NAME))
    return next((place for place in places if exists(place, "a preprocessing")), None)


def preprocess_of(weights: Path, module: nn.Module, class_names: Sequence[str]) -> str | None:
    """The content of :func:`preprocess_path` for a model whose weights are written; None for a
    model without a table.
    """
    layer = table_input(module)
    if layer is None:
        return None
    names = {"class_names": list(class_names)} if class_names else {}
    return preprocessing_text(layer.preprocessing, weights_sha256=weights_sha256(weights), **names)


def state_with_preprocess(
    module: nn.Module, state: Mapping[str, Tensor], weights: Path, note: Callable[[str], object]
) -> dict[str, Tensor]:
    """The state dict of a model for a table, from weights with the preprocessing in them or beside
    them.

    Args:
        module: the architecture.
        state: the tensors of the weights file.
        weights: the path of the weights file.
        note: receives one line if the preprocessing is read from the file beside the weights.

    Raises:
        InputError: no preprocessing, or one of other columns or other weights.
    """
    layer = table_input(module)
    if layer is None:
        return dict(state)
    inside = any(name.startswith(f"{PREPROCESS}.") for name in state)
    path = preprocess_beside(weights)
    if path is None:
        if inside:
            return dict(state)
        raise InputError(
            f"expected the preprocessing of a table in {weights} or in {NAME} beside it, got none; write it there with "
            "wemem.Preprocessing, or set data.standardize = false if the model takes the columns as they are"
        )
    preprocessing, content = read_preprocessing(path)
    if content.get("weights_sha256") not in (None, weights_sha256(weights)):
        raise InputError(f"expected {path} to belong to {weights}, got the hash of other weights; give the right pair")
    require_form(layer.form, preprocessing.form)
    fitted = _buffers(preprocessing)
    if inside:
        for name, tensor in fitted.items():
            if name not in state or not torch.equal(state[name].to(tensor.dtype), tensor):
                raise InputError(f"expected {name!r} in {weights} as in {path}, got other numbers; give the right pair")
        return dict(state)
    note(f"the preprocessing of {weights} is read from {path}")
    return {**fitted, **{f"{NETWORK}.{name}": tensor for name, tensor in state.items()}}


def _buffers(preprocessing: Preprocessing) -> dict[str, Tensor]:
    layer = TableInput(preprocessing.form).load(preprocessing)
    return {f"{PREPROCESS}.{name}": getattr(layer, name) for name in (*FITTED, "records")}
