"""Evidence page of the documentation: run the comparisons, store their figures, write tables from what is stored.

    python -m benchmarks.evidence                 # every study below; goes on where it was stopped
    python -m benchmarks.evidence quickstart bank # some of them
    python -m benchmarks.evidence --page          # the page from the stored figures alone

A study whose data cannot be had here ends with its reason and is left as it was.
"""

import json
import subprocess
import sys
from typing import Any

from benchmarks.evidence.tables import PAGE, ROOT, STORED, STUDIES, figures, page


def main(arguments: list[str]) -> int:
    """Run the studies that are named, or all, and write the page; the exit code is that of the worst."""
    names = [name for name in arguments if name != "--page"] or ([] if "--page" in arguments else list(STUDIES))
    code = 0
    for name in names:
        out = ROOT / "runs" / "evidence" / name
        command = [sys.executable, "-m", "wemem", "compare", f"studies/{name}.toml", "--out", str(out), "--jobs", "2"]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            print(f"{name} was not run, exit code {done.returncode}; its stored figures stay as they were")
            code = max(code, done.returncode)
        else:
            store(name, json.loads((out / "results.json").read_text("utf-8")))
    PAGE.write_text(page(json.loads(STORED.read_text("utf-8"))), encoding="utf-8")
    return code


def store(name: str, results: dict[str, Any]) -> None:
    """Store the figures of a study beside those of the others."""
    stored = json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}
    stored[name] = figures(results)
    STORED.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
