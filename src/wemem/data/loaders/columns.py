"""Columns of a table, collected batch by batch: numbers, categories, names of records, labels."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from wemem.data.table_form import Column
from wemem.errors import InputError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: Numbers as written where the comma is the decimal point, and a day or a moment of time.
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
DATE = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4}.*", re.ASCII)
#: Categories of one column.
CATEGORY_LIMIT = 10_000
#: A column identifies records if it has more categories than this number and this share of them.
IDENTIFYING, IDENTIFYING_SHARE = 100, 0.5
#: Names of columns that number the records where every value is another whole number.
NUMBERING = re.compile(r"(.*[_ .-])?(id|index|row|record)", re.IGNORECASE)


class Numbers:
    """A column of numbers.

    Args:
        path: the path of the table, for messages.
        name: the name of the column.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name, self.parts = path, name, [np.empty(0, np.float32)]

    def add(self, column: pa.Array) -> int:
        """Append the values of a batch; the number of bytes that they take."""
        values = column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        self.parts.append(np.asarray(values, np.float32))
        return int(values.nbytes)

    def finish(self) -> tuple[Column, Float32[np.ndarray, " N"]]:
        """The column, and its value in every record.

        Raises:
            InputError: no value at all, infinity, or a column that numbers the records.
        """
        x = np.concatenate(self.parts)
        missing = np.isnan(x)
        if len(x) and missing.all():
            raise InputError(f"{self.path}: expected values in column {self.name!r}, got none; drop it (data.drop)")
        if np.isinf(x).any():
            raise InputError(
                f"{self.path}: expected finite numbers in column {self.name!r}, got infinity in record "
                f"{int(np.isinf(x).argmax())}; correct it, or leave the value empty"
            )
        numbers = NUMBERING.fullmatch(self.name) and len(x) > 2 and not missing.any() and (x == np.floor(x)).all()
        if numbers and len(np.unique(x)) == len(x):
            raise InputError(
                f"{self.path}: expected no record numbers as a feature, got column {self.name!r} with another number "
                f"in every record; set data.id = {self.name!r} if it names the records, or drop it (data.drop)"
            )
        return Column(self.name, (), bool(missing.any())), x


class Categories:
    """A column of categories.

    Args:
        path: the path of the table, for messages.
        name: the name of the column.
        declared: True if the user states that the column has categories.
    """

    def __init__(self, path: Path, name: str, declared: bool) -> None:
        self.path, self.name, self.declared = path, name, declared
        self.parts: list[Int64[np.ndarray, " n"]] = [np.empty(0, np.int64)]
        self.places: dict[object, int] = {}

    def add(self, column: pa.Array) -> int:
        """Append the values of a batch; the number of bytes that they take.

        Raises:
            InputError: too many categories.
        """
        self.parts.append(label_codes(column, self.places))
        if len(self.places) > CATEGORY_LIMIT:
            raise self._too_many(f"more than {CATEGORY_LIMIT:,} different values")
        return self.parts[-1].nbytes

    def finish(self) -> tuple[Column, Float32[np.ndarray, " N"]]:
        """The column, and the index of the category of every record; NaN where it is missing.

        Categories are in alphabetical order, or in ascending order if all are numbers.

        Raises:
            InputError: numbers among names, or a value of its own in most records.
        """
        codes = np.concatenate(self.parts)
        values = {_text(value): place for value, place in self.places.items() if value is not None}
        numbers = sum(map(is_number, values))
        self._refuse_decimal_commas(list(values))
        if not self.declared and 0 < numbers < len(values):
            odd = min((text for text in values if not is_number(text)), key=lambda text: values[text])
            raise InputError(
                f"{self.path}: expected numbers or names in column {self.name!r}, got {odd[:50]!r} beside numbers; "
                "correct it, list it in data.missing if it marks a missing value, or list the column in "
                "data.categorical"
            )
        if not values:
            raise InputError(f"{self.path}: expected values in column {self.name!r}, got none; drop it (data.drop)")
        if len(values) > max(IDENTIFYING, IDENTIFYING_SHARE * len(codes)):
            raise self._too_many(f"{len(values):,} different values among {len(codes):,} records")
        ordered = sorted(values, key=(lambda text: (float(text), text)) if numbers == len(values) else None)
        rank = np.full(len(self.places), np.nan, np.float32)
        for i, text in enumerate(ordered):
            rank[values[text]] = i
        x = rank[codes]
        return Column(self.name, tuple(ordered), bool(np.isnan(x).any())), x

    def _refuse_decimal_commas(self, values: Sequence[str]) -> None:
        commas = [text for text in values if DECIMAL_COMMA.fullmatch(text)]
        if not self.declared and commas and all(is_number(text.replace(",", ".", 1)) for text in values):
            raise InputError(
                f"{self.path}: expected numbers with a decimal point in column {self.name!r}, got {commas[0]!r}; set "
                "data.decimal = ',', remove the commas if they part thousands, or list the column in data.categorical"
            )

    def _too_many(self, count: str) -> InputError:
        remedy = (
            f"set data.id = {self.name!r} if it names the records, data.text if it is a text, or drop it (data.drop)"
        )
        if any(isinstance(value, str) and DATE.fullmatch(value) for value in self.places):
            remedy = "write a date as a number, such as days or the year, or drop the column (data.drop)"
        return InputError(
            f"{self.path}: expected a column of categories that records share, got {count} in column {self.name!r}; "
            f"{remedy}"
        )


