"""Every example runs as its first lines say."""

import runpy
import sys
from pathlib import Path

import pytest

#: The last line of an example, and the file that it leaves; one that is not named here prunes.
ENDINGS = {
    "audit_own_loop.py": ("The audit is adaptive", "report.html"), "audit_sklearn.py": ("Report ", "report.html"),
}  # fmt: skip
EXAMPLES = sorted(path.name for path in (Path(__file__).parents[1] / "examples").glob("*.py"))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_leaves_its_result(name, tmp_path, monkeypatch, capfd):
    path = Path(__file__).parents[1] / "examples" / name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    words, file = ENDINGS.get(name, ("Pruned model in", "weights.safetensors"))
    assert words in capfd.readouterr().out
    assert list((tmp_path / "runs").rglob(file))
