"""Pruning and audits of a single model that the user provides."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64

from wemem.config.settings import PruningSettings
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split, stratified_draw
from wemem.defenses import Defense, Undefended
from wemem.errors import InputError
from wemem.exporting.checkpoint import has_certificate, read_certificate
from wemem.exporting.shards import weights_path
from wemem.files.record_tables import read_members
from wemem.notes import Note
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cost import CostModel
from wemem.pipeline.loading import load_data, study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Progress
from wemem.pipeline.stage import Stage
from wemem.pipeline.victim import is_onnx, read_victim, read_victim_file
from wemem.randomness import generator
from wemem.resolve import did_you_mean
from wemem.signals import MASKS, refuse_probabilities, refuse_sigmoid
from wemem.store.store import Store
from wemem.study.attacking import AttackedModels, attack_models
from wemem.study.canaries import dense_canaries, pruned_canaries
from wemem.study.feasibility import PROBED, auditable_parties, require_feasible, require_known_start
from wemem.study.outcome import Outcome
from wemem.study.plan import cost_of
from wemem.study.weak_targets import weak_targets
from wemem.training import accuracy
from wemem.tuning.search import TunedDefense, search_work, tune_defense


@dataclass(frozen=True, eq=False)
class PrunedModel:
    """A pruned model, with the settings and records of its fine-tuning.

    Args:
        dense: the model before pruning.
        stage: the pruned model, as an ensemble of one, with its rounds.
        defense: the defense under which the model was pruned.
        split: the roles of the records in fine-tuning.
        input_shape: the shape of one record.
        dev_from_training: True if the dev records were taken from the training records, for lack of
            others.
        tuned: the defense that a search chose within a budget, with a summary of the search; None
            if the study names the defense.
        class_names: the names of the classes, if the data name them.
        weak_targets: a note if the defense's soft targets know the data too little; None else, and
            where the dev records are training records.
    """

    dense: TrainedModels
    stage: TrainedModels
    defense: Defense
    split: Split
    input_shape: tuple[int, ...]
    dev_from_training: bool
    tuned: TunedDefense | None = None
    class_names: tuple[str, ...] = ()
    weak_targets: Note | None = None


def prune_model(
    config: StudyConfig, label: str, store: Store, progress: Progress, data: Dataset | None = None
) -> PrunedModel:  # fmt: skip
    """Prune the model of ``[victim]`` under one defense of the study, on the records that it was
    trained on.

    The dev records for early stopping are drawn from records that the model was not trained on.
    Where there are too few, they are drawn from its training records, which are then left out of
    fine-tuning.

    Raises:
        InputError: the study has no ``[victim]``, or the model, the study or the data cannot be
            used.
    """
    config = config_for_pruning(config, label)
    data = load_data(config, progress) if data is None else data
    parties, taken = parties_for_pruning(Pipeline.open(config, data, store, progress))
    dense, budget = parties.dense().result(), config.budgets.get(label)
    (pruning,) = config.prunings
    pruning.require_prunable(dense.ensemble, torch.from_numpy(data.features[:2]))
    cost = CostModel(config, len(parties.split.records(0, Role.TRAIN)))
    if budget is not None:
        progress.plan(search_work(cost, budget) if budget.searches else 0.0)
    defense, tuned = defense_for(parties, label)
    progress.plan((cost.defender_scores() if defense.needs_scores else 0.0) + cost.pruning(1, defense, [pruning]))
    pruned = pruned_victim(parties, defense, label).result()
    tuned = None if tuned is None else tuned.after(pruned)
    weak = None if taken else weak_targets(defense, pruned, _dev_accuracy(parties, dense), data)
    return PrunedModel(dense, pruned, defense, parties.split, data.input_shape, taken, tuned, data.class_names, weak)


def _dev_accuracy(parties: Parties, models: TrainedModels) -> float:
    """Accuracy of model 0 on its dev records."""
    data, dev = parties.data, parties.split.records(0, Role.DEV)
    return accuracy(models.first(data.features[dev], parties.pipeline.workspace.device), data.labels[dev])


def config_for_pruning(config: StudyConfig, label: str) -> StudyConfig:
    """The study of pruning one given model under one defense.

    Raises:
        InputError: the study has no ``[victim]``, or one that cannot be pruned, or no such defense.
    """
    if config.victim is None:
        raise InputError("expected a model to prune, got none; give --weights and --members")
    require_known_start(config)
    return _for_one_model(config, label)


def parties_for_pruning(pipeline: Pipeline) -> tuple[Parties, bool]:
    """The defender alone, with the given model, and True if its dev records are training records."""
    config = pipeline.workspace.config
    assert config.victim is not None
    data = pipeline.workspace.data
    data.require_all_records("members")
    split, taken = split_of_members(config, data, read_members(config.victim.members, len(data), data.ids))
    parties = Parties(pipeline, config.seeds[0], split)
    require_feasible(parties, [split])
    return parties, taken


def defense_for(parties: Parties, label: str) -> tuple[Defense, TunedDefense | None]:
    """The defense of an arm; that of a budget is searched for, unless its result is in the store."""
    config = parties.config
    if label not in config.budgets:
        return config.defenses[label], None
    tuned = tune_defense(parties, config.budgets[label], config.prunings[0], parties.dense())
    return tuned.defense, tuned


def pruned_victim(parties: Parties, defense: Defense, label: str) -> Stage[TrainedModels]:
    """The given model pruned under a defense, without any other party."""
    (pruning,) = parties.config.prunings
    return parties.pipeline.pruner.plan(
        f"prune under {label}", parties.dense(), parties.split, pruning, defense, seeds=parties.model_seeds,
        scores=[parties.defender_scores() if defense.needs_scores else None],
    )[-1]  # fmt: skip


def _for_one_model(config: StudyConfig, label: str | None) -> StudyConfig:
    """Reduce the study to its first seed and to one defense, or none, so that nothing else is
    trained.

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
    """The study with the defenses of its budgets in place of the budgets.

    Raises:
        InputError: the settings of a budget would have to be searched for, which is possible only
            before pruning.
    """
    for label, budget in config.budgets.items():
        if budget.searches:
            raise InputError(
                f"expected the settings of the defense under which the model was pruned, got the budget {label!r}; "
                "name the defense that the search found, with its settings"
            )
    return replace(config, defenses=config.known_defenses, budgets={})


