"""Images in folders that are named after their classes, and CINIC-10, which is published that way.

Source of CINIC-10: Darlow, Crowley, Antoniou, Storkey, "CINIC-10 is not ImageNet or CIFAR-10",
2018; 270,000 colour images of 32 x 32 in 10 classes, in three parts of equal size.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from wemem.data.dataset import Dataset
from wemem.data.loaders.images import ANY, Channels, draw_records, image_dataset, require_image_memory
from wemem.data.loaders.published import Published, download, in_folder, own_copy
from wemem.errors import InputError
from wemem.files.archive import walk_tgz
from wemem.files.input_files import is_folder, list_folder, read_bytes

CINIC10 = Published(
    "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz", 687_544_992,
    md5="6ee4d0c996905fe93221de577967a372",
)  # fmt: skip
CINIC10_CHANNELS = Channels((0.47889522, 0.47227842, 0.43047404), (0.24205776, 0.23828046, 0.25874835))
PARTS = ("train", "valid", "test")

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "WEBP")
#: Image formats that Pillow may not know.
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".svg", ".jxl", ".dng", ".nef", ".cr2")
#: Image modes of 8 bits a channel; the values of others would be clipped without a word.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
#: Pixels of one image; far above what networks are trained on, far below what a small file can
#: unfold to.
MOST_PIXELS = 2**22
#: Bytes of one image file, and of CINIC-10's unfolded archive.
FILE_LIMIT, SIZE_LIMIT = 2**24, 2**31
#: Folders within one another in a class folder.
DEPTH_LIMIT = 16


def load_folder(path: Path, *, records: int | None, limit: int) -> Dataset:
    """Read images in one folder per class; all of one size, for nothing is resized.

    Formats are PNG, JPEG, PPM, PGM, BMP and WebP; images of other formats are refused, so that none
    is left out unseen. A class folder may have subfolders, whose images are of that class. Hidden
    files, and those whose names do not say that they are images, are passed over. Class numbers go
    by the sorted names of the folders, which are compared as numbers if all of them are. Records
    are sorted by class and path. Grey images become colour images, transparency is dropped, and
    channels are normalized with mean 0.5 and deviation 0.25.

    Args:
        path: the folder of class folders.
        records: the number of images to draw, see :func:`~wemem.data.loaders.images.draw_records`;
            the others are not opened. All if None.
        limit: the largest number of bytes that loading may take.

    Raises:
        InputError: no such folder, links in it, a class folder without images, files that are no
            images, or images of several sizes.
    """
    return _of_trees(path.name, [path], ANY, records, limit)


def load_cinic10(path: Path | None, *, records: int | None, limit: int) -> Dataset:
    """Load CINIC-10: training, validation and test images, joined.

    Args:
        path: ``CINIC-10.tar.gz``, its unpacked folder, or a folder that holds the archive. If None,
            the environment variable ``WEMEM_DATA``; if that is not set, the archive is downloaded
            once and compared with its checksum.
        records: the number of images to draw, see :func:`~wemem.data.loaders.images.draw_records`;
            the others are not decoded. All if None.
        limit: the largest number of bytes that loading may take.

    Raises:
        InputError: images that :func:`load_folder` refuses, a damaged archive, or no connection.
    """
    local = own_copy(path)
    if local is None:
        local = download(CINIC10, f"set WEMEM_DATA to a folder that holds {CINIC10.name}")
    if is_folder(local, "CINIC-10"):
        trees = [local / part for part in PARTS if is_folder(local / part, "a part of CINIC-10")]
        if trees:
            return _of_trees("cinic10", trees, CINIC10_CHANNELS, records, limit)
        local = in_folder(local, [CINIC10.name])
    return _of_archive(local, records, limit)


def _of_trees(name: str, trees: Sequence[Path], channels: Channels, records: int | None, limit: int) -> Dataset:
    places = [(place, place.relative_to(tree).parts[0]) for tree in trees for place in image_files(tree)]
    named = [Path(own) for own in {own for _, own in places}]
    classes = {entry.name: number for number, entry in enumerate(sorted(named, key=class_order(named)))}
    labels = np.array([classes[own] for _, own in places], np.int64)
    chosen = draw_records(labels, records)
    stack = _Stack(len(chosen), limit)
    for i in chosen:
        stack.add(read_bytes(places[i][0], "an image", limit=FILE_LIMIT), str(places[i][0]))
    data = image_dataset(name, stack.pixels, labels[chosen], len(classes), channels, records=None, limit=limit)
    return _named(data, tuple(classes), len(labels))


def _named(data: Dataset, classes: tuple[str, ...], count: int) -> Dataset:
    return replace(data, class_names=classes, drawn_from=count if len(data) < count else None)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder of class folders, sorted by class and path.

    Raises:
        InputError: no such folder, fewer than two classes, a class without images, images of
            another format, or links.
    """
    entries = [entry for entry in list_folder(folder, "a folder of class folders") if not _passed_over(entry)]
    classes = [entry for entry in entries if is_folder(entry, "a class folder")]
    files = {entry: _files_below(entry, DEPTH_LIMIT) for entry in classes}
    if len(classes) < 2 or not any(files.values()):
        raise InputError(
            f"{folder}: expected images in folders of at least 2 classes, got {sum(map(len, files.values()))} images; "
            f"sort {', '.join(SUFFIXES)} files into one folder per class"
        )
    loose = [entry for entry in entries if entry not in files and is_image(entry)]
    if loose:
        raise InputError(f"{loose[0]}: expected images in class folders, got one beside them; move it into its class")
    _require_no_parts(folder, files)
    for entry, own in files.items():
        if not own:
            raise InputError(f"{entry}: expected images in every class folder, got none; add some or remove the folder")
    return [file for entry in sorted(classes, key=class_order(classes)) for file in files[entry]]


