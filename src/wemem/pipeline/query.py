"""From trained models to :class:`~wemem.signals.Signals`: everything that the adversary of each
layout sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wemem.attacks.base import Attack
from wemem.data.split import Split
from wemem.defenses import Defense
from wemem.pipeline.artifacts import Answers, CollectedSignals, TrainedModels
from wemem.pipeline.matching import sized, sized_victim
from wemem.pipeline.parties import Parties
from wemem.randomness import derive_seed
from wemem.signals import SignalLayout, Signals
from wemem.store.keys import DisjointSignalsKey, SharedSignalsKey


def required_signals(attacks: Mapping[str, Attack], layout: SignalLayout) -> frozenset[str]:
    """The extra signals that the attacks of a layout read."""
    return frozenset().union(*(attack.required_signals for attack in attacks.values() if attack.layout == layout))


def mirrors(parties: Parties) -> bool:
    """True if models were trained on mirrored images, so that mirrored queries reveal more."""
    return len(parties.data.input_shape) == 3 and parties.config.finetune.augment != "none"


def disjoint_signals(
    parties: Parties, label: str, rounds: Sequence[TrainedModels], attacks: Mapping[str, Attack],
    defense: Defense | None = None,
) -> CollectedSignals:  # fmt: skip
    """Query the victim and its shadows on every record that one of them uses.

    Args:
        parties: the seed of the study.
        label: the label of the arm, for the progress display.
        rounds: the models after each stored round, of which the last ones are attacked.
        attacks: the attacks that read the signals.
        defense: the defense under which the models answer; None for an adversary who holds their
            weights.
    """
    split, query = parties.evaluation_split, parties.pipeline.querier.query
    records = np.flatnonzero((split.roles != 0).any(axis=0))
    wanted, seed = required_signals(attacks, "disjoint"), derive_seed(parties.seed, "queries")
    last = query(parties.title(f"query {label}"), rounds[-1], records, wanted, seed=seed, defense=defense)
    parts, extras = [last], {name: np.array(array) for name, array in last.arrays.items() if name != "logits"}
    if "dense" in wanted:
        dense = query(parties.title("query dense"), parties.train_dense(), records, frozenset(), seed=seed)
        parts.append(dense)
        extras["dense"] = dense.arrays["logits"]
    if "trajectory" in wanted:
        seen = _query_rounds(parties, label, rounds, records, defense)
        parts += seen
        extras["trajectory"] = np.stack([answers.arrays["logits"] for answers in seen], axis=2)
    recipes = rounds[-1].provenance
    signals = Signals(
        last.arrays["logits"], parties.data.labels[records], split.roles[:, records], records, "disjoint",
        (sized_victim(parties, recipes[0]), *sized(parties, recipes, parties.split)[1:]), extras,
    )  # fmt: skip
    key = DisjointSignalsKey(tuple(part.key for part in parts), split.fingerprint).key()
    return CollectedSignals(key, signals, sum(part.seconds for part in parts))


def _query_rounds(
    parties: Parties, label: str, rounds: Sequence[TrainedModels], records: np.ndarray, defense: Defense | None
) -> list[Answers]:
    """Query the models after every round; the last round has turn 0, under which it was queried
    already.
    """
    seed, title = derive_seed(parties.seed, "queries"), parties.title(f"query the rounds of {label}")
    return [
        parties.pipeline.querier.query(title, models, records, frozenset(), seed=seed, defense=defense, turn=turn)
        for turn, models in zip(reversed(range(len(rounds))), rounds, strict=True)
    ]


def shared_signals(
    parties: Parties, label: str, victim: TrainedModels, references: Sequence[TrainedModels],
    attacks: Mapping[str, Attack], defense: Defense | None = None,
) -> CollectedSignals:  # fmt: skip
    """Query the victim and the reference models on the audited records and the population.

    Args:
        parties: the seed of the study.
        label: the label of the arm, for the progress display.
        victim: the attacked models; model 0 is the victim.
        references: the reference models, chunk by chunk.
        attacks: the attacks that read the signals.
        defense: the defense under which the models answer; None for an adversary who holds their
            weights.
    """
    split = parties.evaluation_split
    records = np.sort(np.concatenate([split.audited(0), parties.population]))
    title = parties.title(f"query {label} and its references")
    halves = parties.reference_split.select(range(sum(len(models.ensemble) for models in references)))
    recipes = [recipe for models in references for recipe in models.provenance]
    victims = _Side(split.select([0]), [victim], (sized_victim(parties, victim.provenance[0]),))
    return _query_sides(
        parties, title, records, (victims, _Side(halves, references, sized(parties, recipes, halves))), attacks, defense
    )


def canary_signals(
    parties: Parties, label: str, victim: TrainedModels | None, references: Sequence[TrainedModels],
    attacks: Mapping[str, Attack], defense: Defense | None = None,
) -> CollectedSignals:  # fmt: skip
    """Query models on the canaries of the study and the population.

    Args:
        parties: the seed of the study with its canaries.
        label: the label of the arm, for the progress display.
        victim: the attacked models, of which model 0 is the victim; None if the victim was trained
            without canaries.
        references: the reference models, trained with canaries, chunk by chunk.
        attacks: the attacks that read the signals.
        defense: as in :func:`shared_signals`.
    """
    assert parties.planted is not None  # only such parties have reference models with canaries
    records = np.sort(np.concatenate([parties.planted.all_canaries, parties.population]))
    halves = parties.reference_split.select(range(sum(len(models.ensemble) for models in references)))
    recipes = tuple(recipe for models in references for recipe in models.provenance)
    sides = [_Side(halves, references, recipes)]
    if victim is not None:
        sides.insert(0, _Side(parties.split.select([0]), [victim], (victim.provenance[0],)))
    return _query_sides(parties, parties.title(f"query {label} on canaries"), records, sides, attacks, defense)


@dataclass(frozen=True, eq=False)
class _Side:
    """Some models that are queried together.

    Args:
        split: the roles of the models.
        stages: the models, as many of each stage as the split has rows.
        provenance: the fingerprints of the models.
    """

    split: Split
    stages: Sequence[TrainedModels]
    provenance: tuple[str, ...]


def _query_sides(
    parties: Parties, title: str, records: np.ndarray, sides: Sequence[_Side], attacks: Mapping[str, Attack],
    defense: Defense | None,
) -> CollectedSignals:  # fmt: skip
    """Query the models of all sides on the same records, for attacks by reference models."""
    wanted, seed = required_signals(attacks, "shared"), derive_seed(parties.seed, "queries")
    if mirrors(parties) and any("queries" in attack.optional_signals for attack in attacks.values()):
        wanted |= {"queries"}
    stages = [stage for side in sides for stage in side.stages]
    parts = [
        parties.pipeline.querier.query(title, models, records, wanted, seed=seed, defense=defense, turn=turn)
        for turn, models in enumerate(stages)
    ]
    # of the victim's stage, the shadows are left out
    kept = [slice(0, side.split.num_models) for side in sides for _ in side.stages]
    arrays = {
        name: np.concatenate([part.arrays[name][models] for part, models in zip(parts, kept, strict=True)])
        for name in parts[0].arrays
    }
    roles = np.concatenate([side.split.roles[:, records] for side in sides])
    provenance = tuple(recipe for side in sides for recipe in side.provenance)
    signals = Signals(
        arrays.pop("logits"), parties.data.labels[records], roles, records, "shared", provenance, arrays
    )  # fmt: skip
    key = SharedSignalsKey(tuple(part.key for part in parts), tuple(side.split.fingerprint for side in sides)).key()
    return CollectedSignals(key, signals, sum(part.seconds for part in parts))
