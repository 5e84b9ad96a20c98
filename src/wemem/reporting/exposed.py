"""The most exposed records of an audit, for people."""

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from wemem.reporting.breakable import Name


def exposed_table(samples: pa.Table, count: int) -> Table:
    """The members that the attacks together recognize best, most exposed first.

    Args:
        samples: the table from :func:`~wemem.results.build.per_sample_table`.
        count: the number of records to show.
    """
    members = samples.filter(samples["member"])
    order = pc.sort_indices(members, sort_keys=[("risk_rank", "ascending"), ("record", "ascending")])
    rows = members.take(order[:count]).to_pylist()
    probabilities = [name for name in samples.column_names if name.endswith("_probability")]
    table = Table(title=f"The {len(rows)} most exposed of {len(members)} members", title_justify="left")
    for heading in ("rank", "record", "class", "memorization", "highest probability of membership", "by attack"):
        table.add_column(heading, justify="left" if heading == "by attack" else "right")
    for row in rows:
        known = {name: row[name] for name in probabilities if row[name] is not None}
        strongest = max(known, key=lambda name: known[name]) if known else ""
        score = row.get("memorization")
        table.add_row(
            str(row["risk_rank"]),
            str(row["record"]),
            str(row["class"]),
            "-" if score is None or score != score else f"{score:.2f}",
            f"{100 * known[strongest]:.1f} %" if strongest else "-",
            Name(strongest.removesuffix("_probability")),
        )
    return table
