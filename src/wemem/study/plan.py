"""The plan of a run, made before anything is trained: the settings that a selection tries, and the
expected work.
"""

from wemem.config.study import MANY_REFERENCES, StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import Defense, Undefended
from wemem.pipeline.cost import CostModel
from wemem.pipeline.study_split import study_split, training_records
from wemem.tuning.search import search_work

#: The end of the line on a plan whose defaults are made for a comparison.
LESS = " (fewer seeds, split.references or scores.models take less)"


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


def plan_in_words(config: StudyConfig) -> str:
    """One line on what a study will train: seeds, arms, reference models and the work, in trainings
    of one unpruned model.

    Without a grid or a search, the work is proportional to the number of records, so none are
    needed to state it.
    """
    cost = CostModel(config, 1.0)
    arms = list(dict.fromkeys(label for label, _ in config.arms))
    work = planned_work(cost) / cost.dense(1)
    return (
        f"Plan: {_counted(len(config.seeds), 'seed')}; dense models and {_counted(len(arms), 'arm')} "
        f"({', '.join(arms)}); {_references_in_words(config)}; in all the work of training about {work:,.0f} unpruned "
        f"models{LESS if config.split.references is None and len(config.labels) > 1 else ''}."
    )


def _references_in_words(config: StudyConfig) -> str:
    if not config.uses("shared"):
        return "no reference models"
    counts = sorted({config.references_of(label) for label in config.labels})
    if len(counts) > 1:
        return (
            f"{counts[0]} to {counts[-1]} reference models against an arm, and arms with different numbers are not "
            "compared by them"
        )
    reason = ""
    if config.split.references is None:
        reason = (
            ", since defenses are compared by LiRA or its kin" if counts[0] == MANY_REFERENCES
            else ", enough for one defense or for RMIA"
        )  # fmt: skip
    return f"{counts[0]} reference models against each arm{reason}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def cost_of(config: StudyConfig, data: Dataset) -> CostModel:
    """Build the cost model of a study, from the number of records that its victim is trained on."""
    split = study_split(config, data, config.seeds[0])
    return CostModel(config, len(training_records(config, data, split)))
