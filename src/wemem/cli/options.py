"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from wemem.errors import InputError

Out = Annotated[Path, typer.Option(help="Output directory, created if missing.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the study.")]
Data = Annotated[
    str | None, typer.Option(help="Data source: a name, a .npz, .csv, .tsv or .parquet file, module:factory.")
]
Label = Annotated[str | None, typer.Option(help="Name of the label column of a table.")]
ModelKind = Annotated[str | None, typer.Option(help="Model: fc or another of wemem list models, or module:factory.")]
Weights = Annotated[Path | None, typer.Option(help="A trained model's weights (.safetensors).")]
Members = Annotated[Path | None, typer.Option(help="Records that the model was trained on (.csv, .parquet or .npz).")]
StudyFile = Annotated[Path | None, typer.Option(help="Study file with the settings of training and pruning.")]
NonAdaptive = Annotated[
    bool, typer.Option("--non-adaptive", help="Also attack with shadows that were pruned without the defense.")
]
Device = Annotated[str | None, typer.Option(help="Device to compute on: auto, cpu, cuda or cuda:N.")]
Jobs = Annotated[int, typer.Option(help="Number of processes, which share the cores.")]
Ray = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster; auto for this machine.")]
Threads = Annotated[int | None, typer.Option(help="Threads of each task; 1 on Ray if not given.")]
StorePlace = Annotated[
    str | None,
    typer.Option(
        help="Store of finished stages: a folder, or a URL of s3://, gs:// or az:// [default: WEMEM_STORE, or .store "
        "beside --out]."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; train and write nothing.")]


class OncePerOption(TyperCommand):
    """A command with limits: it refuses an option that is given twice, of which the parser would
    take the last in silence.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse a repeated option, then parse as every command does."""
        _, _, order = self.make_parser(ctx).parse_args(args=[*args])
        for param in order:
            if order.count(param) > 1 and not getattr(param, "multiple", False):
                option = param.opts[0]
                raise InputError(f"expected {option} once, got it {order.count(param)} times; leave the others out")
        return super().parse_args(ctx, args)
