"""Iterative pruning, round by round, so that a killed run loses one round at most."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from wemem.data.split import Role, Split
from wemem.defenses import Defense, FreshStart, Observation
from wemem.errors import InputError
from wemem.pipeline.answers import OnDevice
from wemem.pipeline.artifacts import MemorizationScores, SoftTargets, TrainedModels
from wemem.pipeline.confidence import confidence_auc
from wemem.pipeline.cost import step_time, training_work
from wemem.pipeline.peak_memory import peak_mib, reset_peak
from wemem.pipeline.progress import show_epoch
from wemem.pipeline.soft_targets import Teacher
from wemem.pipeline.stage import Derived, Effort, Stage, given
from wemem.pipeline.trainer import training_summary
from wemem.pipeline.workspace import Workspace
from wemem.pruning import Pruning, Round, iterate
from wemem.queries import postprocessed
from wemem.randomness import derive_seed
from wemem.store.key import Key
from wemem.store.keys import RoundKey, UntrainedKey, rules_of
from wemem.training import Ensemble, accuracy
from wemem.training.teacher_targets import share_named


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
            key = RoundKey(keys[-1], sparsity, rules_of(pruning), defense, tuple(scores), soft_targets, ensemble)
            keys.append(key.key())
        return keys[1:]

    def plan(
        self, title: str, dense: Stage[TrainedModels], split: Split, pruning: Pruning, defense: Defense, *,
        seeds: Sequence[int], scores: Sequence[Stage[MemorizationScores] | None], keep_rounds: bool = False,
    ) -> list[Stage[TrainedModels]]:  # fmt: skip
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
        targets = self.teacher.plan(title, dense, split, seeds, defense)
        start: Stage[TrainedModels] | None = dense
        first = dense.key
        if defense.capability(FreshStart) is not None:
            start, space = None, self.workspace
            first = UntrainedKey(space.architecture, space.data.fingerprint, tuple(seeds)).key()
        keys = self.keys(
            first, split, pruning, defense, seeds=seeds, scores=[None if s is None else s.key for s in scores],
            soft_targets=None if targets is None else targets.key,
        )  # fmt: skip
        rounds = Rounds(
            title, self.workspace, keys, start, split, pruning, defense, seeds, scores, targets, keep_rounds
        )  # fmt: skip
        return [Derived(rounds.keys[r], (rounds,), partial(rounds.stored, r)) for r in rounds.wanted]

    def prune(
        self, title: str, dense: TrainedModels, split: Split, pruning: Pruning, defense: Defense, *,
        seeds: Sequence[int], scores: Sequence[MemorizationScores | None], keep_rounds: bool = False,
    ) -> list[TrainedModels]:  # fmt: skip
        """Prune models that are at hand, as :meth:`plan` describes it, unless they are stored."""
        planned = self.plan(
            title, given(dense), split, pruning, defense, seeds=seeds,
            scores=[None if one is None else given(one) for one in scores], keep_rounds=keep_rounds,
        )  # fmt: skip
        return [models.result() for models in planned]


class Rounds(Stage[None]):
    """One run of iterative pruning: a chain of rounds, of which the last or all are kept.

    Args:
        title: for the progress display.
        workspace: settings, data, device and cache.
        keys: the key of each round.
        start: the unpruned models; None to start from untrained ones.
        split: their roles.
        pruning: schedule, criterion and fine-tuning.
        defense: changes the fine-tuning.
        seeds: one per model.
        scores: memorization scores of each model's records.
        soft_targets: the predictions of the teachers.
        keep_rounds: True if every round is kept.
    """

    def __init__(
        self, title: str, workspace: Workspace, keys: Sequence[Key], start: Stage[TrainedModels] | None, split: Split,
        pruning: Pruning, defense: Defense, seeds: Sequence[int], scores: Sequence[Stage[MemorizationScores] | None],
        soft_targets: Stage[SoftTargets] | None, keep_rounds: bool,
    ) -> None:  # fmt: skip
        work = training_work(split, pruning.recipe) * len(keys) * defense.passes_per_epoch
        before = [one for one in (start, *dict.fromkeys(scores), soft_targets) if one is not None]
        super().__init__(
            title, keys[-1], before,
            Effort.training(f"prune under {defense.name}", work, len(seeds), step_time(defense)),
        )  # fmt: skip
        self.workspace, self.keys, self.start, self.split, self.pruning = workspace, keys, start, split, pruning
        self.defense, self.seeds, self.scores, self.soft_targets = defense, seeds, scores, soft_targets
        self.keep_rounds, self._ensured = keep_rounds, False

    @property
    def wanted(self) -> range:
        """The numbers of the rounds that are kept."""
        return range(0 if self.keep_rounds else len(self.keys) - 1, len(self.keys))

    @property
    def stores(self) -> tuple[Key, ...]:
        return tuple(self.keys[r] for r in self.wanted)

    @property
    def deletes(self) -> tuple[Key, ...]:
        return tuple(self.keys[: self.wanted.start])

    def ensure(self) -> None:
        if self._ensured:
            return
        cache = self.workspace.cache
        missing = [r for r in self.wanted if cache.store.get(self.keys[r]) is None]
        if missing:
            self.ensure_needs()
        cache.begin(self, stored=not missing)
        if missing:
            self._compute(missing[0])
        cache.progress.end(stored=not missing)
        self._ensured = True

    def read(self) -> None:
        """The models are read round by round (:meth:`stored`)."""

    def stored(self, index: int) -> TrainedModels:
        """The models after a round that is in the store."""
        entry = self.workspace.cache.store.get(self.keys[index])
        if entry is None:
            raise InputError("expected a round of pruning in the store, got none; was it deleted while the study ran?")
        blank = self.workspace.untrained(self.seeds[:1])
        return TrainedModels(self.keys[index], blank.with_arrays(entry.arrays), entry.meta)

    def _compute(self, missing: int) -> None:
        """Compute all rounds after the last one that is stored before round ``missing``."""
        space, store = self.workspace, self.workspace.cache.store
        first = next((r + 1 for r in reversed(range(missing)) if store.get(self.keys[r]) is not None), 0)
        before = self.stored(first - 1) if first else None
        summaries: list[dict[str, Any]] = [] if before is None else list(before.meta["rounds"])
        observed = () if before is None else before.meta.get("observed", ())
        targets = None if self.soft_targets is None else self.soft_targets.read()
        position, clock, measured = [first], [time.perf_counter()], reset_peak()
        rounds = iterate(
            self._first_models() if before is None else before.ensemble, space.data, self.split, self.pruning,
            self.defense, seeds=self.seeds, first_round=first,
            scores=[None if s is None else s.read().memorization.score for s in self.scores],
            teacher_log_probs=None if targets is None else targets.log_probabilities,
            initial=space.untrained(self.seeds) if self.pruning.rewind == "initial" else None,
            observed=[tuple(Observation(**seen) for seen in own) for own in observed],
            backend=space.config.backend, device=space.device,
            on_epoch=lambda epoch, running: show_epoch(
                space.cache.progress, epoch, self.pruning.recipe.epochs, running, position[0], len(self.keys)
            ),
        )  # fmt: skip
        for done in rounds:
            cost = {"seconds": time.perf_counter() - clock[0], "peak_memory_mib": peak_mib() if measured else None}
            summaries.append({**self._summary(done), **cost})
            store.put(self.keys[done.index], done.ensemble.arrays(), self._meta(done, summaries, targets))
            if not self.keep_rounds and done.index > first:
                store.delete(self.keys[done.index - 1])
            position[0], clock[0] = done.index + 1, time.perf_counter()

    def _first_models(self) -> Ensemble:
        return self.workspace.untrained(self.seeds) if self.start is None else self.start.read().ensemble

    def _meta(self, done: Round, summaries: Sequence[dict[str, Any]], targets: SoftTargets | None) -> dict[str, Any]:
        """Everything but the weights that is stored of a round."""
        observed = [[asdict(seen) for seen in rounds] for rounds in done.observed]
        train, labels = self.split.records(0, Role.TRAIN), self.workspace.data.labels
        return {
            "rounds": summaries,
            **training_summary(done.history, done.choice),
            "recipe_fingerprint": self.workspace.recipe_fingerprint(self.pruning, self.defense, done.index),
            "seconds": sum(summary["seconds"] for summary in summaries),
            "teachers_seconds": 0.0 if targets is None else targets.seconds,
            **({} if targets is None else {"named": share_named(targets.log_probabilities[0, train], labels[train])}),
            **({"observed": observed} if observed else {}),
        }

    def _summary(self, done: Round) -> dict[str, Any]:
        """A round as results show it, of model 0; its confidence is what the defense lets queries
        see.
        """
        data, device, history = self.workspace.data, self.workspace.device, done.history[0]
        victim = OnDevice(done.ensemble.select([0]), device)
        train, dev, others = (self.split.records(0, role) for role in (Role.TRAIN, Role.DEV, Role.AUDIT))
        answers = postprocessed(victim, self.defense, seed=derive_seed(self.seeds[0], "answers", done.index))
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
