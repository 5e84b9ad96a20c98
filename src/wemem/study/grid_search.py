"""Selection of one setting of every grid on dev records, by one rule for all kinds of defenses and without any attack.

For each setting the victim alone is pruned, once for each seed and sparsity. No shadow is pruned and no audited record
is used. The rule reads two means:

* dev accuracy, and
* ``dev_auc``, the AUC of the victim's confidence in the true class, its training records against its dev records.

A defender without shadow models can measure both. The dev records also chose the checkpoint of every round, so that
both figures are slightly optimistic, for every setting alike.
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
from wemem.store.store import Store
from wemem.study.feasibility import require_feasible_study
from wemem.study.plan import cost_of, planned_work, settings_to_try

#: Two accuracies closer than this are one: a drop of one point is no more than 0.01, whatever the rounding.
SAME = 1e-9


@dataclass(frozen=True)
class Tried:
    """The effect of one setting on the victim.

    Args:
        dev_accuracy: the accuracy on dev records, as a mean over seeds and sparsities.
        dev_auc: the AUC of confidence, training records against dev records, as the same mean.
        seconds: the mean time of one pruning.
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
        tried: the effect on the victim.
        qualified: True if it kept the accuracy that the rule asks for.
        chosen: True if it was selected.
    """

    label: str
    defense: Defense
    tried: Tried
    qualified: bool
    chosen: bool


@dataclass(frozen=True, eq=False)
class Selection:
    """The result of a selection.

    Args:
        config: the study with the chosen settings in place of its grids.
        max_accuracy_drop: the dev accuracy that a setting may cost by the rule, as a fraction.
        undefended: the effect of pruning without a defense.
        candidates: every setting of every grid.
    """

    config: StudyConfig
    max_accuracy_drop: float
    undefended: Tried
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
                    "kind": one.defense.name,
                    "label": one.label,
                    "settings": one.defense.settings,
                    "seeds": list(self.config.seeds),
                    "dev_accuracy": one.tried.dev_accuracy,
                    "dev_auc": one.tried.dev_auc,
                    "seconds": one.tried.seconds,
                    "qualified": one.qualified,
                    "chosen": one.chosen,
                }
                for one in self.candidates
            ],
        }


def select_settings(config: StudyConfig, store: Store, progress: Progress, data: Dataset) -> Selection:
    """Try every setting of a study's grids on the victim alone, and choose one of each grid.

    Raises:
        InputError: anything in the study or the data that cannot be used, before anything is trained.
    """
    pipeline = Pipeline.open(config, data, store, progress)
    require_feasible_study(pipeline)
    progress.plan(planned_work(cost_of(config, data)))
    settings = settings_to_try(config)
    pruned: list[list[TrainedModels]] = [[] for _ in settings]
    for seed in config.seeds:
        parties = Parties.of(pipeline, seed)
        for stored, (label, defense) in zip(pruned, settings, strict=True):
            stored += prune_alone(parties, label, defense)
    undefended, *tried = map(_mean, pruned)
    return _selection(config, undefended, tried)


def prune_alone(parties: Parties, label: str, defense: Defense) -> list[TrainedModels]:
    """Prune the victim of one seed alone under one setting, to each sparsity of the study."""
    settings, prunings = defense.settings, parties.config.prunings
    title = " ".join(
        [f"select {label}:" if settings else f"select {label}", *(f"{k}={v}" for k, v in settings.items())]
    )
    return [
        parties.prune_alone(title + (f" to {pruning.schedule.sparsity}" if len(prunings) > 1 else ""), defense, pruning)
        for pruning in prunings
    ]


def choose(tried: Sequence[Tried], least_accuracy: float) -> tuple[int, list[bool]]:
    """Apply the rule: of the settings that keep the accuracy that of lowest ``dev_auc``, else the most accurate one.

    Args:
        tried: the effect of each setting, at least one.
        least_accuracy: the dev accuracy that a setting must keep.

    Returns:
        The index of the chosen setting, and for each setting whether it kept the accuracy. If two settings are equal
        in one figure, the other figure decides; if they are equal in both, the first setting is chosen.

    >>> leaky, private, broken = Tried(0.60, 0.9, 1.0), Tried(0.59, 0.7, 1.0), Tried(0.30, 0.5, 1.0)
    >>> choose([leaky, private, broken], least_accuracy=0.59)
    (1, [True, True, False])
    >>> choose([broken, private], least_accuracy=0.65)
    (1, [False, False])
    """
    qualified = [one.dev_accuracy >= least_accuracy - SAME for one in tried]
    if any(qualified):
        able = (i for i, good in enumerate(qualified) if good)
        return min(able, key=lambda i: (tried[i].dev_auc, -tried[i].dev_accuracy)), qualified
    return min(range(len(tried)), key=lambda i: (-tried[i].dev_accuracy, tried[i].dev_auc)), qualified


def _mean(stored: Sequence[TrainedModels]) -> Tried:
    last = [stage.meta["rounds"][-1] for stage in stored]
    return Tried(
        float(np.mean([one["dev_accuracy"] for one in last])),
        float(np.mean([one["dev_auc"] for one in last])),
        float(np.mean([stage.seconds + stage.teachers_seconds for stage in stored])),
    )


def _selection(config: StudyConfig, undefended: Tried, tried: Sequence[Tried]) -> Selection:
    drop, waiting = config.selection.max_accuracy_drop, iter(tried)
    candidates: list[Candidate] = []
    for label, grid in config.grids.items():
        own = list(islice(waiting, len(grid)))
        best, qualified = choose(own, undefended.dev_accuracy - drop)
        candidates += [Candidate(label, defense, own[i], qualified[i], i == best) for i, defense in enumerate(grid)]
    chosen = {one.label: one.defense for one in candidates if one.chosen}
    return Selection(_with_chosen(config, chosen), drop, undefended, tuple(candidates))


def _with_chosen(config: StudyConfig, chosen: Mapping[str, Defense]) -> StudyConfig:
    """The study with these settings in the place of its grids, in its table too."""
    entries = [
        {**{key: entry[key] for key in OWN_KEYS if key in entry and key != "grid"}, **chosen[entry["label"]].settings}
        if entry["label"] in chosen
        else entry
        for entry in config.table.get("defenses", [])
    ]
    table = {**config.table, "defenses": entries} if entries else {}
    return replace(config, defenses={**config.defenses, **chosen}, grids={}, table=table)
