"""A model from its weights, and the files that accompany weights."""

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.exporting.preprocess import state_with_preprocess
from wemem.exporting.shards import weights_path, weights_sha256
from wemem.exporting.weight_files import read_weights
from wemem.exporting.weight_names import with_names_of
from wemem.files.documents import read_json
from wemem.files.hashing import sha256_of
from wemem.files.input_files import exists
from wemem.models.table import NETWORK, PREPROCESS, table_input
from wemem.signals import UNKNOWN
from wemem.training import Ensemble
from wemem.training.resize import resized

#: The names of the certificates beside a pruned model's weights, beside its ONNX file, and beside the
#: weights of a model that was trained.
CERTIFICATE, EXPORTED, TRAINED = "pruning.json", "export.json", "training.json"
#: The entry of a certificate that lists the records on whose accuracy the model was selected.
DEV_RECORDS = "dev_records"
#: The entry of a certificate that names a defense which alters answers.
ALTERED = "answers_altered_by"


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict; tensors that share memory (tied weights) are written under each of their
    names.

    The file can be read without this library:
    ``model.load_state_dict(safetensors.torch.load_file(path))``.
    """
    save_file(
        {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}, path
    )


def load_pruned(
    module: nn.Module, path: str | Path, note: Callable[[str], object] = warnings.warn
) -> nn.Module:  # fmt: skip
    """Load a pruned model as a plain PyTorch module; where channels were removed, the network is
    smaller.

    Args:
        module: the architecture before pruning, with any weights; it is not changed.
        path: a ``.safetensors`` file of weights, the index of several, or their folder. Where
            channels were removed, the file of :func:`channels_path` must lie beside it. So must the
            preprocessing of a table that is not in the weights.
        note: receives one line where the file's numbers are of another precision, or its names are
            not those of the model (:mod:`~wemem.exporting.weight_names`).

    Returns:
        A copy of the module in evaluation mode, with the weights of the file.

    Raises:
        InputError: the file cannot be read, or does not fit the architecture.
    """
    path = weights_path(path)
    expected = module.state_dict()
    state = _named_as_in(module, read_weights(path), path, note)
    smaller = read_channels(path)
    _require_fitting(expected, state, smaller, path)
    for layer, (dense, remaining) in smaller.items():
        shapes = [tuple(tensors.get(f"{layer}.weight", torch.empty(0)).shape)[:1] for tensors in (expected, state)]
        if shapes != [(dense,), (len(remaining),)]:
            raise InputError(
                f"expected {layer!r} with {len(remaining)} of {dense} filters, as in {channels_path(path)}, "
                f"got {shapes[1]} of {shapes[0]}; the files do not belong together"
            )
    state = _in_precision(expected, state, path, note)
    loaded = resized(copy.deepcopy(module), {name: tuple(tensor.shape) for name, tensor in state.items()})
    loaded.load_state_dict(state)
    return loaded.eval()


def _named_as_in(
    module: nn.Module, state: Mapping[str, Tensor], path: Path, note: Callable[[str], object]
) -> dict[str, Tensor]:
    """The tensors of a file under the names of a model, with the preprocessing of a table that lies
    beside them.
    """
    inside = any(f"{PREPROCESS}." in name for name in state)
    network = module if inside or table_input(module) is None else module.get_submodule(NETWORK)
    return state_with_preprocess(module, with_names_of(network, state, path, note), path, note)


def _require_fitting(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], smaller: Mapping[str, object], path: Path
) -> None:
    """Refuse a state dict whose names or shapes belong to another architecture."""
    for name in sorted(set(expected) | set(state)):
        wanted = tuple(expected[name].shape) if name in expected else "no such tensor"
        got = tuple(state[name].shape) if name in state else "none"
        if wanted != got and not (smaller and name in expected and name in state):
            raise InputError(
                f"expected {name!r} of shape {wanted} in {path}, got {got}; the weights are of another architecture, "
                "or data of another shape"
            )


#: Types that hold a model's numbers by themselves; int8 and the like need scales, which only the
#: shipped model has.
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _in_precision(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, note: Callable[[str], object]
) -> dict[str, Tensor]:
    """The state dict converted to the types of the model.

    Raises:
        InputError: a tensor is not floating-point where the model's is, or holds numbers beyond
            float32.
    """
    others: set[str] = set()
    for name, tensor in state.items():
        wanted, got = expected[name].dtype, tensor.dtype
        if wanted != got and not (wanted in FLOATING and got in FLOATING):
            raise InputError(
                f"expected {name!r} of type {_type(wanted)} in {path}, got {_type(got)}; audit a quantized model in "
                "the form in which it ships, through ONNX or a predict function"
            )
        if not torch.isfinite(tensor.to(wanted)).all():
            raise InputError(f"expected numbers in {path} that {_type(wanted)} can hold, got larger ones in {name!r}")
        others |= {_type(got)} - {_type(wanted)}
    if others:
        note(f"the weights in {path} are {', '.join(sorted(others))} and are computed with in float32")
    return {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def channels_path(weights: Path) -> Path:
    """The path of the file beside a weights file that lists the remaining channels of the dense
    model.
    """
    return weights.with_suffix(".channels.json")


def channels_of(weights: Path, ensemble: Ensemble) -> str:
    """The content of :func:`channels_path` for the first model of an ensemble, whose weights the
    file holds.
    """
    layers = {
        name: {"of": len(remaining[0]), "kept": remaining[0].nonzero().flatten().tolist()}
        for name, remaining in ensemble.channels.items()
    }
    return (
        json.dumps({"schema": "wemem.channels/1", "weights_sha256": weights_sha256(weights), "layers": layers}) + "\n"
    )


def read_channels(weights: Path) -> dict[str, tuple[int, list[int]]]:
    """Read the number of channels of the dense model and the remaining ones, by layer; empty
    without such a file.

    Raises:
        InputError: the file is damaged, or belongs to other weights.
    """
    path = channels_path(weights)
    if not exists(path, "a list of channels"):
        return {}
    try:
        content = read_json(path, "a list of channels")
        if content["weights_sha256"] != weights_sha256(weights):
            raise ValueError("it belongs to other weights")
        layers = {
            str(layer): (int(entry["of"]), [int(c) for c in entry["kept"]])
            for layer, entry in content["layers"].items()
        }
        for dense, remaining in layers.values():
            if not remaining or remaining != sorted(set(remaining)) or remaining[0] < 0 or remaining[-1] >= dense:
                raise ValueError("channels that the layer does not have")
        return layers
    except InputError:
        raise
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"expected {path} to list the remaining channels of {weights}, got: {line}; prune the model again"
        ) from error


def certificate_of(
    weights: Path, recipe_fingerprint: str, payload: Mapping[str, Any], schema: str = "wemem.pruning/1"
) -> str:
    """The content of a certificate: the recipe fingerprint and the hash of the model's file, with a
    payload.

    Args:
        weights: the file of the model.
        recipe_fingerprint: the fingerprint of the settings that produced the model.
        payload: further entries of the certificate.
        schema: the name and version of the format.
    """
    certificate = {
        "schema": schema,
        "recipe_fingerprint": recipe_fingerprint,
        "weights_sha256": weights_sha256(weights),
        **payload,
    }
    return json.dumps(certificate, indent=1) + "\n"


def read_certificate(weights: Path) -> str:
    """Read the recipe fingerprint from the certificate beside a model's file; ``unknown`` if none
    fits the file.
    """
    fingerprint = _certificate(weights).get("recipe_fingerprint")
    return fingerprint if isinstance(fingerprint, str) else UNKNOWN


def has_certificate(weights: Path) -> bool:
    """Return True if the certificate of a pruning or export lies beside a model's file and fits it."""
    return bool(_certificate(weights))


