"""Tables that are larger than memory allows, put into a temporary file batch by batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wemem.data.loaders.columns import Categories, Numbers
from wemem.data.loaders.text import Texts
from wemem.files.mapped import temporary_array
from wemem.notes import Note


class Spool:
    """Features of a table that are larger than memory allows, in a temporary file.

    Args:
        rows: the number of records.
        columns: the number of columns of features.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.features, self.rows = temporary_array((rows, columns)), 0
        self.note = Note("features_in_temporary_file", {"gib": self.features.nbytes / 2**30})

    def take(self, columns: Sequence[Numbers | Categories | Texts]) -> None:
        """Move the latest batch of every column into the file."""
        count = len(columns[0].parts[-1])
        for i, column in enumerate(columns):
            self.features[self.rows : self.rows + count, i] = column.parts.pop()
        self.rows += count

    def give(self, place: int, column: Numbers | Categories) -> None:
        """Give one column its values back, to be checked and numbered."""
        values = self.features[:, place]
        if isinstance(column, Numbers):
            column.parts.append(np.array(values))
        else:
            column.parts.append(values.astype(np.int64))


def largest_group(table: Any, columns: Sequence[str]) -> int:
    """Bytes of some columns of the largest row group of a Parquet file once it is uncompressed."""
    metadata = table.metadata
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    return max(
        (
            sum(
                group.column(j).total_uncompressed_size
                for j in range(metadata.num_columns)
                if group.column(j).path_in_schema.split(".")[0] in columns
            )
            for group in groups
        ),
        default=0,
    )
