"""Published files of data sets: a local copy where there is one, else the download, held against its checksum."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wemem.errors import InputError
from wemem.files.download import fetch


@dataclass(frozen=True)
class Published:
    """A file as its publisher gives it out.

    Args:
        url: where from.
        size: bytes.
        sha256, md5: what it must hash to; MD5 only where nothing better is published.
    """

    url: str
    size: int
    sha256: str | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's name.

        >>> Published("https://example.org/a/cifar-10-binary.tar.gz", 1).name
        'cifar-10-binary.tar.gz'
        """
        return self.url.rpartition("/")[2]


def cache_folder() -> Path:
    """Where downloads stay: ``$XDG_CACHE_HOME/wemem``, or ``~/.cache/wemem``."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one is to be ignored, says the specification
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "wemem"


def own_copy(path: Path | None) -> Path | None:
    """The file or folder that the user named: ``path``, or else the environment variable ``WEMEM_DATA``, or None."""
    if path is None and os.environ.get("WEMEM_DATA"):
        return Path(os.environ["WEMEM_DATA"]).expanduser()
    return path


def in_folder(folder: Path, patterns: Sequence[str]) -> Path:
    """The one file or folder in ``folder`` that fits the first pattern that any fits.

    Raises:
        InputError: none, or several that fit one pattern.
    """
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise InputError(f"expected one {pattern} in {folder}, got {names}; give the path of one of them")
        if found:
            return found[0]
    raise InputError(f"expected {' or '.join(patterns)} in {folder}, got none of them; put one there, or give a path")


def download(file: Published, instead: str) -> Path:
    """The file in the cache folder, fetched if it is not there yet.

    Args:
        file: which.
        instead: what a user may do who cannot download, for the message.

    Raises:
        InputError: no connection, or content that is not what was published.
    """
    try:
        return fetch(
            file.url, cache_folder() / file.name, size_limit=file.size, sha256=file.sha256, md5=file.md5
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{error}; or {instead}") from error
