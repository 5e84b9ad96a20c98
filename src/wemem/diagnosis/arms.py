"""One arm of a diagnosis: dense models pruned round by round, each round on records of its own, and asked about all.

What the models answer after each round is kept in the store; their weights only until the next round has ended, so that
a killed run loses one round at most.
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
from wemem.store.key import Key
from wemem.store.keys import ExposedAnswersKey, ExposedRoundKey, rules_of
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class Trace:
    """Answers of ``K`` models on the ``N`` records of the pool before the first round, and after each of R.

    Args:
        confidence: float64, shape ``(R + 1, K, N)``: the logit of the true class's probability.
        right: bool, same shape: whether the prediction is right.
        kept_epochs: per round, of each model, how many epochs its kept checkpoint has seen.
        seconds: wall time when it was computed.
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
        """The models of several traces of one arm, in order."""
        epochs = zip(*(part.kept_epochs for part in parts), strict=True)
        return cls(
            np.concatenate([part.confidence for part in parts], axis=1),
            np.concatenate([part.right for part in parts], axis=1),
            tuple(tuple(e for own in one_round for e in own) for one_round in epochs),
            sum(part.seconds for part in parts),
        )


@dataclass(frozen=True, eq=False)
class Course:
    """The course of an arm for some models.

    Args:
        title: for the progress display.
        dense: the models it starts from.
        splits: what each round trains on.
        pruning: schedule and fine-tuning; models are not rewound.
        seeds: one per model.
        pool: records that they are asked about.
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
    """Run an arm, or what the store has not of it."""
    keys = _round_keys(pipeline, course)
    data, pool, device = (
        pipeline.workspace.data.fingerprint,
        tuple(course.pool.tolist()),
        pipeline.workspace.device.type,
    )
    answers = [ExposedAnswersKey(own, data, pool, device).key() for own in (course.dense.key, *keys)]
    pipeline.cache.progress.begin(course.title, course.work)
    missing = [r for r, own in enumerate(answers) if pipeline.cache.store.get(own) is None]
    if missing:
        first, start = _begin(pipeline, course, keys, max(missing[0] - 1, 0))
        if first == 0:
            pipeline.cache.store.put(answers[0], *_ask(pipeline, course, start, (), 0.0))
        _run(pipeline, course, keys, answers, first, start)
    pipeline.cache.store.delete(keys[-1])
    pipeline.cache.progress.end(stored=not missing)
    found = [entry for own in answers if (entry := pipeline.cache.store.get(own)) is not None]
    return Trace(
        np.stack([entry.arrays["confidence"] for entry in found]),
        np.stack([entry.arrays["right"] for entry in found]),
        tuple(tuple(entry.meta["kept_epochs"]) for entry in found[1:]),
        sum(float(entry.meta["seconds"]) for entry in found),
    )


def _begin(pipeline: Pipeline, course: Course, keys: Sequence[Key], first: int) -> tuple[int, Ensemble]:
    """The round to begin with and the models it starts from: round ``first``, if what it starts from is there."""
    weights = pipeline.cache.store.get(keys[first - 1]) if first else None
    if weights is None:
        return 0, course.dense.ensemble
    return first, pipeline.workspace.untrained(course.seeds).with_arrays(weights.arrays)


def _run(
    pipeline: Pipeline, course: Course, keys: Sequence[Key], answers: Sequence[Key], first: int, ensemble: Ensemble
) -> None:
    """Compute the rounds from ``first`` on; ``answers[0]`` are those before any."""
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
        pipeline.cache.store.put(answers[index + 1], *_ask(pipeline, course, ensemble, kept, seconds))
        if index:
            pipeline.cache.store.delete(keys[index - 1])
        pipeline.cache.progress.advance((index + 1) / len(keys), f"round {index + 1}/{len(keys)}")


def _ask(
    pipeline: Pipeline, course: Course, ensemble: Ensemble, kept: tuple[int, ...], seconds: float
) -> tuple[Arrays, dict[str, Any]]:
    """The models' answers on the pool, as they are stored."""
    logits = ensemble.logits(pipeline.workspace.data.features[course.pool], device=pipeline.workspace.device)
    labels = pipeline.workspace.data.labels[course.pool]
    arrays = {"confidence": logit_confidence(logits, labels), "right": logits.argmax(-1) == labels}
    return arrays, {"kept_epochs": list(kept), "seconds": seconds}


def _round_keys(pipeline: Pipeline, course: Course) -> list[Key]:
    """One key per round, with all that determines it; it holds its predecessor's."""
    keys: list[Key] = []
    for split, sparsity in zip(course.splits, course.pruning.schedule.sparsities, strict=True):
        own = ExposedRoundKey(
            keys[-1] if keys else course.dense.key, len(keys), sparsity, rules_of(course.pruning),
            pipeline.workspace.ensemble_inputs(split, course.seeds),
        )  # fmt: skip
        keys.append(own.key())
    return keys
