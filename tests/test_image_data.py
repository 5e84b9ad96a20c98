"""Image data sets, from tiny files of the published formats."""

import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from PIL import Image

import wemem.data.loaders.cifar
import wemem.data.loaders.folder
import wemem.data.loaders.svhn
from wemem.data.loaders.cifar import CIFAR10, CIFAR100
from wemem.data.loaders.folder import MOST_PIXELS, decode
from wemem.data.loaders.published import Published
from wemem.data.sources import DataSource, load_dataset
from wemem.errors import InputError
from wemem.files.mat import read_mat

RNG = np.random.default_rng(0)


def pixels_of(n):
    return np.random.default_rng(n).integers(0, 256, (n, 3, 32, 32), np.uint8)


def normalized(pixels, channels):
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (channels.mean, channels.std))
    return (pixels / 255 - mean) / std


def cifar_records(pixels, *labels):
    columns = [np.asarray(part, np.uint8)[:, None] for part in labels]
    return np.concatenate([*columns, pixels.reshape(len(pixels), -1)], axis=1).tobytes()


def tgz(path, members):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def cifar10_files(n=20):
    """Two of the six files, the test part first in the archive; and what they hold in the order it is read."""
    pixels, labels = pixels_of(n), np.arange(n) % 10
    half = n // 2
    files = {
        "cifar-10-batches-bin/test_batch.bin": cifar_records(pixels[half:], labels[half:]),
        "cifar-10-batches-bin/data_batch_1.bin": cifar_records(pixels[:half], labels[:half]),
        "cifar-10-batches-bin/readme.html": b"<html>",
    }
    return files, pixels, labels


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
    with pytest.raises(InputError, match="at least 101 records to draw from, got 100"):
        load_dataset("cifar10", path=path, records=101)


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


def png(pixels, mode="RGB", form="PNG"):
    file = io.BytesIO()
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    (image.convert("L").convert("P") if mode == "P" else image.convert(mode)).save(file, form)
    return file.getvalue()


def write_images(root, classes=("cat", "ant"), per_class=3, size=8):
    images = RNG.integers(0, 256, (len(classes), per_class, 3, size, size), np.uint8)
    for name, own in zip(classes, images, strict=True):
        (root / name).mkdir(parents=True)
        for i, image in enumerate(own):
            (root / name / f"{i}.png").write_bytes(png(image))
    return images


