"""Downloads and archives that nobody vouches for."""

import gzip
import hashlib
import http.server
import io
import re
import socket
import tarfile
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wemem.errors import InputError
from wemem.files.archive import read_tgz_file
from wemem.files.download import fetch

BODY = bytes(i * 31 % 251 for i in range(200_000))
DIGEST = hashlib.sha256(BODY).hexdigest()
LIMIT = 10**6


@dataclass
class Site:
    """What the server on this machine does."""

    body: bytes = BODY
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: int | None = None
    says_length: bool = True
    status: int = 200
    location: str | None = None
    wrong_range: bool = False
    port: int = 0
    asked: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/data.tgz"


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            site.asked.append(self.headers["Range"])
            start, status = 0, site.status
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            if wanted and site.ranges and self.headers["If-Range"] in (None, site.etag):
                start, status = int(wanted[1]), 206
            if start and start >= len(site.body):
                start, status = len(site.body), 416
            self.send_response(status)
            if site.location is not None:
                self.send_header("Location", site.location)
            if status == 206:
                shown = start + 1 if site.wrong_range else start
                self.send_header("Content-Range", f"bytes {shown}-{len(site.body) - 1}/{len(site.body)}")
            if site.etag is not None:
                self.send_header("ETag", site.etag)
            if site.says_length:
                self.send_header("Content-Length", str(len(site.body) - start))
            self.end_headers()
            self.wfile.write(site.body[start:][: site.cut_after])

        def log_message(self, *args):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "data.tgz"


def left_in(target):
    return sorted(p.name for p in target.parent.iterdir() if p.name != "data.tgz.lock")


def cut_once(site, target, after=70_000):
    site.cut_after = after
    with pytest.raises(InputError, match=f"connection cut after {after} of 200000 bytes, run again for the rest"):
        fetch(site.url, target, size_limit=LIMIT)
    assert left_in(target)[0] == "data.tgz.part"
    site.cut_after = None


def test_whole_file_arrives_and_nothing_else_stays(site, target):
    assert fetch(site.url, target, size_limit=LIMIT, sha256=DIGEST) == target
    assert target.read_bytes() == BODY
    assert left_in(target) == ["data.tgz"]


