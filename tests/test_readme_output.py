"""README and the first page of the guide show the output of stored results of the command that they name."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from wemem.reporting.console import accuracy_table
from wemem.reporting.summary import plain_summary
from wemem.results.arms import arms

ROOT = Path(__file__).parents[1]
#: ``results.json`` of ``make run``.
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "quickstart.json").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
START = (ROOT / "docs" / "start.md").read_text("utf-8")


def table(width: int = 80) -> str:
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    console.print(accuracy_table(arms(RESULTS)))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("page", [README, START], ids=["README", "start"])
def test_the_page_shows_the_table_of_the_quickstart(page):
    assert table() in page


def test_the_first_sentence_in_readme_and_all_on_the_first_page_are_those_of_the_quickstart():
    sentences = [" ".join(sentence.split()) for sentence in plain_summary(RESULTS)]
    assert sentences[0] in " ".join(README.split())
    text = " ".join(START.split())
    assert [sentence for sentence in sentences if sentence not in text] == []
