"""The cost of training, in records times models times expected epochs, known before anything is
trained.

It is the only measure of work: progress shows shares of it, searches and tasks are planned by it.
Queries, attacks and scores count nothing, for they take seconds where training takes minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wemem.config.study import StudyConfig
from wemem.data.split import Role, Split
from wemem.defenses import Clipping, Defense, Undefended
from wemem.models.tokens import TokenModel
from wemem.pruning import Pruning
from wemem.training import Recipe

#: Models that are trained together and stored as one entry.
CHUNK = 16
#: Epochs that usually run before early stopping.
USUAL_EPOCHS = 21
#: Time of a step that needs every record's own gradient, relative to an ordinary step.
PER_SAMPLE = 5.0


def expected_epochs(recipe: Recipe) -> int:
    """Epochs that are likely to run: all of them, or fewer where training stops early.

    >>> expected_epochs(Recipe(epochs=100)), expected_epochs(Recipe(epochs=100, patience=None))
    (21, 100)
    """
    return recipe.epochs if recipe.patience is None else min(recipe.epochs, USUAL_EPOCHS)


def training_work(split: Split, recipe: Recipe) -> float:
    """Work of training every model of a split once."""
    return float((split.roles == Role.TRAIN).sum()) * expected_epochs(recipe)


def step_time(defense: Defense) -> float:
    """Time of a training step under a defense, relative to an ordinary step; it orders tasks and is
    no work.
    """
    return 1.0 if defense.capability(Clipping) is None else PER_SAMPLE


def whole_chunks(models: int) -> int:
    """The number of models, rounded up to whole chunks of :data:`CHUNK`.

    >>> whole_chunks(16), whole_chunks(17)
    (16, 32)
    """
    return CHUNK * -(-models // CHUNK)


@dataclass(frozen=True)
class CostModel:
    """Work of the parts of a study, for one seed.

    Args:
        config: the study.
        records: the number of training records of the victim; every shadow and reference model has
            as many.
    """

    config: StudyConfig
    records: float

    def dense(self, models: float) -> float:
        """Work of training models from scratch."""
        return models * self.records * expected_epochs(self.config.training)

    def fine_tuning(self, models: float, defense: Defense, pruning: Pruning) -> float:
        """Work of all rounds of pruning models to one sparsity, without that of teachers."""
        rounds = pruning.schedule.rounds * expected_epochs(pruning.recipe)
        return models * self.records * rounds * defense.passes_per_epoch

    def teaching(self, models: float, defense: Defense) -> float:
        """Work of training the teachers of models; they are the same for every sparsity."""
        return self.dense(models * defense.teacher_trainings(isinstance(self.config.model, TokenModel)))

    def pruning(self, models: float, defense: Defense, prunings: Sequence[Pruning]) -> float:
        """Work of pruning models, once or to several sparsities, with that of their teachers."""
        return self.teaching(models, defense) + sum(self.fine_tuning(models, defense, to) for to in prunings)

    def originals(self) -> float:
        """Work of training the unpruned victim and shadows; a given victim is not trained."""
        return self.dense(self.config.split.shadows + (self.config.victim is None))

    def defender_scores(self) -> float:
        """Work of the subset models behind the defender's memorization scores; none if they come
        from a file.
        """
        return 0.0 if self.config.scores.file is not None else self.subset_models()

    def shadow_scores(self) -> float:
        """Work of the subset models behind the scores of the shadows: of each, or of their pool."""
        return self.subset_models() * (self.config.split.shadows if self.config.scores.drawn_from == "own" else 1)

    def subset_models(self) -> float:
        """Work of the subset models that score the records of one model."""
        return self.dense(self.config.scores.models * self.config.scores.fraction)

    def references(self) -> float:
        """Work of training the unpruned reference models, and the models that score their records."""
        config = self.config
        if not config.uses("shared"):
            return 0.0
        most, scored = config.references_of("dense"), config.scored_references
        if config.scores.drawn_from == "pool":
            return self.dense(max(most, whole_chunks(config.scores.models)) if scored else most)
        return self.dense(most) + scored * self.subset_models()

    def preparation(self) -> float:
        """Work that all arms of a seed share."""
        scores = self.defender_scores() + self.shadow_scores() if self.config.needs_scores else 0.0
        return self.originals() + scores + self.references()

    def arm_models(self, label: str) -> int:
        """The number of models that are pruned in an arm: the victim, its shadows and the reference
        models.
        """
        references = self.config.references_of(label) if self.config.uses("shared") else 0
        return 1 + self.config.split.shadows + references

    def arm(self, label: str) -> float:
        """Work of pruning all models of an arm, to every sparsity that it has."""
        return self.pruning(self.arm_models(label), self.config.defense_of(label), self.config.prunings_of(label))

    def unaware_shadows(self) -> float:
        """Work of pruning victim and shadows without a defense, for the adversary who does not know
        it.
        """
        return self.pruning(1 + self.config.split.shadows, Undefended(), self.config.prunings)