def test_file_that_is_there_is_not_asked_for(site, target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    fetch(site.url, target, size_limit=LIMIT)
    assert target.read_bytes() == b"mine"
    assert site.asked == []


def test_cut_download_resumes_where_it_stopped(site, target):
    cut_once(site, target)
    fetch(site.url, target, size_limit=LIMIT, sha256=DIGEST)
    assert site.asked == [None, "bytes=70000-"]
    assert target.read_bytes() == BODY
    assert left_in(target) == ["data.tgz"]


def test_server_without_ranges_sends_the_whole_again(site, target):
    site.ranges = False
    cut_once(site, target)
    fetch(site.url, target, size_limit=LIMIT, sha256=DIGEST)
    assert target.read_bytes() == BODY


def test_file_that_changed_meanwhile_starts_over(site, target):
    cut_once(site, target)
    site.body, site.etag = BODY[::-1], '"two"'
    fetch(site.url, target, size_limit=LIMIT)
    assert target.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_part_of_an_unknown_version_is_not_continued(site, target, etag):
    site.etag = etag
    cut_once(site, target)
    fetch(site.url, target, size_limit=LIMIT)
    assert site.asked == [None, None]
    assert target.read_bytes() == BODY


def test_range_that_cannot_be_satisfied_starts_over(site, target):
    cut_once(site, target)
    site.body = BODY[:1000]
    fetch(site.url, target, size_limit=LIMIT)
    assert site.asked == [None, "bytes=70000-", None]
    assert target.read_bytes() == BODY[:1000]


def test_wrong_range_starts_over(site, target):
    cut_once(site, target)
    site.wrong_range = True
    fetch(site.url, target, size_limit=LIMIT, sha256=DIGEST)
    assert site.asked == [None, "bytes=70000-", None]
    assert target.read_bytes() == BODY


def test_wrong_checksum_is_refused_and_removed(site, target):
    with pytest.raises(InputError, match=f"expected SHA-256 {'0' * 64}, got {DIGEST}"):
        fetch(site.url, target, size_limit=LIMIT, sha256="0" * 64)
    assert left_in(target) == []


def test_wrong_content_never_takes_its_place(site, target):
    def refuse(part):
        assert part.read_bytes() == BODY
        assert not target.exists()
        raise InputError("not what was meant")

    with pytest.raises(InputError, match=r"^not what was meant$"):
        fetch(site.url, target, size_limit=LIMIT, check=refuse)
    assert left_in(target) == []


@pytest.mark.parametrize("says_length", [True, False])
def test_too_large_a_file_is_refused_and_removed(site, target, says_length):
    site.says_length = says_length
    with pytest.raises(InputError, match="expected at most 100000 bytes, got"):
        fetch(site.url, target, size_limit=100_000)
    assert left_in(target) == []


def test_file_of_exactly_the_limit_is_accepted(site, target):
    fetch(site.url, target, size_limit=len(BODY))
    assert target.read_bytes() == BODY


def test_empty_file_is_a_file(site, target):
    site.body = b""
    fetch(site.url, target, size_limit=LIMIT)
    assert target.read_bytes() == b""


@pytest.mark.parametrize(
    ("status", "said"), [(404, "HTTP Error 404"), (500, "HTTP Error 500"), (206, "unexpected status 206")]
)
def test_error_status_is_named(site, target, status, said):
    site.status = status
    with pytest.raises(InputError, match=said):
        fetch(site.url, target, size_limit=LIMIT)
    assert left_in(target) == []


def test_offline_message_is_one_line_with_address_and_place(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # held but not listening: every connection to it is refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/data.tgz"
        with pytest.raises(InputError) as caught:
            fetch(url, target, size_limit=LIMIT)
    assert url in str(caught.value)
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_silent_server_times_out(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.tgz"
        with pytest.raises(InputError, match="timed out"):
            fetch(url, target, size_limit=LIMIT, timeout=0.05)


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://example.org/x", "data:,x", "/etc/hostname", "FILE:///x"]
)
def test_other_schemes_are_refused(target, url):
    with pytest.raises(InputError, match="expected an http or https address"):
        fetch(url, target, size_limit=LIMIT)
    assert not target.parent.exists()


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://example.org/x", "data:,x"])
def test_redirect_to_another_scheme_is_refused(site, target, location):
    site.status, site.location = 302, location
    with pytest.raises(InputError, match="expected to download"):
        fetch(site.url, target, size_limit=LIMIT)
    assert left_in(target) == []


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b/", "http://127.0.0.1:99999/"])
def test_malformed_address_is_one_line(target, url):
    with pytest.raises(InputError):
        fetch(url, target, size_limit=LIMIT)


def test_folder_that_cannot_be_made_is_one_line(site, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="expected to download"):
        fetch(site.url, tmp_path / "cache" / "data.tgz", size_limit=LIMIT)


def test_two_that_want_the_same_file_ask_once(site, target):
    threads = [threading.Thread(target=fetch, args=(site.url, target), kwargs={"size_limit": LIMIT}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.asked == [None]
    assert target.read_bytes() == BODY


def tgz(path, *members):
    """Write an archive of (TarInfo or name, content)."""
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["bangkok", "./bangkok"])
def test_member_is_read(tmp_path, name):
    path = tgz(tmp_path / "a.tgz", ("other", b"no"), (name, b"yes"))
    assert read_tgz_file(path, "bangkok", size_limit=LIMIT) == b"yes"


@pytest.mark.parametrize(
    "member",
    [
        ("../escape", b"x"),
        ("/etc/absolute", b"x"),
        ("a/../../escape", b"x"),
        (entry("bangkok", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (entry("hard", tarfile.LNKTYPE, "bangkok"), b""),
        (entry("device", tarfile.CHRTYPE), b""),
        (entry("pipe", tarfile.FIFOTYPE), b""),
    ],
)
def test_archive_that_could_escape_is_refused(tmp_path, member):
    path = tgz(tmp_path / "a.tgz", ("bangkok", b"yes"), member)
    with pytest.raises(InputError, match="do not use this archive"):
        read_tgz_file(path, "bangkok", size_limit=LIMIT)


def test_archive_that_unfolds_beyond_the_limit_is_refused(tmp_path):
    path = tgz(tmp_path / "bomb.tgz", ("bangkok", bytes(5 * 10**6)))
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match="expected an archive of at most 1000000 bytes"):
        read_tgz_file(path, "bangkok", size_limit=LIMIT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_header_that_announces_more_than_there_is_is_refused(tmp_path, kind):
    info = entry("bangkok", kind)
    info.size = 2**40
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"short"))
    with pytest.raises(InputError):
        read_tgz_file(path, "bangkok", size_limit=LIMIT)


def test_missing_member_is_named_with_what_there_is(tmp_path):
    with pytest.raises(InputError, match=r"expected a file 'bangkok' in it, got \['other'\]"):
        read_tgz_file(tgz(tmp_path / "a.tgz", ("other", b"x")), "bangkok", size_limit=LIMIT)


def test_folder_of_that_name_is_not_the_file(tmp_path):
    with pytest.raises(InputError, match="expected a file 'bangkok'"):
        read_tgz_file(tgz(tmp_path / "a.tgz", (entry("bangkok", tarfile.DIRTYPE), b"")), "bangkok", size_limit=LIMIT)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", gzip.compress(b"no tar", mtime=0), gzip.compress(b"", mtime=0)]
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(InputError):
        read_tgz_file(tmp_path / "a.tgz", "bangkok", size_limit=LIMIT)


def test_missing_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_tgz_file(tmp_path / "a.tgz", "bangkok", size_limit=LIMIT)


@given(st.data())
def test_damaged_archive_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tgz(tmp_path_factory.mktemp("damaged") / "a.tgz", ("bangkok", BODY[:500]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        got = read_tgz_file(path, "bangkok", size_limit=LIMIT)
    except InputError as error:
        got = str(error).encode()
    assert got == BODY[:500] or b"\n" not in got