def class_order(classes: Sequence[Path]) -> Callable[[Path], tuple[int, str]]:
    """The key by which class folders are sorted: as numbers if all their names are, else by name.

    >>> names = [Path("10"), Path("9")]
    >>> [path.name for path in sorted(names, key=class_order(names))]
    ['9', '10']
    """
    numbers = all(entry.name.isascii() and entry.name.isdigit() and len(entry.name) < 10 for entry in classes)
    return lambda entry: (int(entry.name) if numbers else 0, entry.name)


def is_image(file: Path) -> bool:
    """True if a file's name ends as those of images do, of formats that are read and of others.

    >>> is_image(Path("a.PNG")), is_image(Path("a.tiff")), is_image(Path("labels.csv"))
    (True, True, False)
    """
    suffix = file.suffix.lower()
    return suffix in SUFFIXES or suffix in OTHER_SUFFIXES or suffix in Image.registered_extensions()


def _files_below(folder: Path, depth: int) -> list[Path]:
    """The images of a class folder and its subfolders, sorted by path."""
    files = []
    for entry in list_folder(folder, "a class folder"):
        if _passed_over(entry):
            continue
        if is_folder(entry, "a class folder"):
            if not depth:
                raise InputError(f"{entry}: expected at most {DEPTH_LIMIT} folders in one another, got more")
            files += _files_below(entry, depth - 1)
        elif entry.suffix.lower() in SUFFIXES:
            files.append(entry)
        elif is_image(entry):
            raise InputError(f"{entry}: expected {', '.join(SUFFIXES)} images, got another format; convert it")
    return files


def _passed_over(entry: Path) -> bool:
    """True if an entry is hidden.

    Raises:
        InputError: a link.
    """
    if entry.name.startswith("."):
        return True
    if entry.is_symlink():
        raise InputError(f"{entry}: expected files and folders, got a link; put a copy in its place")
    return False


def _require_no_parts(folder: Path, files: Mapping[Path, Sequence[Path]]) -> None:
    """Refuse folders of parts such as ``train`` and ``val``, each with a folder per class, taken
    for classes.
    """
    below = [{file.relative_to(entry).parts[0] for file in own if file.parent != entry} for entry, own in files.items()]
    direct = any(file.parent == entry for entry, own in files.items() for file in own)
    if not direct and len(below[0]) > 1 and all(names == below[0] for names in below):
        parts = ", ".join(entry.name for entry in files)
        raise InputError(
            f"{folder}: expected one folder per class, got {parts}, each with the same folders; give the path of "
            "one of them, or join them"
        )


