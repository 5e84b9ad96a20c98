"""The diagnosis of why a pruning leaks: the controlled comparison of data reuse and inherent
memorability.

For every model: dense on its base, then R rounds that show fresh records, the same records, or
doses of them (:mod:`wemem.diagnosis.design`), every arm for the same number of epochs. Beside them
the ordinary ways: dense models on all of a model's records, pruned iteratively, at once, or only
fine-tuned, for as long. Leakage is measured record by record against models that were not trained
on it (:mod:`wemem.diagnosis.within_record`). Groups of records come from memorization scores of
other models, so that a group does not depend on the models that are measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.diagnosis.design import Exposures
from wemem.diagnosis.effects import Findings, Measured, groups
from wemem.diagnosis.experiment import (
    AS_RUN,
    DiagnosisSettings,
    Experiment,
    config_for_diagnosis,
    controlled_ways,
    epochs_of,
    expected_work,
    trace_of,
)
from wemem.diagnosis.scenario import Scenario
from wemem.metrics.intervals import Estimate
from wemem.pipeline.artifacts import MemorizationScores
from wemem.pipeline.loading import study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.store.store import Store


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
    config = config_for_diagnosis(config)
    data = study_data(config) if data is None else data
    parties = Parties.of(Pipeline.open(config, data, store, progress), config.seeds[0])
    experiment = Experiment(parties, settings)
    exposures, pruning = experiment.exposures, experiment.pruning
    progress.plan(expected_work(config, exposures))
    scores = experiment.scores.result()
    dense = [models.result() for models in (*experiment.dense, *experiment.base)]
    traces = {AS_RUN: trace_of(experiment.as_run())}
    epochs = epochs_of(traces[AS_RUN])
    findings = Findings(exposures, groups(scores.memorization.score[exposures.pool], settings.top))
    findings.add(AS_RUN, traces[AS_RUN], pruning.schedule.sparsities)
    for way in controlled_ways(pruning, epochs):
        traces[way.name] = trace_of(experiment.arm(way))
        findings.add(way.name, traces[way.name], way.pruning.schedule.sparsities)
    seconds = [stage.seconds for stage in dense] + [trace.seconds for trace in traces.values()]
    return Diagnosis(
        settings, parties.seed, exposures, epochs, pruning.schedule.sparsity, scores,
        findings.scenario(settings.relevant), tuple(findings.measured), findings.comparisons(),
        findings.controls(traces["reused"]), findings.accuracy,
        scores.seconds + sum(seconds),
    )  # fmt: skip
