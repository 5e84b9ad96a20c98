"""The documentation: links lead somewhere, commands exist, and every key of a study is described."""

import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from wemem.attacks import ATTACKS
from wemem.cli.commands import app
from wemem.config import settings
from wemem.config.glossary import GLOSSARY
from wemem.config.settings import PruningSettings, ScoreSettings, SelectionSettings, SplitSettings, VictimSettings
from wemem.defenses import DEFENSES
from wemem.training import Recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES if "_build" not in page.parts]


def without_code(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that a forge and the site give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path, text: str) -> list[str]:
    """Links of a page within the project that lead nowhere."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        file, _, anchor = link.partition("#")
        place = page.parent / file if file else page
        named = place.suffix == ".md" and anchor and anchor not in anchors(place.read_text("utf-8"))
        if "://" not in link and (not place.exists() or named):
            found.append(link)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(name):
    assert broken(ROOT / name, (ROOT / name).read_text("utf-8")) == []


def test_a_link_to_no_file_or_no_heading_is_found():
    page = ROOT / "README.md"
    assert anchors("# A `b`, c\n## On a GPU (2)\n") == {"a-b-c", "on-a-gpu-2"}
    assert broken(page, "[a](docs/gate.md#reservations) [b](docs/none.md) [c](docs/gate.md#none) [d](#none)") == [
        "docs/none.md", "docs/gate.md#none", "#none",
    ]  # fmt: skip


def test_the_first_output_of_the_readme_stands_within_two_screens():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert next(n for n, line in enumerate(lines) if line.startswith("chance ")) < 100


def test_the_tables_of_attacks_and_defenses_name_every_key_and_its_models():
    rows = re.findall(
        r"^\| (`.*?) \| .* \| (\w+) \| .* \|$", (ROOT / "docs/attacks.md").read_text("utf-8"), re.MULTILINE
    )
    models = {key: column for keys, column in rows for key in re.findall(r"`(\w+)`", keys)}
    layouts = {"shared": "reference", "disjoint": "shadow"}
    assert models | {"correctness": "shadow"} == {key: layouts[attack.layout] for key, attack in ATTACKS.items()}
    described = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (ROOT / "docs/defenses.md").read_text("utf-8"), re.MULTILINE)
    assert set(DEFENSES) <= {key for keys in described for key in re.findall(r"`(\w+)`", keys)}


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
    assert len(re.findall(r"^# ", without_code((ROOT / name).read_text("utf-8")), re.MULTILINE)) == 1


def test_the_glossary_is_that_of_reports_and_of_the_command_line():
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8").split("```{glossary}\n")[1].split("```")[0]
    entries = [entry.split("\n", 1) for entry in text.strip().split("\n\n")]
    assert {term: " ".join(lines.split()) for term, lines in entries} == GLOSSARY
    assert list(GLOSSARY) == sorted(GLOSSARY, key=str.casefold)
