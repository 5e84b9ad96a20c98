"""Variants of out-of-sample distillation, attacked leave-one-out, with mislabelled twins among the records.

    python -m benchmarks.oosd_variants --data DIR --out DIR [--device cuda] [--minutes 4] [--models 64]

Every variant trains the same models on the same records: random halves of one pool, as reference models of
a study are, pruned in the same rounds. LiRA and RMIA attack each model with the help of all others. The
twins are copies of records that every model trains on, with another label; each is a member of half of the
models. Results are appended to ``OUT/variants.jsonl`` as they come, in order of worth, until the minutes are
over. ``OUT/confidence.npz`` has the logit confidence of every model in the audited records and then the twins,
for a second analysis.

``gap`` is the mean difference of logit confidence between models with and without a record, in units of the
standard deviation over models without it, by tenths of the confidence of the latter, hardest first.
"""

import argparse
import json
import os
import sys
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.oosd_targets import Variant, answers, blank, load, one_level, planted, softened, train
from wemem.attacks import make_attack
from wemem.auditing.leave_one_out import leave_one_out
from wemem.data.split import Role, Split
from wemem.data.teachers import Teachers
from wemem.data.views import Views
from wemem.defenses import Distillation, OutOfSampleDistillation, Undefended
from wemem.metrics.rates import auc, true_positive_rate
from wemem.pruning import Pruning, Schedule, iterate
from wemem.randomness import derive_seed
from wemem.signals import Signals, logit_confidence
from wemem.training import FINETUNE

#: Population records for RMIA.
POPULATION = 500


@dataclass(frozen=True)
class FromTargets(OutOfSampleDistillation):
    """Learns targets that were made outside."""

    @property
    def capabilities(self):
        """Targets for each record and view."""
        views = Views(self.views, self.swap) if self.views else None
        return (Distillation(Teachers(2, 1, 0, views)),)


LINEAR = Variant("discriminants 40", components=40)
VARIANTS = (
    Variant("undefended", levels=0),
    # learned together, because their students have as many epochs and views
    Variant("shipped"),
    LINEAR,
    replace(LINEAR, name="discriminants 20", components=20),
    replace(LINEAR, name="discriminants 30, clusters of 7", components=30, size=7),
    replace(LINEAR, name="discriminants 40, records one by one", size=1),
    replace(LINEAR, name="discriminants 40, three classes, nulled", kept=3, nulled=1.0),
    Variant("shipped, three classes, nulled", kept=3, nulled=1.0),
)


def surer(data, split, ensemble, targets, device, bins=10):
    """How much surer each model is of its training records than of dev records with the same target, (K, N).

    The expected confidence is a line through the dev records; the difference is a mean over each tenth of the
    training records by target, so that it depends on no single record.
    """
    excess = np.zeros((split.num_models, len(data)))
    for k in range(split.num_models):
        log_p = answers(ensemble, [k], torch.from_numpy(data.features)[None], device)[0].astype(np.float32)
        train, dev = split.records(k, Role.TRAIN), split.records(k, Role.DEV)
        got = [logit_confidence(log_p[None, own], data.labels[own])[0] for own in (train, dev)]
        said = [logit_confidence(targets[k][None, own], data.labels[own])[0] for own in (train, dev)]
        slope, level = np.polyfit(said[1], got[1], 1)
        residual = got[0] - (level + slope * said[0])
        for part in np.array_split(np.argsort(said[0]), bins):
            excess[k, train[part]] = residual[part].mean()
    return excess


def undefended(data, split, seeds, device, rounds):
    """Models without a defense."""
    pruning = Pruning(Schedule(0.6 if rounds > 1 else 0.0, rounds), recipe=FINETUNE)
    dense = train(data, split.roles, seeds, device)
    done = list(iterate(dense, data, split, pruning, Undefended(), seeds=seeds, device=device))
    return done[-1].ensemble


