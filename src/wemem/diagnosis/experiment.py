"""The stages of a diagnosis, which are its task graph too.

Nothing is trained before a result is read. The arms of controlled length are known once the
ordinary run is in the store, which says how many epochs a round took.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, subsets
from wemem.defenses import Undefended
from wemem.diagnosis.arms import ExposedRounds, Trace
from wemem.diagnosis.design import BASE, Arm, Exposures, draw_exposures
from wemem.errors import InputError
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.pipeline.cost import CHUNK, CostModel
from wemem.pipeline.parties import Parties
from wemem.pipeline.stage import Stage
from wemem.pipeline.study_split import study_split
from wemem.pipeline.trainer import chunks
from wemem.pruning import Pruning, Schedule

#: The arm that is pruned as the study says; the rounds of all others last as long as its rounds.
AS_RUN = "as_run"


@dataclass(frozen=True)
class DiagnosisSettings:
    """Settings of a diagnosis.

    Args:
        models: K, the number of models of each controlled arm; ordinary runs have at most 16.
        relevant: the smallest effect on leakage that matters, as a share: 0.02 are 2 points.
        top: the share of records with the highest scores that counts as memorable; the lower half
            counts as typical.
    """

    models: int = 32
    relevant: float = 0.02
    top: float = 0.2

    def __post_init__(self) -> None:
        if self.models < 6:
            raise InputError(f"models must be at least 6, got {self.models}; intervals need models to compare")
        if not 0 <= self.relevant < 0.5:
            raise InputError(f"relevant must be in [0, 0.5), got {self.relevant}; 0.02 are 2 points")
        if not 0 < self.top <= 0.5:
            raise InputError(f"top must be in (0, 0.5], got {self.top}")


@dataclass(frozen=True)
class Way:
    """An arm: the records that its rounds show, and its pruning."""

    name: str
    shows: Arm
    pruning: Pruning


def controlled_ways(pruning: Pruning, epochs: int) -> list[Way]:
    """All arms that run for a fixed number of epochs in each round.

    For a study with one-shot pruning, the iterative arms use the geometric schedule.
    """
    schedule = pruning.schedule
    if schedule.kind == "one_shot":
        schedule = replace(schedule, kind="geometric")
    fixed = replace(pruning.recipe, epochs=epochs, patience=None, keep="last")
    gradual = replace(pruning, schedule=schedule, recipe=fixed)
    at_once = replace(gradual, schedule=replace(schedule, kind="one_shot"))
    unpruned = replace(gradual, schedule=Schedule(0.0, schedule.rounds, "one_shot"))
    return [
        *(Way(arm, arm, gradual) for arm in ("fresh", "reused", "dosed")),
        Way("iterative", "all", gradual),
        Way("one_shot", "all", at_once),
        Way("unpruned", "all", unpruned),
    ]


def config_for_diagnosis(config: StudyConfig) -> StudyConfig:
    """The study as a diagnosis uses it: one seed, records of its own for every model, no canaries.

    Raises:
        InputError: the models are rewound.
    """
    if config.pruning.rewind != "none":
        raise InputError(
            f"expected pruning.rewind = 'none', got {config.pruning.rewind!r}; rewinding undoes the exposures that a "
            "diagnosis adds up"
        )
    return replace(config, canaries=0, seeds=config.seeds[:1])


def exposures_for(config: StudyConfig, settings: DiagnosisSettings, data: Dataset) -> Exposures:
    """Draw the records that each round shows to each model.

    Args:
        config: the study as a diagnosis uses it.
        settings: the settings of the diagnosis.
        data: the records.

    Raises:
        InputError: fewer than two rounds, or too few records.
    """
    (seed,) = config.seeds
    split = study_split(config, data, seed)
    return draw_exposures(
        data.labels, split.audited(0), split.records(0, Role.DEV), len(split.records(0, Role.TRAIN)),
        config.pruning.rounds, settings.models, seed=seed,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Experiment:
    """All stages of a diagnosis.

    Args:
        parties: the records of a study that :func:`config_for_diagnosis` has made.
        settings: the settings of the diagnosis.
    """

    parties: Parties
    settings: DiagnosisSettings

    @cached_property
    def exposures(self) -> Exposures:
        """The records that each round shows to each model."""
        return exposures_for(self.parties.config, self.settings, self.parties.data)

    @cached_property
    def few(self) -> Exposures:
        """The exposures of ordinary runs, each trained on most records, so that few models suffice."""
        return self.exposures.select(range(min(CHUNK, self.settings.models)))

    @cached_property
    def pruning(self) -> Pruning:
        """The pruning of the study, to its highest sparsity."""
        config = self.parties.config
        return config.pruning.to(max(config.pruning.sparsities), config.finetune)

    @cached_property
    def scores(self) -> Stage[MemorizationScores]:
        """Memorization scores of the pool, from separate models or from the file of the study."""
        parties, settings, exposures = self.parties, self.parties.config.scores, self.exposures
        if settings.file is not None:
            return parties.defender_scores()
        size = round(settings.fraction * int((exposures.part[0] >= BASE).sum()))
        split = subsets(
            parties.data.labels, exposures.pool, size, settings.models, seed=parties.seed, purpose="diagnosis/scores",
            dev=exposures.dev,
        )  # fmt: skip
        models = parties.pipeline.trainer.plan_chunks(
            "scoring models", split, parties.seeds("diagnosis/scores", settings.models)
        )
        return parties.pipeline.scorer.plan("memorization scores", split, models)

    @cached_property
    def dense(self) -> list[Stage[TrainedModels]]:
        """The dense models on all records, in chunks."""
        return self._dense("dense models", self.few, "all")

    @cached_property
    def base(self) -> list[Stage[TrainedModels]]:
        """The dense models on the base alone, in chunks."""
        return self._dense("dense models that hold records back", self.exposures, "fresh")

    def as_run(self) -> list[Stage[Trace]]:
        """The arm that is pruned as the study says, in chunks of models."""
        return self.arm(Way(AS_RUN, "all", self.pruning))

    def arm(self, way: Way) -> list[Stage[Trace]]:
        """One arm, in chunks of models."""
        exposures, dense = (self.few, self.dense) if way.shows == "all" else (self.exposures, self.base)
        models = len(exposures.part)
        seeds, parts = self.parties.seeds("diagnosis", models), list[Stage[Trace]]()
        for chunk, start in zip(chunks(models), dense, strict=True):
            selected = exposures.select(chunk)
            splits = [selected.split(way.shows, index) for index in range(exposures.rounds)]
            title, own = f"{way.name}, models {chunk.start + 1}-{chunk.stop} of {models}", [seeds[k] for k in chunk]
            space = self.parties.pipeline.workspace
            parts.append(ExposedRounds(title, space, start, splits, way.pruning, own, selected.pool))
        return parts

    def stages(self, name: str, epochs: int) -> Sequence[Stage[Any]]:
        """The stages of an arm by its name; those before all controlled arms if it is empty.

        Args:
            name: the name of the arm.
            epochs: the number of epochs of every controlled round; 0 while it is not known.
        """
        if not name:
            return [self.scores, *self.base]
        if name == AS_RUN:
            return self.as_run()
        return next(self.arm(way) for way in controlled_ways(self.pruning, epochs) if way.name == name)

    def _dense(self, name: str, exposures: Exposures, shows: Arm) -> list[Stage[TrainedModels]]:
        split = exposures.everything if shows == "all" else exposures.base
        return self.parties.pipeline.trainer.plan_chunks(
            name, split, self.parties.seeds("diagnosis", split.num_models)
        )  # fmt: skip


def trace_of(parts: Sequence[Stage[Trace]]) -> Trace:
    """The trace of all models of an arm."""
    return Trace.join([part.result() for part in parts])


def epochs_of(as_run: Trace) -> int:
    """The number of epochs of every controlled round: the mean of an ordinary run."""
    return max(1, round(float(np.mean(as_run.kept_epochs))))


def expected_work(config: StudyConfig, exposures: Exposures) -> float:
    """The expected work of all trainings of a diagnosis."""
    models, rounds = len(exposures.part), exposures.rounds
    few, cost = min(CHUNK, models), CostModel(config, float((exposures.part[0] >= BASE).sum()))
    scoring = 0.0 if config.scores.file is not None else config.scores.models * config.scores.fraction
    # four ordinary arms on all records; fresh and reused show 1 / 2R of them a round, dosed (R + 1)
    # / 4R on average
    shown = 4 * few * rounds + models * (2 + (rounds + 1) / 2) / 2
    one_round = replace(config.pruning, rounds=1).to(0.0, config.finetune)
    return cost.dense(few + models / 2 + scoring) + cost.fine_tuning(shown, Undefended(), one_round)
