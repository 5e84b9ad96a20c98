"""A table of numbers and categories, or of text, with one label column, from CSV or Parquet."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from wemem.data.dataset import Dataset, class_note
from wemem.data.loaders.columns import Categories, Labels, Numbers, is_number
from wemem.data.loaders.spool import Spool, largest_group
from wemem.data.loaders.text import Hashing, Texts
from wemem.data.table_form import Categories as CategoryForm
from wemem.data.table_form import Column, TableForm
from wemem.errors import InputError
from wemem.files.memory_limit import require_memory
from wemem.files.record_tables import RecordIds
from wemem.files.tables import (
    BLOCK_BYTES,
    CsvFormat,
    characters_of,
    likely_delimiter,
    open_csv,
    open_parquet,
    unfolded_bytes,
)
from wemem.notes import Note
from wemem.resolve import did_you_mean

LABEL_NAMES = ("label", "y", "target")
PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")
#: The message of pyarrow about a field that is not a number, with its column counted from 0.
NO_NUMBER = re.compile(r"CSV column #(\d+):.* conversion error to float: invalid value '(.*)'")
NOT_UTF8 = re.compile(r"invalid UTF8|codec can't decode", re.IGNORECASE)


@dataclass(frozen=True)
class TableOptions:
    """The columns of a table that are used, and their meaning.

    Args:
        label: the name or position of the label column (0 is the first, -1 the last); None means
            the one column that is called ``label``, ``y`` or ``target``.
        keep: the names of the columns of features; all that are not dropped if empty.
        drop: the names of columns that are not read.
        id: the name of a column that names the records, which is no feature.
        categorical: the names of columns of numbers that stand for categories.
        categories: ``one-hot`` or ``codes``, the form in which a model takes categories.
        standardize: True to bring every number to mean 0 and standard deviation 1 for each model.
        text: the name of a column of text, which is then the only feature; None without.
        hashing: the rule by which text becomes token ids.
        missing: further values that mark a missing value.
        encoding: the encoding of a CSV file.
        delimiter: the delimiter of a CSV file; None finds it in the line of column names.
        decimal: the decimal point of numbers in a CSV file.
    """

    label: str | int | None = None
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    id: str | None = None
    categorical: tuple[str, ...] = ()
    categories: CategoryForm = "one-hot"
    standardize: bool = True
    text: str | None = None
    hashing: Hashing = field(default_factory=Hashing)
    missing: tuple[str, ...] = ()
    encoding: str = "utf8"
    delimiter: str | None = None
    decimal: str = "."


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of a table that are read.

    Args:
        label: the name of the label column.
        features: the names of the columns of features, in the order of the table.
        texts: the features that are read as text: categories and text.
    """

    label: str
    features: tuple[str, ...]
    texts: frozenset[str] = frozenset()


def read_csv(path: Path, options: TableOptions, *, limit: int) -> Dataset:
    """Read a CSV file with a header line.

    A column with a value that is no number is one of categories. An empty value is missing.

    Args:
        path: the path of the file.
        options: the columns that are used.
        limit: the largest number of bytes that the table may take.

    Raises:
        InputError: a file that cannot be read, no header, no label column, or columns that
            :mod:`wemem.data.loaders.columns` refuses.
    """
    form = csv_format(path, options)
    with _decoded(path, options.encoding), open_csv(path, "a table", form=form) as table:
        schema, names = table.schema, table.schema.names
    if all(is_number(name) for name in names):
        raise InputError(f"{path}: expected a header line, got numbers; write the column names above them")
    chosen = choose_columns(path, schema, options)
    while True:
        types = {name: pa.string() if name in chosen.texts else pa.float32() for name in chosen.features}
        types |= dict.fromkeys([chosen.label, *([options.id] if options.id else [])], pa.string())
        try:
            with (
                _decoded(path, options.encoding),
                open_csv(path, "a table", types=types, only=list(types), form=form) as table,
            ):
                return gather(path, table, chosen, options, limit)
        except InputError as error:
            if (problem := NO_NUMBER.search(str(error))) is None:
                raise
        # a value that is no number further down than the first block, by which types are inferred
        chosen = replace(chosen, texts=chosen.texts | {names[int(problem[1])]})


def csv_format(path: Path, options: TableOptions) -> CsvFormat:
    """The characters of a CSV file, by the options or by its name and line of column names."""
    delimiter = options.delimiter
    if delimiter is None:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else likely_delimiter(path, "a table")
    return CsvFormat(delimiter, options.encoding, options.missing, options.decimal)


