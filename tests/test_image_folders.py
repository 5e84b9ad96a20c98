"""Images in folders of classes: formats, sizes, links, parts, and what is refused."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from image_files import RNG, tgz
from wemem.data.loaders.folder import MOST_PIXELS, decode
from wemem.data.sources import DataSource, load_dataset
from wemem.errors import InputError


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
