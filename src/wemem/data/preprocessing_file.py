"""A preprocessing as a JSON document of plain numbers, ``preprocess.json``.

One entry stands for each column of the table. A column of numbers has the number that fills a
missing value, the number that is subtracted and the one that it is divided by. A column of
categories lists them, and whether the training records had each. ``missing`` is null if no record
of the table lacks a value; else it states whether a training record did.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wemem.data.preprocessing import Preprocessing
from wemem.data.table_form import Column, TableForm
from wemem.errors import InputError
from wemem.files.documents import read_json

SCHEMA = "wemem.preprocess/1"
#: Bytes of the document; a table of 65,536 numbers for each record takes a tenth.
LIMIT = 2**26


def preprocessing_text(preprocessing: Preprocessing, **more: Any) -> str:
    """The document of a preprocessing.

    Args:
        preprocessing: the preprocessing.
        more: further entries, such as the names of the classes.
    """
    form, present = preprocessing.form, iter(preprocessing.present.tolist())
    numbers = zip(preprocessing.filling, preprocessing.shift, preprocessing.scale, strict=True)
    columns: list[dict[str, Any]] = []
    for column in form.columns:
        entry: dict[str, Any] = {"name": column.name, "missing": next(present) if column.missing else None}
        if column.categories:
            entry["categories"] = list(column.categories)
            entry["present"] = [next(present) for _ in column.categories]
        else:
            # a float32 is written with as many digits as it takes to read the same number back
            entry |= dict(zip(("filling", "shift", "scale"), (float(n) for n in next(numbers)), strict=True))
        columns.append(entry)
    document = {
        "schema": SCHEMA, **more, "records": preprocessing.records, "categories": form.categories,
        "standardize": form.standardize, "columns": columns,
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_preprocessing(path: str | Path) -> tuple[Preprocessing, Mapping[str, Any]]:
    """Read a preprocessing, and the whole document.

    Raises:
        InputError: a file that cannot be read, or that is no preprocessing.
    """
    kind = "a preprocessing"
    content = read_json(path, kind, limit=LIMIT)
    try:
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        return _preprocessing_of(content), content
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"expected {kind} in {path}, got: {type(error).__name__}: {line}; write it again") from error


def _preprocessing_of(content: Mapping[str, Any]) -> Preprocessing:
    columns, present, numbers = list[Column](), list[bool](), list[tuple[float, float, float]]()
    for entry in content["columns"]:
        names, missing = entry.get("categories", []), entry["missing"]
        if not isinstance(entry["name"], str) or not all(isinstance(name, str) for name in names):
            raise ValueError("a name that is no text")
        columns.append(Column(entry["name"], tuple(names), missing is not None))
        flags = [*([] if missing is None else [missing]), *(entry["present"] if names else [])]
        if not all(isinstance(flag, bool) for flag in flags) or (names and len(entry["present"]) != len(names)):
            raise ValueError(f"no true or false for each category of {entry['name']!r}")
        present += flags
        if not names:
            numbers.append((float(entry["filling"]), float(entry["shift"]), float(entry["scale"])))
    if content["categories"] not in ("one-hot", "codes") or not isinstance(content["standardize"], bool):
        raise ValueError("no form of categories")
    form = TableForm(tuple(columns), content["categories"], content["standardize"])
    with np.errstate(over="ignore"):
        filling, shift, scale = np.array(numbers, np.float32).reshape(-1, 3).T.copy()
    return Preprocessing(form, filling, shift, scale, np.array(present, bool), int(content["records"]))
