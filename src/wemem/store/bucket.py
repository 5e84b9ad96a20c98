"""Objects of a bucket at Amazon S3 and its like, Google Cloud Storage or Azure, through obstore.

Credentials come from the environment and from the machine, as each provider's own tools take them.
No message holds the text of an error of the library: it may show a signed address. A storage that
does not answer, or that answers with 5xx, is asked again for a limited time.
"""

import os
import re
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import obstore
from obstore import put as write
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import ObjectStore, from_url

from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.store.location import BucketUrl

T = TypeVar("T")
#: Environment variable with the seconds for which a storage that does not answer is asked again.
PATIENCE = "WEMEM_STORE_PATIENCE"
#: Environment variables with the address of a storage, by scheme; they are no secrets.
ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
#: Hosts that give a machine its credentials.
METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
#: Requests at the same time.
AT_ONCE = 64
#: Seconds of silence after which a request is given up, and bytes that are read at a time.
SILENCE, CHUNK = 30.0, 2**22


class Listing(NamedTuple):
    """An object in a listing.

    Attributes:
        path: its path below the prefix of the bucket.
        bytes: its size.
        modified: the time at which it was written.
    """

    path: str
    bytes: int
    modified: datetime


class TooLargeError(Exception):
    """An object has more bytes than it may have."""


