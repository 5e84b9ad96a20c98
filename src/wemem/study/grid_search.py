"""Selection of one setting of every grid on dev records, by one rule for all kinds of defenses and
without any attack.

For each setting only the victim is pruned, once for each seed and sparsity. No shadow is pruned and
no audited record is used. The rule compares two means:

* dev accuracy, and
* ``dev_auc``, the AUC of the victim's confidence in the true class, its training records against
  its dev records.

A defender without shadow models can measure both. The dev records also select the checkpoint of
every round, so that both figures are slightly optimistic, equally for every setting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from wemem.config.defense_entries import OWN_KEYS
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import Defense
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pipeline.stage import Stage
from wemem.store.store import Store
from wemem.study.feasibility import require_feasible_study
from wemem.study.plan import cost_of, planned_work, settings_to_try

#: The largest difference between two accuracies that count as equal, so that rounding does not
#: decide.
ROUNDING = 1e-9


@dataclass(frozen=True)
class SettingResult:
    """The effect of one setting on the victim.

    Args:
        dev_accuracy: the accuracy on dev records, as a mean over seeds and sparsities.
        dev_auc: the AUC of confidence, training records against dev records, as a mean over seeds
            and sparsities.
        seconds: the mean wall time of one pruning, in seconds.
    """

    dev_accuracy: float
    dev_auc: float
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """A setting of a grid.

    Args:
        label: the label of the grid.
        defense: the defense with this setting.
        result: the effect of the setting on the victim.
        qualified: True if the setting reaches the accuracy that the rule requires.
        chosen: True if the setting was selected.
    """

    label: str
    defense: Defense
    result: SettingResult
    qualified: bool
    chosen: bool


@dataclass(frozen=True, eq=False)
class Selection:
    """The result of a selection.

    Args:
        config: the study with the chosen settings in place of its grids.
        max_accuracy_drop: the largest loss of dev accuracy that the rule accepts, as a fraction.
        undefended: the effect of pruning without a defense.
        candidates: every setting of every grid.
    """

    config: StudyConfig
    max_accuracy_drop: float
    undefended: SettingResult
    candidates: tuple[Candidate, ...]

    def as_json(self) -> dict[str, Any]:
        """The ``selection`` object of ``results.json``."""
        return {
            "rule": {
                "max_accuracy_drop": self.max_accuracy_drop,
                "undefended_dev_accuracy": self.undefended.dev_accuracy,
            },
            "candidates": [
                {
                    "kind": candidate.defense.name,
                    "label": candidate.label,
                    "settings": candidate.defense.settings,
                    "seeds": list(self.config.seeds),
                    "dev_accuracy": candidate.result.dev_accuracy,
                    "dev_auc": candidate.result.dev_auc,
                    "seconds": candidate.result.seconds,
                    "qualified": candidate.qualified,
                    "chosen": candidate.chosen,
                }
                for candidate in self.candidates
            ],
        }


def select_settings(config: StudyConfig, store: Store, progress: Progress, data: Dataset) -> Selection:
    """Prune the victim under every setting of a study's grids, and choose one setting of each grid.

    Raises:
        InputError: the study or the data cannot be used; this is checked before anything is
            trained.
    """
    pipeline = Pipeline.open(config, data, store, progress)
    require_feasible_study(pipeline)
    progress.plan(planned_work(cost_of(config, data)))
    settings = settings_to_try(config)
    pruned: list[list[TrainedModels]] = [[] for _ in settings]
    for seed in config.seeds:
        parties = Parties.of(pipeline, seed)
        for stored, (label, defense) in zip(pruned, settings, strict=True):
            stored += [models.result() for models in pruned_alone(parties, label, defense)]
    undefended, *results = map(_mean, pruned)
    return _selection(config, undefended, results)


def pruned_alone(parties: Parties, label: str, defense: Defense) -> list[Stage[TrainedModels]]:
    """The victim of one seed pruned alone, under one setting, to each sparsity of the study."""
    settings = {name: value for name, value in defense.settings.items() if value is not None}
    prunings = parties.config.prunings
    title = " ".join(
        [f"select {label}:" if settings else f"select {label}", *(f"{k}={v}" for k, v in settings.items())]
    )
    return [
        parties.pruned_alone(
            title + (f" to {pruning.schedule.sparsity}" if len(prunings) > 1 else ""), defense, pruning
        )
        for pruning in prunings
    ]


def choose(results: Sequence[SettingResult], least_accuracy: float) -> tuple[int, list[bool]]:
    """Choose the setting of lowest ``dev_auc`` among those that reach an accuracy; if none does,
    the most accurate.

    Args:
        results: the effect of each setting, at least one.
        least_accuracy: the dev accuracy that a setting must reach.

    Returns:
        The index of the chosen setting, and for each setting whether it reaches the accuracy. If
        two settings are equal in one figure, the other figure decides. If they are equal in both,
        the first setting is chosen.

    >>> leaky, private = SettingResult(0.60, 0.9, 1.0), SettingResult(0.59, 0.7, 1.0)
    >>> broken = SettingResult(0.30, 0.5, 1.0)
    >>> choose([leaky, private, broken], least_accuracy=0.59)
    (1, [True, True, False])
    >>> choose([broken, private], least_accuracy=0.65)
    (1, [False, False])
    """
    qualified = [result.dev_accuracy >= least_accuracy - ROUNDING for result in results]
    if any(qualified):
        eligible = (i for i, reached in enumerate(qualified) if reached)
        return min(eligible, key=lambda i: (results[i].dev_auc, -results[i].dev_accuracy)), qualified
    return min(range(len(results)), key=lambda i: (-results[i].dev_accuracy, results[i].dev_auc)), qualified


def _mean(stored: Sequence[TrainedModels]) -> SettingResult:
    last = [stage.meta["rounds"][-1] for stage in stored]
    return SettingResult(
        float(np.mean([measured["dev_accuracy"] for measured in last])),
        float(np.mean([measured["dev_auc"] for measured in last])),
        float(np.mean([stage.seconds + stage.teachers_seconds for stage in stored])),
    )


def _selection(config: StudyConfig, undefended: SettingResult, results: Sequence[SettingResult]) -> Selection:
    drop, remaining = config.selection.max_accuracy_drop, iter(results)
    candidates: list[Candidate] = []
    for label, grid in config.grids.items():
        of_grid = list(islice(remaining, len(grid)))
        best, qualified = choose(of_grid, undefended.dev_accuracy - drop)
        candidates += [Candidate(label, defense, of_grid[i], qualified[i], i == best) for i, defense in enumerate(grid)]
    chosen = {candidate.label: candidate.defense for candidate in candidates if candidate.chosen}
    return Selection(_with_chosen(config, chosen), drop, undefended, tuple(candidates))


def _with_chosen(config: StudyConfig, chosen: Mapping[str, Defense]) -> StudyConfig:
    """The study with the chosen settings in place of its grids, also in its table."""
    entries = [
        {**{key: entry[key] for key in OWN_KEYS if key in entry and key != "grid"}, **chosen[entry["label"]].settings}
        if entry["label"] in chosen
        else entry
        for entry in config.table.get("defenses", [])
    ]
    table = {**config.table, "defenses": entries} if entries else {}
    return replace(config, defenses={**config.defenses, **chosen}, grids={}, table=table)
