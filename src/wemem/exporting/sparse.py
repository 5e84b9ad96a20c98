"""A pruned model's weights in a compact file: ``weights.sparse.safetensors``.

Every tensor is stored in the encoding that takes the fewest bytes. Only ``+0.0`` counts as zero:

* ``dense``: the tensor unchanged;
* ``bitmask``: one bit per element, least significant first, set for a nonzero element, and the
  nonzero values;
* ``gaps``: the distance of each nonzero element from the one before it, and the nonzero values. The
  first distance is counted from 0. All take 1, 2 or 4 bytes, the fewest that hold the largest
  distance.

The file is safetensors, so that any reader sees the parts as ``dense/NAME``, ``bitmask/NAME``,
``gaps/NAME`` and ``values/NAME``. The encoding and shape of each tensor are JSON in the metadata
under :data:`FORMAT`. A bitmask costs 1/8 byte per element, gaps at least 1 byte per nonzero
element, so that gaps are smaller below one nonzero element in eight.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Bool, Int64, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wemem.errors import InputError
from wemem.files.documents import parse_json
from wemem.files.memory_limit import memory_limit, require_memory
from wemem.files.safetensors_file import require_safetensors

FORMAT = "wemem.sparse/1"
GAP_BYTES = (1, 2, 4)

Encoding = Literal["dense", "bitmask", "gaps"]
Bits: TypeAlias = UInt8[np.ndarray, "n itemsize"]


def sparse_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Encode a state dict as the content of a compact file; the same state gives the same bytes."""
    parts: dict[str, Tensor] = {}
    index = {}
    for name, tensor in state.items():
        index[name], encoded = _encode(tensor.detach().cpu().contiguous())
        parts |= {f"{part}/{name}": array for part, array in encoded.items()}
    return safetensors.torch.save(parts, {FORMAT: json.dumps(index, sort_keys=True)})