def test_class_folders_are_numbered_by_their_sorted_names(tmp_path):
    images = write_images(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    data = load_dataset("folder", path=tmp_path / "pets")
    assert (data.name, data.classes, data.labels.tolist()) == ("pets", 2, [0, 0, 0, 1, 1, 1])
    assert (data.class_names, data.drawn_from) == (("ant", "cat"), None)
    np.testing.assert_allclose(data.features, (images[::-1].reshape(6, 3, 8, 8) / 255 - 0.5) / 0.25, atol=1e-5)
    assert len(load_dataset("folder", path=tmp_path / "pets", records=4)) == 4
    assert load_dataset("folder", path=tmp_path / "pets", records=4).drawn_from == 6


@pytest.mark.parametrize(
    ("mode", "form", "suffix"),
    [
        ("L", "PNG", ".PNG"),
        ("RGBA", "PNG", ".png"),
        ("P", "PNG", ".png"),
        ("RGB", "JPEG", ".jpeg"),
        ("RGB", "PPM", ".ppm"),
        ("RGB", "BMP", ".bmp"),
        ("RGB", "WEBP", ".webp"),
    ],
)
def test_formats_become_three_channels(tmp_path, mode, form, suffix):
    grey = np.broadcast_to(np.arange(64, dtype=np.uint8).reshape(1, 8, 8) * 3, (3, 8, 8))
    write_images(tmp_path, per_class=2)
    (tmp_path / "cat" / f"z{suffix}").write_bytes(png(grey, mode, form))
    got = load_dataset("folder", path=tmp_path).features[-1]
    np.testing.assert_allclose(got, (grey / 255 - 0.5) / 0.25, atol=0.4 if form in ("JPEG", "WEBP") else 1e-5)


def test_images_of_two_sizes_are_refused_with_both(tmp_path):
    write_images(tmp_path)
    (tmp_path / "cat" / "9.png").write_bytes(png(np.zeros((3, 8, 9), np.uint8)))
    with pytest.raises(InputError, match=r"9\.png: expected 8 x 8 pixels .*, got 9 x 8; bring all images to one size"):
        load_dataset("folder", path=tmp_path)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side):
    """A PNG of a few kilobytes that announces ``side`` x ``side`` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [4_000, 12_000, 60_000])
def test_image_that_announces_too_many_pixels_is_refused(side):
    assert side**2 > MOST_PIXELS
    with pytest.raises(InputError, match=r"a\.png: expected"):
        decode(bomb(side), "a.png")


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", png(np.zeros((3, 8, 8), np.uint8))[:-30], png(np.zeros((3, 8, 8), np.uint8), form="GIF")],
)
def test_what_is_no_image_is_refused_in_one_line(content):
    with pytest.raises(InputError, match=r"^a: expected a PNG, JPEG, PPM, BMP or WebP image") as caught:
        decode(content, "a")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_image_are_refused_in_the_same_words_every_time():
    with pytest.raises(InputError) as refused:
        decode(b"no image", "a")
    assert "image, got none" in str(refused.value)
    assert " at 0x" not in str(refused.value)


def test_sixteen_bit_images_are_refused_rather_than_clipped():
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(file, "PNG")
    with pytest.raises(InputError, match="expected 8 bits a channel, got mode I;16"):
        decode(file.getvalue(), "a")


def test_links_in_a_folder_are_refused(tmp_path):
    write_images(tmp_path / "a")
    (tmp_path / "a" / "cat" / "x.png").symlink_to(tmp_path / "a" / "ant" / "0.png")
    with pytest.raises(InputError, match="got a link"):
        load_dataset("folder", path=tmp_path / "a")


def test_images_in_subfolders_are_of_the_class_above_them(tmp_path):
    write_images(tmp_path / "a")
    flat = load_dataset("folder", path=tmp_path / "a")
    for name in ("ant", "cat"):
        (tmp_path / "a" / name / "more").mkdir()
        (tmp_path / "a" / name / "2.png").rename(tmp_path / "a" / name / "more" / "2.png")
    assert load_dataset("folder", path=tmp_path / "a").fingerprint == flat.fingerprint


def test_folders_named_by_numbers_are_sorted_as_numbers(tmp_path):
    write_images(tmp_path / "a", ("10", "9", "2"))
    assert load_dataset("folder", path=tmp_path / "a").class_names == ("2", "9", "10")


@pytest.mark.parametrize("hidden", ["._0.png", ".ipynb_checkpoints/0.png"])
def test_hidden_files_are_passed_over(tmp_path, hidden):
    write_images(tmp_path / "a")
    before = load_dataset("folder", path=tmp_path / "a").fingerprint
    for place in (tmp_path / "a", tmp_path / "a" / "cat"):
        (place / hidden).parent.mkdir(exist_ok=True)
        (place / hidden).write_bytes(b"no image")
    assert load_dataset("folder", path=tmp_path / "a").fingerprint == before


@pytest.mark.parametrize(("file", "said"), [
    ("cat/x.tiff", "got another format; convert it"),
    ("cat/deep/x.heic", "got another format; convert it"),
    ("x.png", "expected images in class folders, got one beside them"),
    ("fox/labels.csv", "expected images in every class folder, got none; add some or remove the folder"),
])  # fmt: skip
def test_no_image_and_no_class_is_left_out_unseen(tmp_path, file, said):
    write_images(tmp_path / "a")
    (tmp_path / "a" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / file).write_bytes(b"")
    with pytest.raises(InputError, match=said):
        load_dataset("folder", path=tmp_path / "a")


def test_parts_are_not_taken_for_classes(tmp_path):
    for part in ("train", "val"):
        write_images(tmp_path / "a" / part)
    with pytest.raises(InputError, match="got train, val, each with the same folders; give the path of one"):
        load_dataset("folder", path=tmp_path / "a")
    assert load_dataset("folder", path=tmp_path / "a" / "val").class_names == ("ant", "cat")


@pytest.mark.parametrize("classes", [(), ("cat",)])
def test_folder_without_two_classes_is_refused(tmp_path, classes):
    for name in classes:
        write_images(tmp_path, (name,))
    with pytest.raises(InputError, match="folders of at least 2 classes"):
        load_dataset("folder", path=tmp_path)
    with pytest.raises(InputError, match="expected the path of a folder of class folders, got none"):
        DataSource("folder")


def test_cinic10_is_the_same_from_its_archive_and_unpacked(tmp_path):
    files = {}
    for part in ("valid", "test", "train"):
        write_images(tmp_path / "CINIC-10" / part, per_class=2)
        for file in sorted((tmp_path / "CINIC-10" / part).rglob("*.png"), reverse=True):
            files[f"./{file.relative_to(tmp_path / 'CINIC-10')}"] = file.read_bytes()
    archive = tgz(tmp_path / "CINIC-10.tar.gz", {**files, "./README.md": b"x"})
    unpacked = load_dataset("cinic10", path=tmp_path / "CINIC-10")
    assert (unpacked.name, len(unpacked), unpacked.classes) == ("cinic10", 12, 2)
    assert load_dataset("cinic10", path=archive).fingerprint == unpacked.fingerprint
    some = load_dataset("cinic10", path=tmp_path, records=6)
    assert some.fingerprint == load_dataset("cinic10", path=tmp_path / "CINIC-10", records=6).fingerprint
    with pytest.raises(InputError, match="expected train/CLASS/IMAGE"):
        load_dataset("cinic10", path=tgz(tmp_path / "other.tar.gz", {"a/b.png": b"x"}))
