"""Entries in a bucket of an object storage, with a cache on the disk of this machine.

An entry is two objects below ``<prefix>/<stage>/<two digits>/<key>``: the arrays under the name of
their SHA-256, then ``meta.json``, which names them and is created only if there is none. So an entry
exists in full or not at all, and of two writers the first one wins: the arrays of the other do not
replace its own. A look-up asks for the one object that its key names, and lists nothing.

Entries are read from the cache first. Objects have the bytes that a folder would hold, so both kinds
of store have the same guarantees. Processes of one machine share pieces of work through the cache,
as in a folder; two machines may compute the same piece.
"""

import hashlib
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from wemem.errors import InputError
from wemem.files.documents import JSON_LIMIT
from wemem.store.backend import Address, Backend, Listed
from wemem.store.bucket import AT_ONCE, Bucket, TooLargeError
from wemem.store.entry import DATA, META, DamagedError, Entry, check_entry, parse_meta, read_entry, write_entry
from wemem.store.key import Key
from wemem.store.local_cache import LocalCache
from wemem.store.location import BucketUrl

#: The object that is created when a store is opened, before anything is computed: it shows that the
#: bucket is there, that it can be written, and that it knows conditional creation.
MARK, MARKED = "wemem-store.json", b'{"schema": "wemem.store/1"}\n'


class BucketBackend(Backend):
    """Entries in a bucket.

    Args:
        bucket: the objects.
        cache: entries on this machine.

    Raises:
        InputError: the bucket cannot be written, or it knows no conditional creation.
    """

    patience = 2.0
    at_once = AT_ONCE
    remedy = "free space for its local cache, or move that with WEMEM_CACHE"

    def __init__(self, bucket: Bucket, cache: LocalCache) -> None:
        self._bucket, self._cache = bucket, cache
        if bucket.create(MARK, MARKED) and bucket.create(MARK, MARKED):
            raise InputError(
                f"expected a storage that can create an object only where there is none, got one that overwrites it at "
                f"{bucket.url}; use another storage, or a folder"
            )

    @classmethod
    def open(cls, url: BucketUrl) -> "BucketBackend":
        """The entries of a URL, with credentials and cache as the environment says."""
        bucket = Bucket.open(url)
        return cls(bucket, LocalCache.of(bucket.identity))

    @property
    def place(self) -> str:
        return str(self._bucket.url)

    def read(self, key: Key) -> Entry | None:
        if (cached := self._cache.read(key)) is not None:
            return cached
        return self._cache.with_space(lambda: self._fetch(key))

    def _fetch(self, key: Key) -> Entry | None:
        address = Address.of(key)
        with self._cache.scratch() as scratch:
            if not self._copied(address, scratch / key):
                return None
            entry = read_entry(scratch / key, key.origin)
            self._cache.keep(scratch / key, address)
            return entry

    def _copied(self, address: Address, folder: Path) -> bool:
        """Download the objects of an entry as the files of a folder; False if there is none."""
        try:
            meta = self._bucket.read(f"{address.path}/{META}", JSON_LIMIT)
            if meta is None:
                return False
            name, size = _data_object(parse_meta(meta))
            folder.mkdir()
            (folder / META).write_bytes(meta)
            if not self._bucket.download(f"{address.path}/{name}", folder / DATA, size):
                raise DamagedError(f"{name} is missing")
        except TooLargeError as error:
            raise DamagedError(str(error)) from error
        return True

    def write(self, key: Key, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Entry | None:
        return self._cache.with_space(lambda: self._write(key, arrays, meta))

    def _write(self, key: Key, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Entry | None:
        address = Address.of(key)
        with self._cache.scratch() as scratch:
            write_entry(scratch / key, key.origin, arrays, meta)
            entry = read_entry(scratch / key, key.origin)
            content = (scratch / key / META).read_bytes()
            name, _ = _data_object(parse_meta(content))
            self._bucket.upload(f"{address.path}/{name}", scratch / key / DATA)
            if not self._bucket.create(f"{address.path}/{META}", content):
                return None
            self._cache.keep(scratch / key, address)
            return entry

    def exists(self, address: Address) -> bool:
        return bool(self._bucket.existing([f"{address.path}/{META}"]))

    def remove(self, address: Address) -> None:
        self._bucket.remove([f"{address.path}/{META}"])  # first, so that nobody meets half an entry
        self._bucket.remove([one.path for one in self._bucket.listed(address.path)])
        self._cache.remove(address)

    def present(self, keys: Collection[Key]) -> frozenset[Key]:
        paths = {f"{Address.of(key).path}/{META}": key for key in keys}
        return frozenset(paths[path] for path in self._bucket.existing(paths.keys()))

    def forget(self, keys: Collection[Key]) -> None:
        for key in set(keys) - self.present(keys):
            self._cache.remove(Address.of(key))

    def check(self, address: Address) -> None:
        with self._cache.scratch() as scratch:
            if not self._copied(address, scratch / address.key):
                raise DamagedError("it is missing")
            check_entry(scratch / address.key, address.key)

    def listed(self) -> Iterator[Listed]:
        objects = sorted(one for one in self._bucket.listed() if one.path.count("/") == 3)
        for folder, group in groupby(objects, lambda one: one.path.rpartition("/")[0]):
            files = list(group)
            stage, _, key = folder.split("/")
            complete = any(one.path == f"{folder}/{META}" for one in files)
            yield Listed(
                Address(stage, key), sum(one.bytes for one in files), max(one.modified for one in files), complete
            )

    def size(self) -> int:
        return sum(one.bytes for one in self._bucket.listed())

    @contextmanager
    def claimed(self, job: Key, numbers: Sequence[int]) -> Iterator[int | None]:
        with self._cache.claimed(job, _from_here(numbers)) as number:
            yield number


def _data_object(meta: Mapping[str, Any]) -> tuple[str, int]:
    """Name and size of the object with the arrays that a description names.

    Raises:
        DamagedError: the description names none.
    """
    try:
        digest, size = str(meta["data"]["sha256"]), int(meta["data"]["bytes"])
        bytes.fromhex(digest)
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedError(f"{META} names no arrays") from error
    if len(digest) != 64 or size < 0:
        raise DamagedError(f"{META} names no arrays")
    return f"{digest}.safetensors", size


def _from_here(numbers: Sequence[int]) -> list[int]:
    """Numbers from another one on for each machine, so that machines that start together do not
    compute the same.
    """
    name = hashlib.sha256(socket.gethostname().encode()).digest()
    start = int.from_bytes(name[:4], "big") % max(1, len(numbers))
    return [*numbers[start:], *numbers[:start]]
