"""Files of weights as people have them: one safetensors file, or several with an index.

Nothing is unpickled. A file of ``torch.save`` is refused with the command that converts it, which
the user runs where the file came from.
"""

import shlex
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wemem.errors import InputError
from wemem.exporting.shards import shards_of, weights_path
from wemem.files.input_files import open_file, shown
from wemem.files.memory_limit import memory_limit, require_memory
from wemem.files.safetensors_file import require_safetensors

KIND = "weights in safetensors format"
#: The first bytes of files that ``torch.save`` and ``pickle`` write.
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
#: A program that converts a file of ``torch.save``. ``weights_only`` lets it build tensors alone.
CONVERT = (
    'import sys, torch; from safetensors.torch import save_file; '
    'd = torch.load(sys.argv[1], map_location="cpu", weights_only=True); '
    'd = next((d[k] for k in ("state_dict", "model_state_dict", "model") if k in d), d); '
    "save_file({k: t.clone().contiguous() for k, t in d.items() if torch.is_tensor(t)}, sys.argv[2])"
)  # fmt: skip


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a model.

    Args:
        path: a ``.safetensors`` file, the ``.safetensors.index.json`` of several, or a folder.

    Raises:
        InputError: a file does not exist, is truncated, pickled or of another format, or holds NaN
            or infinity; the files are not those of the index, or do not fit into memory.
    """
    file = weights_path(path)
    if file.suffix.lower() == ".json":
        state = _read_shards(file)
    else:
        require_memory(_size(file), memory_limit(None), shown(file))
        state = _read_one(file)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise InputError(
                f"expected finite weights in {file}, got NaN or infinity in {name!r}; train the model again"
            )
    return state


def _size(file: Path) -> int:
    with open_file(file, KIND) as stream:
        return stream.seek(0, 2)


def _read_one(file: Path) -> dict[str, Tensor]:
    _refuse_pickle(file)
    try:
        return load_file(require_safetensors(file, KIND))
    except (OSError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"expected {KIND} in {file}, got an error: {line}; save them again") from error


def _refuse_pickle(file: Path) -> None:
    with open_file(file, KIND) as stream:
        start = stream.read(4)
    if start.startswith(PICKLED):
        target = file.with_suffix(".safetensors").name
        raise InputError(
            f"expected {KIND} in {shown(file)}, got a file of torch.save, which is not opened because it may run code; "
            f"convert it: python -c {shlex.quote(CONVERT)} {shlex.quote(file.name)} {shlex.quote(target)}"
        )


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = shards_of(index)
    files = list(dict.fromkeys(places.values()))
    require_memory(sum(map(_size, files)), memory_limit(None), shown(index))
    state: dict[str, Tensor] = {}
    for file in files:
        part = _read_one(file)
        expected = {name for name, place in places.items() if place == file}
        if set(part) != expected:
            name = sorted(set(part) ^ expected)[0]
            raise InputError(
                f"expected the tensors in {file.name} that {index.name} lists, got a difference in {name!r}; download "
                "all files of the model again"
            )
        state |= part
    return state
