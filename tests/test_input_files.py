"""The one way to files that a user names: plain files within their limits, or one line."""

import os
import socket
import sys
from pathlib import Path

import pytest

from wemem.errors import InputError
from wemem.files.atomic import require_folder
from wemem.files.input_files import (
    SHOWN,
    exists,
    is_folder,
    list_folder,
    open_file,
    read_bytes,
    read_text,
    require_file,
)

KIND = "an example"


def test_content_of_a_plain_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes("déjà".encode())
    assert read_bytes(tmp_path / "a", KIND, limit=6) == "déjà".encode()
    assert read_text(str(tmp_path / "a"), KIND, limit=6) == "déjà"
    assert require_file(tmp_path / "a", KIND) == tmp_path / "a"


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").write_bytes(b"x")
    assert read_bytes("~/a", KIND, limit=1) == b"x"
    assert require_folder("~/out") == tmp_path / "out"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes, sockets and devices of Unix")
@pytest.mark.parametrize("make", [pipe, bound, device])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path, make):
    make(tmp_path / "a")
    for read in (open_and_read, read_bytes_of, require_file):
        with pytest.raises(InputError, match=r"expected an example at .*, got a pipe, a device or a socket; copy"):
            read(tmp_path / "a", KIND)


def open_and_read(path, kind):
    with open_file(path, kind) as stream:
        stream.read()


def read_bytes_of(path, kind):
    read_bytes(path, kind, limit=10)


@pytest.mark.parametrize(("path", "said"), [
    ("", "got an empty one"),
    ("a\0b", "with a NUL character; remove it"),
    ("~nobody-of-that-name/a", "write it out in full"),
    ("a\ud800b", "write it out in full"),
    ("none/a", "got no such file; give the path of one"),
    ("file/a", "got no such file; give the path of one"),
    ("folder", "got a folder; give the path of a file"),
    ("loop", "got an error"),
    ("a" * 300, "got an error"),
    ("a/" * 3000, "got an error"),
])  # fmt: skip
def test_path_that_leads_to_no_file_is_one_line(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=said) as caught:
        read_bytes(path, KIND, limit=10)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < SHOWN + 200


def test_limit_is_on_what_is_read_and_not_on_what_is_declared(tmp_path):
    (tmp_path / "a").write_bytes(bytes(11))
    assert len(read_bytes(tmp_path / "a", KIND, limit=11)) == 11
    with pytest.raises(InputError, match="expected an example of at most 10 bytes"):
        read_bytes(tmp_path / "a", KIND, limit=10)
    if Path("/proc/self/status").exists():  # declares 0 bytes and has more
        with pytest.raises(InputError, match="at most 10 bytes"):
            read_bytes("/proc/self/status", KIND, limit=10)


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "a").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match=r"in UTF-8 at .*, got another encoding"):
        read_text(tmp_path / "a", KIND, limit=10)


def test_folders_are_looked_at_in_one_place(tmp_path):
    (tmp_path / "b").touch()
    (tmp_path / "a").mkdir()
    assert [entry.name for entry in list_folder(tmp_path, KIND)] == ["a", "b"]
    assert [is_folder(tmp_path / name, KIND) for name in "abc"] == [True, False, False]
    assert [exists(tmp_path / name, KIND) for name in "abc"] == [True, True, False]
    with pytest.raises(InputError, match="got a file; give the path of a folder"):
        list_folder(tmp_path / "b", KIND)
    with pytest.raises(InputError, match="got no such file"):
        list_folder(tmp_path / "c", KIND)


def without_permission(action):
    """Runs an action in a process of another user, who may not enter the folder; returns what it
    raised.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            action()
            line = "nothing was raised"
        except InputError as error:
            line = str(error)
        except BaseException as error:
            line = f"{type(error).__name__}: {error}"
        os.write(writer, line.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        line = pipe.read().decode()
    os.waitpid(child, 0)
    return line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("action", [
    lambda folder: read_bytes(folder / "a", KIND, limit=10),
    lambda folder: is_folder(folder / "a", KIND),
    lambda folder: exists(folder / "a", KIND),
    lambda folder: list_folder(folder, KIND),
])  # fmt: skip
def test_folder_that_may_not_be_entered_is_one_line(tmp_path, action):
    (tmp_path / "a").touch()
    tmp_path.chmod(0o700)
    line = without_permission(lambda: action(tmp_path))
    assert "Permission denied; allow reading it, or copy it elsewhere" in line


@pytest.mark.parametrize("out", ["a\0b", "", "x" * 300, "file", "file/below"])
def test_output_directory_that_cannot_be_is_refused_before_anything_is_written(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        require_folder(out)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
