"""One seed of a study: who has which records, which models they train, what each may know.

Three parties' models, none of which sees what it must not:

* the victim and its shadows, on disjoint halves of the records (:attr:`Parties.split`);
* reference models on random halves of the audited records, for attacks that compare with and without a record;
* subset models for memorization scores: the defender's on the victim's training records only, the adversary's on
  the adversary's records only, and for the reference models their own unpruned versions.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split, given_victim, random_halves, stratified_draw, subsets, victim_and_shadows
from wemem.defenses import Defense
from wemem.errors import InputError
from wemem.files.input_files import user_path
from wemem.files.record_tables import read_members
from wemem.memorization import Memorization, read_scores
from wemem.pipeline.artifacts import Scores, Stage
from wemem.pipeline.cost import CHUNK, whole_chunks
from wemem.pipeline.stages import Stages
from wemem.pipeline.victim import is_onnx, victim_ensemble, victim_file
from wemem.pruning import Pruning
from wemem.randomness import derive_seed, generator
from wemem.signals import UNKNOWN
from wemem.store.keys import ScoreFileKey, ShippedVictimKey, SwappedKey, VictimKey
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class Parties:
    """The models and records of one seed; its properties are computed when first asked for, and stored."""

    config: StudyConfig
    data: Dataset
    stages: Stages
    seed: int
    split: Split

    @classmethod
    def of(cls, config: StudyConfig, data: Dataset, stages: Stages, seed: int) -> "Parties":
        """One seed with the victim and shadows that the study describes."""
        return cls(config, data, stages, seed, study_split(config, data, seed))

    @cached_property
    def tune(self) -> Int64[np.ndarray, " t"]:
        """Held-out records of the victim that a search may look at: a half of them, or none if no defense searches."""
        if not self.config.searches:
            return np.zeros(0, np.int64)
        held = self.split.records(0, Role.AUDIT)
        return stratified_draw(self.data.labels, held, [len(held) // 2], generator(self.seed, "split/tune"))[0]

    @property
    def confirm(self) -> Int64[np.ndarray, " c"]:
        """The held-out records of the victim that nothing was chosen by."""
        return np.setdiff1d(self.split.records(0, Role.AUDIT), self.tune)

    @cached_property
    def evaluation_split(self) -> Split:
        """Who is judged by what: :attr:`split`, without what a search has looked at."""
        if not len(self.tune):
            return self.split
        roles = self.split.roles.copy()
        roles[0, self.tune] = Role.UNUSED
        return Split(roles, self.split.labels, self.split.layout)

    def seeds(self, who: str, count: int) -> list[int]:
        """One seed per model of a party."""
        return [derive_seed(self.seed, who, k) for k in range(count)]

    @property
    def member_seeds(self) -> list[int]:
        """Seeds of the victim and its shadows."""
        return self.seeds("member", self.split.num_models)

    @cached_property
    def dense(self) -> Stage:
        """The unpruned victim and shadows."""
        if self.config.victim is None:
            return self.stages.train(self.title("dense models"), self.split, self.member_seeds)
        return self.behind_victim(self.shadows, UNKNOWN)

    @cached_property
    def shadows(self) -> Stage:
        """The unpruned shadows alone, for a victim that exists already."""
        members = range(1, self.split.num_models)
        seeds = [self.member_seeds[k] for k in members]
        return self.stages.train(self.title("dense shadows"), self.split.select(members), seeds)

    def behind_victim(self, shadows: Stage, recipe_fingerprint: str) -> Stage:
        """The given victim, made as ``recipe_fingerprint`` says, with shadows behind it."""
        kept = {name: shadows.meta[name] for name in ("backend", "seconds")}  # the rest tells of a shadow
        meta = {**kept, "recipe_fingerprint": [recipe_fingerprint, *shadows.provenance]}
        if is_onnx(self.config):
            shipped = victim_file(self.config)
            own = ShippedVictimKey(shipped.sha256, shipped.runtime, shadows.key).key()
            return Stage(own, replace(shadows.ensemble, masks={}, channels={}), meta, shipped)
        victim, fingerprint = victim_ensemble(self.config, self.data)
        joined = Ensemble.concatenate([replace(e, masks={}, channels={}) for e in (victim, shadows.ensemble)])
        return Stage(VictimKey(self.stages.architecture, fingerprint, shadows.key).key(), joined, meta)

    @cached_property
    def defender_scores(self) -> Scores:
        """Scores of the victim's training records, by models that never saw another party's."""
        if self.config.scores.file is not None:
            return self._scores_from_file(self.config.scores.file)
        return self._subset_scores("defender", self.split.records(0, Role.TRAIN), self.split.records(0, Role.DEV))

    @cached_property
    def adversary_scores(self) -> Scores:
        """Scores of the adversary's own records."""
        pool = np.flatnonzero((self.split.roles[1:] != Role.UNUSED).any(axis=0))
        return self._subset_scores("adversary", pool, len(self.split.records(0, Role.DEV)))

    def member_scores(self) -> list[Scores | None]:
        """What each of the victim and its shadows is defended by."""
        return [self.defender_scores, *[self.adversary_scores] * (self.split.num_models - 1)]

    @cached_property
    def reference_split(self) -> Split:
        """Reference models on random halves of the audited records; enough of them for scores too."""
        audited = self.split.audited(0)
        used = np.concatenate([audited, self.split.records(0, Role.DEV)])
        outside = np.setdiff1d(np.arange(len(self.data)), used)
        dev = len(self.split.records(0, Role.DEV))
        return random_halves(
            self.data.labels, audited, self._reference_count, seed=self.seed, outside=outside,
            train_size=len(self.split.records(0, Role.TRAIN)), dev_size=dev,
        )  # fmt: skip

    @cached_property
    def population(self) -> Int64[np.ndarray, " p"]:
        """Records of the adversary that no model it compares with was trained on (RMIA)."""
        used = np.concatenate([self.split.records(0, Role.DEV), *np.nonzero(self.reference_split.roles)[1:]])
        return np.setdiff1d(np.arange(len(self.data)), used)

    @property
    def _reference_count(self) -> int:
        counts = [self.config.references_of(label) for label in self.config.labels]
        for wanted in counts:
            if wanted < 2 or wanted % 2:
                raise InputError(f"references must be an even number, at least 2, got {wanted}; halves come in pairs")
        return max(*counts, self._scored_references) if self.config.needs_scores else max(counts)

    @property
    def _scored_references(self) -> int:
        """Whole chunks, and as many whatever the number that is attacked with: more of those later change no score."""
        return whole_chunks(self.config.scores.models)

    @cached_property
    def dense_references(self) -> list[Stage]:
        """Unpruned reference models, in chunks; the first of them get pruned, as many as an arm is attacked with."""
        seeds = self.seeds("reference", self.reference_split.num_models)
        return self.stages.train_in_chunks(self.title("dense references"), self.reference_split, seeds)

    @cached_property
    def reference_scores(self) -> Scores:
        """The adversary's scores of the audited pool: random halves are subset models already."""
        split = self.reference_split.select(range(self._scored_references))
        return self.stages.score(
            self.title("reference scores"), split, self.dense_references[: split.num_models // CHUNK]
        )

    def reference_chunks(self, label: str) -> list[tuple[Split, list[int], Stage]]:
        """Split, seeds and dense models of every chunk of reference models that an arm is attacked with."""
        count, seeds = self.config.references_of(label), self.seeds("reference", self.reference_split.num_models)
        chunks = []
        for i, stage in enumerate(self.dense_references):
            members = range(i * CHUNK, min(i * CHUNK + CHUNK, count))
            if len(members):
                kept = Stage(stage.key, stage.ensemble.select(range(len(members))), stage.meta)
                chunks.append((self.reference_split.select(members), [seeds[k] for k in members], kept))
        return chunks

    def dense_references_of(self, label: str) -> list[Stage]:
        """The unpruned reference models that an arm is attacked with, chunk by chunk."""
        return [stage for _, _, stage in self.reference_chunks(label)]

    def pruned_members(
        self, title: str, defense: Defense, pruning: Pruning, *, keep_rounds: bool = False
    ) -> list[Stage]:
        """The victim and its shadows pruned under a defense, each by its own party's scores."""
        scores = self.member_scores() if defense.needs_scores else [None] * self.split.num_models
        return self.stages.prune(
            self.title(title), self.dense, self.split, pruning, defense, seeds=self.member_seeds, scores=scores,
            keep_rounds=keep_rounds,
        )  # fmt: skip

    def pruned_alone(self, title: str, defense: Defense, pruning: Pruning) -> Stage:
        """The victim pruned by itself, without a shadow and without its audited records, so that nothing sees them."""
        roles = self.split.roles[:1].copy()
        roles[roles == Role.AUDIT] = Role.UNUSED
        dense = Stage(self.dense.key, self.dense.ensemble.select([0]), self.dense.meta)
        return self.stages.prune(
            self.title(title), dense, Split(roles, self.split.labels, "subsets"), pruning, defense,
            seeds=self.member_seeds[:1], scores=[self.defender_scores if defense.needs_scores else None],
        )[-1]  # fmt: skip

    def swap_victim(self, victim: Stage, shadows: Stage) -> Stage:
        """The victim of one stage with the shadows of another."""
        rest = shadows.ensemble.select(range(1, len(shadows.ensemble)))
        joined = Ensemble.concatenate([replace(e, masks={}, channels={}) for e in (victim.ensemble.select([0]), rest)])
        meta = {**victim.meta, "recipe_fingerprint": [victim.provenance[0], *shadows.provenance[1:]]}
        return Stage(SwappedKey(victim.key, shadows.key).key(), joined, meta)

    def pruned_references(self, label: str, defense: Defense, pruning: Pruning) -> list[Stage]:
        """The reference models pruned under a defense, chunk by chunk."""
        chunks = self.reference_chunks(label)
        stages = []
        to = f" to {pruning.schedule.sparsity}" if len(self.config.prunings_of(label)) > 1 else ""
        for i, (split, seeds, dense) in enumerate(chunks):
            part = f", part {i + 1} of {len(chunks)}" if i else ""
            title = self.title(f"prune references under {label}{to}{part}")
            scores = [self.reference_scores if defense.needs_scores else None] * len(seeds)
            stages += self.stages.prune(title, dense, split, pruning, defense, seeds=seeds, scores=scores)
        return stages

    def _subset_scores(self, party: str, pool: Int64[np.ndarray, " n"], dev: Int64[np.ndarray, " d"] | int) -> Scores:
        settings = self.config.scores
        size = round(settings.fraction * len(self.split.records(0, Role.TRAIN)))
        split = subsets(self.data.labels, pool, size, settings.models, seed=self.seed, purpose=party, dev=dev)
        models = self.stages.train_in_chunks(
            self.title(f"{party} subset models"), split, self.seeds(party, settings.models)
        )
        return self.stages.score(self.title(f"{party} scores"), split, models)

    def _scores_from_file(self, path: str) -> Scores:
        self.data.require_all_records("memorization scores")
        score = read_scores(user_path(path), len(self.data))
        unknown = np.full(len(score), np.nan)
        none = np.zeros(len(score), np.int64)
        own = ScoreFileKey(tuple(None if np.isnan(s) else float(s) for s in score)).key()
        return Scores(own, Memorization(score, unknown, none, none), float("nan"), 0, 0.0)

    def title(self, what: str) -> str:
        """A stage's name, with the seed where there are several."""
        return what if len(self.config.seeds) == 1 else f"{what}, seed {self.seed}"


def study_split(config: StudyConfig, data: Dataset, seed: int) -> Split:
    """Victim and shadows, drawn by the study or around the victim that it was given."""
    settings = config.split
    if config.victim is None:
        return victim_and_shadows(
            data.labels, settings.shadows, seed=seed, train=settings.train, dev=settings.dev
        )  # fmt: skip
    data.require_all_records("members")
    return given_victim(
        data.labels, read_members(config.victim.members, len(data)), settings.shadows, seed=seed,
        train=settings.train, dev=settings.dev, adversary_share=config.victim.adversary_share,
    )  # fmt: skip
