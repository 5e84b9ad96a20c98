"""The examples of continuous integration: their syntax, their order, and the commands in them."""

from pathlib import Path
from typing import Any

import pytest
import typer.main

from wemem.cli.commands import app

ROOT = Path(__file__).parents[1] / "docs" / "ci"
COMMANDS: Any = typer.main.get_command(app)


def parsed(name: str) -> Any:
    return pytest.importorskip("yaml").safe_load((ROOT / name).read_text("utf-8"))


def require_known(lines: list[str]) -> None:
    """Parse each line as the command line does, up to running it."""
    commands = [line.split() for line in lines if line.startswith("wemem ")]
    assert [words[1] for words in commands] == ["audit", "gate"]
    installs = [line for line in lines if line.startswith("pip install")]
    assert [line.split()[-1] for line in installs] == ["./wemem"]  # by name, an index would be asked, where none is
    for words in commands:
        COMMANDS.commands[words[1]].make_context(words[1], words[2:])


def test_github_publishes_only_after_the_gate_and_keeps_the_evidence():
    jobs = parsed("github-actions.yml")["jobs"]
    steps = jobs["gate"]["steps"]
    require_known([step["run"] for step in steps if "run" in step])
    assert jobs["release"]["needs"] == "gate"
    (kept,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert kept["if"] == "always()"
    assert "gate.xml" in kept["with"]["path"]


def test_gitlab_publishes_only_after_the_gate_and_shows_its_outcome():
    jobs = parsed("gitlab-ci.yml")
    require_known(jobs["gate"]["script"])
    assert jobs["release"]["needs"] == ["gate"]
    assert jobs["gate"]["artifacts"]["reports"]["junit"] == "gate.xml"
    assert "allow_failure" not in jobs["gate"]
