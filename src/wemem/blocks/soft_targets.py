"""Out-of-sample soft targets for a user's own loop."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Real
from scipy.special import log_softmax

from wemem.blocks.estimates import Train, has_models, model_seed, predictions
from wemem.blocks.observation import note_estimate
from wemem.blocks.views import SwappedViews
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.table_form import TableForm
from wemem.data.teachers import Teachers, held_out
from wemem.data.views import DrawnViews, Views
from wemem.defenses import Defense, Distillation, OutOfSampleDistillation
from wemem.errors import InputError
from wemem.files.atomic import write_atomically
from wemem.notes import Note
from wemem.training.teacher_targets import LEAST, are_weak, linear_log_probabilities, share_named
from wemem.training.views import only_answered


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Log-probabilities that models without a record predict for it.

    Args:
        log_probabilities: float32, shape ``(M, C)``. Row ``v * N + r`` belongs to view ``v`` of
            record ``r``, view 0 being the record.
        share_named: share of the records whose class is the likeliest in their target.
        drawn: composition of the views, if linear teachers predicted them.
    """

    log_probabilities: Float32[np.ndarray, "M C"]
    share_named: float
    drawn: DrawnViews | None = None

    def viewed(self, dataset: Any) -> Any:
        """Give the data set with the views to which the targets belong.

        Args:
            dataset: map-style data set of the N records. Of each item the first element is the
                features for which the targets were computed.

        Returns:
            The data set for the loader of :meth:`wemem.PruningEngine.prepare`; the same one if
            there are no views, or if a train function predicted views of the user's.
        """
        return dataset if self.drawn is None else SwappedViews(dataset, self.drawn)

    def write(self, path: str | Path) -> None:
        """Write an ``.npz`` file with the array ``log_probabilities``, without the views."""
        file = Path(path)
        if file.suffix != ".npz":
            raise InputError(f"expected a file ending in .npz for soft targets, got {file.name!r}")

        def save(part: Path) -> None:
            with part.open("wb") as stream:
                np.savez_compressed(stream, log_probabilities=self.log_probabilities)

        write_atomically(file, save)


def out_of_sample_targets(
    train: Train | None,
    labels: Sequence[int] | np.ndarray,
    features: Real[np.ndarray, "N ..."],
    *,
    defense: Defense | None = None,
    table: TableForm | None = None,
    teachers: int | None = None,
    held_out_from: int | None = None,
    clusters: int | None = None,
    views: int | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    dev_accuracy: float | None = None,
) -> SoftTargets:
    """Predict every record with models that trained neither on it nor on records similar to it.

    Without ``train`` the teachers are those of ``wemem run`` under the defense: linear
    discriminants, which hide mislabelled records far better than networks do. For the same records
    in the same order and the same seed, their targets are the same to the bit. Views are drawn for
    a number of records, so that a data set with further records has others. Where the defense names
    networks as teachers (records of token ids, or ``components = 0``), ``train`` trains them.

    Args:
        train: trains one teacher on some records and returns its predictions. With views it also
            predicts the numbers ``v * N + r``. None for linear teachers.
        labels: int64, shape ``(N,)``, classes ``0 .. C-1``.
        features: numbers that show which records are similar, and on which linear teachers train.
            Never features learned from these records.
        defense: the defense that learns from the targets; its settings are those of the teachers.
            By default ``oosd`` with its defaults; with a train function the four settings below.
        table: columns of a table, of which ``features`` holds one number each, as
            :func:`wemem.load_dataset` gives them.
        teachers: number of models that ``train`` trains, 10 by default; like the next three only
            without a defense.
        held_out_from: number of teachers that do not train on a record, 3 by default.
        clusters: clusters of similar records in each class, held out as a whole, 5 by default; 0
            holds out single records.
        views: number of views of each record, 0 by default.
        seed: seed of the split and of the teachers; in a study, that of the model.
        directory: as in :func:`memorization_scores`, for teachers of ``train``.
        dev_accuracy: accuracy of a network of the user's on records that it did not train on. A
            warning is given where the targets name far fewer classes.

    Raises:
        InputError: as :func:`memorization_scores`, labels that are not whole numbers, an accuracy
            that is no share, teachers that are not those of the defense, or settings in two places.
    """
    if dev_accuracy is not None and not 0 <= dev_accuracy <= 1:
        raise InputError(f"expected dev_accuracy from 0 to 1, got {dev_accuracy}; give the share of right predictions")
    source = _source(
        train, defense, {"count": teachers, "held_out": held_out_from, "clusters": clusters, "views": views}
    )
    data, n = _with_dev(features, labels, table), len(labels)
    _require_trainer(train, networks=not source.linear(data))
    roles = np.where(np.arange(len(data)) < n, Role.TRAIN, Role.DEV).astype(np.int8)[None]
    split = Split(roles, data.labels, "subsets")
    parts = held_out(split, source, [seed], data.features, table)
    if train is not None:
        stored = has_models(directory)
        log_p, drawn = _of_networks(train, parts, source, n, seed, directory), None
        how = (
            f"{source.count} teachers, {source.held_out} without a record, {source.clusters} clusters, "
            f"{source.inputs_per_record - 1} views"
        )
    else:
        log_p, drawn = _of_discriminants(parts, split, data, source, n)
        how, stored = f"discriminants of {source!r}", False
    note_estimate(log_p, data.labels[:n], how, stored)
    named = share_named(log_p[:n], data.labels[:n])
    if dev_accuracy is not None and are_weak(named, dev_accuracy):
        values = {"named": named, "reached": dev_accuracy, "networks": train is not None}
        warnings.warn(f"{Note('weak_targets', values)}.", stacklevel=2)
    return SoftTargets(log_p, named, drawn)


