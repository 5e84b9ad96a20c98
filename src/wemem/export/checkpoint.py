"""Weights and member lists from outside: read without executing anything, refused in one line."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.files.documents import read_json
from wemem.files.hashing import file_sha256
from wemem.files.input_files import exists, is_folder, user_path
from wemem.files.safetensors_file import require_safetensors
from wemem.signals import UNKNOWN
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
        return load_file(require_safetensors(path, "weights in safetensors format"))
    except (OSError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"expected weights in safetensors format in {path}, got an error: {line}; save them again"
        ) from error


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict; tensors that share memory (tied weights) are written under each of their names.

    Plain PyTorch reads the file: ``model.load_state_dict(safetensors.torch.load_file(path))``.
    """
    save_file(
        {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}, path
    )


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
    path = user_path(path)
    path = path / "weights.safetensors" if is_folder(path, "weights") else path
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
    if not exists(path, "a list of channels"):
        return {}
    try:
        told = read_json(path, "a list of channels")
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


def certificate_of(
    weights: Path, recipe_fingerprint: str, told: Mapping[str, Any], schema: str = "wemem.pruning/1"
) -> str:
    """The content of the :data:`CERTIFICATE` or :data:`EXPORTED` beside a file: how that very file was made."""
    certificate = {
        "schema": schema,
        "recipe_fingerprint": recipe_fingerprint,
        "weights_sha256": file_sha256(weights),
        **told,
    }
    return json.dumps(certificate, indent=1) + "\n"


def read_certificate(weights: Path) -> str:
    """How a model's file was made, by the certificate beside it; ``unknown`` if there is none for that very file."""
    path = weights.with_name(EXPORTED if weights.suffix.lower() == ".onnx" else CERTIFICATE)
    try:
        told = read_json(path, "a certificate")
        certified = told["weights_sha256"] == file_sha256(weights)
        return str(told["recipe_fingerprint"]) if certified else UNKNOWN
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return UNKNOWN
