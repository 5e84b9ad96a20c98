"""The commands before and after a study: a starter file, lists, a plan, figures for a tracker."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from wemem.cli.options import Data, Device, Label, Overrides, StorePlace, Threads
from wemem.cli.printing import plan_and_print, print_plainly

start_app = typer.Typer()


@start_app.command()
def init(
    data: Annotated[str, typer.Option(help="Data source: a name, a file, or module:factory.")],
    out: Annotated[Path, typer.Option(help="The study file to write; it must not exist.")] = Path("study.toml"),
    label: Label = None,
) -> None:
    """Write a commented study file that suits the data."""
    from wemem.config.starter import write_starter
    from wemem.data.sources import DataSource

    write_starter(DataSource(data, label=label), out)
    print_plainly(Console(), f"Study {out}; next: wemem plan {out}, then wemem compare {out} --out runs/first")


@start_app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="A study file, see studies/.")],
    set_: Overrides = None,
    data: Data = None,
    threads: Threads = None,
    device: Device = None,
    store: StorePlace = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the plan as JSON.")] = None,
) -> None:
    """Show what a study would compute, what is stored already, and how long it would take."""
    from wemem import api

    plan_and_print(Console(), api.read_study(study, set_ or [], data=data, device=device), store, threads, json_file)


@start_app.command("list")
def list_names(
    kind: Annotated[
        Literal["attacks", "defenses", "data", "models", "criteria", "terms"] | None,
        typer.Argument(help="One list; all of them if not given."),
    ] = None,
) -> None:
    """List the attacks, defenses, data sources, models, pruning criteria and terms, one line each."""
    from wemem.config.catalogue import catalogue

    console = Console()
    lists = catalogue()
    for name in lists if kind is None else [kind]:
        print_plainly(console, f"{name}:")
        width = max(map(len, lists[name]))
        for entry, line in lists[name].items():
            print_plainly(console, f"  {entry:{width}}  {line}")


@start_app.command()
def log(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="--out folders of studies or audits.")],
    tensorboard: Annotated[Path | None, typer.Option(help="Folder of TensorBoard's event files.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="Tracking URI of MLflow, such as sqlite:///mlflow.db.")] = None,
) -> None:
    """Log the figures of finished studies to TensorBoard or MLflow."""
    from wemem.errors import InputError
    from wemem.integrations.mlflow import MlflowLogger
    from wemem.integrations.tensorboard import TensorBoardLogger
    from wemem.integrations.tracking import RunLogger, log_study
    from wemem.results.read import read_results

    if (tensorboard is None) == (mlflow is None):
        raise InputError("expected either --tensorboard FOLDER or --mlflow URI, got none or both; give one")
    results = [read_results(folder) for folder in folders]
    logger: RunLogger
    if mlflow is not None:
        logger = MlflowLogger(mlflow)
    else:
        assert tensorboard is not None
        logger = TensorBoardLogger(tensorboard)
    count = sum(log_study(one, logger) for one in results)
    print_plainly(Console(), f"Logged {count:,} runs to {tensorboard or mlflow}")
