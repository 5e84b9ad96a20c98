"""The diagnosis of why a pruning leaks: the controlled comparison of data reuse and inherent
memorability.

For every model: dense on its base, then R rounds that show fresh records, the same records, or
doses of them (:mod:`wemem.diagnosis.design`), every arm for the same number of epochs. Beside them
the ordinary ways: dense models on all of a model's records, pruned iteratively, at once, or only
fine-tuned, for as long. Leakage is measured record by record against models that were not trained
on it (:mod:`wemem.diagnosis.within_record`). Groups of records come from memorization scores of
other models, so that a group does not depend on the models that are measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, subsets
from wemem.defenses import Undefended
from wemem.diagnosis.arms import Course, Trace, follow
from wemem.diagnosis.design import BASE, Arm, Exposures, draw_exposures
from wemem.diagnosis.effects import Findings, Measured, groups
from wemem.diagnosis.scenario import Scenario
from wemem.errors import InputError
from wemem.metrics.intervals import Estimate
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.pipeline.cost import CHUNK, CostModel
from wemem.pipeline.loading import study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pruning import Pruning, Schedule
from wemem.store.store import Store


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


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The result of a diagnosis.

    Args:
        settings: the settings of the diagnosis.
        seed: the seed of the study, which determines the split.
        exposures: the records that each round showed to each model.
        epochs: the number of epochs in every round of every controlled arm.
        sparsity: the target sparsity.
        scores: the memorization scores of the pool.
        scenario: the scenario with its effects.
        measured: leakage and memorization by arm, group and round.
        comparisons: named differences in leakage and in memorization, with 95 % intervals.
        controls: leakage where none is possible, by name.
        accuracy: the accuracy by arm after the last round, on records that the models were not
            trained on; ``dense`` is the accuracy before the first round.
        seconds: the computing time of all stages, in seconds.
    """

    settings: DiagnosisSettings
    seed: int
    exposures: Exposures
    epochs: int
    sparsity: float
    scores: MemorizationScores
    scenario: Scenario
    measured: tuple[Measured, ...]
    comparisons: Mapping[str, tuple[Estimate, Estimate]]
    controls: Mapping[str, Estimate]
    accuracy: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Way:
    """An arm: the records that its rounds show, and its pruning."""

    name: str
    shows: Arm
    pruning: Pruning


def ways(pruning: Pruning, epochs: int) -> list[Way]:
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


def diagnose(
    config: StudyConfig, settings: DiagnosisSettings, store: Store, progress: Progress, data: Dataset | None = None
) -> Diagnosis:
    """Run every arm, measure, and name the scenario.

    Of the study it uses data, model, split, scores, training, pruning (the highest sparsity),
    fine-tuning and the first seed; its defenses and attacks play no part.

    Args:
        config: the study.
        settings: the settings of the diagnosis.
        store: the store of computed stages.
        progress: the receiver of progress reports.
        data: the data set; loaded if None.

    Raises:
        InputError: rewinding, fewer than two rounds, or too few records.
    """
    if config.pruning.rewind != "none":
        raise InputError(
            f"expected pruning.rewind = 'none', got {config.pruning.rewind!r}; rewinding undoes the exposures that a "
            "diagnosis adds up"
        )
    data = study_data(config) if data is None else data
    # a diagnosis has records of its own for every model, and no canaries
    pipeline = Pipeline.open(replace(config, canaries=0), data, store, progress)
    parties = Parties.of(pipeline, config.seeds[0])
    pruning = config.pruning.to(max(config.pruning.sparsities), config.finetune)
    exposures = draw_exposures(
        data.labels, parties.split.audited(0), parties.split.records(0, Role.DEV),
        len(parties.split.records(0, Role.TRAIN)),
        pruning.schedule.rounds, settings.models, seed=parties.seed,
    )  # fmt: skip
    progress.plan(expected_work(config, exposures))
    scores = pool_scores(parties, exposures)
    # each ordinary run is trained on most records, so that few models suffice
    few = exposures.select(range(min(CHUNK, settings.models)))
    dense, base = _dense(parties, few, "all"), _dense(parties, exposures, "fresh")
    traces = {"as_run": _trace(parties, few, Way("as_run", "all", pruning), dense)}
    epochs = max(1, round(float(np.mean(traces["as_run"].kept_epochs))))
    findings = Findings(exposures, groups(scores.memorization.score[exposures.pool], settings.top))
    findings.add("as_run", traces["as_run"], pruning.schedule.sparsities)
    for way in ways(pruning, epochs):
        inputs = (few, dense) if way.shows == "all" else (exposures, base)
        traces[way.name] = _trace(parties, inputs[0], way, inputs[1])
        findings.add(way.name, traces[way.name], way.pruning.schedule.sparsities)
    seconds = [stage.seconds for stage in (*dense, *base)] + [trace.seconds for trace in traces.values()]
    return Diagnosis(
        settings, parties.seed, exposures, epochs, pruning.schedule.sparsity, scores,
        findings.scenario(settings.relevant), tuple(findings.measured), findings.comparisons(),
        findings.controls(traces["reused"]), findings.accuracy,
        scores.seconds + sum(seconds),
    )  # fmt: skip


def pool_scores(parties: Parties, exposures: Exposures) -> MemorizationScores:
    """Memorization scores of the pool, from separate models or from the file of the study."""
    settings = parties.config.scores
    if settings.file is not None:
        return parties.defender_scores().result()
    size = round(settings.fraction * int((exposures.part[0] >= BASE).sum()))
    split = subsets(
        parties.data.labels, exposures.pool, size, settings.models, seed=parties.seed, purpose="diagnosis/scores",
        dev=exposures.dev,
    )  # fmt: skip
    models = parties.pipeline.trainer.train_in_chunks(
        "scoring models", split, parties.seeds("diagnosis/scores", settings.models)
    )
    return parties.pipeline.scorer.score("memorization scores", split, models)


def _chunks(models: int) -> list[range]:
    return [range(start, min(start + CHUNK, models)) for start in range(0, models, CHUNK)]


def _dense(parties: Parties, exposures: Exposures, shows: Arm) -> list[TrainedModels]:
    """Train the dense models of an arm, on all records or on the base alone."""
    split = exposures.everything if shows == "all" else exposures.base
    name = "dense models" if shows == "all" else "dense models that hold records back"
    return parties.pipeline.trainer.train_in_chunks(name, split, parties.seeds("diagnosis", split.num_models))


def _trace(parties: Parties, exposures: Exposures, way: Way, dense: Sequence[TrainedModels]) -> Trace:
    """Run one arm, in chunks of models."""
    models, parts = len(exposures.part), []
    seeds = parties.seeds("diagnosis", models)
    for chunk, stage in zip(_chunks(models), dense, strict=True):
        selected = exposures.select(chunk)
        splits = tuple(selected.split(way.shows, index) for index in range(exposures.rounds))
        title = f"{way.name}, models {chunk.start + 1}-{chunk.stop} of {models}"
        course = Course(title, stage, splits, way.pruning, tuple(seeds[k] for k in chunk), selected.pool)
        parts.append(follow(parties.pipeline, course))
    return Trace.join(parts)


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