def _encode(tensor: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The index entry of one tensor, and its parts."""
    bits = _bits_of(tensor)
    nonzero = bits.any(axis=1)
    where = np.flatnonzero(nonzero)
    gaps = np.diff(where, prepend=0)
    width = next((w for w in GAP_BYTES if gaps.max(initial=0) < 256**w), None)
    sizes: dict[Encoding, int] = {"dense": bits.size, "bitmask": -(-len(bits) // 8) + len(where) * bits.shape[1]}
    if width is not None:
        sizes["gaps"] = len(where) * (width + bits.shape[1])
    chosen = min(sizes, key=lambda encoding: sizes[encoding])
    if chosen == "dense":
        # a copy, because safetensors refuses tensors that share memory
        return {"encoding": "dense"}, {"dense": tensor.clone()}
    values = _tensor_of(bits[where], tensor.dtype)
    shape = list(tensor.shape)
    if chosen == "bitmask":
        packed = torch.from_numpy(np.packbits(nonzero, bitorder="little"))
        return {"encoding": "bitmask", "shape": shape}, {"bitmask": packed, "values": values}
    stored = torch.from_numpy(gaps.astype(f"<u{width}").view(np.uint8))
    return {"encoding": "gaps", "shape": shape, "width": width}, {"gaps": stored, "values": values}


def _bits_of(tensor: Tensor) -> Bits:
    """The bytes of every element, in order."""
    # PyTorch counts a tensor of no or one element as contiguous at any stride, which ``view`` does not
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
    return flat.view(torch.uint8).numpy().reshape(len(flat), flat.element_size())


def _tensor_of(bits: Bits, dtype: torch.dtype) -> Tensor:
    """The flat tensor with the given bytes."""
    return torch.from_numpy(bits.reshape(-1)).view(dtype)


def read_sparse(path: str | Path, *, memory_gib: float | None = None) -> dict[str, Tensor]:
    """Read the state dict of a compact file, bit for bit the one that was written; nothing is
    executed.

    The sizes that the file declares are compared with its content and with the limit before any
    memory of that size is allocated.

    Args:
        path: the path of a file with the content of :func:`sparse_bytes`.
        memory_gib: the memory that the state dict may take, in GiB; None allows half of the
            machine's memory.

    Raises:
        InputError: the file does not exist, is of another format or damaged, or the state dict
            exceeds the limit.
    """
    path = require_safetensors(path, f"a compact weights file ({FORMAT})")
    try:
        with safe_open(path, "pt") as file:
            index = parse_json((file.metadata() or {})[FORMAT], f"the index of compact weights at {path}")
            _require_declared(path, index, file, memory_limit(memory_gib))
            return {name: _decode(name, entry, file) for name, entry in index.items()}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"expected a compact weights file ({FORMAT}) at {path}, got a damaged or foreign one ({reason}); write it "
            "again"
        ) from error


def _require_declared(path: Path, index: Mapping[str, Any], file: Any, limit: int) -> None:
    """Refuse missing or unexpected parts, invalid shapes, and a state dict beyond the limit."""
    parts = {"dense": ("dense",), "bitmask": ("bitmask", "values"), "gaps": ("gaps", "values")}
    expected = {f"{part}/{name}" for name, entry in index.items() for part in parts[entry["encoding"]]}
    if expected != set(file.keys()):
        raise ValueError("its tensors are not those that it declares")
    need = 0
    for name, entry in index.items():
        if entry["encoding"] != "dense":  # a dense tensor takes as much memory as in the file
            shape = entry["shape"]
            if not (isinstance(shape, list) and len(shape) <= 64 and all(type(n) is int and n >= 0 for n in shape)):
                raise ValueError(f"{name!r} of shape {shape}")
            # the elements, and one byte each that marks the nonzero ones
            need += math.prod(shape) * (file.get_tensor(f"values/{name}").element_size() + 1)
    require_memory(need, limit, str(path))


def _decode(name: str, entry: Mapping[str, Any], file: Any) -> Tensor:
    if entry["encoding"] == "dense":
        return torch.clone(file.get_tensor(f"dense/{name}"))
    values: Tensor = file.get_tensor(f"values/{name}")
    count = math.prod(entry["shape"])
    stored = file.get_tensor(f"{entry['encoding']}/{name}")
    if stored.dtype != torch.uint8 or stored.dim() != 1 or values.dim() != 1:
        raise ValueError(f"{name!r} stored in another shape or type")
    where = (
        _places_in_bitmask(stored.numpy(), count)
        if entry["encoding"] == "bitmask"
        else _places_by_gaps(stored.numpy(), entry["width"], count)
    )
    if len(where) != len(values):
        raise ValueError(f"{name!r} with {len(values)} values for {len(where)} places")
    bits = np.zeros((count, values.element_size()), np.uint8)
    bits[where] = _bits_of(values)
    return _tensor_of(bits, values.dtype).reshape(entry["shape"])


def _places_in_bitmask(packed: UInt8[np.ndarray, " b"], count: int) -> Int64[np.ndarray, " nonzero"]:
    if len(packed) != -(-count // 8):
        raise ValueError(f"a bitmask of {len(packed)} bytes for {count} elements")
    nonzero: Bool[np.ndarray, " bits"] = np.unpackbits(packed, bitorder="little").astype(bool)
    if nonzero[count:].any():
        raise ValueError("a bitmask that marks elements beyond the end")
    return np.flatnonzero(nonzero[:count])


def _places_by_gaps(stored: UInt8[np.ndarray, " b"], width: object, count: int) -> Int64[np.ndarray, " nonzero"]:
    if width not in GAP_BYTES:
        raise ValueError(f"gaps of {width!r} bytes")
    gaps = stored.view(f"<u{width}").astype(np.int64)  # numpy refuses bytes that are no multiple of the width
    if len(gaps) > count or (gaps[1:] == 0).any():
        raise ValueError("gaps that name one element twice")
    where: Int64[np.ndarray, " nonzero"] = np.cumsum(gaps)
    if len(where) and where[-1] >= count:
        raise ValueError("gaps that reach beyond the end")
    return where
