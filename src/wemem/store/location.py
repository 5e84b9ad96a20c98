"""The location of a store: a folder, or the URL of a bucket."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wemem.errors import InputError
from wemem.files.input_files import shown, user_path

#: Environment variable with the location of the store, where a command names none.
STORE = "WEMEM_STORE"
#: Schemes of the object storages: Amazon S3 and its like, Google Cloud Storage, Azure Blob Storage.
SCHEMES = ("s3", "gs", "az")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_BUCKET = re.compile(r"(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]*)(?:/(?P<prefix>[A-Za-z0-9/._=+-]*))?")


@dataclass(frozen=True)
class BucketUrl:
    """The URL of a place in an object storage. It holds no credentials.

    Args:
        scheme: one of ``SCHEMES``.
        bucket: the bucket, or the container of Azure.
        prefix: the path within it, without slashes at its ends; it may be empty.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def store_location(location: str | Path) -> Path | BucketUrl:
    """The folder or the bucket that a user names.

    Raises:
        InputError: an unknown scheme, a URL with credentials or a query, or a path that is none.

    >>> str(store_location("s3://bucket/studies/"))
    's3://bucket/studies'
    >>> store_location("file:///data/my%20store").as_posix()
    '/data/my store'
    """
    text = str(location)
    if isinstance(location, Path):
        if re.match(rf"({'|'.join((*SCHEMES, 'file'))}):[/\\]", text):
            raise InputError(f"expected the URL of a store as a string, got the path {shown(text)!r}; give a string")
        return user_path(location)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return user_path(text)
    if scheme[1] in SCHEMES:
        return _bucket_url(scheme[1], text[scheme.end() :])
    if scheme[1] == "file":
        return _folder_of_url(text)
    raise InputError(
        f"expected a folder, or a URL that begins with s3://, gs://, az:// or file://, got one that begins with "
        f"{shown(scheme[0])!r}; choose another --store"
    )


def location_beside(store: str | Path | None, out: Path) -> str | Path:
    """The location that a command uses: the one that is given, else that of the environment
    variable ``WEMEM_STORE``, else ``.store`` beside the output directory, so that neighbours share.
    """
    if store is not None:
        return store
    return os.environ.get(STORE) or out.parent / ".store"


def _bucket_url(scheme: str, rest: str) -> BucketUrl:
    match = _BUCKET.fullmatch(rest)
    parts = [] if match is None else [part for part in (match["prefix"] or "").split("/") if part]
    if match is None or {".", ".."} & set(parts):
        # the text is not shown: it may hold a password or a signature
        raise InputError(
            f"expected {scheme}://BUCKET/PREFIX of letters, digits and ._=+-, got something else after {scheme}://; "
            "name the place alone, and give credentials as the provider's own tools take them"
        )
    return BucketUrl(scheme, match["bucket"], "/".join(parts))


def _folder_of_url(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path:
        raise InputError(
            f"expected file:///PATH, got {shown(text)!r}; write three slashes and an absolute path, without ? and #"
        )
    return user_path(unquote(parts.path))
