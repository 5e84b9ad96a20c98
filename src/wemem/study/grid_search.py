"""One setting of every grid, selected on dev records by one rule for all kinds of defenses, and without any attack.

For each setting the victim is pruned by itself, once a seed and sparsity; no shadow is pruned, and no audited record
looked at. Two figures come out, as means:

* dev accuracy, and
* ``dev_auc``: how well the victim's confidence in the true class tells its training records from its dev records.

That is what a defender sees who has no shadow models. The dev records also chose the checkpoint of every round, so that
both figures flatter a little, every setting alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from wemem.config.defense_entries import OWN_KEYS
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import Defense, Undefended
from wemem.pipeline.artifacts import Stage
from wemem.pipeline.parties import Parties
from wemem.pipeline.progress import Progress
from wemem.pipeline.stages import USUAL_EPOCHS, Stages
from wemem.store.store import Store
from wemem.study.run import expected_work, require_feasible_seeds, require_known_start

#: Two accuracies closer than this are one: a drop of one point is no more than 0.01, whatever the rounding.
SAME = 1e-9


@dataclass(frozen=True)
class Tried:
    """What one setting did to the victim: means over seeds and sparsities; the time is that of one pruning."""

    dev_accuracy: float
    dev_auc: float
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """A setting of a grid, how it did, whether it kept the accuracy, and whether it was chosen."""

    label: str
    defense: Defense
    tried: Tried
    qualified: bool
    chosen: bool


@dataclass(frozen=True, eq=False)
class Selection:
    """What was selected.

    Args:
        config: the study with the chosen settings in place of its grids.
        max_accuracy_drop: of the rule.
        undefended: what no defense does to the victim.
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
    require_known_start(config)
    stages = Stages(config, data, store, progress)
    require_feasible_seeds(config, data, stages)
    progress.plan(selection_work(config, len(data)))
    settings = settings_to_try(config)
    found: list[list[Stage]] = [[] for _ in settings]
    for seed in config.seeds:
        parties = Parties.of(config, data, stages, seed)
        for stored, (label, defense) in zip(found, settings, strict=True):
            stored += prune_alone(parties, label, defense)
    undefended, *tried = map(_mean, found)
    return _selection(config, undefended, tried)


def settings_to_try(config: StudyConfig) -> list[tuple[str, Defense]]:
    """No defense, by which the others are judged, and every setting of every grid, with the grid's label."""
    return [
        ("undefended", Undefended()),
        *((label, defense) for label, grid in config.grids.items() for defense in grid),
    ]


def prune_alone(parties: Parties, label: str, defense: Defense) -> list[Stage]:
    """The victim of one seed pruned by itself under one setting, to each of the study's sparsities."""
    settings, sparsities = defense.settings, parties.config.pruning.sparsities
    title = " ".join(
        [f"select {label}:" if settings else f"select {label}", *(f"{k}={v}" for k, v in settings.items())]
    )
    return [
        parties.pruned_alone(
            title + (f" to {sparsity}" if len(sparsities) > 1 else ""),
            defense,
            parties.config.pruning.to(sparsity, parties.config.finetune),
        )
        for sparsity in sparsities
    ]


def choose(tried: Sequence[Tried], least_accuracy: float) -> tuple[int, list[bool]]:
    """The rule: of the settings that keep the accuracy that of lowest ``dev_auc``; if none does, the most accurate one.

    Args:
        tried: how each setting did, at least one.
        least_accuracy: dev accuracy that a setting must keep.

    Returns:
        The place of the chosen one, and which ones kept the accuracy. Of equals in the one figure the other decides,
        of equals in both the first.

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


def selection_work(config: StudyConfig, records: int) -> float:
    """Of the selection and of the study after it, in the measure of :func:`~wemem.study.run.expected_work`."""
    settings = [defense for _, defense in settings_to_try(config)]
    epochs = [min(recipe.epochs, USUAL_EPOCHS) for recipe in (config.training, config.finetune)]
    pruned = (
        config.pruning.rounds * sum(defense.passes_per_epoch for defense in settings) * len(config.pruning.sparsities)
    )
    teachers = sum(defense.teacher_trainings for defense in settings)
    alone = config.split.train * (records // 2) * (teachers * epochs[0] + pruned * epochs[1])
    return expected_work(config, records, list(config.defenses)) + len(config.seeds) * alone


def _mean(stored: Sequence[Stage]) -> Tried:
    last = [stage.meta["rounds"][-1] for stage in stored]
    return Tried(
        float(np.mean([told["dev_accuracy"] for told in last])),
        float(np.mean([told["dev_auc"] for told in last])),
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
