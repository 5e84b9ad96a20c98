"""The report of one or several studies, rendered from what they stored; nothing is computed again
but from scores.

A folder gets ``report.html`` for people, ``report.json`` with every number of it, ``tables/`` for
spreadsheets and ``figures/`` for papers.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wemem.files.atomic import require_folder, write_atomically
from wemem.metrics.registry import metrics_for
from wemem.reporting.attackers import access_needed, exposed_records
from wemem.reporting.canaries import READING, canary_rows
from wemem.reporting.captions import plates
from wemem.reporting.content import (
    blind_row,
    chance_of,
    classes,
    comparisons,
    curves,
    deciles,
    featured,
    headline,
    named,
    plane,
    provenance,
    rounds,
    selections,
    times,
)
from wemem.reporting.csv_tables import write_csv, write_runs_csv
from wemem.reporting.release import release_answer
from wemem.reporting.summary import FPR_MEANS, adaptivity_gaps, dense_warning, report_summary
from wemem.reporting.tables import sheets
from wemem.reporting.terms import terms_of
from wemem.results.arms import arms, audits_of
from wemem.results.combine import Combined, read_sources
from wemem.results.gate import Limits
from wemem.results.wording import per_cent


def write_report(folders: Sequence[Path], out: Path, limits: Limits | None = None) -> None:
    """Render the report of one or several ``--out`` folders.

    The same folders give the same bytes.

    Args:
        folders: output folders of studies or audits of one data set.
        out: output directory; created if missing; may be one of the folders.
        limits: the limits by which the report says whether a model may ship; those of
            :data:`~wemem.reporting.release.PROFILE` if None.

    Raises:
        InputError: the folders are refused by
            :func:`~wemem.results.combine.read_sources`, or one cannot be written.
    """
    out = require_folder(out)
    combined = read_sources(folders)
    content = report_content(combined)
    answer = release_answer(combined, folders, limits)
    content |= {} if answer is None else {"release": answer}
    drawn = plates(content)
    # matplotlib takes its time, and what is refused needs none of it
    from wemem.reporting.figures import draw_all
    from wemem.reporting.html import page

    images = draw_all(drawn, [row["defense"] for row in content["headline"]], out / "figures")
    tables = sheets(content)
    write_runs_csv(combined.results, out / "runs.csv")
    for sheet in tables:
        write_csv(list(sheet.csv_rows()), out / "tables" / f"{sheet.name}.csv")
    numbers = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(out / "report.json", lambda part: part.write_text(numbers, encoding="utf-8"))
    text = page(content, drawn, images, tables)
    write_atomically(out / "report.html", lambda part: part.write_text(text, encoding="utf-8"))


def report_content(combined: Combined) -> dict[str, Any]:
    """The content of ``report.json``: every number that the report shows, and the words around
    them.

    Shares are fractions; an interval's ends are ``low`` and ``high``, at 95 %, null where there is
    none.

    Args:
        combined: the results of at least one folder.
    """
    results, rows = combined.results, arms(combined.results)
    canaries, blind = canary_rows(rows), blind_row(results)
    metrics, shown = metrics_for("table", audits_of(rows)), headline(rows)
    names = dict.fromkeys(str(source.results["study"].get("name") or source.name) for source in combined.sources)
    content: dict[str, Any] = {
        "schema": "wemem.report/2",
        "title": " and ".join(names),
        "data": results["data"],
        "summary": report_summary(results),
        "warning": dense_warning(results),
        "adaptivity": adaptivity_gaps(results),
        "fpr_means": FPR_MEANS,
        "chance": {
            metric.name: chance_of([{"leakage": row[metric.name]} for row in shown if metric.name in row], metric)
            for metric in metrics
        },
        "metrics": [
            {name: getattr(metric, name) for name in ("name", "label", "chance", "place", "needs_threshold")}
            for metric in metrics
        ],
        "headline": shown,
        **({"blind_baseline": blind} if blind else {}),
        **({"canaries": {"reading": READING, "rows": canaries}} if canaries else {}),
        "access": access_needed(rows),
        "exposed": exposed_records(combined, rows),
        "featured": [named(arm) for arm in featured(rows)],
        "plane": plane(rows),
        "roc": curves(combined, rows),
        "rounds": rounds(rows),
        "deciles": deciles(combined, rows),
        "classes": classes(combined, rows),
        "time": times(rows),
        "selection": selections(combined),
        "comparisons": comparisons(results),
        "provenance": provenance(combined, rows),
        "terms": terms_of(rows),
    }
    content["not_measured"] = _not_measured(content)
    content["figures"] = [
        {"name": plate.name, "title": plate.title, "caption": plate.caption, "finding": plate.finding}
        for plate in plates(content)
    ]
    return content


def _not_measured(content: Mapping[str, Any]) -> list[str]:
    """Quantities that a reader might look for, and why they were not measured."""
    attacked = any("members" in row for row in content["headline"])
    lines = ["Membership inference only: nothing here is about reconstructing records or inferring their attributes."]
    if attacked and not content["roc"]:
        lines.append("No scores of single records are stored beside the results, so there are no curves and no groups.")
    if content["roc"] and not content["deciles"]:
        lines.append(
            "No defense of the study needs memorization scores, so none were estimated: no leakage by memorization."
        )
    if content["rounds"] and not any("confidence_auc" in one for arm in content["rounds"] for one in arm["rounds"]):
        lines.append("The leak was measured after the last pruning round, not after each.")
    if not any("peak_memory_mib" in arm for arm in content["time"]):
        lines.append("Peak memory was not measured.")
    if all(row["seeds"] == 1 for row in content["headline"]):
        lines.append("One seed: how results vary with split and training run was not measured.")
    fewest = min((row["nonmembers"] for row in content["headline"] if "nonmembers" in row), default=None)
    lines += [
        f"{per_cent(fpr)} FPR stands for no false positive at all: {fewest:,} non-members show no rate below "
        f"{per_cent(1 / fewest)}."
        for fpr in (m.fpr for m in metrics_for("table") if m.fpr is not None)
        if fewest is not None and fewest * fpr < 1
    ]
    return lines
