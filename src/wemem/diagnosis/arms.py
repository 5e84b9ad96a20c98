"""Execution of one arm of a diagnosis: dense models are pruned in rounds and evaluated on the whole
pool.

Each round trains on the records of its design. The outputs after each round stay in the store.
Weights stay until the next round ends, so that a killed run loses at most one round.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import expit

from wemem.data.split import Split
from wemem.defenses import Undefended
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cache import Arrays
from wemem.pipeline.cost import training_work
from wemem.pipeline.pipeline import Pipeline
from wemem.pruning import Pruning, iterate
from wemem.signals import logit_confidence
from wemem.store.diagnosis_keys import ExposedAnswersKey, ExposedRoundKey
from wemem.store.key import Key
from wemem.store.keys import rules_of
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class Trace:
    """Answers of ``K`` models on the ``N`` records of the pool before the first round, and after
    each of R.

    Args:
        confidence: float64, shape ``(R + 1, K, N)``: the logit of the true class's probability.
        right: bool, same shape: whether the prediction is right.
        kept_epochs: per round, of each model, how many epochs its kept checkpoint has seen.
        seconds: the wall time of the computation, in seconds.
    """

    confidence: Float64[np.ndarray, "R+1 K N"]
    right: Bool[np.ndarray, "R+1 K N"]
    kept_epochs: tuple[tuple[int, ...], ...]
    seconds: float

    @property
    def probability(self) -> Float64[np.ndarray, "R+1 K N"]:
        """The true class's probability."""
        return np.asarray(expit(self.confidence))

    @classmethod
    def join(cls, parts: "Sequence[Trace]") -> "Trace":
        """Concatenate the models of several traces of one arm."""
        epochs = zip(*(part.kept_epochs for part in parts), strict=True)
        return cls(
            np.concatenate([part.confidence for part in parts], axis=1),
            np.concatenate([part.right for part in parts], axis=1),
            tuple(tuple(e for part in one_round for e in part) for one_round in epochs),
            sum(part.seconds for part in parts),
        )


@dataclass(frozen=True, eq=False)
class Course:
    """The course of an arm for some models.

    Args:
        title: the title for the progress display.
        dense: the dense models that the first round starts from.
        splits: the split of each round.
        pruning: the schedule and the fine-tuning recipe; models are not rewound.
        seeds: the seeds of the models, one for each.
        pool: the indices of the records on which the models are evaluated.
    """

    title: str
    dense: TrainedModels
    splits: tuple[Split, ...]
    pruning: Pruning
    seeds: tuple[int, ...]
    pool: Int64[np.ndarray, " N"]

    @property
    def work(self) -> float:
        """Work of all rounds, in records times models times expected epochs."""
        return sum(training_work(split, self.pruning.recipe) for split in self.splits)


def follow(pipeline: Pipeline, course: Course) -> Trace:
    """Run an arm; rounds in the store are not computed again."""
    keys = _round_keys(pipeline, course)
    data, pool, device = (
        pipeline.workspace.data.fingerprint,
        tuple(course.pool.tolist()),
        pipeline.workspace.device.type,
    )
    answers = [ExposedAnswersKey(models, data, pool, device).key() for models in (course.dense.key, *keys)]
    pipeline.cache.progress.begin(course.title, course.work)
    missing = [r for r, key in enumerate(answers) if pipeline.cache.store.get(key) is None]
    if missing:
        first, start = _begin(pipeline, course, keys, max(missing[0] - 1, 0))
        if first == 0:
            pipeline.cache.store.put(answers[0], *_evaluate(pipeline, course, start, (), 0.0))
        _run(pipeline, course, keys, answers, first, start)
    pipeline.cache.store.delete(keys[-1])
    pipeline.cache.progress.end(stored=not missing)
    entries = [entry for key in answers if (entry := pipeline.cache.store.get(key)) is not None]
    return Trace(
        np.stack([entry.arrays["confidence"] for entry in entries]),
        np.stack([entry.arrays["right"] for entry in entries]),
        tuple(tuple(entry.meta["kept_epochs"]) for entry in entries[1:]),
        sum(float(entry.meta["seconds"]) for entry in entries),
    )


def _begin(pipeline: Pipeline, course: Course, keys: Sequence[Key], first: int) -> tuple[int, Ensemble]:
    """The round to begin with and its models: ``first`` if the weights before it are stored, else
    0.
    """
    weights = pipeline.cache.store.get(keys[first - 1]) if first else None
    if weights is None:
        return 0, course.dense.ensemble
    return first, pipeline.workspace.untrained(course.seeds).with_arrays(weights.arrays)


def _run(
    pipeline: Pipeline, course: Course, keys: Sequence[Key], answers: Sequence[Key], first: int, ensemble: Ensemble
) -> None:
    """Compute the rounds from ``first`` on; ``answers[0]`` is the key of the outputs before round
    0.
    """
    space = pipeline.workspace
    for index in range(first, len(keys)):
        began = time.perf_counter()
        done = next(
            iterate(
                ensemble, space.data, course.splits[index], course.pruning, Undefended(), seeds=course.seeds,
                backend=space.config.backend, device=space.device, first_round=index,
            )
        )  # fmt: skip
        ensemble = done.ensemble
        pipeline.cache.store.put(keys[index], ensemble.arrays(), {})
        kept = tuple(history.best_epoch + 1 for history in done.history)
        seconds = time.perf_counter() - began
        pipeline.cache.store.put(answers[index + 1], *_evaluate(pipeline, course, ensemble, kept, seconds))
        if index:
            pipeline.cache.store.delete(keys[index - 1])
        pipeline.cache.progress.advance((index + 1) / len(keys), f"round {index + 1}/{len(keys)}")


def _evaluate(
    pipeline: Pipeline, course: Course, ensemble: Ensemble, kept: tuple[int, ...], seconds: float
) -> tuple[Arrays, dict[str, Any]]:
    """Evaluate the models on the pool, in the form that the store keeps."""
    logits = ensemble.logits(pipeline.workspace.data.features[course.pool], device=pipeline.workspace.device)
    labels = pipeline.workspace.data.labels[course.pool]
    arrays = {"confidence": logit_confidence(logits, labels), "right": logits.argmax(-1) == labels}
    return arrays, {"kept_epochs": list(kept), "seconds": seconds}


def _round_keys(pipeline: Pipeline, course: Course) -> list[Key]:
    """The key of each round; it contains the key of the round before."""
    keys: list[Key] = []
    for split, sparsity in zip(course.splits, course.pruning.schedule.sparsities, strict=True):
        inputs = ExposedRoundKey(
            keys[-1] if keys else course.dense.key, len(keys), sparsity, rules_of(course.pruning),
            pipeline.workspace.ensemble_inputs(split, course.seeds),
        )  # fmt: skip
        keys.append(inputs.key())
    return keys
