"""The command line: one study file in, files and a table out. Nothing is computed here."""

import os
import sys
from pathlib import Path
from typing import Annotated

# Idle threads of the linear algebra must sleep, not spin: where two programs share the cores, spinning costs tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.console import Console

from wemem.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def wemem() -> None:
    """Prune neural networks iteratively without making them memorize, and measure what they leak."""


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file, see studies/.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, per_sample.parquet and weights.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study.")] = None,
    data: Annotated[str | None, typer.Option(help="Another data source: a name, a file or module:factory.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Prune this trained model (.safetensors) instead of training one.")] = None,
    members: Annotated[Path | None, typer.Option(help="With --weights: the records it was trained on.")] = None,
    store: Annotated[Path | None, typer.Option(help="Where stages are kept; by default .store beside the out folder.")] = None,
) -> None:
    """Prune under every defense of a study, attack every model, print what leaks."""
    from wemem.render.progress import LiveProgress
    from wemem.render.table import plain_summary, results_tables
    from wemem.study.study import read_study, run_into

    config = read_study(study, set_ or [], data=data, weights=weights, members=members)
    console = Console()
    with LiveProgress(console) as progress:
        results = run_into(config, out, store, progress)
    for table in results_tables(results):
        console.print(table)
    for sentence in plain_summary(results):
        console.print(sentence, markup=False)
    console.print(f"\nResults: {out / 'results.json'}, records: {out / 'per_sample.parquet'}, models: {out / 'models'}", markup=False)


def main() -> None:
    """Entry point: errors of the user in one line on standard error, exit code 2."""
    try:
        app()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"wemem: {error}", markup=False, highlight=False)
        sys.exit(2)
