"""A study from data to results.

For every seed the records are divided among the parties (:class:`~wemem.pipeline.parties.Parties`)
and the unpruned models are trained. Then every arm prunes the victim, its shadows and the reference
models in the same way, and every attack runs on the signals that an adversary has of them.
"""

from collections.abc import Iterator
from dataclasses import replace

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.defenses import Defense, Undefended
from wemem.errors import InputError
from wemem.pipeline.loading import study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pipeline.query import Releases, required_signals
from wemem.pipeline.stage import Derived, Stage
from wemem.pipeline.victim import swap_shadows
from wemem.pruning import Pruning
from wemem.store.store import Store
from wemem.study.attacking import AttackedModels, attack_models
from wemem.study.canaries import dense_canaries, pruned_canaries
from wemem.study.feasibility import require_feasible_study
from wemem.study.outcome import Outcome
from wemem.study.plan import cost_of, planned_work
from wemem.tuning.search import tune_defense


def run_study(config: StudyConfig, store: Store, progress: Progress, data: Dataset | None = None) -> Iterator[Outcome]:
    """Run a study and yield every outcome as soon as it is complete.

    Args:
        config: the study, with settings selected from its grids
            (:func:`~wemem.study.grid_search.select_settings`).
        store: the store of stage results, in which earlier results are looked up and new ones are
            written.
        progress: receives every stage.
        data: the data set; None loads the data set of the study.

    Raises:
        InputError: the study or the data cannot be used.
    """
    if config.grids:
        raise InputError(
            f"expected chosen settings, got grids of {', '.join(config.grids)}; use select_settings() first"
        )
    data = study_data(config) if data is None else data
    pipeline = Pipeline.open(config, data, store, progress)
    require_feasible_study(pipeline)
    progress.plan(planned_work(cost_of(config, data)))
    for seed in config.seeds:
        parties = Parties.of(pipeline, seed)
        yield attacked_dense(parties).result()
        for label, pruning in config.arms:
            yield defended_and_attacked(parties, label, pruning).result()


def attacked_dense(parties: Parties) -> Stage[Outcome]:
    """The unpruned models under attack, with as many reference models as the arm that uses the most."""
    shared = parties.config.uses("shared")
    references = [[models] for models in parties.references_of("dense")] if shared else []
    count = parties.config.references_of("dense") if shared else 0
    return attack_models(
        parties,
        AttackedModels(
            "dense", None, 0.0, [parties.dense()], references, count, canary_references=dense_canaries(parties)
        ),
    )


def defended_and_attacked(parties: Parties, label: str, pruning: Pruning) -> Stage[Outcome]:
    """The victim, its shadows and the reference models pruned in one arm of the study, under attack.

    A search for the defense of the arm runs at once, unless its result is in the store.
    """
    config = parties.config
    if label not in config.budgets:
        return attack_models(parties, _pruned(parties, label, config.defense_of(label), pruning))
    tuned = tune_defense(parties, config.budgets[label], pruning, parties.dense())
    attacked = attack_models(parties, _pruned(parties, label, tuned.defense, pruning))

    def outcome() -> Outcome:
        result = attacked.read()
        return replace(result, tuned=tuned.after(result.victim))

    return Derived(attacked.key, (attacked,), outcome)


def _pruned(parties: Parties, label: str, defense: Defense, pruning: Pruning) -> AttackedModels:
    """All models of an arm: the victim, its shadows and the reference models."""
    config, sparsity = parties.config, pruning.schedule.sparsity
    title = f"prune under {label}" + (f" to {sparsity}" if len(config.prunings_of(label)) > 1 else "")
    held = "releases" in required_signals(config.attacks, "shared")
    keep = held or "trajectory" in required_signals(config.attacks, "disjoint")
    rounds = parties.pruned_with_shadows(title, defense, pruning, keep_rounds=keep)
    references, count = list[Releases](), 0
    if config.uses("shared"):
        references += parties.pruned_references(label, defense, pruning, every_release=held)
        count = config.references_of(label)
    unaware = None
    if config.non_adaptive and defense != Undefended():
        plain = parties.pruned_with_shadows(f"{title}: shadows without it", Undefended(), pruning)
        unaware = swap_shadows(rounds[-1], plain[-1])
    planted = pruned_canaries(parties, label, defense, pruning, every_release=held)
    return AttackedModels(label, defense, sparsity, rounds, references, count, unaware, canary_references=planted)