def _of_archive(path: Path, records: int | None, limit: int) -> Dataset:
    """Load CINIC-10 from its archive, which is read twice: first the names, then the images that
    are drawn.
    """
    names: list[PurePosixPath] = []

    def note(place: PurePosixPath, stream: IO[bytes]) -> None:
        if place.suffix.lower() in SUFFIXES and len(place.parts) >= 3 and place.parts[-3] in PARTS:
            names.append(place)

    walk_tgz(path, note, size_limit=SIZE_LIMIT)
    if not names:
        raise InputError(f"{path}: expected train/CLASS/IMAGE.png in it, got none; get {CINIC10.url}")
    names.sort(key=lambda place: (PARTS.index(place.parts[-3]), place.parts[-2:]))
    classes = sorted({place.parts[-2] for place in names})
    labels = np.array([classes.index(place.parts[-2]) for place in names], np.int64)
    chosen = draw_records(labels, records)
    wanted = {names[i]: row for row, i in enumerate(chosen)}
    stack, rows = _Stack(len(chosen), limit), []

    def decode_wanted(place: PurePosixPath, stream: IO[bytes]) -> None:
        if place in wanted:
            rows.append(wanted.pop(place))
            stack.add(stream.read(FILE_LIMIT + 1), f"{path}: {place}")

    walk_tgz(path, decode_wanted, size_limit=SIZE_LIMIT)
    if wanted:
        raise InputError(f"{path}: expected every file once, got one twice; get {CINIC10.url}")
    pixels = stack.pixels[np.argsort(rows)]
    data = image_dataset("cinic10", pixels, labels[chosen], len(classes), CINIC10_CHANNELS, records=None, limit=limit)
    return _named(data, tuple(classes), len(labels))


class _Stack:
    """A stack of images of one size, allocated when the first one is decoded."""

    def __init__(self, count: int, limit: int) -> None:
        self.count, self.limit, self.filled = count, limit, 0
        self.pixels: UInt8[np.ndarray, "N 3 H W"] = np.zeros((0, 3, 0, 0), np.uint8)

    def add(self, content: bytes, where: str) -> None:
        """Decode the next image.

        Raises:
            InputError: no image, one that is too large, or one of another size than those before.
        """
        image = decode(content, where)
        size = (image.shape[1], image.shape[2])
        if not self.filled:
            require_image_memory(self.count, size, self.limit, where)
            self.pixels = np.zeros((self.count, *image.shape), np.uint8)
        if image.shape != self.pixels.shape[1:]:
            first = f"{self.pixels.shape[3]} x {self.pixels.shape[2]}"
            raise InputError(f"{where}: expected {first} pixels as the first image has, got {size[1]} x {size[0]}; "
                             "bring all images to one size")  # fmt: skip
        self.pixels[self.filled] = image
        self.filled += 1


def decode(content: bytes, where: str) -> UInt8[np.ndarray, "3 H W"]:
    """Decode one image; its size is checked before anything is unfolded."""
    if len(content) > FILE_LIMIT:
        raise InputError(f"{where}: expected an image file of at most {FILE_LIMIT} bytes, got more; make it smaller")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise InputError(
                f"{where}: expected at most {MOST_PIXELS} pixels, got {image.width} x {image.height}; make it smaller"
            )
        if image.mode not in MODES:
            raise InputError(f"{where}: expected 8 bits a channel, got mode {image.mode}; convert it first")
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except InputError:
        raise
    except UnidentifiedImageError as error:  # its message has an address in memory
        raise InputError(f"{where}: expected a PNG, JPEG, PPM, BMP or WebP image, got none; save it again") from error
    except (
        OSError, SyntaxError, ValueError, Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{where}: expected a PNG, JPEG, PPM, BMP or WebP image, got a broken one ({reason}); save it again"
        ) from error
