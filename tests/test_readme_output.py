"""The output that README shows is that of stored results of the command that it names."""

import io
import json
from pathlib import Path

from rich.console import Console

from wemem.reporting.console import accuracy_table
from wemem.reporting.summary import plain_summary
from wemem.results.arms import arms

ROOT = Path(__file__).parents[1]
#: ``results.json`` of ``make run``.
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "quickstart.json").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")


def table(width: int = 80) -> str:
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    console.print(accuracy_table(arms(RESULTS)))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_readme_shows_the_table_of_the_quickstart():
    assert table() in README


def test_readme_shows_the_sentences_of_the_quickstart():
    text = " ".join(README.split())
    assert [sentence for sentence in plain_summary(RESULTS) if " ".join(sentence.split()) not in text] == []
