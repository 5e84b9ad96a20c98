"""The documentation: links lead somewhere, commands exist, and every key of a study is described."""

import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from wemem.cli.commands import app
from wemem.config import settings
from wemem.config.settings import PruningSettings, ScoreSettings, SelectionSettings, SplitSettings, VictimSettings
from wemem.training import Recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES if "_build" not in page.parts]


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_shown_exists(name):
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text("utf-8")).replace(" && ", "\n")
    for line in re.findall(r"^(?:[A-Z_]+=\S+ )*wemem ([a-z].*)$", text, re.MULTILINE):
        words = [word for word in shlex.split(line, comments=True) if word not in ("...", "…")]
        assert words[0] in commands, line
        command = commands[words[0]]
        if hasattr(command, "commands"):  # a group, such as ``wemem store``
            assert words[1] in command.commands, line
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize(
    "table", [SplitSettings, ScoreSettings, PruningSettings, SelectionSettings, VictimSettings, Recipe]
)
def test_every_key_of_a_study_is_described(table):
    described = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "study.md").read_text("utf-8")))
    assert {field.name for field in fields(table)} <= described
    assert settings.__doc__


def test_the_reference_gives_every_key_a_meaning(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    reference = import_module("study_reference")
    text = reference.page()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") == ""] == []
    for table in reference.TABLES.values():
        assert all(any(row.startswith(f"| `{field.name}` |") for row in rows) for field in fields(table))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_one_title(name):
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
