"""Numbers of the documentation against what is stored, and against the page that gives the command for each."""

import json
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from results_example import make_results
from wemem.results.arms import arms
from wemem.results.combine import Combined

ROOT = Path(__file__).parents[1]
CLAIMS = sorted((ROOT / "docs" / "claims").glob("c*.md"))


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Tables and page of the evidence, which are not installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    tables, page = (import_module(f"benchmarks.evidence.{name}") for name in ("tables", "page"))
    return SimpleNamespace(**vars(tables) | {"CLAIMS": page.CLAIMS, "page": page.page})


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


def test_the_evidence_page_is_what_the_stored_figures_give(evidence):
    stored = json.loads(evidence.STORED.read_text("utf-8"))
    assert set(stored) <= {Path(name).name for name in evidence.STUDIES}
    assert evidence.PAGE.read_text("utf-8") == evidence.page(stored)


def test_every_study_of_the_evidence_exists(evidence):
    assert all((ROOT / "studies" / f"{name}.toml").exists() for name in evidence.STUDIES)


def test_every_difference_of_the_evidence_is_a_column_of_its_claim(evidence):
    columns = {(claim, *column) for claim, (_, _, columns) in evidence.CLAIMS.items() for column in columns}
    assert set(evidence.DIFFERENCES) == columns


def test_stored_figures_are_those_of_the_results(evidence):
    results = make_results(seeds=(0, 1))
    results["study"]["split"] = {"references": 16}
    figures = evidence.figures(Combined((), results, {}))
    rows = {row["arm"]: row for row in figures["rows"]}
    by_label = {arm.label: arm for arm in arms(results)}
    for label, arm in by_label.items():
        name, tpr = arm.strongest("tpr_at_0.01")
        assert (rows[label]["attack"], rows[label]["tpr"][0]) == (name, tpr.value)
    gap = next(one for one in figures["differences"] if one["of"] == "accuracy" and one["arms"][0] == "swmr")
    expected = by_label["swmr"].accuracy().value - by_label["undefended"].accuracy().value
    assert gap["difference"][0] == pytest.approx(expected)
    text = evidence.page({"digits": figures})
    assert f"{100 * rows['swmr']['tpr'][0]:.1f} [" in text
    assert f"{100 * expected:+.1f}" in text
    assert "Not run yet: `studies/evidence/adult.toml`" in text


MEASURED = ("docs/location.md", "benchmarks/README.md", "docs/measurements.md")


def quoted(text: str) -> list[str]:
    """Figures with a decimal point in the prose and the tables of a page, versions of Python left out."""
    prose = re.sub(r"^```.*?^```|`[^`]*`|Python \d\.\d+", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?<![\w.\-/])\d+\.\d+(?![\w.])", prose)


@pytest.mark.parametrize("page", ["README.md", "docs/attacks.md", "docs/defenses.md", "docs/diagnosis.md"])
def test_every_figure_that_a_page_quotes_stands_where_it_was_measured(page):
    measured = {figure for name in MEASURED for figure in quoted((ROOT / name).read_text("utf-8"))}
    assert [figure for figure in quoted((ROOT / page).read_text("utf-8")) if figure not in measured] == []


def test_the_figures_of_readme_are_of_the_arms_that_it_names():
    rows = [cells(line) for line in (ROOT / "docs" / "location.md").read_text("utf-8").splitlines() if "|" in line]
    strongest = {row[0].split(":")[0].split(",")[0].strip("`"): row[-1].split()[-1] for row in rows}
    shown = quoted((ROOT / "README.md").read_text("utf-8").split("Digits leak little")[1].split("## ")[0])
    assert shown == [strongest[arm] for arm in ("undefended", "unpruned", "dense")]
