"""A study cut into tasks for processes that work side by side. Each leaves what it computes in the store.

What several tasks need, such as the original models of a seed, is a task of its own that they come after, so that
nothing is computed twice. Once all are done, the study itself finds everything in the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wemem.config.study import StudyConfig
from wemem.defenses import Auto, Clipping, Defense, Distillation, Undefended
from wemem.pipeline.parties import Parties
from wemem.pipeline.query import required_signals, uses
from wemem.study.grid_search import prune_alone, settings_to_try
from wemem.study.run import attack_dense, defend_and_attack
from wemem.tuning.search import find_defense, search_work

#: How much longer a step takes that needs every record's own gradient; only the order of tasks follows from it.
PER_SAMPLE = 5.0


@dataclass(frozen=True)
class Task:
    """One process's work.

    Args:
        what: ``dense``, ``defender``, ``adversary`` and ``references`` prepare a seed, ``undefended`` the shadows of
            the adversary who knows no defense, ``alone`` tries a setting on the victim, ``search`` finds the defense
            for a budget, ``attack_dense`` and ``arm`` are what a study is about.
        seed: of the study.
        place: of an ``alone`` among the settings to try, of a ``search`` or an ``arm`` among the defenses.
        after: the tasks that must be done before.
        work: records apart, models times epochs, roughly; of those that are ready the longest starts first.
    """

    what: str
    seed: int
    place: int = 0
    after: tuple["Task", ...] = ()
    work: float = 0.0


def selection_tasks(config: StudyConfig) -> list[Task]:
    """To try every setting of the grids, and none."""
    settings = [defense for _, defense in settings_to_try(config)]
    tasks: list[Task] = []
    for seed in config.seeds:
        ready = {task.what: task for task in _preparations(config, seed)}
        tried: list[Task] = []
        for place, defense in enumerate(settings):
            needed = [ready["dense"], *([ready["defender"]] if defense.needs_scores else [])]
            after = (*needed, *(tried[i] for i in _sharing(settings[:place], defense)))
            tried.append(Task("alone", seed, place, after, _work(config, defense, 1)))
        needed = [task for task in ready.values() if any(task in one.after for one in tried)]
        tasks += [*needed, *tried]
    return tasks


def study_tasks(config: StudyConfig) -> list[Task]:
    """To prune and attack everything, settings being chosen."""
    fixed = {
        place: defense.controller() if isinstance(defense, Auto) else defense
        for place, defense in enumerate(config.defenses.values())
        if not (isinstance(defense, Auto) and defense.searches)
    }
    tasks: list[Task] = []
    for seed in config.seeds:
        ready = {task.what: task for task in _preparations(config, seed)}
        always = tuple(task for what, task in ready.items() if what != "adversary")
        arms: list[Task] = []
        for place, defense in fixed.items():
            needed = tuple(ready.values()) if defense.needs_scores else always
            after = (*needed, *(arms[i] for i in _sharing(list(fixed.values())[: len(arms)], defense)))
            arms.append(Task("arm", seed, place, after, _work(config, defense, _models(config, place))))
        tasks += [*ready.values(), Task("attack_dense", seed, after=always), *arms]
        tasks += _search_tasks(config, seed, ready, arms)
    return tasks


def perform(parties: Parties, task: Task) -> None:
    """Do a task for the parties of its seed: what it computes is in the store afterwards."""
    config, sparsities = parties.config, parties.config.pruning.sparsities
    match task.what:
        case "dense":
            _ = parties.dense
        case "defender":
            _ = parties.defender_scores
        case "adversary":
            _ = parties.adversary_scores
        case "references":
            _ = parties.dense_references
            _ = parties.reference_scores if parties.needs_scores else None
        case "undefended":
            keep = "trajectory" in required_signals(config.attacks, "disjoint")
            for pruning in (config.pruning.to(sparsity, config.finetune) for sparsity in sparsities):
                parties.pruned_members("prune shadows without a defense", Undefended(), pruning, keep_rounds=keep)
        case "alone":
            prune_alone(parties, *settings_to_try(config)[task.place])
        case "search":
            _search(parties, task.place)
        case "attack_dense":
            attack_dense(parties)
        case "arm":
            for sparsity in sparsities:
                defend_and_attack(parties, list(config.defenses)[task.place], sparsity)


def _search(parties: Parties, place: int) -> None:
    config = parties.config
    budget = list(config.defenses.values())[place]
    assert isinstance(budget, Auto)
    for sparsity in config.pruning.sparsities:
        find_defense(parties, budget, config.pruning.to(sparsity, config.finetune), parties.dense)


def _preparations(config: StudyConfig, seed: int) -> Iterable[Task]:
    """What the arms of a seed have in common."""
    epochs, models = config.training.epochs, 1 + config.split.shadows
    dense = Task("dense", seed, work=models * epochs)
    yield dense
    if any(defense.needs_scores for defense in config.every_defense):
        subsets = config.scores.models * config.scores.fraction * epochs
        yield Task("defender", seed, work=subsets)
        yield Task("adversary", seed, work=subsets)
    if uses(config.attacks, "shared"):
        yield Task("references", seed, work=config.references_of("dense") * epochs)
    if config.non_adaptive:
        yield Task("undefended", seed, after=(dense,), work=_work(config, Undefended(), models))


def _search_tasks(config: StudyConfig, seed: int, ready: Mapping[str, Task], arms: Sequence[Task]) -> list[Task]:
    """For every budget a search, and the arm of what it finds.

    Searches try settings on the same models, so that each comes after the one before. What one finds may be a setting
    that another arm has, or teachers that it trains, so that its own arm comes after all others.
    """
    searches: list[Task] = []
    found: list[Task] = []
    for place, (label, budget) in enumerate(config.defenses.items()):
        if isinstance(budget, Auto) and budget.searches:
            before = (ready["dense"], ready["defender"], *searches[-1:])
            searches.append(Task("search", seed, place, before, search_work(config, 1.0, [label])))
            after = (*ready.values(), *arms, *found, searches[-1])
            found.append(Task("arm", seed, place, after, _work(config, budget, _models(config, place))))
    return [*searches, *found]


def _models(config: StudyConfig, place: int) -> int:
    """That are pruned in an arm."""
    label = list(config.defenses)[place]
    return 1 + config.split.shadows + (config.references_of(label) if uses(config.attacks, "shared") else 0)


def _sharing(earlier: Sequence[Defense], defense: Defense) -> list[int]:
    """The place of the last one before that trains the same teachers, or is the same: it computes what both need."""
    taught = defense.capability(Distillation)
    alike = (other == defense or (taught is not None and other.capability(Distillation) == taught) for other in earlier)
    return [i for i, same in enumerate(alike) if same][-1:]


def _work(config: StudyConfig, defense: Defense, models: int) -> float:
    steps = config.pruning.rounds * config.finetune.epochs * len(config.pruning.sparsities) * defense.passes_per_epoch
    teachers = defense.teacher_trainings * config.training.epochs
    return float(models * (steps * (1.0 if defense.capability(Clipping) is None else PER_SAMPLE) + teachers))
