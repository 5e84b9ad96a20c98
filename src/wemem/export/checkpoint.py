"""Weights from outside, read without executing anything and refused in one line; and the files beside weights."""

import copy
import json
import warnings
from collections.abc import Callable, Mapping
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

#: The certificates beside a pruned model's weights, and beside its ONNX file.
CERTIFICATE, EXPORTED = "pruning.json", "export.json"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: no such file, truncated, of another format, or with NaN or infinity among its numbers.
    """
    try:
        state = load_file(require_safetensors(path, "weights in safetensors format"))
    except (OSError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"expected weights in safetensors format in {path}, got an error: {line}; save them again"
        ) from error
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise InputError(
                f"expected finite weights in {path}, got NaN or infinity in {name!r}; train the model again"
            )
    return state


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict; tensors that share memory (tied weights) are written under each of their names.

    Plain PyTorch reads the file: ``model.load_state_dict(safetensors.torch.load_file(path))``.
    """
    save_file(
        {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}, path
    )


def load_pruned(
    module: nn.Module, path: str | Path, note: Callable[[str], object] = warnings.warn
) -> nn.Module:  # fmt: skip
    """A pruned model from its file, in plain PyTorch; where channels were removed, a smaller network.

    Args:
        module: the architecture before pruning, with any weights; not changed.
        path: a ``.safetensors`` file of weights with, where channels were removed, its :func:`channels_path` beside it;
            or a folder with ``weights.safetensors``.
        note: called with one line where the file's numbers are of another precision, or its names carry a prefix.

    Returns:
        A copy in evaluation mode, with the weights of the file.

    Raises:
        InputError: a file that cannot be read, or that does not fit the architecture.
    """
    path = user_path(path)
    path = path / "weights.safetensors" if is_folder(path, "weights") else path
    own = module.state_dict()
    state = _with_tied(module, _without_prefix(read_weights(path), own, path, note))
    smaller = read_channels(path)
    _require_fitting(own, state, smaller, path)
    for layer, (dense, kept) in smaller.items():
        shapes = [tuple(tensors.get(f"{layer}.weight", torch.empty(0)).shape)[:1] for tensors in (own, state)]
        if shapes != [(dense,), (len(kept),)]:
            raise InputError(
                f"expected {layer!r} with {len(kept)} of {dense} filters, as {channels_path(path)} says, "
                f"got {shapes[1]} of {shapes[0]}; the files do not belong together"
            )
    state = _in_precision(own, state, path, note)
    loaded = resized(copy.deepcopy(module), {name: tuple(tensor.shape) for name, tensor in state.items()})
    loaded.load_state_dict(state)
    return loaded.eval()


#: Prefixes that wrappers put before the names of a model's weights.
PREFIXES = ("module.", "_orig_mod.", "model.")


def _without_prefix(
    state: dict[str, Tensor], own: Mapping[str, Tensor], path: Path, note: Callable[[str], object]
) -> dict[str, Tensor]:
    """The state dict by the model's own names, where a wrapper was saved with the model inside."""
    for prefix in PREFIXES:
        if state and not set(state) & set(own) and all(name.startswith(prefix) for name in state):
            note(f"the names in {path} begin with {prefix!r}, as a wrapper saves them; it is taken off")
            return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _with_tied(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with every name of a tied weight, where the file has one of them."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    for tied in names.values():
        present = [name for name in tied if name in state]
        if any(not torch.equal(state[name], state[present[0]]) for name in present[1:]):
            raise InputError(f"expected one tensor under the tied names {', '.join(tied)}, got different ones")
        state |= {name: state[present[0]] for name in tied if present}
    return state


def _require_fitting(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], smaller: Mapping[str, object], path: Path
) -> None:
    """Refuse names and shapes of another architecture."""
    for name in sorted(set(own) | set(state)):
        wanted = tuple(own[name].shape) if name in own else "no such tensor"
        got = tuple(state[name].shape) if name in state else "none"
        if wanted != got and not (smaller and name in own and name in state):
            raise InputError(
                f"expected {name!r} of shape {wanted} in {path}, got {got}; the weights are of another architecture, "
                "or data of another shape"
            )


#: Types that hold a model's numbers; int8 and the like need their scales, which only the model that ships has.
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _in_precision(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, note: Callable[[str], object]
) -> dict[str, Tensor]:
    """The state dict in the model's own types.

    Raises:
        InputError: numbers that are not floating where the model's are, or that float32 cannot hold.
    """
    others: set[str] = set()
    for name, tensor in state.items():
        wanted, got = own[name].dtype, tensor.dtype
        if wanted != got and not (wanted in FLOATING and got in FLOATING):
            raise InputError(
                f"expected {name!r} of type {_type(wanted)} in {path}, got {_type(got)}; audit a quantized model as "
                "it ships, through ONNX or a predict function"
            )
        if not torch.isfinite(tensor.to(wanted)).all():
            raise InputError(f"expected numbers in {path} that {_type(wanted)} can hold, got larger ones in {name!r}")
        others |= {_type(got)} - {_type(wanted)}
    if others:
        note(f"the weights in {path} are {', '.join(sorted(others))} and are computed with in float32")
    return {name: tensor.to(own[name].dtype) for name, tensor in state.items()}


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def channels_path(weights: Path) -> Path:
    """The file beside a weights file that lists the channels of the dense model that are left."""
    return weights.with_suffix(".channels.json")


def channels_of(weights: Path, ensemble: Ensemble) -> str:
    """The content of :func:`channels_path` for the first model, whose weights that very file holds."""
    layers = {
        name: {"of": len(kept[0]), "kept": kept[0].nonzero().flatten().tolist()}
        for name, kept in ensemble.channels.items()
    }
    return json.dumps({"schema": "wemem.channels/1", "weights_sha256": file_sha256(weights), "layers": layers}) + "\n"


def read_channels(weights: Path) -> dict[str, tuple[int, list[int]]]:
    """By layer, the number of channels of the dense model and those that are left; empty if there is no such file.

    Raises:
        InputError: a file that is broken, or of other weights.
    """
    path = channels_path(weights)
    if not exists(path, "a list of channels"):
        return {}
    try:
        content = read_json(path, "a list of channels")
        if content["weights_sha256"] != file_sha256(weights):
            raise ValueError("it belongs to other weights")
        layers = {
            str(layer): (int(own["of"]), [int(c) for c in own["kept"]]) for layer, own in content["layers"].items()
        }
        for dense, kept in layers.values():
            if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= dense:
                raise ValueError("no channels of that layer")
        return layers
    except InputError:
        raise
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"expected {path} to say which channels of {weights} are left, got: {line}; prune the model again"
        ) from error


def certificate_of(
    weights: Path, recipe_fingerprint: str, payload: Mapping[str, Any], schema: str = "wemem.pruning/1"
) -> str:
    """The content of the :data:`CERTIFICATE` or :data:`EXPORTED` beside a file: the recipe of that very file."""
    certificate = {
        "schema": schema,
        "recipe_fingerprint": recipe_fingerprint,
        "weights_sha256": file_sha256(weights),
        **payload,
    }
    return json.dumps(certificate, indent=1) + "\n"


def read_certificate(weights: Path) -> str:
    """The recipe fingerprint in the certificate beside a model's file; ``unknown`` if none is of that very file."""
    path = weights.with_name(EXPORTED if weights.suffix.lower() == ".onnx" else CERTIFICATE)
    try:
        certificate = read_json(path, "a certificate")
        certified = certificate["weights_sha256"] == file_sha256(weights)
        return str(certificate["recipe_fingerprint"]) if certified else UNKNOWN
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return UNKNOWN
