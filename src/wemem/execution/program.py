"""Commands as phases of work: for each phase the groups of stages that it computes.

A phase is known once the phase before it is in the store: the settings that a grid selects, or the
defense that a search finds, decide what the next one computes. A program is named by values that
JSON holds, so that another process builds the same stages from the name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.diagnosis.design import Exposures
from wemem.diagnosis.experiment import (
    AS_RUN,
    DiagnosisSettings,
    Experiment,
    config_for_diagnosis,
    controlled_ways,
    epochs_of,
    expected_work,
    exposures_for,
    trace_of,
)
from wemem.errors import InputError
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pipeline.stage import Stage
from wemem.store.store import Store
from wemem.study.feasibility import require_feasible_study
from wemem.study.grid_search import select_settings
from wemem.study.groups import Group, arm_groups, search_groups, selection_groups, stages_of
from wemem.study.plan import cost_of, planned_work
from wemem.study.single_model import config_for_audit, config_for_pruning, parties_for_audit, parties_for_pruning

L = TypeVar("L", bound=str | None)


@dataclass(frozen=True)
class Phase:
    """Groups of stages that can be computed together.

    Args:
        program: the program with the settings that are known by now.
        groups: the groups of every seed.
    """

    program: "Program"
    groups: tuple[Group, ...]


class Program(Protocol):
    """A command on a study.

    Attributes:
        command: the name of the command.
        study: the study.
        config: the study as the command uses it.
    """

    command: ClassVar[str]

    @property
    def study(self) -> StudyConfig: ...

    @property
    def config(self) -> StudyConfig: ...

    def as_json(self) -> dict[str, Any]:
        """The name, without the command."""

    @classmethod
    def from_json(cls, name: Mapping[str, Any]) -> Self:
        """The program of a name."""
        ...

    def parties(self, pipeline: Pipeline, seed: int) -> Parties:
        """The records and models of one seed."""
        ...

    def stages(self, parties: Parties, group: Group) -> Sequence[Stage[Any]]:
        """The stages whose results a group needs."""
        ...

    def require_feasible(self, pipeline: Pipeline) -> None:
        """Refuse what would fail after training.

        Raises:
            InputError: a check of :mod:`wemem.study.feasibility` fails.
        """

    def phases(self, store: Store, data: Dataset) -> Iterator[Phase]:
        """The phases of the command; each is asked for once the one before it is in the store."""
        ...

    def expected_work(self, data: Dataset) -> float:
        """The work of all phases, as far as it is known before the first one."""
        ...


@dataclass(frozen=True, eq=False)
class StudyProgram:
    """``wemem run`` and ``wemem compare``: every arm of a study.

    Args:
        study: the study.
    """

    command: ClassVar[str] = "study"
    study: StudyConfig

    @property
    def config(self) -> StudyConfig:
        return self.study

    def as_json(self) -> dict[str, Any]:
        return {"study": dict(self.study.table)}

    @classmethod
    def from_json(cls, name: Mapping[str, Any]) -> Self:
        return cls(parse_study(name["study"]))

    def parties(self, pipeline: Pipeline, seed: int) -> Parties:
        return Parties.of(pipeline, seed)

    def stages(self, parties: Parties, group: Group) -> Sequence[Stage[Any]]:
        return stages_of(parties, group)

    def require_feasible(self, pipeline: Pipeline) -> None:
        require_feasible_study(pipeline)

    def expected_work(self, data: Dataset) -> float:
        return planned_work(cost_of(self.config, data))

    def phases(self, store: Store, data: Dataset) -> Iterator[Phase]:
        config = self.config
        if config.grids:
            yield Phase(self, tuple(selection_groups(config)))
            config = select_settings(config, store, Silent(), data).config
        chosen = type(self)(config)
        searches = search_groups(config)
        yield Phase(chosen, (*arm_groups(config, searched=False), *searches))
        if searches:
            yield Phase(chosen, tuple(arm_groups(config, searched=True)))


@dataclass(frozen=True, eq=False)
class GivenModelProgram(Generic[L]):
    """A command on a given model.

    Args:
        study: the study, with ``[victim]``.
        label: the label of the defense under which the model was pruned, None if it was not; or of
            the one to prune under.
    """

    study: StudyConfig
    label: L

    def as_json(self) -> dict[str, Any]:
        return {"study": dict(self.study.table), "label": self.label}

    @classmethod
    def from_json(cls, name: Mapping[str, Any]) -> Self:
        return cls(parse_study(name["study"]), name["label"])

    def stages(self, parties: Parties, group: Group) -> Sequence[Stage[Any]]:
        return stages_of(parties, group)

    def expected_work(self, data: Dataset) -> float:
        return 0.0


@dataclass(frozen=True, eq=False)
class AuditProgram(GivenModelProgram[str | None]):
    """``wemem audit`` of a given model."""

    command: ClassVar[str] = "audit"

    @property
    def config(self) -> StudyConfig:
        return config_for_audit(self.study, self.label)

    def parties(self, pipeline: Pipeline, seed: int) -> Parties:
        return Parties.of(pipeline, seed)

    def require_feasible(self, pipeline: Pipeline) -> None:
        parties_for_audit(pipeline, self.label)

    def phases(self, store: Store, data: Dataset) -> Iterator[Phase]:
        yield Phase(self, (Group("audit", self.label or ""),))


@dataclass(frozen=True, eq=False)
class PruneProgram(GivenModelProgram[str]):
    """``wemem prune`` of a given model."""

    command: ClassVar[str] = "prune"

    @property
    def config(self) -> StudyConfig:
        return config_for_pruning(self.study, self.label)

    def parties(self, pipeline: Pipeline, seed: int) -> Parties:
        return parties_for_pruning(pipeline)[0]

    def require_feasible(self, pipeline: Pipeline) -> None:
        parties_for_pruning(pipeline)

    def phases(self, store: Store, data: Dataset) -> Iterator[Phase]:
        if searches := search_groups(self.config):
            yield Phase(self, tuple(searches))
        yield Phase(self, (Group("prune", self.label),))


@dataclass(frozen=True, eq=False)
class DiagnosisProgram:
    """``wemem diagnose``: the arms of a diagnosis.

    Args:
        study: the study.
        settings: the settings of the diagnosis.
        epochs: the number of epochs of every controlled round; 0 while it is not known.
    """

    command: ClassVar[str] = "diagnose"
    study: StudyConfig
    settings: DiagnosisSettings
    epochs: int = 0

    @property
    def config(self) -> StudyConfig:
        return config_for_diagnosis(self.study)

    def as_json(self) -> dict[str, Any]:
        return {"study": dict(self.study.table), "settings": asdict(self.settings), "epochs": self.epochs}

    @classmethod
    def from_json(cls, name: Mapping[str, Any]) -> Self:
        return cls(parse_study(name["study"]), DiagnosisSettings(**name["settings"]), name["epochs"])

    def parties(self, pipeline: Pipeline, seed: int) -> Parties:
        return Parties.of(pipeline, seed)

    def stages(self, parties: Parties, group: Group) -> Sequence[Stage[Any]]:
        return Experiment(parties, self.settings).stages(group.label, self.epochs)

    def require_feasible(self, pipeline: Pipeline) -> None:
        self._exposures(pipeline.workspace.data)

    def expected_work(self, data: Dataset) -> float:
        return expected_work(self.config, self._exposures(data))

    def phases(self, store: Store, data: Dataset) -> Iterator[Phase]:
        yield Phase(self, (Group("dense"), Group("arm", AS_RUN)))
        parties = self.parties(Pipeline.open(self.config, data, store, Silent()), self.config.seeds[0])
        experiment = Experiment(parties, self.settings)
        epochs = epochs_of(trace_of(experiment.as_run()))
        ways = controlled_ways(experiment.pruning, epochs)
        yield Phase(replace(self, epochs=epochs), tuple(Group("arm", way.name) for way in ways))

    def _exposures(self, data: Dataset) -> Exposures:
        return exposures_for(self.config, self.settings, data)


#: The programs by command.
PROGRAMS: dict[str, type[Program]] = {
    one.command: one for one in (StudyProgram, AuditProgram, PruneProgram, DiagnosisProgram)
}


def require_table(config: StudyConfig) -> None:
    """Refuse a study that another process cannot build from its table.

    Raises:
        InputError: the study has values that no table gives.
    """
    if not config.table or parse_study(config.table) != config:
        raise InputError("expected a study that a table gives, for several jobs, got another; use parse_study()")
