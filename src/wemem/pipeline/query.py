"""From trained models to :class:`~wemem.signals.Signals`: everything that the adversary of each
layout sees.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from wemem.attacks.base import Attack
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
    wanted, seed = required_signals(attacks, "shared"), derive_seed(parties.seed, "queries")
    if mirrors(parties) and any("queries" in attack.optional_signals for attack in attacks.values()):
        wanted |= {"queries"}
    title = parties.title(f"query {label} and its references")
    parts = [
        parties.pipeline.querier.query(title, models, records, wanted, seed=seed, defense=defense, turn=turn)
        for turn, models in enumerate((victim, *references))
    ]
    kept = [slice(0, 1), *[slice(None)] * len(references)]
    arrays = {
        name: np.concatenate([part.arrays[name][models] for part, models in zip(parts, kept, strict=True)])
        for name in parts[0].arrays
    }
    halves = parties.reference_split.select(range(sum(len(models.ensemble) for models in references)))
    roles = np.concatenate([split.roles[:1, records], halves.roles[:, records]])
    recipes = [recipe for models in references for recipe in models.provenance]
    provenance = (sized_victim(parties, victim.provenance[0]), *sized(parties, recipes, halves))
    signals = Signals(
        arrays.pop("logits"), parties.data.labels[records], roles, records, "shared", provenance, arrays
    )  # fmt: skip
    key = SharedSignalsKey(tuple(part.key for part in parts), (split.fingerprint, halves.fingerprint)).key()
    return CollectedSignals(key, signals, sum(part.seconds for part in parts))
