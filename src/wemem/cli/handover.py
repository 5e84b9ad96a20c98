"""Commands that hand results over, to readers and to auditors."""

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
    """Render one report of the stored results of studies on the same data.

    With limits, it states whether the model may be released by them.
    """
    from wemem.files.output_folder import output_folder
    from wemem.reporting.report import write_report
    from wemem.results.gate import Limits

    with output_folder(out) as folder:
        write_report(folders, folder, Limits.if_given(max_tpr, at_fpr, min_accuracy, max_auc))
    print_plainly(Console(), f"Report {out / 'report.html'}, its numbers {out / 'report.json'} and {out / 'tables'}")


def evidence(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="--out folder of a study or an audit.")],
    out: Annotated[Path, typer.Option(help="The bundle to write, a .zip file.")],
    author: Annotated[str, typer.Option(help="The person or team that hands it over.")] = "not stated",
    date: Annotated[str | None, typer.Option(help="Date of the evidence, as text [default: the time in UTC].")] = None,
    max_tpr: Annotated[float | None, typer.Option(help="Limit: largest TPR at the FPR below, as a fraction.")] = None,
    at_fpr: Annotated[float, typer.Option(help="The FPR of --max-tpr: 0.1, 0.01 or 0.001.")] = 0.01,
    min_accuracy: Annotated[float | None, typer.Option(help="Limit: smallest test accuracy.")] = None,
    max_auc: Annotated[float | None, typer.Option(help="Limit: largest AUC.")] = None,
) -> None:
    """Write one bundle for an auditor: what was measured and what was not, bound by hashes."""
    from datetime import UTC, datetime

    from wemem.evidence.bundle import write_bundle
    from wemem.evidence.content import STATEMENT
    from wemem.results.gate import Limits

    when = datetime.now(UTC).strftime("%d/%m/%Y %H:%M:%S") if date is None else date
    digest = write_bundle(folder, out, author, when, Limits.if_given(max_tpr, at_fpr, min_accuracy, max_auc))
    print_plainly(Console(), f"Evidence {out}, its manifest has SHA-256 {digest}. {STATEMENT}")


def verify(
    places: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="--out folders of studies or audits, or bundles of evidence.")
    ],
) -> None:
    """Verify the hashes of all files and recompute every rate: exit code 0 if all hold, 1 if one
    does not. With the folder beside it, all statements of a bundle are recomputed.
    """
    from wemem.evidence.bundle import verify_bundle
    from wemem.results.verify import verify as verify_folder
    from wemem.results.wording import printable

    words = {True: "passed", False: "failed", None: "not verifiable"}
    holds, folders = True, [path for path in places if path.suffix.lower() != ".zip"]
    for path in places:
        if path.suffix.lower() == ".zip":
            file, (digest, findings) = "manifest.json", verify_bundle(path, folders)
        else:
            verified = verify_folder(path)
            file, digest, findings = "results.json", verified.sha256, list(verified.findings)
        place = "" if len(places) == 1 else f"{printable(str(path))}: "
        print_plainly(Console(), f"{place}{file} has SHA-256 {digest}")
        for finding in findings:
            print_plainly(Console(), f"{place}{words[finding.passed]}: {printable(finding.text)}")
        if file == "manifest.json" and not any("records of the folder" in finding.text for finding in findings):
            print_plainly(Console(), f"{place}to recompute what follows from the records, give the --out folder too")
        holds = holds and all(finding.passed for finding in findings)
    if not holds:
        raise typer.Exit(1)
