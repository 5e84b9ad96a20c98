"""Data, members, defenses and attacks of a program in the form that a study takes."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset

from wemem.attacks import kind_of
from wemem.attacks.base import Attack
from wemem.config.attack_entries import table_of_attack
from wemem.config.defense_entries import table_of_defense
from wemem.config.parse import parse_study, read_table
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.loaders.arrays import dataset_of
from wemem.data.sources import DataSource, LoadedData
from wemem.defenses import Defense
from wemem.errors import InputError
from wemem.exporting.checkpoint import write_weights
from wemem.exporting.preprocess import preprocess_of, preprocess_path
from wemem.exporting.shards import weights_path
from wemem.files.atomic import write_atomically
from wemem.files.record_tables import write_members
from wemem.models.custom import unwrapped
from wemem.models.table import model_for
from wemem.objects.code import ArchitectureLike, architecture_of
from wemem.pipeline.loading import study_data
from wemem.resolve import Given
from wemem.study.loops import NumberedPredict

Place = str | Path
StudyLike = StudyConfig | Place | Mapping[str, Any]
DataLike = Dataset | DataSource | Place | tuple[Any, Any] | TorchDataset[Any]
DefenseLike = Defense | str | Mapping[str, Any]
AttackLike = Attack | str | Mapping[str, Any]
MembersLike = Place | Sequence[int] | np.ndarray

#: Record numbers stand in two columns, so that float32 holds each of them exactly.
BASE = 2**16


def study_of(
    study: StudyLike | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    data: DataLike | None = None,
    architecture: ArchitectureLike | None = None,
    defenses: DefenseLike | Iterable[DefenseLike] | None = None,
    attacks: AttackLike | Iterable[AttackLike] | None = None,
    victim: tuple[Path, Path] | None = None,
) -> StudyConfig:
    """Return a study with some of its parts given as objects.

    Args:
        study: a study, its table, or the path of its file; the defaults if None.
        settings: keys of the study's table set anew; tables within are merged.
        data: the records, in place of the study's.
        architecture: the model, in place of the study's.
        defenses: the only defenses, in place of the study's.
        attacks: the attacks or a preset, in place of the study's.
        victim: the files of a trained model and of its members.

    Raises:
        InputError: anything that a study refuses, or an object of another kind.
    """
    changes = (data, architecture, defenses, attacks, victim)
    if isinstance(study, StudyConfig) and not settings and all(one is None for one in changes):
        return study
    table: dict[str, Any] = merged(_table(study), settings or {})
    loaded, model = None, None
    if data is not None:
        loaded = loaded_data(data)
        table["data"] = loaded.table() if isinstance(loaded, DataSource) else {"source": "digits"}
    if architecture is not None:
        table["model"], model = architecture_of(architecture)
    if defenses is not None:
        table["defenses"] = [_defense_entry(one) for one in _several(defenses)]
    if attacks is not None:
        table["attacks"] = attacks if isinstance(attacks, str) else [_attack_entry(one) for one in _several(attacks)]
    if victim is not None:
        weights, members = victim
        table["victim"] = {**table.get("victim", {}), "weights": str(weights), "members": str(members)}
    named = table.get("model", {})
    config = parse_study(table if model is None else {**table, "model": {}})
    if model is not None:
        config = replace(config, model=model, table={**config.table, "model": named})
    if isinstance(loaded, LoadedData):
        config = replace(config, data=loaded, table={**config.table, "data": {"source": loaded.dataset.name}})
    return config


def own_architecture(architecture: ArchitectureLike | None, model: object) -> ArchitectureLike | None:
    """The architecture that is given, else that of a model that is a module."""
    return model if architecture is None and isinstance(model, nn.Module) else architecture


def require_processes(config: StudyConfig, jobs: int, ray: str | None) -> None:
    """Refuse other processes for a study that they cannot read from its table.

    Raises:
        InputError: data or a model in memory, and more than one process or Ray.
    """
    in_memory = isinstance(config.data, LoadedData) or isinstance(getattr(config.model, "factory", None), Given)
    if in_memory and (jobs > 1 or ray is not None):
        raise InputError(
            f"expected jobs=1 and no ray with data or a model in memory, got jobs={jobs} and ray={ray!r}; for other "
            "processes give the path of a data file and the model as 'module:factory'"
        )


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with some keys set anew.

    >>> merged({"split": {"shadows": 5, "dev": 0.1}}, {"split": {"shadows": 2}})
    {'split': {'shadows': 2, 'dev': 0.1}}
    """
    result = dict(table)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def loaded_data(data: DataLike) -> DataSource | LoadedData:
    """Return the source of a data set, or the data set itself.

    Args:
        data: a :class:`~wemem.data.dataset.Dataset`, a source by name or path, ``(features,
            labels)``, or a map-style torch data set, each record of which is read once. Features
            may be several inputs, as a mapping or a tuple.

    Raises:
        InputError: something else, or records that are no arrays.
    """
    match data:
        case Dataset():
            return LoadedData(data)
        case DataSource():
            return data
        case str() | Path():
            return DataSource(str(data))
        case (features, labels):
            several = isinstance(features, Mapping | tuple)
            return LoadedData(dataset_of("arrays", features if several else np.asarray(features), np.asarray(labels)))
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError(
            f"expected a path, a Dataset, (features, labels) or a map-style torch data set, got {type(data).__name__}; "
            "collect its records in two arrays"
        )
    pairs = [_record_and_label(type(data).__name__, data[i]) for i in range(len(data))]
    if not pairs:
        raise InputError(f"expected records (features, label) in {type(data).__name__}, got none; give some")
    records, labels = zip(*pairs, strict=True)
    return LoadedData(dataset_of(type(data).__name__, _stacked(type(data).__name__, records), np.asarray(labels)))


