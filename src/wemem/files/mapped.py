"""Arrays that stay in a file: read page by page as they are used, and never copied as a whole."""

import re
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from wemem.errors import InputError
from wemem.files.input_files import open_file
from wemem.files.npz import DAMAGED, HEADER_BYTES, declared, declared_npy, npy_header

Array = np.ndarray[Any, np.dtype[Any]]

#: Types that a data set takes as they are.
PLAIN = (np.dtype("<f4"), np.dtype("<i8"))
#: Share of the free space of the folder for temporary files that one array may take.
FREE_SHARE = 0.5


def is_mapped(array: Array) -> bool:
    """True if the numbers of an array are those of a file."""
    base: Any = array
    while base is not None:
        if isinstance(base, np.memmap):
            return True
        base = getattr(base, "base", None)
    return False


def map_npz(path: Path, name: str) -> Array:
    """Map an array of an uncompressed ``.npz`` file; its checksum is not verified.

    Raises:
        InputError: no such array, one that is compressed, or one of another type than float32 or
            int64, or in Fortran order.
    """
    try:
        with open_file(path, "a .npz file") as file:
            archive = zipfile.ZipFile(file)
            shape, dtype = declared(archive, name, str(path))
            entry = archive.getinfo(f"{name}.npy")
            with archive.open(entry) as stream:
                start, header = npy_header(stream.read(HEADER_BYTES))
            file.seek(entry.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            offset = entry.header_offset + 30 + int(lengths.sum()) + start + len(header)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path}: expected a whole .npz file, got a damaged one ({error}); write it again") from error
    if entry.compress_type != zipfile.ZIP_STORED:
        raise _not_mappable(path, name, "a compressed array")
    return _mapped(path, name, header, offset, shape, dtype)


def map_npy(path: Path) -> Array:
    """Map the array of an ``.npy`` file.

    Raises:
        InputError: a damaged file, or an array of another type than float32 or int64, or in Fortran
            order.
    """
    with open_file(path, "a .npy file") as file:
        shape, dtype, header, offset = declared_npy(file, path)
    return _mapped(path, path.name, header, offset, shape, dtype)


def _mapped(path: Path, name: str, header: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype not in PLAIN:
        raise _not_mappable(path, name, str(dtype))
    if re.search(r"'fortran_order': ?True", header):
        raise _not_mappable(path, name, "an array in Fortran order")
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # of PyTorch; nothing writes
    try:
        return np.memmap(path, dtype, mode="r", offset=offset, shape=shape).view(np.ndarray)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"{path}: expected a file that can be mapped, got: {error}; write it again") from error


def temporary_array(shape: tuple[int, ...]) -> Array:
    """A float32 array in a temporary file, which is gone when the array is.

    Raises:
        InputError: too little free space.
    """
    need, folder = 4 * int(np.prod(shape)), tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if need > FREE_SHARE * free:
        raise InputError(
            f"expected {need / 2**30:.3g} GiB of space in {folder}, half of it to spare, got {free / 2**30:.3g} GiB; "
            "set TMPDIR to a folder on a larger disk"
        )
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, mode="w+", shape=shape).view(np.ndarray)


def _not_mappable(path: Path, name: str, received: str) -> InputError:
    return InputError(
        f"{path}: expected {name!r} uncompressed, float32 or int64 and in C order, because it is larger than memory "
        f"allows, got {received}; write it so with numpy.savez, or raise memory_gib"
    )
