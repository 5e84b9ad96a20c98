"""Published files of data sets: a local copy where there is one, else the download, checked by its
hash.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from wemem.errors import InputError
from wemem.files.download import fetch
from wemem.files.input_files import list_folder, user_path


@dataclass(frozen=True)
class Published:
    """A file as its publisher distributes it.

    Args:
        url: the address of the file.
        size: the number of bytes.
        sha256: the SHA-256 in hexadecimal.
        md5: the MD5, only where nothing better is published.
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
    """The folder of downloads: ``$XDG_CACHE_HOME/wemem``, or ``~/.cache/wemem``."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # the specification says that a relative path is to be ignored
    return user_path(configured if Path(configured).is_absolute() else "~/.cache") / "wemem"


def own_copy(path: Path | None) -> Path | None:
    """The file or folder that the user names: ``path``, or else the environment variable
    ``WEMEM_DATA``, or None.
    """
    given = path or os.environ.get("WEMEM_DATA")
    return user_path(given) if given else None


def in_folder(folder: Path, patterns: Sequence[str]) -> Path:
    """The one file or folder in ``folder`` that matches a pattern; the patterns are tried in order.

    Raises:
        InputError: a folder that cannot be read, no match, or several matches of one pattern.
    """
    entries = list_folder(folder, f"a folder with {' or '.join(patterns)}")
    for pattern in patterns:
        matches = [entry for entry in entries if fnmatchcase(entry.name, pattern)]
        if len(matches) > 1:
            names = ", ".join(entry.name for entry in matches[:20])
            raise InputError(f"expected one {pattern} in {folder}, got {names}; give the path of one of them")
        if matches:
            return matches[0]
    raise InputError(f"expected {' or '.join(patterns)} in {folder}, got none of them; put one there, or give a path")


def download(file: Published, instead: str) -> Path:
    """The path of a published file in the cache folder; it is downloaded if missing.

    Args:
        file: the published file.
        instead: the remedy for a user who cannot download, for the message.

    Raises:
        InputError: no connection, or content with another hash.
    """
    try:
        return fetch(
            file.url, cache_folder() / file.name, size_limit=file.size, sha256=file.sha256, md5=file.md5
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{error}; or {instead}") from error