def split_of_members(
    config: StudyConfig, data: Dataset, members: Int64[np.ndarray, " n"]
) -> tuple[Split, bool]:  # fmt: skip
    """The roles of the records for one model, and whether its dev records are taken from its
    training records.
    """
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
    """Attack the model of ``[victim]`` with shadows and reference models that are trained in the
    same way.

    Args:
        config: a study with ``[victim]``; its other settings describe how the model was trained.
        label: the label of the defense under which the model was pruned, to the study's sparsity;
            None if it was not pruned.
        store: the store of stage results.
        progress: receives every stage.
        data: the data set; None loads the data set of the study.

    Raises:
        InputError: the study has no ``[victim]``, or the model, the study or the data cannot be
            used.
    """
    config = config_for_audit(config, label)
    data = study_data(config) if data is None else data
    parties = parties_for_audit(Pipeline.open(config, data, store, progress), label)
    cost = cost_of(config, data)
    progress.plan(cost.preparation() + (0.0 if label is None else _pruning_work(cost, label)))
    return attacked_victim(parties, label).result()


def config_for_audit(config: StudyConfig, label: str | None) -> StudyConfig:
    """The study of an audit of one given model.

    Raises:
        InputError: the study has no ``[victim]``, no such defense, or one that is searched for.
    """
    if config.victim is None:
        raise InputError("expected a model to audit, got none; give --weights and --members")
    return _with_settings(_for_one_model(config, label))


def parties_for_audit(pipeline: Pipeline, label: str | None) -> Parties:
    """The parties of an audit, checked before any training."""
    config = pipeline.workspace.config
    parties = auditable_parties(pipeline, config.seeds[0])
    _require_size(parties, config.pruning if label is not None else None)
    return parties


