"""A process of its own that reads hostile files under a limit of its memory; see
``test_memory_of_hostile_files``.
"""

import resource
import sys
from pathlib import Path

from untrusted_files import READERS
from wemem.errors import InputError
from wemem.pipeline.peak_memory import peak_mib, reset_peak

#: Bytes by which reading a hostile file may grow the process.
GROWTH = 2**30


def main(folder: Path) -> None:
    """Read every valid file first, which loads what readers need; then set the limit and read the
    hostile ones.

    Prints one line for each hostile file when it is done: what came out, and by how much the
    process grew.
    """
    for name, reader in READERS.items():
        path = folder / f"valid{reader.suffix}"
        path.write_bytes(reader.valid())
        try:
            reader.read(path)
        except InputError:
            assert name == "results"
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + GROWTH, now + GROWTH))
    for path in sorted(folder.glob("hostile/*/*")):
        measured = reset_peak()
        before = peak_mib() or 0
        try:
            READERS[path.parent.name].read(path)
            line = "a value"
        except InputError as error:
            line = f"refused: {error}"
        grown = (peak_mib() or 0) - before if measured else 0
        sys.stdout.write(f"{path.parent.name}/{path.name}: {' '.join(line.split())}; {grown:.0f} MiB\n")
        sys.stdout.flush()
    bytearray(2 * GROWTH)  # planted: the limit ends the process here


if __name__ == "__main__":
    main(Path(sys.argv[1]))