def students(data, split, variants, seeds, device, rounds):
    """The pruned models of several variants, all trained at once, and the accuracy of each one's targets."""
    first, models = variants[0], split.num_models
    # a round of few epochs runs to its end
    patience = FINETUNE.patience if first.epochs == FINETUNE.epochs else first.epochs
    recipe = replace(FINETUNE, epochs=first.epochs, patience=patience)
    pruning = Pruning(Schedule(0.6 if rounds > 1 else 0.0, rounds), recipe=recipe)
    told, right, made = [], [], dict[Variant, np.ndarray]()
    for variant in variants:
        # variants that differ in what becomes of their targets share the teachers
        source = replace(variant, name="", temperature=1.0, kept=0, sure=0.0, nulled=1.0)
        if source not in made:
            made[source] = one_level(data, split, source, seeds, device)
        own = made[source]
        trains = [split.records(k, Role.TRAIN) for k in range(models)]
        right.append(float(np.mean([
            (own[k, records].argmax(1) == data.labels[records]).mean() for k, records in enumerate(trains)
        ])))  # fmt: skip
        told.append(softened(own, variant))
        print(f"targets of {variant.name}: {100 * right[-1]:.1f}", file=sys.stderr, flush=True)
    targets = np.concatenate(told)
    everyone = Split(np.tile(split.roles, (len(variants), 1)), data.labels, "subsets")
    seeds = list(seeds) * len(variants)
    defense = FromTargets(temperature=1.0, views=first.views, swap=first.swap)
    ensemble, amount = blank(data, seeds), np.zeros((len(seeds), len(data)), np.float32)
    passes = 1 + first.views
    rows, labels = np.arange(targets.shape[1]), np.tile(data.labels, passes)
    for index in range(rounds):
        if amount.any():
            targets[:, rows, labels] -= np.tile(amount, passes)
        ensemble = next(iterate(
            ensemble, data, everyone, pruning, defense, seeds=seeds, teacher_log_probs=targets, device=device,
            first_round=index,
        )).ensemble  # fmt: skip
        if amount.any():
            targets[:, rows, labels] += np.tile(amount, passes)
        for v, variant in enumerate(variants):
            if variant.nulled and index + 1 < rounds:
                own = slice(v * models, (v + 1) * models)
                excess = surer(data, split, ensemble.select(range(v * models, (v + 1) * models)), targets[own], device)
                amount[own] += variant.nulled * np.maximum(excess, 0)
                print(f"{variant.name}: excess {excess[excess != 0].mean():+.3f}", file=sys.stderr, flush=True)
    return [ensemble.select(range(v * models, (v + 1) * models)) for v in range(len(variants))], right


def gaps(confidence, member):
    """Difference between models with and without a record in standard deviations, by tenths of difficulty."""
    inside, outside = (np.nanmean(np.where(side, confidence, np.nan), 0) for side in (member, ~member))
    spread = np.sqrt(np.nanmean(np.nanvar(np.where(member, np.nan, confidence), 0, ddof=1)))
    order = np.argsort(outside)
    tenths = np.array_split(order, 10)
    return (
        [round(float((inside - outside)[own].mean() / spread), 3) for own in tenths],
        float(spread), float((inside - outside).mean()),
    )  # fmt: skip


def figures(logits, data_labels, roles, records, seed, attacks, provenance):
    """TPR at 1 % FPR and AUC of leave-one-out attacks on some records."""
    signals = Signals(logits, data_labels, roles, records, "shared", provenance)
    values = {}
    for name, result in leave_one_out(signals, {a: make_attack(a) for a in attacks}, seed=seed).items():
        inside = [s[m] for s, m in zip(result.scores, result.membership, strict=True)]
        outside = [s[~m] for s, m in zip(result.scores, result.membership, strict=True)]
        values[name] = {
            "auc": float(np.mean([auc(i, o) for i, o in zip(inside, outside, strict=True)])),
            "tpr": float(np.mean([true_positive_rate(i, o, 0.01) for i, o in zip(inside, outside, strict=True)])),
            "pooled_tpr": true_positive_rate(np.concatenate(inside), np.concatenate(outside), 0.01),
        }
    return values


def attacked(row, logits, labels, roles, audited, twins, population, seed):
    """Attack the models of a row, and append it to the results; runs in a process of its own."""
    torch.set_num_threads(1)
    k = len(logits)
    kept = np.concatenate([audited, population])
    confidence, member = logit_confidence(logits, labels), roles == Role.TRAIN
    rows = np.isin(np.arange(len(labels)), audited)
    row["gap"], row["spread"], row["mean_gap"] = gaps(confidence[:, rows], member[:, rows])
    row["twin_gap"] = gaps(confidence[:, twins], member[:, twins])[2]
    provenance = ("variant",) * k
    quiet = np.where(np.isin(np.arange(len(labels)), audited), roles, 0).astype(np.int8)
    row["population"] = figures(logits[:, kept], labels[kept], quiet[:, kept], kept, seed, ("lira", "rmia"), provenance)
    kept = np.concatenate([twins, population])
    quiet = np.where(np.isin(np.arange(len(labels)), twins), roles, 0).astype(np.int8)
    row["twins"] = figures(logits[:, kept], labels[kept], quiet[:, kept], kept, seed, ("lira", "rmia"), provenance)
    unseen = [(logits[j, o].argmax(1) == labels[o]).mean() for j in range(k)
              for o in [audited[roles[j, audited] == Role.AUDIT]]]  # fmt: skip
    seen = [(logits[j, o].argmax(1) == labels[o]).mean() for j in range(k)
            for o in [audited[roles[j, audited] == Role.TRAIN]]]  # fmt: skip
    row["accuracy"], row["train_accuracy"] = float(np.mean(unseen)), float(np.mean(seen))
    return row


