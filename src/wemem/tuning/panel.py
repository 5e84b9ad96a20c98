"""Models on which a defender tries settings, from its own records alone.

The victim stands first; behind it are models that the defender trains on random subsets of the victim's train records
and of some held-out records of its own. They are what references are to an adversary: some saw a record, some did not,
and each is attacked in turn by the others. Nobody else's records and no model of the study's adversary are in it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from wemem.attacks.base import Attack
from wemem.attacks.lira import Lira
from wemem.attacks.rmia import Rmia
from wemem.audit.leave_one_out import leave_one_out
from wemem.data.split import Role, Split, subsets
from wemem.defenses import Defense
from wemem.metrics.rates import auc, true_positive_rate
from wemem.pipeline.artifacts import Scores, Stage
from wemem.pipeline.cost import CHUNK, whole_chunks
from wemem.pipeline.parties import Parties
from wemem.pipeline.stages import Stages
from wemem.pruning import Pruning
from wemem.signals import UNKNOWN, Signals
from wemem.store.key import Key
from wemem.store.keys import FiguresKey, PanelKey, PanelPartKey
from wemem.store.shared_work import SharedWork
from wemem.training import Ensemble, accuracy
from wemem.tuning.objectives import Figures, PerModel

#: The attacks by reference models of a full audit, beside the confidence that needs none. Nothing of them is tuned:
#: that would take one more reference model on each side of every record.
IN_TURN: tuple[Attack, ...] = (Lira(variance="global"), Rmia(gamma=1.0))
#: Models that must have seen a record, and that must not have, so that any model may be the target.
SIDE = 2


@dataclass(frozen=True, eq=False)
class Panel:
    """The victim, if there are held-out records to judge it by, and the defender's other models.

    Args:
        key: of all that made them.
        split: roles (K, N); what a model was not trained on, of the records in use, it is judged by.
        dense: the unpruned models.
        seeds: one per model.
        scores: each model's memorization scores.
        seconds: that training took.
    """

    key: Key
    split: Split
    dense: Stage
    seeds: list[int]
    scores: list[Scores | None]
    seconds: float

    def __len__(self) -> int:
        return self.split.num_models


def panel_of(parties: Parties, dense: Stage, held: Int64[np.ndarray, " h"], purpose: str, count: int) -> Panel:
    """A panel on the victim's train records and some of its held-out ones.

    Args:
        parties: the seed of a study; the victim is member 0 of its split.
        dense: the unpruned victim, first of its ensemble.
        held: records the victim was not trained on; without any it is not in the panel.
        purpose: what the panel is for; another purpose has other models.
        count: of models beside the victim.
    """
    stages, train, dev = parties.stages, parties.split.records(0, Role.TRAIN), parties.split.records(0, Role.DEV)
    pool, settings = np.union1d(train, held), parties.config.scores
    models = max(count, settings.models)
    split = subsets(
        parties.data.labels, pool, round(settings.fraction * len(pool)), models, seed=parties.seed,
        purpose=f"auto/{purpose}", dev=dev,
    )  # fmt: skip
    seeds = parties.seeds(f"auto/{purpose}", models)
    trained = stages.train_in_chunks(parties.title(f"models to {purpose} with"), split, seeds)
    scores = stages.score(parties.title(f"scores to {purpose} with"), split, trained)
    first = trained[: whole_chunks(count) // CHUNK]
    others = Ensemble.concatenate([stage.ensemble for stage in first]).select(range(count))
    own = PanelKey(dense.key if len(held) else None, tuple(s.key for s in first), scores.key, count).key()
    if not len(held):
        joined = Stage(own, others, {})
        return Panel(own, split.select(range(count)), joined, seeds[:count], [scores] * count, scores.seconds)
    victim = np.zeros(len(parties.data), np.int8)
    for role, records in ((Role.AUDIT, held), (Role.TRAIN, train), (Role.DEV, dev)):
        victim[records] = role
    roles = np.concatenate([victim[None], split.roles[:count]])
    victim_alone = replace(dense.ensemble.select([0]), masks={}, channels={})
    joined = Stage(own, Ensemble.concatenate([victim_alone, others]), {})
    return Panel(
        own, Split(roles, parties.data.labels, "subsets"), joined, [parties.member_seeds[0], *seeds[:count]],
        [parties.defender_scores, *[scores] * count], scores.seconds,
    )  # fmt: skip


def measure(
    stages: Stages, panel: Panel, defense: Defense, pruning: Pruning, *, title: str, models: int,
    attacks: Sequence[Attack], fpr: float, seed: int,
) -> Figures:  # fmt: skip
    """Prune the first models of a panel under a defense and see what they keep and leak; stored, but not the weights.

    Args:
        stages: compute and keep.
        panel: the models.
        defense: to try.
        pruning: schedule and recipe.
        title: for the progress display.
        models: how many of the panel, the first ones.
        attacks: by reference models, each model attacked in turn; the confidence is always looked at.
        fpr: for the true positive rates.
        seed: for attacks.
    """
    split = panel.split.select(range(models))
    own = FiguresKey(
        panel.key, models, pruning, defense, stages.config.training,
        stages.ensemble_inputs(split, panel.seeds[:models]), tuple(attacks), fpr, seed,
    ).key()  # fmt: skip
    # held by one process at a time: the weights go once the figures are there, and no other may be waiting for them
    work = SharedWork(stages.store, own, 1)
    for number in work.claims():
        start = time.perf_counter()
        part = Stage(PanelPartKey(panel.key, models).key(), panel.dense.ensemble.select(range(models)), {})
        scores = panel.scores[:models] if defense.needs_scores else [None] * models
        pruned = stages.prune(title, part, split, pruning, defense, seeds=panel.seeds[:models], scores=scores)[-1]
        arrays = _figures(pruned.ensemble, stages, split, attacks, fpr, seed)
        stages.store.put(work.key(number), arrays, {"seconds": time.perf_counter() - start})
        stages.store.delete(pruned.key)
    entry = work.done()[0]
    found = {name: np.array(array) for name, array in entry.arrays.items()}
    by_attack = {
        what: {name.removeprefix(f"{what}/"): array for name, array in found.items() if name.startswith(f"{what}/")}
        for what in ("auc", "tpr")
    }
    return Figures(found["accuracy"], by_attack["auc"], by_attack["tpr"], float(entry.meta["seconds"]))


def _figures(
    ensemble: Ensemble, stages: Stages, split: Split, attacks: Sequence[Attack], fpr: float, seed: int
) -> dict[str, PerModel]:
    data, rows = stages.data, split.audited(0)
    signals = Signals(
        ensemble.logits(data.features[rows], device=stages.device), data.labels[rows], split.roles[:, rows], rows,
        "shared", (UNKNOWN,) * split.num_models,
    )  # fmt: skip
    member = signals.roles == Role.TRAIN
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {
        "confidence": [(s[m], s[~m]) for s, m in zip(signals.logit_confidence, member, strict=True)]
    }
    # a record takes part where reference models of both kinds are left whoever is the target
    kept = (member.sum(0) >= SIDE) & ((~member).sum(0) >= SIDE)
    if attacks and (member[:, kept].any(1) & (~member[:, kept]).any(1)).all():
        some = replace(
            signals, logits=signals.logits[:, kept], labels=signals.labels[kept], roles=signals.roles[:, kept],
            records=rows[kept],
        )  # fmt: skip
        for name, result in leave_one_out(some, {attack.name: attack for attack in attacks}, seed=seed).items():
            found[name] = [(s[m], s[~m]) for s, m in zip(result.scores, result.membership, strict=True)]
    return {
        "accuracy": np.array(
            [accuracy(z[~m], signals.labels[~m]) for z, m in zip(signals.logits, member, strict=True)], np.float64
        ),
        **{f"auc/{name}": np.array([auc(*pair) for pair in pairs]) for name, pairs in found.items()},
        **{
            f"tpr/{name}": np.array([true_positive_rate(*pair, fpr) for pair in pairs]) for name, pairs in found.items()
        },
    }