class Bucket:
    """The objects below one prefix of a bucket.

    Args:
        url: the place.
        client: the library's client.
        patience: seconds for which a storage that does not answer is asked again.
    """

    def __init__(self, url: BucketUrl, client: ObjectStore, patience: float) -> None:
        self.url, self._client, self._patience = url, client, patience

    @classmethod
    def open(cls, url: BucketUrl) -> "Bucket":
        """The bucket of a URL; no request is made.

        Raises:
            InputError: the environment does not suffice.
        """
        patience = _patience()
        address = next((os.environ[name] for name in ENDPOINTS[url.scheme] if os.environ.get(name)), "")
        settings: dict[str, Any] = {
            "retry_config": {"retry_timeout": timedelta(seconds=patience)},
            "client_options": {
                "allow_http": address.startswith("http://"),  # only where the user says so
                "connect_timeout": timedelta(seconds=min(10.0, patience)),
                "read_timeout": timedelta(seconds=min(SILENCE, patience)),
                "timeout": timedelta(days=1),
            },
            **_profile(url),
        }
        try:
            return cls(url, from_url(str(url), **settings), patience)
        except (BaseError, ValueError) as error:
            raise InputError(
                f"expected an environment with all that a store at {url} needs, got {_reason(error)}; set the "
                "variables of the provider's own tools, docs/store.md lists them"
            ) from None

    @property
    def identity(self) -> str:
        """A hash of the URL and of the storage's address: two storages may have buckets of one name."""
        return sha256_of([str(self.url), *(os.environ.get(name) for name in ENDPOINTS[self.url.scheme])])[:16]

    def create(self, path: str, content: bytes) -> bool:
        """Write an object unless there is one at the path; False if there is."""

        def created() -> bool:
            try:
                write(self._client, path, content, mode="create")
            except AlreadyExistsError:
                return False
            return True

        return self._there(created)

    def upload(self, path: str, file: Path) -> None:
        """Write a file as an object; readers see the whole object or the one before."""
        self._there(lambda: write(self._client, path, file))

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of an object; None if there is none.

        Raises:
            TooLargeError: it has more than ``limit`` bytes, and was not read.
        """

        def whole() -> bytes:
            result = obstore.get(self._client, path)
            if result.meta["size"] > limit:
                raise TooLargeError(f"{path} has more than {limit:,} bytes")
            return bytes(result.bytes())

        return self._if_present(whole)

    def download(self, path: str, file: Path, size: int) -> bool:
        """Read an object of a known size into a file; False if there is no object.

        Raises:
            TooLargeError: it has another size, and was not read.
            OSError: the file cannot be written.
        """

        def whole() -> bool:
            result = obstore.get(self._client, path)
            if result.meta["size"] != size:
                raise TooLargeError(f"{path} does not have {size:,} bytes")
            with file.open("wb") as stream:
                for chunk in result.stream(min_chunk_size=CHUNK):
                    stream.write(chunk)
            return True

        return bool(self._if_present(whole))

    def existing(self, paths: Collection[str]) -> frozenset[str]:
        """The paths that have an object, all looked up at once and without a listing."""

        def exists(path: str) -> bool:
            return self._if_present(lambda: obstore.head(self._client, path)) is not None

        with ThreadPoolExecutor(min(AT_ONCE, len(paths) or 1)) as threads:
            flags = threads.map(exists, paths)
            return frozenset(path for path, flag in zip(paths, flags, strict=True) if flag)

    def remove(self, paths: Collection[str]) -> None:
        """Remove objects, where they are."""
        for path in paths:
            self._if_present(partial(obstore.delete, self._client, path))

    def listed(self, prefix: str | None = None) -> list[Listing]:
        """All objects, or those below a path. A listing that breaks off is begun again."""
        return self._patiently(
            lambda: [
                Listing(one["path"], one["size"], one["last_modified"])
                for page in obstore.list(self._client, prefix)
                for one in page
            ]
        )

    def _there(self, action: Callable[[], T]) -> T:
        """The result of requests that write; where they find nothing, there is no bucket."""
        try:
            return self._patiently(action)
        except FileNotFoundError as error:
            raise self._refused(error) from None

    def _if_present(self, action: Callable[[], T]) -> T | None:
        try:
            return self._patiently(action)
        except FileNotFoundError:
            return None

    def _patiently(self, action: Callable[[], T]) -> T:
        """The result of some requests, tried again while the storage does not answer.

        Raises:
            FileNotFoundError: there is no such object.
            InputError: the storage refuses, or did not answer in time.
        """
        began, pause = time.monotonic(), 0.1
        while True:
            try:
                return action()
            except BaseError as error:
                waited = time.monotonic() - began
                if not isinstance(error, GenericError):
                    raise self._refused(error) from None
                if waited + pause > self._patience:
                    raise InputError(
                        f"expected the storage of {self.url} to answer, got {_reason(error)} for {waited:.0f} s; run "
                        f"the same command later, it goes on where it was, or wait longer with {PATIENCE}"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _refused(self, error: Exception) -> InputError:
        return InputError(
            f"expected a store at {self.url} that can be read and written, got {_reason(error)}; check the bucket and "
            "the credentials in the environment, docs/store.md lists them"
        )


def _reason(error: Exception) -> str:
    """Some words on an error of the library that hold no address and no signature."""
    text = str(error)
    if any(host in text for host in METADATA):
        return "no credentials in the environment or from this machine"
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z ]{1,40})?)", text)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    if status or code:
        return " ".join(
            part for part in (status and f"the answer {status[1].strip()}", code and f"({code[1]})") if part
        )
    for words, reason in (("imed out", "a time-out"), ("Connect", "no connection"), ("kind: Body", "a cut connection")):
        if words in text:
            return reason
    missing = re.search(r"(?:Missing|MissingA?)(Bucket|Region|Account|Container)\w*", text)
    return f"no {missing[1].lower()}" if missing else f"an error of the kind {type(error).__name__}"


def _patience() -> float:
    text = os.environ.get(PATIENCE, "180")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise InputError(f"expected seconds between 0 and 86,400 in {PATIENCE}, got {text[:40]!r}; set it to 180")
    return seconds


def _profile(url: BucketUrl) -> dict[str, Any]:
    """Credentials of the profile that ``AWS_PROFILE`` names, which boto3 alone can read."""
    if url.scheme != "s3" or not os.environ.get("AWS_PROFILE") or os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return {"credential_provider": Boto3CredentialProvider()}
    except ImportError:
        raise InputError("expected boto3 for AWS_PROFILE, got no such library; pip install boto3") from None
    except Exception as error:  # of boto3, which may show the content of its files
        raise InputError(
            f"expected a profile with credentials in AWS_PROFILE, got {type(error).__name__}; check its name"
        ) from None