class Labels:
    """The column of the labels.

    Args:
        path: the path of the table, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.places = path, dict[object, int]()
        self.parts: list[Int64[np.ndarray, " n"]] = [np.empty(0, np.int64)]

    def add(self, column: pa.Array) -> int:
        """Append the labels of a batch; the number of bytes that they take."""
        self.parts.append(label_codes(column, self.places))
        return self.parts[-1].nbytes

    def finish(self) -> tuple[tuple[str, ...], Int64[np.ndarray, " N"]]:
        """The names of the classes, and the class of every record."""
        numbers, names = number_classes(self.path, list(self.places))
        return names, numbers[np.concatenate(self.parts)]


def label_codes(column: pa.Array, classes: dict[object, int]) -> Int64[np.ndarray, " n"]:
    """Each record's position in ``classes``, to which labels that are new to it are added; spaces
    around a name do not count.
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    used, inverse = np.unique(encoded.indices.fill_null(-1).to_numpy(), return_inverse=True)
    values = [encoded.dictionary[int(i)].as_py() if i >= 0 else None for i in used]
    values = [value.strip() or None if isinstance(value, str) else value for value in values]
    return np.array([classes.setdefault(value, len(classes)) for value in values], np.int64)[inverse]


def number_classes(path: Path, labels: Sequence[object]) -> tuple[Int64[np.ndarray, " C"], tuple[str, ...]]:
    """Number the distinct labels of a table: whole numbers in ascending order, names in
    alphabetical order.

    Args:
        path: the path of the table, for the message.
        labels: the distinct labels, as numbers or text.

    Returns:
        The class of each label, and the name of each class.

    Raises:
        InputError: a missing label, a number that is not whole, or numbers among names.

    >>> codes, names = number_classes(Path("toy.csv"), ["pear", "apple", "quince"])
    >>> codes.tolist(), names
    ([1, 0, 2], ('apple', 'pear', 'quince'))
    >>> codes, names = number_classes(Path("toy.csv"), ["10", "9"])
    >>> codes.tolist(), names
    ([1, 0], ('9', '10'))
    """
    texts = ["" if label is None else _text(label) for label in labels]
    if "" in texts:
        raise InputError(f"{path}: expected a label in every record, got none in some; fill it in or drop the record")
    if any(map(is_number, texts)) or any(isinstance(label, float) for label in labels):
        for text in texts:
            if not is_number(text) or not float(text).is_integer() or abs(float(text)) > 2**53:
                raise InputError(
                    f"{path}: expected whole numbers or else names as labels, got {text[:50]!r}; choose another label "
                    "column, or number the classes"
                )
        texts = [str(int(float(text))) for text in texts]
        ordered = sorted(set(texts), key=int)
    else:
        ordered = sorted(set(texts))
    rank = {text: i for i, text in enumerate(ordered)}
    return np.array([rank[text] for text in texts], np.int64), tuple(ordered)


def _text(value: object) -> str:
    return str(int(value) if isinstance(value, bool) else value)


def is_number(text: str) -> bool:
    """True if ``text`` is a finite decimal number.

    >>> is_number("-1.5e3"), is_number("x1"), is_number("nan")
    (True, False, False)
    """
    return NUMBER.fullmatch(text.strip()) is not None
