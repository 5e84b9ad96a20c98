"""The expensive stages of a study, each found in the store or computed and put there.

A stage's key is made of everything that determines it: the data, the split, the settings and the keys of the stages
before it. Nothing else is a reason to reuse, and nothing else a reason to compute again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from scipy.special import log_softmax

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.teachers import Teachers, held_out
from wemem.defenses import Defense, Distillation, FreshStart, Observation, OutputPostprocessing
from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.memorization import Memorization, estimate_memorization, halves_correlation, truth_values
from wemem.pipeline.answers import OnDevice
from wemem.pipeline.artifacts import Scores, SoftTargets, Stage
from wemem.pipeline.confidence import confidence_auc
from wemem.pipeline.cost import CHUNK, training_work
from wemem.pipeline.peak_memory import peak_mib, reset_peak
from wemem.pipeline.progress import Progress
from wemem.pipeline.teaching import teacher_log_probabilities
from wemem.pruning import Pruning, Round, iterate
from wemem.randomness import derive_seed
from wemem.signals import postprocessed, query_models
from wemem.store.behavior import behavior_fingerprint
from wemem.store.entry import Entry
from wemem.store.fingerprint import spelled
from wemem.store.key import Key
from wemem.store.keys import (
    Architecture,
    DenseKey,
    DenseTargetsKey,
    EnsembleInputs,
    RoundKey,
    ScoresKey,
    SignalsKey,
    TeacherTargetsKey,
    UntrainedKey,
    rules_of,
)
from wemem.store.store import Store
from wemem.training import Choice, Ensemble, History, Recipe, accuracy, choose_device, fit

Arrays = Mapping[str, np.ndarray]
Computed = tuple[Arrays, dict[str, Any]]


class Stages:
    """Computes the stages of one study on one data set, through one store."""

    def __init__(self, config: StudyConfig, data: Dataset, store: Store, progress: Progress) -> None:
        self.config, self.data, self.store, self.progress = config, data, store, progress
        self.device = choose_device(config.device)
        self.architecture = Architecture(config.model, behavior_fingerprint(config.model, data))
        self.seconds = 0.0  # that what was remembered so far took when it was computed
        self.met: set[Key] = set()  # what progress was told of; a search asks for the same teachers again and again

    def recipe_fingerprint(self, pruning: Pruning | None, defense: Defense | None, last_round: int = -1) -> str:
        """Fingerprint of architecture, schedule, mask rule, fine-tuning, defense and its settings; not of the data.

        Two models with the same one were made in the same way, and attacking one with the other is adaptive.

        Args:
            pruning: None for a model that is not pruned.
            defense: None for a model that is not pruned.
            last_round: the round after which the model was taken.
        """
        scored = defense is not None and defense.needs_scores
        distillation = None if defense is None else defense.capability(Distillation)
        taught = distillation is not None and isinstance(distillation.source, Teachers)
        how = {
            "architecture": self.architecture,
            "shape": [*self.data.input_shape, self.data.classes],
            "pruning": pruning,
            "defense": defense,
            "scores": self.config.scores if scored else None,
            "teachers": self.config.training if taught else None,
            "last_round": last_round,
        }
        return sha256_of(spelled(how, "recipe"))

    def blank(self, seeds: Sequence[int]) -> Ensemble:
        """Untrained models, each initialized from its seed."""
        init = [derive_seed(seed, "init") for seed in seeds]
        return Ensemble.initialize(self.config.model, self.data.input_shape, self.data.classes, init)

    def train(self, title: str, split: Split, seeds: Sequence[int]) -> Stage:
        """Dense models, trained from scratch on their train records."""
        recipe = self.config.training

        def compute() -> Computed:
            start = time.perf_counter()
            fitted = fit(
                self.blank(seeds), self.data, split, recipe, seeds=seeds, backend=self.config.backend,
                device=self.device,
                on_epoch=lambda epoch, running: self._show(epoch, recipe, running, 0, 1),
            )  # fmt: skip
            return fitted.ensemble.arrays(), {
                **_told(fitted.history, fitted.choice),
                "recipe_fingerprint": self.recipe_fingerprint(None, None),
                "seconds": time.perf_counter() - start,
            }

        own = DenseKey(self.ensemble_inputs(split, seeds), recipe).key()
        entry = self.remember(title, own, compute, training_work(split, recipe))
        return Stage(own, self.blank(seeds).with_arrays(entry.arrays), entry.meta)

    def train_in_chunks(self, title: str, split: Split, seeds: Sequence[int]) -> list[Stage]:
        """Dense models in chunks of :data:`CHUNK`, stored one by one: more members later cost only the new ones."""
        starts = range(0, len(seeds), CHUNK)
        chunks = [range(start, min(start + CHUNK, len(seeds))) for start in starts]
        names = [f"{title} {c.start + 1}-{c.stop} of {len(seeds)}" for c in chunks]
        return [
            self.train(name, split.select(chunk), [seeds[k] for k in chunk])
            for name, chunk in zip(names, chunks, strict=True)
        ]

    def score(self, title: str, split: Split, subset: Sequence[Stage]) -> Scores:
        """Memorization scores from subset models, which stay stored: each is a model that did not see some records."""
        form = self.config.scores.form

        def compute() -> Computed:
            start = time.perf_counter()
            pool = np.flatnonzero((split.roles != Role.UNUSED).any(axis=0))
            values = np.full(split.roles.shape, np.nan)
            logits = np.concatenate([stage.models(self.device).logits(self.data.features[pool]) for stage in subset])
            values[:, pool] = truth_values(logits, self.data.labels[pool], form)
            found = estimate_memorization(values, split.roles)
            arrays = {name: getattr(found, name) for name in ("score", "standard_error", "inside", "outside")}
            trust = halves_correlation(values[:, pool], split.roles[:, pool], seed=0)
            return arrays, {"halves_correlation": trust, "seconds": time.perf_counter() - start}

        own = ScoresKey(tuple(stage.key for stage in subset), split.fingerprint, form).key()
        entry = self.remember(title, own, compute)
        seconds = sum(stage.seconds for stage in subset) + float(entry.meta["seconds"])
        found = Memorization(**{name: np.array(array) for name, array in entry.arrays.items()})
        return Scores(own, found, float(entry.meta["halves_correlation"]), split.num_models, seconds)

    def teach(
        self, title: str, dense: Stage, split: Split, seeds: Sequence[int], defense: Defense
    ) -> SoftTargets | None:  # fmt: skip
        """Ask whoever a defense's records are to be learned from about each member's own train records.

        Kept are log-probabilities, 0 for records that are not the member's.
        """
        distillation = defense.capability(Distillation)
        if distillation is None:
            return None
        if isinstance(distillation.source, Teachers):
            return self._teach_by_others(title, split, seeds, distillation.source)
        return self._teach_by_dense(title, dense, split)

    def _teach_by_dense(self, title: str, dense: Stage, split: Split) -> SoftTargets:
        """By the dense models, each about the records that it was trained on."""

        def compute() -> Computed:
            logs = np.zeros((split.num_models, len(self.data), self.data.classes), np.float32)
            for k in range(split.num_models):
                train = split.records(k, Role.TRAIN)
                logits = self._answers(dense.ensemble, k, train)
                logs[k, train] = log_softmax(logits.astype(np.float64), axis=-1)
            return {"teacher_log_probs": logs}, {}

        own = DenseTargetsKey(dense.key, self.data.fingerprint, split.fingerprint, self.device.type).key()
        entry = self.remember(f"{title}: dense predictions", own, compute)
        return SoftTargets(own, np.array(entry.arrays["teacher_log_probs"]), float(entry.meta["seconds"]))

    def _teach_by_others(self, title: str, split: Split, seeds: Sequence[int], asked: Teachers) -> SoftTargets:
        """By models that did not train on a record: the mean of their probabilities.

        They are trained on parts of each member's own train records.
        """
        parts = held_out(split, asked, seeds, self.data.features)
        own_seeds = [derive_seed(seed, "teacher", t) for seed in seeds for t in range(asked.count)]
        stages = self.train_in_chunks(f"{title}: teachers", parts, own_seeds)

        def compute() -> Computed:
            start = time.perf_counter()
            said = teacher_log_probabilities(
                [stage.ensemble for stage in stages], parts, split, self.data, asked, self.device
            )
            return {"teacher_log_probs": said}, {"seconds": time.perf_counter() - start}

        teachers = tuple(stage.key for stage in stages)
        own = TeacherTargetsKey(teachers, self.data.fingerprint, split.fingerprint, asked).key()
        entry = self.remember(f"{title}: teachers' predictions", own, compute)
        seconds = sum(stage.seconds for stage in stages) + float(entry.meta["seconds"])
        return SoftTargets(own, np.array(entry.arrays["teacher_log_probs"]), seconds)

    def prune(
        self,
        title: str,
        dense: Stage,
        split: Split,
        pruning: Pruning,
        defense: Defense,
        *,
        seeds: Sequence[int],
        scores: Sequence[Scores | None],
        keep_rounds: bool = False,
    ) -> list[Stage]:
        """The rounds of iterative pruning, each stored as it ends; only the last one's weights stay unless asked.

        Returns:
            All rounds if ``keep_rounds``, else the last alone. ``meta["rounds"]`` tells of every round so far.
        """
        teacher_log_probs = self.teach(title, dense, split, seeds, defense)
        start = dense if defense.capability(FreshStart) is None else self._untrained(seeds)
        keys = self._round_keys(start, split, pruning, defense, seeds, scores, teacher_log_probs)
        wanted = range(len(keys)) if keep_rounds else range(len(keys) - 1, len(keys))
        missing = [r for r in wanted if self.store.get(keys[r]) is None]
        self.progress.begin(title, training_work(split, pruning.recipe) * len(keys) * defense.passes_per_epoch)
        if missing:
            first = next((r + 1 for r in reversed(range(missing[0])) if self.store.get(keys[r]) is not None), 0)
            before = self._stored_round(keys[first - 1], seeds) if first else start
            self._prune_rounds(
                keys, first, before, split, pruning, defense, seeds, scores, keep_rounds, teacher_log_probs
            )
        self.progress.end(stored=not missing)
        return [self._stored_round(keys[r], seeds) for r in wanted]

    def _prune_rounds(
        self, keys: Sequence[Key], first: int, before: Stage, split: Split, pruning: Pruning, defense: Defense,
        seeds: Sequence[int], scores: Sequence[Scores | None], keep_rounds: bool, teacher_log_probs: SoftTargets | None,
    ) -> None:  # fmt: skip
        """Compute the rounds from ``first`` on and store each, so that a killed run loses one round at most."""
        told = list(before.meta["rounds"]) if first else []
        observed = before.meta.get("observed", ()) if first else ()
        position, clock = [first], [time.perf_counter()]
        rounds = iterate(
            before.ensemble, self.data, split, pruning, defense, seeds=seeds, first_round=first,
            scores=[None if s is None else s.memorization.score for s in scores],
            teacher_log_probs=None if teacher_log_probs is None else teacher_log_probs.log_probabilities,
            initial=self.blank(seeds) if pruning.rewind == "initial" else None, backend=self.config.backend,
            device=self.device,
            observed=[tuple(Observation(**seen) for seen in own) for own in observed],
            on_epoch=lambda epoch, running: self._show(epoch, pruning.recipe, running, position[0], len(keys)),
        )  # fmt: skip
        measured = reset_peak()
        for done in rounds:
            cost = {"seconds": time.perf_counter() - clock[0], "peak_memory_mib": peak_mib() if measured else None}
            told.append({**self._tell_round(done, split, defense, seeds[0]), **cost})
            meta = {
                "rounds": told,
                **_told(done.history, done.choice),
                "recipe_fingerprint": self.recipe_fingerprint(pruning, defense, done.index),
                "seconds": sum(r["seconds"] for r in told),
                "teachers_seconds": 0.0 if teacher_log_probs is None else teacher_log_probs.seconds,
                **({"observed": [[asdict(seen) for seen in own] for own in done.observed]} if done.observed else {}),
            }
            self.store.put(keys[done.index], done.ensemble.arrays(), meta)
            if not keep_rounds and done.index > first:
                self.store.delete(keys[done.index - 1])
            position[0], clock[0] = done.index + 1, time.perf_counter()

    def _tell_round(self, done: Round, split: Split, defense: Defense, seed: int) -> dict[str, Any]:
        """A round as results tell it, of the first member; its confidence is what the defense lets queries see."""
        victim, history = done.ensemble.select([0]), done.history
        train, dev, own = (split.records(0, role) for role in (Role.TRAIN, Role.DEV, Role.AUDIT))
        seed = derive_seed(seed, "answers", done.index)
        answers = postprocessed(OnDevice(victim, self.device), defense, seed=seed)
        return {
            "round": done.index,
            "sparsity": done.sparsity,
            "test_accuracy": accuracy(self._answers(victim, 0, own), self.data.labels[own]) if len(own) else None,
            "confidence_auc": confidence_auc(answers, self.data, train, own),
            "dev_accuracy": max(history[0].dev_accuracy),
            "dev_auc": confidence_auc(answers, self.data, train, dev),
            "epochs": [len(h.dev_accuracy) for h in history],
            "records_seen": history[0].records_seen,
            "steps": history[0].steps,
        }

    def _answers(
        self, ensemble: Ensemble, member: int, records: Int64[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n C"]:  # fmt: skip
        return np.asarray(ensemble.select([member]).logits(self.data.features[records], device=self.device)[0])

    def query(
        self, title: str, stage: Stage, records: Int64[np.ndarray, " N"], required_signals: frozenset[str], *,
        seed: int,        defense: Defense | None = None, turn: int = 0,
    ) -> tuple[Key, Arrays]:  # fmt: skip
        """What an adversary sees of a stage's models on some records, with the key of it.

        Args:
            title: for the progress display.
            stage: the models.
            records: that they are queried on.
            required_signals: names of :data:`~wemem.signals.EXTRAS`.
            seed: of the queries.
            defense: the one that the models answer under, if it alters answers.
            turn: tells stages that are queried with one seed apart, so that no two models draw their answers alike.
        """
        altered = defense if defense is not None and defense.capability(OutputPostprocessing) is not None else None
        drawn = derive_seed(seed, "answers", turn)

        def compute() -> Computed:
            models = stage.models(self.device)
            answering = models if altered is None else postprocessed(models, altered, seed=drawn)
            return query_models(
                answering, self.data.features[records], self.data.labels[records], required_signals, seed=seed
            ), {}

        own = SignalsKey(
            stage.key, self.data.fingerprint, tuple(records.tolist()), tuple(sorted(required_signals)), seed,
            self.device.type, altered, None if altered is None else turn,
        ).key()  # fmt: skip
        return own, self.remember(title, own, compute).arrays

    def _untrained(self, seeds: Sequence[int]) -> Stage:
        """The models before any training."""
        own = UntrainedKey(self.architecture, self.data.fingerprint, tuple(seeds)).key()
        return Stage(own, self.blank(seeds), {})

    def _round_keys(
        self, start: Stage, split: Split, pruning: Pruning, defense: Defense, seeds: Sequence[int],
        scores: Sequence[Scores | None], teacher_log_probs: SoftTargets | None,
    ) -> list[Key]:  # fmt: skip
        """One key per round; a round's key holds its predecessor's, so that equal beginnings are shared."""
        keys: list[Key] = []
        for sparsity in pruning.schedule.sparsities:
            own = RoundKey(
                keys[-1] if keys else start.key, sparsity, rules_of(pruning), defense,
                tuple(None if s is None else s.key for s in scores),
                None if teacher_log_probs is None else teacher_log_probs.key, self.ensemble_inputs(split, seeds),
            )  # fmt: skip
            keys.append(own.key())
        return keys

    def _stored_round(self, own: Key, seeds: Sequence[int]) -> Stage:
        entry = self.store.get(own)
        if entry is None:
            raise InputError("expected a round of pruning in the store, got none; was it deleted while the study ran?")
        return Stage(own, self.blank(seeds).with_arrays(entry.arrays), entry.meta)

    def ensemble_inputs(self, split: Split, seeds: Sequence[int]) -> EnsembleInputs:
        """Everything that training an ensemble reads, for keys."""
        return EnsembleInputs(
            self.architecture, self.data.fingerprint, split.fingerprint, tuple(seeds),
            self.config.backend, self.device.type,
        )  # fmt: skip

    def remember(self, title: str, own: Key, compute: Callable[[], Computed], work: float = 0) -> Entry:
        """What is stored under a key, computed and stored first if it is not there."""
        entry = self.store.get(own)
        if entry is None or own not in self.met:
            self.met.add(own)
            self.progress.begin(title, work)
            stored = entry is not None
            if entry is None:
                start = time.perf_counter()
                arrays, meta = compute()
                entry = self.store.put(own, arrays, {"seconds": time.perf_counter() - start, **meta})
            self.progress.end(stored=stored)
        self.seconds += float(entry.meta["seconds"])
        return entry

    def _show(self, epoch: int, recipe: Recipe, running: int, index: int, rounds: int) -> None:
        where = f"round {index + 1}/{rounds}, " if rounds > 1 else ""
        fraction = (index + (epoch + 1) / recipe.epochs) / rounds
        self.progress.advance(fraction, f"{where}epoch {epoch + 1}/{recipe.epochs}, {running} models training")


def _told(history: tuple[History, ...], choice: Choice) -> dict[str, Any]:
    return {
        "backend": asdict(choice),
        "dev_accuracy": [max(h.dev_accuracy) for h in history],
        "epochs": [len(h.dev_accuracy) for h in history],
        "records_seen": sum(h.records_seen for h in history),
    }
