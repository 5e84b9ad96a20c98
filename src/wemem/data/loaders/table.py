"""A table of numbers with one label column, from CSV or Parquet."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from wemem.data.dataset import Dataset, class_note
from wemem.errors import InputError
from wemem.files.memory_limit import require_memory
from wemem.files.tables import BLOCK_BYTES, open_csv, open_parquet, unfolded_bytes
from wemem.resolve import did_you_mean

LABEL_NAMES = ("label", "y", "target")
PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: The message of pyarrow about a field that is not a number, with its column counted from 0.
NO_NUMBER = re.compile(r"CSV column #(\d+):.* conversion error to float: invalid value '(.*)'")
AS_NUMBERS = "give a category a column of 0 and 1 for each of its values, or drop the column"


def read_csv(path: Path, *, label: str | int | None, limit: int) -> Dataset:
    """Read a CSV file: UTF-8, commas, a header line, numbers everywhere but in the label column.

    Args:
        path: the path of the file.
        label: the name or position of the label column (0 is the first, -1 the last); None means
            the one column that is called ``label``, ``y`` or ``target``.
        limit: the largest number of bytes that the table may take.

    Raises:
        InputError: a file that cannot be read, no header, no label column, a feature that is not a
            number, or values that :class:`Dataset` refuses (an empty field is NaN).
    """
    with open_csv(path, "a table") as table:
        names = table.schema.names
    if all(is_number(name) for name in names):
        raise InputError(f"{path}: expected a header line, got numbers; write the column names above them")
    target = label_column(path, names, label)
    types = {name: pa.string() if name == target else pa.float32() for name in names}
    try:
        with open_csv(path, "a table", types=types) as table:
            return gather(path, table, names, target, limit)
    except InputError as error:
        if (found := NO_NUMBER.search(str(error))) is None:
            raise
        raise InputError(
            f"{path}: expected numbers in column {names[int(found[1])]!r}, got {found[2]!r}; {AS_NUMBERS}"
        ) from error


def read_parquet(path: Path, *, label: str | int | None, limit: int) -> Dataset:
    """Read a Parquet file: numbers or booleans everywhere but in the label column.

    Args:
        path: the path of the file.
        label: the label column, as in :func:`read_csv`.
        limit: the largest number of bytes that the table may take.

    Raises:
        InputError: a file that cannot be read, no label column, a feature that is not a number, or
            values that :class:`Dataset` refuses (a null is NaN).
    """
    with open_parquet(path, "a table") as table:
        schema, rows = table.schema_arrow, table.metadata.num_rows
    target = label_column(path, schema.names, label)
    for field in schema:
        if field.name != target and not is_numeric(field.type):
            raise InputError(f"{path}: expected numbers in column {field.name!r}, got {field.type}; {AS_NUMBERS}")
        if field.name == target and not can_label(field.type):
            raise InputError(f"{path}: expected numbers or text as labels, got {field.type}; choose another column")
    require_memory(8 * rows * (len(schema) - 1), limit, str(path))
    # Labels stay dictionary-encoded, so that a long text that repeats in every record is in memory
    # once.
    with open_parquet(path, "a table", read_dictionary=[target]) as table:
        require_memory(unfolded_bytes(table, schema.names), limit, str(path))
        batch = max(1, BLOCK_BYTES // (8 * len(schema)))
        return gather(path, table.iter_batches(batch_size=batch), schema.names, target, limit)


def label_column(path: Path, names: Sequence[str], label: str | int | None) -> str:
    """The name of the label column, once the names distinguish the columns.

    Raises:
        InputError: no such column, no feature beside it, or a column that numbers the records,
            which as a feature would identify each record to a model.
    """
    shown = [name[:40] for name in names[:21]]
    columns = f"the columns {', '.join(shown)}" if len(names) <= 20 else f"{len(names)} columns from {shown[0]!r} on"
    for name in names:
        if name == "" or PANDAS_INDEX.fullmatch(name):
            raise InputError(f"{path}: expected no record numbers as a feature, got column {name!r}; drop the index")
    if len(set(names)) < len(names):
        raise InputError(f"{path}: expected column names that differ, got {columns}; rename the double one")
    if len(names) < 2:
        raise InputError(f"{path}: expected features and a label, separated by commas, got {columns}")
    if isinstance(label, int):
        if not -len(names) <= label < len(names):
            raise InputError(f"{path}: expected a label position below {len(names)}, got {label}; or give its name")
        return names[label]
    if label is not None:
        if label not in names:
            raise InputError(f"{path}: expected a label column {label!r}, got {columns}{did_you_mean(label, names)}")
        return label
    usual = [name for name in names if name in LABEL_NAMES]
    if len(usual) != 1:
        raise InputError(
            f"{path}: expected one column called {' or '.join(LABEL_NAMES)}, got {columns}; "
            "name the label column with label"
        )
    return usual[0]


def gather(path: Path, batches: Iterable[pa.RecordBatch], names: Sequence[str], target: str, limit: int) -> Dataset:
    """Join batches of columns to one data set, as long as they fit into ``limit`` bytes."""
    features: list[Float32[np.ndarray, "n F"]] = [np.empty((0, len(names) - 1), np.float32)]
    codes: list[Int64[np.ndarray, " n"]] = [np.empty(0, np.int64)]
    classes: dict[object, int] = {}
    need = 0
    for batch in batches:
        features.append(
            np.column_stack(
                [
                    column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
                    for name, column in zip(names, batch.columns, strict=True)
                    if name != target
                ]
            )
        )
        codes.append(label_codes(batch.column(names.index(target)), classes))
        need += 2 * (features[-1].nbytes + codes[-1].nbytes)  # these, and the whole they are joined to
        require_memory(need, limit, str(path))
    numbers, names = number_classes(path, list(classes))
    notes = () if names == tuple(map(str, range(len(names)))) else (class_note(names),)
    labels = numbers[np.concatenate(codes)]
    return Dataset(path.stem, np.concatenate(features), labels, len(names), names if notes else (), notes)


def label_codes(column: pa.Array, classes: dict[object, int]) -> Int64[np.ndarray, " n"]:
    """Each record's position in ``classes``, to which labels that are new to it are added."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    used, inverse = np.unique(encoded.indices.fill_null(-1).to_numpy(), return_inverse=True)
    values = [encoded.dictionary[int(i)].as_py() if i >= 0 else None for i in used]
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
    texts = ["" if label is None else str(int(label) if isinstance(label, bool) else label) for label in labels]
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


def is_number(text: str) -> bool:
    """True if ``text`` is a finite decimal number.

    >>> is_number("-1.5e3"), is_number("x1"), is_number("nan")
    (True, False, False)
    """
    return NUMBER.fullmatch(text.strip()) is not None


def is_numeric(kind: pa.DataType) -> bool:
    """True if a column of this type can be a feature."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def can_label(kind: pa.DataType) -> bool:
    """True if a column of this type can be the label."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_numeric(value) or bool(pa.types.is_string(value) or pa.types.is_large_string(value))
