"""Evidence page of the documentation: run the comparisons, store their figures, write tables from what is stored.

    python -m benchmarks.evidence                 # every study below; goes on where it was stopped
    python -m benchmarks.evidence digits bank     # some of them
    python -m benchmarks.evidence --page          # the page from the stored figures alone

A study's file of data is sought in the working directory, then in the folder that WEMEM_DATA names. A study whose
data cannot be had ends with its reason and is left as it was.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.evidence.page import page
from benchmarks.evidence.tables import PAGE, ROOT, STORED, STUDIES, figures
from wemem.results.combine import read_sources


def main(arguments: list[str]) -> int:
    """Run the studies that are named, or all, and write the page; the exit code is that of the worst."""
    stems = {name.rsplit("/", 1)[-1]: name for name in STUDIES}
    unknown = [name for name in arguments if name not in stems and name != "--page"]
    if unknown:
        print(f"expected a study among {', '.join(stems)}, or --page, got {unknown[0]}", file=sys.stderr)
        return 2
    code = 0
    for stem in [name for name in arguments if name != "--page"] or ([] if "--page" in arguments else list(stems)):
        out = ROOT / "runs" / "evidence" / stem
        study = f"studies/{stems[stem]}.toml"
        command = [sys.executable, "-m", "wemem", "compare", study, "--out", str(out), "--jobs", "2", *data(study)]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            print(f"{stem} was not run, exit code {done.returncode}; its stored figures stay as they were")
            code = max(code, done.returncode)
        else:
            store(stem, out)
    PAGE.write_text(page(json.loads(STORED.read_text("utf-8"))), encoding="utf-8")
    return code


def data(study: str) -> list[str]:
    """The option that names a study's file of data where it lies in the folder of the data."""
    source = tomllib.loads((ROOT / study).read_text("utf-8"))["data"]["source"]
    file = Path(os.environ.get("WEMEM_DATA", ".")) / source
    return ["--data", str(file.resolve())] if file.is_file() and not (ROOT / source).is_file() else []


def store(stem: str, folder: Path) -> None:
    """Store the figures of a study beside those of the others."""
    stored = json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}
    stored[stem] = figures(read_sources([folder]))
    STORED.write_text(json.dumps(stored, sort_keys=True, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