def _source(train: Train | None, defense: Defense | None, settings: Mapping[str, int | None]) -> Teachers:
    """The teachers that a defense names; those of the settings for a train function without a
    defense.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if train is not None and defense is None:
        views = given.pop("views", 0)
        counts = {"count": 10, "held_out": 3, "clusters": 5, **given}
        return Teachers(**counts, views=Views(views, 0.5) if views else None, components=0)
    if given:
        raise InputError(
            f"expected the settings of the teachers in the defense, got {', '.join(given)} beside it; set them there, "
            'as in wemem.make_defense("oosd", {"teachers": 10})'
        )
    chosen = OutOfSampleDistillation() if defense is None else defense
    distillation = chosen.capability(Distillation)
    if distillation is None or not isinstance(distillation.source, Teachers):
        raise InputError(f"expected a defense that learns from held-out teachers, got {chosen.name}; give oosd")
    return distillation.source


def _require_trainer(train: Train | None, *, networks: bool) -> None:
    """Refuse networks as teachers without a train function, and linear ones with one."""
    if train is None and networks:
        raise InputError(
            "expected a train function for teachers that are networks, got none; give it, or give features as float32 "
            "and leave components = 0 out of the defense"
        )
    if train is not None and not networks:
        raise InputError(
            "expected no train function, since teachers of real-valued records are linear, got one; give None, or set "
            "components = 0 in the defense"
        )


def _with_dev(
    features: Real[np.ndarray, "N ..."], labels: Sequence[int] | np.ndarray, table: TableForm | None
) -> Dataset:
    """The records, and one more of each class at the end, since splits need dev records."""
    x, given = np.asarray(features), np.asarray(labels)
    if given.dtype.kind not in "biuf" or not np.array_equal(given, np.floor(given)):
        raise InputError(f"expected whole-number labels, got {given.dtype}; number the classes from 0")
    y = given.astype(np.int64)
    x = x.astype(np.int64 if x.dtype.kind in "iu" else np.float32, copy=False)
    x = x[:, None] if x.ndim == 1 else x
    if len(x) != len(y) or not len(y):
        raise InputError(f"expected features of each of {len(y)} records, at least one, got {x.shape}")
    first = np.unique(y, return_index=True)[1]
    every = np.concatenate([np.arange(len(y)), first])
    return Dataset("records", x[every], y[every], int(y.max()) + 1, table=table)


def _of_discriminants(
    parts: Split, split: Split, data: Dataset, source: Teachers, n: int
) -> tuple[Float32[np.ndarray, "M C"], DrawnViews | None]:
    """Targets of the first n records by linear teachers, and the composition of their views."""
    targets, drawn = linear_log_probabilities(parts, split, data, source), None
    if source.views is not None:
        drawn = source.views.draw([split.records(0, Role.TRAIN)], len(data), data.input_shape)
        drawn, targets = only_answered(drawn, targets)
        drawn = replace(drawn, donors=drawn.donors[..., :n], pattern=drawn.pattern[:, :n])
    by_input = targets[0].reshape(source.inputs_per_record, len(data), -1)
    return by_input[:, :n].reshape(-1, by_input.shape[-1]), drawn


def _of_networks(
    train: Train, parts: Split, source: Teachers, n: int, seed: int, directory: str | Path | None
) -> Float32[np.ndarray, "M C"]:
    """Targets of the n records and their views by teachers that a user's function trains."""
    places, count = np.arange(source.inputs_per_record), source.count
    chosen = [parts.records(t, Role.TRAIN) for t in range(count)]
    without = [np.add.outer(n * places, parts.records(t, Role.AUDIT)).ravel() for t in range(count)]
    seeds = [model_seed(seed, "blocks/teachers", t) for t in range(count)]
    total, models = None, np.zeros(len(places) * n)
    for queried, logits in zip(without, predictions(train, chosen, seeds, without, directory), strict=True):
        total = np.zeros((len(models), logits.shape[1])) if total is None else total
        total[queried] += np.exp(log_softmax(logits.astype(np.float64), axis=-1))
        models[queried] += 1
    assert total is not None
    return np.log(np.maximum(total / models[:, None], LEAST)).astype(np.float32)
