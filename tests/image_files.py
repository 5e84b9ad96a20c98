"""Tiny files of the published image data sets."""

import io
import tarfile

import numpy as np

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