@contextmanager
def _decoded(path: Path, encoding: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if not NOT_UTF8.search(str(error)):
            raise
        raise InputError(
            f"{path}: expected text in {encoding}, got other bytes (invalid UTF8); set data.encoding, for example to "
            "'latin-1'"
        ) from error


def read_parquet(path: Path, options: TableOptions, *, limit: int) -> Dataset:
    """Read a Parquet file; text and dictionaries are categories, nulls are missing values.

    Args:
        path: the path of the file.
        options: the columns that are used.
        limit: the largest number of bytes that the table may take.

    Raises:
        InputError: a file that cannot be read, no label column, or columns that
            :mod:`wemem.data.loaders.columns` refuses.
    """
    if (options.delimiter, options.encoding, options.missing, options.decimal) != (None, "utf8", (), "."):
        raise InputError(f"{path}: expected delimiter, encoding, missing and decimal for CSV, got one; leave it out")
    with open_parquet(path, "a table") as table:
        schema, rows = table.schema_arrow, table.metadata.num_rows
    chosen = choose_columns(path, schema, options)
    if not can_label(schema.field(chosen.label).type):
        raise InputError(
            f"{path}: expected numbers or text as labels, got {schema.field(chosen.label).type}; choose another column"
        )
    read = [chosen.label, *chosen.features, *([options.id] if options.id else [])]
    whole = 8 * rows * len(chosen.features)
    spool = Spool(rows, len(chosen.features)) if whole > limit and options.text is None else None
    # Texts stay dictionary-encoded, so that a long text that repeats in every record
    # is in memory once.
    folded = list(dict.fromkeys([chosen.label, *chosen.texts, *([options.id] if options.id else [])]))
    with open_parquet(path, "a table", read_dictionary=folded) as table:
        require_memory(largest_group(table, read) if spool else unfolded_bytes(table, read), limit, str(path))
        batch = max(1, BLOCK_BYTES // (8 * len(read)))
        return gather(path, table.iter_batches(batch_size=batch, columns=read), chosen, options, limit, spool)


def choose_columns(path: Path, schema: pa.Schema, options: TableOptions) -> ChosenColumns:
    """The columns of a table that are read, by their names and types.

    Raises:
        InputError: a named column that the table does not have, no feature, a column that numbers
            the records, or one of a type that is neither number nor text.
    """
    names = list(schema.names)
    columns = listed(names)
    if len(set(names)) < len(names):
        raise InputError(f"{path}: expected column names that differ, got {columns}; rename the double one")
    if len(names) < 2:
        raise InputError(f"{path}: expected features and a label, got {columns}; check the delimiter")
    mentioned = {"keep": options.keep, "drop": options.drop, "categorical": options.categorical}
    mentioned |= {key: (name,) for key, name in (("id", options.id), ("text", options.text)) if name is not None}
    for key, wanted in mentioned.items():
        for name in wanted:
            if name not in names:
                raise InputError(
                    f"{path}: expected a column {name!r} (data.{key}), got {columns}{did_you_mean(name, names)}"
                )
    target = label_column(path, names, options.label)
    features = [name for name in options.keep or names if name not in (target, options.id, *options.drop)]
    features.sort(key=names.index)
    for name in features:
        if name == "" or PANDAS_INDEX.fullmatch(name):
            raise InputError(
                f"{path}: expected no record numbers as a feature, got column {name!r}; set data.drop = [{name!r}]"
            )
    if options.text is not None and features != [options.text]:
        others = listed([name for name in features if name != options.text])
        raise InputError(f"{path}: expected the text {options.text!r} as the only feature, got {others} too; drop them")
    if not features:
        raise InputError(f"{path}: expected features beside the label, got {columns}; keep some")
    texts = {name for name in features if not is_number_type(schema.field(name).type)} | set(options.categorical)
    for name in features:
        kind = schema.field(name).type
        if path.suffix.lower() == ".parquet" and not can_label(kind) and not is_number_type(kind):
            raise InputError(f"{path}: expected numbers or text in column {name!r}, got {kind}; convert it, or drop it")
    return ChosenColumns(target, tuple(features), frozenset(texts & set(features)))


def listed(names: Sequence[str]) -> str:
    """The names of columns in a message, or their number if they are many."""
    shown = [name[:40] for name in names[:21]]
    return f"the columns {', '.join(shown)}" if len(names) <= 20 else f"{len(names)} columns from {shown[0]!r} on"


def label_column(path: Path, names: Sequence[str], label: str | int | None) -> str:
    """The name of the label column.

    Raises:
        InputError: no such column.
    """
    columns = listed(names)
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


def gather(
    path: Path, batches: Iterable[pa.RecordBatch], chosen: ChosenColumns, options: TableOptions, limit: int,
    spool: Spool | None = None,
) -> Dataset:  # fmt: skip
    """Join batches of columns to one data set, as long as they fit into ``limit`` bytes.

    Args:
        path: the path of the table, for messages.
        batches: the batches.
        chosen: the columns.
        options: their meaning.
        limit: the largest number of bytes.
        spool: takes the features in place of memory; None to keep them in memory.
    """
    labels, ids, need = Labels(path), list[str](), 0
    features: dict[str, Numbers | Categories | Texts] = {}
    for name in chosen.features:
        if name == options.text:
            features[name] = Texts(path, name, options.hashing)
        elif name in chosen.texts:
            features[name] = Categories(path, name, name in options.categorical)
        else:
            features[name] = Numbers(path, name)
    for batch in batches:
        need += 2 * labels.add(batch.column(chosen.label))  # these, and the whole they are joined to
        added = sum(2 * column.add(batch.column(name)) for name, column in features.items())
        if spool is None:
            need += added
        else:
            spool.take(list(features.values()))
        if options.id is not None:
            require_memory(need + 2 * characters_of(batch.column(options.id)), limit, str(path))
            more = ["" if value is None else str(value) for value in batch.column(options.id).to_pylist()]
            ids += more
            need += sum(64 + len(one) for one in more)
        require_memory(need, limit, str(path))
    if "" in ids:
        raise InputError(
            f"{path}: expected an id in column {options.id!r} of every record, got none in some; fill it in"
        )
    names, y = labels.finish()
    notes = () if names == tuple(map(str, range(len(names)))) else (class_note(names),)
    if not len(y):
        raise InputError(f"{path}: expected at least one record, got none; bring some")
    named = Records(path.stem, y, names, notes, None if options.id is None else RecordIds(options.id, tuple(ids)))
    columns = list(features.values())
    return named.of_text(columns[0]) if isinstance(columns[0], Texts) else named.of_table(columns, options, spool)


@dataclass(frozen=True, eq=False)
class Records:
    """Everything about the records of a table but their features.

    Args:
        name: the name of the data set.
        labels: the class of each record.
        classes: the names of the classes.
        notes: remarks on what was changed; empty if the labels are ``0 .. classes-1`` already.
        ids: the names of the records; None without.
    """

    name: str
    labels: Int64[np.ndarray, " N"]
    classes: tuple[str, ...]
    notes: tuple[Note, ...]
    ids: RecordIds | None

    def of_text(self, column: Texts) -> Dataset:
        """The data set of these records with their token ids."""
        tokens, cut = column.finish()
        return self._dataset(tokens, (*self.notes, *cut), None)

    def of_table(
        self, columns: Sequence[Numbers | Categories | Texts], options: TableOptions, spool: Spool | None
    ) -> Dataset:
        """The data set of these records with their numbers and categories."""
        x = np.empty((len(self.labels), len(columns)), np.float32) if spool is None else spool.features
        described: list[Column] = []
        for i, column in enumerate(columns):
            assert not isinstance(column, Texts)
            if spool is not None:
                spool.give(i, column)
            described.append(_finished(column, x[:, i]))
        form = TableForm(tuple(described), options.categories, options.standardize)
        raw = not options.standardize and not form.switches
        notes = self.notes if spool is None else (*self.notes, spool.note)
        return self._dataset(x, notes, None if raw else form)

    def _dataset(self, features: np.ndarray, notes: tuple[Note, ...], table: TableForm | None) -> Dataset:
        names = self.classes if self.notes else ()
        return Dataset(
            self.name, features, self.labels, len(self.classes), names, notes, table=table, ids=self.ids
        )  # fmt: skip


def _finished(column: Numbers | Categories, into: np.ndarray) -> Column:
    described, values = column.finish()
    into[:] = values
    return described


def is_number_type(kind: pa.DataType) -> bool:
    """True if a column of this type has numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )  # fmt: skip


def can_label(kind: pa.DataType) -> bool:
    """True if a column of this type can be the label."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_number_type(value) or bool(pa.types.is_string(value) or pa.types.is_large_string(value))
