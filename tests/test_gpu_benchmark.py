"""The benchmark for a GPU runs to its end, at tiny sizes on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: One network of layers in a row has every measurement; of the convolutions, only the first and the smallest remain.
CHOSEN = r"^(?!.*(resnet18|resnet9|resnet8, (sequential|vmapped|2 models)|bf16, resnet8|study on GPU))"


@pytest.mark.slow
def test_the_dry_run_measures_everything_that_needs_no_gpu(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--minutes", "30", "--out", str(tmp_path)]
    command += ["--study", "studies/smoke.toml", "--set", "training.epochs=1", "--only", CHOSEN]
    command += ["--scratch", str(tmp_path / "scratch")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert [row for row in rows if "error" in row] == []
    assert {row["left out"] for row in rows if "left out" in row} == {"it needs a GPU"}
    groups = ["forecast", "repeated-bytes", "at-once", "jobs", "correctness", "speed", "studies"]
    assert list(dict.fromkeys(row["group"] for row in rows)) == groups
    assert all(row["passed"] for row in rows if "passed" in row)
    first, again = (row for row in rows if row["kind"] == "study")
    assert first["finished"]
    assert first["shown"] > 0
    assert (again["finished"], again["shown"]) == (True, 0)  # all of it is in the store
    assert all(row["same results"] for row in rows if row["kind"] == "jobs")
    assert "models x records/s" in (tmp_path / "gpu.md").read_text()
