"""One model at a time: prune a model that exists, audit a model that exists."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from wemem.config.settings import PruningSettings
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split, stratified_draw
from wemem.defenses import Defense, Undefended
from wemem.errors import InputError
from wemem.export.checkpoint import read_certificate
from wemem.files.record_tables import read_members
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cost import CostModel
from wemem.pipeline.loading import load_data, study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pipeline.victim import is_onnx, load_victim, read_victim, read_victim_file
from wemem.randomness import generator
from wemem.resolve import did_you_mean
from wemem.signals import refuse_probabilities
from wemem.store.store import Store
from wemem.study.attacking import Attacked, attack_models
from wemem.study.feasibility import PROBED, require_auditable, require_feasible, require_known_start
from wemem.study.outcome import Outcome
from wemem.study.plan import cost_of
from wemem.tuning.search import TunedDefense, search_work, tune_defense


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned model.

    Args:
        dense: the model as it was given.
        stage: the ensemble of one, and its rounds.
        defense: the defense under which it was pruned.
        split: the roles of the records in fine-tuning.
        input_shape: the shape of one record.
        dev_from_training: True if the dev records had to be taken from the training records.
        tuned: the defense that was found for a budget, with a summary of how; None if the study names the defense.
    """

    dense: TrainedModels
    stage: TrainedModels
    defense: Defense
    split: Split
    input_shape: tuple[int, ...]
    dev_from_training: bool
    tuned: TunedDefense | None = None


def prune_model(config: StudyConfig, label: str, store: Store, progress: Progress) -> Pruned:
    """Prune the model of ``[victim]`` under one defense of the study, on its own training records.

    The dev records for early stopping are drawn from those it was not trained on; where there are too few, from its
    training records, which are then not fine-tuned on.

    Raises:
        InputError: no ``[victim]``, or anything that cannot be used.
    """
    if config.victim is None:
        raise InputError("expected a model to prune, got none; give --weights and --members")
    require_known_start(config)
    config, data = _for_one_model(config, label), load_data(config, progress)
    split, taken = _split_for_pruning(config, data)
    pipeline, seed = Pipeline.open(config, data, store, progress), config.seeds[0]
    parties = Parties(pipeline, seed, split)
    require_feasible(parties, [split])
    dense = load_victim(pipeline.workspace)
    (pruning,) = config.prunings
    pruning.require_prunable(dense.ensemble, torch.from_numpy(data.features[:2]))
    tuned = None
    cost = CostModel(config, len(split.records(0, Role.TRAIN)))
    if label in config.budgets:
        budget = config.budgets[label]
        progress.plan(search_work(cost, budget) if budget.searches else 0.0)
        tuned = tune_defense(parties, budget, pruning, dense)
    defense = config.defenses[label] if tuned is None else tuned.defense
    progress.plan((cost.defender_scores() if defense.needs_scores else 0.0) + cost.pruning(1, defense, [pruning]))
    scores = [parties.score_defender() if defense.needs_scores else None]
    rounds = pipeline.pruner.prune(
        f"prune under {label}", dense, split, pruning, defense, seeds=parties.model_seeds, scores=scores
    )
    tuned = None if tuned is None else tuned.after(rounds[-1])
    return Pruned(dense, rounds[-1], defense, split, data.input_shape, taken, tuned)


def _for_one_model(config: StudyConfig, label: str | None) -> StudyConfig:
    """The study's first seed with one defense, or none, so that nothing is trained for the others.

    Raises:
        InputError: the study has no such defense, or several sparsities.
    """
    if len(config.pruning.sparsities) > 1:
        raise InputError(
            f"expected one sparsity for one model, got {list(config.pruning.sparsities)}; choose by "
            "--set pruning.sparsity=0.6"
        )
    if label is not None and label not in config.labels:
        known = ", ".join(config.labels)
        raise InputError(f"expected a defense among {known}, got {label!r}{did_you_mean(label, config.labels)}")
    defenses = {name: defense for name, defense in config.defenses.items() if name == label}
    budgets = {name: budget for name, budget in config.budgets.items() if name == label}
    if label is None:
        defenses = {"undefended": Undefended()}
    if label in config.grids:
        raise InputError(f"expected one setting of {label!r} for one model, got a grid; name the setting")
    references = {name: count for name, count in config.references.items() if name == label}
    return replace(
        config, defenses=defenses, budgets=budgets, grids={}, references=references, controls=(), seeds=config.seeds[:1]
    )


def _with_settings(config: StudyConfig) -> StudyConfig:
    """The study with controllers in place of budgets.

    Raises:
        InputError: a budget whose settings had to be searched for, which is done before pruning.
    """
    for label, budget in config.budgets.items():
        if budget.searches:
            raise InputError(
                f"expected the settings of the defense under which the model was pruned, got the budget {label!r}; "
                "name the defense that the search found, with its settings"
            )
    return replace(config, defenses=config.known_defenses, budgets={})


