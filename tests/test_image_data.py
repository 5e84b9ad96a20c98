"""CIFAR and SVHN from tiny files of the published formats."""

import gzip
import hashlib
import http.server
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import scipy.io

import wemem.data.loaders.cifar
import wemem.data.loaders.folder
import wemem.data.loaders.svhn
from image_files import cifar10_files, cifar_records, normalized, pixels_of, tgz
from wemem.data.loaders.cifar import CIFAR10, CIFAR100
from wemem.data.loaders.published import Published
from wemem.data.sources import DataSource, load_dataset
from wemem.errors import InputError


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that a server on this machine gives out, and its address."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("WEMEM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def published(site, file):
    content = file.read_bytes()
    return Published(f"{site[1]}/{file.name}", len(content), hashlib.sha256(content).hexdigest())


def test_cifar10_is_downloaded_verified_and_normalized_by_channel(site, monkeypatch):
    files, pixels, labels = cifar10_files()
    archive = tgz(site[0] / "cifar-10-binary.tar.gz", files)
    monkeypatch.setattr(wemem.data.sources, "published_loader", loader_with(published(site, archive)))
    data = load_dataset("cifar10")
    assert (data.name, data.classes, data.features.shape) == ("cifar10", 10, (20, 3, 32, 32))
    np.testing.assert_allclose(data.features, normalized(pixels, CIFAR10.channels), atol=1e-5)
    assert data.labels.tolist() == labels.tolist()
    archive.unlink()
    assert load_dataset("cifar10").fingerprint == data.fingerprint  # from the cache


def loader_with(archive):
    def loader(kind):
        return lambda path, **limits: wemem.data.loaders.cifar.load_cifar(
            replace(CIFAR10, archive=archive), path, **limits
        )

    return loader


def test_archive_with_another_checksum_is_refused_and_not_kept(site, monkeypatch, tmp_path):
    archive = tgz(site[0] / "cifar-10-binary.tar.gz", cifar10_files()[0])
    wrong = replace(published(site, archive), sha256="0" * 64)
    monkeypatch.setattr(wemem.data.sources, "published_loader", loader_with(wrong))
    with pytest.raises(InputError, match=r"expected SHA-256 0000.*or set WEMEM_DATA to a folder that holds cifar-10"):
        load_dataset("cifar10")
    assert not list((tmp_path / "cache" / "wemem").glob("*.gz"))


def test_md5_is_checked_where_it_is_all_there_is(site, monkeypatch):
    (site[0] / "CINIC-10.tar.gz").write_bytes(b"no")
    for md5, said in ((hashlib.md5(b"no").hexdigest(), "damaged"), ("0" * 32, "expected MD5 000")):
        file = Published(f"{site[1]}/CINIC-10.tar.gz", 2, md5=md5)
        monkeypatch.setattr(wemem.data.loaders.folder, "CINIC10", file)
        with pytest.raises(InputError, match=said):
            load_dataset("cinic10")
        (site[0].parent / "cache" / "wemem" / "CINIC-10.tar.gz").unlink(missing_ok=True)


@pytest.mark.parametrize("form", ["archive", "folder that holds it", "unpacked", "folder of the unpacked", "npz"])
def test_every_local_copy_of_cifar10_is_the_same_data_set(tmp_path, form):
    files, pixels, labels = cifar10_files()
    path = tgz(tmp_path / "cifar-10-binary.tar.gz", files)
    expected = load_dataset("cifar10", path=path)
    if form == "folder that holds it":
        path = tmp_path
    if "unpacked" in form:
        path.unlink()
        (tmp_path / "cifar-10-batches-bin").mkdir()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        path = tmp_path if "folder" in form else tmp_path / "cifar-10-batches-bin"
    if form == "npz":
        x = pixels.transpose(0, 2, 3, 1)
        path = tmp_path / "images.npz"
        np.savez(path, x_train=x[:10], y_train=labels[:10], x_test=x[10:], y_test=labels[10:])
    assert load_dataset("cifar10", path=path).fingerprint == expected.fingerprint


