"""Tables as pandas data frames, the one use of pandas."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wemem.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(rows: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Return rows as a data frame with the columns that any of them has.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise InputError(
            "expected pandas for to_pandas(), got no such library; pip install pandas, or use to_dict()"
        ) from error
    return pd.DataFrame(list(rows))