def _split_for_pruning(config: StudyConfig, data: Dataset) -> tuple[Split, bool]:
    assert config.victim is not None
    data.require_all_records("members")
    members = read_members(config.victim.members, len(data))
    others = np.setdiff1d(np.arange(len(data)), members)
    wanted = round(config.split.dev / config.split.train * len(members))
    rng = generator(config.seeds[0], "split/pruning")
    taken = len(others) < wanted
    dev = stratified_draw(data.labels, members if taken else others, [wanted], rng)[0]
    roles = np.zeros((1, len(data)), np.int8)
    for role, records in ((Role.AUDIT, others), (Role.TRAIN, members), (Role.DEV, dev)):
        roles[0, records] = role
    return Split(roles, data.labels, "subsets"), taken


def audit_model(
    config: StudyConfig, label: str | None, store: Store, progress: Progress, data: Dataset | None = None
) -> Outcome:
    """Attack the model of ``[victim]`` with shadows and reference models made as it was made.

    Args:
        config: a study with ``[victim]``; what else it says is how the model was trained.
        label: the defense of the study under which the model was pruned, at the study's sparsity; None if it was not.
        store: where stages are kept.
        progress: hears of every stage.
        data: the data set, if it is loaded already.

    Raises:
        InputError: no ``[victim]``, or anything that cannot be used.
    """
    if config.victim is None:
        raise InputError("expected a model to audit, got none; give --weights and --members")
    weights = Path(config.victim.weights)
    config = _with_settings(_for_one_model(config, label))
    data = study_data(config) if data is None else data
    parties = Parties.of(Pipeline.open(config, data, store, progress), config.seeds[0])
    require_auditable(parties)
    _require_size(parties, config.pruning if label is not None else None)
    cost = cost_of(config, data)
    progress.plan(cost.preparation() + (0.0 if label is None else _pruning_work(cost, label)))
    if label is None:
        references = parties.train_references_of("dense") if config.uses("shared") else []
        dense = [parties.train_dense()]
        return attack_models(parties, Attacked("audited model", None, 0.0, dense, references, is_file=True))
    for name, attack in config.attacks.items():
        if attack.required_signals & {"dense", "trajectory"}:
            raise InputError(
                f"attack {name!r} needs the model before its last round of pruning, got the pruned one alone; "
                "leave the attack out"
            )
    defense = config.defenses[label]
    (pruning,) = config.prunings
    certificate = read_certificate(weights)
    victim = parties.join_victim(parties.prune_shadows(f"prune shadows under {label}", defense, pruning), certificate)
    unaware = None
    if config.non_adaptive and defense != Undefended():
        plain = parties.prune_shadows(f"prune shadows under {label}: without it", Undefended(), pruning)
        unaware = parties.join_victim(plain, certificate)
    references = parties.prune_references(label, defense, pruning) if config.uses("shared") else []
    return attack_models(
        parties,
        Attacked("audited model", defense, pruning.schedule.sparsity, [victim], references, unaware, is_file=True),
    )


def _pruning_work(cost: CostModel, label: str) -> float:
    """Work of pruning the shadows and reference models of a given victim, with and without the defense."""
    config, defense = cost.config, cost.config.defenses[label]
    shadows = config.split.shadows if config.non_adaptive and defense != Undefended() else 0
    unaware = cost.pruning(shadows, Undefended(), config.prunings)
    return cost.pruning(cost.arm_models(label) - 1, defense, config.prunings) + unaware


def _require_size(parties: Parties, pruning: PruningSettings | None) -> None:
    """Refuse, before shadows are trained, a given model that lost other channels than they will, or of other data.

    Raises:
        InputError: its tensors have other shapes, or its answers.
    """
    made = parties.pipeline.workspace.untrained([0])
    if pruning is not None:
        example = torch.from_numpy(parties.data.features[:2])
        made = pruning.to(pruning.sparsities[0], parties.config.finetune).prune(made, pruning.sparsities[0], example)
    if is_onnx(parties.config):
        answers, classes = read_victim_file(parties.config).logits(parties.data.features[:PROBED]), parties.data.classes
        if answers.shape[1] != classes:
            raise InputError(
                f"expected one logit for each of {classes} classes, got {answers.shape[1]}; give the data it is for"
            )
        refuse_probabilities(answers, "the ONNX file")
        return
    victim = read_victim(parties.config, parties.data, lambda _: None)[0]
    for name, tensor in made.parameters.items():
        wanted, got = tuple(tensor.shape[1:]), tuple(victim.parameters[name].shape[1:])
        if wanted != got:
            raise InputError(
                f"expected {name!r} of shape {wanted}, as models pruned by this study have it, got {got}; name the "
                "method and sparsity that the model was pruned with by --set pruning.method=... --set "
                "pruning.sparsity=..., and its --defense"
            )
