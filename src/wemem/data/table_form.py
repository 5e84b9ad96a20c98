"""The columns of a table, and the form in which a model takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float32

from wemem.errors import InputError

Categories = Literal["one-hot", "codes"]

#: Numbers that a model may receive for one record of a table.
WIDTH_LIMIT = 2**16


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: the name of the column.
        categories: the distinct values of a column of categories, in order; empty for numbers.
        missing: True if some record of the table has no value in the column.
    """

    name: str
    categories: tuple[str, ...] = ()
    missing: bool = False


@dataclass(frozen=True)
class TableForm:
    """The columns of a table in order, and the form in which a model takes them.

    A record holds one float32 for each column: the number, or the index of its category; NaN if the
    value is missing. A *switch* is 1 where a column has one certain category, or where its value is
    missing, and 0 elsewhere. A model takes the numbers, then the switches. With ``codes`` it takes
    the numbers, the switches of missing numbers, and then for each column of categories one code:
    0 for a missing category, else 1 + its index.

    Args:
        columns: the columns.
        categories: ``"one-hot"``, or ``"codes"`` for a model with embeddings.
        standardize: True to bring every number to mean 0 and standard deviation 1.

    Raises:
        InputError: no column, or more numbers for one record than :data:`WIDTH_LIMIT`.

    >>> form = TableForm((Column("age", missing=True), Column("job", ("cook", "nurse"))))
    >>> form.numbers, form.switches, form.width
    ((0,), ((0, None), (1, 0), (1, 1)), 4)
    """

    columns: tuple[Column, ...]
    categories: Categories = "one-hot"
    standardize: bool = True

    def __post_init__(self) -> None:
        if not self.columns:
            raise InputError("expected at least one column beside the label, got none; keep some columns")
        if self.width > WIDTH_LIMIT or len(self.switches) > WIDTH_LIMIT:
            largest = max(self.columns, key=lambda column: len(column.categories))
            raise InputError(
                f"expected at most {WIDTH_LIMIT:,} numbers for each record, got "
                f"{max(self.width, len(self.switches)):,}; "
                f"drop columns, such as {largest.name!r} with {len(largest.categories):,} categories"
            )

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The positions of the columns of numbers."""
        return tuple(i for i, column in enumerate(self.columns) if not column.categories)

    @cached_property
    def switches(self) -> tuple[tuple[int, int | None], ...]:
        """The position of the column and the index of the category of every switch; None for a
        missing value.
        """
        listed: list[tuple[int, int | None]] = []
        for i, column in enumerate(self.columns):
            listed += [(i, None)] if column.missing else []
            listed += [(i, code) for code in range(len(column.categories))]
        return tuple(listed)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """The number of codes of each column of categories, 0 included."""
        return tuple(1 + len(column.categories) for column in self.columns if column.categories)

    @property
    def discrete(self) -> bool:
        """True if some column has categories, which cannot move by a small step."""
        return bool(self.cardinalities)

    @property
    def code_counts(self) -> tuple[int, ...]:
        """The number of codes of each number that a model takes with ``codes``; 0 for no code."""
        return (*(0,) * (self.width - len(self.cardinalities)), *self.cardinalities)

    @property
    def width(self) -> int:
        """The number of numbers that a model takes for each record."""
        if self.categories == "one-hot":
            return len(self.numbers) + len(self.switches)
        missing = sum(self.columns[i].missing for i in self.numbers)
        return len(self.numbers) + missing + len(self.cardinalities)

    def encode(self, columns: Mapping[str, Sequence[object]]) -> Float32[np.ndarray, "N F"]:
        """Records of this form from the values of every column by name.

        Args:
            columns: numbers, or the names of categories; None for a missing value. A category that
                the form does not have is none of its categories, and not missing.

        Raises:
            InputError: a column is not there, or a value is no number.

        >>> form = TableForm((Column("age", missing=True), Column("job", ("cook", "nurse"))))
        >>> form.encode({"job": ["nurse", "smith"], "age": [None, 30]}).tolist()
        [[nan, 1.0], [30.0, 2.0]]
        """
        encoded = []
        for column in self.columns:
            if column.name not in columns:
                given = ", ".join(columns) or "none"
                raise InputError(f"expected a column {column.name!r}, got {given}; give every column of the table")
            codes = {name: float(code) for code, name in enumerate(column.categories)}
            unknown = float(len(codes))
            try:
                encoded.append(
                    [
                        np.nan if value is None else codes.get(str(value), unknown) if codes else float(str(value))
                        for value in columns[column.name]
                    ]
                )
            except ValueError as error:
                raise InputError(f"expected numbers in column {column.name!r}, got {error}; correct them") from error
        if len({len(values) for values in encoded}) > 1:
            raise InputError("expected as many values in every column, got different numbers; give one for each record")
        return np.array(encoded, np.float32).T.copy()

    def recode(
        self, features: Float32[np.ndarray, "N F"], given: "TableForm"
    ) -> tuple[Float32[np.ndarray, "N F"], dict[str, int], dict[str, int]]:
        """Records of another table in this form, by the names of columns and categories.

        A category that this form does not have is none of its categories. A value that is missing
        in a column without missing ones is none of its categories either, or, among numbers, stays
        NaN, which the preprocessing replaces by the mean.

        Args:
            features: the records.
            given: their form; the order of its columns does not matter.

        Returns:
            The records, the number of unknown categories by column, and the number of values by
            column that are missing where this form has none missing.

        Raises:
            InputError: other columns, or numbers in place of categories.

        >>> form = TableForm((Column("age"), Column("job", ("cook", "nurse"))))
        >>> other = TableForm((Column("job", ("nurse", "smith")), Column("age", missing=True)))
        >>> x, unknown, missing = form.recode(np.array([[0, 30], [1, np.nan]], np.float32), other)
        >>> x.tolist(), unknown, missing
        ([[30.0, 1.0], [nan, 2.0]], {'job': 1}, {'age': 1})
        """
        place = {column.name: i for i, column in enumerate(given.columns)}
        self._require_columns(place, given)
        x, unknown, missing = np.empty_like(features), dict[str, int](), dict[str, int]()
        for j, column in enumerate(self.columns):
            values = features[:, place[column.name]]
            absent = np.isnan(values)
            if column.categories:
                codes = {name: code for code, name in enumerate(column.categories)}
                none = len(codes)
                names = given.columns[place[column.name]].categories
                # the last two: none of the categories of the other form, and a missing value
                new = np.array([codes.get(name, none) for name in names] + [none, np.nan if column.missing else none])
                values = new[np.where(absent, len(names) + 1, values).astype(np.int64)].astype(np.float32)
                unknown[column.name] = int(((values == none) & ~absent).sum())
            x[:, j] = values
            missing[column.name] = 0 if column.missing else int(absent.sum())
        return x, {name: n for name, n in unknown.items() if n}, {name: n for name, n in missing.items() if n}

    def _require_columns(self, place: Mapping[str, int], given: "TableForm") -> None:
        if lone := sorted({column.name for column in self.columns} ^ set(place)):
            raise InputError(
                f"expected the columns that the model was trained on, got others ({', '.join(lone[:5])} on one side "
                "only); keep or drop columns (data.keep, data.drop), or give the table that it was trained on"
            )
        for column in self.columns:
            other = given.columns[place[column.name]]
            if bool(column.categories) != bool(other.categories):
                wanted, got = (
                    f"categories {', '.join(c.categories[:5])}" if c.categories else "numbers" for c in (column, other)
                )
                remedy = "list it in data.categorical" if column.categories else "correct what is no number"
                raise InputError(
                    f"expected {wanted} in column {column.name!r}, as the model was trained on, got {got}; {remedy}"
                )

    def require_records(self, features: Float32[np.ndarray, "N F"], name: str) -> None:
        """Refuse records that do not have this form.

        Raises:
            InputError: another number of columns, infinity, or a code beyond that of none of the
                categories.
        """
        if features.ndim != 2 or features.shape[1] != len(self.columns) or features.dtype != np.float32:
            raise InputError(
                f"data set {name!r}: expected float32 features (N, {len(self.columns)}), one for each column, got "
                f"{features.dtype} {features.shape}; give the columns of the table"
            )
        for i, column in enumerate(self.columns):
            x = features[:, i]
            bad = np.isinf(x)
            if column.categories:
                codes = np.nan_to_num(x)
                bad |= (codes < 0) | (codes > len(column.categories)) | (codes != np.floor(codes))
            if bad.any():
                wanted = f"a category 0..{len(column.categories) - 1}" if column.categories else "a finite number"
                raise InputError(
                    f"data set {name!r}: expected {wanted} in column {column.name!r}, got {x[bad][0]} in record "
                    f"{int(bad.argmax())}; correct the record or drop it"
                )

    @property
    def kind(self) -> tuple[object, ...]:
        """All that a model depends on: everything but names."""
        return (
            *((len(column.categories), column.missing) for column in self.columns),
            self.categories,
            self.standardize,
        )
