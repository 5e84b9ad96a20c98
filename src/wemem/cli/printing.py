"""Print what a command has computed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from wemem.config.study import StudyConfig
    from wemem.execution.outlook import Outlook
    from wemem.execution.program import Program


def run_and_print(
    console: Console, config: "StudyConfig", out: Path, store: str | None, jobs: int, ray: str | None,
    threads: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Run a study into a folder with a live display, and print its results."""
    from wemem import api
    from wemem.reporting.progress import LiveProgress

    with LiveProgress(Console(stderr=True)) as progress:
        results = api.run(config, out, store, progress, jobs, ray, threads)
    print_results(console, results)
    return results


def plan_and_print(
    console: Console, config: "StudyConfig", store: str | None, threads: int | None, json_file: Path | None
) -> None:
    """Plan a study with a live display of its trials, and print the plan."""
    from wemem import api
    from wemem.files.atomic import write_atomically
    from wemem.reporting.plan import plan_sentences, plan_table
    from wemem.reporting.progress import LiveProgress

    with LiveProgress(Console(stderr=True)) as progress:
        plan = api.plan(config, store, progress, threads)
    if json_file is not None:
        text = json.dumps(plan.as_json(), indent=1) + "\n"
        write_atomically(json_file, lambda part: part.write_text(text, encoding="utf-8"))
    console.print(plan_table(plan))
    for line in plan_sentences(plan):
        print_plainly(console, line)


def print_outline(console: Console, config: "StudyConfig", out: Path) -> None:
    """Print what a study would do, after reading its data and nothing more."""
    from wemem.config.outline import outline
    from wemem.pipeline.loading import study_data
    from wemem.results.wording import printable

    for line in [*outline(config, study_data(config)), f"Would write into {out}. Nothing was trained or written."]:
        print_plainly(console, printable(line))


def print_outlook(console: Console, outlook: "Outlook", out: Path) -> None:
    """Print what a command on one model would do."""
    from wemem.reporting.plan import outlook_sentence

    print_plainly(console, outlook_sentence(outlook))
    print_plainly(console, f"Would write into {out}. Nothing was trained or written.")


def print_program(console: Console, program: "Program", out: Path, store: str | None) -> None:
    """Print what a program would do, after reading its data and its store."""
    from tempfile import TemporaryDirectory

    from wemem.execution.outlook import program_outlook
    from wemem.pipeline.loading import study_data
    from wemem.store.location import location_beside
    from wemem.store.store import Store

    place = location_beside(store, out)
    with TemporaryDirectory(prefix="wemem-dry-") as empty:
        unmade = "://" not in str(place) and not Path(place).exists()
        outlook = program_outlook(program, study_data(program.config), Store(empty if unmade else place))
    print_outlook(console, outlook, out)


def print_results(console: Console, results: dict[str, Any]) -> None:
    """Print the table of results, the sentences below it and the notes."""
    from wemem.reporting.budgets import budgets
    from wemem.reporting.console import results_table
    from wemem.reporting.notes import notes
    from wemem.reporting.selection import chosen_settings
    from wemem.reporting.summary import adaptivity_gaps, plain_summary
    from wemem.results.wording import printable

    console.print(results_table(results))
    remarks = map(printable, notes(results))
    sections = (plain_summary(results), adaptivity_gaps(results), chosen_settings(results), budgets(results), remarks)
    for section in sections:
        for line in section:
            print_plainly(console, line)
    print_plainly(console, "Terms and names: wemem list")


def print_plainly(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours, no line breaks of the console's own."""
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
