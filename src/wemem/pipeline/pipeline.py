"""The parts that compute a study's stages, each complete once constructed."""

from dataclasses import dataclass, replace

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.pipeline.cache import Cache
from wemem.pipeline.progress import Progress
from wemem.pipeline.pruner import Pruner
from wemem.pipeline.querier import Querier
from wemem.pipeline.scorer import Scorer
from wemem.pipeline.soft_targets import Teacher
from wemem.pipeline.trainer import Trainer
from wemem.pipeline.workspace import Workspace
from wemem.store.store import Store


@dataclass(frozen=True)
class Pipeline:
    """All parts, sharing one workspace.

    Args:
        workspace: settings, data, device and cache.
        trainer: trains unpruned models.
        scorer: estimates memorization scores.
        teacher: gives soft targets.
        pruner: prunes and fine-tunes.
        querier: queries models as an adversary would.
    """

    workspace: Workspace
    trainer: Trainer
    scorer: Scorer
    teacher: Teacher
    pruner: Pruner
    querier: Querier

    @property
    def cache(self) -> Cache:
        """Looks results up and keeps them."""
        return self.workspace.cache

    @classmethod
    def open(cls, config: StudyConfig, data: Dataset, store: Store, progress: Progress) -> "Pipeline":
        """The parts for a study on one data set, through one store.

        Raises:
            InputError: as :meth:`Workspace.open`.
        """
        return cls._in(Workspace.open(config, data, store, progress))

    def on(self, data: Dataset) -> "Pipeline":
        """The same parts for another data set of records of the same shape and classes."""
        return self._in(replace(self.workspace, data=data))

    def under(self, config: StudyConfig) -> "Pipeline":
        """The same parts for a study of the same data and model with other settings."""
        return self._in(replace(self.workspace, config=config))

    @classmethod
    def _in(cls, workspace: Workspace) -> "Pipeline":
        trainer = Trainer(workspace)
        teacher = Teacher(workspace, trainer)
        return cls(workspace, trainer, Scorer(workspace), teacher, Pruner(workspace, teacher), Querier(workspace))
