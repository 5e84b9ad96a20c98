"""Every example runs as its first lines say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: The last line of an example, and the file that it leaves; one that is not named here prunes.
ENDINGS = {
    "audit_own_loop.py": ("The audit is adaptive", "report.html"), "audit_sklearn.py": ("Report ", "report.html"),
}  # fmt: skip
EXAMPLES = sorted(path.name for path in (Path(__file__).parents[1] / "examples").glob("*.py"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_leaves_its_result(name, tmp_path):
    path = Path(__file__).parents[1] / "examples" / name
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    words, file = ENDINGS.get(name, ("Pruned model in", "weights.safetensors"))
    assert words in done.stdout
    assert list((tmp_path / "runs").rglob(file))
