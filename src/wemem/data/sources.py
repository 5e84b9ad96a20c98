"""The source of a data set as a value: the ``[data]`` table of a study file.

=============================  ==========================================================
``source``                     content
=============================  ==========================================================
``digits``                     1797 handwritten digits of 8 x 8, within scikit-learn
                               (Alpaydin and Kaynak 1998)
``location``                   Location-30 (Shokri et al. 2017)
``purchase100``, ``texas100``  the larger tables of the same collection
``cifar10``, ``cifar100``,     colour images of 32 x 32
``svhn``, ``cinic10``
``folder``                     images in one folder per class
``PATH.npz``                   arrays ``x`` and ``y``
``PATH.npy``                   features; ``label`` is the path of the labels
``PATH.csv``, ``PATH.tsv``,    columns of numbers and categories, or a text, and a label
``PATH.parquet``               column
``package.module:factory``     the result of your function
=============================  ==========================================================

:data:`OPTIONS` lists the keys beside each source. Every source has the key ``records`` too: the
number of records to draw, in the classes' proportions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from wemem.data.dataset import Dataset
from wemem.data.loaders.arrays import load_factory, load_npy, load_npz
from wemem.data.loaders.images import draw_records
from wemem.data.loaders.location import load_location
from wemem.errors import InputError
from wemem.files.input_files import user_path
from wemem.files.memory_limit import memory_limit
from wemem.notes import Note
from wemem.resolve import did_you_mean
from wemem.settings import from_table

Named = Literal[
    "digits", "location", "purchase100", "texas100", "cifar10", "cifar100", "svhn", "cinic10", "folder"
]  # fmt: skip
Kind = Named | Literal[".npz", ".npy", ".csv", ".tsv", ".parquet", "factory"]

NAMED: tuple[Named, ...] = get_args(Named)

#: Keys of a table: those of :class:`~wemem.data.loaders.table.TableOptions`.
COLUMNS = (
    "label", "keep", "drop", "id", "categorical", "categories", "standardize", "text", "tokens", "vocabulary",
    "memory_gib",
)  # fmt: skip
CHARACTERS = ("missing", "encoding", "delimiter", "decimal")

#: Keys that the table of a source has even if they were not given.
ALWAYS = ("source", "path", "label", "features", "memory_gib", "records")

OPTIONS: dict[Kind, tuple[str, ...]] = {
    "digits": (),
    "location": ("path",),
    "purchase100": ("path", "memory_gib"),
    "texas100": ("path", "memory_gib"),
    "cifar10": ("path", "memory_gib"),
    "cifar100": ("path", "memory_gib"),
    "svhn": ("path", "memory_gib"),
    "cinic10": ("path", "memory_gib"),
    "folder": ("path", "memory_gib"),
    ".npz": ("features", "label", "memory_gib"),
    ".npy": ("label", "memory_gib"),
    ".csv": (*COLUMNS, *CHARACTERS),
    ".tsv": (*COLUMNS, *CHARACTERS),
    ".parquet": COLUMNS,
    "factory": (),
}

#: One line on each source, for lists.
DESCRIPTIONS: dict[Kind, str] = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, within scikit-learn.",
    "location": "Location-30: 5,010 users by the places they visited; downloaded once.",
    "purchase100": "Purchase-100: customers by the products they bought, 100 classes.",
    "texas100": "Texas-100: hospital stays by diagnoses and procedures, 100 classes.",
    "cifar10": "CIFAR-10: 60,000 colour images of 32 x 32 pixels, 10 classes.",
    "cifar100": "CIFAR-100: 60,000 colour images of 32 x 32 pixels, 100 classes.",
    "svhn": "SVHN: colour images of house numbers, 32 x 32 pixels, 10 classes.",
    "cinic10": "CINIC-10: colour images of 32 x 32 pixels, 10 classes.",
    "folder": "Your images, in one folder per class.",
    ".npz": "A NumPy archive with arrays x and y.",
    ".npy": "A NumPy array of features, with labels beside it.",
    ".csv": "A table of numbers and categories, or a text, with a label column.",
    ".tsv": "The same, separated by tabs.",
    ".parquet": "The same, as a Parquet file.",
    "factory": "Your function, package.module:factory.",
}


@dataclass(frozen=True)
class DataSource:
    """The source of a data set; the fields are the keys of ``[data]``.

    Args:
        source: one of :data:`NAMED`, a path that ends in ``.npz``, ``.npy``, ``.csv``,
            ``.tsv`` or ``.parquet``, or ``"package.module:factory"``.
        path: the file or folder of a named source; see its loader.
        label: the name or position of the label column, the name of the labels array (``"y"``), or
            the path of the labels beside an ``.npy`` file.
        features: the name of the features array (``"x"``), for ``.npz`` files; several names for a
            model of several inputs, which receives them as arguments of those names.
        memory_gib: the GiB that loading may take, for files; None means half of the machine's
            memory. Larger features of a Parquet, ``.npy`` or uncompressed ``.npz`` file stay in a
            file.
        records: the number of records to draw in the classes' proportions, always the same ones;
            all if None, or, with a note, if there are fewer.
        keep: the names of the columns of features; all that are not dropped if empty.
        drop: the names of columns that are not read.
        id: the name of a column that names the records, which is no feature.
        categorical: the names of columns of numbers that stand for categories.
        categories: the form in which a model takes categories, ``one-hot`` or ``codes``; None means
            ``one-hot``.
        standardize: False to leave numbers as they are; None means True.
        text: the name of a column of text, which is then the only feature.
        tokens: the number of token ids of a text; None means 64.
        vocabulary: the number of different token ids; None means 8192.
        missing: values of a CSV file that mark a missing value, besides the empty one, NA and NaN.
        encoding: the encoding of a CSV file; None means UTF-8.
        delimiter: the delimiter of a CSV file; None finds it in the line of column names.
        decimal: the decimal point of numbers in a CSV file; None means ``"."``.

    Raises:
        InputError: an unknown source, or a key that the source does not have.

    >>> DataSource("digits").load().features.shape
    (1797, 64)
    >>> DataSource("digit")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected data digits, location, purchase100, texas100, cifar10, cifar100, svhn, cinic10, \
