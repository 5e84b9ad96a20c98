"""Soft targets: predictions of teachers on the train records of every model, and on views of them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int8, Int64, Real
from scipy.special import log_softmax, softmax

from wemem.data.dataset import Dataset
from wemem.data.fourier_features import FourierFeatures
from wemem.data.image_features import image_features, is_image
from wemem.data.preprocessing import Preprocessing
from wemem.data.split import Indices, Role, Split
from wemem.data.teachers import MOST_COMPONENTS, WORTH, Teachers
from wemem.data.views import DrawnViews
from wemem.training import Ensemble
from wemem.training.linear import LinearModels, fit_discriminants
from wemem.training.views import ViewedRecords

#: Smallest probability, so that every log-probability is finite in float32.
LEAST = 1e-30
#: Gap between the accuracy of a model on unseen records and the share of training records whose class
#: their targets name, above which the targets are weak.
WEAK = 0.15


def share_named(log_probabilities: Float32[np.ndarray, "n C"], labels: Int64[np.ndarray, " n"]) -> float:
    """Share of the records whose class is the likeliest in their target.

    >>> share_named(np.log(np.array([[0.8, 0.2], [0.6, 0.4]], np.float32)), np.array([0, 1]))
    0.5
    """
    return float((log_probabilities.argmax(axis=-1) == labels).mean())


def are_weak(named: float, reached: float) -> bool:
    """True if targets know the data too little to keep the accuracy of a model.

    Args:
        named: share of the training records whose class their targets name.
        reached: accuracy of the model on records that it did not train on.
    """
    return reached - named > WEAK


def dense_log_probabilities(
    dense: Ensemble, split: Split, data: Dataset, device: torch.device
) -> Float32[np.ndarray, "K N C"]:
    """Log-probabilities of each model on its own train records, 0 for other records."""
    targets = np.zeros((split.num_models, len(data), data.classes), np.float32)
    for k in range(split.num_models):
        train = split.records(k, Role.TRAIN)
        logits = dense.select([k]).logits(data.features[train], device=device)[0]
        targets[k, train] = log_softmax(logits.astype(np.float64), axis=-1)
    return targets


def linear_log_probabilities(
    parts: Split, split: Split, data: Dataset, source: Teachers
) -> Float32[np.ndarray, "K M C"]:
    """Compute what :func:`teacher_log_probabilities` does, by linear discriminants on the leading
    principal components of each teacher's records.
    """
    viewed, drawn = _viewed(split, data, source)
    targets = np.zeros((split.num_models, source.inputs_per_record * len(data), data.classes), np.float32)
    for k in range(split.num_models):
        records = split.records(k, Role.TRAIN)
        inputs = _linear_inputs(data, records)
        roles = parts.roles[k * source.count : (k + 1) * source.count]
        teachers = _discriminants(inputs(data.features[records]), data.labels[records], roles[:, records], data, source)
        for place in range(source.inputs_per_record):
            numbers = place * len(data) + records
            x = viewed.numbered(torch.tensor([k]), torch.from_numpy(numbers)[None])[0].numpy()
            p = teachers.probabilities(inputs(x))
            unseen = answering(roles, records, _donors(drawn, k, place, records))[..., None]
            targets[k, numbers] = _mean((p * unseen).sum(0), unseen.sum(0))
    return targets


def _discriminants(
    x: Real[np.ndarray, "n ..."], labels: Int64[np.ndarray, " n"], roles: Int8[np.ndarray, "T n"], data: Dataset,
    source: Teachers,
) -> LinearModels:  # fmt: skip
    """Discriminants of one model, on as many components as are worth it.

    Args:
        x: inputs of the model's n training records.
        labels: their classes.
        roles: their roles for each of the T teachers.
        data: the data set.
        source: numbers of components to choose from.
    """
    unseen = roles == Role.AUDIT
    best, most = None, 0.0
    for components in source.components_of(len(x), data.classes):
        models = fit_discriminants(x, labels, roles == Role.TRAIN, data.classes, components)
        named = float((models.probabilities(x).argmax(-1) == labels)[unseen].mean())
        if best is not None and named < most + WORTH:
            break
        best, most = models, named
    assert best is not None  # there is at least one number of components
    return best


def _mean(total: Float64[np.ndarray, "n C"], models: Real[np.ndarray, "n 1"]) -> Float64[np.ndarray, "n C"]:
    """Logarithms of mean probabilities; NaN where no model answered."""
    return np.where(models > 0, np.log(np.maximum(total / np.maximum(models, 1), LEAST)), np.nan)


def answering(roles: Int8[np.ndarray, "T N"], records: Indices, donors: Indices | None) -> Bool[np.ndarray, "T n"]:
    """Teachers whose predictions for a record, or for a view of it, are its target: those that
    trained neither on the record nor on that from which the view takes features.

    Args:
        roles: the role of every record for each teacher of a model.
        records: the records.
        donors: the record from which each view takes features; None for the records themselves.

    >>> roles = np.array([[Role.AUDIT, Role.AUDIT, Role.TRAIN], [Role.AUDIT, Role.TRAIN, Role.AUDIT]], np.int8)
    >>> answering(roles, np.array([0, 1]), np.array([1, 2])).tolist()
    [[True, False], [False, False]]
    """
    without: Bool[np.ndarray, "T n"] = roles[:, records] == Role.AUDIT
    return without if donors is None else without & (roles[:, donors] == Role.AUDIT)


def _viewed(split: Split, data: Dataset, source: Teachers) -> tuple[ViewedRecords, DrawnViews | None]:
    """Lookup of the records and of all models' views of them, and how these are composed."""
    train = [split.records(k, Role.TRAIN) for k in range(split.num_models)]
    drawn = None if source.views is None else source.views.draw(train, len(data), data.input_shape)
    return ViewedRecords(torch.from_numpy(data.features), drawn), drawn


