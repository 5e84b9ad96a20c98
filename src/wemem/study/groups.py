"""Groups of stages: each is what one arm of a command needs, and stands for it between processes.

A group is named by values that JSON holds. From the name, any process builds the same stages with
the same keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wemem.config.budget import Budget
from wemem.config.study import StudyConfig
from wemem.pipeline.cost import CostModel
from wemem.pipeline.parties import Parties
from wemem.pipeline.stage import Effort, Stage
from wemem.pruning import Pruning
from wemem.store.keys import SearchedKey
from wemem.study.grid_search import pruned_alone
from wemem.study.plan import settings_to_try
from wemem.study.run import attacked_dense, defended_and_attacked
from wemem.study.single_model import attacked_victim, defense_for, pruned_victim
from wemem.tuning.search import search_work, tune_defense

What = Literal["dense", "arm", "setting", "search", "audit", "prune"]


@dataclass(frozen=True)
class Group:
    """The name of a group of stages.

    Args:
        what: ``dense`` attacks the unpruned models, ``arm`` prunes and attacks under one defense,
            ``setting`` prunes the victim under one setting of a grid, ``search`` finds the defense
            for a budget, ``audit`` attacks a given model and ``prune`` prunes it.
        label: the label of an arm; empty if there is none.
        place: the number of the sparsity of an arm, or of a setting to try.
    """

    what: What
    label: str = ""
    place: int = 0


def stages_of(parties: Parties, group: Group) -> Sequence[Stage[Any]]:
    """The stages whose results a group needs; those that they read follow from them."""
    match group.what:
        case "dense":
            return [attacked_dense(parties)]
        case "arm":
            return [defended_and_attacked(parties, group.label, parties.config.prunings_of(group.label)[group.place])]
        case "setting":
            return pruned_alone(parties, *settings_to_try(parties.config)[group.place])
        case "search":
            return [Searched(parties, group.label, parties.config.prunings_of(group.label)[group.place])]
        case "audit":
            return [attacked_victim(parties, group.label or None)]
        case "prune":
            return [pruned_victim(parties, defense_for(parties, group.label)[0], group.label)]


def selection_groups(config: StudyConfig) -> list[Group]:
    """The groups that try every setting of the grids."""
    return [Group("setting", label, place) for place, (label, _) in enumerate(settings_to_try(config))]


def search_groups(config: StudyConfig) -> list[Group]:
    """The groups that search for the defenses of budgets."""
    searched = [label for label, budget in config.budgets.items() if budget.searches]
    return [Group("search", label, place) for label in searched for place in range(len(config.prunings_of(label)))]


def arm_groups(config: StudyConfig, *, searched: bool) -> list[Group]:
    """The groups that attack every arm, those with the fewest rounds first.

    A pruning to fewer rounds may be the beginning of a longer one, which then goes on from it.

    Args:
        config: a study without grids.
        searched: True for the arms of budgets that are searched for, False for all others.
    """
    found = [label for label, budget in config.budgets.items() if budget.searches]
    arms = [
        (pruning.schedule.rounds, Group("arm", label, place))
        for label in dict.fromkeys(label for label, _ in config.arms)
        for place, pruning in enumerate(config.prunings_of(label))
        if (label in found) == searched
    ]
    ordered = [group for _, group in sorted(arms, key=lambda arm: arm[0])]
    return ordered if searched else [Group("dense"), *ordered]


class Searched(Stage[None]):
    """A search for the defense of a budget; its steps are stored, and its result is read from them.

    Args:
        parties: one seed of the study.
        label: the label of the budget.
        pruning: pruning to the target sparsity.
    """

    def __init__(self, parties: Parties, label: str, pruning: Pruning) -> None:
        budget, config, dense = parties.config.budgets[label], parties.config, parties.dense()
        ensemble = parties.pipeline.workspace.ensemble_inputs(parties.split, parties.model_seeds)
        key = SearchedKey(dense.key, budget, pruning, config.training, ensemble).key()
        super().__init__(
            f"search {label}", key, [dense, parties.defender_scores()], _search_effort(parties, budget)
        )  # fmt: skip
        self._parties, self._budget, self._pruning, self._dense = parties, budget, pruning, dense

    def ensure(self) -> None:
        tune_defense(self._parties, self._budget, self._pruning, self._dense)

    def read(self) -> None:
        """The result is read by the arm of the budget."""


def _search_effort(parties: Parties, budget: Budget) -> Effort:
    cost = CostModel(parties.config, len(parties.members))
    work = search_work(cost, budget) / len(parties.config.pruning.sparsities)
    return Effort.training("train", work, budget.trials + budget.finalists)
