"""Iterative pruning, round by round, so that a killed run loses one round at most."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wemem.data.split import Role, Split
from wemem.defenses import Defense, FreshStart, Observation
from wemem.errors import InputError
from wemem.pipeline.answers import OnDevice
from wemem.pipeline.artifacts import MemorizationScores, SoftTargets, TrainedModels
from wemem.pipeline.confidence import confidence_auc
from wemem.pipeline.cost import training_work
from wemem.pipeline.peak_memory import peak_mib, reset_peak
from wemem.pipeline.progress import show_epoch
from wemem.pipeline.teacher import Teacher
from wemem.pipeline.trainer import training_summary
from wemem.pipeline.workspace import Workspace
from wemem.pruning import Pruning, Round, iterate
from wemem.queries import postprocessed
from wemem.randomness import derive_seed
from wemem.store.key import Key
from wemem.store.keys import RoundKey, UntrainedKey, rules_of
from wemem.training import Ensemble, accuracy


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of iterative pruning, with everything that it needs in place."""

    keys: Sequence[Key]
    start: Ensemble
    split: Split
    pruning: Pruning
    defense: Defense
    seeds: Sequence[int]
    scores: Sequence[MemorizationScores | None]
    soft_targets: SoftTargets | None
    keep_rounds: bool


@dataclass(frozen=True)
class Pruner:
    """Prunes and fine-tunes models under a defense."""

    workspace: Workspace
    teacher: Teacher

    def keys(
        self, start: Key, split: Split, pruning: Pruning, defense: Defense, *, seeds: Sequence[int],
        scores: Sequence[Key | None], soft_targets: Key | None,
    ) -> list[Key]:  # fmt: skip
        """The key of each round; it contains the round before, so equal beginnings are shared."""
        keys, ensemble = [start], self.workspace.ensemble_inputs(split, seeds)
        for sparsity in pruning.schedule.sparsities:
            own = RoundKey(keys[-1], sparsity, rules_of(pruning), defense, tuple(scores), soft_targets, ensemble)
            keys.append(own.key())
        return keys[1:]

    def prune(
        self, title: str, dense: TrainedModels, split: Split, pruning: Pruning, defense: Defense, *,
        seeds: Sequence[int], scores: Sequence[MemorizationScores | None], keep_rounds: bool = False,
    ) -> list[TrainedModels]:  # fmt: skip
        """The models after each round; every round is stored as it ends.

        Args:
            title: for the progress display.
            dense: the unpruned models.
            split: their roles.
            pruning: schedule, criterion and fine-tuning.
            defense: changes the fine-tuning.
            seeds: one per model.
            scores: memorization scores of each model's records, None where the defense needs none.
            keep_rounds: keep the weights of every round, and return them all; else the last round's
                alone.

        Returns:
            The models of each kept round; ``meta["rounds"]`` describes all rounds up to it.
        """
        run = self._prepare(title, dense, split, pruning, defense, seeds, scores, keep_rounds)
        cache, last = self.workspace.cache, len(run.keys) - 1
        wanted = range(last + 1) if keep_rounds else range(last, last + 1)
        missing = [r for r in wanted if cache.store.get(run.keys[r]) is None]
        work = training_work(split, pruning.recipe) * len(run.keys) * defense.passes_per_epoch
        cache.progress.begin(title, work)
        if missing:
            self._compute(run, missing[0])
        cache.progress.end(stored=not missing)
        return [self._stored(run, r) for r in wanted]

    def _prepare(
        self, title: str, dense: TrainedModels, split: Split, pruning: Pruning, defense: Defense,
        seeds: Sequence[int], scores: Sequence[MemorizationScores | None], keep_rounds: bool,
    ) -> _Run:  # fmt: skip
        """Train the teachers, if the defense has any, and name the rounds."""
        space, targets = self.workspace, self.teacher.teach(title, dense, split, seeds, defense)
        start, ensemble = dense.key, dense.ensemble
        if defense.capability(FreshStart) is not None:
            start = UntrainedKey(space.architecture, space.data.fingerprint, tuple(seeds)).key()
            ensemble = space.untrained(seeds)
        keys = self.keys(
            start, split, pruning, defense, seeds=seeds, scores=[None if s is None else s.key for s in scores],
            soft_targets=None if targets is None else targets.key,
        )  # fmt: skip
        return _Run(keys, ensemble, split, pruning, defense, seeds, scores, targets, keep_rounds)

    def _compute(self, run: _Run, missing: int) -> None:
        """Compute all rounds after the last one that is stored before round ``missing``."""
        space, store = self.workspace, self.workspace.cache.store
        first = next((r + 1 for r in reversed(range(missing)) if store.get(run.keys[r]) is not None), 0)
        before = self._stored(run, first - 1) if first else None
        summaries: list[dict[str, Any]] = [] if before is None else list(before.meta["rounds"])
        observed = () if before is None else before.meta.get("observed", ())
        position, clock, measured = [first], [time.perf_counter()], reset_peak()
        rounds = iterate(
            run.start if before is None else before.ensemble, space.data, run.split, run.pruning, run.defense,
            seeds=run.seeds, first_round=first,
            scores=[None if s is None else s.memorization.score for s in run.scores],
            teacher_log_probs=None if run.soft_targets is None else run.soft_targets.log_probabilities,
            initial=space.untrained(run.seeds) if run.pruning.rewind == "initial" else None,
            observed=[tuple(Observation(**seen) for seen in own) for own in observed],
            backend=space.config.backend, device=space.device,
            on_epoch=lambda epoch, running: show_epoch(
                space.cache.progress, epoch, run.pruning.recipe.epochs, running, position[0], len(run.keys)
            ),
        )  # fmt: skip
        for done in rounds:
            cost = {"seconds": time.perf_counter() - clock[0], "peak_memory_mib": peak_mib() if measured else None}
            summaries.append({**self._summary(run, done), **cost})
            store.put(run.keys[done.index], done.ensemble.arrays(), self._meta(run, done, summaries))
            if not run.keep_rounds and done.index > first:
                store.delete(run.keys[done.index - 1])
            position[0], clock[0] = done.index + 1, time.perf_counter()

    def _meta(self, run: _Run, done: Round, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Everything but the weights that is stored of a round."""
        observed = [[asdict(seen) for seen in own] for own in done.observed]
        return {
            "rounds": summaries,
            **training_summary(done.history, done.choice),
            "recipe_fingerprint": self.workspace.recipe_fingerprint(run.pruning, run.defense, done.index),
            "seconds": sum(summary["seconds"] for summary in summaries),
            "teachers_seconds": 0.0 if run.soft_targets is None else run.soft_targets.seconds,
            **({"observed": observed} if observed else {}),
        }

    def _summary(self, run: _Run, done: Round) -> dict[str, Any]:
        """A round as results show it, of model 0; its confidence is what the defense lets queries
        see.
        """
        data, device, history = self.workspace.data, self.workspace.device, done.history[0]
        victim = OnDevice(done.ensemble.select([0]), device)
        train, dev, others = (run.split.records(0, role) for role in (Role.TRAIN, Role.DEV, Role.AUDIT))
        answers = postprocessed(victim, run.defense, seed=derive_seed(run.seeds[0], "answers", done.index))
        plain = victim.logits(data.features[others])[0] if len(others) else None
        return {
            "round": done.index,
            "sparsity": done.sparsity,
            "test_accuracy": None if plain is None else accuracy(plain, data.labels[others]),
            "confidence_auc": confidence_auc(answers, data, train, others),
            "dev_accuracy": max(history.dev_accuracy),
            "dev_auc": confidence_auc(answers, data, train, dev),
            "epochs": [len(one.dev_accuracy) for one in done.history],
            "records_seen": history.records_seen,
            "steps": history.steps,
        }

    def _stored(self, run: _Run, index: int) -> TrainedModels:
        key = run.keys[index]
        entry = self.workspace.cache.store.get(key)
        if entry is None:
            raise InputError("expected a round of pruning in the store, got none; was it deleted while the study ran?")
        blank = self.workspace.untrained(run.seeds[:1])
        return TrainedModels(key, blank.with_arrays(entry.arrays), entry.meta)
