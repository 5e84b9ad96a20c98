"""The plan of a run, made before anything is trained: the settings that a selection tries, and the
expected work.
"""

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import Defense, Undefended
from wemem.pipeline.cost import CostModel
from wemem.pipeline.study_split import study_split, training_records
from wemem.tuning.search import search_work


def settings_to_try(config: StudyConfig) -> list[tuple[str, Defense]]:
    """List the undefended arm, for comparison, and every setting of every grid, each with the label
    of its arm.
    """
    return [
        ("undefended", Undefended()),
        *((label, defense) for label, grid in config.grids.items() for defense in grid),
    ]


def planned_work(cost: CostModel) -> float:
    """Compute the work of all seeds of a study: preparation, selection from grids, searches and
    arms.
    """
    config = cost.config
    tried = settings_to_try(config) if config.grids else []
    selection = sum(cost.pruning(1, defense, config.prunings) for _, defense in tried)
    searches = sum(search_work(cost, budget) for budget in config.budgets.values() if budget.searches)
    labels = dict.fromkeys(label for label, _ in config.arms)
    defended = [label for label in labels if label in config.budgets or config.defense_of(label) != Undefended()]
    unaware = len(defended) * cost.unaware_shadows() if config.non_adaptive else 0.0
    arms = sum(cost.arm(label) for label in labels) + unaware
    return len(config.seeds) * (cost.preparation() + selection + searches + arms)


def cost_of(config: StudyConfig, data: Dataset) -> CostModel:
    """Build the cost model of a study, from the number of records that its victim is trained on."""
    split = study_split(config, data, config.seeds[0])
    return CostModel(config, len(training_records(config, data, split)))
