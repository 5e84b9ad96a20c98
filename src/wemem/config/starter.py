"""A commented study file to start from, with values that suit the data."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.data.sources import DataSource
from wemem.errors import InputError
from wemem.files.atomic import write_atomically
from wemem.files.documents import parse_toml
from wemem.files.input_files import user_path

#: Steps that an epoch should have at least; with fewer, training stops before the model has learned.
STEPS = 12
#: Shares of a party's records, as the defaults of ``[split]``.
TRAIN, DEV = 0.6, 0.1


def write_starter(source: DataSource, out: str | Path) -> None:
    """Write :func:`starter_study` of the data that a source loads into a new file.

    Raises:
        InputError: the file exists, or the data cannot be used.
    """
    path = user_path(out)
    if path.exists():
        raise InputError(f"expected a study file that does not exist yet, got {str(out)!r}; give another --out")
    text = starter_study(source, source.load())
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def starter_study(source: DataSource, data: Dataset) -> str:
    """A study file for a data set, with a comment on every value.

    Args:
        source: the source, which becomes ``[data]``.
        data: the data set that it loads.

    Raises:
        InputError: the data cannot be split as a study splits them.

    >>> from wemem.data.sources import DataSource
    >>> source = DataSource("digits")
    >>> print(starter_study(source, source.load()).splitlines()[0])
    # A study of 1,797 records in 10 classes, the smallest of 174.
    """
    given = {key: value for key, value in source.table().items() if value is not None}
    train = int(len(data) // 2 * TRAIN)
    others = len(data) // 2 - train - int(len(data) // 2 * DEV)
    smallest = int(np.bincount(data.labels, minlength=data.classes).min())
    text = _TEXT.format(
        records=f"{len(data):,}",
        classes=data.classes,
        smallest=f"{smallest:,}",
        data="\n".join(f"{key} = {_toml(value)}" for key, value in given.items()),
        shape=" x ".join(map(str, data.input_shape)),
        model=_model(data),
        train=f"{train:,}",
        others=f"{others:,}",
        fpr=f"{100 / max(others, 1):.2g}",
        batch=_batch_size(train),
    )
    parse_study(parse_toml(text, "the starter study"))
    return text


def _model(data: Dataset) -> str:
    """The built-in model for records of that form."""
    if data.table is not None or data.inputs is not None or len(data.input_shape) not in (1, 3):
        return "fc"
    if len(data.input_shape) == 3:
        return "resnet8" if data.input_shape[0] == 3 else "convnet"
    return "text_transformer" if data.features.dtype == np.int64 else "fc"


def _batch_size(train: int) -> int:
    """The largest power of two, of at most 128, that leaves enough steps.

    >>> _batch_size(180), _batch_size(10_000)
    (16, 128)
    """
    return max(16, min(128, 1 << int(np.log2(max(train // STEPS, 1)) + 0.5)))


def _toml(value: Any) -> str:
    r"""A value as TOML writes it.

    >>> print(_toml('a"b'), _toml(True), _toml(("x", 2)))
    "a\"b" true ["x", 2]
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


_TEXT = """\
# A study of {records} records in {classes} classes, the smallest of {smallest}.
#   wemem plan THIS_FILE                      what it computes and how long it takes
#   wemem compare THIS_FILE --out runs/first  run it, and write report.html
# Every key has a default; docs/study.md describes all of them.
name = "first"
# One whole repetition each. Two or more say whether a difference is more than chance.
seeds = [0]
# threshold (seconds), quick (with RMIA), ten (the paper's suite) or full (the strongest).
attacks = "quick"

[data]
{data}

# For records of shape {shape}. Your own network: kind = "mymodule:factory".
[model]
kind = "{model}"

# Half of the records are the victim's. It trains on {train} of them and is audited on {others} others,
# which can show a false positive rate of {fpr} % or more.
[split]
train = 0.6
dev = 0.1
# Models of the adversary: on its own records, and on random halves of the audited ones. Use 64
# references before you rely on LiRA or RMIA.
shadows = 2
references = 16

# Models that estimate how much each record is memorized, for rsw, rmr and swmr. The default is 40.
[scores]
models = 10

[training]
epochs = 100
batch_size = {batch}

# Fine-tuning of one round.
[finetune]
epochs = 21
batch_size = {batch}

[pruning]
sparsity = 0.6
rounds = 5

# Each is one arm of the comparison; wemem list defenses names all. The control arms unpruned and
# one_shot are added by themselves.
[[defenses]]
kind = "undefended"

[[defenses]]
kind = "swmr"
"""