def attacked_victim(parties: Parties, label: str | None) -> Stage[Outcome]:
    """The provided model under attack, with shadows and reference models made in the same way.

    Args:
        parties: the seed of a study of one model.
        label: the label of the defense under which the model was pruned; None if it was not pruned.

    Raises:
        InputError: an attack needs the model as it was before its last round of pruning, or pruned
            weights that the file does not show.
    """
    config, name = parties.config, "audited model"
    _require_visible_masks(config)
    if label is None:
        shared = config.uses("shared")
        references = [[models] for models in parties.references_of("dense")] if shared else []
        count = config.references_of("dense") if shared else 0
        dense = [parties.dense()]
        canaries = dense_canaries(parties)
        return attack_models(
            parties,
            AttackedModels(name, None, 0.0, dense, references, count, is_file=True, canary_references=canaries),
        )
    for attack_name, attack in config.attacks.items():
        if attack.required_signals & {"dense", "trajectory", "releases"}:
            raise InputError(
                f"attack {attack_name!r} needs the model before its last round of pruning, got the pruned one alone; "
                "leave the attack out"
            )
    assert config.victim is not None
    defense, (pruning,) = config.defenses[label], config.prunings
    certificate = read_certificate(weights_path(config.victim.weights))
    victim = parties.join_victim(parties.pruned_shadows(f"prune shadows under {label}", defense, pruning), certificate)
    unaware = None
    if config.non_adaptive and defense != Undefended():
        plain = parties.pruned_shadows(f"prune shadows under {label}: without it", Undefended(), pruning)
        unaware = parties.join_victim(plain, certificate)
    references = parties.pruned_references(label, defense, pruning) if config.uses("shared") else []
    count = config.references_of(label) if references else 0
    sparsity = pruning.schedule.sparsity
    canaries = pruned_canaries(parties, label, defense, pruning)
    return attack_models(
        parties, AttackedModels(name, defense, sparsity, [victim], references, count, unaware, True, canaries)
    )


def _require_visible_masks(config: StudyConfig) -> None:
    """Refuse attacks on the sparsity pattern of a file that does not show it."""
    hidden = is_onnx(config) or config.prunings[0].criterion.structured
    for name, attack in config.attacks.items():
        if hidden and MASKS in attack.required_signals:
            raise InputError(
                f"attack {name!r} expected a file of weights of which single ones are pruned, got an ONNX file or one "
                "without whole channels; leave the attack out"
            )


def _pruning_work(cost: CostModel, label: str) -> float:
    """The work of pruning the shadows and reference models of a provided victim, with and without
    the defense.
    """
    config, defense = cost.config, cost.config.defenses[label]
    shadows = config.split.shadows if config.non_adaptive and defense != Undefended() else 0
    unaware = cost.pruning(shadows, Undefended(), config.prunings)
    return cost.pruning(cost.arm_models(label) - 1, defense, config.prunings) + unaware


def _require_size(parties: Parties, pruning: PruningSettings | None) -> None:
    """Refuse, before shadows are trained, a provided model whose size or number of classes differs
    from theirs.

    Raises:
        InputError: the tensors of the model, or its logits, have other shapes than those of the
            shadows.
    """
    expected = parties.pipeline.workspace.untrained([0])
    if pruning is not None:
        example = torch.from_numpy(parties.data.features[:2])
        sparsity = pruning.sparsities[0]
        expected = pruning.to(sparsity, parties.config.finetune).sized(expected, sparsity, example)
    if is_onnx(parties.config):
        logits, classes = read_victim_file(parties.config).logits(parties.data.features[:PROBED]), parties.data.classes
        if logits.shape[1] != classes:
            raise InputError(
                f"expected one logit for each of {classes} classes, got {logits.shape[1]}; give the data set that the "
                "model was trained on"
            )
        refuse_probabilities(logits, "the ONNX file")
        assert parties.config.victim is not None
        if not has_certificate(weights_path(parties.config.victim.weights)):
            refuse_sigmoid(logits, "the ONNX file")  # a file that this package exported gives logits
        return
    victim = read_victim(parties.config, parties.data, lambda _: None)[0]
    for name, tensor in expected.parameters.items():
        wanted, got = tuple(tensor.shape[1:]), tuple(victim.parameters[name].shape[1:])
        if wanted != got:
            raise InputError(
                f"expected {name!r} of shape {wanted}, as in models that this study prunes, got {got}; name the "
                "method and sparsity that the model was pruned with by --set pruning.method=... --set "
                "pruning.sparsity=..., and its --defense"
            )
