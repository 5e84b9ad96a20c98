"""Models on which a defender tries settings, made from its own records alone.

The victim stands first. Behind it are models that the defender trains on random subsets of the
victim's training records and of some records held out from it. They play the part of an adversary's
reference models: some were trained on a record, some were not, and each is attacked with the help
of the others (leave-one-out). No record and no model of the study's adversary is used.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int64

from wemem.attacks.base import Attack
from wemem.attacks.lira import Lira
from wemem.attacks.rmia import Rmia
from wemem.auditing.leave_one_out import leave_one_out
from wemem.data.split import Role, Split, subsets
from wemem.defenses import Defense
from wemem.metrics.rates import auc, true_positive_rate
from wemem.pipeline.artifacts import MemorizationScores, TrainedModels
from wemem.pipeline.cost import CHUNK, whole_chunks
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.victim import unmasked
from wemem.pruning import Pruning
from wemem.signals import UNKNOWN, Signals
from wemem.store.key import Key
from wemem.store.keys import FiguresKey, PanelKey
from wemem.store.shared_work import SharedWork
from wemem.training import Ensemble, accuracy
from wemem.tuning.objectives import Figures, PerModel

#: Attacks with reference models in a full audit, beside the confidence, which needs none. None of
#: their settings is tuned: that would take one more reference model on each side of every record.
REFERENCE_ATTACKS: tuple[Attack, ...] = (
    Lira(variance="global", centre="median"),
    Rmia(gamma=1.0, temperature=1.0),
)
#: Models that must have been trained on a record, and that must not have been, so that any model
#: may be the target.
SIDE = 2


@dataclass(frozen=True, eq=False)
class Panel:
    """The victim, if there are records held out from it, and the defender's other models.

    Args:
        key: key of everything that determines the models.
        split: roles (K, N); the records in use that a model was not trained on are its non-members.
        dense: the unpruned models.
        seeds: one seed per model.
        scores: memorization scores of each model.
        evaluated: records that accuracy and leakage are measured on, as far as they concern a
            model.
        seconds: wall time of the training.
    """

    key: Key
    split: Split
    dense: TrainedModels
    seeds: list[int]
    scores: list[MemorizationScores | None]
    evaluated: Int64[np.ndarray, " n"]
    seconds: float

    def __len__(self) -> int:
        return self.split.num_models


def panel_of(parties: Parties, dense: TrainedModels, held: Int64[np.ndarray, " h"], purpose: str, count: int) -> Panel:
    """Train a panel on the victim's training records and some records held out from it.

    Args:
        parties: the seed of a study; the victim is model 0 of its split.
        dense: the unpruned victim, first of its ensemble.
        held: records that the victim was not trained on; without any the victim is not in the
            panel.
        purpose: ``search`` or ``confirm``; panels of different purposes share no model but the
            victim.
        count: number of models beside the victim.
    """
    pipeline, train, dev = parties.pipeline, parties.split.records(0, Role.TRAIN), parties.split.records(0, Role.DEV)
    pool, settings = np.union1d(train, held), parties.config.scores
    models = max(count, settings.models)
    split = subsets(
        parties.data.labels, pool, round(settings.fraction * len(pool)), models, seed=parties.seed,
        purpose=f"auto/{purpose}", dev=dev,
    )  # fmt: skip
    seeds = parties.seeds(f"auto/{purpose}", models)
    trained = pipeline.trainer.train_in_chunks(parties.title(f"models to {purpose} with"), split, seeds)
    scores = pipeline.scorer.score(parties.title(f"scores to {purpose} with"), split, trained)
    first = trained[: whole_chunks(count) // CHUNK]
    others = Ensemble.concatenate([chunk.ensemble for chunk in first]).select(range(count))
    key = PanelKey(dense.key if len(held) else None, tuple(chunk.key for chunk in first), scores.key, count).key()
    if not len(held):
        joined = TrainedModels(key, others, {})
        return Panel(key, split.select(range(count)), joined, seeds[:count], [scores] * count, pool, scores.seconds)
    victim = np.zeros(len(parties.data), np.int8)
    for role, records in ((Role.AUDIT, held), (Role.TRAIN, train), (Role.DEV, dev)):
        victim[records] = role
    roles = np.concatenate([victim[None], split.roles[:count]])
    victim_alone = unmasked(dense.ensemble.select([0]))
    joined = TrainedModels(key, Ensemble.concatenate([victim_alone, others]), {})
    return Panel(
        key, Split(roles, parties.data.labels, "subsets"), joined, [parties.model_seeds[0], *seeds[:count]],
        [parties.defender_scores().result(), *[scores] * count], pool, scores.seconds,
    )  # fmt: skip


def restricted(panel: Panel, unused: Int64[np.ndarray, " u"], fpr: float) -> Panel:
    """Panel measured on records that a search has not used, if they are enough for the FPR.

    They are enough if every model but the victim, which was trained on none of them, has at least
    ``1 / fpr`` non-members and as many members among them. Otherwise the panel is returned as it
    is.

    Args:
        panel: the models.
        unused: records of the panel that the search has not used.
        fpr: false positive rate of the budget.
    """
    roles = panel.split.roles[:, unused]
    members, others = (roles == Role.TRAIN).sum(1), (roles == Role.AUDIT).sum(1)
    trained = members > 0
    enough = trained.any() and min(members[trained].min(), others[trained].min()) * fpr >= 1
    return replace(panel, evaluated=unused) if enough else panel


def measure(
    pipeline: Pipeline, panel: Panel, defense: Defense, pruning: Pruning, *, title: str, models: int,
    attacks: Sequence[Attack], fpr: float, seed: int,
) -> Figures:  # fmt: skip
    """Prune the first models of a panel under a defense, and measure accuracy and leakage.

    The figures are stored, the weights are not.

    Args:
        pipeline: computes and stores.
        panel: the models.
        defense: the defense to try.
        pruning: schedule and recipe.
        title: name in the progress display.
        models: number of models, the first ones of the panel.
        attacks: attacks with reference models; the confidence is measured in any case.
        fpr: false positive rate of the true positive rates.
        seed: seed of the attacks.
    """
    split = panel.split.select(range(models))
    key = FiguresKey(
        panel.key, models, pruning, defense, pipeline.workspace.config.training,
        pipeline.workspace.ensemble_inputs(split, panel.seeds[:models]), tuple(attacks), fpr, seed,
        tuple(panel.evaluated.tolist()),
    ).key()  # fmt: skip
    # one process at a time: the weights are deleted once the figures are stored, and no other may
    # wait for them
    work = SharedWork(pipeline.cache.store, key, 1)
    for number in work.claims():
        start = time.perf_counter()
        part = panel.dense.select(range(models))
        scores = panel.scores[:models] if defense.needs_scores else [None] * models
        seeds = panel.seeds[:models]
        pruned = pipeline.pruner.prune(title, part, split, pruning, defense, seeds=seeds, scores=scores)[-1]
        arrays = _figures(pruned.ensemble, pipeline, split, panel.evaluated, attacks, fpr, seed)
        pipeline.cache.store.put(work.key(number), arrays, {"seconds": time.perf_counter() - start})
        pipeline.cache.store.delete(pruned.key)
    entry = work.done()[0]
    stored = {name: np.array(array) for name, array in entry.arrays.items()}
    by_attack = {
        rate: {name.removeprefix(f"{rate}/"): array for name, array in stored.items() if name.startswith(f"{rate}/")}
        for rate in ("auc", "tpr")
    }
    return Figures(
        stored["accuracy"], by_attack["auc"], by_attack["tpr"], len(panel.evaluated), float(entry.meta["seconds"])
    )


def _figures(
    ensemble: Ensemble, pipeline: Pipeline, split: Split, evaluated: Int64[np.ndarray, " n"], attacks: Sequence[Attack],
    fpr: float, seed: int,
) -> dict[str, PerModel]:  # fmt: skip
    data, rows = pipeline.workspace.data, split.audited(0)
    logits = ensemble.logits(data.features[rows], device=pipeline.workspace.device)
    signals = Signals(
        logits, data.labels[rows], split.roles[:, rows], rows, "shared", (UNKNOWN,) * split.num_models
    )  # fmt: skip
    counted, member = np.isin(rows, evaluated), signals.roles == Role.TRAIN
    pairs = {"confidence": _members_and_others(signals.logit_confidence, member, counted)}
    # a record takes part where reference models of both kinds are left, whichever model is the
    # target
    kept = (member.sum(0) >= SIDE) & ((~member).sum(0) >= SIDE)
    if attacks and (member[:, kept].any(1) & (~member[:, kept]).any(1)).all():
        some = replace(
            signals, logits=signals.logits[:, kept], labels=signals.labels[kept], roles=signals.roles[:, kept],
            records=rows[kept],
        )  # fmt: skip
        for name, result in leave_one_out(some, {attack.name: attack for attack in attacks}, seed=seed).items():
            pairs[name] = _members_and_others(result.scores, result.membership, counted[kept])
    unseen = [counted & ~m for m in member]
    return {
        "accuracy": np.array(
            [accuracy(z[u], signals.labels[u]) for z, u in zip(signals.logits, unseen, strict=True)], np.float64
        ),
        **{f"auc/{name}": np.array([auc(*pair) for pair in own]) for name, own in pairs.items()},
        **{f"tpr/{name}": np.array([true_positive_rate(*pair, fpr) for pair in own]) for name, own in pairs.items()},
    }


def _members_and_others(
    scores: Float[np.ndarray, "K N"], member: Bool[np.ndarray, "K N"], counted: Bool[np.ndarray, " N"]
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Scores of members and of non-members among the counted records, for each model that has both."""
    return [(s[counted & m], s[counted & ~m]) for s, m in zip(scores, member, strict=True) if (counted & m).any()]
