"""One seed of a study: the records of each party, and the models that it trains on them.

No party's models see records of another party that they must not see:

* the victim and its shadows use disjoint halves of the records (:attr:`Parties.split`);
* reference models use random halves of the audited records, for attacks that compare with and
without a record;
* subset models estimate memorization scores: of the victim on its training records only, and in the
  same way of every shadow and reference model on its own training records only; or, at less cost,
  of all shadows on the adversary's records and of all reference models by themselves
  (``scores.drawn_from``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Int64

from wemem.config.study import StudyConfig
from wemem.data.canaries import Planted, plant
from wemem.data.dataset import Dataset
from wemem.data.given_victim import halves_around
from wemem.data.split import Role, Split, random_halves, stratified_draw, subsets
from wemem.defenses import Defense
from wemem.errors import InputError
from wemem.files.input_files import user_path
from wemem.memorization import read_scores
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.pipeline.cost import CHUNK, whole_chunks
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.stage import Derived, Stage, given
from wemem.pipeline.study_split import study_split, training_records
from wemem.pipeline.trainer import chunks
from wemem.pipeline.victim import certified_training, load_victim, selected, with_shadows
from wemem.pruning import Pruning
from wemem.randomness import derive_seed, generator

Records = Int64[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class Parties:
    """The records and models of one seed.

    Properties draw records. Methods name the stages of a party's work
    (:class:`~wemem.pipeline.stage.Stage`); nothing is computed before the result of one is read.

    Args:
        pipeline: trains, scores, prunes and queries.
        seed: of this repetition of the study.
        split: roles of the records for the victim, model 0, and its shadows.
        planted: the canaries behind the records of the data set; None without canaries.
    """

    pipeline: Pipeline
    seed: int
    split: Split
    planted: Planted | None = None

    @classmethod
    def of(cls, pipeline: Pipeline, seed: int) -> "Parties":
        """One seed with the victim and shadows that the study describes, and with its canaries
        unless the victim is given.
        """
        config = pipeline.workspace.config
        parties = cls(pipeline, seed, study_split(config, pipeline.workspace.data, seed))
        return parties.with_canaries if config.canaries and config.victim is None else parties

    @cached_property
    def with_canaries(self) -> "Parties":
        """The same seed with the canaries of the study in the records of every model.

        A given victim was trained without them. Its own :class:`Parties` therefore has none, and
        the reference models of these ones show what its recipe does to canaries.
        """
        if self.planted is not None:
            return self
        planted = plant(self.data, self.split, self.config.canaries, seed=self.seed)
        return Parties(self.pipeline.on(planted.data), self.seed, planted.split, planted)

    @property
    def config(self) -> StudyConfig:
        """The study."""
        return self.pipeline.workspace.config

    @property
    def data(self) -> Dataset:
        """The records."""
        return self.pipeline.workspace.data

    @cached_property
    def members(self) -> Records:
        """The training records of the victim, those too that the adversary has and that are not
        audited.
        """
        return training_records(self.config, self.data, self.split)

    @cached_property
    def plain_split(self) -> Split:
        """The roles of all records but the canaries."""
        return self.split if self.planted is None else self.planted.without_canaries(self.split)

    @cached_property
    def tuning_records(self) -> Records:
        """Held-out records of the victim that a search may use: half of them, or none if no defense
        searches.
        """
        if not self.config.searches:
            return np.zeros(0, np.int64)
        held = self.plain_split.records(0, Role.AUDIT)
        return stratified_draw(self.data.labels, held, [len(held) // 2], generator(self.seed, "split/tune"))[0]

    @property
    def confirmation_records(self) -> Records:
        """Held-out records of the victim by which nothing was chosen."""
        return np.setdiff1d(self.plain_split.records(0, Role.AUDIT), self.tuning_records)

    @cached_property
    def evaluation_split(self) -> Split:
        """The roles by which models are evaluated: :attr:`plain_split` without the records that a
        search has used.
        """
        if not len(self.tuning_records):
            return self.plain_split
        roles = self.plain_split.roles.copy()
        roles[0, self.tuning_records] = Role.UNUSED
        return Split(roles, self.plain_split.labels, self.plain_split.layout)

    @cached_property
    def reference_split(self) -> Split:
        """Roles of reference models on random halves of the audited records; enough models for
        their scores too.
        """
        halves = self._reference_halves()
        return halves if self.planted is None else self.planted.extended(halves)

    def _reference_halves(self) -> Split:
        """Roles of reference models for the records that are no canaries."""
        split, count = self.plain_split, self._reference_count
        if self.config.victim is not None:
            return halves_around(split.labels, split, self.members, count, seed=self.seed)
        audited, dev, train = split.audited(0), split.records(0, Role.DEV), split.records(0, Role.TRAIN)
        outside = np.setdiff1d(np.arange(len(split.labels)), np.concatenate([audited, dev, self._canary_sources]))
        return random_halves(
            split.labels, audited, count, seed=self.seed, outside=outside, train_size=len(train), dev_size=len(dev)
        )  # fmt: skip

    @property
    def _canary_sources(self) -> Records:
        """Records from which canaries were made, which have no role."""
        return np.zeros(0, np.int64) if self.planted is None else self.planted.sources

    @cached_property
    def population(self) -> Records:
        """Records of the adversary on which no model that it compares with was trained (RMIA)."""
        used = np.concatenate([self.split.records(0, Role.DEV), *np.nonzero(self.reference_split.roles)[1:]])
        return np.setdiff1d(np.arange(len(self.plain_split.labels)), np.concatenate([used, self._canary_sources]))

    def seeds(self, party: str, count: int) -> list[int]:
        """One seed per model of a party."""
        return [derive_seed(self.seed, party, k) for k in range(count)]

    @property
    def model_seeds(self) -> list[int]:
        """Seeds of the victim and its shadows."""
        return self.seeds("member", self.split.num_models)

    def dense(self) -> Stage[TrainedModels]:
        """The unpruned victim and its shadows, if it has any; a given victim is read from its file."""
        if self.config.victim is None:
            return self.pipeline.trainer.plan(self.title("dense models"), self.split, self.model_seeds)
        if self.split.num_models == 1:
            return given(load_victim(self.pipeline.workspace))
        return self.join_victim(self.dense_shadows(), certified_training(self.pipeline.workspace, self.members))

    def dense_shadows(self) -> Stage[TrainedModels]:
        """The unpruned shadows alone, for a victim that exists already."""
        shadows = range(1, self.split.num_models)
        seeds = [self.model_seeds[k] for k in shadows]
        return self.pipeline.trainer.plan(self.title("dense shadows"), self.split.select(shadows), seeds)

    def join_victim(self, shadows: Stage[TrainedModels], recipe_fingerprint: str) -> Stage[TrainedModels]:
        """The given victim with shadows behind it.

        Args:
            shadows: the shadows.
            recipe_fingerprint: of the victim, as its certificate states it.
        """
        return with_shadows(self.pipeline.workspace, shadows, recipe_fingerprint)

    def defender_scores(self) -> Stage[MemorizationScores]:
        """Scores of the victim's training records by models that see no other party's, or from a
        file.
        """
        if self.config.scores.file is not None:
            return given(read_score_file(self.config.scores.file, self.data))
        return self._scores_by_subsets("defender", self.defender_subsets)

    def shadow_scores(self) -> list[Stage[MemorizationScores]]:
        """Scores of the training records of each shadow as the victim's are, or of all together by
        models on the adversary's records (``scores.drawn_from``).
        """
        shadows = range(1, self.split.num_models)
        if self.config.scores.drawn_from == "pool":
            return [self._scores_by_subsets("adversary", self.pool_subsets)] * len(shadows)
        return [self._scores_by_subsets(f"shadow {k}", partial(self.shadow_subsets, k)) for k in shadows]

    def defender_subsets(self) -> Split:
        """Roles of the models on subsets of the victim's training records that score them."""
        return self._own_subsets("defender", self.split, 0)

    def shadow_subsets(self, model: int) -> Split:
        """Roles of the models on subsets of one shadow's training records that score them."""
        return self._own_subsets(f"shadow {model}", self.split, model)

    def pool_subsets(self) -> Split:
        """Roles of the models on subsets of the adversary's records that score all shadows
        together.
        """
        pool = np.flatnonzero((self.split.roles[1:] != Role.UNUSED).any(axis=0))
        train, dev = (len(self.split.records(1, role)) for role in (Role.TRAIN, Role.DEV))
        return self._subsets("adversary", pool, train, dev)

    @cached_property
    def references(self) -> list[Stage[TrainedModels]]:
        """The unpruned reference models, in chunks; an arm prunes the first of them, as many as
        attack it.
        """
        seeds = self.seeds("reference", self.reference_split.num_models)
        return self.pipeline.trainer.plan_chunks(self.title("dense references"), self.reference_split, seeds)

    def reference_scores(self, count: int) -> list[Stage[MemorizationScores]]:
        """Scores of the training records of the first reference models.

        Each is scored by subset models of its own records, as the victim is, or all together by the
        unpruned reference models, whose random halves are subsets of the pool
        (``scores.drawn_from``).
        """
        if self.config.scores.drawn_from == "pool" and count:
            split = self.reference_split.select(range(whole_chunks(self.config.scores.models)))
            models = self.references[: split.num_models // CHUNK]
            return [self.pipeline.scorer.plan(self.title("reference scores"), split, models)] * count
        return [
            self._scores_by_subsets(f"reference {k + 1}", partial(self.reference_subsets, k)) for k in range(count)
        ]  # fmt: skip

    def reference_subsets(self, model: int) -> Split:
        """Roles of the models on subsets of one reference model's training records that score them."""
        return self._own_subsets(f"reference {model + 1}", self.reference_split, model)

    def references_of(self, label: str) -> list[Stage[TrainedModels]]:
        """The unpruned reference models that an arm is attacked with, chunk by chunk."""
        return [dense for _, _, dense in self._reference_chunks(label)]

    def pruned_with_shadows(
        self, title: str, defense: Defense, pruning: Pruning, *, keep_rounds: bool = False
    ) -> list[Stage[TrainedModels]]:
        """The victim and its shadows pruned under a defense, each by its own party's scores; the
        models by round.
        """
        scores: list[Stage[MemorizationScores] | None] = [None] * self.split.num_models
        if defense.needs_scores:
            scores = [self.defender_scores(), *self.shadow_scores()]
        rounds = self.pipeline.pruner.plan(
            self.title(title), self.dense(), self.split, pruning, defense, seeds=self.model_seeds, scores=scores,
            keep_rounds=keep_rounds,
        )  # fmt: skip
        return [self._certified(models, defense, range(1, self.split.num_models)) for models in rounds]

    def pruned_shadows(self, title: str, defense: Defense, pruning: Pruning) -> Stage[TrainedModels]:
        """The shadows pruned alone, for a victim that is pruned already."""
        shadows = range(1, self.split.num_models)
        scores: Sequence[Stage[MemorizationScores] | None] = [None] * len(shadows)
        if defense.needs_scores:
            scores = self.shadow_scores()
        pruned = self.pipeline.pruner.plan(
            self.title(title), self.dense_shadows(), self.split.select(shadows), pruning, defense,
            seeds=[self.model_seeds[k] for k in shadows], scores=scores,
        )[-1]  # fmt: skip
        return self._certified(pruned, defense, range(len(shadows)))

    def pruned_alone(self, title: str, defense: Defense, pruning: Pruning) -> Stage[TrainedModels]:
        """The victim pruned without a shadow and without its audited records, so that nothing is
        chosen by them.
        """
        roles = self.split.roles[:1].copy()
        roles[roles == Role.AUDIT] = Role.UNUSED
        victim = selected(self.dense(), [0], self.split.num_models)
        return self.pipeline.pruner.plan(
            self.title(title), victim, Split(roles, self.split.labels, "subsets"), pruning, defense,
            seeds=self.model_seeds[:1], scores=[self.defender_scores() if defense.needs_scores else None],
        )[-1]  # fmt: skip

    def pruned_references(
        self, label: str, defense: Defense, pruning: Pruning, *, every_release: bool = False
    ) -> list[list[Stage[TrainedModels]]]:
        """The reference models that an arm is attacked with, pruned chunk by chunk.

        Those of a chunk are a list: the unpruned ones and those after every round for
        ``every_release``, the last alone otherwise.
        """
        chunks, pruned = self._reference_chunks(label), list[list[Stage[TrainedModels]]]()
        to = f" to {pruning.schedule.sparsity}" if len(self.config.prunings_of(label)) > 1 else ""
        count = self.config.references_of(label)
        scores: Sequence[Stage[MemorizationScores] | None] = [None] * count
        if defense.needs_scores:
            scores = self.reference_scores(count)
        for i, (split, seeds, dense) in enumerate(chunks):
            part = f", part {i + 1} of {len(chunks)}" if i else ""
            title = self.title(f"prune references under {label}{to}{part}")
            rounds = self.pipeline.pruner.plan(
                title, dense, split, pruning, defense, seeds=seeds, scores=scores[i * CHUNK : i * CHUNK + len(seeds)],
                keep_rounds=every_release,
            )  # fmt: skip
            certified = [self._certified(models, defense, range(len(seeds))) for models in rounds]
            pruned.append([dense, *certified] if every_release else certified)
        return pruned

    def title(self, what: str) -> str:
        """The name of a stage, with the seed where there are several."""
        return what if len(self.config.seeds) == 1 else f"{what}, seed {self.seed}"

    @property
    def _reference_count(self) -> int:
        counts = [self.config.references_of(label) for label in self.config.labels]
        for wanted in counts:
            if wanted < 2 or wanted % 2:
                raise InputError(f"references must be an even number, at least 2, got {wanted}; halves come in pairs")
        if self.config.scores.drawn_from == "pool" and self.config.needs_scores:
            # whole chunks score, so that more reference models later change no score
            return max(*counts, whole_chunks(self.config.scores.models))
        return max(counts)

    @cached_property
    def _planned_scores(self) -> dict[str, Stage[MemorizationScores]]:
        """The scores by party, as far as they were planned."""
        return {}

    def _certified(self, pruned: Stage[TrainedModels], defense: Defense, others: Sequence[int]) -> Stage[TrainedModels]:
        """Pruned models whose fingerprints state if the adversary's were not scored as the victim
        is.

        Args:
            pruned: the models.
            defense: the defense under which they were pruned.
            others: the adversary's among them.
        """
        if self.config.scores.as_victim or not defense.needs_scores:
            return pruned
        return Derived(pruned.key, (pruned,), lambda: pruned.read().qualified("scored otherwise", others))

    def _reference_chunks(self, label: str) -> list[tuple[Split, list[int], Stage[TrainedModels]]]:
        """Split, seeds and unpruned models of every chunk of reference models that an arm is
        attacked with.
        """
        every = self.reference_split.num_models
        count, seeds = self.config.references_of(label), self.seeds("reference", every)
        return [
            (
                self.reference_split.select(models),
                [seeds[k] for k in models],
                selected(dense, range(len(models)), len(whole)),
            )
            for models, whole, dense in zip(chunks(count), chunks(every), self.references, strict=False)
        ]

    def _subsets(self, party: str, pool: Records, trained_on: int, dev: Records | int) -> Split:
        """Random subsets of some records, each a share of the number that a model of the party
        trains on.
        """
        settings = self.config.scores
        size = round(settings.fraction * trained_on)
        return subsets(self.data.labels, pool, size, settings.models, seed=self.seed, purpose=party, dev=dev)

    def _own_subsets(self, party: str, split: Split, model: int) -> Split:
        """Roles of the models on subsets of the training records of one model, with its dev
        records.
        """
        train, dev = (split.records(model, role) for role in (Role.TRAIN, Role.DEV))
        return self._subsets(party, train, len(train), dev)

    def _scores_by_subsets(self, party: str, draw: Callable[[], Split]) -> Stage[MemorizationScores]:
        """Scores of a party's records by models on subsets of them."""
        if party not in self._planned_scores:
            split, seeds = draw(), self.seeds(party, self.config.scores.models)
            models = self.pipeline.trainer.plan_chunks(self.title(f"{party} subset models"), split, seeds)
            self._planned_scores[party] = self.pipeline.scorer.plan(self.title(f"{party} scores"), split, models)
        return self._planned_scores[party]


def read_score_file(file: str, data: Dataset) -> MemorizationScores:
    """The defender's scores from a file, one for each record of a data set.

    Raises:
        InputError: the file cannot be read, or the data set is a draw from those that it names.
    """
    data.require_all_records("memorization scores")
    return MemorizationScores.given(read_scores(user_path(file), len(data)))
