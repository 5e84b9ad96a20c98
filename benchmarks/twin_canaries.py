"""Leakage of out-of-sample distillation on pairs of identical records of which one is mislabelled.

    python benchmarks/twin_canaries.py --store DIR [--source digits] [--epochs 40] [--models 16] [--pairs 60]

Aerni, Zhang & Tramèr (CCS 2024) broke SELENA with such pairs: the mislabelled twin is held out from
its own teachers, but not from those of the original, and reaches the model through them. Every model
is trained on all originals, and a random half of the models on each twin, without pruning. LiRA
(means of the logit confidence of models with and without the twin, one variance) attacks each model
with the help of the others. Rows: no defense; ``oosd``, which holds copies out together whatever their labels;
and ``oosd`` with clusters within the classes alone. WEMEM_DATA names the data.
"""

import argparse
from pathlib import Path

import numpy as np

import wemem.data.teachers
from wemem import parse_study
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.defenses import OutOfSampleDistillation, Undefended
from wemem.metrics.rates import auc, true_positive_rate
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.randomness import generator
from wemem.signals import logit_confidence
from wemem.store.store import Store
from wemem.training import fit

#: Largest number of training records of a model, without the pairs.
MOST = 1500

#: Networks as teachers and no discount, as when the table was made.
NETWORKS = OutOfSampleDistillation(10, 3, 5, views=3, swap=0.1, components=0, discount=0.0)


def planted(source, pairs, models, seed):
    """Records with mislabelled twins at the end, each of which a random half of the models is trained on."""
    data = parse_study({"data": {"source": source}}).data.load()
    rng = generator(seed, "twin canaries")
    originals = rng.choice(len(data), pairs, replace=False)
    labels = (data.labels[originals] + rng.integers(1, data.classes, pairs)) % data.classes
    features = np.concatenate([data.features, data.features[originals]])
    whole = Dataset.from_arrays("twins", features, np.concatenate([data.labels, labels]))
    others = np.setdiff1d(np.arange(len(data)), originals)
    dev = rng.permutation(others)[: len(data) // 10]
    roles = np.full((models, len(whole)), Role.AUDIT, np.int8)
    for row in roles:
        row[rng.permutation(np.setdiff1d(others, dev))[: min(len(data) // 2, MOST)]] = Role.TRAIN
        row[originals], row[dev] = Role.TRAIN, Role.DEV
    for twin in range(len(data), len(whole)):
        roles[rng.permutation(models)[: models // 2], twin] = Role.TRAIN
    return whole, Split(roles, whole.labels, "subsets"), np.arange(len(data), len(whole))


def lira(confidence, member):
    """Likelihood ratio of each model's confidence in each twin, by the other models; one variance."""
    scores = np.empty_like(confidence)
    for k in range(len(confidence)):
        rest = np.arange(len(confidence)) != k
        inside, outside = (
            np.nanmean(np.where(side, confidence[rest], np.nan), 0) for side in (member[rest], ~member[rest])
        )
        residual = np.where(member[rest], confidence[rest] - inside, confidence[rest] - outside)
        scores[k] = ((confidence[k] - outside) ** 2 - (confidence[k] - inside) ** 2) / (2 * residual.var())
    return scores


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--source", default="digits")
    parser.add_argument("--epochs", type=int, default=40, help="without decay or early stopping; 0: the default recipe")
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, split, twins = planted(arguments.source, arguments.pairs, arguments.models, arguments.seed)
    seeds, member = list(range(arguments.models)), split.roles[:, twins] == Role.TRAIN
    overfit = {"epochs": arguments.epochs, "patience": arguments.epochs, "weight_decay": 0.0, "keep": "last"}
    config = parse_study({
        "data": {"source": arguments.source},
        "model": {"kind": "fc", "hidden": [256], "dropout": 0.0},
        "training": overfit if arguments.epochs else {},
    })  # fmt: skip
    together = wemem.data.teachers.keep_copies_together
    rows = [
        ("undefended", Undefended(), together),
        ("copies together", NETWORKS, together),
        ("within classes", NETWORKS, lambda features, parts, groups: list(parts)),
    ]
    for name, defense, keep in rows:
        wemem.data.teachers.keep_copies_together = keep
        pipeline = Pipeline.open(config, data, Store(arguments.store / name.replace(" ", "_")), Silent())
        blank = pipeline.workspace.untrained(seeds)
        targets = None
        if defense != Undefended():
            dense = pipeline.trainer.train("none", split.select([0]), seeds[:1])
            targets = pipeline.teacher.teach("teachers", dense, split, seeds, defense).log_probabilities
        fitted = fit(
            blank, data, split, config.training, seeds=seeds, defense=defense, teacher_log_probs=targets
        ).ensemble
        confidence = logit_confidence(fitted.logits(data.features[twins]), data.labels[twins])
        scores = lira(confidence, member)
        gap = np.nanmean(np.where(member, confidence, np.nan), 0) - np.nanmean(np.where(member, np.nan, confidence), 0)
        inside, outside = scores[member], scores[~member]
        unseen = [split.records(k, Role.AUDIT) for k in seeds]
        logits = fitted.logits(data.features)
        unseen = [own[own < twins[0]] for own in unseen]
        right = [(logits[k, own].argmax(1) == data.labels[own]).mean() for k, own in enumerate(unseen)]
        tpr = true_positive_rate(inside, outside, 0.01)
        print(
            f"{name}: test accuracy {100 * np.mean(right):.1f} %, LiRA on twins: "
            f"{gap.mean():+.2f} logits, AUC {100 * auc(inside, outside):.1f} %, "
            f"TPR at 1 % FPR {100 * tpr:.1f} % of {len(inside)} members",
            flush=True,
        )


if __name__ == "__main__":
    main()
