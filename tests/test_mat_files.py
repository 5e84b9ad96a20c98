"""MATLAB files: arrays as they were saved, and damaged files refused."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io

from image_files import RNG
from wemem.errors import InputError
from wemem.files.mat import read_mat


@pytest.mark.parametrize("compressed", [True, False])
def test_mat_arrays_are_those_that_were_saved(tmp_path, compressed):
    arrays = {
        "X": RNG.integers(0, 256, (4, 3, 2, 5), np.uint8),
        "y": np.arange(5, dtype=np.float64)[:, None],
        "tiny": np.array([[7]], np.uint8),
        "text": "ignored",
    }
    scipy.io.savemat(tmp_path / "a.mat", arrays, do_compression=compressed)
    for name, got in zip(
        ("y", "X", "tiny"), read_mat(tmp_path / "a.mat", ["y", "X", "tiny"], limit=10**6), strict=True
    ):
        np.testing.assert_array_equal(got, arrays[name])
    with pytest.raises(InputError, match="expected an array 'Z'"):
        read_mat(tmp_path / "a.mat", ["Z"], limit=10**6)
    with pytest.raises(InputError, match="raise memory_gib"):
        read_mat(tmp_path / "a.mat", ["X"], limit=100)
    with pytest.raises(InputError, match="real numbers"):
        read_mat(tmp_path / "a.mat", ["text"], limit=10**6)


def test_mat_element_that_lies_about_its_size_allocates_nothing(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.zeros((50, 2))})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    at = content.rindex(struct.pack("<II", 9, 800))  # tag of the doubles
    content[at : at + 8] = struct.pack("<II", 9, 2**31)
    for body in (bytes(content[128:]), zlib.compress(bytes(content[128:]))):
        tag = b"" if body[0] == 14 else struct.pack("<II", 15, len(body))
        (tmp_path / "lie.mat").write_bytes(bytes(content[:128]) + tag + body)
        with pytest.raises(InputError, match=r"to hold the \[50, 2\] that it declares, got 2147483648 bytes"):
            read_mat(tmp_path / "lie.mat", ["X"], limit=2**33)


@pytest.mark.parametrize("keep", [0, 60, 128, 140, 170, 400])
def test_damaged_mat_file_is_refused_in_one_line(tmp_path, keep):
    scipy.io.savemat(tmp_path / "a.mat", {"X": RNG.normal(size=(50, 2))}, do_compression=True)
    (tmp_path / "a.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:keep])
    with pytest.raises(InputError) as caught:
        read_mat(tmp_path / "a.mat", ["X"], limit=10**6)
    assert "\n" not in str(caught.value)