def show(row, path):
    with (path / "variants.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    p, t = row["population"], row["twins"]
    print(
        f"{row['data']:9} {row['seed']:3} {row['name']:32} test {100 * row['accuracy']:5.1f} train "
        f"{100 * row['train_accuracy']:5.1f} targets {100 * row['target_accuracy']:5.1f} "
        + " ".join(f"{a} {100 * p[a]['auc']:5.1f} {100 * p[a]['tpr']:5.1f}" for a in p)
        + " twins "
        + " ".join(f"{a} {100 * t[a]['auc']:5.1f} {100 * t[a]['pooled_tpr']:5.1f}" for a in t)
        + f" gap {row['gap'][0]:+.2f} {np.mean(row['gap'][1:]):+.2f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", nargs="*", default=["location"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[21])
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most", type=int, default=12, help="variants whose students are trained together")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    began, jobs, stored = time.perf_counter(), list[Future](), dict[str, np.ndarray]()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that attack
    chosen = [v for v in VARIANTS if not arguments.only or v.name in arguments.only]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for seed in arguments.seeds:
            for name in arguments.sets:
                task = planted(load(arguments.data, name), arguments.models, arguments.pairs, seed)
                for group in grouped(chosen, arguments.most):
                    left = 60 * arguments.minutes - (time.perf_counter() - began)
                    if left < 0:
                        break
                    try:
                        jobs += submitted(pool, task, group, name, seed, arguments, stored)
                    except Exception:  # the next group may do
                        traceback.print_exc()
                    np.savez_compressed(arguments.out / "confidence.npz", **stored)
                    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for job in as_completed(jobs):
            show(job.result(), arguments.out)


def grouped(variants, most):
    """Variants whose students are trained together, at most so many, in their order."""
    groups: list[list[Variant]] = []
    for variant in variants:
        alike = groups and all(
            getattr(groups[-1][0], name) == getattr(variant, name) for name in ("views", "swap", "epochs")
        )
        if alike and groups[-1][0].levels and variant.levels and len(groups[-1]) < most:
            groups[-1].append(variant)
        else:
            groups.append([variant])
    return groups


def submitted(pool, task, group, name, seed, arguments, stored):
    """Train a group of variants, store what its models answer, and let the pool attack them."""
    data, split, audited, twins, _ = task
    start = time.perf_counter()
    population = np.flatnonzero(~(split.roles != 0).any(0))[:POPULATION]
    seeds = [derive_seed(seed, "reference", k) for k in range(arguments.models)]
    if group[0].levels == 0:
        trained, right = [undefended(data, split, seeds, arguments.device, arguments.rounds)], [float("nan")]
    else:
        trained, right = students(data, split, group, seeds, arguments.device, arguments.rounds)
    seconds = (time.perf_counter() - start) / len(group)
    for variant, ensemble, correct in zip(group, trained, right, strict=True):
        inputs = torch.from_numpy(data.features)[None].expand(16, *data.features.shape)
        logits = np.concatenate([
            answers(ensemble, range(k, min(k + 16, arguments.models)), inputs[: min(16, arguments.models - k)],
                    arguments.device)
            for k in range(0, arguments.models, 16)
        ]).astype(np.float32)  # fmt: skip
        row = {"data": name, "seed": seed, **asdict(variant), "target_accuracy": correct, "models": arguments.models,
               "seconds": seconds}  # fmt: skip
        rows = np.concatenate([audited, twins])
        stored[f"{name} {seed} {variant.name}"] = logit_confidence(logits, data.labels)[:, rows].astype(np.float16)
        stored[f"{name} {seed} roles"] = split.roles[:, rows]
        yield pool.submit(attacked, row, logits, data.labels, split.roles, audited, twins, population, seed)


if __name__ == "__main__":
    main()
