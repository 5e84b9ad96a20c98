"""Fuzz the readers of binary files with atheris, guided by the coverage of this package's code.

    python tests/fuzz_bytes.py SECONDS [READER...]

Every reader of :mod:`untrusted_files` that reads bytes runs for that many seconds in a process of
its own, from a corpus that the package's own writers start. Content within a checksum (zip, gzip)
is changed before it is packed. A finding is any exception but InputError, an input that takes more
than 20 seconds, or more than 4 GiB of memory. It is left in ``fuzz/READER/crash-*`` or its like.
The exit code is 1 if there was one.
"""

import gzip
import io
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Readers of text have property-based tests of their own (tests/test_untrusted_files.py).
TEXT = (".csv", ".json", ".toml")
FOLDER = Path("fuzz")
#: Largest input in bytes.
LONGEST = 2**16
#: Errors of unpacking a file that is damaged already.
UNPACKABLE = (
    OSError, EOFError, ValueError, ZeroDivisionError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def main() -> None:
    from untrusted_files import READERS, REFUSED

    seconds, *chosen = sys.argv[1:]
    names = chosen or [name for name, reader in READERS.items() if reader.suffix not in TEXT and name not in REFUSED]
    failed = []
    for name in names:
        corpus = FOLDER / name.replace(" ", "_")
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / "valid").write_bytes(READERS[name].valid())
        command = [
            sys.executable, __file__, "--reader", name, str(corpus), f"-max_total_time={seconds}", "-timeout=20",
            f"-max_len={LONGEST}", "-rss_limit_mb=4096", f"-artifact_prefix={corpus}/", "-print_final_stats=1",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        tried = next((line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line), "?")
        say(f"{name}: {tried} inputs, {'ok' if done.returncode == 0 else 'FAILED'}")
        if done.returncode != 0:
            failed.append(name)
            say(done.stderr[-3000:])
    sys.exit(1 if failed else 0)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["wemem"]):
        from untrusted_files import READERS
        from wemem.errors import InputError

    reader = READERS[name]
    path = Path(tempfile.mkdtemp()) / f"fuzzed{reader.suffix}"

    def one(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(InputError):
            reader.read(path)

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        inside = repacked(content, reader.suffix, lambda part: atheris.Mutate(part, longest)) if seed % 2 else None
        return atheris.Mutate(content, longest) if inside is None or len(inside) > longest else inside

    warnings.simplefilter("ignore")
    atheris.Setup([__file__, *arguments], one, custom_mutator=mutate)
    atheris.Fuzz()


def repacked(content: bytes, suffix: str, change: Callable[[bytes], bytes]) -> bytes | None:
    """A packed file with its content changed before it is packed; None if it is none."""
    try:
        if suffix.endswith("gz"):
            return gzip.compress(change(gzip.decompress(content)[:LONGEST]), 1)
        if suffix == ".npz":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [(name, archive.read(name)[:LONGEST]) for name in archive.namelist()[:8]]
            place = content[-1] % len(members)
            packed = io.BytesIO()
            with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
                warnings.simplefilter("ignore")
                for i, (name, member) in enumerate(members):
                    archive.writestr(name, change(member) if i == place else member)
            return packed.getvalue()
    except UNPACKABLE:
        return None
    return None


if __name__ == "__main__":
    if sys.argv[1] == "--reader":
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        main()
