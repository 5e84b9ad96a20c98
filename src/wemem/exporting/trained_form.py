"""The columns and classes that a model's file states, and other records brought into that form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wemem.data.dataset import Dataset
from wemem.data.preprocessing_file import read_preprocessing
from wemem.data.table_form import Column, TableForm
from wemem.errors import InputError
from wemem.exporting.onnx import read_onnx
from wemem.exporting.preprocess import preprocess_beside
from wemem.exporting.shards import weights_path
from wemem.files.documents import parse_json
from wemem.files.memory_limit import memory_limit, require_memory
from wemem.notes import Note


@dataclass(frozen=True)
class TrainedForm:
    """The form of the records that a model was trained on, as far as its files state it.

    Args:
        form: the columns of the table; None if they are not stated.
        class_names: the names of the classes; empty if they are not stated.
    """

    form: TableForm | None = None
    class_names: tuple[str, ...] = ()

    def applied(self, data: Dataset) -> Dataset:
        """The records in this form, with notes on what it does not have; the data set itself if it
        is in this form already.

        Raises:
            InputError: other columns or other classes.
        """
        data = self._with_classes(data)
        if self.form is None or data.table is None or self.form.columns == data.table.columns:
            return data
        require_memory(data.features.nbytes, memory_limit(None), f"the records of {data.name} in another form")
        form = replace(self.form, categories=data.table.categories, standardize=data.table.standardize)
        features, unknown, missing = form.recode(data.features, data.table)
        notes = [Note(code, _most(counts)) for code, counts in
                 (("unknown_categories", unknown), ("unexpected_missing", missing)) if counts]  # fmt: skip
        return replace(data, features=features, table=form, notes=(*data.notes, *notes))

    def _with_classes(self, data: Dataset) -> Dataset:
        """The labels by the numbers that the model gives their names."""
        if not self.class_names or self.class_names == data.class_names:
            return data
        own = data.class_names or tuple(map(str, range(data.classes)))
        if new := [name for name in own if name not in self.class_names]:
            raise InputError(
                f"expected labels among {', '.join(self.class_names[:20])}, the classes of the model, got "
                f"{', '.join(new[:5])}; give the labels that it was trained on"
            )
        numbers = np.array([self.class_names.index(name) for name in own], np.int64)
        return replace(
            data, labels=numbers[data.labels], classes=len(self.class_names), class_names=self.class_names
        )  # fmt: skip


def _most(counts: Mapping[str, int]) -> dict[str, Any]:
    return {"values": sum(counts.values()), "columns": len(counts), "most": max(counts, key=lambda name: counts[name])}


def trained_form(model: str | Path, data: Dataset) -> TrainedForm:
    """The form that a model's file states, or the preprocessing beside it.

    Args:
        model: weights, their folder, or an ONNX file.
        data: the records that it shall be asked about; only a table has a form.

    Raises:
        InputError: a file that cannot be read.
    """
    path = weights_path(model)
    if path.suffix.lower() == ".onnx":
        return _of_metadata(read_onnx(path).metadata, data.table)
    if data.table is None or (place := preprocess_beside(path)) is None:
        return TrainedForm()
    preprocessing, content = read_preprocessing(place)
    try:
        return TrainedForm(preprocessing.form, _names(content.get("class_names", [])))
    except TypeError as error:
        raise InputError(f"expected names as class_names in {place}, got another value; correct it") from error


def _of_metadata(metadata: Mapping[str, str], given: TableForm | None) -> TrainedForm:
    """The form of an ONNX file, which reads a missing value in any column.

    Entries that :func:`~wemem.exporting.onnx.metadata_of` would not write are another program's and
    state nothing.
    """
    try:
        names, columns = (parse_json(metadata.get(key, "[]"), f"the {key}") for key in ("class_names", "columns"))
        among = _names(names)
        if given is None or not columns:
            return TrainedForm(None, among)
        missing = {column.name for column in given.columns if column.missing}
        read = [Column(str(c["name"]), _names(c.get("categories", [])), c["name"] in missing) for c in columns]
        return TrainedForm(TableForm(tuple(read)), among)
    except (InputError, TypeError, KeyError, AttributeError):
        return TrainedForm()


def _names(listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise TypeError("no list of names")
    return tuple(listed)
