"""Downloads: a file arrives whole and verified, or not at all."""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from wemem.errors import InputError
from wemem.files.locks import wait_for_lock

CHUNK = 2**16


class RangeRefusedError(Exception):
    """The server does not send the rest of a file of which a part is here already."""


def fetch(
    url: str,
    destination: Path,
    *,
    size_limit: int,
    sha256: str | None = None,
    md5: str | None = None,
    check: Callable[[Path], object] | None = None,
    timeout: float = 30.0,
) -> Path:
    """Download ``url`` to ``destination``, which appears only once its content is verified.

    The bytes are written to ``<destination>.part`` first. A later call requests the rest, on
    condition that the file on the server is still the same (RFC 9110, Range and If-Range with a
    strong ETag), and starts over where that is not possible. An existing ``destination`` is left as
    it is. Processes that want the same file wait for one another.

    Args:
        url: the address, http or https; a redirect to another scheme is refused.
        destination: the path of the file; its folder is created.
        size_limit: the largest number of bytes; a larger file is refused, before it is read if the
            server announces its size.
        sha256: the published SHA-256 in hexadecimal.
        md5: the published MD5, for files of which nothing better is published.
        check: a function that raises InputError if the content of the file at a path is wrong.
        timeout: the number of seconds that the server may stay silent.

    Returns:
        The path ``destination``.

    Raises:
        InputError: another scheme, no connection or one that was cut (the part stays), a file that
            is too large or has the wrong content (the part is removed), or a folder that cannot be
            written.
    """
    part = destination.with_name(f"{destination.name}.part")
    with failures_on_one_line(url, destination):
        if urlsplit(url).scheme not in ("http", "https"):
            raise InputError(f"expected an http or https address, got {url!r}; give a local file by its path")
        destination.parent.mkdir(parents=True, exist_ok=True)
        with locked(destination.with_name(f"{destination.name}.lock")):
            if destination.exists():
                return destination
            try:
                receive(url, part, size_limit, timeout)
                require_digests(part, {"SHA-256": sha256, "MD5": md5}, url)
                if check is not None:
                    check(part)
            except InputError:
                discard(part)
                raise
            part.replace(destination)
            discard(part)
    return destination


def receive(url: str, part: Path, size_limit: int, timeout: float) -> None:
    """Complete ``part``, from its end if the server allows it, else from the start."""
    tag = etag_file(part)
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    try:
        transfer(url, part, have, size_limit, timeout)
    except RangeRefusedError:
        discard(part)
        transfer(url, part, 0, size_limit, timeout)


def transfer(url: str, part: Path, have: int, size_limit: int, timeout: float) -> None:
    """Send one request, and append the response to the ``have`` bytes of the part.

    Raises:
        RangeRefusedError: the rest was requested and something else came.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "wemem", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", etag_file(part).read_text("utf-8"))
    try:
        response = opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise RangeRefusedError from error
        raise
    with response:
        if response.status == http.client.OK:  # the whole file: there was no part of it, or it has changed since
            have = 0
            discard(part)
            etag = response.headers.get("ETag", "")
            if etag.startswith('"'):  # a weak one (W/"...") does not identify bytes
                etag_file(part).write_text(etag, "utf-8")
        elif not have:
            raise ConnectionError(f"unexpected status {response.status} {response.reason}")
        elif not re.match(rf"bytes {have}-", response.headers.get("Content-Range", "")):
            raise RangeRefusedError
        with part.open("ab") as file:
            append(response, file, have, size_limit, url)


def append(response: Any, file: IO[bytes], have: int, size_limit: int, url: str) -> None:
    """Write the body of ``response`` after the ``have`` bytes that are there.

    Raises:
        InputError: more bytes than allowed.
        ConnectionError: fewer bytes than announced.
    """
    total = None if response.length is None else have + response.length
    if total is not None and total > size_limit:
        raise InputError(f"{url}: expected at most {size_limit} bytes, got {total}; check the address")
    while block := response.read(CHUNK):
        have += len(block)
        if have > size_limit:
            raise InputError(f"{url}: expected at most {size_limit} bytes, got more; check the address")
        file.write(block)
    file.flush()
    os.fsync(file.fileno())
    if total is not None and have < total:
        raise ConnectionError(f"connection cut after {have} of {total} bytes, run again for the rest")


def require_digests(part: Path, expected: Mapping[str, str | None], url: str) -> None:
    """Compare a file with its published checksums, where there are any."""
    for name, digest in expected.items():
        if digest is None:
            continue
        with part.open("rb") as file:
            # MD5 finds damage, and a file that was exchanged later; it is used for nothing else
            # here.
            hasher = hashlib.new(name.replace("-", ""), usedforsecurity=name != "MD5")
            got = hashlib.file_digest(file, lambda hasher=hasher: hasher).hexdigest()  # type: ignore[misc]
        if got != digest.lower():
            raise InputError(f"{url}: expected {name} {digest}, got {got}; the file was changed or damaged, try again")


def etag_file(part: Path) -> Path:
    """The file with the version that a part belongs to."""
    return part.with_name(f"{part.name}.etag")


def discard(part: Path) -> None:
    """Remove a part. Its version is removed last, because a part of unknown version is never
    continued.
    """
    part.unlink(missing_ok=True)
    etag_file(part).unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for other processes. Windows needs no lock, because it does not replace a file that is
    open.
    """
    with path.open("a") as file:
        wait_for_lock(file.fileno())
        yield


class NoDowngrade(urllib.request.HTTPRedirectHandler):
    """A handler that follows redirects, but not from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request that follows a redirect."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"redirect from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """An opener for http and https and nothing else; the default one of urllib also opens files and
    ftp.
    """
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        NoDowngrade(),
    ):
        director.add_handler(handler)
    return director


@contextmanager
def failures_on_one_line(url: str, destination: Path) -> Iterator[None]:
    """Turn every failure of network and disk into one line with a remedy."""
    try:
        yield
    except InputError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if type(error) is urllib.error.URLError else error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise InputError(
            f"expected to download {url}, got: {reason}; or get that file elsewhere and save it as {destination}"
        ) from error
