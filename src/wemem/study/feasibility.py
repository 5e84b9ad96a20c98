"""Checks before the first training that refuse a study that would fail after it."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from wemem.config.study import StudyConfig
from wemem.data.batches import Group
from wemem.data.split import Role, Split, require_covered
from wemem.data.teachers import Teachers, held_out
from wemem.defenses import Defense, Distillation, TrainingRecords
from wemem.errors import InputError, TooFewRecordsError
from wemem.models.outputs import refuse_squashed
from wemem.pipeline.parties import Parties, read_score_file
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.victim import is_onnx, read_victim
from wemem.signals import refuse_probabilities
from wemem.study.possible_split import possible_split
from wemem.tuning.search import proposer

#: The number of records on which the outputs of a model are checked before anything is trained.
PROBED = 64


def require_feasible_study(pipeline: Pipeline) -> None:
    """Refuse a study that would fail after training, for any of its seeds.

    Raises:
        InputError: a check of :func:`require_known_start` or :func:`auditable_parties` fails.
    """
    config, data = pipeline.workspace.config, pipeline.workspace.data
    require_known_start(config)
    if config.victim is not None:
        victim, example = read_victim(config, data, lambda _: None)[0], torch.from_numpy(data.features[:2])
        for pruning in config.prunings:
            pruning.require_prunable(victim, example)
    for seed in config.seeds:
        auditable_parties(pipeline, seed)


def require_known_start(config: StudyConfig) -> None:
    """Refuse to prune a model whose weights are not available, or to rewind a model that the user
    provides.

    Raises:
        InputError: the victim is an ONNX file, or rewinding needs initial weights that are not
            known.
    """
    if is_onnx(config):
        raise InputError(
            "expected a model's weights (.safetensors) to prune, got an ONNX file; use wemem audit --onnx to attack it"
        )
    if config.victim is not None and config.pruning.rewind == "initial":
        raise InputError(
            "expected a model trained by the study for pruning.rewind = 'initial', got a given one, whose initial "
            "weights are not known; set pruning.rewind = 'none'"
        )


def auditable_parties(pipeline: Pipeline, seed: int) -> Parties:
    """The parties of one seed, once the victim and all models that attack it pass
    :func:`require_feasible`, and have enough records.

    Raises:
        TooFewRecordsError: the records do not suffice. The message ends with a split that is
            possible, if there is one.
        InputError: a check of :func:`require_feasible` fails, or a file of scores cannot be read.
    """
    try:
        parties = Parties.of(pipeline, seed)
        splits = drawn_splits(parties)
    except TooFewRecordsError as error:
        raise TooFewRecordsError(f"{error}. {possible_split(pipeline, seed, drawn_splits)}") from error
    require_feasible(parties, splits)
    return parties


def drawn_splits(parties: Parties) -> list[Split]:
    """Draw the records of all models of all parties, and return those of the victim, the shadows and
    the reference models.

    Raises:
        TooFewRecordsError: a model or its memorization scores have too few records, or there are
            too few reference models for some record of any arm. Thresholds leave one reference
            model out, and a leave-one-out audit leaves out a second one.
        InputError: a file of scores cannot be read.
    """
    config, splits = parties.config, [parties.split]
    if config.uses("shared"):
        splits.append(parties.reference_split)
        fewest = min(config.references_of(label) for label in config.labels)
        least = 3 if config.leave_one_out or config.canaries else 2
        if (planted := parties.with_canaries.planted if config.canaries else None) is not None:
            halves = parties.with_canaries.reference_split.select(range(fewest))
            require_covered(halves, planted.all_canaries, least)
        require_covered(parties.reference_split.select(range(fewest)), parties.plain_split.audited(0), least)
    if config.needs_scores:
        if config.scores.drawn_from == "pool":
            parties.pool_subsets()
        else:
            parties.shadow_subsets(1)  # the subsets of the other models have the same size
            for model in range(2 if config.scored_references else 0):
                parties.reference_subsets(model)
        if config.scores.file is None:
            parties.defender_subsets()
        else:
            scores = read_score_file(config.scores.file, parties.data).memorization.score
            train = parties.split.records(0, Role.TRAIN)
            TrainingRecords(train, parties.data.labels, scores, seed=0).scores_of(train)
    return splits


def require_feasible(parties: Parties, splits: Sequence[Split]) -> None:
    """Refuse, before any training, pruning or a defense that the model or its records do not allow.

    Raises:
        InputError: the model has no channels to prune, a defense does not work with the model or
            its records, there are too few records for teachers or reference models, or the library
            that a search needs is not installed.
    """
    _require_prunable(parties)
    require_logits(parties.pipeline)
    if parties.config.searches:
        proposer()
    for defense in parties.config.every_defense:
        _require_fitting(parties, defense, splits)
    distillations = dict.fromkeys(defense.capability(Distillation) for defense in parties.config.every_defense)
    for distillation, split in product(distillations, splits):
        if distillation is not None and isinstance(distillation.source, Teachers):
            some = _of_each_size(split)
            held_out(some, distillation.source, range(some.num_models), parties.data.features, parties.data.table)


def require_logits(pipeline: Pipeline) -> None:
    """Refuse a model whose outputs are no logits, before it is trained."""
    blank, features = pipeline.workspace.untrained([0]), pipeline.workspace.data.features
    refuse_probabilities(blank.logits(features[:PROBED])[0], "the model")
    refuse_squashed(blank.module(0), torch.from_numpy(features[:2]))


def _of_each_size(split: Split) -> Split:
    """The first model of each number of train records by class.

    To divide the records of many models takes long. Of two models of one size both have enough
    records, unless one of them has many copies; the stage that divides its records refuses it then.
    """
    sizes = [np.bincount(split.labels[split.records(k, Role.TRAIN)]).tobytes() for k in range(split.num_models)]
    return Split(split.roles[[sizes.index(size) for size in dict.fromkeys(sizes)]], split.labels, split.layout)


def _require_prunable(parties: Parties) -> None:
    """Refuse a model that the study's method cannot prune to its sparsities."""
    settings = parties.config.pruning
    pruning = settings.to(max(settings.sparsities), parties.config.finetune)
    pruning.require_prunable(parties.pipeline.workspace.untrained([0]), torch.from_numpy(parties.data.features[:2]))


def _require_fitting(parties: Parties, defense: Defense, splits: Sequence[Split]) -> None:
    """Refuse a defense that cannot train the model, or cannot plan an epoch on the records of one
    of the models.
    """
    for pruning in parties.config.prunings:
        pruning.require_compatible(defense)
    if (reason := defense.incompatibility_reason(parties.pipeline.workspace.untrained([0]).template)) is not None:
        raise InputError(reason)
    labels = parties.data.labels
    for split in splits:
        for k in range(split.num_models):
            train = split.records(k, Role.TRAIN)
            defense.plan(0, (Group(train),), TrainingRecords(train, labels, np.zeros(len(labels)), seed=0))