def _donors(drawn: DrawnViews | None, model: int, place: int, records: Indices) -> Indices | None:
    """Record from which each view takes features; None for the records themselves."""
    return None if drawn is None or place == 0 else drawn.donors[model, place - 1, records]


def _linear_inputs(data: Dataset, records: Indices) -> Callable[[Real[np.ndarray, "n ..."]], Real[np.ndarray, "n ..."]]:
    """Function from features to the numbers in which the discriminants of a model are linear.

    Args:
        data: the data set.
        records: the training records of the model, on which preprocessing is fitted.
    """
    if is_image(data.input_shape):
        return image_features
    table = None if data.table is None else Preprocessing.fit(data.table, data.features[records])
    own = data.features[records] if table is None else table.apply(data.features[records])
    few = own[0].size < MOST_COMPONENTS
    fourier = FourierFeatures.fit(own) if few else None

    def inputs(features: Real[np.ndarray, "n ..."]) -> Real[np.ndarray, "n ..."]:
        x = features if table is None else table.apply(features)
        return x if fourier is None else fourier.apply(x)

    return inputs


def teacher_log_probabilities(
    chunks: Sequence[Ensemble], parts: Split, split: Split, data: Dataset, source: Teachers, device: torch.device
) -> Float32[np.ndarray, "K M C"]:
    """Logarithm of the mean probabilities of each model's teachers on the records that each was
    trained without.

    Args:
        chunks: the teachers of all K models, ``source.count`` for each, in one or several
            ensembles.
        parts: roles of the teachers (:func:`~wemem.data.teachers.held_out`).
        split: roles of the models.
        data: N records.
        source: number of teachers, and the views that they predict: M is N, and as many more for
            each view.
        device: where they compute.

    Returns:
        By model and number of a record or view: NaN for a view if every teacher was trained on its
        record or on that from which it takes features; 0 for records that the model was not trained on.
    """
    teachers = [(ensemble, place) for ensemble in chunks for place in range(len(ensemble))]
    viewed, drawn = _viewed(split, data, source)
    targets = np.zeros((split.num_models, source.inputs_per_record * len(data), data.classes), np.float32)
    for k in range(split.num_models):
        records, first = split.records(k, Role.TRAIN), k * source.count
        roles = parts.roles[first : first + source.count]
        asked = [answering(roles, records, _donors(drawn, k, v, records)) for v in range(source.inputs_per_record)]
        total, models = np.zeros(targets.shape[1:]), np.zeros(targets.shape[1])
        for t in range(source.count):
            unseen = np.concatenate([v * len(data) + records[by[t]] for v, by in enumerate(asked)])
            x = viewed.numbered(torch.tensor([k]), torch.from_numpy(unseen)[None])[0].numpy()
            ensemble, place = teachers[first + t]
            logits = ensemble.select([place]).logits(x, device=device)[0]
            total[unseen] += softmax(logits.astype(np.float64), axis=-1)
            models[unseen] += 1
        every = np.add.outer(len(data) * np.arange(source.inputs_per_record), records).ravel()
        targets[k, every] = _mean(total[every], models[every, None])
    return targets
