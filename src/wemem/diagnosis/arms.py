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
from wemem.pipeline.artifacts import Stage
from wemem.pipeline.cost import training_work
from wemem.pipeline.stages import Arrays, Stages
from wemem.pruning import Pruning, iterate
from wemem.signals import logit_confidence
from wemem.store.key import Key
from wemem.store.keys import ExposedAnswersKey, ExposedRoundKey, rules_of
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class Trace:
    """What ``K`` models answer on the ``N`` records of the pool before the first round, and after each of R.

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
    """What an arm does with some models.

    Args:
        title: for the progress display.
        dense: the models it starts from.
        splits: what each round trains on.
        pruning: schedule and fine-tuning; models are not rewound.
        seeds: one per model.
        pool: records that they are asked about.
    """

    title: str
    dense: Stage
    splits: tuple[Split, ...]
    pruning: Pruning
    seeds: tuple[int, ...]
    pool: Int64[np.ndarray, " N"]

    @property
    def work(self) -> float:
        """Work of all rounds, in records times models times expected epochs."""
        return sum(training_work(split, self.pruning.recipe) for split in self.splits)


def follow(stages: Stages, course: Course) -> Trace:
    """Run an arm, or what the store has not of it."""
    keys = _round_keys(stages, course)
    data, pool, device = stages.data.fingerprint, tuple(course.pool.tolist()), stages.device.type
    answers = [ExposedAnswersKey(own, data, pool, device).key() for own in (course.dense.key, *keys)]
    stages.progress.begin(course.title, course.work)
    missing = [r for r, own in enumerate(answers) if stages.store.get(own) is None]
    if missing:
        first, start = _begin(stages, course, keys, max(missing[0] - 1, 0))
        if first == 0:
            stages.store.put(answers[0], *_ask(stages, course, start, (), 0.0))
        _run(stages, course, keys, answers, first, start)
    stages.store.delete(keys[-1])
    stages.progress.end(stored=not missing)
    found = [entry for own in answers if (entry := stages.store.get(own)) is not None]
    return Trace(
        np.stack([entry.arrays["confidence"] for entry in found]),
        np.stack([entry.arrays["right"] for entry in found]),
        tuple(tuple(entry.meta["kept_epochs"]) for entry in found[1:]),
        sum(float(entry.meta["seconds"]) for entry in found),
    )


def _begin(stages: Stages, course: Course, keys: Sequence[Key], first: int) -> tuple[int, Ensemble]:
    """The round to begin with and the models it starts from: round ``first``, if what it starts from is there."""
    weights = stages.store.get(keys[first - 1]) if first else None
    if weights is None:
        return 0, course.dense.ensemble
    return first, stages.blank(course.seeds).with_arrays(weights.arrays)


def _run(
    stages: Stages, course: Course, keys: Sequence[Key], answers: Sequence[Key], first: int, ensemble: Ensemble
) -> None:
    """Compute the rounds from ``first`` on; ``answers[0]`` are those before any."""
    for index in range(first, len(keys)):
        began = time.perf_counter()
        done = next(
            iterate(
                ensemble, stages.data, course.splits[index], course.pruning, Undefended(), seeds=course.seeds,
                backend=stages.config.backend, device=stages.device, first_round=index,
            )
        )  # fmt: skip
        ensemble = done.ensemble
        stages.store.put(keys[index], ensemble.arrays(), {})
        kept = tuple(history.best_epoch + 1 for history in done.history)
        stages.store.put(answers[index + 1], *_ask(stages, course, ensemble, kept, time.perf_counter() - began))
        if index:
            stages.store.delete(keys[index - 1])
        stages.progress.advance((index + 1) / len(keys), f"round {index + 1}/{len(keys)}")


def _ask(
    stages: Stages, course: Course, ensemble: Ensemble, kept: tuple[int, ...], seconds: float
) -> tuple[Arrays, dict[str, Any]]:
    """The models' answers on the pool, as they are stored."""
    logits = ensemble.logits(stages.data.features[course.pool], device=stages.device)
    labels = stages.data.labels[course.pool]
    arrays = {"confidence": logit_confidence(logits, labels), "right": logits.argmax(-1) == labels}
    return arrays, {"kept_epochs": list(kept), "seconds": seconds}


def _round_keys(stages: Stages, course: Course) -> list[Key]:
    """One key per round, with all that determines it; it holds its predecessor's."""
    keys: list[Key] = []
    for split, sparsity in zip(course.splits, course.pruning.schedule.sparsities, strict=True):
        own = ExposedRoundKey(
            keys[-1] if keys else course.dense.key, len(keys), sparsity, rules_of(course.pruning),
            stages.ensemble_inputs(split, course.seeds),
        )  # fmt: skip
        keys.append(own.key())
    return keys
