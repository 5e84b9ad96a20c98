"""Memorization scores from a user's own training function, and the models that it trains for them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from wemem.blocks.observation import note_estimate
from wemem.data.split import Indices, Role, subsets
from wemem.errors import InputError
from wemem.files.atomic import write_atomically
from wemem.files.hashing import sha256_of
from wemem.files.memory_limit import memory_limit
from wemem.files.npz import read_npz
from wemem.memorization import Form, Memorization, estimate_memorization, truth_values
from wemem.randomness import derive_seed

#: Predictions of a trained model: from record numbers, int64 ``(n,)``, to logits, float32 ``(n,
#: C)``.
Predict = Callable[[Int64[np.ndarray, " n"]], Float32[np.ndarray, "n C"]]
#: A user's training: from the records to train on and a seed below 2**32 to predictions.
Train = Callable[[Int64[np.ndarray, " n"], int], Predict]


def memorization_scores(
    train: Train,
    labels: Sequence[int] | np.ndarray,
    *,
    models: int = 40,
    fraction: float = 0.7,
    form: Form = "probability",
    seed: int = 0,
    directory: str | Path | None = None,
) -> Memorization:
    """Estimate the memorization score of every record with models on random subsets.

    Args:
        train: trains one model on some records and returns its predictions.
        labels: int64, shape ``(N,)``, labels of the data set.
        models: number of models. Each record is in about ``fraction`` of them.
        fraction: share of the records that a model trains on.
        form: average the ``probability`` of the true class, or the ``indicator`` of a correct
            prediction.
        seed: seed of the subsets and of the models.
        directory: where each model's predictions are stored as it ends; a second call continues
            there.

    Returns:
        Scores with standard errors. ``Memorization.write`` makes the file that a study's
        ``scores.file`` and :class:`~wemem.blocks.PruningEngine` read.

    Raises:
        InputError: sizes that do not fit, predictions of another shape or not finite, or a
            directory of another estimate. Errors of ``train`` come through as they are.
    """
    classes = np.asarray(labels, np.int64)
    every, dev = np.arange(len(classes)), len(classes) + np.arange(len(np.unique(classes)))
    size = round(fraction * len(classes))
    split = subsets(_with_dev(classes), every, size, models, seed=seed, purpose="blocks/scores", dev=dev)
    chosen = [split.records(k, Role.TRAIN) for k in range(models)]
    seeds = [model_seed(seed, "blocks/scores", k) for k in range(models)]
    stored = has_models(directory)
    logits = np.stack(list(predictions(train, chosen, seeds, [every] * models, directory)))
    scores = estimate_memorization(truth_values(logits, classes, form), split.roles[:, : len(classes)])
    note_estimate(scores.score, classes, f"{form} of {models} models on {fraction} of the records", stored)
    return scores


def memorization_of_models(
    logits: Float32[np.ndarray, "T N C"],
    trained_on: Bool[np.ndarray, "T N"],
    labels: Sequence[int] | np.ndarray,
    form: Form = "probability",
) -> Memorization:
    """Estimate memorization scores from models that are trained already.

    Args:
        logits: predictions of each model on every record.
        trained_on: True where a model trained on a record.
        labels: int64, shape ``(N,)``.
        form: as in :func:`memorization_scores`.
    """
    roles = np.where(trained_on, Role.TRAIN, Role.AUDIT).astype(np.int8)
    return estimate_memorization(truth_values(logits, np.asarray(labels, np.int64), form), roles)


def _with_dev(labels: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " M"]:
    """Labels with one more record of each class at the end: splits need dev records, a user's
    function does not.
    """
    return np.concatenate([labels, np.unique(labels)])


def has_models(directory: str | Path | None) -> bool:
    """True if predictions of an earlier call are in the directory."""
    return directory is not None and any(Path(directory).expanduser().glob("model-*.npz"))


def model_seed(seed: int, purpose: str, k: int) -> int:
    """Seed of one model, within what libraries take."""
    return derive_seed(seed, purpose, k) % 2**32


def predictions(
    train: Train, chosen: list[Indices], seeds: list[int], queried: list[Indices], directory: str | Path | None
) -> Iterator[Float32[np.ndarray, "n C"]]:
    """Predictions of each model, computed or read from the directory."""
    place = None if directory is None else Path(directory).expanduser()
    if place is not None:
        _require_same(place, {"records": sha256_of([c.tolist() for c in [*chosen, *queried]]), "seeds": seeds})
    for k, (records, seed, numbers) in enumerate(zip(chosen, seeds, queried, strict=True)):
        file = None if place is None else place / f"model-{k:04}.npz"
        if file is not None and file.exists():
            yield read_npz(file, ["logits"], limit=memory_limit(None))[0]
            continue
        logits = np.asarray(train(records, seed)(numbers), np.float32)
        if logits.ndim != 2 or len(logits) != len(numbers) or logits.shape[1] < 2:
            raise InputError(
                f"expected logits of shape ({len(numbers)}, classes) from the trained model, got {logits.shape}; "
                "return one row for each record number"
            )
        if not np.isfinite(logits).all():
            raise InputError("expected finite logits from the trained model, got NaN or infinity")
        if file is not None:
            _save(file, logits)
        yield logits


def _save(file: Path, logits: Float32[np.ndarray, "n C"]) -> None:
    def save(part: Path) -> None:
        with part.open("wb") as stream:
            np.savez(stream, logits=logits)

    write_atomically(file, save)


def _require_same(place: Path, made_from: dict[str, Any]) -> None:
    """Refuse a directory with another estimate's models; begin one that is empty."""
    note, text = place / "estimate.json", json.dumps(made_from)
    if note.exists() and note.read_text("utf-8") != text:
        raise InputError(f"expected {place} to hold models of this estimate, got another one's; give a new directory")
    write_atomically(note, lambda part: part.write_text(text, encoding="utf-8"))