def test_fine_labels_of_cifar100_count(tmp_path):
    pixels, fine = pixels_of(120), np.arange(120) % 100
    (tmp_path / "train.bin").write_bytes(cifar_records(pixels, fine // 5, fine))
    data = load_dataset("cifar100", path=tmp_path / "train.bin")
    assert (data.classes, data.labels.tolist()) == (100, fine.tolist())
    np.testing.assert_allclose(data.features, normalized(pixels, CIFAR100.channels), atol=1e-5)
    np.savez(tmp_path / "cifar100-some.npz", x=pixels.transpose(0, 2, 3, 1), y=fine)
    assert load_dataset("cifar100", path=tmp_path).fingerprint == data.fingerprint  # found in the folder


def test_records_are_drawn_in_equal_numbers_and_always_the_same(tmp_path):
    path = tgz(tmp_path / "cifar-10-binary.tar.gz", cifar10_files(100)[0])
    every, some = load_dataset("cifar10", path=path), load_dataset("cifar10", path=path, records=30)
    assert np.bincount(some.labels).tolist() == [3] * 10
    assert some.fingerprint == load_dataset("cifar10", path=path, records=30).fingerprint
    rows = {row.tobytes() for row in every.features}
    assert all(row.tobytes() in rows for row in some.features)
    whole = load_dataset("cifar10", path=path, records=101)
    assert (whole.fingerprint, whole.drawn_from) == (every.fingerprint, None)
    assert str(whole.notes[-1]) == "all 100 records are taken, fewer than the 101 of data.records"


def test_records_cut_any_source():
    digits = load_dataset("digits", records=200)
    assert len(digits) == 200
    assert np.ptp(np.bincount(digits.labels)) <= 2
    with pytest.raises(InputError, match="records must be at least 2, got 0"):
        DataSource("digits", records=0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "got neither"),
        ({"test_batch.bin": b""}, "records of 3073 bytes, got 0 bytes"),
        ({"test_batch.bin": bytes(3074)}, "records of 3073 bytes, got 3074 bytes"),
        ({"test_batch.bin": cifar_records(pixels_of(1), [10])}, r"expected classes 0\.\.9, got 10"),
        ({"../test_batch.bin": bytes(3073)}, "outside of it"),
    ],
)
def test_archive_of_something_else_is_refused(tmp_path, files, said):
    with pytest.raises(InputError, match=said):
        load_dataset("cifar10", path=tgz(tmp_path / "a.tar.gz", files))


def test_truncated_archive_is_refused(tmp_path):
    path = tgz(tmp_path / "a.tar.gz", cifar10_files()[0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        load_dataset("cifar10", path=path)


def test_archive_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(wemem.data.loaders.cifar, "SIZE_LIMIT", 10**6)
    path = tgz(tmp_path / "a.tar.gz", {"test_batch.bin": bytes(5 * 10**6)})
    with pytest.raises(InputError, match="at most 1000000 bytes, got more"):
        load_dataset("cifar10", path=path)


def test_long_header_is_refused_before_it_is_held(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10**8
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10**6)))
    with pytest.raises(InputError, match="a header of 100000000 bytes"):
        load_dataset("cifar10", path=tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 32, 32, 3)), "y": np.arange(4)}, r"uint8 images \(N, 32, 32, 3\), got float64"),
        ({"x": np.zeros((4, 3, 32, 32), np.uint8), "y": np.arange(4)}, "uint8 images"),
        ({"x": np.zeros((4, 32, 32, 3), np.uint8), "y": np.arange(3)}, "4 whole-number labels"),
        ({"x": np.zeros((4, 32, 32, 3), np.uint8), "y": np.arange(4) / 2}, "whole-number labels"),
        ({"x": np.zeros((4, 32, 32, 3), np.uint8), "y": np.arange(4) - 1}, "labels of 0 or more"),
        ({"z": np.zeros(3)}, "expected an array 'x'"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=said):
        load_dataset("cifar10", path=tmp_path / "a.npz")


def test_several_copies_in_a_folder_are_not_guessed_between(tmp_path):
    for name in ("cifar10.npz", "cifar10-20k.npz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"expected one cifar10\*\.npz in .*, got cifar10-20k\.npz, cifar10\.npz"):
        load_dataset("cifar10", path=tmp_path)


def test_memory_is_refused_before_images_are_converted(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(cifar_records(pixels_of(20), np.arange(20) % 10))
    with pytest.raises(InputError, match="raise memory_gib"):
        load_dataset("cifar10", path=tmp_path, memory_gib=1e-5)
    assert len(load_dataset("cifar10", path=tmp_path, memory_gib=1e-3)) == 20


def write_svhn(folder, pixels, digits, name="train_32x32.mat", **more):
    labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    folder.mkdir(exist_ok=True)
    scipy.io.savemat(
        folder / name, {"X": pixels.transpose(2, 3, 1, 0), "y": labels, **more}, do_compression=True
    )  # fmt: skip
    return folder / name


def test_svhn_joins_its_two_files_and_calls_the_digit_ten_zero(site, monkeypatch):
    pixels, digits = pixels_of(30), np.arange(30) % 10
    parts = [
        published(site, write_svhn(site[0], pixels[rows], digits[rows], name))
        for name, rows in (("train_32x32.mat", slice(0, 20)), ("test_32x32.mat", slice(20, 30)))
    ]
    monkeypatch.setattr(wemem.data.loaders.svhn, "TRAIN", parts[0])
    monkeypatch.setattr(wemem.data.loaders.svhn, "TEST", parts[1])
    data = load_dataset("svhn")
    assert data.labels.tolist() == digits.tolist()
    np.testing.assert_allclose(data.features, normalized(pixels, wemem.data.loaders.svhn.CHANNELS), atol=1e-5)
    assert load_dataset("svhn", path=site[0]).fingerprint == data.fingerprint
    assert len(load_dataset("svhn", path=site[0] / "train_32x32.mat")) == 20


def test_other_arrays_are_not_svhn(tmp_path):
    path = write_svhn(tmp_path, pixels_of(10), np.arange(10), y=np.full((10, 1), 11))
    with pytest.raises(InputError, match=r"y \(N, 1\) of 1\.\.10"):
        load_dataset("svhn", path=path)
