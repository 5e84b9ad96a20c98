"""The task graph of a study: tasks for processes that work side by side, and the tasks that each
comes after.

Every task leaves what it computes in the store. A thing that several tasks need, such as the
unpruned models of a seed, is a task of its own that they come after, so that nothing is computed
twice. Once all tasks are done, the study itself finds everything in the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wemem.defenses import Defense, Distillation, Undefended
from wemem.pipeline.cost import CostModel, step_time
from wemem.pipeline.parties import Parties
from wemem.pipeline.query import required_signals
from wemem.study.grid_search import prune_alone
from wemem.study.plan import settings_to_try
from wemem.study.run import attack_dense, defend_and_attack
from wemem.tuning.search import search_work, tune_defense


@dataclass(frozen=True)
class Task:
    """The work of one process.

    Args:
        what: the kind of task. ``dense``, ``defender``, ``shadow_scores`` and ``references``
            prepare a seed, ``undefended`` prunes the shadows of the adversary who does not know the
            defense, ``alone`` tries a setting on the victim, ``search`` finds the defense for a
            budget, ``attack_dense`` attacks the unpruned model and ``arm`` prunes and attacks under
            one defense.
        seed: the seed of the study that the task belongs to.
        label: the label of the arm that a ``search`` or ``arm`` task is for.
        place: the index of the setting of an ``alone`` task among those to try.
        after: the tasks that must be done before this one starts.
        work: the work of its trainings, in the unit of :class:`~wemem.pipeline.cost.CostModel`.
        step_time: the time of one of its training steps, relative to an ordinary step.
    """

    what: str
    seed: int
    label: str = ""
    place: int = 0
    after: tuple["Task", ...] = ()
    work: float = 0.0
    step_time: float = 1.0

    @property
    def expected_time(self) -> float:
        """The time relative to other tasks; of the tasks that are ready the longest starts first."""
        return self.work * self.step_time


def selection_tasks(cost: CostModel) -> list[Task]:
    """The tasks that evaluate every setting of the grids."""
    config, tasks = cost.config, list[Task]()
    settings = [defense for _, defense in settings_to_try(config)]
    for seed in config.seeds:
        ready = _preparations(cost, seed)
        tried: list[Task] = []
        for place, defense in enumerate(settings):
            needed = [ready["dense"], *([ready["defender"]] if defense.needs_scores else [])]
            after = (*needed, *(tried[i] for i in _sharing(settings[:place], defense)))
            work = cost.pruning(1, defense, config.prunings)
            tried.append(Task("alone", seed, "", place, after, work, step_time(defense)))
        needed = [task for task in ready.values() if any(task in one.after for one in tried)]
        tasks += [*needed, *tried]
    return tasks


def study_tasks(cost: CostModel) -> list[Task]:
    """The tasks that prune and attack every arm of a study with selected settings."""
    config, tasks = cost.config, list[Task]()
    # controls may share a round with undefended pruning, which deletes it once it has gone on; so
    # they come after it
    controls = {label: config.defense_of(label) for label, _ in config.arms if label not in config.labels}
    fixed = {**config.known_defenses, **controls}
    for seed in config.seeds:
        ready = _preparations(cost, seed)
        always = tuple(task for what, task in ready.items() if what != "shadow_scores")
        arms: list[Task] = []
        for label, defense in fixed.items():
            needed = tuple(ready.values()) if defense.needs_scores else always
            after = (*needed, *(arms[i] for i in _sharing(list(fixed.values())[: len(arms)], defense)))
            arms.append(_arm(cost, seed, label, after))
        tasks += [*ready.values(), Task("attack_dense", seed, after=always), *arms]
        tasks += _search_tasks(cost, seed, ready, arms)
    return tasks


def perform(parties: Parties, task: Task) -> None:
    """Do a task for the parties of its seed; its results are in the store afterwards."""
    config = parties.config
    match task.what:
        case "dense":
            parties.train_dense()
        case "defender":
            parties.score_defender()
        case "shadow_scores":
            parties.score_shadows()
        case "references":
            parties.train_references()
            parties.score_references(config.scored_references)
        case "undefended":
            keep = "trajectory" in required_signals(config.attacks, "disjoint")
            for pruning in config.prunings:
                parties.prune_with_shadows("prune shadows without a defense", Undefended(), pruning, keep_rounds=keep)
        case "alone":
            prune_alone(parties, *settings_to_try(config)[task.place])
        case "search":
            _search(parties, task.label)
        case "attack_dense":
            attack_dense(parties)
        case "arm":
            for pruning in config.prunings_of(task.label):
                defend_and_attack(parties, task.label, pruning)


def _search(parties: Parties, label: str) -> None:
    """Find the defense for a budget at every sparsity."""
    for pruning in parties.config.prunings_of(label):
        tune_defense(parties, parties.config.budgets[label], pruning, parties.train_dense())


def _preparations(cost: CostModel, seed: int) -> dict[str, Task]:
    """The tasks whose results all arms of a seed have in common, by kind."""
    config, dense = cost.config, Task("dense", seed, work=cost.originals())
    tasks = [dense]
    if config.needs_scores:
        tasks.append(Task("defender", seed, work=cost.defender_scores()))
        tasks.append(Task("shadow_scores", seed, work=cost.shadow_scores()))
    if config.uses("shared"):
        tasks.append(Task("references", seed, work=cost.references()))
    if config.non_adaptive:
        tasks.append(Task("undefended", seed, after=(dense,), work=cost.unaware_shadows()))
    return {task.what: task for task in tasks}


def _arm(cost: CostModel, seed: int, label: str, after: tuple[Task, ...]) -> Task:
    """The task of pruning and attacking in one arm."""
    return Task("arm", seed, label, 0, after, cost.arm(label), step_time(cost.config.defense_of(label)))


def _search_tasks(cost: CostModel, seed: int, ready: Mapping[str, Task], arms: Sequence[Task]) -> list[Task]:
    """For every budget a search, and the arm of the defense that it finds.

    Searches try settings on the same models, so each comes after the one before. The defense that
    one finds may have the settings of another arm, or teachers that another arm trains, so its own
    arm comes after all others.
    """
    searches: list[Task] = []
    final_arms: list[Task] = []
    for label, budget in cost.config.budgets.items():
        if budget.searches:
            before = (ready["dense"], ready["defender"], *searches[-1:])
            searches.append(Task("search", seed, label, 0, before, search_work(cost, budget)))
            final_arms.append(_arm(cost, seed, label, (*ready.values(), *arms, *final_arms, searches[-1])))
    return [*searches, *final_arms]


def _sharing(earlier: Sequence[Defense], defense: Defense) -> list[int]:
    """The index of the last earlier defense with the same teachers or settings, whose task computes
    what both need.
    """
    teachers = defense.capability(Distillation)
    alike = (
        other == defense or (teachers is not None and other.capability(Distillation) == teachers) for other in earlier
    )
    return [i for i, same in enumerate(alike) if same][-1:]
