"""Preprocessing of a table, fitted on some of its records and kept as plain numbers.

Every model has its own preprocessing, fitted on the records that it was trained on. No other record
has a part in it. The one thing that all models share is the list of columns and categories, which
gives their inputs the same size. A category that no training record of a model has is 0 for that
model, as if it were not in the list.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from wemem.data.table_form import TableForm
from wemem.errors import InputError


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The numbers that turn records of a table into inputs of one model.

    A number ``x`` becomes ``(x - shift) / scale``; in place of a missing one stands ``filling``,
    the mean. A column of which the records of the fit have no number is divided by the largest
    float32, which makes it 0. A switch stays 0 if no record of the fit turns it on.

    Args:
        form: the columns of the table.
        filling: the mean of each column of numbers over the records that have it.
        shift: the number that is subtracted in each column of numbers: the mean, or 0.
        scale: the number by which each is divided: the standard deviation, or 1.
        present: True for every switch that some record of the fit turns on.
        records: the number of records of the fit.

    Raises:
        InputError: sizes that differ from those of the form, or numbers that are not finite.

    >>> from wemem.data.table_form import Column
    >>> form = TableForm((Column("age", missing=True), Column("job", ("cook", "nurse"))))
    >>> table = np.array([[20, 0], [40, 0], [np.nan, 0], [90, 1]], np.float32)
    >>> Preprocessing.fit(form, table[:3]).apply(table)
    array([[-1.,  0.,  1.,  0.],
           [ 1.,  0.,  1.,  0.],
           [ 0.,  1.,  1.,  0.],
           [ 6.,  0.,  0.,  0.]], dtype=float32)
    """

    form: TableForm
    filling: Float32[np.ndarray, " n"]
    shift: Float32[np.ndarray, " n"]
    scale: Float32[np.ndarray, " n"]
    present: Bool[np.ndarray, " s"]
    records: int

    def __post_init__(self) -> None:
        numbers = (self.filling, self.shift, self.scale)
        wanted, switches = (len(self.form.numbers),), (len(self.form.switches),)
        if any(part.shape != wanted for part in numbers) or self.present.shape != switches:
            raise InputError(
                f"expected numbers for {wanted[0]} columns and {switches[0]} switches, got "
                f"{[part.shape for part in (*numbers, self.present)]}; fit the preprocessing on this table"
            )
        if not all(np.isfinite(part).all() for part in numbers) or not (self.scale > 0).all() or self.records < 1:
            raise InputError("expected finite numbers and positive scales, got others; fit the preprocessing again")

    @classmethod
    def fit(cls, form: TableForm, features: Float32[np.ndarray, "n F"]) -> "Preprocessing":
        """Fit on records of a table.

        Raises:
            InputError: no record.
        """
        if not len(features):
            raise InputError("expected records to fit a preprocessing on, got none; give the training records")
        x = np.asarray(features[:, list(form.numbers)], np.float64)
        there = ~np.isnan(x)
        count = there.sum(axis=0)
        mean = np.where(there, x, 0).sum(axis=0) / np.maximum(count, 1)
        deviation = np.sqrt((np.where(there, x - mean, 0) ** 2).sum(axis=0) / np.maximum(count, 1))
        # rounding leaves a constant column a deviation of about 1e-16 of its size
        varies = (deviation > 1e-7 * np.abs(mean)) & (deviation.astype(np.float32) > 0) & form.standardize
        scale = np.where(count == 0, np.finfo(np.float32).max, np.where(varies, deviation, 1.0))
        shift = mean if form.standardize else np.zeros_like(mean)
        filling, shift, scale = (part.astype(np.float32) for part in (mean, shift, scale))
        return cls(form, filling, shift, scale, np.asarray(_switched(form, features).any(axis=0)), len(features))

    def apply(self, features: Float32[np.ndarray, "N F"]) -> Float32[np.ndarray, "N W"]:
        """The inputs of the model for records of the table."""
        x = features[:, list(self.form.numbers)]
        x = (np.where(np.isnan(x), self.filling, x) - self.shift) / self.scale
        switches = (_switched(self.form, features) & self.present).astype(np.float32)
        if self.form.categories == "codes":
            switches = switches @ code_matrix(self.form)
        return np.concatenate([x, switches], axis=1, dtype=np.float32)


def _switched(form: TableForm, features: Float32[np.ndarray, "N F"]) -> Bool[np.ndarray, "N s"]:
    """The switches that each record turns on."""
    on = [np.isnan(features[:, i]) if code is None else features[:, i] == code for i, code in form.switches]
    return np.stack(on, axis=1) if on else np.zeros((len(features), 0), bool)


def code_matrix(form: TableForm) -> Float32[np.ndarray, "s c"]:
    """The matrix that turns switches into the switches of missing numbers and one code for each
    column of categories.
    """
    numbers = [i for i in form.numbers if form.columns[i].missing]
    categories = [i for i, column in enumerate(form.columns) if column.categories]
    place = {column: j for j, column in enumerate([*numbers, *categories])}
    matrix = np.zeros((len(form.switches), len(place)), np.float32)
    for row, (column, code) in enumerate(form.switches):
        if code is not None:
            matrix[row, place[column]] = 1 + code
        elif not form.columns[column].categories:
            matrix[row, place[column]] = 1
    return matrix