def _record_and_label(name: str, item: Any) -> tuple[Any, int]:
    """One item of a torch data set as its features and its label.

    An item is a pair, or a mapping with an entry ``labels`` or ``label``, as of Hugging Face.
    """
    if isinstance(item, Mapping):
        key = next((key for key in ("labels", "label") if key in item), None)
        if key is not None and len(item) > 1:
            return {name: value for name, value in item.items() if name != key}, int(item[key])
    elif isinstance(item, tuple | list) and len(item) == 2:
        return item[0], int(item[1])
    raise InputError(
        f"expected records (features, label) or mappings with an entry labels in {name}, got {type(item).__name__}; "
        "give arrays, or to audit by functions of record numbers give their labels as labels=..."
    )


def _stacked(name: str, records: Sequence[Any]) -> Any:
    """The features of all records as one array, or several by name or position."""
    first = records[0]
    if isinstance(first, Mapping):
        if any(not isinstance(one, Mapping) or one.keys() != first.keys() for one in records):
            raise InputError(f"expected the inputs {', '.join(map(str, first))} in every record of {name}, got others")
        return {key: _stacked(name, [one[key] for one in records]) for key in first}
    if isinstance(first, tuple):
        if any(not isinstance(one, tuple) or len(one) != len(first) for one in records):
            raise InputError(f"expected {len(first)} inputs in every record of {name}, got another number in some")
        return tuple(_stacked(name, [one[i] for one in records]) for i in range(len(first)))
    try:
        return np.stack([np.asarray(one) for one in records])
    except ValueError as error:
        raise InputError(f"expected records of one shape in {name}, got: {error}; pad them") from error


def numbered_records(labels: Any) -> Dataset:
    """Return a data set that knows its records by their numbers alone, for functions that look the
    records up.
    """
    y = np.asarray(labels)
    numbers = np.stack(np.divmod(np.arange(len(y)), BASE), 1)[:, None, :].astype(np.float32)
    return Dataset.from_arrays("records", numbers, y)


def record_numbers(features: np.ndarray) -> np.ndarray:
    """Return the numbers of records of :func:`numbered_records`.

    >>> record_numbers(numbered_records([0, 1, 0]).features)
    array([0, 1, 2])
    """
    return np.asarray(features[:, 0, 0], np.int64) * BASE + np.asarray(features[:, 0, 1], np.int64)


def by_numbers(train: Callable[..., Any]) -> Callable[..., Any]:
    """Return a train function on features for one on record numbers, ``train(records, seed) ->
    predict(records)``.
    """

    def train_on(features: np.ndarray, _labels: np.ndarray, seed: int) -> Callable[[np.ndarray], Any]:
        return NumberedPredict(train(record_numbers(features), seed), record_numbers)

    return train_on


def members_file(members: MembersLike, folder: Path) -> Path:
    """Return the file of a list of members, written into a folder if it is none yet.

    Raises:
        InputError: no list of record numbers.
    """
    if isinstance(members, str | Path):
        return Path(members)
    numbers = np.asarray(members)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer) or not len(numbers):
        raise InputError(
            f"expected members as record numbers, got {numbers.dtype} of shape {numbers.shape}; give the number of "
            "each training record, as np.flatnonzero makes them of a mask"
        )
    path = folder / "members.npz"
    write_atomically(path, lambda part: write_members(part, numbers))
    return path


def weights_file(model: Place | nn.Module, folder: Path) -> Path:
    """Return the file of a model's weights, written into a folder if the model is a module, with its
    preprocessing beside it if the model has one.
    """
    if isinstance(model, nn.Module):
        path, module = folder / "model.safetensors", unwrapped(model)
        state = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
        write_atomically(path, lambda part: write_weights(part, state))
        if (text := preprocess_of(path, module, ())) is not None:
            write_atomically(preprocess_path(path), lambda part: part.write_text(text, encoding="utf-8"))
        return path
    return weights_path(model)


def built_network(config: StudyConfig) -> nn.Module:
    """Return the architecture of a study, with new weights."""
    records = study_data(config)
    return model_for(config.model, records).build(records.input_shape, records.classes)


def _table(study: StudyLike | None) -> dict[str, Any]:
    match study:
        case None:
            return {}
        case StudyConfig():
            return copy.deepcopy(dict(study.table))
        case Mapping():
            return copy.deepcopy(dict(study))
        case _:
            return read_table(Path(study))


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else [given]


def _defense_entry(given: Any) -> str | dict[str, Any]:
    if isinstance(given, Defense):
        return table_of_defense(given)
    return given if isinstance(given, str) else dict(given)


def _attack_entry(given: Any) -> str | dict[str, Any]:
    if isinstance(given, Attack):
        return table_of_attack(given.name, kind_of(given), given)
    return given if isinstance(given, str) else dict(given)
