"""Commands that hand results over: to readers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wemem.cli.printing import print_plainly


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="--out folders of studies or audits.")],
    out: Annotated[Path, typer.Option(help="Output directory, created if missing.")],
    max_tpr: Annotated[float | None, typer.Option(help="Limit: largest TPR at the FPR below, as a fraction.")] = None,
    at_fpr: Annotated[float, typer.Option(help="The FPR of --max-tpr: 0.1, 0.01 or 0.001.")] = 0.01,
    min_accuracy: Annotated[float | None, typer.Option(help="Limit: smallest test accuracy.")] = None,
    max_auc: Annotated[float | None, typer.Option(help="Limit: largest AUC.")] = None,
) -> None:
    """Render the report of one study, or of several on the same data together, from what they
    stored; with limits, it says whether the model may ship by them.
    """
    from wemem.files.output_folder import output_folder
    from wemem.reporting.report import write_report
    from wemem.results.gate import Limits

    limits = None
    if (max_tpr, min_accuracy, max_auc) != (None, None, None):
        limits = Limits(max_tpr, at_fpr, min_accuracy, max_auc)
    with output_folder(out) as folder:
        write_report(folders, folder, limits)
    print_plainly(Console(), f"Report {out / 'report.html'}, its numbers {out / 'report.json'} and {out / 'tables'}")
