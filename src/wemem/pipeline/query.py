"""From trained models to :class:`~wemem.signals.Signals`: what the adversary of each layout gets to see."""

from collections.abc import Mapping, Sequence

import numpy as np

from wemem.attacks.base import Attack
from wemem.defenses import Defense
from wemem.pipeline.artifacts import Stage
from wemem.pipeline.parties import Parties
from wemem.randomness import derive_seed
from wemem.signals import SignalLayout, Signals
from wemem.store.key import Key
from wemem.store.keys import DisjointSignalsKey, SharedSignalsKey


def required_signals(attacks: Mapping[str, Attack], layout: SignalLayout) -> frozenset[str]:
    """The extra signals that the attacks of a layout read."""
    return frozenset().union(*(attack.required_signals for attack in attacks.values() if attack.layout == layout))


def mirrors(parties: Parties) -> bool:
    """Whether the study's models were trained on mirrored images, so that asking about mirror images tells more."""
    return len(parties.data.input_shape) == 3 and parties.config.finetune.augment != "none"


def disjoint_signals(
    parties: Parties, label: str, rounds: Sequence[Stage], defense: Defense | None = None
) -> tuple[Key, Signals]:
    """The victim and its shadows, queried on every record that one of them uses, with the key of it.

    Args:
        parties: the study's seed.
        label: of what is attacked, for the progress display.
        rounds: the models after each stored round, the last ones being attacked.
        defense: under which they answer.
    """
    records = np.flatnonzero((parties.evaluation_split.roles != 0).any(axis=0))
    wanted = required_signals(parties.config.attacks, "disjoint")
    seed = derive_seed(parties.seed, "queries")
    own, found = parties.stages.query(
        parties.title(f"query {label}"), rounds[-1], records, wanted, seed=seed, defense=defense
    )
    keys, extras = [own], {name: np.array(array) for name, array in found.items() if name != "logits"}
    if "dense" in wanted:
        dense_key, dense = parties.stages.query(
            parties.title("query dense"), parties.dense, records, frozenset(), seed=seed
        )
        keys.append(dense_key)
        extras["dense"] = dense["logits"]
    if "trajectory" in wanted:
        title = parties.title(f"query the rounds of {label}")
        # turn 0, the last round's, is what was answered above
        seen = [
            parties.stages.query(title, stage, records, frozenset(), seed=seed, defense=defense, turn=turn)
            for turn, stage in zip(reversed(range(len(rounds))), rounds, strict=True)
        ]
        keys += [round_key for round_key, _ in seen]
        extras["trajectory"] = np.stack([arrays["logits"] for _, arrays in seen], axis=2)
    signals = Signals(
        found["logits"], parties.data.labels[records], parties.evaluation_split.roles[:, records], records, "disjoint",
        rounds[-1].provenance, extras,
    )  # fmt: skip
    return DisjointSignalsKey(tuple(keys), parties.evaluation_split.fingerprint).key(), signals


def shared_signals(
    parties: Parties, label: str, victim: Stage, references: Sequence[Stage], defense: Defense | None = None
) -> tuple[Key, Signals]:
    """The victim and the reference models, queried on the audited records and the population, with the key of it."""
    audited, population = parties.evaluation_split.audited(0), parties.population
    records = np.sort(np.concatenate([audited, population]))
    wanted, seed = required_signals(parties.config.attacks, "shared"), derive_seed(parties.seed, "queries")
    if mirrors(parties) and any("queries" in attack.optional_signals for attack in parties.config.attacks.values()):
        wanted |= {"queries"}
    title = parties.title(f"query {label} and its references")
    parts = [
        parties.stages.query(title, stage, records, wanted, seed=seed, defense=defense, turn=turn)
        for turn, stage in enumerate((victim, *references))
    ]
    kept = [slice(0, 1), *[slice(None)] * len(references)]
    arrays = {
        name: np.concatenate([found[name][part] for (_, found), part in zip(parts, kept, strict=True)])
        for name in parts[0][1]
    }
    halves = parties.reference_split.select(range(sum(len(stage.ensemble) for stage in references)))
    roles = np.concatenate([parties.evaluation_split.roles[:1, records], halves.roles[:, records]])
    provenance = (victim.provenance[0], *(made for stage in references for made in stage.provenance))
    signals = Signals(
        arrays.pop("logits"), parties.data.labels[records], roles, records, "shared", provenance, arrays
    )  # fmt: skip
    own = SharedSignalsKey(tuple(k for k, _ in parts), (parties.evaluation_split.fingerprint, halves.fingerprint))
    return own.key(), signals
