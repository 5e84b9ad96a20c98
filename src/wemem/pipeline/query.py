"""From trained models to :class:`~wemem.signals.Signals`: everything that the adversary of each
layout sees.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wemem.attacks.base import Attack
from wemem.data.split import Split
from wemem.defenses import Defense
from wemem.pipeline.artifacts import Answers, CollectedSignals, TrainedModels
from wemem.pipeline.matching import sized, sized_victim
from wemem.pipeline.parties import Parties
from wemem.pipeline.patterns import joined_masks
from wemem.pipeline.stage import Derived, Stage
from wemem.pipeline.trainer import chunks
from wemem.pipeline.victim import selected
from wemem.randomness import derive_seed
from wemem.signals import MASKS, SignalLayout, Signals, logit_confidence
from wemem.store.keys import DisjointSignalsKey, SharedSignalsKey

#: Models as they were released: the unpruned ones and those after each stored round if an attack
#: reads several releases, the last alone otherwise. The last ones are attacked.
Releases = Sequence[Stage[TrainedModels]]


def required_signals(attacks: Mapping[str, Attack], layout: SignalLayout) -> frozenset[str]:
    """The extra signals that the attacks of a layout read."""
    return frozenset().union(*(attack.required_signals for attack in attacks.values() if attack.layout == layout))


def mirrors(parties: Parties) -> bool:
    """True if models were trained on mirrored images, so that mirrored queries reveal more."""
    return len(parties.data.input_shape) == 3 and parties.config.finetune.augment != "none"


def disjoint_signals(
    parties: Parties, label: str, rounds: Sequence[Stage[TrainedModels]], attacks: Mapping[str, Attack],
    defense: Defense | None = None,
) -> Stage[CollectedSignals]:  # fmt: skip
    """The outputs of the victim and its shadows on every record that one of them uses.

    Args:
        parties: the seed of the study.
        label: the label of the arm, for the progress display.
        rounds: the models after each stored round, of which the last ones are attacked.
        attacks: the attacks that read the signals.
        defense: the defense under which the models answer; None for an adversary who holds their
            weights.
    """
    split, plan = parties.evaluation_split, parties.pipeline.querier.plan
    records = np.flatnonzero((split.roles != 0).any(axis=0))
    wanted, seed = required_signals(attacks, "disjoint"), derive_seed(parties.seed, "queries")
    title = parties.title(f"query {label}")
    last = plan(title, rounds[-1], split.num_models, records, wanted, seed=seed, defense=defense)
    dense, seen = list[Stage[Answers]](), list[Stage[Answers]]()
    if "dense" in wanted:
        title = parties.title("query dense")
        dense = [plan(title, parties.dense(), split.num_models, records, frozenset(), seed=seed)]
    if "trajectory" in wanted:
        seen = _query_rounds(parties, label, rounds, records, defense)

    def collect() -> CollectedSignals:
        answers, before, trajectory = last.read(), [one.read() for one in dense], [one.read() for one in seen]
        extras = {name: np.array(array) for name, array in answers.arrays.items() if name != "logits"}
        if before:
            extras["dense"] = before[0].arrays["logits"]
        if trajectory:
            extras["trajectory"] = np.stack([one.arrays["logits"] for one in trajectory], axis=2)
        recipes = rounds[-1].read().provenance
        signals = Signals(
            answers.arrays["logits"], parties.data.labels[records], split.roles[:, records], records, "disjoint",
            (sized_victim(parties, recipes[0]), *sized(parties, recipes, parties.split)[1:]), extras,
        )  # fmt: skip
        return CollectedSignals(key, signals, sum(one.seconds for one in (answers, *before, *trajectory)))

    parts = (last, *dense, *seen)
    key = DisjointSignalsKey(tuple(part.key for part in parts), split.fingerprint).key()
    return Derived(key, (*parts, rounds[-1]), collect, keep=True)


def _query_rounds(
    parties: Parties, label: str, rounds: Sequence[Stage[TrainedModels]], records: np.ndarray, defense: Defense | None
) -> list[Stage[Answers]]:
    """The outputs of the models after every round; the last round has turn 0, under which it was
    queried already.
    """
    plan, count = parties.pipeline.querier.plan, parties.split.num_models
    seed = derive_seed(parties.seed, "queries")
    titles = [parties.title(f"query round {r + 1} of {label}") for r in range(len(rounds))]
    return [
        plan(title, models, count, records, frozenset(), seed=seed, defense=defense, turn=turn)
        for turn, title, models in zip(reversed(range(len(rounds))), titles, rounds, strict=True)
    ]


def shared_signals(
    parties: Parties, label: str, victim: Releases, references: Sequence[Releases], count: int,
    attacks: Mapping[str, Attack], defense: Defense | None = None,
) -> Stage[CollectedSignals]:  # fmt: skip
    """The outputs of the victim and the reference models on the audited records and the population.

    Args:
        parties: the seed of the study.
        label: the label of the arm, for the progress display.
        victim: the releases of the attacked models; model 0 is the victim.
        references: the releases of the reference models, chunk by chunk.
        count: the number of reference models.
        attacks: the attacks that read the signals.
        defense: the defense under which the models answer; None for an adversary who holds their
            weights.
    """
    split = parties.evaluation_split
    records = np.sort(np.concatenate([split.audited(0), parties.population]))
    halves = parties.reference_split.select(range(count))
    sides = (
        _Side(
            split.select([0]),
            [[_alone(parties, models) for models in victim]],
            lambda: (sized_victim(parties, victim[-1].read().provenance[0]),),
        ),
        _Side(halves, references, lambda: sized(parties, _recipes(references), halves)),
    )
    return _query_sides(parties, f"{label} and its references", records, sides, attacks, defense)


def canary_signals(
    parties: Parties, label: str, victim: Releases | None, references: Sequence[Releases], count: int,
    attacks: Mapping[str, Attack], defense: Defense | None = None,
) -> Stage[CollectedSignals]:  # fmt: skip
    """The outputs of models on the canaries of the study and the population.

    Args:
        parties: the seed of the study with its canaries.
        label: the label of the arm, for the progress display.
        victim: the releases of the attacked models, of which model 0 is the victim; None if the
            victim was trained without canaries.
        references: the releases of the reference models, trained with canaries, chunk by chunk.
        count: the number of reference models.
        attacks: the attacks that read the signals.
        defense: as in :func:`shared_signals`.
    """
    assert parties.planted is not None  # only such parties have reference models with canaries
    records = np.sort(np.concatenate([parties.planted.all_canaries, parties.population]))
    halves = parties.reference_split.select(range(count))
    sides = [_Side(halves, references, lambda: _recipes(references))]
    if victim is not None:
        alone = [_alone(parties, models) for models in victim]
        sides.insert(0, _Side(parties.split.select([0]), [alone], lambda: (victim[-1].read().provenance[0],)))
    return _query_sides(parties, f"{label} on canaries", records, sides, attacks, defense)


def _alone(parties: Parties, victim: Stage[TrainedModels]) -> Stage[TrainedModels]:
    """The victim without its shadows, which attacks by reference models do not query."""
    return selected(victim, [0], parties.split.num_models)


@dataclass(frozen=True, eq=False)
class _Side:
    """Some models that are queried together.

    Args:
        split: the roles of the models.
        chunks: the releases of the models, chunk by chunk.
        provenance: gives the fingerprints of the models.
    """

    split: Split
    chunks: Sequence[Releases]
    provenance: Callable[[], tuple[str, ...]]


def _recipes(references: Sequence[Releases]) -> tuple[str, ...]:
    """The recipe fingerprints of reference models, read chunk by chunk."""
    return tuple(recipe for releases in references for recipe in releases[-1].read().provenance)


def _query_sides(
    parties: Parties, title: str, records: np.ndarray, sides: Sequence[_Side], attacks: Mapping[str, Attack],
    defense: Defense | None,
) -> Stage[CollectedSignals]:  # fmt: skip
    """The outputs of the models of all sides on the same records, for attacks by reference models."""
    required, seed = required_signals(attacks, "shared"), derive_seed(parties.seed, "queries")
    wanted = required - {MASKS, "releases"}
    if mirrors(parties) and any("queries" in attack.optional_signals for attack in attacks.values()):
        wanted |= {"queries"}
    if len(parties.data.input_shape) == 1 and any("copies" in attack.optional_signals for attack in attacks.values()):
        wanted |= {"copies"}
    every = [releases for side in sides for releases in side.chunks]
    stages = [releases[-1] for releases in every]
    counts = [len(chunk) for side in sides for chunk in chunks(side.split.num_models)]
    parts = [
        parties.pipeline.querier.plan(
            parties.title(f"query {title}, part {turn + 1} of {len(stages)}"), models, count, records, wanted,
            seed=seed, defense=defense, turn=turn,
        )
        for turn, (models, count) in enumerate(zip(stages, counts, strict=True))
    ]  # fmt: skip
    earlier = _query_earlier(parties, title, records, every, counts, defense) if "releases" in required else []

    def collect() -> CollectedSignals:
        answers = [part.read() for part in parts]
        # an ONNX file is queried with its shadows, which are left out
        places = [slice(0, side.split.num_models) for side in sides for _ in side.chunks]
        arrays = {
            name: np.concatenate([one.arrays[name][models] for one, models in zip(answers, places, strict=True)])
            for name in answers[0].arrays
        }
        if "releases" in required:
            each = [[one.read() for one in (*before, part)] for before, part in zip(earlier, parts, strict=True)]
            confidences = [_confidences(one, parties.data.labels[records]) for one in each]
            arrays["releases"] = np.concatenate([one[models] for one, models in zip(confidences, places, strict=True)])
        masks = None
        if MASKS in required:
            masks = joined_masks([(one.read().ensemble, place.stop) for one, place in zip(stages, places, strict=True)])
        roles = np.concatenate([side.split.roles[:, records] for side in sides])
        provenance = tuple(recipe for side in sides for recipe in side.provenance())
        signals = Signals(
            arrays.pop("logits"), parties.data.labels[records], roles, records, "shared", provenance, arrays, masks
        )  # fmt: skip
        return CollectedSignals(key, signals, sum(one.read().seconds for one in queries))

    queries = (*parts, *(one for before in earlier for one in before))
    key = SharedSignalsKey(tuple(one.key for one in queries), tuple(side.split.fingerprint for side in sides)).key()
    return Derived(key, (*queries, *stages), collect, keep=True)


def _query_earlier(
    parties: Parties, title: str, records: np.ndarray, every: Sequence[Releases], counts: Sequence[int],
    defense: Defense | None,
) -> list[list[Stage[Answers]]]:  # fmt: skip
    """The outputs of all releases of some models but the last, chunk by chunk.

    Unpruned models, which come first, answer without the defense.
    """
    plan, seed = parties.pipeline.querier.plan, derive_seed(parties.seed, "queries")
    return [
        [
            plan(
                parties.title(f"query release {r + 1} of {title}, part {i + 1} of {len(every)}"), models, count,
                records, frozenset(), seed=seed, defense=defense if r else None, turn=(r + 1) * len(every) + i,
            )
            for r, models in enumerate(releases[:-1])
        ]
        for i, (releases, count) in enumerate(zip(every, counts, strict=True))
    ]  # fmt: skip


def _confidences(releases: Sequence[Answers], labels: np.ndarray) -> Float32[np.ndarray, "K N R"]:
    """The logit confidence of each release of some models."""
    each = [logit_confidence(answers.arrays["logits"], labels) for answers in releases]
    return np.stack(each, axis=2).astype(np.float32)