folder, a path ending in .npz, .npy, .csv, .tsv or .parquet, or package.module:factory, got 'digit'; did you mean \
'digits'?
    """

    source: str
    path: str | None = None
    label: str | int | None = None
    features: str | tuple[str, ...] | None = None
    memory_gib: float | None = None
    records: int | None = None
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    id: str | None = None
    categorical: tuple[str, ...] = ()
    categories: Literal["one-hot", "codes"] | None = None
    standardize: bool | None = None
    text: str | None = None
    tokens: int | None = None
    vocabulary: int | None = None
    missing: tuple[str, ...] = ()
    encoding: str | None = None
    delimiter: str | None = None
    decimal: str | None = None

    def __post_init__(self) -> None:
        for key in dict.fromkeys(("path", "features", *COLUMNS, *CHARACTERS)):
            if getattr(self, key) not in (None, ()) and key not in OPTIONS[self.kind]:
                allowed = ", ".join(OPTIONS[self.kind]) or "nothing"
                raise InputError(f"data {self.source!r}: expected {allowed} beside the source, got {key}; leave it out")
        if self.kind == ".npz" and isinstance(self.label, int):
            raise InputError(f"data {self.source!r}: expected the name of the label array, got {self.label}; name it")
        if self.kind == ".npy" and not isinstance(self.label, str):
            raise InputError(
                f"data {self.source!r}: expected the labels in another .npy file, got none; name it by label"
            )
        if self.kind == "folder" and self.path is None:
            raise InputError("data 'folder': expected the path of a folder of class folders, got none; add path")
        if self.text is None and (self.tokens is not None or self.vocabulary is not None):
            raise InputError(f"data {self.source!r}: expected tokens and vocabulary beside text, got no text; name it")
        if self.records is not None and self.records < 2:
            raise InputError(f"records must be at least 2, got {self.records}; leave it out for all of them")
        memory_limit(self.memory_gib)

    def table(self) -> dict[str, Any]:
        """The ``[data]`` table of the source; keys of columns only where they were given."""
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {key: value for key, value in settings.items() if key in ALWAYS or value not in (None, [])}

    @property
    def kind(self) -> Kind:
        """The kind of loader that reads the source."""
        for name in NAMED:
            if self.source == name:
                return name
        files: tuple[Kind, ...] = (".npz", ".npy", ".csv", ".tsv", ".parquet")
        for suffix in files:
            if self.source.lower().endswith(suffix):
                return suffix
        if ":" in self.source:
            return "factory"
        raise InputError(
            f"expected data {', '.join(NAMED)}, a path ending in .npz, .npy, .csv, .tsv or .parquet, or "
            f"package.module:factory, got {self.source!r}{did_you_mean(self.source, NAMED)}"
        )

    def load(self) -> Dataset:
        """Read the data set.

        Raises:
            InputError: a source that cannot be used; see the loaders.
        """
        dataset = self._read()
        if self.records is not None and self.records > len(dataset) and dataset.drawn_from is None:
            note = Note("fewer_records", {"records": self.records, "available": len(dataset)})
            dataset = replace(dataset, notes=(*dataset.notes, note))
        elif self.records is not None and self.records != len(dataset):
            drawn = dataset.select(draw_records(dataset.labels, self.records))
            dataset = replace(drawn, drawn_from=len(dataset))
        if dataset.classes > len(dataset):
            raise InputError(
                f"data {self.source!r}: expected labels 0..C-1 with fewer classes than records, got label "
                f"{dataset.classes - 1} among {len(dataset)} records; number the classes from 0"
            )
        return dataset

    def _read(self) -> Dataset:
        limit, path = memory_limit(self.memory_gib), None if self.path is None else user_path(self.path)
        file = user_path(self.source)
        match self.kind:
            case "digits":
                return load_digits()
            case "location":
                return load_location(path)
            case "folder":
                from wemem.data.loaders.folder import load_folder

                return load_folder(path or Path(), records=self.records, limit=limit)
            case "cifar10" | "cifar100" | "svhn" | "cinic10" | "purchase100" | "texas100":
                return published_loader(self.kind)(path, records=self.records, limit=limit)
            case ".npz":
                return load_npz(file, features=self.features or "x", label=str(self.label or "y"), limit=limit)
            case ".npy":
                return load_npy(file, labels=user_path(str(self.label)), limit=limit)
            case ".csv" | ".tsv" | ".parquet":
                return self._read_table(file, limit)
            case "factory":
                return load_factory(self.source)

    def _read_table(self, file: Path, limit: int) -> Dataset:
        from wemem.data.loaders.table import TableOptions, read_csv, read_parquet  # pyarrow takes long to import
        from wemem.data.loaders.text import Hashing

        given = {key: getattr(self, key) for key in (*COLUMNS, *CHARACTERS) if getattr(self, key) is not None}
        hashing = Hashing(**{key: given.pop(key) for key in ("tokens", "vocabulary") if key in given})
        given.pop("memory_gib", None)
        read = read_parquet if self.kind == ".parquet" else read_csv
        return read(file, TableOptions(hashing=hashing, **given), limit=limit)


@dataclass(frozen=True, eq=False)
class LoadedData:
    """A data set that is in memory already, in place of a :class:`DataSource`.

    Args:
        dataset: the records.
    """

    dataset: Dataset

    def load(self) -> Dataset:
        """Return the data set."""
        return self.dataset


def published_loader(kind: Named) -> Callable[..., Dataset]:
    """The loader of a published data set, ``(path, records=..., limit=...)``; only its module is
    imported.
    """
    if kind in ("purchase100", "texas100"):
        from wemem.data.loaders.purchase_texas import PURCHASE100, TEXAS100, load_binary_table

        return partial(load_binary_table, PURCHASE100 if kind == "purchase100" else TEXAS100)
    if kind in ("cifar10", "cifar100"):
        from wemem.data.loaders.cifar import CIFAR10, CIFAR100, load_cifar

        return partial(load_cifar, CIFAR10 if kind == "cifar10" else CIFAR100)
    if kind == "svhn":
        from wemem.data.loaders.svhn import load_svhn

        return load_svhn
    from wemem.data.loaders.folder import load_cinic10

    return load_cinic10


def load_dataset(source: str, *, path: str | Path | None = None, **options: Any) -> Dataset:
    """Read a data set.

    Args:
        source: the source, as for :class:`DataSource`.
        path: the file or folder of a named source.
        options: further fields of :class:`DataSource`.

    Raises:
        InputError: a source that :class:`DataSource` or its ``load`` refuses.

    >>> load_dataset("digits").classes
    10
    """
    table = {"source": source, "path": None if path is None else str(path), **options}
    return from_table(DataSource, table, "load_dataset").load()


def load_digits() -> Dataset:
    """Handwritten digits, 8 x 8 grey values 0..16 as 64 features 0..1 (Alpaydin and Kaynak 1998,
    UCI).
    """
    from sklearn import datasets  # takes long to import

    x, y = datasets.load_digits(return_X_y=True)
    return Dataset.from_arrays("digits", x / np.float32(16), y, 10)