def altering_defense(weights: Path) -> str | None:
    """The defense that alters the answers of a pruned model when it is queried, by the certificate
    beside its file; None if there is none.
    """
    name = _certificate(weights).get(ALTERED)
    return name if isinstance(name, str) else None


def dev_records(weights: Path) -> list[int]:
    """The records on whose accuracy a model was selected, by the certificates beside its file; empty
    if they are not known.
    """
    listed = [one.get(DEV_RECORDS) for one in (_certificate(weights), training_certificate(weights))]
    return [record for records in listed if isinstance(records, list) for record in records if type(record) is int]


def training_certificate(weights: Path) -> Mapping[str, Any]:
    """The certificate of the training beside a model's file; empty if none fits the file."""
    return _fitting(weights.with_name(TRAINED), weights)


def certified_loop(weights: Path) -> Mapping[str, Any]:
    """The loop of a user's own that the certificate beside a pruned model's file describes; empty if
    there is none, or another recipe than the one that is fingerprinted.
    """
    certificate = _certificate(weights)
    loop = certificate.get("loop")
    if not isinstance(loop, Mapping):
        return {}
    fits = certificate["recipe_fingerprint"] == (
        UNKNOWN if loop.get("problem") else sha256_of({"loop": loop.get("recipe")})
    )
    return loop if fits else {}


def _certificate(weights: Path) -> Mapping[str, Any]:
    """The certificate of the pruning or export beside a model's file; empty if none fits the file."""
    return _fitting(weights.with_name(EXPORTED if weights.suffix.lower() == ".onnx" else CERTIFICATE), weights)


def _fitting(path: Path, weights: Path) -> Mapping[str, Any]:
    """A certificate that holds the hash of a model's file; empty if there is none."""
    try:
        certificate = read_json(path, "a certificate")
        fits = certificate["weights_sha256"] == weights_sha256(weights)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return certificate if fits and isinstance(certificate, Mapping) else {}
