"""Numbers of the documentation against what is stored, and against the page that gives the command for each."""

import json
import re
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from results_example import make_results
from wemem.results.arms import arms

ROOT = Path(__file__).parents[1]
CLAIMS = sorted((ROOT / "docs" / "claims").glob("c*.md"))


def evidence() -> Any:
    """The module of the tables, which is not installed."""
    spec = util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(line: str) -> list[str]:
    return [cell.strip(" *") for cell in line.strip().strip("|").split("|")]


def without_source(text: str, sources: list[str]) -> list[str]:
    """Rows of tables whose figures stand together in no line of the sources."""
    rows = [cells(line)[1:] for line in text.splitlines() if line.startswith("|") and re.search(r"\d\.\d", line)]
    return [" | ".join(row) for row in rows if not any(all(cell in line for cell in row) for line in sources)]


@pytest.mark.parametrize("page", CLAIMS, ids=lambda page: page.stem)
def test_every_figure_of_a_claim_stands_where_its_command_is(page):
    sources = [
        line
        for name in ("docs/location.md", "benchmarks/README.md")
        for line in (ROOT / name).read_text("utf-8").splitlines()
    ]
    assert without_source(page.read_text("utf-8"), sources) == []


def test_a_changed_figure_of_a_claim_is_found():
    sources = ["| rsw | 60.7 ± 2.2 | 11.1 (10.5-11.9) |"]
    assert without_source("| RSW | 60.7 ± 2.2 | 11.1 (10.5-11.9) |", sources) == []
    assert without_source("| RSW | 60.8 ± 2.2 | 11.1 (10.5-11.9) |", sources) == ["60.8 ± 2.2 | 11.1 (10.5-11.9)"]


def test_the_evidence_page_is_what_the_stored_figures_give():
    script = evidence()
    stored = json.loads(script.STORED.read_text("utf-8"))
    assert set(stored) <= set(script.STUDIES)
    assert script.PAGE.read_text("utf-8") == script.page(stored)


def test_every_study_of_the_evidence_exists():
    assert all((ROOT / "studies" / f"{name}.toml").exists() for name in evidence().STUDIES)


def test_stored_figures_are_those_of_the_results():
    script, results = evidence(), make_results(seeds=(0, 1))
    rows = {row["arm"]: row for row in script.figures(results)["rows"]}
    for arm in arms(results):
        name, tpr = arm.strongest("tpr_at_0.01")
        assert (rows[arm.label]["attack"], rows[arm.label]["tpr"][0]) == (name, tpr.value)
    text = script.page({"quickstart": script.figures(results)})
    assert f"{100 * rows['swmr']['tpr'][0]:.1f} [" in text
    assert "Not run yet: `studies/bank.toml`" in text
