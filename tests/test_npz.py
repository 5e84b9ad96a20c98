"""Arrays out of files that nobody vouches for."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wemem.data.dataset import Dataset
from wemem.data.sources import load_dataset
from wemem.errors import InputError
from wemem.files.npz import read_npz

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def raw_npz(path, header, data=b"", version=1):
    """A .npz file whose array header says what it likes."""
    text = header.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + bytes([version, 0]) + length + text + data)
        array = io.BytesIO()
        np.save(array, Y)
        archive.writestr("y.npy", array.getvalue())
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "u1", "i8", "?", "f2"])
def test_npz_is_read_as_numpy_reads_it(tmp_path, save, dtype):
    x = np.asfortranarray(X.astype(dtype))
    save(tmp_path / "toy.npz", x=x, y=Y)
    toy = load_dataset(str(tmp_path / "toy.npz"))
    assert toy.name == "toy"
    np.testing.assert_array_equal(toy.features, x.astype(np.float32))
    np.testing.assert_array_equal(toy.labels, Y)


def test_npz_arrays_may_have_other_names(tmp_path):
    np.savez(tmp_path / "toy.npz", images=X, digit=Y)
    toy = load_dataset(str(tmp_path / "toy.npz"), features="images", label="digit")
    np.testing.assert_array_equal(toy.features, X)


def test_missing_array_is_named_with_what_there_is(tmp_path):
    np.savez(tmp_path / "toy.npz", images=X, y=Y)
    with pytest.raises(InputError, match=r"expected an array 'x', got \['images', 'y'\]"):
        load_dataset(str(tmp_path / "toy.npz"))


def test_missing_file_is_refused(tmp_path):
    for suffix in ("npz", "csv", "parquet"):
        with pytest.raises(InputError, match="no such file"):
            load_dataset(str(tmp_path / f"nothing.{suffix}"))


class Explosive:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def test_pickled_objects_are_refused_and_not_executed(tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([Explosive(str(tmp_path / "executed"))], dtype=object), y=Y)
    with pytest.raises(InputError, match=r"got '?\|O'?; .*nothing is unpickled"):
        load_dataset(str(tmp_path / "evil.npz"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "bad", [np.array(["a", "b"]), X.astype(complex), np.zeros(4, [("a", "f4")]), np.zeros(4, "M8[s]")]
)
def test_arrays_that_are_not_numbers_are_refused(tmp_path, bad):
    np.savez(tmp_path / "toy.npz", x=bad, y=Y)
    with pytest.raises(InputError, match="expected plain numbers in 'x'"):
        load_dataset(str(tmp_path / "toy.npz"))


def test_header_that_declares_a_huge_array_is_refused(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
    path = raw_npz(tmp_path / "bomb.npz", header, b"abcd")
    assert path.stat().st_size < 1000
    with pytest.raises(InputError, match=r"expected 'x' to hold the \(1000000, 1000000\) float32 that it declares"):
        load_dataset(str(path))


def test_small_file_that_unfolds_to_a_huge_array_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((4, 2**20), np.float32), y=Y)
    assert (tmp_path / "bomb.npz").stat().st_size < 30_000
    with pytest.raises(
        InputError, match=r"expected data that fit into 0\.001 GiB, got 0\.0313 GiB; .* raise memory_gib"
    ):
        load_dataset(str(tmp_path / "bomb.npz"), memory_gib=0.001)


def test_header_longer_than_any_is_refused(tmp_path):
    path = raw_npz(tmp_path / "bomb.npz", " " * 10**6, version=2)
    with pytest.raises(InputError, match="expected plain numbers in 'x'"):
        load_dataset(str(path))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os'),), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1" * 5000,
        "(" * 5000,
        "'''",
        "",
    ],
)
def test_header_is_never_evaluated(tmp_path, header):
    with pytest.raises(InputError, match="expected plain numbers in 'x'"):
        load_dataset(str(raw_npz(tmp_path / "odd.npz", header, b"abcd")))


def test_other_compression_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "toy.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(InputError, match="got another compression"):
        load_dataset(str(tmp_path / "toy.npz"))


def test_a_name_twice_is_refused(tmp_path):
    path = raw_npz(tmp_path / "twice.npz", "{'descr': '|u1', 'fortran_order': False, 'shape': (4,), }\n", b"abcd")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", archive.read("x.npy"))
    with pytest.raises(InputError, match="one array 'x', got 2"):
        load_dataset(str(path))


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_truncated_npz_is_refused(tmp_path, keep):
    np.savez(tmp_path / "toy.npz", x=X, y=Y)
    path = tmp_path / "cut.npz"
    path.write_bytes((tmp_path / "toy.npz").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"expected a whole \.npz file, got a damaged one"):
        load_dataset(str(path))


def test_flipped_bit_in_the_data_is_noticed(tmp_path):
    np.savez(tmp_path / "toy.npz", x=X, y=Y)
    content = bytearray((tmp_path / "toy.npz").read_bytes())
    content[content.index(X.tobytes()) + 5] ^= 1
    (tmp_path / "toy.npz").write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        load_dataset(str(tmp_path / "toy.npz"))


@given(st.data())
def test_damaged_npz_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "toy.npz"
    np.savez_compressed(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    for _ in range(2):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        x, _ = read_npz(path, ["x", "y"], limit=1000)
        said = ""
    except InputError as error:
        x, said = X, str(error)
    np.testing.assert_array_equal(x, X)
    assert "\n" not in said


def test_a_dataset_of_a_source_is_a_dataset(tmp_path):
    np.savez(tmp_path / "toy.npz", x=X.reshape(4, 1, 3), y=Y)
    toy = load_dataset(str(tmp_path / "toy.npz"))
    assert isinstance(toy, Dataset)
    assert toy.input_shape == (1, 3)
