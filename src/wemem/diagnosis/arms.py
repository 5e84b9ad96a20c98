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
from wemem.errors import InputError
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cache import Arrays
from wemem.pipeline.cost import training_work
from wemem.pipeline.stage import Effort, Stage
from wemem.pipeline.workspace import Workspace
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


class ExposedRounds(Stage[Trace]):
    """One arm for some models: rounds of pruning on records of their own.

    Answers after every round are kept, and weights until the next round ends.

    Args:
        title: the name in the progress display.
        workspace: settings, data, device and cache.
        dense: the dense models that the first round starts from.
        splits: the split of each round.
        pruning: the schedule and the fine-tuning recipe; models are not rewound.
        seeds: the seeds of the models, one for each.
        pool: the indices of the records on which the models are evaluated.
    """

    def __init__(
        self, title: str, workspace: Workspace, dense: Stage[TrainedModels], splits: Sequence[Split], pruning: Pruning,
        seeds: Sequence[int], pool: Int64[np.ndarray, " N"],
    ) -> None:  # fmt: skip
        keys: list[Key] = []  # each contains the key of the round before
        for split, sparsity in zip(splits, pruning.schedule.sparsities, strict=True):
            models, before = workspace.ensemble_inputs(split, seeds), keys[-1] if keys else dense.key
            keys.append(ExposedRoundKey(before, len(keys), sparsity, rules_of(pruning), models).key())
        data, rows, device = workspace.data.fingerprint, tuple(pool.tolist()), workspace.device.type
        answers = [ExposedAnswersKey(models, data, rows, device).key() for models in (dense.key, *keys)]
        work = sum(training_work(split, pruning.recipe) for split in splits)
        effort = Effort.training(f"prune under {Undefended().name}", work, len(seeds))
        super().__init__(title, answers[-1], [dense], effort)
        self.workspace, self.dense, self.splits, self.pruning = workspace, dense, tuple(splits), pruning
        self.seeds, self.pool, self.keys, self.answers = tuple(seeds), pool, keys, answers

    @property
    def stores(self) -> tuple[Key, ...]:
        return tuple(self.answers)

    @property
    def deletes(self) -> tuple[Key, ...]:
        return tuple(self.keys)

    def ensure(self) -> None:
        cache = self.workspace.cache
        missing = [r for r, key in enumerate(self.answers) if cache.store.get(key) is None]
        if missing:
            self.ensure_needs()
        cache.begin(self, stored=not missing)
        if missing:
            self._compute(max(missing[0] - 1, 0))
        cache.store.delete(self.keys[-1])
        cache.progress.end(stored=not missing)

    def read(self) -> Trace:
        entries = [self.workspace.cache.store.get(key) for key in self.answers]
        kept = [entry for entry in entries if entry is not None]
        if len(kept) < len(entries):
            raise InputError("expected the answers of every round in the store, got fewer; run the same command again")
        return Trace(
            np.stack([entry.arrays["confidence"] for entry in kept]),
            np.stack([entry.arrays["right"] for entry in kept]),
            tuple(tuple(entry.meta["kept_epochs"]) for entry in kept[1:]),
            sum(float(entry.meta["seconds"]) for entry in kept),
        )

    def _compute(self, first: int) -> None:
        """Compute the rounds from ``first`` on, or all if the weights before it are not stored."""
        space, store = self.workspace, self.workspace.cache.store
        weights = store.get(self.keys[first - 1]) if first else None
        if weights is None:
            first, ensemble = 0, self.dense.read().ensemble
            store.put(self.answers[0], *self._evaluate(ensemble, (), 0.0))
        else:
            ensemble = space.untrained(self.seeds).with_arrays(weights.arrays)
        for index in range(first, len(self.keys)):
            began = time.perf_counter()
            done = next(
                iterate(
                    ensemble, space.data, self.splits[index], self.pruning, Undefended(), seeds=self.seeds,
                    backend=space.config.backend, device=space.device, first_round=index,
                )
            )  # fmt: skip
            ensemble = done.ensemble
            store.put(self.keys[index], ensemble.arrays(), {})
            kept, seconds = tuple(one.best_epoch + 1 for one in done.history), time.perf_counter() - began
            store.put(self.answers[index + 1], *self._evaluate(ensemble, kept, seconds))
            if index:
                store.delete(self.keys[index - 1])
            space.cache.progress.advance((index + 1) / len(self.keys), f"round {index + 1}/{len(self.keys)}")

    def _evaluate(self, ensemble: Ensemble, kept: tuple[int, ...], seconds: float) -> tuple[Arrays, dict[str, Any]]:
        """The answers of the models on the pool, in the form that the store keeps."""
        data = self.workspace.data
        logits, labels = ensemble.logits(data.features[self.pool], device=self.workspace.device), data.labels[self.pool]
        arrays = {"confidence": logit_confidence(logits, labels), "right": logits.argmax(-1) == labels}
        return arrays, {"kept_epochs": list(kept), "seconds": seconds}
