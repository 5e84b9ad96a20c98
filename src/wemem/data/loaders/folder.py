"""Images in folders that are named after their classes, and CINIC-10, which is published that way.

Source of CINIC-10: Darlow, Crowley, Antoniou, Storkey, "CINIC-10 is not ImageNet or CIFAR-10", 2018; 270,000 colour
images of 32 x 32 in 10 classes, in three parts of equal size.
"""

import io
import warnings
from collections.abc import Sequence
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

CINIC10 = Published(
    "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz", 687_544_992,
    md5="6ee4d0c996905fe93221de577967a372",
)  # fmt: skip
CINIC10_CHANNELS = Channels((0.47889522, 0.47227842, 0.43047404), (0.24205776, 0.23828046, 0.25874835))
PARTS = ("train", "valid", "test")

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm")
FORMATS = ("PNG", "JPEG", "PPM")
#: Of 8 bits a channel: others would be clipped quietly.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
#: Pixels of one image; far above what networks are trained on, far below what a small file can unfold to.
MOST_PIXELS = 2**22
#: Bytes of one image file, and of CINIC-10's unfolded archive.
FILE_LIMIT, SIZE_LIMIT = 2**24, 2**31


def load_folder(path: Path, *, records: int | None, limit: int) -> Dataset:
    """PNG, JPEG and PPM images in one folder per class; all of one size, for nothing is resized.

    Class numbers go by the sorted names of the folders, records by class and file name. Grey images become colour
    images, transparency is dropped, and channels are normalized with mean 0.5 and deviation 0.25.

    Args:
        path: the folder of folders.
        records: only so many, see :func:`~wemem.data.loaders.images.draw_records`; the others are not opened.
        limit: bytes that loading may take.

    Raises:
        InputError: no such folder, links in it, no images, files that are none, or images of several sizes.
    """
    return _of_trees(path.name, [path], ANY, records, limit)


def load_cinic10(path: Path | None, *, records: int | None, limit: int) -> Dataset:
    """CINIC-10: training, validation and test images, joined.

    Args:
        path: ``CINIC-10.tar.gz``, its unpacked folder, or a folder that holds the archive. If None, the environment
            variable ``WEMEM_DATA``; if that is not set, the archive is downloaded once and held against its checksum.
        records: only so many, see :func:`~wemem.data.loaders.images.draw_records`; the others are not decoded.
        limit: bytes that loading may take.

    Raises:
        InputError: as :func:`load_folder`, a damaged archive, or no connection.
    """
    own = own_copy(path)
    if own is None:
        own = download(CINIC10, f"set WEMEM_DATA to a folder that holds {CINIC10.name}")
    if own.is_dir():
        trees = [own / part for part in PARTS if (own / part).is_dir()]
        if trees:
            return _of_trees("cinic10", trees, CINIC10_CHANNELS, records, limit)
        own = in_folder(own, [CINIC10.name])
    return _of_archive(own, records, limit)


def _of_trees(name: str, trees: Sequence[Path], channels: Channels, records: int | None, limit: int) -> Dataset:
    places = [place for tree in trees for place in image_files(tree)]
    classes = sorted({place.parent.name for place in places})
    labels = np.array([classes.index(place.parent.name) for place in places], np.int64)
    chosen = draw_records(labels, records)
    stack = _Stack(len(chosen), limit)
    for i in chosen:
        try:
            with places[i].open("rb") as file:
                stack.add(file.read(FILE_LIMIT + 1), str(places[i]))
        except OSError as error:
            raise InputError(f"{places[i]}: expected a file to read, got {error.strerror}; check it") from error
    return image_dataset(name, stack.pixels, labels[chosen], len(classes), channels, records=None, limit=limit)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder of class folders, sorted by class and name.

    Raises:
        InputError: no such folder, fewer than two classes, or links in it.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of class folders at {folder}, got none; give the path of one")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [f for entry in classes for f in sorted(entry.iterdir()) if f.suffix.lower() in SUFFIXES]
    if len({file.parent for file in files}) < 2:
        raise InputError(f"{folder}: expected images in folders of at least 2 classes, got {len(files)} images; "
                         f"sort {', '.join(SUFFIXES)} files into one folder per class")  # fmt: skip
    for entry in [*classes, *files]:
        if entry.is_symlink():
            raise InputError(f"{entry}: expected files and folders, got a link; put a copy in its place")
    return files


def _of_archive(path: Path, records: int | None, limit: int) -> Dataset:
    """CINIC-10 from its archive, which is read twice: the names say which images to decode."""
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
    return image_dataset("cinic10", pixels, labels[chosen], len(classes), CINIC10_CHANNELS, records=None, limit=limit)


class _Stack:
    """Images of one size, as many as were announced; allocated when the first one tells the size."""

    def __init__(self, count: int, limit: int) -> None:
        self.count, self.limit, self.filled = count, limit, 0
        self.pixels: UInt8[np.ndarray, "N 3 H W"] = np.zeros((0, 3, 0, 0), np.uint8)

    def add(self, content: bytes, where: str) -> None:
        """Decode the next image.

        Raises:
            InputError: it is none, too large, or of another size than those before.
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
    """The pixels of one image; its size is judged before anything is unfolded."""
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
    except (
        OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{where}: expected a PNG, JPEG or PPM image, got a broken one ({reason})") from error
